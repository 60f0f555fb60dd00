//! What each leaf gets of the width that is left.

use crate::prelude::*;

/// What the server does.
mod state {
    pub const IDLE: u64 = 0;
    pub const MULTIPLY: u64 = 1;
    pub const DIVIDE: u64 = 2;
    pub const GIVE: u64 = 3;
}

const IDLE: u64 = state::IDLE;
const MULTIPLY: u64 = state::MULTIPLY;
const DIVIDE: u64 = state::DIVIDE;
const GIVE: u64 = state::GIVE;

/// Serves leaves one after the other. A width has L bits, a weight E, the sum of weights S; P = L + E is a product's width and D = S + L a shifted sum's, above P.
#[derive(LogicBlock, PortAccess)]
pub struct ShareServer<
    const L: usize,
    const E: usize,
    const S: usize,
    const P: usize,
    const D: usize,
> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A new width is to be shared.
    pub start: Signal<In, Bit>,
    /// It.
    pub width: Signal<In, Bits<L>>,
    /// The sum of all weights.
    pub total: Signal<In, Bits<S>>,
    /// A leaf is to be served.
    pub leaf_valid: Signal<In, Bit>,
    /// It is taken.
    pub leaf_ready: Signal<Out, Bit>,
    /// Its weight; not above the sum of those that haven't been served.
    pub leaf_weight: Signal<In, Bits<E>>,
    /// A leaf is served.
    pub given: Signal<Out, Bit>,
    /// What it gets.
    pub share: Signal<Out, Bits<L>>,
    /// What is left of the width.
    pub left: Signal<Out, Bits<L>>,

    product: MulU<L, E, P>,
    shifter: ShiftLeft<D, 5>,
    state: Register<Bits<2>>,
    rest: Register<Bits<L>>,
    sum: DataRegister<Bits<S>>,
    weight: DataRegister<Bits<E>>,
    multiplied: DataRegister<Bits<P>>,
    remainder: DataRegister<Bits<D>>,
    divisor: DataRegister<Bits<D>>,
    quotient: DataRegister<Bits<L>>,
    at: DataRegister<Bits<5>>,
    top: Signal<Local, Bits<5>>,
    trial: Signal<Local, Bits<D>>,
    fits: Signal<Local, Bit>,
    _bits: usize,
}

impl<const L: usize, const E: usize, const S: usize, const P: usize, const D: usize> Default
    for ShareServer<L, E, S, P, D>
{
    fn default() -> Self {
        const {
            assert!(
                S >= E && D == S + L && D > P && L <= 16,
                "the sum holds a weight, and a shifted sum more than a product"
            )
        };
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            width: Default::default(),
            total: Default::default(),
            leaf_valid: Default::default(),
            leaf_ready: Default::default(),
            leaf_weight: Default::default(),
            given: Default::default(),
            share: Default::default(),
            left: Default::default(),
            product: Default::default(),
            shifter: Default::default(),
            state: Default::default(),
            rest: Default::default(),
            sum: Default::default(),
            weight: Default::default(),
            multiplied: Default::default(),
            remainder: Default::default(),
            divisor: Default::default(),
            quotient: Default::default(),
            at: Default::default(),
            top: Default::default(),
            trial: Default::default(),
            fits: Default::default(),
            _bits: L,
        }
    }
}

/// Gives each leaf the width that is left times its weight, divided by the sum of the weights that are left, rounded up; then lowers both. A bit of the quotient a cycle, from the highest bit of what is left
/// downwards: no leaf gets more. Two cycles before the first bit, and one for the gift.
#[kernel]
impl<const L: usize, const E: usize, const S: usize, const P: usize, const D: usize> Logic
    for ShareServer<L, E, S, P, D>
{
    fn update(&mut self) {
        registers!(self, clock, reset, state, rest);
        data_registers!(
            self, clock, sum, weight, multiplied, remainder, divisor, quotient, at
        );
        self.top.next = 0.into();
        for i in 0..self._bits {
            if self.rest.q.val().get_bit(i) {
                self.top.next = i.to_bits();
            }
        }
        self.product.a.next = self.rest.q.val();
        self.product.b.next = self.leaf_weight.val();
        self.shifter.a.next = bit_cast::<D, S>(self.sum.q.val());
        self.shifter.amount.next = self.at.q.val();
        self.leaf_ready.next = self.state.q.val() == IDLE;
        if self.state.q.val() == IDLE && self.leaf_valid.val() {
            self.weight.d.next = self.leaf_weight.val();
            self.multiplied.d.next = self.product.p.val();
            self.quotient.d.next = 0.into();
            self.at.d.next = self.top.val();
            self.state.d.next = MULTIPLY.into();
        }
        if self.state.q.val() == MULTIPLY {
            self.remainder.d.next =
                bit_cast::<D, P>(self.multiplied.q.val()) + bit_cast::<D, S>(self.sum.q.val()) - 1;
            self.divisor.d.next = self.shifter.y.val();
            self.state.d.next = DIVIDE.into();
            if !self.weight.q.val().any() || !self.rest.q.val().any() {
                self.state.d.next = GIVE.into();
            }
        }
        self.trial.next = self.remainder.q.val() - self.divisor.q.val();
        self.fits.next = self.remainder.q.val() >= self.divisor.q.val();
        if self.state.q.val() == DIVIDE {
            self.quotient.d.next = self.quotient.q.val() << 1;
            if self.fits.val() {
                self.quotient.d.next = (self.quotient.q.val() << 1) + 1;
                self.remainder.d.next = self.trial.val();
            }
            self.divisor.d.next = self.divisor.q.val() >> 1;
            self.at.d.next = self.at.q.val() - 1;
            if self.at.q.val() == 0 {
                self.state.d.next = GIVE.into();
            }
        }
        self.given.next = self.state.q.val() == GIVE;
        self.share.next = self.quotient.q.val();
        self.left.next = self.rest.q.val();
        if self.state.q.val() == GIVE {
            self.state.d.next = IDLE.into();
            self.rest.d.next = self.rest.q.val() - self.quotient.q.val();
            self.sum.d.next = self.sum.q.val() - bit_cast::<S, E>(self.weight.q.val());
        }
        if self.start.val() {
            self.state.d.next = IDLE.into();
            self.rest.d.next = self.width.val();
            self.sum.d.next = self.total.val();
        }
    }
}
