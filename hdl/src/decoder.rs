//! Block decoder: a packed block becomes sixteen lanes that every multiplier understands.
//!
//! Twin of [`golden::block`]. One decoder serves a whole row (weights) or column (activations) of
//! the array, so an element is decoded once and not in each PE.

use crate::prelude::*;
use golden::format::BLOCK;

/// Width of a packed block on a stream: 128 payload bits, 8 scale bits, 1 tag bit.
pub const BLOCK_BITS: usize = 137;
/// Bit of the tag in a packed block: 1 is FP8, 0 is FP4.
pub const TAG_BIT: usize = 136;
/// Lowest bit of the scale in a packed block.
pub const SCALE_BIT: usize = 128;

/// One element, decoded: `lane = {sign, significand[3:0], shift[3:0]}`.
#[derive(LogicBlock, Default)]
pub struct ElementDecoder {
    /// The block is FP8.
    pub fp8: Signal<In, Bit>,
    /// E2M1 code of this element, meaningful in an FP4 block.
    pub code4: Signal<In, Bits<4>>,
    /// E4M3 code of this element, meaningful in an FP8 block.
    pub code8: Signal<In, Bits<8>>,
    /// Sign, significand and left shift.
    pub lane: Signal<Out, Bits<9>>,
    /// The element is an E4M3 NaN.
    pub nan: Signal<Out, Bit>,
    sign: Signal<Local, Bit>,
    significand: Signal<Local, Bits<4>>,
    shift: Signal<Local, Bits<4>>,
    exponent: Signal<Local, Bits<4>>,
    mantissa: Signal<Local, Bits<3>>,
    magnitude_code: Signal<Local, Bits<7>>,
    sign_bits: Signal<Local, Bits<9>>,
    significand_bits: Signal<Local, Bits<9>>,
    shift_bits: Signal<Local, Bits<9>>,
}

/// Decodes one E2M1 or E4M3 element to sign, significand and left shift.
///
/// value = significand * 2^shift. FP8: in units of 2^-9, shift 0 to 14.
/// FP4: in units of 2^-1, shift 0, so that sums of such a block take no more bits than they need.
#[kernel]
impl Logic for ElementDecoder {
    fn update(&mut self) {
        self.exponent.next = self.code8.val().get_bits::<4>(3);
        self.mantissa.next = self.code8.val().get_bits::<3>(0);
        self.magnitude_code.next = self.code8.val().get_bits::<7>(0);
        self.nan.next = self.fp8.val() && self.magnitude_code.val().all();
        self.significand.next = 0.into();
        if self.fp8.val() {
            self.sign.next = self.code8.val().get_bit(7);
            self.significand.next = bit_cast::<4, 3>(self.mantissa.val());
            self.shift.next = 0.into();
            if self.exponent.val().any() {
                self.significand.next = bit_cast::<4, 3>(self.mantissa.val()) | 8;
                self.shift.next = self.exponent.val() - 1;
            }
        } else {
            self.sign.next = self.code4.val().get_bit(3);
            self.shift.next = 0.into();
            match self.code4.val().get_bits::<3>(0).index() {
                0 => self.significand.next = 0.into(),
                1 => self.significand.next = 1.into(),
                2 => self.significand.next = 2.into(),
                3 => self.significand.next = 3.into(),
                4 => self.significand.next = 4.into(),
                5 => self.significand.next = 6.into(),
                6 => self.significand.next = 8.into(),
                _ => self.significand.next = 12.into(),
            }
        }
        self.sign_bits.next = bit_cast::<9, 1>(self.sign.val().into()) << 8;
        self.significand_bits.next = bit_cast::<9, 4>(self.significand.val()) << 4;
        self.shift_bits.next = bit_cast::<9, 4>(self.shift.val());
        self.lane.next = self.sign_bits.val() | self.significand_bits.val() | self.shift_bits.val();
    }
}

/// An E4M3 magnitude or UE4M3 scale, decoded: value = significand * 2^shift * 2^-9.
#[derive(LogicBlock, Default)]
pub struct MagnitudeDecoder {
    /// Exponent and mantissa.
    pub code: Signal<In, Bits<7>>,
    /// The significand with its leading bit.
    pub significand: Signal<Out, Bits<4>>,
    /// 0 to 14.
    pub shift: Signal<Out, Bits<4>>,
    exponent: Signal<Local, Bits<4>>,
}

/// Decodes an E4M3 magnitude to significand and left shift, in units of 2^-9.
#[kernel]
impl Logic for MagnitudeDecoder {
    fn update(&mut self) {
        self.exponent.next = self.code.val().get_bits::<4>(3);
        self.significand.next = bit_cast::<4, 3>(self.code.val().get_bits::<3>(0));
        self.shift.next = 0.into();
        if self.exponent.val().any() {
            self.significand.next = bit_cast::<4, 3>(self.code.val().get_bits::<3>(0)) | 8;
            self.shift.next = self.exponent.val() - 1;
        }
    }
}

