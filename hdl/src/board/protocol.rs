//! What goes over the line between host and board: frames, operations, replies, registers. Engine, driver and the page `docs/link.md` follow from here.

use std::fmt::Write;

use crate::accelerator::registers::{Access, RegisterEntry, field, markdown_rows, register_table};

/// Between frames, before and behind each.
pub const FLAG: u8 = 0x7E;
/// The next byte is sent exclusive-or'ed with [`ESCAPE_XOR`].
pub const ESCAPE: u8 = 0x7D;
/// See [`ESCAPE`].
pub const ESCAPE_XOR: u8 = 0x20;

/// Bytes of a command before its body: session, sequence, operation.
pub const COMMAND_HEADER: usize = 3;
/// Bytes of a reply before its body: session, sequence, status, expected sequence.
pub const REPLY_HEADER: usize = 4;
/// Bytes of the check behind a frame's content.
pub const CHECK_BYTES: usize = 4;
/// Most bytes of a command, its header included, its check not: the engine's command memory has two halves of 512 bytes.
pub const MAX_COMMAND: usize = 508;
/// Most bytes of a command's body.
pub const MAX_COMMAND_BODY: usize = MAX_COMMAND - COMMAND_HEADER;
/// Most bytes of a reply's body: 63 accumulators.
pub const MAX_REPLY_BODY: usize = 504;
/// Bytes of an accumulator in a reply: two's complement in units of 2^-20; a NaN is 0x8000_0000_0000_0000.
pub const ACCUMULATOR_BYTES: usize = 8;
/// Bytes of a BF16 result or element.
pub const BF16_BYTES: usize = 2;
/// Bytes of a block in the reply to [`Operation::LoadElements`]: payload, scale, tag.
pub const BLOCK_BYTES: usize = 18;
/// Most commands that a host sends before the first of them is answered. The engine tells apart 256 sequence numbers, and executes the next and recognises the last.
pub const MAX_WINDOW: usize = 64;
/// Units from this number on are columns; those below are rows.
pub const FIRST_COLUMN: u8 = 0x80;

/// What an intact content with its check, low byte first, leaves in the CRC-32 register before it is inverted.
pub const CRC_RESIDUE: u32 = 0xDEBB_20E3;
/// The polynomial of CRC-32 (IEEE 802.3), bit-reversed.
pub const CRC_POLYNOMIAL: u32 = 0xEDB8_8320;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($item:ident = $code:literal, $text:literal, $body:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $text] $item = $code),*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$item),*];

            /// The one of a code.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$item),)*
                    _ => None,
                }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => stringify!($item)),* }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$item => $text),* }
            }

            /// What the body holds.
            #[must_use]
            pub const fn body(self) -> &'static str {
                match self { $(Self::$item => $body),* }
            }
        }
    };
}

codes! {
    /// What a command asks for. Numbers of more than a byte go low byte first.
    Operation {
        Open = 0x01, "begin the session of the command's first byte; the next command has the next sequence number",
            "command: none. reply: none";
        ReadRegisters = 0x02, "read registers",
            "command: number of the first (1), how many (1, at most 126). reply: 4 bytes each";
        WriteRegisters = 0x03, "write registers",
            "command: number of the first (1), 4 bytes each. reply: none";
        LoadBlocks = 0x04, "write blocks to the memory of a row (weights) or a column (activations)",
            "command: row, or 0x80 + column (1), address of the first block (2), groups of up to eight blocks: a byte of tags, the first lowest, then each block: FP4 its scale (1) and its payload (8), FP8 its payload (16). reply: none";
        Multiply = 0x05, "multiply tiles of weight rows by tiles of activation rows",
            "command: address of the weights (2), of the activations (2), blocks K of a row (2), tiles of weights (1), tiles of activations (1), 1 for BF16 results or 0 for accumulators (1). reply: for each weight tile, in it each activation tile, in it each column, in it each row: a result (2 or 8)";
        LoadElements = 0x06, "quantize BF16 elements into the memory of a column (boards with a quantizer)",
            "command: 0x80 + column (1), address of the first block (2), number of the first element's block within its row (2), 16 elements (2 each) a block. reply: 18 bytes a block: payload (16), scale (1), tag (1)";
        LoadSensitivities = 0x07, "write the channels' sensitivities (boards with a quantizer)",
            "command: number of the first channel (2), UE4M3 codes (1 each). reply: none";
    }
}

