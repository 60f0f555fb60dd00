//! The front of the parallel build: instead of a multiplier for each lane a table of M's products, and one multiplier by counting.

use super::{ElementClamp, ProductRound};
use crate::memory::BlockBuffer;
use crate::prelude::*;

/// Register stages of a [`TableRescaler`].
pub const TABLE_RESCALER_STAGES: usize = 4;

/// Cycles from a new M to a full table.
pub const TABLE_CYCLES: usize = 138;

/// Number of the last cycle in which something is written.
const LAST: u64 = 136;

/// Makes the table of M's rounded products and writes it to all lanes.
///
/// A product's rounded significand depends on the 7 bits of x's fraction and the 23 of M's: `{carry, fraction[6:0]}`, 0 to 255,
/// where the carry adds to the exponent. From one fraction to the next it rises by M's significand in units of the last place,
/// or half of that from where the product reaches 2. So in a run of eight fractions from a multiple of eight on it is a start,
/// and a whole number of steps: floor(position * significand), halved behind 2, and one more for some positions. Never two: a test
/// shows it for every significand. The one run in which the product reaches 2 has steps of its own.
#[derive(LogicBlock, Default)]
pub struct ProductTable {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M.
    pub scale: Signal<In, Bits<32>>,
    /// The table is that of M. Low for [`TABLE_CYCLES`] cycles from a new significand or the reset on.
    pub ready: Signal<Out, Bit>,
    /// A run is written this cycle.
    pub run_write: Signal<Out, Bit>,
    /// Its number.
    pub run_address: Signal<Out, Bits<4>>,
    /// `{crossing, start[7:0], raised[7:1]}`: the product reaches 2 in it; the start; where it is one more.
    pub run_data: Signal<Out, Bits<16>>,
    /// A step is written this cycle.
    pub step_write: Signal<Out, Bit>,
    /// `{crossing, position[2:0]}`.
    pub step_address: Signal<Out, Bits<4>>,
    /// What there is to add at the position.
    pub step_data: Signal<Out, Bits<4>>,

    significand: Signal<Local, Bits<24>>,
    loaded: DataRegister<Bits<23>>,
    changed: Signal<Local, Bit>,
    filled: Register<Bit>,
    // The first eight cycles write the common steps, 128 more the runs.
    count: Register<Bits<8>>,
    common: Signal<Local, Bit>,
    product: DataRegister<Bits<32>>,
    multiple: Register<Bits<27>>,
    round: ProductRound,
    // A stage later.
    valid: Register<Bit>,
    delayed_common: DataRegister<Bit>,
    position: DataRegister<Bits<3>>,
    run: DataRegister<Bits<4>>,
    wide: DataRegister<Bit>,
    rounded: DataRegister<Bits<8>>,
    step: DataRegister<Bits<4>>,
    first: Signal<Local, Bit>,
    start: Signal<Local, Bits<8>>,
    start_wide: Signal<Local, Bit>,
    start_wait: DataRegister<Bits<8>>,
    start_wide_wait: DataRegister<Bit>,
    crossing: Signal<Local, Bit>,
    rise: Signal<Local, Bits<4>>,
    raised: DataRegister<Bits<7>>,
    raised_half: DataRegister<Bits<7>>,
    raised_bit: Signal<Local, Bits<7>>,
    raised_half_bit: Signal<Local, Bits<7>>,
    raised_run: Signal<Local, Bits<7>>,
}

