//! The register map: one table, from which the decoder, the documentation, the driver's constants and a C header follow.

use crate::prelude::*;
use std::fmt::Write;

/// What a register lets the host do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Written by the host, read back as written.
    ReadWrite,
    /// Driven by the hardware.
    ReadOnly,
    /// A write does something; reads give 0.
    WriteOnly,
    /// Driven by the hardware; writing a one clears the bit.
    WriteOneToClear,
}

impl Access {
    /// As the documentation writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "read/write",
            Self::ReadOnly => "read",
            Self::WriteOnly => "write",
            Self::WriteOneToClear => "read, write 1 to clear",
        }
    }
}

/// Bits of a register that have a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in capitals, unique within the register.
    pub name: &'static str,
    /// Lowest bit.
    pub low: usize,
    /// Number of bits.
    pub width: usize,
    /// What it means.
    pub doc: &'static str,
}

/// A 32-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterEntry {
    /// Name in capitals.
    pub name: &'static str,
    /// Access.
    pub access: Access,
    /// What it is for.
    pub doc: &'static str,
    /// Its fields; none if the register is one number.
    pub fields: &'static [Field],
}

/// A field, for tables.
pub(crate) const fn field(
    name: &'static str,
    low: usize,
    width: usize,
    doc: &'static str,
) -> Field {
    Field {
        name,
        low,
        width,
        doc,
    }
}

/// A module's table of registers, with the module `place` of their numbers.
macro_rules! register_table {
    ($($name:ident $access:ident $doc:literal [$($fields:expr),* $(,)?];)*) => {
        /// Places of the registers in [`REGISTERS`].
        pub mod place {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Place { $($name),* }
            $(
                #[doc = $doc]
                pub const $name: usize = Place::$name as usize;
            )*
        }
        /// All registers by place.
        pub const REGISTERS: &[RegisterEntry] = &[$(RegisterEntry {
            name: stringify!($name),
            access: Access::$access,
            doc: $doc,
            fields: &[$($fields),*],
        }),*];
    };
}

pub(crate) use register_table;

