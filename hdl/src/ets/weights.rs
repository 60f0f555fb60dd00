//! The softmax's weights.

use super::sort::{ENTRY, ENTRY_KEPT, ENTRY_SCORE, ENTRY_SCORED};
use crate::kernel::{Description, custom};
use crate::prelude::*;
use golden::ets::allocate::{WEIGHT_BITS, table};

/// Bits of a leaf's weight: 2^30 at most.
pub const SHARE: usize = 31;
/// Bits by which a power falls to the next one of the table.
const FALL: usize = 22;
/// Bits of the two.
const POWER: usize = SHARE + FALL;

/// 2^(30 − k/256) and by how much the next one is less, a cycle after k.
#[derive(LogicBlock, PortAccess, Default)]
pub struct PowerTable {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// k.
    pub index: Signal<In, Bits<8>>,
    /// The fall in the upper 22 bits, the power in the lower 31.
    pub power: Signal<Out, Bits<POWER>>,
}

/// The table's words.
fn words() -> Vec<u64> {
    table()
        .windows(2)
        .map(|pair| u64::from(pair[0] - pair[1]) << SHARE | u64::from(pair[0]))
        .collect()
}

impl Logic for PowerTable {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            self.power.next = words()[self.index.val().index()].into();
        }
    }

    fn connect(&mut self) {
        self.power.connect();
    }

    fn hdl(&self) -> Verilog {
        let description = Description {
            name: "power_table".to_owned(),
            doc: "2^(30 - k/256), and by how much the next power is less.".to_owned(),
            ..Description::default()
        };
        let rows: String = words()
            .iter()
            .enumerate()
            .map(|(k, word)| format!("      8'd{k}: power <= 53'd{word};\n"))
            .collect();
        custom(
            &description,
            &format!(
                "  always @(posedge clock) begin\n    case (index)\n{rows}      default: power <= 53'd0;\n    endcase\n  end\n"
            ),
        )
    }
}

/// Makes weights of scores.
#[derive(LogicBlock, PortAccess, Default)]
pub struct WeightPipe {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// The leaf with the best score.
    pub best: Signal<In, Bits<ENTRY>>,
    /// log₂e / T in 16 fractional bits.
    pub rate: Signal<In, Bits<32>>,
    /// There is a leaf.
    pub leaf_valid: Signal<In, Bit>,
    /// It.
    pub leaf: Signal<In, Bits<ENTRY>>,
    /// Its weight, five cycles later.
    pub weight_valid: Signal<Out, Bit>,
    /// The weight: 2^30 is the best leaf's.
    pub weight: Signal<Out, Bits<SHARE>>,

    powers: PowerTable,
    distance: MulU<32, 32, 64>,
    fall: MulU<FALL, 8, 30>,
    valid: [Register<Bit>; 5],
    /// The weight is 0, or 1 as there is no score at all.
    nothing: [DataRegister<Bit>; 5],
    whole: [DataRegister<Bit>; 5],
    behind: DataRegister<Bits<32>>,
    exponent: DataRegister<Bits<64>>,
    rest: [DataRegister<Bits<8>>; 2],
    shift: [DataRegister<Bits<5>>; 3],
    /// The table's word.
    word: DataRegister<Bits<POWER>>,
    power: DataRegister<Bits<SHARE>>,
    between: Signal<Local, Bits<39>>,
}

/// 2^(30 − z) for z = (best − score) · rate: the table's power of z's first 8 fractional bits, less its fall times the next 8, halved as often as z's whole part says. One leaf a cycle.
///
/// A leaf that isn't kept weighs 0, and so does one without a score, unless none has one: then all that are kept weigh 2^30.
#[kernel]
impl Logic for WeightPipe {
    fn update(&mut self) {
        for i in 0..5 {
            registers!(self, clock, reset, valid[i]);
            data_registers!(self, clock, nothing[i], whole[i]);
        }
        data_registers!(self, clock, behind, exponent, word, power);
        for i in 0..3 {
            data_registers!(self, clock, shift[i]);
        }
        for i in 0..2 {
            data_registers!(self, clock, rest[i]);
        }
        for i in 0..4 {
            self.valid[i + 1].d.next = self.valid[i].q.val();
            self.nothing[i + 1].d.next = self.nothing[i].q.val();
            self.whole[i + 1].d.next = self.whole[i].q.val();
        }

        // How far behind the best.
        self.valid[0].d.next = self.leaf_valid.val();
        self.whole[0].d.next =
            self.leaf.val().get_bit(ENTRY_KEPT) && !self.best.val().get_bit(ENTRY_SCORED);
        self.nothing[0].d.next = !self.leaf.val().get_bit(ENTRY_KEPT)
            || (self.best.val().get_bit(ENTRY_SCORED) && !self.leaf.val().get_bit(ENTRY_SCORED));
        self.behind.d.next = self.best.val().get_bits::<32>(ENTRY_SCORE)
            - self.leaf.val().get_bits::<32>(ENTRY_SCORE);

        // In powers of 2.
        self.distance.a.next = self.behind.q.val();
        self.distance.b.next = self.rate.val();
        self.exponent.d.next = self.distance.p.val();

        // The table's.
        self.powers.clock.next = self.clock.val();
        self.powers.index.next = self.exponent.q.val().get_bits::<8>(24);
        self.rest[0].d.next = self.exponent.q.val().get_bits::<8>(16);
        self.shift[0].d.next = self.exponent.q.val().get_bits::<5>(32);
        if self.exponent.q.val().get_bits::<27>(37).any()
            || self.exponent.q.val().get_bits::<5>(32) == 31
        {
            self.nothing[2].d.next = true;
        }

        self.word.d.next = self.powers.power.val();
        self.rest[1].d.next = self.rest[0].q.val();
        self.shift[1].d.next = self.shift[0].q.val();

        // Between two of it.
        self.fall.a.next = self.word.q.val().get_bits::<FALL>(SHARE);
        self.fall.b.next = self.rest[1].q.val();
        self.between.next = (bit_cast::<39, SHARE>(self.word.q.val().get_bits::<SHARE>(0)) << 8)
            - bit_cast::<39, 30>(self.fall.p.val())
            + 128;
        self.power.d.next = self.between.val().get_bits::<SHARE>(8);
        self.shift[2].d.next = self.shift[1].q.val();

        self.weight_valid.next = self.valid[4].q.val();
        self.weight.next = self.power.q.val() >> self.shift[2].q.val();
        if self.nothing[4].q.val() {
            self.weight.next = 0.into();
        }
        if self.whole[4].q.val() {
            self.weight.next = FULL.into();
        }
    }
}

/// The best leaf's weight.
const FULL: u64 = 1 << WEIGHT_BITS;