/// Counts through all fractions: the product grows by M's significand each cycle and is rounded as a [`super::Rescaler`] does.
#[kernel]
impl Logic for ProductTable {
    fn update(&mut self) {
        registers!(self, clock, reset, filled, count, multiple, valid);
        data_registers!(
            self,
            clock,
            loaded,
            product,
            delayed_common,
            position,
            run,
            wide,
            rounded,
            step,
            start_wait,
            start_wide_wait,
            raised,
            raised_half
        );
        self.significand.next = bit_cast::<24, 23>(self.scale.val().get_bits::<23>(0)) | 0x80_0000;
        self.changed.next = self.loaded.q.val() != self.scale.val().get_bits::<23>(0);
        self.ready.next = self.filled.q.val() && !self.changed.val();

        self.loaded.d.next = self.scale.val().get_bits::<23>(0);
        self.valid.d.next = false;
        self.common.next = !self.count.q.val().get_bits::<5>(3).any();
        if self.changed.val() {
            self.filled.d.next = false;
            self.count.d.next = 0.into();
            self.multiple.d.next = 0.into();
        } else if !self.filled.q.val() {
            if self.count.q.val() == LAST {
                self.filled.d.next = true;
            } else {
                self.valid.d.next = true;
                self.count.d.next = self.count.q.val() + 1;
            }
            // The position's multiple of M.
            self.multiple.d.next =
                self.multiple.q.val() + bit_cast::<27, 24>(self.significand.val());
            if self.count.q.val().get_bits::<3>(0).all() {
                self.multiple.d.next = 0.into();
            }
            // From fraction 0 on, 128 times M.
            self.product.d.next = self.product.q.val() + bit_cast::<32, 24>(self.significand.val());
            if self.common.val() {
                self.product.d.next = bit_cast::<32, 24>(self.significand.val()) << 7;
            }
        }
        self.round.product.next = self.product.q.val();
        self.delayed_common.d.next = self.common.val();
        self.position.d.next = self.count.q.val().get_bits::<3>(0);
        self.run.d.next = self.count.q.val().get_bits::<4>(3) - 1;
        self.wide.d.next = self.round.wide.val();
        self.rounded.d.next = (bit_cast::<8, 1>(self.round.wide.val().into()) << 7
            | bit_cast::<8, 7>(self.round.kept.val()))
            + bit_cast::<8, 1>(self.round.round_up.val().into());
        self.step.d.next = self.multiple.q.val().get_bits::<4>(23);

        self.first.next = !self.position.q.val().any();
        self.start.next = self.start_wait.q.val();
        self.start_wide.next = self.start_wide_wait.q.val();
        if self.first.val() {
            self.start.next = self.rounded.q.val();
            self.start_wide.next = self.wide.q.val();
        }
        self.start_wait.d.next = self.start.val();
        self.start_wide_wait.d.next = self.start_wide.val();
        self.rise.next = self.rounded.q.val().get_bits::<4>(0) - self.start.val().get_bits::<4>(0);
        // A rise is the step or one more, so their last bits tell.
        self.raised_bit.next =
            bit_cast::<7, 1>((self.rise.val().get_bit(0) ^ self.step.q.val().get_bit(0)).into())
                << 6;
        self.raised_half_bit.next =
            bit_cast::<7, 1>((self.rise.val().get_bit(0) ^ self.step.q.val().get_bit(1)).into())
                << 6;
        self.raised.d.next = (self.raised.q.val() >> 1) | self.raised_bit.val();
        self.raised_half.d.next = (self.raised_half.q.val() >> 1) | self.raised_half_bit.val();

        self.step_write.next =
            self.valid.q.val() && (self.delayed_common.q.val() || !self.start_wide.val());
        self.step_address.next = bit_cast::<4, 3>(self.position.q.val());
        self.step_data.next = self.step.q.val();
        if !self.delayed_common.q.val() {
            self.step_address.next = bit_cast::<4, 3>(self.position.q.val()) | 8;
            self.step_data.next = self.rise.val();
        }
        self.run_write.next =
            self.valid.q.val() && !self.delayed_common.q.val() && self.position.q.val().all();
        self.run_address.next = self.run.q.val();
        self.crossing.next = self.wide.q.val() && !self.start_wide.val();
        self.raised_run.next = self.raised.d.val();
        if self.start_wide.val() {
            self.raised_run.next = self.raised_half.d.val();
        }
        if self.crossing.val() {
            self.raised_run.next = 0.into();
        }
        self.run_data.next = (bit_cast::<16, 1>(self.crossing.val().into()) << 15)
            | (bit_cast::<16, 8>(self.start.val()) << 7)
            | bit_cast::<16, 7>(self.raised_run.val());
    }
}

/// BF16 x to z = clamp(RNE_BF16(RNE_FP32(x * M)), -448, 448), [`TABLE_RESCALER_STAGES`] cycles later, by two small memories that a
/// [`ProductTable`] has filled. What z is, and the zeros and infinities of x, are as of a [`super::Rescaler`].
///
/// A memory of 16 words of 16 bits and one of 4 bits: distributed memory where there is some, else block memories or registers.
#[derive(LogicBlock, Default)]
pub struct TableRescaler {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Each stage takes what is before it.
    pub enable: [Signal<In, Bit>; TABLE_RESCALER_STAGES],
    /// BF16 element.
    pub x: Signal<In, Bits<16>>,
    /// M is negative.
    pub scale_sign: Signal<In, Bit>,
    /// From [`super::ScaleExponent`].
    pub scale_offset: Signal<In, Bits<10>>,
    /// From [`super::ScaleExponent`].
    pub scale_zero: Signal<In, Bit>,
    /// From [`ProductTable`], as are the next five.
    pub run_write: Signal<In, Bit>,
    /// Number of the run.
    pub run_address: Signal<In, Bits<4>>,
    /// The run.
    pub run_data: Signal<In, Bits<16>>,
    /// A step is written.
    pub step_write: Signal<In, Bit>,
    /// Number of the step.
    pub step_address: Signal<In, Bits<4>>,
    /// The step.
    pub step_data: Signal<In, Bits<4>>,
    /// Rescaled and clamped element.
    pub z: Signal<Out, Bits<13>>,

