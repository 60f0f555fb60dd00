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
    /// It is worth keeping, with what is below it.
    pub keep: Signal<Out, Bit>,
    /// What it contributes.
    pub total: Signal<Out, Bits<VALUE>>,

    /// At each even and each odd depth, what is worth keeping since the last vertex above.
    even: LutRam<VALUE, H>,
    odd: LutRam<VALUE, H>,
    parity: Signal<Local, Bit>,
    pair: Signal<Local, Bits<H>>,
    pair_below: Signal<Local, Bits<H>>,
    below: Signal<Local, Bits<VALUE>>,
    beside: Signal<Local, Bits<VALUE>>,
    added: Signal<Local, Bits<VALUE>>,
    sum: Signal<Local, Bits<VALUE>>,
    beside_sum: Signal<Local, Bits<VALUE>>,
}

/// Takes vertices from the last to the first, one a cycle, and says whether each contributes anything together with what is worth keeping below it.
///
/// A sum for each depth is all it needs: a vertex takes that of its children, one deeper, and leaves 0; and adds itself to that of its own depth. Even and odd depths lie in two memories, as a vertex touches one of each.
/// All sums are 0 behind a pass, but for the root's, which nothing reads.
#[kernel]
impl<const H: usize> Logic for UpPass<H> {
    fn update(&mut self) {
        self.even.clock.next = self.clock.val();
        self.odd.clock.next = self.clock.val();
        self.parity.next = self.depth.val().get_bit(0);
        self.pair.next = bit_cast::<H, NUMBER>(self.depth.val() >> 1);
        self.pair_below.next = bit_cast::<H, NUMBER>((self.depth.val() + 1) >> 1);
        self.even.read_address.next = self.pair.val();
        self.odd.read_address.next = self.pair.val();
        self.beside.next = self.even.read_data.val();
        self.below.next = self.odd.read_data.val();
        if self.parity.val() {
            self.even.read_address.next = self.pair_below.val();
            self.beside.next = self.odd.read_data.val();
            self.below.next = self.even.read_data.val();
        }
        self.added.next = self.below.val();
        if self.leaf.val() {
            self.added.next = self.bonus.val();
        }
        self.sum.next = self.value.val() + self.added.val();
        self.total.next = self.sum.val();
        self.keep.next = !self.sum.val().get_bit(SIGN) && self.sum.val().any();
        self.beside_sum.next = self.beside.val();
        if self.keep.val() {
            self.beside_sum.next = self.beside.val() + self.sum.val();
        }
        self.even.write_address.next = self.even.read_address.val();
        self.odd.write_address.next = self.odd.read_address.val();
        self.even.write.next = self.enable.val() && (!self.parity.val() || !self.leaf.val());
        self.odd.write.next = self.enable.val() && (self.parity.val() || !self.leaf.val());
        self.even.write_data.next = self.beside_sum.val();
        self.odd.write_data.next = 0.into();
        if self.parity.val() {
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
