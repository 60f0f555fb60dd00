//! Driving a module in rust-hdl's simulator by port number.
//!
//! Ports are numbered in declaration order, which is the order of the emitted port list. Values are little-endian
//! 64-bit words, so the same frames drive rust-hdl and Verilator.

use rust_hdl_core::prelude::*;

/// A signal value as 64-bit words, least significant first.
pub trait Word: Synth {
    /// Takes the low `Self::BITS` bits of `words`; missing words are zero.
    fn from_words(words: &[u64]) -> Self;
    /// Fills `words`; words beyond the value are set to zero.
    fn to_words(&self, words: &mut [u64]);
}

/// Keeps the low `bits` bits.
fn low_bits(word: u64, bits: usize) -> u64 {
    if bits >= 64 {
        word
    } else {
        word & ((1 << bits) - 1)
    }
}

impl<const N: usize> Word for Bits<N> {
    fn from_words(words: &[u64]) -> Self {
        let first = words.first().copied().unwrap_or(0);
        if N <= 64 {
            Self::from(low_bits(first, N))
        } else {
            let mut bits = [false; N];
            for (i, bit) in bits.iter_mut().enumerate() {
                *bit = words
                    .get(i / 64)
                    .is_some_and(|word| word >> (i % 64) & 1 == 1);
            }
            Bits::Long(bits.into())
        }
    }

    fn to_words(&self, words: &mut [u64]) {
        words.fill(0);
        if N <= 64 {
            if let Some(first) = words.first_mut() {
                *first = self.to_u64();
            }
        } else {
            for i in 0..N {
                if let Some(word) = words.get_mut(i / 64) {
                    *word |= u64::from(self.get_bit(i)) << (i % 64);
                }
            }
        }
    }
}

impl<const N: usize> Word for Signed<N> {
    fn from_words(words: &[u64]) -> Self {
        signed_cast(Bits::from_words(words))
    }

    fn to_words(&self, words: &mut [u64]) {
        self.inner().to_words(words);
    }
}

impl Word for Bit {
    fn from_words(words: &[u64]) -> Self {
        words.first().is_some_and(|word| word & 1 == 1)
    }

    fn to_words(&self, words: &mut [u64]) {
        words.fill(0);
        if let Some(first) = words.first_mut() {
            *first = u64::from(*self);
        }
    }
}

impl Word for Clock {
    fn from_words(words: &[u64]) -> Self {
        Self {
            clk: Bit::from_words(words),
        }
    }

    fn to_words(&self, words: &mut [u64]) {
        self.clk.to_words(words);
    }
}

/// Reading and writing ports by number. Derived with `#[derive(PortAccess)]`.
pub trait PortAccess {
    /// How many ports there are.
    fn port_count(&self) -> usize;
    /// Sets the next value of an input. An output, or a number that no port has, is left alone.
    fn poke(&mut self, port: usize, words: &[u64]);
    /// Reads a port's present value into `words`. A number that no port has leaves them alone.
    fn peek(&self, port: usize, words: &mut [u64]);
}

impl<T: Word> PortAccess for Signal<In, T> {
    fn port_count(&self) -> usize {
        1
    }

    fn poke(&mut self, _port: usize, words: &[u64]) {
        self.next = T::from_words(words);
    }

    fn peek(&self, _port: usize, words: &mut [u64]) {
        self.val().to_words(words);
    }
}

impl<T: Word> PortAccess for Signal<Out, T> {
    fn port_count(&self) -> usize {
        1
    }

    fn poke(&mut self, _port: usize, _words: &[u64]) {}

    fn peek(&self, _port: usize, words: &mut [u64]) {
        self.val().to_words(words);
    }
}

impl<P: PortAccess> PortAccess for [P] {
    fn port_count(&self) -> usize {
        self.iter().map(PortAccess::port_count).sum()
    }

    fn poke(&mut self, mut port: usize, words: &[u64]) {
        for element in self {
            let count = element.port_count();
            if port < count {
                return element.poke(port, words);
            }
            port -= count;
        }
    }

    fn peek(&self, mut port: usize, words: &mut [u64]) {
        for element in self {
            let count = element.port_count();
            if port < count {
                return element.peek(port, words);
            }
            port -= count;
        }
    }
}

impl<P: PortAccess, const N: usize> PortAccess for [P; N] {
    fn port_count(&self) -> usize {
        self.as_slice().port_count()
    }

    fn poke(&mut self, port: usize, words: &[u64]) {
        self.as_mut_slice().poke(port, words);
    }

    fn peek(&self, port: usize, words: &mut [u64]) {
        self.as_slice().peek(port, words);
    }
}

impl<P: PortAccess> PortAccess for Vec<P> {
    fn port_count(&self) -> usize {
        self.as_slice().port_count()
    }

    fn poke(&mut self, port: usize, words: &[u64]) {
        self.as_mut_slice().poke(port, words);
    }

    fn peek(&self, port: usize, words: &mut [u64]) {
        self.as_slice().peek(port, words);
    }
}

/// Rounds of evaluation after which a design counts as unstable; the deepest path of any module here needs fewer.
const SETTLE_ROUNDS: usize = 1000;

/// A module as a simulator's model, without rust-hdl's own types. Every block whose ports can be accessed is one.
pub trait Model: PortAccess {
    /// Connects the module's parts and lets it settle; to be called once, before anything else. False if it is unstable.
    fn power_up(&mut self) -> bool;
    /// Lets the module settle after its inputs changed. False if it is unstable.
    fn settle(&mut self) -> bool;
}

impl<B: Block + PortAccess> Model for B {
    fn power_up(&mut self) -> bool {
        self.connect_all();
        self.settle()
    }

    fn settle(&mut self) -> bool {
        simulate(self, SETTLE_ROUNDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_words() {
        let mut words = [0; 3];
        let wide = Bits::<130>::from_words(&[0x0123_4567_89AB_CDEF, u64::MAX, 0xFE]);
        wide.to_words(&mut words);
        assert_eq!(words, [0x0123_4567_89AB_CDEF, u64::MAX, 2]);
        Bits::<40>::from_words(&[u64::MAX]).to_words(&mut words);
        assert_eq!(words, [(1 << 40) - 1, 0, 0]);
        Signed::<8>::from_words(&[0x80]).to_words(&mut words);
        assert_eq!(words, [0x80, 0, 0]);
        assert!(Clock::from_words(&[1]).clk);
        assert!(!bool::from_words(&[2]));
    }
}
