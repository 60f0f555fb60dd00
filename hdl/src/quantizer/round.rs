//! Roundings to E4M3, to the UE4M3 block scale and to E2M1.
//!
//! Elements come as a [`super::Rescaler`] gives them: exponent 1 stands for 2^-11.

use crate::prelude::*;

/// Rounds a magnitude to E4M3 (without the sign bit).
#[derive(LogicBlock, Default)]
pub struct E4m3Round {
    /// `{exponent[4:0], fraction[6:0]}`, at most 448; zero if the exponent is.
    pub magnitude: Signal<In, Bits<12>>,
    /// E4M3 code 0..=0x7E.
    pub code: Signal<Out, Bits<7>>,
    exponent: Signal<Local, Bits<5>>,
    fraction: Signal<Local, Bits<7>>,
    kept: Signal<Local, Bits<7>>,
    guard: Signal<Local, Bit>,
    sticky: Signal<Local, Bit>,
    round_up: Signal<Local, Bits<7>>,
}

/// RNE to E4M3 (numerics §1). From 2^-6 on three bits of the fraction are kept, below one fewer
/// for each power of two, down to the tie 2^-10 of the smallest code.
#[kernel]
impl Logic for E4m3Round {
    fn update(&mut self) {
        self.exponent.next = self.magnitude.val().get_bits::<5>(7);
        self.fraction.next = self.magnitude.val().get_bits::<7>(0);
        match self.exponent.val().index() {
            0 => {
                self.kept.next = 0.into();
                self.guard.next = false;
                self.sticky.next = false;
            }
            1 => {
                self.kept.next = 0.into();
                self.guard.next = false;
                self.sticky.next = false;
            }
            2 => {
                self.kept.next = 0.into();
                self.guard.next = true;
                self.sticky.next = self.fraction.val().any();
            }
            3 => {
                self.kept.next = 1.into();
                self.guard.next = self.fraction.val().get_bit(6);
                self.sticky.next = self.fraction.val().get_bits::<6>(0).any();
            }
            4 => {
                self.kept.next = bit_cast::<7, 1>(self.fraction.val().get_bits::<1>(6)) | 2;
                self.guard.next = self.fraction.val().get_bit(5);
                self.sticky.next = self.fraction.val().get_bits::<5>(0).any();
            }
            5 => {
                self.kept.next = bit_cast::<7, 2>(self.fraction.val().get_bits::<2>(5)) | 4;
                self.guard.next = self.fraction.val().get_bit(4);
                self.sticky.next = self.fraction.val().get_bits::<4>(0).any();
            }
            _ => {
                self.kept.next = (bit_cast::<7, 5>(self.exponent.val() - 5) << 3)
                    | bit_cast::<7, 3>(self.fraction.val().get_bits::<3>(4));
                self.guard.next = self.fraction.val().get_bit(3);
                self.sticky.next = self.fraction.val().get_bits::<3>(0).any();
            }
        }
        self.round_up.next = bit_cast::<7, 1>(
            (self.guard.val() && (self.sticky.val() || self.kept.val().get_bit(0))).into(),
        );
        self.code.next = self.kept.val() + self.round_up.val();
    }
}

/// The block scale: RNE_UE4M3(amax / 6).
#[derive(LogicBlock, Default)]
pub struct AmaxScale {
    /// `{exponent[4:0], fraction[6:0]}` of the block's largest magnitude, at most 448.
    pub amax: Signal<In, Bits<12>>,
    /// UE4M3 code of the scale, at most that of 72.
    pub code: Signal<Out, Bits<7>>,
    exponent: Signal<Local, Bits<5>>,
    fraction: Signal<Local, Bits<7>>,
    fourth: Signal<Local, Bits<5>>,
    rest: Signal<Local, Bits<2>>,
    base: Signal<Local, Bits<7>>,
    steps: Signal<Local, Bits<4>>,
    more: Signal<Local, Bit>,
    sum: Signal<Local, Bits<8>>,
}

