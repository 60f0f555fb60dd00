//! Constructs that rust-hdl's own translation gets wrong, or is suspected of: here its simulation and the emitted Verilog agree
//! on every input.
#![allow(clippy::panic, reason = "a helper fails the test that calls it")]

mod support;

use hdl::emit::{Bundle, EmitOptions, emit};
use hdl::prelude::*;
use support::{
    Case, assert_icarus_agrees, assert_lint_clean, assert_verilator_agrees, simulate_case,
};

/// A module of two bytes in and one value out, with Locals of the usual types. the rest is its kernel.
macro_rules! byte_module {
    ($name:ident, $output:ty, $kernel:item) => {
        #[derive(LogicBlock, PortAccess, Default)]
        struct $name {
            a: Signal<In, Bits<8>>,
            b: Signal<In, Bits<8>>,
            y: Signal<Out, $output>,
            wide_a: Signal<Local, Bits<16>>,
            wide_b: Signal<Local, Bits<16>>,
            signed_a: Signal<Local, Signed<8>>,
            signed_b: Signal<Local, Signed<8>>,
        }

        $kernel
    };
}

byte_module! { CastAfterAdd, Bits<16>,
    #[kernel]
    impl Logic for CastAfterAdd {
        fn update(&mut self) {
            self.y.next = bit_cast::<16, 8>(self.a.val() + self.b.val());
        }
    }
}
byte_module! { Precedence, Bits<16>,
    #[kernel]
    impl Logic for Precedence {
        fn update(&mut self) {
            self.y.next = 0.into();
            if self.a.val() & 3 == self.b.val() & 3 {
                self.y.next = 1.into();
            }
        }
    }
}
byte_module! { MultiplyShift, Bits<16>,
    #[kernel]
    impl Logic for MultiplyShift {
        fn update(&mut self) {
            self.wide_a.next = bit_cast::<16, 8>(self.a.val()) << 8;
            self.wide_b.next = bit_cast::<16, 8>(self.b.val()) << 8;
            self.y.next = bit_cast::<16, 32>((self.wide_a.val() * self.wide_b.val()) >> 16);
        }
    }
}
byte_module! { NotExtended, Bits<16>,
    #[kernel]
    impl Logic for NotExtended {
        fn update(&mut self) {
            self.y.next = bit_cast::<16, 8>(!self.a.val()) ^ bit_cast::<16, 8>(self.b.val());
        }
    }
}
byte_module! { SubtractCompare, Bits<16>,
    #[kernel]
    impl Logic for SubtractCompare {
        fn update(&mut self) {
            self.y.next = 0.into();
            if (self.a.val() - self.b.val()) < 100 {
                self.y.next = 1.into();
            }
        }
    }
}
byte_module! { SignedCompareLiteral, Bits<16>,
    #[kernel]
    impl Logic for SignedCompareLiteral {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = 0.into();
            if self.signed_a.val() < 5.into() {
                self.y.next = 1.into();
            }
            if self.signed_b.val() > (-3).into() {
                self.y.next = self.y.val() + 2;
            }
        }
    }
}
byte_module! { SignedSumExtended, Signed<16>,
    #[kernel]
    impl Logic for SignedSumExtended {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = signed_bit_cast::<16, 8>(self.signed_a.val() + self.signed_b.val());
        }
    }
}
byte_module! { SignedExtendedSum, Signed<16>,
    #[kernel]
    impl Logic for SignedExtendedSum {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = signed_bit_cast::<16, 8>(self.signed_a.val()) + signed_bit_cast::<16, 8>(self.signed_b.val());
        }
    }
}
byte_module! { SignedCompare, Bits<16>,
    #[kernel]
    impl Logic for SignedCompare {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = 0.into();
            if self.signed_a.val() < self.signed_b.val() {
                self.y.next = 1.into();
            }
        }
    }
}
byte_module! { ShiftBySignal, Bits<16>,
    #[kernel]
    impl Logic for ShiftBySignal {
        fn update(&mut self) {
            self.wide_a.next = bit_cast::<16, 8>(self.a.val());
            self.y.next = (self.wide_a.val() << self.b.val()) | (self.wide_a.val() >> self.b.val().get_bits::<3>(0));
        }
    }
}
byte_module! { DynamicBits, Bits<16>,
    #[kernel]
    impl Logic for DynamicBits {
        fn update(&mut self) {
            self.wide_a.next = bit_cast::<16, 3>(self.a.val().get_bits::<3>(self.b.val().get_bits::<2>(0).index()));
            self.y.next = self.wide_a.val().replace_bit(self.b.val().get_bits::<2>(4).index(), true);
        }
    }
}
byte_module! { CastTruncates, Bits<16>,
    #[kernel]
    impl Logic for CastTruncates {
        fn update(&mut self) {
            self.y.next = bit_cast::<16, 4>(bit_cast::<4, 8>(self.a.val())) + bit_cast::<16, 8>(self.b.val());
        }
    }
}
byte_module! { SignExtendedToBits, Bits<16>,
    #[kernel]
    impl Logic for SignExtendedToBits {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = unsigned_cast(signed_bit_cast::<16, 8>(self.signed_a.val())) ^ unsigned_cast(signed_bit_cast(self.signed_b.val()));
        }
    }
}
byte_module! { SignedMultiply, Signed<32>,
    #[kernel]
    impl Logic for SignedMultiply {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = signed_bit_cast::<16, 8>(self.signed_a.val()) * signed_bit_cast::<16, 8>(self.signed_b.val());
        }
    }
}
byte_module! { ShiftAfterAdd, Bits<16>,
    #[kernel]
    impl Logic for ShiftAfterAdd {
        fn update(&mut self) {
            self.y.next = bit_cast::<16, 8>((self.a.val() + self.b.val()) >> 1);
        }
    }
}
byte_module! { SignedTruncates, Signed<4>,
    #[kernel]
    impl Logic for SignedTruncates {
        fn update(&mut self) {
            self.signed_a.next = signed_cast(self.a.val());
            self.signed_b.next = signed_cast(self.b.val());
            self.y.next = signed_bit_cast::<4, 8>(self.signed_a.val() - self.signed_b.val());
        }
    }
}

