//! Requantizer: from the exact accumulator to BF16. Twin of [`golden::requantize`].

use crate::config::Multiplier;
use crate::float::{FloatScale, Normalizer};
use crate::prelude::*;

/// Bits that travel with a tile from its last step to its results.
pub const TILE_BITS: usize = 16;

/// Accumulator to BF16, one result a cycle, four pipeline stages with valid/ready/last.
#[derive(LogicBlock)]
pub struct Requantizer<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M (numerics §5).
    pub output_scale: Signal<In, Bits<32>>,
    /// Input beat is valid.
    pub in_valid: Signal<In, Bit>,
    /// Input beat is taken.
    pub in_ready: Signal<Out, Bit>,
    /// Last result of a tile.
    pub in_last: Signal<In, Bit>,
    /// Accumulator, two's complement in units of 2^-20.
    pub in_acc: Signal<In, Bits<ACC>>,
    /// Sticky NaN.
    pub in_nan: Signal<In, Bit>,
    /// What is to travel with it.
    pub in_tile: Signal<In, Bits<TILE_BITS>>,
    /// What came with the result that `output_scale` multiplies in this cycle.
    pub scaling_tile: Signal<Out, Bits<TILE_BITS>>,
    /// Output beat is valid.
    pub out_valid: Signal<Out, Bit>,
    /// Output beat is taken.
    pub out_ready: Signal<In, Bit>,
    /// Last result of a tile.
    pub out_last: Signal<Out, Bit>,
    /// The result, BF16.
    pub out_data: Signal<Out, Bits<16>>,
    /// The accumulator that it came from.
    pub out_acc: Signal<Out, Bits<ACC>>,
    /// The result is NaN.
    pub out_nan: Signal<Out, Bit>,
    /// What came with it.
    pub out_tile: Signal<Out, Bits<TILE_BITS>>,

    advance: Signal<Local, Bit>,
    valid: [Register<Bit>; 4],
    last: [DataRegister<Bit>; 4],
    nan: [DataRegister<Bit>; 4],
    tile: [DataRegister<Bits<TILE_BITS>>; 4],
    acc: [DataRegister<Bits<ACC>>; 4],

    negative: Signal<Local, Bit>,
    inverted: Signal<Local, Bits<ACC>>,
    magnitude: DataRegister<Bits<ACC>>,
    normalizer: Normalizer,
    kept: Signal<Local, Bits<25>>,
    round_up: Signal<Local, Bit>,
    rounded: Signal<Local, Bits<25>>,
    position: Signal<Local, Bits<6>>,
    exponent_base: Signal<Local, Bits<10>>,
    significand: DataRegister<Bits<24>>,
    exponent: DataRegister<Bits<10>>,
    zero: DataRegister<Bit>,
    scaler: FloatScale,
}

impl<const ACC: usize> Requantizer<ACC> {
    /// With a product in adders or in multiplier blocks.
    #[must_use]
    pub fn new(multiplier: Multiplier) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            output_scale: Default::default(),
            in_valid: Default::default(),
            in_ready: Default::default(),
            in_last: Default::default(),
            in_acc: Default::default(),
            in_nan: Default::default(),
            in_tile: Default::default(),
            scaling_tile: Default::default(),
            out_valid: Default::default(),
            out_ready: Default::default(),
            out_last: Default::default(),
            out_data: Default::default(),
            out_acc: Default::default(),
            out_nan: Default::default(),
            out_tile: Default::default(),
            advance: Default::default(),
            valid: Default::default(),
            last: Default::default(),
            nan: Default::default(),
            tile: Default::default(),
            acc: Default::default(),
            negative: Default::default(),
            inverted: Default::default(),
            magnitude: Default::default(),
            normalizer: Default::default(),
            kept: Default::default(),
            round_up: Default::default(),
            rounded: Default::default(),
            position: Default::default(),
            exponent_base: Default::default(),
            significand: Default::default(),
            exponent: Default::default(),
            zero: Default::default(),
            scaler: FloatScale::new(multiplier),
        }
    }
}

