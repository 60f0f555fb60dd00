//! The job queue: checks what the host asks for, and keeps two jobs until they are done.

use super::registers::JobError;
use crate::prelude::*;

const FULL: u64 = JobError::Full as u64;
const TOKENS: u64 = JobError::Tokens as u64;
const BLOCKS: u64 = JobError::Blocks as u64;
const FEATURES: u64 = JobError::Features as u64;
const OUTPUT_SCALE: u64 = JobError::OutputScale as u64;
const INPUT_SCALE: u64 = JobError::InputScale as u64;
const FLAGS: u64 = JobError::Flags as u64;
const REUSE: u64 = JobError::Reuse as u64;
const CHAIN: u64 = JobError::Chain as u64;
const ACT_CAPACITY: u64 = JobError::ActCapacity as u64;
const RESULT_CAPACITY: u64 = JobError::ResultCapacity as u64;

/// Smallest and largest biased exponent of a scale that is not zero: 2^-60 to 2^60 (numerics §5).
const SMALLEST_EXPONENT: u64 = 127 - 60;
const LARGEST_EXPONENT: u64 = 127 + 60;

/// Is this the FP32 pattern of 0, or of a magnitude from 2^-60 to 2^60?
#[derive(LogicBlock, Default)]
pub struct ScaleCheck {
    /// FP32 bits.
    pub scale: Signal<In, Bits<32>>,
    /// It is.
    pub fits: Signal<Out, Bit>,
    exponent: Signal<Local, Bits<8>>,
}

/// Range check of an FP32 scale (numerics §5): it is 0, or its magnitude is from 2^-60 to 2^60. NaN and infinity are not.
#[kernel]
impl Logic for ScaleCheck {
    fn update(&mut self) {
        self.exponent.next = self.scale.val().get_bits::<8>(23);
        self.fits.next = (self.exponent.val() >= SMALLEST_EXPONENT
            && self.exponent.val() < LARGEST_EXPONENT)
            || (self.exponent.val() == LARGEST_EXPONENT
                && !self.scale.val().get_bits::<23>(0).any())
            || !self.scale.val().get_bits::<31>(0).any();
    }
}

/// Checks jobs, holds the two that are outstanding, and says which one each unit has to do next.
///
/// A job is accepted whole or refused with a code; a refused one leaves nothing behind. Each unit takes the jobs in order: `…_valid` shows
/// its next one, in slot `…_slot`, until the unit says `…_done`.
#[derive(LogicBlock, PortAccess)]
pub struct JobQueue {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// The host asks for a job.
    pub start: Signal<In, Bit>,
    /// Registers of the map: tokens M.
    pub tokens: Signal<In, Bits<32>>,
    /// Output features N.
    pub features: Signal<In, Bits<32>>,
    /// Blocks of a row.
    pub blocks: Signal<In, Bits<32>>,
    /// Flags.
    pub flags: Signal<In, Bits<32>>,
    /// M of the results.
    pub output_scale: Signal<In, Bits<32>>,
    /// M of the activations.
    pub input_scale: Signal<In, Bits<32>>,
    /// Threshold.
    pub threshold: Signal<In, Bits<64>>,
    /// Where weights begin.
    pub weight_align: Signal<In, Bits<32>>,
    /// Where activations begin.
    pub act_align: Signal<In, Bits<32>>,

    /// A job was accepted.
    pub accepted: Signal<Out, Bit>,
    /// A job was refused.
    pub refused: Signal<Out, Bit>,
    /// With this code.
    pub code: Signal<Out, Bits<8>>,
    /// A job is being checked.
    pub checking: Signal<Out, Bit>,
    /// Jobs are outstanding.
    pub busy: Signal<Out, Bit>,
    /// Two of them.
    pub full: Signal<Out, Bit>,