codes! {
    /// How a command fared.
    Status {
        Done = 0x00, "executed", "see the operation";
        Damaged = 0x01, "a frame's check failed, it was too long, or it was cut short; the sequence number means nothing", "none";
        OutOfOrder = 0x02, "the sequence number is neither the expected one nor the last executed one: not executed", "none";
        Closed = 0x03, "no session is open, or another one: not executed", "none";
        Unknown = 0x04, "this board has no such operation: counted, nothing changed", "none";
        Refused = 0x05, "the body has a wrong length, or the results are larger than a reply: counted; memories may have changed", "none";
        Overrun = 0x06, "a frame came while two others waited: not executed; the sequence number means nothing", "none";
    }
}

register_table! {
    ID ReadOnly "0x464D_4742, the letters FGMB" [];
    VERSION ReadOnly "Version of this protocol" [
        field("MINOR", 0, 16, "additions"),
        field("MAJOR", 16, 16, "changes that a driver must know of"),
    ];
    ARRAY ReadOnly "The array" [
        field("ROWS", 0, 8, "rows: output features side by side"),
        field("COLS", 8, 8, "columns: tokens side by side"),
        field("REQUANTIZER", 16, 1, "results can be BF16"),
        field("QUANTIZER", 17, 1, "activations can be BF16"),
        field("HALVES", 18, 1, "the array has eight lanes and takes a block in two steps"),
        field("ACC_BITS", 24, 8, "bits of an accumulator: K up to 16 x 2^(this - 48)"),
    ];
    MEMORY ReadOnly "The memories" [
        field("WEIGHT_BLOCKS", 0, 16, "blocks of a row's memory"),
        field("ACT_BLOCKS", 16, 16, "blocks of a column's memory"),
    ];
    LINE ReadOnly "The line" [
        field("CLOCKS_PER_BIT", 0, 16, "clock cycles of a bit"),
    ];
    FRAMES ReadOnly "Counter: commands executed" [];
    DAMAGED ReadOnly "Counter: frames whose check failed, that were too long, or cut short" [];
    REFUSED ReadOnly "Counter: intact frames that were not executed: closed, out of order, repeated, overrun" [];
    BUSY ReadOnly "Counter: cycles in which a command was executed" [];
    STEPS ReadOnly "Counter: steps of the array, a block pair for each of its elements, or half of one if it has eight lanes" [];
    OUTPUT_SCALE ReadWrite "FP32 bits of M of numerics §5 for BF16 results: 0, or a magnitude from 2^-60 to 2^60 (boards with a requantizer)" [];
    INPUT_SCALE ReadWrite "FP32 bits of M of numerics §3 for BF16 activations: 0, or a magnitude from 2^-60 to 2^60 (boards with a quantizer)" [];
    THRESHOLD_LOW ReadWrite "Low half of the threshold T of numerics §3 (boards with a quantizer)" [];
    THRESHOLD_HIGH ReadWrite "High half of the threshold T" [];
}

/// Number of registers.
pub const REGISTER_COUNT: usize = REGISTERS.len();
/// What `ID` reads.
pub const ID: u32 = 0x464D_4742;
/// What `VERSION` reads: 1.0.
pub const VERSION: u32 = 1 << 16;

/// CRC-32 of some bytes, one after the other from [`Crc::new`]: bitwise, as the engine does it; the twin of its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc(u32);

impl Default for Crc {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc {
    /// Of no bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self(u32::MAX)
    }