/// out = RNE_BF16(RNE_FP32(RNE_FP32(acc * 2^-20) * M)); a NaN gives 0x7FC0 (numerics §5).
///
/// Pipeline: 1 magnitude, 2 normalized and rounded to FP32, 3 product, 4 rounded to BF16.
#[kernel]
impl<const ACC: usize> Logic for Requantizer<ACC> {
    fn update(&mut self) {
        for i in 0..4 {
            registers!(self, clock, reset, valid[i]);
            data_registers!(self, clock, last[i], nan[i], acc[i], tile[i]);
        }
        data_registers!(self, clock, magnitude, significand, exponent, zero);

        self.advance.next = self.out_ready.val() || !self.valid[3].q.val();
        self.in_ready.next = self.advance.val();

        for n in ACC..(ACC + 1) {
            self.negative.next = self.in_acc.val().get_bit(n - 1);
            self.scaler.sign.next = self.acc[1].q.val().get_bit(n - 1);
        }
        self.inverted.next = !self.in_acc.val();
        self.normalizer.x.next = bit_cast::<64, ACC>(self.magnitude.q.val());
        self.kept.next = bit_cast::<25, 24>(self.normalizer.y.val().get_bits::<24>(40));
        self.round_up.next = self.normalizer.y.val().get_bit(39)
            && (self.normalizer.y.val().get_bit(40)
                || self.normalizer.y.val().get_bits::<39>(0).any());
        self.rounded.next = self.kept.val();
        if self.round_up.val() {
            self.rounded.next = self.kept.val() + 1;
        }
        // The bit at position p of the accumulator weighs 2^(p - 20): biased exponent p + 107.
        self.position.next = !self.normalizer.leading_zeros.val();
        self.exponent_base.next = bit_cast::<10, 6>(self.position.val()) + 107;

        if self.advance.val() {
            self.valid[0].d.next = self.in_valid.val();
            for i in 1..4 {
                self.valid[i].d.next = self.valid[i - 1].q.val();
            }
            if self.in_valid.val() {
                self.last[0].d.next = self.in_last.val();
                self.nan[0].d.next = self.in_nan.val();
                self.acc[0].d.next = self.in_acc.val();
                self.tile[0].d.next = self.in_tile.val();
                self.magnitude.d.next = self.in_acc.val();
                if self.negative.val() {
                    self.magnitude.d.next = self.inverted.val() + 1;
                }
            }
            for i in 1..4 {
                if self.valid[i - 1].q.val() {
                    self.last[i].d.next = self.last[i - 1].q.val();
                    self.nan[i].d.next = self.nan[i - 1].q.val();
                    self.acc[i].d.next = self.acc[i - 1].q.val();
                    self.tile[i].d.next = self.tile[i - 1].q.val();
                }
            }
            if self.valid[0].q.val() {
                self.zero.d.next = !self.magnitude.q.val().any();
                self.significand.d.next = self.rounded.val().get_bits::<24>(0);
                self.exponent.d.next = self.exponent_base.val();
                if self.rounded.val().get_bit(24) {
                    self.significand.d.next = 0x80_0000.into();
                    self.exponent.d.next = self.exponent_base.val() + 1;
                }
            }
        }

        self.scaler.clock.next = self.clock.val();
        self.scaler.advance.next = self.advance.val();
        self.scaler.zero.next = self.zero.q.val();
        self.scaler.infinite.next = false;
        self.scaler.nan.next = self.nan[1].q.val();
        self.scaler.exponent.next = self.exponent.q.val();
        self.scaler.significand.next = self.significand.q.val();
        self.scaler.scale.next = self.output_scale.val();

        self.out_valid.next = self.valid[3].q.val();
        self.out_last.next = self.last[3].q.val();
        self.out_nan.next = self.nan[3].q.val();
        self.out_acc.next = self.acc[3].q.val();
        self.out_data.next = self.scaler.y.val();
        self.out_tile.next = self.tile[3].q.val();
        self.scaling_tile.next = self.tile[1].q.val();
    }
}