    /// Job of each slot: tokens.
    pub slot_tokens: [Signal<Out, Bits<16>>; 2],
    /// Output features.
    pub slot_features: [Signal<Out, Bits<16>>; 2],
    /// Blocks of a row.
    pub slot_blocks: [Signal<Out, Bits<16>>; 2],
    /// Blocks of a row of results.
    pub slot_result_blocks: [Signal<Out, Bits<16>>; 2],
    /// Flags.
    pub slot_flags: [Signal<Out, Bits<6>>; 2],
    /// M of the results.
    pub slot_output_scale: [Signal<Out, Bits<32>>; 2],
    /// M of the activations.
    pub slot_input_scale: [Signal<Out, Bits<32>>; 2],
    /// Threshold.
    pub slot_threshold: [Signal<Out, Bits<64>>; 2],
    /// Where weights begin: `{tag[5:0], scale[2:0], payload}`.
    pub slot_weight_align: [Signal<Out, Bits<10>>; 2],
    /// Where activations begin.
    pub slot_act_align: [Signal<Out, Bits<10>>; 2],
    /// Half of the activation memory.
    pub slot_half: [Signal<Out, Bit>; 2],
    /// Features of the results that the slot's activations come from.
    pub slot_chain_features: [Signal<Out, Bits<16>>; 2],

    /// The oldest job outstanding.
    pub oldest: Signal<Out, Bit>,
    /// It is done.
    pub job_done: Signal<In, Bit>,
    /// The activation loader's slot.
    pub act_slot: Signal<Out, Bit>,
    /// It has a job.
    pub act_valid: Signal<Out, Bit>,
    /// It has done it.
    pub act_done: Signal<In, Bit>,
    /// The sequencer's slot.
    pub sequence_slot: Signal<Out, Bit>,
    /// It has a job.
    pub sequence_valid: Signal<Out, Bit>,
    /// It has done it.
    pub sequence_done: Signal<In, Bit>,
    /// Each weight loader's slot.
    pub weight_slot: Vec<Signal<Out, Bit>>,
    /// It has a job.
    pub weight_valid: Vec<Signal<Out, Bit>>,
    /// It has done it.
    pub weight_done: Vec<Signal<In, Bit>>,
    /// Activations of each slot's job are complete.
    pub act_complete: [Signal<Out, Bit>; 2],

    outstanding: [Register<Bit>; 2],
    complete: [Register<Bit>; 2],
    act_pending: [Register<Bit>; 2],
    sequence_pending: [Register<Bit>; 2],
    weight_pending0: Vec<Register<Bit>>,
    weight_pending1: Vec<Register<Bit>>,
    next_slot: Register<Bit>,
    oldest_slot: Register<Bit>,
    act_pointer: Register<Bit>,
    sequence_pointer: Register<Bit>,
    weight_pointer: Vec<Register<Bit>>,

    tokens_of: [DataRegister<Bits<16>>; 2],
    features_of: [DataRegister<Bits<16>>; 2],
    blocks_of: [DataRegister<Bits<16>>; 2],
    result_blocks_of: [DataRegister<Bits<16>>; 2],
    flags_of: [DataRegister<Bits<6>>; 2],
    output_scale_of: [DataRegister<Bits<32>>; 2],
    input_scale_of: [DataRegister<Bits<32>>; 2],
    threshold_of: [DataRegister<Bits<64>>; 2],
    weight_align_of: [DataRegister<Bits<10>>; 2],
    act_align_of: [DataRegister<Bits<10>>; 2],
    half_of: [DataRegister<Bit>; 2],
    chain_features_of: [DataRegister<Bits<16>>; 2],

    // Shape of the activations, and of the results, that a next job may build on.
    acts_known: Register<Bit>,
    acts_half: Register<Bit>,
    acts_tokens: DataRegister<Bits<16>>,
    acts_blocks: DataRegister<Bits<16>>,
    results_known: Register<Bit>,
    results_tokens: DataRegister<Bits<16>>,
    results_blocks: DataRegister<Bits<16>>,
    results_features: DataRegister<Bits<16>>,

    // Checking, a tile of tokens a cycle.
    active: Register<Bit>,
    tokens_left: DataRegister<Bits<16>>,
    act_sum: DataRegister<Bits<24>>,
    result_sum: DataRegister<Bits<32>>,
    act_after: Signal<Local, Bits<24>>,
    result_after: Signal<Local, Bits<32>>,
    act_fits: Signal<Local, Bit>,
    result_fits: Signal<Local, Bit>,
    tile_elements: MulU<16, 16, 32>,
    output_check: ScaleCheck,
    input_check: ScaleCheck,

    cols: Constant<Bits<16>>,
    max_blocks: Constant<Bits<32>>,
    act_limit: Constant<Bits<24>>,
    result_limit: Constant<Bits<32>>,

