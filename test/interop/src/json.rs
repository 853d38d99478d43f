//! Lines of JSON on a stream: flat objects, which is all that the programs here print.

use std::fmt::Write;

/// One flat object under construction; fields appear in the order they were added.
#[derive(Default)]
pub struct Object(String);

impl Object {
    pub fn event(name: &str) -> Self {
        Self::default().text("event", name)
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, &quoted(value))
    }

    pub fn text_or_null(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.raw(key, "null"),
        }
    }

    pub fn boolean(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    pub fn pid(self, key: &str, value: Option<u32>) -> Self {
        self.raw(key, &value.map_or_else(|| "null".into(), |pid| pid.to_string()))
    }

    /// Milliseconds with three digits after the point, or null.
    pub fn milliseconds(self, key: &str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.raw(key, &format!("{value:.3}")),
            None => self.raw(key, "null"),
        }
    }

    pub fn line(&self) -> String {
        format!("{{{}}}\n", self.0)
    }

    fn raw(mut self, key: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(value);
        self
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