/// amax / 6 rounded once to UE4M3 (numerics §3 step 1), without dividing.
///
/// Between two powers of two amax passes the ties of at most eight codes, each six times the middle of two
/// codes. A tie belongs to the even one. With f the fraction, amax is (128 + f) * 2^(exponent - 19).
#[kernel]
impl Logic for AmaxScale {
    fn update(&mut self) {
        self.exponent.next = self.amax.val().get_bits::<5>(7);
        self.fraction.next = self.amax.val().get_bits::<7>(0);
        self.base.next = 0.into();
        self.steps.next = 0.into();
        self.more.next = false;
        // A table of the fraction's upper five bits, and what the other two decide: smaller than comparisons.
        self.fourth.next = self.fraction.val().get_bits::<5>(2);
        self.rest.next = self.fraction.val().get_bits::<2>(0);
        match self.exponent.val().index() {
            0 => self.base.next = 0.into(),
            1 => self.base.next = 0.into(),
            2 => self.base.next = 0.into(),
            3 => self.base.next = 0.into(),
            // amax / 6 in steps of 2^-9: (128 + f) / 384.
            4 => {
                self.more.next =
                    self.fraction.val().get_bit(6) && self.fraction.val().get_bits::<6>(0).any();
            }
            // (128 + f) / 192.
            5 => self.base.next = 1.into(),
            // (128 + f) / 96.
            6 => {
                self.base.next = 1.into();
                // From 16 on, and above 112.
                if self.fraction.val().get_bits::<3>(4).any() {
                    self.steps.next = 1.into();
                }
                self.more.next = self.fraction.val().get_bits::<3>(4).all()
                    && self.fraction.val().get_bits::<4>(0).any();
            }
            // (128 + f) / 48.
            7 => {
                self.base.next = 3.into();
                // From 40 on, and above 88.
                if self.fraction.val().get_bit(6)
                    || (self.fraction.val().get_bit(5)
                        && self.fraction.val().get_bits::<2>(3).any())
                {
                    self.steps.next = 1.into();
                }
                self.more.next = self.fraction.val().get_bit(6)
                    && (self.fraction.val().get_bit(5)
                        || (self.fraction.val().get_bits::<2>(3).all()
                            && self.fraction.val().get_bits::<3>(0).any()));
            }
            // (128 + f) / 24.
            8 => {
                self.base.next = 5.into();
                match self.fourth.val().index() {
                    0 => self.steps.next = 0.into(),
                    1 => self.steps.next = 1.into(),
                    2 => self.steps.next = 1.into(),
                    3 => self.steps.next = 1.into(),
                    4 => self.steps.next = 1.into(),
                    5 => self.steps.next = 1.into(),
                    6 => self.steps.next = 1.into(),
                    7 => {
                        self.steps.next = 1.into();
                        self.more.next = self.rest.val().any();
                    }
                    8 => self.steps.next = 2.into(),
                    9 => self.steps.next = 2.into(),
                    10 => self.steps.next = 2.into(),
                    11 => self.steps.next = 2.into(),
                    12 => self.steps.next = 2.into(),
                    13 => self.steps.next = 3.into(),
                    14 => self.steps.next = 3.into(),
                    15 => self.steps.next = 3.into(),
                    16 => self.steps.next = 3.into(),
                    17 => self.steps.next = 3.into(),
                    18 => self.steps.next = 3.into(),
                    19 => {
                        self.steps.next = 3.into();
                        self.more.next = self.rest.val().any();
                    }
                    20 => self.steps.next = 4.into(),
                    21 => self.steps.next = 4.into(),
                    22 => self.steps.next = 4.into(),
                    23 => self.steps.next = 4.into(),
                    24 => self.steps.next = 4.into(),
                    25 => self.steps.next = 5.into(),
                    26 => self.steps.next = 5.into(),
                    27 => self.steps.next = 5.into(),
                    28 => self.steps.next = 5.into(),
                    29 => self.steps.next = 5.into(),
                    30 => self.steps.next = 5.into(),
                    _ => {
                        self.steps.next = 5.into();
                        self.more.next = self.rest.val().any();
                    }
                }
            }
            // (128 + f) / 12 in steps of the significand, from 192 on / 24 in twice as large ones.
            _ => {
                self.base.next = (bit_cast::<7, 5>(self.exponent.val() - 8) << 3) | 3;
                match self.fourth.val().index() {
                    0 => self.steps.next = 0.into(),
                    1 => self.steps.next = 0.into(),
                    2 => {
                        self.steps.next = 0.into();
                        self.more.next = self.rest.val().get_bit(1);
                    }
                    3 => self.steps.next = 1.into(),
                    4 => self.steps.next = 1.into(),
                    5 => {
                        self.steps.next = 1.into();
                        self.more.next = self.rest.val().all();
                    }
                    6 => self.steps.next = 2.into(),
                    7 => self.steps.next = 2.into(),
                    8 => {
                        self.steps.next = 2.into();
                        self.more.next = self.rest.val().get_bit(1);
                    }
                    9 => self.steps.next = 3.into(),
                    10 => self.steps.next = 3.into(),
                    11 => {
                        self.steps.next = 3.into();
                        self.more.next = self.rest.val().all();
                    }
                    12 => self.steps.next = 4.into(),
                    13 => self.steps.next = 4.into(),
                    14 => {
                        self.steps.next = 4.into();
                        self.more.next = self.rest.val().get_bit(1);
                    }
                    15 => self.steps.next = 5.into(),
                    16 => self.steps.next = 5.into(),
                    17 => self.steps.next = 5.into(),
                    18 => self.steps.next = 5.into(),
                    19 => {
                        self.steps.next = 5.into();
                        self.more.next = self.rest.val().any();
                    }
                    20 => self.steps.next = 6.into(),
                    21 => self.steps.next = 6.into(),
                    22 => self.steps.next = 6.into(),
                    23 => self.steps.next = 6.into(),
                    24 => self.steps.next = 6.into(),
                    25 => self.steps.next = 7.into(),
                    26 => self.steps.next = 7.into(),
                    27 => self.steps.next = 7.into(),
                    28 => self.steps.next = 7.into(),
                    29 => self.steps.next = 7.into(),
                    30 => self.steps.next = 7.into(),
                    _ => {
                        self.steps.next = 7.into();
                        self.more.next = self.rest.val().any();
                    }
                }
            }
        }
        // One adder: the lowest place carries `more` in.
        self.sum.next = ((bit_cast::<8, 7>(self.base.val()) << 1) | 1)
            + ((bit_cast::<8, 4>(self.steps.val()) << 1)
                | bit_cast::<8, 1>(self.more.val().into()));
        self.code.next = self.sum.val().get_bits::<7>(1);
    }
}