/// Beyond the width of any byte.
const THRESHOLD: u64 = 37;

byte_module! { NamedConstant, Bits<16>,
    #[kernel]
    impl Logic for NamedConstant {
        fn update(&mut self) {
            self.y.next = bit_cast::<16, 8>(self.a.val() + THRESHOLD);
            if self.b.val() > THRESHOLD {
                self.y.next = bit_cast::<16, 4>(self.b.val().get_bits::<4>(4));
            }
        }
    }
}
byte_module! { SliceOfSum, Bits<8>,
    #[kernel]
    impl Logic for SliceOfSum {
        fn update(&mut self) {
            self.y.next = bit_cast::<8, 4>((self.a.val() + self.b.val()).get_bits::<4>(2));
        }
    }
}
byte_module! { SliceBeyondTheEnd, Bits<8>,
    #[kernel]
    impl Logic for SliceBeyondTheEnd {
        fn update(&mut self) {
            self.y.next = self.a.val().get_bits::<8>(5) ^ self.b.val().get_bits::<8>(self.a.val().get_bits::<3>(0).index());
        }
    }
}
byte_module! { BlockingLocals, Bits<16>,
    #[kernel]
    impl Logic for BlockingLocals {
        fn update(&mut self) {
            self.wide_a.next = 1.into();
            for i in 0..8 {
                if self.a.val().get_bit(i) {
                    self.wide_a.next = self.wide_a.val() + self.wide_a.val();
                }
                if self.b.val().get_bit(7 - i) {
                    self.wide_a.next = self.wide_a.val() + 3;
                }
            }
            self.y.next = self.wide_a.val();
            self.wide_a.next = 0.into();
            self.y.next = self.y.val() ^ self.wide_a.val();
        }
    }
}
byte_module! { MatchOnIndex, Bits<8>,
    #[kernel]
    impl Logic for MatchOnIndex {
        fn update(&mut self) {
            match self.a.val().get_bits::<3>(0).index() {
                0 => self.y.next = self.b.val(),
                1 => {
                    if self.b.val().any() {
                        self.y.next = self.b.val() - 1;
                    } else {
                        self.y.next = 0xAA.into();
                    }
                }
                5 => self.y.next = 5.into(),
                9 => self.y.next = 99.into(),
                _ => self.y.next = !self.b.val(),
            }
        }
    }
}
byte_module! { IndexAgainstNumber, Bits<8>,
    #[kernel]
    impl Logic for IndexAgainstNumber {
        fn update(&mut self) {
            self.y.next = 0.into();
            for i in 0..20 {
                if self.a.val().get_bits::<4>(0).index() == i {
                    self.y.next = i.to_bits();
                }
            }
            if self.a.val().get_bits::<4>(4).index() < self.b.val().index() {
                self.y.next = self.y.val() + 128;
            }
        }
    }
}
byte_module! { SumWithCarry, Bits<8>,
    #[kernel]
    impl Logic for SumWithCarry {
        fn update(&mut self) {
            self.y.next = self.a.val() + (self.b.val() > 200);
        }
    }
}

fn emitted(block: &impl Block) -> Bundle {
    emit(block, &EmitOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn exhaustive<B: Block + PortAccess + Default>() -> Case {
    let bundle = emitted(&B::default());
    assert_lint_clean(&bundle);
    let stimuli = (0..1_u64 << 16).map(|both| vec![vec![both & 255], vec![both >> 8]]);
    simulate_case(B::default(), bundle, stimuli)
}

#[test]
fn every_pair_of_bytes_gives_the_same_in_rust_and_verilog() {
    let cases = [
        exhaustive::<CastAfterAdd>(),
        exhaustive::<Precedence>(),
        exhaustive::<MultiplyShift>(),
        exhaustive::<NotExtended>(),
        exhaustive::<SubtractCompare>(),
        exhaustive::<SignedCompareLiteral>(),
        exhaustive::<SignedSumExtended>(),
        exhaustive::<SignedExtendedSum>(),
        exhaustive::<SignedCompare>(),
        exhaustive::<ShiftBySignal>(),
        exhaustive::<DynamicBits>(),
        exhaustive::<CastTruncates>(),
        exhaustive::<SignExtendedToBits>(),
        exhaustive::<SignedMultiply>(),
        exhaustive::<ShiftAfterAdd>(),
        exhaustive::<SignedTruncates>(),
        exhaustive::<NamedConstant>(),
        exhaustive::<SliceOfSum>(),
        exhaustive::<SliceBeyondTheEnd>(),
        exhaustive::<BlockingLocals>(),
        exhaustive::<MatchOnIndex>(),
        exhaustive::<IndexAgainstNumber>(),
        exhaustive::<SumWithCarry>(),
    ];
    assert_icarus_agrees(&cases);
    assert_verilator_agrees(&cases);
}
