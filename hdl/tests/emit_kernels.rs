//! Kernels written as a module author would write them.
use hdl::prelude::*;

/// Accumulates under an enable.
#[derive(LogicBlock, PortAccess)]
struct Accumulator<const W: usize> {
    clock: Signal<In, Clock>,
    reset: Signal<In, Bit>,
    enable: Signal<In, Bit>,
    data: Signal<In, Bits<8>>,
    total: Signal<Out, Bits<W>>,
    parts: [Register<Bits<W>>; 2],
}

impl<const W: usize> Default for Accumulator<W> {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            enable: Default::default(),
            data: Default::default(),
            total: Default::default(),
            parts: Default::default(),
        }
    }
}

/// Sums `data` in two interleaved halves.
#[kernel]
impl<const W: usize> Logic for Accumulator<W> {
    fn update(&mut self) {
        for i in 0..2 {
            registers!(self, clock, reset, parts[i]);
            if self.enable.val() & (self.data.val().get_bit(0) == (i == 1)) {
                self.parts[i].d.next = self.parts[i].q.val() + bit_cast::<W, 8>(self.data.val());
            }
        }
        self.total.next = self.parts[0].q.val() + self.parts[1].q.val();
    }
}

#[test]
fn a_kernel_simulates() {
    let mut block = Accumulator::<12>::default();
    block.connect_all();
    assert_eq!(block.port_count(), 5);
    for (enable, data) in [(1, 255), (1, 254), (0, 7), (1, 255)] {
        block.poke(2, &[enable]);
        block.poke(3, &[data]);
        for clock in [0, 1] {
            block.poke(0, &[clock]);
            assert!(simulate(&mut block, 20));
        }
    }
    let mut total = [0];
    block.peek(4, &mut total);
    assert_eq!(total[0], 255 + 254 + 255);
}