/// The points at which elements of a block go from one E2M1 code to the next, as codes of elements.
#[derive(LogicBlock, Default)]
pub struct E2m1Points {
    /// UE4M3 code of the block's scale, at most that of 72.
    pub scale: Signal<In, Bits<7>>,
    /// 1, 3, 5, 7, 10, 14 and 20 quarters of the scale, `{exponent[4:0], fraction[6:0]}`; of a zero scale above every element.
    pub points: [Signal<Out, Bits<12>>; 7],
    field: Signal<Local, Bits<4>>,
    fraction: Signal<Local, Bits<3>>,
    exponent: Signal<Local, Bits<5>>,
    triple: Signal<Local, Bits<7>>,
    quintuple: Signal<Local, Bits<7>>,
    septuple: Signal<Local, Bits<7>>,
    triple_exponent: Signal<Local, Bits<5>>,
    quintuple_exponent: Signal<Local, Bits<5>>,
    septuple_exponent: Signal<Local, Bits<5>>,
}

/// Decision points of E2M1 (numerics §1) times the scale. A multiple of a significand of four bits has at most seven, so each
/// point is a number of the elements' own form, and comparing with it is exact.
#[kernel]
impl Logic for E2m1Points {
    fn update(&mut self) {
        // A quarter of the scale is (8 + fraction) / 8 * 2^(exponent - 12).
        self.field.next = self.scale.val().get_bits::<4>(3);
        self.fraction.next = self.scale.val().get_bits::<3>(0);
        self.exponent.next = bit_cast::<5, 4>(self.field.val()) + 3;
        if !self.field.val().any() {
            match self.scale.val().get_bits::<3>(0).index() {
                // All points stay below 32, and above the exponent of 448, which is 20.
                0 => self.exponent.next = 24.into(),
                1 => {
                    self.exponent.next = 1.into();
                    self.fraction.next = 0.into();
                }
                2 => {
                    self.exponent.next = 2.into();
                    self.fraction.next = 0.into();
                }
                3 => {
                    self.exponent.next = 2.into();
                    self.fraction.next = 4.into();
                }
                4 => {
                    self.exponent.next = 3.into();
                    self.fraction.next = 0.into();
                }
                5 => {
                    self.exponent.next = 3.into();
                    self.fraction.next = 2.into();
                }
                6 => {
                    self.exponent.next = 3.into();
                    self.fraction.next = 4.into();
                }
                _ => {
                    self.exponent.next = 3.into();
                    self.fraction.next = 6.into();
                }
            }
        }
        // 24 to 45, 40 to 75 and 56 to 105 eighths, normalised.
        self.triple_exponent.next = self.exponent.val() + 1;
        if self.fraction.val() > 2 {
            self.triple_exponent.next = self.exponent.val() + 2;
        }
        match self.fraction.val().index() {
            0 => self.triple.next = 64.into(),
            1 => self.triple.next = 88.into(),
            2 => self.triple.next = 112.into(),
            3 => self.triple.next = 4.into(),
            4 => self.triple.next = 16.into(),
            5 => self.triple.next = 28.into(),
            6 => self.triple.next = 40.into(),
            _ => self.triple.next = 52.into(),
        }
        self.quintuple_exponent.next = self.exponent.val() + 2;
        if self.fraction.val() > 4 {
            self.quintuple_exponent.next = self.exponent.val() + 3;
        }
        match self.fraction.val().index() {
            0 => self.quintuple.next = 32.into(),
            1 => self.quintuple.next = 52.into(),
            2 => self.quintuple.next = 72.into(),
            3 => self.quintuple.next = 92.into(),
            4 => self.quintuple.next = 112.into(),
            5 => self.quintuple.next = 2.into(),
            6 => self.quintuple.next = 12.into(),
            _ => self.quintuple.next = 22.into(),
        }
        self.septuple_exponent.next = self.exponent.val() + 2;
        if self.fraction.val() > 1 {
            self.septuple_exponent.next = self.exponent.val() + 3;
        }
        match self.fraction.val().index() {
            0 => self.septuple.next = 96.into(),
            1 => self.septuple.next = 124.into(),
            2 => self.septuple.next = 12.into(),
            3 => self.septuple.next = 26.into(),
            4 => self.septuple.next = 40.into(),
            5 => self.septuple.next = 54.into(),
            6 => self.septuple.next = 68.into(),
            _ => self.septuple.next = 82.into(),
        }
        self.points[0].next = (bit_cast::<12, 5>(self.exponent.val()) << 7)
            | (bit_cast::<12, 3>(self.fraction.val()) << 4);
        self.points[1].next = (bit_cast::<12, 5>(self.triple_exponent.val()) << 7)
            | bit_cast::<12, 7>(self.triple.val());
        self.points[2].next = (bit_cast::<12, 5>(self.quintuple_exponent.val()) << 7)
            | bit_cast::<12, 7>(self.quintuple.val());
        self.points[3].next = (bit_cast::<12, 5>(self.septuple_exponent.val()) << 7)
            | bit_cast::<12, 7>(self.septuple.val());
        self.points[4].next = (bit_cast::<12, 5>(self.quintuple_exponent.val() + 1) << 7)
            | bit_cast::<12, 7>(self.quintuple.val());
        self.points[5].next = (bit_cast::<12, 5>(self.septuple_exponent.val() + 1) << 7)
            | bit_cast::<12, 7>(self.septuple.val());
        self.points[6].next = (bit_cast::<12, 5>(self.quintuple_exponent.val() + 2) << 7)
            | bit_cast::<12, 7>(self.quintuple.val());
    }
}