register_table! {
    ID ReadOnly "0x464D_4750, the letters FMGP" [];
    VERSION ReadOnly "Version of this map" [
        field("MINOR", 0, 16, "additions"),
        field("MAJOR", 16, 16, "changes that a driver must know of"),
    ];
    ARRAY ReadOnly "The array" [
        field("ROWS", 0, 8, "rows: output features side by side"),
        field("COLS", 8, 8, "columns: tokens side by side"),
        field("WEIGHT_PORTS", 16, 8, "weight ports"),
        field("QUANTIZER_LANES", 24, 8, "elements that the quantizer takes a cycle"),
    ];
    MEMORY ReadOnly "The memories" [
        field("WEIGHT_BLOCKS", 0, 16, "most blocks of a weight row, K / 16"),
        field("ACT_BLOCKS", 16, 16, "most blocks of all activations in a column"),
    ];
    RESULT_ELEMENTS ReadOnly "Elements of the result memory" [];
    CONTROL WriteOnly "Commands; several may be given in one write" [
        field("START", 0, 1, "queue the job that the job registers describe"),
        field("ABORT", 1, 1, "drop all jobs and everything on its way, words in the output's memory excepted"),
        field("CLEAR_COUNTERS", 2, 1, "set all counters to 0"),
        field("CLEAR_STATUS", 3, 1, "clear ERROR, NAN and BAD_SCALE"),
    ];
    STATUS ReadOnly "State" [
        field("BUSY", 0, 1, "a job is queued or under way"),
        field("FULL", 1, 1, "two jobs are outstanding: START would be refused"),
        field("CHECKING", 2, 1, "a job is being checked; START would be refused"),
        field("NAN", 3, 1, "a result was NaN; stays until cleared"),
        field("LAST_MISMATCH", 4, 1, "internal fault of the streams; stays until reset"),
        field("BAD_SCALE", 5, 1, "a scale byte was no UE4M3 code; stays until cleared"),
    ];
    ERROR ReadOnly "Why the last refused job was refused; 0 if none was. See the codes below" [];
    IRQ_ENABLE ReadWrite "Which events raise the interrupt" [
        field("DONE", 0, 1, "a job is done"),
        field("ERROR", 1, 1, "a job was refused"),
    ];
    IRQ_STATUS WriteOneToClear "Events since they were cleared" [
        field("DONE", 0, 1, "a job is done"),
        field("ERROR", 1, 1, "a job was refused"),
    ];
    JOBS_DONE ReadOnly "Jobs done since reset" [];
    TOKENS ReadWrite "Job: tokens M, 1 to 65535" [];
    FEATURES ReadWrite "Job: output features N, 0 to 65535; 0 only loads activations" [];
    BLOCKS ReadWrite "Job: blocks of a row, K / 16 rounded up" [];
    FLAGS ReadWrite "Job: where activations come from and results go to" [
        field("SOURCE", 0, 2, "activations: 0 packed streams, 1 BF16 stream through the quantizer, 2 the last results through the quantizer, 3 those already there"),
        field("SINK", 2, 2, "results: 0 BF16 stream, 1 accumulators, 2 result memory"),
        field("SEND_PACKED", 4, 1, "send the quantized activations to the packed output streams, too"),
        field("SENSITIVITY_BANK", 5, 1, "bank of the sensitivity memory that belongs to these activations"),
    ];
    OUTPUT_SCALE ReadWrite "Job: FP32 bits of M of numerics §5: 0, or a magnitude from 2^-60 to 2^60" [];
    INPUT_SCALE ReadWrite "Job: FP32 bits of M of numerics §3, for activations that are quantized: 0, or a magnitude from 2^-60 to 2^60" [];
    THRESHOLD_LOW ReadWrite "Job: low half of the threshold T of numerics §3" [];
    THRESHOLD_HIGH ReadWrite "Job: high half of the threshold T" [];
    WEIGHT_ALIGN ReadWrite "Job: where the weights begin in the first beats of their streams, on every port" [
        field("PAYLOAD", 0, 1, "words that precede them"),
        field("SCALE", 8, 3, "scale bytes that precede them"),
        field("TAG", 16, 6, "tag bits that precede them"),
    ];
    ACT_ALIGN ReadWrite "Job: where packed activations begin in the first beats of their streams" [
        field("PAYLOAD", 0, 1, "words that precede them"),
        field("SCALE", 8, 3, "scale bytes that precede them"),
        field("TAG", 16, 6, "tag bits that precede them"),
    ];
    SENSITIVITY_ADDRESS ReadWrite "Place of the next write to the sensitivity memory: bank in bit 15, group of four channels below" [];
    SENSITIVITY_DATA WriteOnly "Four UE4M3 codes, the first channel lowest; the address then counts up" [];
    CYCLES_BUSY ReadOnly "Counter: cycles with a job outstanding" [];
    STEPS ReadOnly "Counter: cycles in which the array took a block pair for each of its elements" [];
    FILLS ReadOnly "Counter: cycles of a job under way before its first step" [];
    WAITS_WEIGHTS ReadOnly "Counter: cycles between a job's first and last step that waited for weights" [];
    WAITS_ACTS ReadOnly "Counter: cycles between a job's first and last step that waited for activations" [];
    WAITS_RESULTS ReadOnly "Counter: cycles between a job's first and last step that waited for results to leave" [];
    PAIRS_FP4_FP4 ReadOnly "Counter: block pairs, weight FP4, activation FP4" [];
    PAIRS_FP4_FP8 ReadOnly "Counter: block pairs, weight FP4, activation FP8" [];
    PAIRS_FP8_FP4 ReadOnly "Counter: block pairs, weight FP8, activation FP4" [];
    PAIRS_FP8_FP8 ReadOnly "Counter: block pairs, weight FP8, activation FP8" [];
    QUANTIZED_FP4 ReadOnly "Counter: blocks that the quantizer made FP4" [];
    QUANTIZED_FP8 ReadOnly "Counter: blocks that the quantizer made FP8" [];
    RESULTS ReadOnly "Counter: results of the matrices" [];
    BYTES_WEIGHTS ReadOnly "Counter: bytes taken from the weight streams" [];
    BYTES_ACTS ReadOnly "Counter: bytes taken from the packed activation streams" [];
    BYTES_ELEMENTS ReadOnly "Counter: bytes taken from the BF16 stream" [];
    BYTES_RESULTS ReadOnly "Counter: bytes given to the result stream" [];
    BYTES_PACKED ReadOnly "Counter: bytes given to the packed output streams" [];
}