    /// With one byte more.
    #[must_use]
    pub const fn push(self, byte: u8) -> Self {
        let mut register = self.0 ^ byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 == 1 { CRC_POLYNOMIAL } else { 0 };
            bit += 1;
        }
        Self(register)
    }

    /// The four bytes that follow the content.
    #[must_use]
    pub const fn check(self) -> [u8; CHECK_BYTES] {
        (!self.0).to_le_bytes()
    }

    /// Whether content and check, all pushed, are intact.
    #[must_use]
    pub const fn is_intact(self) -> bool {
        self.0 == CRC_RESIDUE
    }
}

/// A frame on the line: flag, content and check with flags and escapes in them escaped, flag.
#[must_use]
pub fn encode(content: &[u8]) -> Vec<u8> {
    let check = content
        .iter()
        .fold(Crc::new(), |crc, &byte| crc.push(byte))
        .check();
    let mut bytes = Vec::with_capacity(content.len() + content.len() / 32 + 8);
    bytes.push(FLAG);
    for &byte in content.iter().chain(&check) {
        if byte == FLAG || byte == ESCAPE {
            bytes.extend([ESCAPE, byte ^ ESCAPE_XOR]);
        } else {
            bytes.push(byte);
        }
    }
    bytes.push(FLAG);
    bytes
}

/// What [`Deframer::push`] found at a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A content whose check is right.
    Frame(Vec<u8>),
    /// Bytes between two flags that are no frame: the check is wrong, it is too short or too long, or ends with an escape.
    Damaged,
}

/// Finds frames in a stream of bytes.
#[derive(Clone, Debug)]
pub struct Deframer {
    bytes: Vec<u8>,
    crc: Crc,
    escaped: bool,
    broken: bool,
    limit: usize,
}

impl Deframer {
    /// For contents of at most `limit` bytes, the check not counted.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            crc: Crc::new(),
            escaped: false,
            broken: false,
            limit,
        }
    }

    /// Takes the next byte; `None` as long as no frame ends, and for flags with nothing between them.
    pub fn push(&mut self, byte: u8) -> Option<Received> {
        if byte == FLAG {
            let intact = self.crc.is_intact()
                && !self.escaped
                && !self.broken
                && self.bytes.len() > CHECK_BYTES;
            let empty = self.bytes.is_empty() && !self.escaped && !self.broken;
            let mut bytes = std::mem::take(&mut self.bytes);
            *self = Self::new(self.limit);
            if empty {
                return None;
            }
            if !intact {
                return Some(Received::Damaged);
            }
            bytes.truncate(bytes.len() - CHECK_BYTES);
            return Some(Received::Frame(bytes));
        }
        if byte == ESCAPE {
            self.broken |= self.escaped;
            self.escaped = true;
            return None;
        }
        let byte = if std::mem::take(&mut self.escaped) {
            byte ^ ESCAPE_XOR
        } else {
            byte
        };
        if self.bytes.len() == self.limit + CHECK_BYTES {
            self.broken = true;
            return None;
        }
        self.bytes.push(byte);
        self.crc = self.crc.push(byte);
        None
    }

    /// The line lost a byte or its framing: what has come since the last flag is damaged.
    pub fn damage(&mut self) {
        self.broken = true;
    }
}