    element_exponent: Signal<Local, Bits<8>>,
    fraction: Signal<Local, Bits<7>>,
    sign: [PipelineRegister<Bit>; 3],
    nan: [PipelineRegister<Bit>; 3],
    exponent: [PipelineRegister<Bits<8>>; 3],
    // 0: the run.
    runs: BlockBuffer<16, 4>,
    position: PipelineRegister<Bits<3>>,
    // 1: the step.
    run: Signal<Local, Bits<16>>,
    crossing: Signal<Local, Bit>,
    steps: BlockBuffer<4, 4>,
    start: PipelineRegister<Bits<8>>,
    halved: PipelineRegister<Bit>,
    raise: PipelineRegister<Bit>,
    // 2: their sum.
    step: Signal<Local, Bits<4>>,
    start_and_one: Signal<Local, Bits<9>>,
    step_and_raise: Signal<Local, Bits<9>>,
    sum: Signal<Local, Bits<9>>,
    significand: PipelineRegister<Bits<8>>,
    // 3: the exponent.
    exponent_and_one: Signal<Local, Bits<11>>,
    offset_and_carry: Signal<Local, Bits<11>>,
    exponent_sum: Signal<Local, Bits<11>>,
    clamp: ElementClamp,
    rounded_z: PipelineRegister<Bits<13>>,
}

/// Rescales one activation for quantization (numerics §3), exactly, without a multiplier.
#[kernel]
impl Logic for TableRescaler {
    fn update(&mut self) {
        self.element_exponent.next = self.x.val().get_bits::<8>(7);
        self.fraction.next = self.x.val().get_bits::<7>(0);
        for i in 0..3 {
            pipeline_registers!(self, clock, enable[i], sign[i], nan[i], exponent[i]);
        }
        for i in 0..2 {
            self.sign[i + 1].d.next = self.sign[i].q.val();
            self.nan[i + 1].d.next = self.nan[i].q.val();
            self.exponent[i + 1].d.next = self.exponent[i].q.val();
        }

        // 0.
        self.sign[0].d.next = self.x.val().get_bit(15) ^ self.scale_sign.val();
        self.nan[0].d.next = self.element_exponent.val().all()
            && (self.fraction.val().any() || self.scale_zero.val());
        self.exponent[0].d.next = self.element_exponent.val();
        self.runs.clock.next = self.clock.val();
        self.runs.write.next = self.run_write.val();
        self.runs.write_address.next = self.run_address.val();
        self.runs.write_data.next = self.run_data.val();
        self.runs.read.next = self.enable[0].val();
        self.runs.read_address.next = self.fraction.val().get_bits::<4>(3);
        pipeline_registers!(self, clock, enable[0], position);
        self.position.d.next = self.fraction.val().get_bits::<3>(0);

        // 1.
        self.run.next = self.runs.read_data.val();
        self.crossing.next = self.run.val().get_bit(15);
        self.steps.clock.next = self.clock.val();
        self.steps.write.next = self.step_write.val();
        self.steps.write_address.next = self.step_address.val();
        self.steps.write_data.next = self.step_data.val();
        self.steps.read.next = self.enable[1].val();
        self.steps.read_address.next = bit_cast::<4, 3>(self.position.q.val())
            | (bit_cast::<4, 1>(self.crossing.val().into()) << 3);
        pipeline_registers!(self, clock, enable[1], start, halved, raise);
        self.start.d.next = self.run.val().get_bits::<8>(7);
        // Only in the crossing run a start may be 2 (rounded up) and a product less.
        self.halved.d.next = self.run.val().get_bit(14) && !self.crossing.val();
        self.raise.d.next = false;
        for i in 0..7 {
            if self.position.q.val().index() == i + 1 {
                self.raise.d.next = self.run.val().get_bit(i);
            }
        }

        // 2. The lowest place carries `raise` in.
        self.step.next = self.steps.read_data.val();
        if self.halved.q.val() {
            self.step.next = self.steps.read_data.val() >> 1;
        }
        self.start_and_one.next = (bit_cast::<9, 8>(self.start.q.val()) << 1) | 1;
        self.step_and_raise.next =
            (bit_cast::<9, 4>(self.step.val()) << 1) | bit_cast::<9, 1>(self.raise.q.val().into());
        self.sum.next = self.start_and_one.val() + self.step_and_raise.val();
        pipeline_registers!(self, clock, enable[2], significand);
        self.significand.d.next = self.sum.val().get_bits::<8>(1);

        // 3. The lowest place carries the significand's carry in.
        self.exponent_and_one.next = (bit_cast::<11, 8>(self.exponent[2].q.val()) << 1) | 1;
        self.offset_and_carry.next = (bit_cast::<11, 10>(self.scale_offset.val()) << 1)
            | bit_cast::<11, 1>(self.significand.q.val().get_bits::<1>(7));
        self.exponent_sum.next = self.exponent_and_one.val() + self.offset_and_carry.val();
        self.clamp.sign.next = self.sign[2].q.val();
        self.clamp.nan.next = self.nan[2].q.val();
        self.clamp.exponent.next = self.exponent_sum.val().get_bits::<10>(1);
        self.clamp.fraction.next = self.significand.q.val().get_bits::<7>(0);
        pipeline_registers!(self, clock, enable[3], rounded_z);
        self.rounded_z.d.next = self.clamp.z.val();
        self.z.next = self.rounded_z.q.val();
    }
}