/// The bits of a field, for constants of drivers: a name that is not in the table does not compile there.
///
/// # Panics
/// The register has no such field.
#[must_use]
pub const fn mask(register: usize, field: &str) -> u32 {
    let fields = REGISTERS[register].fields;
    let mut at = 0;
    while at < fields.len() {
        if same(fields[at].name, field) {
            return (u32::MAX >> (32 - fields[at].width)) << fields[at].low;
        }
        at += 1;
    }
    // A constant that panics is an error of compilation.
    #[allow(clippy::panic)]
    {
        panic!("the register has no such field")
    }
}

/// Equality of strings that constants can use.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Number of registers.
pub const COUNT: usize = REGISTERS.len();
/// Bits of an AXI4-Lite address: the map takes 256 bytes.
pub const AXIL_ADDRESS: usize = 8;
/// First counter.
pub const FIRST_COUNTER: usize = place::CYCLES_BUSY;
/// Number of counters.
pub const COUNTERS: usize = COUNT - FIRST_COUNTER;
/// What `ID` reads.
pub const ID: u64 = 0x464D_4750;
/// What `VERSION` reads: 1.0.
pub const VERSION: u64 = 1 << 16;

/// Byte address of a register, from its place.
#[must_use]
pub const fn address(place: usize) -> u32 {
    4 * place as u32
}

macro_rules! error_codes {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        /// Why a job is refused: what the register `ERROR` reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum JobError {
            $(#[doc = $doc] $name = $code),*
        }
        impl JobError {
            /// All codes with their meaning.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $doc)),*];

            /// The error of a code; `None` for 0 and for codes without a meaning.
            #[must_use]
            pub fn from_code(code: u32) -> Option<Self> {
                Self::ALL.iter().map(|(error, _)| *error).find(|error| *error as u32 == code)
            }

            /// Its name as the C header writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc),* }
            }
        }
    };
}

error_codes! {
    Full = 1, "two jobs are outstanding, or one is being checked";
    Tokens = 2, "TOKENS is 0 or above 65535";
    Blocks = 3, "BLOCKS is 0, or above what the weight memory or the accumulator holds";
    Features = 4, "FEATURES is above 65535";
    OutputScale = 5, "OUTPUT_SCALE is neither 0 nor of a magnitude from 2^-60 to 2^60";
    InputScale = 6, "INPUT_SCALE is neither 0 nor of a magnitude from 2^-60 to 2^60";
    Flags = 7, "FLAGS: no such sink, an unknown bit, or SEND_PACKED for activations that are not quantized";
    Reuse = 8, "no activations of this shape are there to be used again";
    Chain = 9, "no results of this shape are in the result memory";
    ActCapacity = 10, "the activations don't fit their memory";
    ResultCapacity = 11, "the results don't fit their memory";
}

