//! What the programs of this folder share: the contract of an external fault test, and the crate's own timings.

pub mod json;
pub mod lines;
pub mod log;
pub mod peer;
pub mod server;
pub mod settings;
pub mod swapper;
pub mod timeline;
