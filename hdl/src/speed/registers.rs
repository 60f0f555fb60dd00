//! The register map of SPEED's top: one table, from which the decoder and the documentation follow.

use super::bus::HOST_ADDRESS;
use crate::accelerator::registers::{
    AXIL_ADDRESS, Access, RegisterEntry, c_definitions, field, markdown_rows, register_table,
};
use crate::prelude::*;

register_table! {
    ID ReadOnly "0x464D_4753, the letters FMGS" [];
    VERSION ReadOnly "Version of this map" [
        field("MINOR", 0, 16, "additions"),
        field("MAJOR", 16, 16, "changes that a driver must know of"),
    ];
    SHAPE ReadOnly "The pipeline" [
        field("REPETITIONS", 0, 8, "stages: repetitions of the group of layers"),
        field("POSITION_BITS", 8, 8, "bits of a position"),
        field("TOKEN_BITS", 16, 8, "bits of a token"),
    ];
    PROGRAM_WORDS ReadOnly "Words of the program memory" [];
    CONTROL WriteOnly "Commands" [
        field("START", 0, 1, "begin the sequence that POSITION, TOKEN, LAST_POSITION and END_TOKEN describe"),
        field("ABORT", 1, 1, "drop the sequence and stop the player; a row on offer stays until it is taken, and the accelerator's jobs are its own ABORT's"),
        field("PLAY", 2, 1, "play the program once for ROWS tokens, without a sequence"),
        field("CLEAR_COUNTERS", 3, 1, "set the counters of passes to 0"),
    ];
    STATUS ReadOnly "State" [
        field("ACTIVE", 0, 1, "a sequence is under way"),
        field("DONE", 1, 1, "the last sequence came to its end"),
        field("PLAYING", 2, 1, "the player has the accelerator's registers: the host's accesses to them answer SLVERR"),
        field("REFUSED", 3, 1, "the last START or PLAY was refused: something was under way, or no position was left"),
        field("FAULT", 4, 1, "the player stopped because of ERROR, and the sequence was dropped"),
    ];
    ERROR ReadOnly "Why the player stopped, since it last began; 0 if it did not" [
        field("JOB", 0, 8, "the accelerator's ERROR"),
        field("BUS", 8, 1, "the accelerator answered SLVERR"),
        field("PROGRAM", 9, 1, "the program has an unknown operation, a write of no words, or no end"),
    ];
    POSITION ReadWrite "Start: position of the prompt's last token" [];
    TOKEN ReadWrite "Start: that token" [];
    LAST_POSITION ReadWrite "Start: last position that gets a token, the sequence's positions less one" [];
    END_TOKEN ReadWrite "Start: what ends the sequence" [
        field("TOKEN", 0, 31, "the token that ends it when it is committed"),
        field("ENABLE", 31, 1, "there is one"),
    ];
    ROWS ReadWrite "PLAY: tokens of each job, 1 to 65535" [];
    PROGRAM_ADDRESS ReadWrite "Place of the next write to the program memory" [];
    PROGRAM_DATA WriteOnly "A word of the program; the address then counts up" [];
    LAST_PASS ReadOnly "What the last pass changed" [
        field("FLIP", 0, 1, "an entry's class was another than a pass ago"),
        field("STAGE", 1, 3, "stage of the oldest of them"),
        field("FLUSHED", 4, 4, "entries dropped"),
        field("COMMITTED", 8, 1, "a token was committed"),
    ];
    TAIL_0 ReadOnly "Positions whose keys and values hold in the first repetition, from 0 on" [];
    TAIL_1 ReadOnly "The same in the second; 0 where there is none, as in the following" [];
    TAIL_2 ReadOnly "In the third" [];
    TAIL_3 ReadOnly "In the fourth" [];
    TAIL_4 ReadOnly "In the fifth" [];
    TAIL_5 ReadOnly "In the sixth" [];
    TAIL_6 ReadOnly "In the seventh" [];
    TAIL_7 ReadOnly "In the eighth" [];
    PASSES ReadOnly "Counter: passes begun" [];
    ROWS_RUN ReadOnly "Counter: rows in them" [];
    BUBBLES ReadOnly "Counter: stages without an entry in them" [];
    FLUSHED ReadOnly "Counter: entries dropped" [];
    COMMITTED ReadOnly "Counter: tokens committed" [];
    FLIPS_1 ReadOnly "Counter: passes in which an entry of stage 1 was the oldest whose class changed; 0 where there is none, as in the following" [];
    FLIPS_2 ReadOnly "Counter: of stage 2" [];
    FLIPS_3 ReadOnly "Counter: of stage 3" [];
    FLIPS_4 ReadOnly "Counter: of stage 4" [];
    FLIPS_5 ReadOnly "Counter: of stage 5" [];
    FLIPS_6 ReadOnly "Counter: of stage 6" [];
    FLIPS_7 ReadOnly "Counter: of stage 7" [];
}