fn upper(name: &str) -> String {
    let mut text = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// Registers and their fields as definitions of C, with what names begin with and each register's byte address.
pub(crate) fn c_definitions(
    registers: &[RegisterEntry],
    prefix: &str,
    address: impl Fn(usize) -> u32,
) -> String {
    let mut text = String::new();
    for (place, register) in registers.iter().enumerate() {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "\n/* {} ({}) */\n#define {prefix}{} 0x{:02X}u",
            register.doc,
            register.access.name(),
            register.name,
            address(place)
        );
        for field in register.fields {
            let _ = writeln!(
                text,
                "#define {prefix}{0}_{1}_SHIFT {2}u /* {3} */\n#define {prefix}{0}_{1}_MASK 0x{4:08X}u",
                register.name,
                field.name,
                field.low,
                field.doc,
                ((1_u64 << field.width) - 1) << field.low
            );
        }
    }
    text
}

/// The map as a C header.
#[must_use]
pub fn c_header() -> String {
    let mut text = String::from(
        "/* Registers of fgmp_accelerator: byte addresses, fields, error codes. Generated. */\n#ifndef FGMP_REGISTERS_H\n#define FGMP_REGISTERS_H\n",
    );
    text += &c_definitions(REGISTERS, "FGMP_", address);
    text.push_str("\n/* What FGMP_ERROR reads. */\n");
    for (error, doc) in JobError::ALL {
        let _ = writeln!(
            text,
            "#define FGMP_ERROR_{} {}u /* {doc} */",
            upper(error.name()),
            *error as u32
        );
    }
    text.push_str("\n#endif\n");
    text
}

/// The lines of a table of registers and their fields, in Markdown: what a host calls the register, its name, access, meaning.
pub(crate) fn markdown_rows(
    registers: &[RegisterEntry],
    called: impl Fn(usize) -> String,
) -> String {
    let mut text = String::new();
    for (place, register) in registers.iter().enumerate() {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            called(place),
            register.name,
            register.access.name(),
            register.doc
        );
        for field in register.fields {
            let bits = if field.width == 1 {
                field.low.to_string()
            } else {
                format!("{}:{}", field.low + field.width - 1, field.low)
            };
            let _ = writeln!(text, "| | `{}` [{bits}] | | {} |", field.name, field.doc);
        }
    }
    text
}

/// The map as a page of documentation, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Registers of the accelerator\n\nAXI4-Lite, 32-bit data, 8-bit addresses. An address without a register, and a write to one that is only read, answers SLVERR and changes nothing. \
Byte strobes are honoured. This page is generated from the table in `hdl::accelerator::registers`, like the decoder and `fgmp_registers.h` in the bundle.\n\n\
| address | register | access | meaning |\n|---|---|---|---|\n",
    );
    text += &markdown_rows(REGISTERS, |place| format!("0x{:02X}", address(place)));
    text.push_str("\nCounters have 32 bits and wrap.\n\n## Error codes\n\n| `ERROR` | name | the job was refused because |\n|---|---|---|\n");
    for (error, doc) in JobError::ALL {
        let _ = writeln!(
            text,
            "| {} | `{}` | {doc} |",
            *error as u32,
            upper(error.name())
        );
    }
    text
}

