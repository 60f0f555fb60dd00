//! Kernels that pass `#[kernel]` and that the emitter refuses, each with its message.

#![allow(
    clippy::single_match,
    clippy::match_overlapping_arm,
    reason = "faults on purpose"
)]

use hdl::emit::{EmitOptions, emit};
use hdl::prelude::*;

/// A module with some signals of every kind; the rest is its kernel.
macro_rules! module {
    ($name:ident, $kernel:item) => {
        #[derive(LogicBlock, Default)]
        struct $name {
            a: Signal<In, Bits<8>>,
            flag: Signal<In, Bit>,
            y: Signal<Out, Bits<8>>,
            t: Signal<Local, Bits<8>>,
            s: Signal<Local, Signed<8>>,
            lane: [Signal<Local, Bits<8>>; 4],
            register: DataRegister<Bits<8>>,
            clock: Signal<In, Clock>,
        }

        $kernel
    };
}

module! { LatchedOutput,
    #[kernel]
    impl Logic for LatchedOutput {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            if self.flag.val() {
                self.y.next = self.a.val();
            }
        }
    }
}
module! { LatchedLocal,
    #[kernel]
    impl Logic for LatchedLocal {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            match self.a.val().index() {
                0 => self.t.next = 1.into(),
                _ => {}
            }
        }
    }
}
module! { LocalReadFirst,
    #[kernel]
    impl Logic for LocalReadFirst {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.t.val();
            self.t.next = self.a.val();
        }
    }
}
module! { LocalAssignedOnOnePath,
    #[kernel]
    impl Logic for LocalAssignedOnOnePath {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            if self.flag.val() {
                self.t.next = self.a.val();
            }
            self.y.next = self.t.val();
        }
    }
}
module! { UndrivenOutput,
    #[kernel]
    impl Logic for UndrivenOutput {
        fn update(&mut self) {
            data_registers!(self, clock, register);
        }
    }
}
module! { UndrivenRegister,
    #[kernel]
    impl Logic for UndrivenRegister {
        fn update(&mut self) {
            self.y.next = self.register.q.val();
            self.register.clock.next = self.clock.val();
        }
    }
}
module! { InputAssigned,
    #[kernel]
    impl Logic for InputAssigned {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            self.a.next = 0.into();
        }
    }
}
module! { RegisterOutputAssigned,
    #[kernel]
    impl Logic for RegisterOutputAssigned {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            self.register.q.next = 0.into();
        }
    }
}
module! { LiteralTooWide,
    #[kernel]
    impl Logic for LiteralTooWide {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val() + 256;
        }
    }
}
module! { SignedLiteralTooWide,
    #[kernel]
    impl Logic for SignedLiteralTooWide {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.s.next = 200.into();
            self.y.next = unsigned_cast(self.s.val());
        }
    }
}
module! { IndexOutOfRange,
    #[kernel]
    impl Logic for IndexOutOfRange {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            for i in 0..4 {
                self.lane[i].next = self.a.val();
            }
            self.y.next = self.lane[0].val();
            for i in 3..4 {
                self.y.next = self.lane[i + 1].val();
            }
        }
    }
}
module! { NegativeIndex,
    #[kernel]
    impl Logic for NegativeIndex {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            for i in 0..1 {
                self.lane[i - 1].next = self.a.val();
            }
        }
    }
}
module! { BitBeyondTheEnd,
    #[kernel]
    impl Logic for BitBeyondTheEnd {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            if self.a.val().get_bit(8) {
                self.y.next = 0.into();
            }
        }
    }
}
module! { CombinationalLoop,
    #[kernel]
    impl Logic for CombinationalLoop {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.y.next = self.a.val();
            self.register.d.next = self.register.d.val() + 1;
        }
    }
}
module! { LabelTwice,
    #[kernel]
    impl Logic for LabelTwice {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            match self.a.val().index() {
                1 => self.y.next = 1.into(),
                0x1 => self.y.next = 2.into(),
                _ => self.y.next = 3.into(),
            }
        }
    }
}
module! { CastOfNoKnownWidth,
    #[kernel]
    impl Logic for CastOfNoKnownWidth {
        fn update(&mut self) {
            data_registers!(self, clock, register);
            self.s.next = signed_cast(self.a.val());
            self.y.next = bit_cast::<8, 12>(unsigned_cast(signed_bit_cast(self.s.val())));
        }
    }
}