/// Rounds z / scale to E2M1 without dividing.
#[derive(LogicBlock, Default)]
pub struct E2m1Select {
    /// `{exponent[4:0], fraction[6:0]}`.
    pub magnitude: Signal<In, Bits<12>>,
    /// From [`E2m1Points`].
    pub points: [Signal<In, Bits<12>>; 7],
    /// The magnitude reaches 7 quarters of the scale, the middle point.
    pub high: Signal<In, Bit>,
    /// E2M1 code without its sign; 0 if the scale is zero.
    pub code: Signal<Out, Bits<3>>,
    middle: Signal<Local, Bit>,
    low: Signal<Local, Bit>,
    middle_point: Signal<Local, Bits<12>>,
    low_point: Signal<Local, Bits<12>>,
}

/// The exact quotient rounded once (numerics §1): comparisons with decision points, which find one bit of the code each, the first
/// of them a stage earlier. A tie goes to the even code: the points below odd codes (1, 5, 10 and 20 quarters of the
/// scale) must be exceeded, those below even codes (3, 7 and 14) reached.
#[kernel]
impl Logic for E2m1Select {
    fn update(&mut self) {
        self.middle_point.next = self.points[1].val();
        if self.high.val() {
            self.middle_point.next = self.points[5].val();
        }
        self.middle.next = self.magnitude.val() >= self.middle_point.val();
        if self.high.val() {
            self.low_point.next = self.points[4].val();
            if self.middle.val() {
                self.low_point.next = self.points[6].val();
            }
        } else {
            self.low_point.next = self.points[0].val();
            if self.middle.val() {
                self.low_point.next = self.points[2].val();
            }
        }
        self.low.next = self.magnitude.val() > self.low_point.val();
        self.code.next = (bit_cast::<3, 1>(self.high.val().into()) << 2)
            | (bit_cast::<3, 1>(self.middle.val().into()) << 1)
            | bit_cast::<3, 1>(self.low.val().into());
    }
}
