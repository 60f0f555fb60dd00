//! Selection among a number of inputs known when the design is built.

use super::Primitive;
use crate::prelude::*;

/// Multiplexer: `y = a[select]`, and zero where `select` names no input.
#[derive(LogicBlock, PortAccess)]
pub struct MuxN<T: Word, const S: usize> {
    /// The inputs.
    pub a: Vec<Signal<In, T>>,
    /// Number of the input to pass on.
    pub select: Signal<In, Bits<S>>,
    /// The selected input.
    pub y: Signal<Out, T>,
}

impl<T: Word, const S: usize> MuxN<T, S> {
    /// A multiplexer of `inputs` inputs. Inputs from number 2^S on can't be selected.
    pub fn new(inputs: usize) -> Self {
        const { assert!(S <= 32, "a select signal has at most 32 bits") };
        Self {
            a: (0..inputs).map(|_| Signal::default()).collect(),
            select: Signal::default(),
            y: Signal::default(),
        }
    }
}

impl<T: Word, const S: usize> Logic for MuxN<T, S> {
    fn update(&mut self) {
        self.y.next = self
            .a
            .get(self.select.val().index())
            .map(Signal::<In, T>::val)
            .unwrap_or_default();
    }

    fn connect(&mut self) {
        self.y.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::Mux.verilog()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiplexer_passes_the_named_input_or_zero() {
        let mut mux = MuxN::<Bits<8>, 2>::new(3);
        for (i, input) in mux.a.iter_mut().enumerate() {
            input.next = (i + 10).to_bits();
        }
        for (select, expected) in [(0_u64, 10), (1, 11), (2, 12), (3, 0)] {
            mux.select.next = select.into();
            assert!(simulate(&mut mux, 10));
            assert_eq!(mux.y.val(), expected);
        }
    }
}