    first_error: Signal<Local, Bits<8>>,
    source: Signal<Local, Bits<2>>,
    sink: Signal<Local, Bits<2>>,
    quantizes: Signal<Local, Bit>,
    loads_new: Signal<Local, Bit>,
    to_memory: Signal<Local, Bit>,
    blocks_of_results: Signal<Local, Bits<16>>,
    features_up: Signal<Local, Bits<20>>,
    last_tile: Signal<Local, Bit>,
    accept: Signal<Local, Bit>,
    too_large: Signal<Local, Bit>,
    take_error: Signal<Local, Bit>,
    is_full: Signal<Local, Bit>,
    new_half: Signal<Local, Bit>,
    align_weights: Signal<Local, Bits<10>>,
    align_acts: Signal<Local, Bits<10>>,
    _ports: usize,
}

/// What a job may need at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most blocks of a row: what the weight memory and the accumulator hold.
    pub blocks: usize,
    /// Most blocks of a column's activations.
    pub act_blocks: usize,
    /// Elements of the result memory.
    pub result_elements: usize,
}

impl JobQueue {
    /// For so many columns and weight ports.
    #[must_use]
    pub fn new(cols: usize, ports: usize, limits: Limits) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            tokens: Default::default(),
            features: Default::default(),
            blocks: Default::default(),
            flags: Default::default(),
            output_scale: Default::default(),
            input_scale: Default::default(),
            threshold: Default::default(),
            weight_align: Default::default(),
            act_align: Default::default(),
            accepted: Default::default(),
            refused: Default::default(),
            code: Default::default(),
            checking: Default::default(),
            busy: Default::default(),
            full: Default::default(),
            slot_tokens: Default::default(),
            slot_features: Default::default(),
            slot_blocks: Default::default(),
            slot_result_blocks: Default::default(),
            slot_flags: Default::default(),
            slot_output_scale: Default::default(),
            slot_input_scale: Default::default(),
            slot_threshold: Default::default(),
            slot_weight_align: Default::default(),
            slot_act_align: Default::default(),
            slot_half: Default::default(),
            slot_chain_features: Default::default(),
            oldest: Default::default(),
            job_done: Default::default(),
            act_slot: Default::default(),
            act_valid: Default::default(),
            act_done: Default::default(),
            sequence_slot: Default::default(),
            sequence_valid: Default::default(),
            sequence_done: Default::default(),
            weight_slot: (0..ports).map(|_| Default::default()).collect(),
            weight_valid: (0..ports).map(|_| Default::default()).collect(),
            weight_done: (0..ports).map(|_| Default::default()).collect(),
            act_complete: Default::default(),
            outstanding: Default::default(),
            complete: Default::default(),
            act_pending: Default::default(),
            sequence_pending: Default::default(),
            weight_pending0: (0..ports).map(|_| Default::default()).collect(),
            weight_pending1: (0..ports).map(|_| Default::default()).collect(),
            next_slot: Default::default(),
            oldest_slot: Default::default(),
            act_pointer: Default::default(),
            sequence_pointer: Default::default(),
            weight_pointer: (0..ports).map(|_| Default::default()).collect(),
            tokens_of: Default::default(),
            features_of: Default::default(),
            blocks_of: Default::default(),
            result_blocks_of: Default::default(),
            flags_of: Default::default(),
            output_scale_of: Default::default(),
            input_scale_of: Default::default(),
            threshold_of: Default::default(),
            weight_align_of: Default::default(),
            act_align_of: Default::default(),
            half_of: Default::default(),
            chain_features_of: Default::default(),
            acts_known: Default::default(),
            acts_half: Default::default(),
            acts_tokens: Default::default(),
            acts_blocks: Default::default(),
            results_known: Default::default(),
            results_tokens: Default::default(),
            results_blocks: Default::default(),
            results_features: Default::default(),
            active: Default::default(),
            tokens_left: Default::default(),
            act_sum: Default::default(),
            result_sum: Default::default(),
            act_after: Default::default(),
            result_after: Default::default(),
            act_fits: Default::default(),
            result_fits: Default::default(),
            tile_elements: Default::default(),
            output_check: Default::default(),
            input_check: Default::default(),
            cols: Constant::new((cols as u64).into()),
            max_blocks: Constant::new((limits.blocks as u64).into()),
            act_limit: Constant::new((limits.act_blocks as u64).into()),
            result_limit: Constant::new((limits.result_elements as u64).into()),
            first_error: Default::default(),
            source: Default::default(),
            sink: Default::default(),
            quantizes: Default::default(),
            loads_new: Default::default(),
            to_memory: Default::default(),
            blocks_of_results: Default::default(),
            features_up: Default::default(),
            last_tile: Default::default(),
            accept: Default::default(),
            too_large: Default::default(),
            take_error: Default::default(),
            is_full: Default::default(),
            new_half: Default::default(),
            align_weights: Default::default(),
            align_acts: Default::default(),
            _ports: ports,
        }
    }
}

