/**
 * The machine code assembled from x64.S and arm64.S, as it is mapped into the process.
 *
 * It is checked in so that users need no assembler; a test assembles the sources and compares. After a change there:
 * `as -o x.o x64.S && objcopy -O binary -j .text x.o x.bin` (arm64: the same tools prefixed `aarch64-linux-gnu-`).
 */

/** The architectures that have a trampoline, by Node's names. */
export type Architecture = "x64" | "arm64"

const x64 =
  "4989fc488d5f10488b03488b7b08488b3f488b7318488b53204c8b53284c8b43" +
  "304c8b4b380f0548894340483d01f0ffff73064883c360ebce48f7d8483dc000" +
  "00007307480fa3434872e849891c244989442408bf7f000000b8e70000000f05" +
  "0f0b"

const arm64 =
  "f30300aa14400091882640a9200140f9818a41a9839242a9851e40f9010000d4" +
  "802200f91ffc3fb16200005494820191f6ffff17e00300cb1f0003f1c2000054" +
  "09fc46d3890e098b292540f92925c09ae9fe0737740200a9e00f80d2c80b80d2" +
  "010000d4000020d4"

/** The trampoline's machine code; position independent, its entry is the first byte. */
export const code: Readonly<Record<Architecture, Uint8Array>> = {
  x64: Buffer.from(x64, "hex"),
  arm64: Buffer.from(arm64, "hex")
}