/// A lane as an integer, for multipliers as wide as that.
#[derive(LogicBlock, Default)]
pub struct LaneInteger {
    /// `{sign, significand[3:0], shift[3:0]}`.
    pub lane: Signal<In, Bits<9>>,
    /// `{sign, magnitude[17:0]}`; the largest magnitude is 448 in units of 2^-9, below 2^18.
    pub value: Signal<Out, Bits<19>>,
    magnitude: Signal<Local, Bits<18>>,
}

/// Sign and integer magnitude of a lane: its significand, shifted.
#[kernel]
impl Logic for LaneInteger {
    fn update(&mut self) {
        self.magnitude.next =
            bit_cast::<18, 4>(self.lane.val().get_bits::<4>(4)) << self.lane.val().get_bits::<4>(0);
        self.value.next = (bit_cast::<19, 1>(self.lane.val().get_bits::<1>(8)) << 18)
            | bit_cast::<19, 18>(self.magnitude.val());
    }
}

/// A packed block to sixteen lanes, its scale and its NaN flag.
#[derive(LogicBlock)]
pub struct BlockDecoder {
    /// Packed block: `[127:0]` payload, `[135:128]` scale, `[136]` tag.
    pub block: Signal<In, Bits<BLOCK_BITS>>,
    /// The tag: this block is FP8.
    pub fp8: Signal<Out, Bit>,
    /// Some element is NaN.
    pub nan: Signal<Out, Bit>,
    /// `{significand[3:0], shift[3:0]}` of the UE4M3 scale: scale = significand * 2^shift * 2^-9. Of an FP8 block 1 and 1, which
    /// bring its product with an FP4 block to the unit of two FP4 blocks'.
    pub scale: Signal<Out, Bits<8>>,
    /// The decoded elements.
    pub lane: [Signal<Out, Bits<9>>; BLOCK],
    element: [ElementDecoder; BLOCK],
    element_nan: Signal<Local, Bit>,
    exponent: Signal<Local, Bits<4>>,
    mantissa: Signal<Local, Bits<3>>,
    significand: Signal<Local, Bits<8>>,
    shift: Signal<Local, Bits<8>>,
    _lanes: usize,
}

impl BlockDecoder {
    /// A decoder whose lanes from this number on are zero, whatever the block has there.
    #[must_use]
    pub fn with_lanes(lanes: usize) -> Self {
        Self {
            block: Default::default(),
            fp8: Default::default(),
            nan: Default::default(),
            scale: Default::default(),
            lane: Default::default(),
            element: Default::default(),
            element_nan: Default::default(),
            exponent: Default::default(),
            mantissa: Default::default(),
            significand: Default::default(),
            shift: Default::default(),
            _lanes: lanes,
        }
    }
}

impl Default for BlockDecoder {
    fn default() -> Self {
        Self::with_lanes(BLOCK)
    }
}

/// Decodes one packed block (FP4: 16 E2M1 codes and a UE4M3 scale; FP8: 16 E4M3 codes)
/// into the lane form shared by all four multiplier modes.
#[kernel]
impl Logic for BlockDecoder {
    fn update(&mut self) {
        self.fp8.next = self.block.val().get_bit(TAG_BIT);
        self.element_nan.next = false;
        for i in self._lanes..BLOCK {
            self.element[i].fp8.next = false;
            self.element[i].code4.next = 0.into();
            self.element[i].code8.next = 0.into();
            self.lane[i].next = self.element[i].lane.val();
            self.element_nan.next = self.element_nan.val() | self.element[i].nan.val();
        }
        for i in 0..self._lanes {
            self.element[i].fp8.next = self.block.val().get_bit(TAG_BIT);
            self.element[i].code4.next = self.block.val().get_bits::<4>(i * 4);
            self.element[i].code8.next = self.block.val().get_bits::<8>(i * 8);
            self.lane[i].next = self.element[i].lane.val();
            self.element_nan.next = self.element_nan.val() | self.element[i].nan.val();
        }
        self.nan.next = self.element_nan.val();
        self.exponent.next = self.block.val().get_bits::<4>(SCALE_BIT + 3);
        self.mantissa.next = self.block.val().get_bits::<3>(SCALE_BIT);
        self.significand.next = bit_cast::<8, 3>(self.mantissa.val());
        self.shift.next = bit_cast::<8, 4>(self.exponent.val());
        if self.exponent.val().any() {
            self.significand.next = bit_cast::<8, 3>(self.mantissa.val()) | 8;
            self.shift.next = bit_cast::<8, 4>(self.exponent.val()) - 1;
        }
        if self.block.val().get_bit(TAG_BIT) {
            self.significand.next = 1.into();
            self.shift.next = 1.into();
        }
        self.scale.next = (self.significand.val() << 4) | self.shift.val();
    }
}