/// AXI4-Lite slave with the registers of the table.
///
/// Registers that the host writes are kept here. What the hardware drives comes in on `status`, by place; what a write does goes out as a strobe.
#[derive(LogicBlock, PortAccess)]
pub struct RegisterFile {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Write address is valid.
    pub awvalid: Signal<In, Bit>,
    /// It is taken.
    pub awready: Signal<Out, Bit>,
    /// Byte address.
    pub awaddr: Signal<In, Bits<AXIL_ADDRESS>>,
    /// Write data is valid.
    pub wvalid: Signal<In, Bit>,
    /// It is taken.
    pub wready: Signal<Out, Bit>,
    /// The data.
    pub wdata: Signal<In, Bits<32>>,
    /// Its bytes that count.
    pub wstrb: Signal<In, Bits<4>>,
    /// Write response is valid.
    pub bvalid: Signal<Out, Bit>,
    /// It is taken.
    pub bready: Signal<In, Bit>,
    /// 0 is OKAY, 2 SLVERR.
    pub bresp: Signal<Out, Bits<2>>,
    /// Read address is valid.
    pub arvalid: Signal<In, Bit>,
    /// It is taken.
    pub arready: Signal<Out, Bit>,
    /// Byte address.
    pub araddr: Signal<In, Bits<AXIL_ADDRESS>>,
    /// Read data is valid.
    pub rvalid: Signal<Out, Bit>,
    /// It is taken.
    pub rready: Signal<In, Bit>,
    /// The data.
    pub rdata: Signal<Out, Bits<32>>,
    /// 0 is OKAY, 2 SLVERR.
    pub rresp: Signal<Out, Bits<2>>,
    /// Writes wait.
    pub hold: Signal<In, Bit>,
    /// What the hardware drives, by place; other places are ignored.
    pub status: Vec<Signal<In, Bits<32>>>,
    /// What the host wrote, by place; 0 where it can't.
    pub value: Vec<Signal<Out, Bits<32>>>,
    /// A write to this place happens.
    pub strobe: Vec<Signal<Out, Bit>>,
    /// What it writes; bytes that don't count are 0.
    pub written: Signal<Out, Bits<32>>,

    // Byte by byte, so that a byte strobe is a clock enable.
    kept: Vec<Register<Bits<8>>>,
    kept_value: Vec<Signal<Local, Bits<32>>>,
    next_sensitivity: Signal<Local, Bits<32>>,
    writable: Constant<Bits<COUNT>>,
    driven: Constant<Bits<COUNT>>,
    response: Register<Bit>,
    response_error: DataRegister<Bit>,
    answer: Register<Bit>,
    answer_error: DataRegister<Bit>,
    answer_data: DataRegister<Bits<32>>,
    read_mux: MuxN<Bits<32>, 6>,
    known: MuxN<Bits<1>, 6>,
    accepts: MuxN<Bits<1>, 6>,
    takes_write: Constant<Bits<COUNT>>,
    byte_mask: Signal<Local, Bits<32>>,
    data: Signal<Local, Bits<32>>,
    write_place: Signal<Local, Bits<6>>,
    read_place: Signal<Local, Bits<6>>,
    write_now: Signal<Local, Bit>,
    read_now: Signal<Local, Bit>,
    write_fits: Signal<Local, Bit>,
    read_fits: Signal<Local, Bit>,
}

impl Default for RegisterFile {
    fn default() -> Self {
        fn flags(of: impl Fn(Access) -> bool) -> Constant<Bits<COUNT>> {
            let bits = REGISTERS
                .iter()
                .enumerate()
                .map(|(place, register)| u64::from(of(register.access)) << place)
                .sum::<u64>();
            Constant::new(bits.into())
        }
        Self {
            clock: Default::default(),
            reset: Default::default(),
            awvalid: Default::default(),
            awready: Default::default(),
            awaddr: Default::default(),
            wvalid: Default::default(),
            wready: Default::default(),
            wdata: Default::default(),
            wstrb: Default::default(),
            bvalid: Default::default(),
            bready: Default::default(),
            bresp: Default::default(),
            arvalid: Default::default(),
            arready: Default::default(),
            araddr: Default::default(),
            rvalid: Default::default(),
            rready: Default::default(),
            rdata: Default::default(),
            rresp: Default::default(),
            hold: Default::default(),
            status: (0..COUNT).map(|_| Default::default()).collect(),
            value: (0..COUNT).map(|_| Default::default()).collect(),
            strobe: (0..COUNT).map(|_| Default::default()).collect(),
            written: Default::default(),
            kept: (0..4 * COUNT).map(|_| Default::default()).collect(),
            kept_value: (0..COUNT).map(|_| Default::default()).collect(),
            next_sensitivity: Default::default(),
            writable: flags(|access| access == Access::ReadWrite),
            driven: flags(|access| matches!(access, Access::ReadOnly | Access::WriteOneToClear)),
            response: Default::default(),
            response_error: Default::default(),
            answer: Default::default(),
            answer_error: Default::default(),
            answer_data: Default::default(),
            read_mux: MuxN::new(COUNT),
            known: MuxN::new(COUNT),
            accepts: MuxN::new(COUNT),
            takes_write: flags(|access| access != Access::ReadOnly),
            byte_mask: Default::default(),
            data: Default::default(),
            write_place: Default::default(),
            read_place: Default::default(),
            write_now: Default::default(),
            read_now: Default::default(),
            write_fits: Default::default(),
            read_fits: Default::default(),
        }
    }
}

