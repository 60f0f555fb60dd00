//! Registers.

use super::Primitive;
use crate::prelude::*;

/// A register with synchronous, active-high reset.
///
/// On a rising edge of `clock`, `q` becomes the reset value if `reset` is high, else `d`. Before the first edge `q` is the
/// reset value in simulation and undefined in hardware.
#[derive(LogicBlock, PortAccess)]
pub struct Register<T: Word> {
    /// Rising-edge clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Next value.
    pub d: Signal<In, T>,
    /// Present value.
    pub q: Signal<Out, T>,
    init: Constant<T>,
}

impl<T: Word> Register<T> {
    /// A register that is reset to `init`.
    pub fn new(init: T) -> Self {
        Self {
            clock: Signal::default(),
            reset: Signal::default(),
            d: Signal::default(),
            q: Signal::new_with_default(init),
            init: Constant::new(init),
        }
    }
}

impl<T: Word> Default for Register<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Word> Logic for Register<T> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            self.q.next = if self.reset.val() {
                self.init.val()
            } else {
                self.d.val()
            };
        }
    }

    fn connect(&mut self) {
        self.q.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::Register.verilog()
    }
}

/// A register without reset, for data whose validity something else tells.
///
/// On a rising edge of `clock`, `q` becomes `d`. Before the first edge it is zero in simulation and undefined in hardware.
#[derive(LogicBlock, PortAccess)]
pub struct DataRegister<T: Word> {
    /// Rising-edge clock.
    pub clock: Signal<In, Clock>,
    /// Next value.
    pub d: Signal<In, T>,
    /// Present value.
    pub q: Signal<Out, T>,
}

impl<T: Word> Default for DataRegister<T> {
    fn default() -> Self {
        Self {
            clock: Signal::default(),
            d: Signal::default(),
            q: Signal::default(),
        }
    }
}

impl<T: Word> Logic for DataRegister<T> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            self.q.next = self.d.val();
        }
    }

    fn connect(&mut self) {
        self.q.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::DataRegister.verilog()
    }
}

/// A register without reset at a pipeline's boundary, which a configuration may leave out.
///
/// Present, `q` becomes `d` on a rising edge of `clock` with `enable` high and otherwise stays as it is. Absent, `q` is `d`.
#[derive(LogicBlock, PortAccess)]
pub struct PipelineRegister<T: Word> {
    /// Rising-edge clock.
    pub clock: Signal<In, Clock>,
    /// Takes `d`.
    pub enable: Signal<In, Bit>,
    /// Next value.
    pub d: Signal<In, T>,
    /// Present value.
    pub q: Signal<Out, T>,
    _present: bool,
}

impl<T: Word> PipelineRegister<T> {
    /// A register if `present`, else a wire.
    pub fn new(present: bool) -> Self {
        Self {
            clock: Signal::default(),
            enable: Signal::default(),
            d: Signal::default(),
            q: Signal::default(),
            _present: present,
        }
    }
}

impl<T: Word> Default for PipelineRegister<T> {
    fn default() -> Self {
        Self::new(true)
    }
}

impl<T: Word> Logic for PipelineRegister<T> {
    fn update(&mut self) {
        if !self._present || (self.clock.pos_edge() && self.enable.val()) {
            self.q.next = self.d.val();
        }
    }

    fn connect(&mut self) {
        self.q.connect();
    }

    fn hdl(&self) -> Verilog {
        if self._present {
            Primitive::PipelineRegister.verilog()
        } else {
            Primitive::PipelineWire.verilog()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge<B: Block + PortAccess>(block: &mut B) {
        for clock in [0, 1] {
            block.poke(0, &[clock]);
            assert!(simulate(block, 10));
        }
    }

    #[test]
    fn a_register_follows_d_and_returns_to_its_reset_value() {
        let mut register = Register::<Bits<8>>::new(5.into());
        assert_eq!(register.q.val(), 5);
        register.d.next = 9.into();
        edge(&mut register);
        assert_eq!(register.q.val(), 9);
        register.reset.next = true;
        edge(&mut register);
        assert_eq!(register.q.val(), 5);
    }

    #[test]
    fn a_pipeline_register_holds_without_enable_and_may_be_absent() {
        let mut register = PipelineRegister::<Bits<8>>::new(true);
        register.d.next = 9.into();
        edge(&mut register);
        assert_eq!(register.q.val(), 0);
        register.enable.next = true;
        edge(&mut register);
        assert_eq!(register.q.val(), 9);
        let mut wire = PipelineRegister::<Bits<8>>::new(false);
        wire.d.next = 9.into();
        assert!(simulate(&mut wire, 10));
        assert_eq!(wire.q.val(), 9);
    }

    #[test]
    fn a_data_register_follows_d() {
        let mut register = DataRegister::<Bits<40>>::default();
        register.d.next = 9.into();
        assert!(simulate(&mut register, 10));
        assert_eq!(register.q.val(), 0);
        edge(&mut register);
        assert_eq!(register.q.val(), 9);
    }
}