/// Written as rust-hdl's own documentation says.
#[derive(LogicBlock, Default)]
struct Plain {
    a: Signal<In, Bits<8>>,
    y: Signal<Out, Bits<8>>,
}

impl Logic for Plain {
    #[hdl_gen]
    fn update(&mut self) {
        self.y.next = self.a.val();
    }
}

/// A reserved word.
#[derive(LogicBlock, Default)]
struct Keyword {
    begin: Signal<In, Bits<8>>,
    y: Signal<Out, Bits<8>>,
}

#[kernel]
impl Logic for Keyword {
    fn update(&mut self) {
        self.y.next = self.begin.val();
    }
}

/// Two names that become one.
#[derive(LogicBlock, Default)]
struct Collision {
    lane: [Signal<In, Bits<8>>; 2],
    lane_1: Signal<In, Bits<8>>,
    y: Signal<Out, Bits<8>>,
}

#[kernel]
impl Logic for Collision {
    fn update(&mut self) {
        self.y.next = self.lane[1].val() ^ self.lane_1.val() ^ self.lane[0].val();
    }
}

/// An enum that no signal has.
#[derive(LogicState, Clone, Copy, Debug, PartialEq)]
enum State {
    Idle,
    Busy,
}

#[derive(LogicBlock, Default)]
struct ForeignEnum {
    a: Signal<In, Bits<8>>,
    y: Signal<Out, Bits<8>>,
}

#[kernel]
impl Logic for ForeignEnum {
    fn update(&mut self) {
        self.y.next = self.a.val();
        if State::Idle == State::Busy {
            self.y.next = 0.into();
        }
    }
}

/// Logic by hand without Verilog.
#[derive(LogicBlock, Default)]
struct NoVerilog {
    y: Signal<Out, Bit>,
}

impl Logic for NoVerilog {
    fn update(&mut self) {
        self.y.next = true;
    }
}

#[derive(LogicBlock, Default)]
struct AroundNoVerilog {
    y: Signal<Out, Bit>,
    within: [NoVerilog; 2],
}

#[kernel]
impl Logic for AroundNoVerilog {
    fn update(&mut self) {
        self.y.next = self.within[0].y.val() ^ self.within[1].y.val();
    }
}

fn message<B: Block + Default>() -> String {
    match emit(&B::default(), &EmitOptions::default()) {
        Ok(bundle) => format!("EMITTED:\n{}", bundle.concatenated()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_has_no_verilog_of_the_same_meaning_is_refused_by_name() {
    let messages = [
        message::<LatchedOutput>(),
        message::<LatchedLocal>(),
        message::<LocalReadFirst>(),
        message::<LocalAssignedOnOnePath>(),
        message::<UndrivenOutput>(),
        message::<UndrivenRegister>(),
        message::<InputAssigned>(),
        message::<RegisterOutputAssigned>(),
        message::<LiteralTooWide>(),
        message::<SignedLiteralTooWide>(),
        message::<IndexOutOfRange>(),
        message::<NegativeIndex>(),
        message::<BitBeyondTheEnd>(),
        message::<CombinationalLoop>(),
        message::<LabelTwice>(),
        message::<CastOfNoKnownWidth>(),
        message::<Plain>(),
        message::<Keyword>(),
        message::<Collision>(),
        message::<ForeignEnum>(),
        message::<AroundNoVerilog>(),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}
