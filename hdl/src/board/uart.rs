//! The serial line: eight data bits, no parity, one stop bit.

use crate::prelude::*;

/// Bits of a counter of clock cycles within a bit.
pub(super) const BIT_COUNTER: usize = 12;

/// From the line to bytes.
///
/// A start bit begins at a falling edge; each bit is looked at in its middle. So the sender's clock may differ until the last bit's middle has moved by half a bit:
/// 5 % in all, less the cycle by which an edge is seen late.
#[derive(LogicBlock, PortAccess)]
pub struct UartReceiver {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// The line, high while idle; in no relation to the clock.
    pub rx: Signal<In, Bit>,
    /// A byte has come; for one cycle.
    pub valid: Signal<Out, Bit>,
    /// It, while `valid`.
    pub data: Signal<Out, Bits<8>>,
    /// A byte without a stop bit has come; for one cycle.
    pub broken: Signal<Out, Bit>,

    // The first may be neither high nor low for a while: nothing but the second looks at it.
    line: [Register<Bit>; 3],
    active: Register<Bit>,
    count: DataRegister<Bits<BIT_COUNTER>>,
    bits_left: DataRegister<Bits<4>>,
    shift: DataRegister<Bits<8>>,
    half: Constant<Bits<BIT_COUNTER>>,
    whole: Constant<Bits<BIT_COUNTER>>,
    sample: Signal<Local, Bit>,
    level: Signal<Local, Bit>,
    high_bit: Signal<Local, Bits<8>>,
}

impl UartReceiver {
    /// For bits of so many clock cycles, from [`super::MIN_CLOCKS_PER_BIT`] to [`super::MAX_CLOCKS_PER_BIT`].
    #[must_use]
    pub fn new(clocks_per_bit: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            rx: Default::default(),
            valid: Default::default(),
            data: Default::default(),
            broken: Default::default(),
            line: std::array::from_fn(|_| Register::new(true)),
            active: Default::default(),
            count: Default::default(),
            bits_left: Default::default(),
            shift: Default::default(),
            half: Constant::new((clocks_per_bit as u64 / 2 - 1).into()),
            whole: Constant::new((clocks_per_bit as u64 - 1).into()),
            sample: Default::default(),
            level: Default::default(),
            high_bit: Default::default(),
        }
    }
}

/// Bytes from a serial line: eight data bits, the lowest first, no parity, one stop bit.
#[kernel]
impl Logic for UartReceiver {
    fn update(&mut self) {
        for i in 0..3 {
            registers!(self, clock, reset, line[i]);
        }
        registers!(self, clock, reset, active);
        data_registers!(self, clock, count, bits_left, shift);
        self.line[0].d.next = self.rx.val();
        self.line[1].d.next = self.line[0].q.val();
        self.line[2].d.next = self.line[1].q.val();
        self.level.next = self.line[1].q.val();

        self.sample.next = self.active.q.val() && !self.count.q.val().any();
        self.valid.next = self.sample.val() && !self.bits_left.q.val().any() && self.level.val();
        self.broken.next = self.sample.val() && !self.bits_left.q.val().any() && !self.level.val();
        self.data.next = self.shift.q.val();
        self.high_bit.next = bit_cast::<8, 1>(self.level.val().into()) << 7;
        self.count.d.next = self.count.q.val() - 1;
        if self.sample.val() {
            self.count.d.next = self.whole.val();
            self.bits_left.d.next = self.bits_left.q.val() - 1;
            self.shift.d.next = (self.shift.q.val() >> 1) | self.high_bit.val();
            if !self.bits_left.q.val().any() {
                // The stop bit: not shifted in. The rest of it is idle, so a byte may follow at once.
                self.shift.d.next = self.shift.q.val();
                self.active.d.next = false;
            }
            if self.bits_left.q.val() == 9 && self.level.val() {
                // No start bit, but a short low pulse.
                self.active.d.next = false;
            }
        }
        if !self.active.q.val() {
            self.count.d.next = self.half.val();
            self.bits_left.d.next = 9.into();
            self.active.d.next = self.line[2].q.val() && !self.line[1].q.val();
        }
    }
}

/// From bytes to the line.
#[derive(LogicBlock, PortAccess)]
pub struct UartTransmitter {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A byte is offered.
    pub valid: Signal<In, Bit>,
    /// It is taken.
    pub ready: Signal<Out, Bit>,
    /// It.
    pub data: Signal<In, Bits<8>>,
    /// The line, high while idle.
    pub tx: Signal<Out, Bit>,

    active: Register<Bit>,
    level: Register<Bit>,
    count: DataRegister<Bits<BIT_COUNTER>>,
    bits_left: DataRegister<Bits<4>>,
    shift: DataRegister<Bits<8>>,
    whole: Constant<Bits<BIT_COUNTER>>,
    bit_end: Signal<Local, Bit>,
    free: Signal<Local, Bit>,
}

impl UartTransmitter {
    /// For bits of so many clock cycles; see [`UartReceiver::new`].
    #[must_use]
    pub fn new(clocks_per_bit: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            valid: Default::default(),
            ready: Default::default(),
            data: Default::default(),
            tx: Default::default(),
            active: Default::default(),
            level: Register::new(true),
            count: Default::default(),
            bits_left: Default::default(),
            shift: Default::default(),
            whole: Constant::new((clocks_per_bit as u64 - 1).into()),
            bit_end: Default::default(),
            free: Default::default(),
        }
    }
}

/// Bytes to a serial line: eight data bits, the lowest first, no parity, one stop bit.
#[kernel]
impl Logic for UartTransmitter {
    fn update(&mut self) {
        registers!(self, clock, reset, active, level);
        data_registers!(self, clock, count, bits_left, shift);
        self.tx.next = self.level.q.val();
        self.bit_end.next = self.active.q.val() && !self.count.q.val().any();
        self.free.next =
            !self.active.q.val() || (self.bit_end.val() && !self.bits_left.q.val().any());
        self.ready.next = self.free.val();
        self.count.d.next = self.count.q.val() - 1;
        if self.bit_end.val() {
            self.count.d.next = self.whole.val();
            self.bits_left.d.next = self.bits_left.q.val() - 1;
            // Data bits, then the stop bit.
            self.level.d.next = self.shift.q.val().get_bit(0);
            self.shift.d.next = (self.shift.q.val() >> 1) | 0x80;
            if !self.bits_left.q.val().any() {
                self.active.d.next = false;
                self.level.d.next = true;
            }
        }
        if self.free.val() && self.valid.val() {
            self.active.d.next = true;
            self.level.d.next = false;
            self.count.d.next = self.whole.val();
            self.bits_left.d.next = 9.into();
            self.shift.d.next = self.data.val();
        }
    }
}