/// Registers behind AXI4-Lite, 32-bit data and 8-bit byte addresses. One write and one read may be outstanding; each takes two cycles.
///
/// An address without a register, and a write to one that is only read, answers SLVERR and changes nothing. Byte strobes are honoured.
/// `status` brings what the hardware drives, by place (address / 4); `value` and `strobe` tell what the host wrote.
#[kernel]
impl Logic for RegisterFile {
    fn update(&mut self) {
        registers!(self, clock, reset, response, answer);
        data_registers!(self, clock, response_error, answer_error, answer_data);

        // A write happens when address and data are there and the last response has left.
        self.write_now.next = self.awvalid.val()
            && self.wvalid.val()
            && !self.response.q.val()
            && !self.hold.val()
            && !self.reset.val();
        self.awready.next = self.write_now.val();
        self.wready.next = self.write_now.val();
        self.write_place.next = self.awaddr.val().get_bits::<6>(2);
        self.accepts.select.next = self.write_place.val();
        self.write_fits.next = self.accepts.y.val().any();
        self.byte_mask.next = 0.into();
        if self.wstrb.val().get_bit(0) {
            self.byte_mask.next = self.byte_mask.val() | 0xFF;
        }
        if self.wstrb.val().get_bit(1) {
            self.byte_mask.next = self.byte_mask.val() | 0xFF00;
        }
        if self.wstrb.val().get_bit(2) {
            self.byte_mask.next = self.byte_mask.val() | 0xFF_0000;
        }
        if self.wstrb.val().get_bit(3) {
            self.byte_mask.next = self.byte_mask.val() | 0xFF00_0000_u64;
        }
        self.data.next = self.wdata.val() & self.byte_mask.val();
        self.written.next = self.data.val();
        if self.response.q.val() && self.bready.val() {
            self.response.d.next = false;
        }
        if self.write_now.val() {
            self.response.d.next = true;
            self.response_error.d.next = !self.write_fits.val();
        }
        self.bvalid.next = self.response.q.val();
        self.bresp.next = 0.into();
        if self.response_error.q.val() {
            self.bresp.next = 2.into();
        }

        // A read is answered in the next cycle.
        self.read_now.next = self.arvalid.val() && !self.answer.q.val() && !self.reset.val();
        self.arready.next = self.read_now.val();
        self.read_place.next = self.araddr.val().get_bits::<6>(2);
        self.known.select.next = self.read_place.val();
        self.read_fits.next = self.known.y.val().any();
        self.read_mux.select.next = self.read_place.val();
        if self.answer.q.val() && self.rready.val() {
            self.answer.d.next = false;
        }
        if self.read_now.val() {
            self.answer.d.next = true;
            self.answer_error.d.next = !self.read_fits.val();
            self.answer_data.d.next = self.read_mux.y.val();
        }
        self.rvalid.next = self.answer.q.val();
        self.rdata.next = self.answer_data.q.val();
        self.rresp.next = 0.into();
        if self.answer_error.q.val() {
            self.rresp.next = 2.into();
        }

        for i in 0..COUNT {
            self.kept_value[i].next = bit_cast::<32, 8>(self.kept[4 * i].q.val())
                | (bit_cast::<32, 8>(self.kept[4 * i + 1].q.val()) << 8)
                | (bit_cast::<32, 8>(self.kept[4 * i + 2].q.val()) << 16)
                | (bit_cast::<32, 8>(self.kept[4 * i + 3].q.val()) << 24);
            for byte in 0..4 {
                registers!(self, clock, reset, kept[4 * i + byte]);
                if self.write_now.val()
                    && self.write_place.val() == i.to_bits()
                    && self.writable.val().get_bit(i)
                    && self.wstrb.val().get_bit(byte)
                {
                    self.kept[4 * i + byte].d.next = self.wdata.val().get_bits::<8>(8 * byte);
                }
            }
            self.accepts.a[i].next = self.takes_write.val().get_bit(i).into();
            self.known.a[i].next = 1.into();
            self.read_mux.a[i].next = self.kept_value[i].val();
            if self.driven.val().get_bit(i) {
                self.read_mux.a[i].next = self.status[i].val();
            }
            self.value[i].next = self.kept_value[i].val();
            self.strobe[i].next = self.write_now.val()
                && self.write_place.val() == i.to_bits()
                && self.takes_write.val().get_bit(i);
        }
        self.next_sensitivity.next = self.kept_value[SENSITIVITY_ADDRESS_PLACE].val() + 1;
        if self.write_now.val() && self.write_place.val() == SENSITIVITY_DATA_PLACE {
            for byte in 0..4 {
                self.kept[4 * SENSITIVITY_ADDRESS_PLACE + byte].d.next =
                    self.next_sensitivity.val().get_bits::<8>(8 * byte);
            }
        }
    }
}