/// Number of registers.
pub const COUNT: usize = REGISTERS.len();
/// What `ID` reads.
pub const ID: u64 = 0x464D_4753;
/// What `VERSION` reads: 1.0.
pub const VERSION: u64 = 1 << 16;
/// Byte address of the first; the accelerator's registers lie below.
pub const BASE: u32 = 1 << AXIL_ADDRESS;

/// Byte address of a register, from its place.
#[must_use]
pub const fn address(place: usize) -> u32 {
    BASE + 4 * place as u32
}

/// A field's bits in the value of its register; 0 if the register has no such field.
#[must_use]
pub fn bits(place: usize, field: &str, value: u32) -> u32 {
    REGISTERS
        .get(place)
        .and_then(|register| register.fields.iter().find(|f| f.name == field))
        .map_or(0, |f| value >> f.low & (u32::MAX >> (32 - f.width)))
}

/// The map as a page of documentation, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = format!(
        "# Registers of SPEED's top\n\nAXI4-Lite, 32-bit data, {HOST_ADDRESS}-bit addresses. Below {BASE:#05x} lie the [accelerator's registers](registers.md) at their own addresses, from there on those of this table. \
An address without a register, and a write to one that is only read, answers SLVERR and changes nothing; so does a write to one of these registers without all byte strobes. \
While the player plays, accesses to the accelerator's registers answer SLVERR instead of waiting: a host that waited on the bus could not bring the data that the pass waits for. \
This page is generated from the table in `hdl::speed::registers`.\n\n\
| address | register | access | meaning |\n|---|---|---|---|\n",
    );
    text += &markdown_rows(REGISTERS, |place| format!("{:#05X}", address(place)));
    text.push_str("\nCounters have 32 bits and wrap.\n");
    text
}

/// The map as a C header; that of the accelerator's registers, which lie below, is [`crate::accelerator::registers::c_header`].
#[must_use]
pub fn c_header() -> String {
    let mut text = String::from(
        "/* Registers of fgmp_speed above those of the accelerator in it (fgmp_registers.h): byte addresses, fields. Generated. */\n#ifndef FGMP_SPEED_REGISTERS_H\n#define FGMP_SPEED_REGISTERS_H\n",
    );
    text += &c_definitions(REGISTERS, "FGMP_SPEED_", address);
    text.push_str("\n#endif\n");
    text
}

/// AXI4-Lite slave with the registers of the table.
#[derive(LogicBlock, PortAccess)]
pub struct SpeedRegisters {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Write address and data are valid.
    pub write_valid: Signal<In, Bit>,
    /// They are taken.
    pub write_ready: Signal<Out, Bit>,
    /// Place of the write: its byte address / 4.
    pub write_place: Signal<In, Bits<6>>,
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
    /// Place of the read.
    pub read_place: Signal<In, Bits<6>>,
    /// Read data is valid.
    pub rvalid: Signal<Out, Bit>,
    /// It is taken.
    pub rready: Signal<In, Bit>,
    /// The data.
    pub rdata: Signal<Out, Bits<32>>,
    /// 0 is OKAY, 2 SLVERR.
    pub rresp: Signal<Out, Bits<2>>,
    /// What the hardware drives, by place; other places are ignored.
    pub status: Vec<Signal<In, Bits<32>>>,
    /// What the host wrote, by place; 0 where it can't.
    pub value: Vec<Signal<Out, Bits<32>>>,
    /// A write to this place happens.
    pub strobe: Vec<Signal<Out, Bit>>,

    kept: Vec<Register<Bits<32>>>,
    response: Register<Bit>,
    response_error: DataRegister<Bit>,
    answer: Register<Bit>,
    answer_error: DataRegister<Bit>,
    answer_data: DataRegister<Bits<32>>,
    read_mux: MuxN<Bits<32>, 6>,
    known: MuxN<Bits<1>, 6>,
    accepts: MuxN<Bits<1>, 6>,
    writable: Constant<Bits<COUNT>>,
    driven: Constant<Bits<COUNT>>,
    takes_write: Constant<Bits<COUNT>>,
    write_now: Signal<Local, Bit>,
    write_fits: Signal<Local, Bit>,
    read_now: Signal<Local, Bit>,
}