/// Checks the host's jobs, keeps two of them until they are done, and hands them to the units in order.
///
/// A job is accepted whole or refused with a code (`ERROR` in the register map). Its check takes one cycle for each tile of COLS tokens: tokens 1 to
/// 65535, features 0 to 65535, blocks 1 to MAX_BLOCKS, activations within ACT_LIMIT blocks a column, results for the next job within
/// RESULT_LIMIT elements. `..._valid` shows a unit its next job, in slot `..._slot`, until it says `..._done`.
#[kernel]
impl Logic for JobQueue {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            next_slot,
            oldest_slot,
            act_pointer,
            sequence_pointer,
            acts_known,
            acts_half,
            results_known,
            active
        );
        data_registers!(
            self,
            clock,
            acts_tokens,
            acts_blocks,
            results_tokens,
            results_blocks,
            results_features,
            tokens_left,
            act_sum,
            result_sum
        );
        for i in 0..2 {
            registers!(
                self,
                clock,
                reset,
                outstanding[i],
                complete[i],
                act_pending[i],
                sequence_pending[i]
            );
            data_registers!(
                self,
                clock,
                tokens_of[i],
                features_of[i],
                blocks_of[i],
                result_blocks_of[i],
                flags_of[i],
                output_scale_of[i],
                input_scale_of[i],
                threshold_of[i],
                weight_align_of[i],
                act_align_of[i],
                half_of[i],
                chain_features_of[i]
            );
            self.slot_tokens[i].next = self.tokens_of[i].q.val();
            self.slot_features[i].next = self.features_of[i].q.val();
            self.slot_blocks[i].next = self.blocks_of[i].q.val();
            self.slot_result_blocks[i].next = self.result_blocks_of[i].q.val();
            self.slot_flags[i].next = self.flags_of[i].q.val();
            self.slot_output_scale[i].next = self.output_scale_of[i].q.val();
            self.slot_input_scale[i].next = self.input_scale_of[i].q.val();
            self.slot_threshold[i].next = self.threshold_of[i].q.val();
            self.slot_weight_align[i].next = self.weight_align_of[i].q.val();
            self.slot_act_align[i].next = self.act_align_of[i].q.val();
            self.slot_half[i].next = self.half_of[i].q.val();
            self.slot_chain_features[i].next = self.chain_features_of[i].q.val();
            self.act_complete[i].next = self.complete[i].q.val();
        }

        // What is wrong with the job at first sight.
        self.source.next = self.flags.val().get_bits::<2>(0);
        self.sink.next = self.flags.val().get_bits::<2>(2);
        self.quantizes.next = self.source.val() == 1 || self.source.val() == 2;
        self.loads_new.next = self.source.val() != 3;
        self.to_memory.next = self.sink.val() == 2 && self.features.val().any();
        self.features_up.next = bit_cast::<20, 32>(self.features.val()) + 15;
        self.blocks_of_results.next = self.features_up.val().get_bits::<16>(4);
        self.output_check.scale.next = self.output_scale.val();
        self.input_check.scale.next = self.input_scale.val();
        self.is_full.next = self.outstanding[0].q.val() && self.outstanding[1].q.val();
        self.first_error.next = 0.into();
        if self.source.val() == 2
            && (!self.results_known.q.val()
                || self.results_tokens.q.val() != bit_cast::<16, 32>(self.tokens.val())
                || self.results_blocks.q.val() != bit_cast::<16, 32>(self.blocks.val()))
        {
            self.first_error.next = CHAIN.into();
        }
        if self.source.val() == 3
            && (!self.acts_known.q.val()
                || self.acts_tokens.q.val() != bit_cast::<16, 32>(self.tokens.val())
                || self.acts_blocks.q.val() != bit_cast::<16, 32>(self.blocks.val()))
        {
            self.first_error.next = REUSE.into();
        }
        if self.sink.val() == 3
            || self.flags.val().get_bits::<26>(6).any()
            || (self.flags.val().get_bit(4) && !self.quantizes.val())
        {
            self.first_error.next = FLAGS.into();
        }
        if self.quantizes.val() && !self.input_check.fits.val() {
            self.first_error.next = INPUT_SCALE.into();
        }
        if self.features.val().any() && !self.output_check.fits.val() {
            self.first_error.next = OUTPUT_SCALE.into();
        }
        if self.features.val().get_bits::<16>(16).any() {
            self.first_error.next = FEATURES.into();
        }
        if !self.blocks.val().any() || self.blocks.val() > self.max_blocks.val() {
            self.first_error.next = BLOCKS.into();
        }
        if !self.tokens.val().any() || self.tokens.val().get_bits::<16>(16).any() {
            self.first_error.next = TOKENS.into();
        }

        // What does not fit: the memories' share of one tile of tokens after the other is summed up.
        self.act_after.next = self.act_sum.q.val() + bit_cast::<24, 32>(self.blocks.val());
        self.tile_elements.a.next = self.blocks_of_results.val() << 4;
        self.tile_elements.b.next = self.cols.val();
        self.result_after.next = self.result_sum.q.val() + self.tile_elements.p.val();
        self.act_fits.next = self.act_after.val() <= self.act_limit.val() || !self.loads_new.val();
        self.result_fits.next = (self.result_after.val() <= self.result_limit.val()
            && !self.features_up.val().get_bits::<4>(16).any())
            || !self.to_memory.val();
        self.last_tile.next = self.tokens_left.q.val() <= self.cols.val();
        self.too_large.next =
            self.active.q.val() && (!self.act_fits.val() || !self.result_fits.val());
        self.accept.next = self.active.q.val() && !self.too_large.val() && self.last_tile.val();
        self.take_error.next = self.start.val()
            && (self.active.q.val() || self.is_full.val() || self.first_error.val().any());
        self.code.next = self.first_error.val();
        if self.too_large.val() {
            self.code.next = RESULT_CAPACITY.into();
            if !self.act_fits.val() {
                self.code.next = ACT_CAPACITY.into();
            }
        } else if self.active.q.val() || self.is_full.val() {
            self.code.next = FULL.into();
        }
        self.refused.next = self.take_error.val() || self.too_large.val();
        self.accepted.next = self.accept.val();
        self.checking.next = self.active.q.val();
        self.busy.next =
            self.outstanding[0].q.val() || self.outstanding[1].q.val() || self.active.q.val();
        self.full.next = self.is_full.val();
        if self.active.q.val() {
            self.tokens_left.d.next = self.tokens_left.q.val() - self.cols.val();
            self.act_sum.d.next = self.act_after.val();
            self.result_sum.d.next = self.result_after.val();
            if self.too_large.val() || self.last_tile.val() {
                self.active.d.next = false;
            }
        } else if self.start.val() && !self.take_error.val() {
            self.active.d.next = true;
            self.tokens_left.d.next = bit_cast::<16, 32>(self.tokens.val());
            self.act_sum.d.next = 0.into();
            self.result_sum.d.next = 0.into();
        }

        // Done jobs leave, then a new one enters.
        self.oldest.next = self.oldest_slot.q.val();
        if self.job_done.val() {
            self.oldest_slot.d.next = !self.oldest_slot.q.val();
            if self.oldest_slot.q.val() {
                self.outstanding[1].d.next = false;
            } else {
                self.outstanding[0].d.next = false;
            }
        }
        self.act_slot.next = self.act_pointer.q.val();
        self.act_valid.next = self.act_pending[0].q.val();
        if self.act_pointer.q.val() {
            self.act_valid.next = self.act_pending[1].q.val();
        }
        if self.act_done.val() {
            self.act_pointer.d.next = !self.act_pointer.q.val();
            if self.act_pointer.q.val() {
                self.act_pending[1].d.next = false;
                self.complete[1].d.next = true;
            } else {
                self.act_pending[0].d.next = false;
                self.complete[0].d.next = true;
            }
        }
        self.sequence_slot.next = self.sequence_pointer.q.val();
        self.sequence_valid.next = self.sequence_pending[0].q.val();
        if self.sequence_pointer.q.val() {
            self.sequence_valid.next = self.sequence_pending[1].q.val();
        }
        if self.sequence_done.val() {
            self.sequence_pointer.d.next = !self.sequence_pointer.q.val();
            if self.sequence_pointer.q.val() {
                self.sequence_pending[1].d.next = false;
            } else {
                self.sequence_pending[0].d.next = false;
            }
        }
        for f in 0..self._ports {
            registers!(
                self,
                clock,
                reset,
                weight_pending0[f],
                weight_pending1[f],
                weight_pointer[f]
            );
            self.weight_slot[f].next = self.weight_pointer[f].q.val();
            self.weight_valid[f].next = self.weight_pending0[f].q.val();
            if self.weight_pointer[f].q.val() {
                self.weight_valid[f].next = self.weight_pending1[f].q.val();
            }
            if self.weight_done[f].val() {
                self.weight_pointer[f].d.next = !self.weight_pointer[f].q.val();
                if self.weight_pointer[f].q.val() {
                    self.weight_pending1[f].d.next = false;
                } else {
                    self.weight_pending0[f].d.next = false;
                }
            }
        }

        self.new_half.next = self.acts_half.q.val();
        if self.loads_new.val() {
            self.new_half.next = !self.acts_half.q.val();
        }
        self.align_weights.next = bit_cast::<10, 1>(self.weight_align.val().get_bits::<1>(0))
            | (bit_cast::<10, 3>(self.weight_align.val().get_bits::<3>(8)) << 1)
            | (bit_cast::<10, 6>(self.weight_align.val().get_bits::<6>(16)) << 4);
        self.align_acts.next = bit_cast::<10, 1>(self.act_align.val().get_bits::<1>(0))
            | (bit_cast::<10, 3>(self.act_align.val().get_bits::<3>(8)) << 1)
            | (bit_cast::<10, 6>(self.act_align.val().get_bits::<6>(16)) << 4);
        if self.accept.val() {
            self.next_slot.d.next = !self.next_slot.q.val();
            self.acts_known.d.next = true;
            self.acts_half.d.next = self.new_half.val();
            self.acts_tokens.d.next = bit_cast::<16, 32>(self.tokens.val());
            self.acts_blocks.d.next = bit_cast::<16, 32>(self.blocks.val());
            if self.to_memory.val() {
                self.results_known.d.next = true;
                self.results_tokens.d.next = bit_cast::<16, 32>(self.tokens.val());
                self.results_blocks.d.next = self.blocks_of_results.val();
                self.results_features.d.next = bit_cast::<16, 32>(self.features.val());
            }
        }
        for i in 0..2 {
            if self.accept.val() && self.next_slot.q.val() == (i == 1) {
                self.outstanding[i].d.next = true;
                self.complete[i].d.next = false;
                self.act_pending[i].d.next = true;
                self.sequence_pending[i].d.next = true;
                self.tokens_of[i].d.next = bit_cast::<16, 32>(self.tokens.val());
                self.features_of[i].d.next = bit_cast::<16, 32>(self.features.val());
                self.blocks_of[i].d.next = bit_cast::<16, 32>(self.blocks.val());
                self.result_blocks_of[i].d.next = self.blocks_of_results.val();
                self.flags_of[i].d.next = self.flags.val().get_bits::<6>(0);
                self.output_scale_of[i].d.next = self.output_scale.val();
                self.input_scale_of[i].d.next = self.input_scale.val();
                self.threshold_of[i].d.next = self.threshold.val();
                self.weight_align_of[i].d.next = self.align_weights.val();
                self.act_align_of[i].d.next = self.align_acts.val();
                self.half_of[i].d.next = self.new_half.val();
                self.chain_features_of[i].d.next = self.results_features.q.val();
            }
        }
        for f in 0..self._ports {
            if self.accept.val() {
                if self.next_slot.q.val() {
                    self.weight_pending1[f].d.next = true;
                } else {
                    self.weight_pending0[f].d.next = true;
                }
            }
        }
    }
}
