//! The pass from the last vertex to the first.

use super::{NUMBER, SIGN, VALUE};
use crate::memory::LutRam;
use crate::prelude::*;

/// Says of each vertex whether it is worth keeping. Depths have H + 1 bits.
#[derive(LogicBlock, PortAccess, Default)]
pub struct UpPass<const H: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Write zeros to the sums of this pair of depths.
    pub clear: Signal<In, Bit>,
    /// Which.
    pub clear_pair: Signal<In, Bits<NUMBER>>,
    /// There is a vertex.
    pub enable: Signal<In, Bit>,
    /// Its depth.
    pub depth: Signal<In, Bits<NUMBER>>,
    /// It is a leaf.
    pub leaf: Signal<In, Bit>,
    /// What it adds by itself.
    pub value: Signal<In, Bits<VALUE>>,
    /// What a leaf earns besides.
    pub bonus: Signal<In, Bits<VALUE>>,
    /// The vertex of the cycle before is worth keeping, with what is below it.
    pub keep: Signal<Out, Bit>,
    /// What that one contributes.
    pub total: Signal<Out, Bits<VALUE>>,

    /// At each even and each odd depth, what is worth keeping since the last vertex above.
    even: LutRam<VALUE, H>,
    odd: LutRam<VALUE, H>,
    there: DataRegister<Bit>,
    is_leaf: DataRegister<Bit>,
    parity: DataRegister<Bit>,
    even_pair: DataRegister<Bits<H>>,
    odd_pair: DataRegister<Bits<H>>,
    /// What the vertex adds with what a leaf earns, and one less.
    own: DataRegister<Bits<VALUE>>,
    less: DataRegister<Bits<VALUE>>,
    pair: Signal<Local, Bits<H>>,
    pair_below: Signal<Local, Bits<H>>,
    earned: Signal<Local, Bits<VALUE>>,
    below: Signal<Local, Bits<VALUE>>,
    beside: Signal<Local, Bits<VALUE>>,
    sum: Signal<Local, Bits<VALUE>>,
    sum_less: Signal<Local, Bits<VALUE>>,
    /// Three numbers as two with the same sum.
    bits: Signal<Local, Bits<VALUE>>,
    carries: Signal<Local, Bits<VALUE>>,
    beside_sum: Signal<Local, Bits<VALUE>>,
}

/// Takes vertices from the last to the first, one a cycle, and says whether each contributes anything together with what is worth keeping below it.
///
/// A sum for each depth is all it needs: a vertex takes that of its children, one deeper, and leaves 0; and adds itself to that of its own depth. Even and odd depths lie in two memories, as a vertex touches one of each.
/// All sums are 0 behind a pass, but for the root's, which nothing reads.
///
/// A vertex needs the sums that the one before it leaves, so that all between two reads is one cycle: the sum, the same less one (whose sign tells whether the sum is above 0), and the sum with what is beside are made at the same time.
#[kernel]
impl<const H: usize> Logic for UpPass<H> {
    fn update(&mut self) {
        data_registers!(
            self, clock, there, is_leaf, parity, even_pair, odd_pair, own, less
        );
        // What doesn't depend on other vertices.
        self.there.d.next = self.enable.val();
        self.is_leaf.d.next = self.leaf.val();
        self.parity.d.next = self.depth.val().get_bit(0);
        self.pair.next = bit_cast::<H, NUMBER>(self.depth.val() >> 1);
        self.pair_below.next = bit_cast::<H, NUMBER>((self.depth.val() + 1) >> 1);
        self.even_pair.d.next = self.pair.val();
        self.odd_pair.d.next = self.pair.val();
        if self.depth.val().get_bit(0) {
            self.even_pair.d.next = self.pair_below.val();
        }
        self.earned.next = 0.into();
        if self.leaf.val() {
            self.earned.next = self.bonus.val();
        }
        self.own.d.next = self.value.val() + self.earned.val();
        self.less.d.next = self.value.val() - 1 + self.earned.val();

        // What does.
        self.even.clock.next = self.clock.val();
        self.odd.clock.next = self.clock.val();
        self.even.read_address.next = self.even_pair.q.val();
        self.odd.read_address.next = self.odd_pair.q.val();
        self.beside.next = self.even.read_data.val();
        self.below.next = self.odd.read_data.val();
        if self.parity.q.val() {
            self.beside.next = self.odd.read_data.val();
            self.below.next = self.even.read_data.val();
        }
        if self.is_leaf.q.val() {
            self.below.next = 0.into();
        }
        self.sum.next = self.own.q.val() + self.below.val();
        self.sum_less.next = self.less.q.val() + self.below.val();
        self.total.next = self.sum.val();
        self.keep.next = !self.sum_less.val().get_bit(SIGN);
        self.bits.next = self.own.q.val() ^ self.below.val() ^ self.beside.val();
        self.carries.next = (self.own.q.val() & self.below.val())
            | (self.own.q.val() & self.beside.val())
            | (self.below.val() & self.beside.val());
        self.beside_sum.next = self.beside.val();
        if self.keep.val() {
            self.beside_sum.next = self.bits.val() + (self.carries.val() << 1);
        }
        self.even.write_address.next = self.even_pair.q.val();
        self.odd.write_address.next = self.odd_pair.q.val();
        self.even.write.next =
            self.there.q.val() && (!self.parity.q.val() || !self.is_leaf.q.val());
        self.odd.write.next = self.there.q.val() && (self.parity.q.val() || !self.is_leaf.q.val());
        self.even.write_data.next = self.beside_sum.val();
        self.odd.write_data.next = 0.into();
        if self.parity.q.val() {
            self.even.write_data.next = 0.into();
            self.odd.write_data.next = self.beside_sum.val();
        }
        if self.clear.val() {
            self.even.write.next = true;
            self.odd.write.next = true;
            self.even.write_address.next = bit_cast::<H, NUMBER>(self.clear_pair.val());
            self.odd.write_address.next = bit_cast::<H, NUMBER>(self.clear_pair.val());
            self.even.write_data.next = 0.into();
            self.odd.write_data.next = 0.into();
        }
    }
}