impl Default for SpeedRegisters {
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
            write_valid: Default::default(),
            write_ready: Default::default(),
            write_place: Default::default(),
            wdata: Default::default(),
            wstrb: Default::default(),
            bvalid: Default::default(),
            bready: Default::default(),
            bresp: Default::default(),
            arvalid: Default::default(),
            arready: Default::default(),
            read_place: Default::default(),
            rvalid: Default::default(),
            rready: Default::default(),
            rdata: Default::default(),
            rresp: Default::default(),
            status: (0..COUNT).map(|_| Default::default()).collect(),
            value: (0..COUNT).map(|_| Default::default()).collect(),
            strobe: (0..COUNT).map(|_| Default::default()).collect(),
            kept: (0..COUNT).map(|_| Default::default()).collect(),
            response: Default::default(),
            response_error: Default::default(),
            answer: Default::default(),
            answer_error: Default::default(),
            answer_data: Default::default(),
            read_mux: MuxN::new(COUNT),
            known: MuxN::new(COUNT),
            accepts: MuxN::new(COUNT),
            writable: flags(|access| access == Access::ReadWrite),
            driven: flags(|access| access == Access::ReadOnly),
            takes_write: flags(|access| access != Access::ReadOnly),
            write_now: Default::default(),
            write_fits: Default::default(),
            read_now: Default::default(),
        }
    }
}

const PROGRAM_ADDRESS_PLACE: usize = place::PROGRAM_ADDRESS;
const PROGRAM_DATA_PLACE: usize = place::PROGRAM_DATA;

/// SPEED's registers behind AXI4-Lite, 32-bit data. One write and one read may be outstanding; each takes two cycles.
///
/// A place without a register, a write to one that is only read, and a write without all byte strobes answer SLVERR and change nothing.
/// `status` brings what the hardware drives, by place; `value` and `strobe` tell what the host wrote. A write to PROGRAM_DATA counts PROGRAM_ADDRESS up.
#[kernel]
impl Logic for SpeedRegisters {
    fn update(&mut self) {
        registers!(self, clock, reset, response, answer);
        data_registers!(self, clock, response_error, answer_error, answer_data);
        self.write_now.next = self.write_valid.val() && !self.response.q.val() && !self.reset.val();
        self.write_ready.next = self.write_now.val();
        self.accepts.select.next = self.write_place.val();
        self.write_fits.next =
            self.write_now.val() && self.accepts.y.val().any() && self.wstrb.val().all();
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

        self.read_now.next = self.arvalid.val() && !self.answer.q.val() && !self.reset.val();
        self.arready.next = self.read_now.val();
        self.known.select.next = self.read_place.val();
        self.read_mux.select.next = self.read_place.val();
        if self.answer.q.val() && self.rready.val() {
            self.answer.d.next = false;
        }
        if self.read_now.val() {
            self.answer.d.next = true;
            self.answer_error.d.next = !self.known.y.val().any();
            self.answer_data.d.next = self.read_mux.y.val();
        }
        self.rvalid.next = self.answer.q.val();
        self.rdata.next = self.answer_data.q.val();
        self.rresp.next = 0.into();
        if self.answer_error.q.val() {
            self.rresp.next = 2.into();
        }

        for i in 0..COUNT {
            registers!(self, clock, reset, kept[i]);
            self.strobe[i].next = self.write_fits.val() && self.write_place.val() == i.to_bits();
            if self.strobe[i].val() && self.writable.val().get_bit(i) {
                self.kept[i].d.next = self.wdata.val();
            }
            self.value[i].next = self.kept[i].q.val();
            self.accepts.a[i].next = self.takes_write.val().get_bit(i).into();
            self.known.a[i].next = 1.into();
            self.read_mux.a[i].next = self.kept[i].q.val();
            if self.driven.val().get_bit(i) {
                self.read_mux.a[i].next = self.status[i].val();
            }
        }
        if self.strobe[PROGRAM_DATA_PLACE].val() {
            self.kept[PROGRAM_ADDRESS_PLACE].d.next = self.kept[PROGRAM_ADDRESS_PLACE].q.val() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(place::TAIL_7, place::TAIL_0 + 7);
        assert_eq!(place::FLIPS_7, place::FLIPS_1 + 6);
        assert_eq!(bits(place::LAST_PASS, "STAGE", 0b1011), 5);
    }

    #[test]
    fn the_page_in_the_book_is_this_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/speed-registers.md");
        if std::env::var_os("FGMP_WRITE_DOCS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(page).unwrap(),
            markdown(),
            "run this test with FGMP_WRITE_DOCS=1"
        );
    }
}