/// The protocol as a page of documentation, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# The link of a board\n\nWhat goes over the serial line between host and board. This page is generated from the tables in `hdl::board::protocol`, from which the engine and the driver follow, too.\n\n## Frames\n\n",
    );
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "The line has 8 data bits, no parity, one stop bit. A frame is content and check between two flags 0x{FLAG:02X}; a flag or an escape in it is sent as the escape 0x{ESCAPE:02X} and the byte exclusive-or 0x{ESCAPE_XOR:02X}. \
The check is the CRC-32 of IEEE 802.3 over the content, low byte first (as FCS-32 of RFC 1662). Neighbouring frames may share a flag. Numbers of more than a byte go low byte first.\n\n\
| content | bytes |\n|---|---|\n\
| command | session (1), sequence (1), operation (1), body (up to {MAX_COMMAND_BODY}) |\n\
| reply | session (1), sequence (1), status (1), expected (1), body (up to {MAX_REPLY_BODY}) |\n\n\
The engine answers each frame with one reply. `session` is the engine's, 0 while none is open; `sequence` the command's; `expected` the sequence number that the engine executes next: all commands before it are done.\n\n\
**Exactly once.** The engine executes a command only if its session is the open one and its sequence number the expected one. A command with the number of the last executed one is not executed again: it is answered with the same reply. So a host repeats what was not answered, \
and neither a lost command nor a lost reply is executed twice or left out. The host sends at most {MAX_WINDOW} commands ahead of the first unanswered one, and none behind one whose reply has a body.\n\n\
**Sessions.** After reset no session is open, and everything but `Open` is answered `Closed`: a host that is answered so knows that the board has lost its memories. `Open` with the session that is open changes nothing; with another one the next sequence number is expected."
    );
    text.push_str(
        "\n## Operations\n\n| code | operation | does | bodies (bytes) |\n|---|---|---|---|\n",
    );
    for operation in Operation::ALL {
        let _ = writeln!(
            text,
            "| 0x{:02X} | `{}` | {} | {} |",
            *operation as u8,
            operation.name(),
            operation.meaning(),
            operation.body()
        );
    }
    text.push_str("\n## Statuses\n\n| code | status | meaning |\n|---|---|---|\n");
    for status in Status::ALL {
        let _ = writeln!(
            text,
            "| 0x{:02X} | `{}` | {} |",
            *status as u8,
            status.name(),
            status.meaning()
        );
    }
    text.push_str("\nOnly `Done` has a body.\n\n## Registers\n\n| number | register | access | meaning |\n|---|---|---|---|\n");
    text += &markdown_rows(REGISTERS, |place| place.to_string());
    text.push_str("\nRegisters have 32 bits. Counters count from reset and wrap; numbers without a register read 0, and writing them or a register that is only read changes nothing.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_the_tables() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/link.md");
        if std::env::var_os("FGMP_WRITE_DOCS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(page).unwrap_or_default(),
            markdown(),
            "run this test with FGMP_WRITE_DOCS=1"
        );
    }

    #[test]
    fn the_check_is_the_crc_of_ieee_802_3() {
        // The check value that every catalogue of CRCs gives for these nine digits.
        let crc = b"123456789"
            .iter()
            .fold(Crc::new(), |crc, &byte| crc.push(byte));
        assert_eq!(crc.check(), 0xCBF4_3926_u32.to_le_bytes());
        let whole = crc.check().iter().fold(crc, |crc, &byte| crc.push(byte));
        assert!(whole.is_intact());
    }

    #[test]
    fn frames_come_back_and_damage_is_seen() {
        let content: Vec<u8> = (0..=255).chain([FLAG, ESCAPE, FLAG, 0x5E, 0x5D]).collect();
        let line = encode(&content);
        assert_eq!(line.iter().filter(|&&byte| byte == FLAG).count(), 2);
        let mut deframer = Deframer::new(300);
        let mut found = Vec::new();
        for &byte in line.iter().chain(&line[1..]) {
            found.extend(deframer.push(byte));
        }
        let frame = Received::Frame(content);
        assert_eq!(found, [frame.clone(), frame]);
        for place in 1..line.len() - 1 {
            for bit in 0..8 {
                let mut broken = line.clone();
                broken[place] ^= 1 << bit;
                let mut deframer = Deframer::new(300);
                let found: Vec<_> = broken
                    .iter()
                    .filter_map(|&byte| deframer.push(byte))
                    .collect();
                assert!(
                    found.iter().all(|it| *it == Received::Damaged) && !found.is_empty(),
                    "byte {place}, bit {bit}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn frames_beyond_the_limit_are_damaged() {
        let mut deframer = Deframer::new(8);
        let found: Vec<_> = encode(&[1; 8])
            .into_iter()
            .filter_map(|byte| deframer.push(byte))
            .collect();
        assert_eq!(found, [Received::Frame(vec![1; 8])]);
        let found: Vec<_> = encode(&[1; 9])
            .into_iter()
            .filter_map(|byte| deframer.push(byte))
            .collect();
        assert_eq!(found, [Received::Damaged]);
    }
}