const SENSITIVITY_ADDRESS_PLACE: usize = place::SENSITIVITY_ADDRESS;
const SENSITIVITY_DATA_PLACE: u64 = place::SENSITIVITY_DATA as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_table() {
        const START: u32 = mask(place::CONTROL, "START");
        assert_eq!(START, 1);
        assert_eq!(mask(place::STATUS, "BAD_SCALE"), 0x20);
        assert_eq!(mask(place::WEIGHT_ALIGN, "TAG"), 0x3F_0000);
        assert!(std::panic::catch_unwind(|| mask(place::STATUS, "STOP")).is_err());
    }

    #[test]
    fn fields_lie_within_their_register_and_apart() {
        for register in REGISTERS {
            let mut used = 0_u64;
            for field in register.fields {
                let mask = ((1 << field.width) - 1) << field.low;
                assert_eq!(used & mask, 0, "{}.{}", register.name, field.name);
                assert!(field.low + field.width <= 32);
                used |= mask;
            }
        }
        const { assert!(COUNT <= 64, "places have six bits") };
        assert_eq!(REGISTERS[place::TOKENS].name, "TOKENS");
        assert_eq!(COUNTERS, 18);
    }

    #[test]
    fn the_page_in_the_book_is_this_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/registers.md");
        if std::env::var_os("FGMP_WRITE_DOCS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(page).unwrap(),
            markdown(),
            "run this test with FGMP_WRITE_DOCS=1"
        );
    }

    #[test]
    fn the_header_names_every_register_and_code() {
        let header = c_header();
        for (place, register) in REGISTERS.iter().enumerate() {
            let line = format!("#define FGMP_{} 0x{:02X}u\n", register.name, address(place));
            assert!(header.contains(&line), "{line}");
        }
        assert!(header.contains("#define FGMP_FLAGS_SINK_MASK 0x0000000Cu"));
        assert!(header.contains("#define FGMP_ERROR_ACT_CAPACITY 10u"));
    }

    #[test]
    fn codes_are_distinct_and_found_again() {
        for (error, meaning) in JobError::ALL {
            assert_eq!(JobError::from_code(*error as u32), Some(*error));
            assert_eq!(error.meaning(), *meaning);
        }
        assert_eq!(JobError::from_code(0), None);
    }
}
