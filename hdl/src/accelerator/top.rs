//! The accelerator's top: registers, memories, sequencer, array, quantizer, streams.

use super::bank::PackedBank;
use super::counters::{Counters, PairCounter};
use super::feed::{BlockFeed, ElementFeed};
use super::loader::{ActLoader, WeightLoader};
use super::queue::{JobQueue, Limits};
use super::reader::BlockReader;
use super::registers::{AXIL_ADDRESS, COUNTERS, FIRST_COUNTER, ID, RegisterFile, VERSION, place};
use super::results::{OutputFifo, ResultWriter};
use super::sequencer::Sequencer;
use super::writer::PackedWriter;
use crate::array::PeArray;
use crate::config::ArrayConfig;
use crate::decoder::{BLOCK_BITS, SCALE_BIT, TAG_BIT};
use crate::prelude::*;
use crate::quantizer::{ParallelQuantizer, SerialQuantizer};
use golden::format::BLOCK;

/// The complete accelerator.
///
/// Weights come through `weight_ports` ports, rows of a tile in turn: port f carries the rows f, f + ports, … of the matrix as a packed tensor of its own.
#[derive(LogicBlock, PortAccess)]
pub struct Accelerator<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// AXI4-Lite: write address is valid.
    pub s_axil_awvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axil_awready: Signal<Out, Bit>,
    /// Byte address.
    pub s_axil_awaddr: Signal<In, Bits<AXIL_ADDRESS>>,
    /// Write data is valid.
    pub s_axil_wvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axil_wready: Signal<Out, Bit>,
    /// The data.
    pub s_axil_wdata: Signal<In, Bits<32>>,
    /// Its bytes that count.
    pub s_axil_wstrb: Signal<In, Bits<4>>,
    /// Write response is valid.
    pub s_axil_bvalid: Signal<Out, Bit>,
    /// It is taken.
    pub s_axil_bready: Signal<In, Bit>,
    /// 0 is OKAY, 2 SLVERR.
    pub s_axil_bresp: Signal<Out, Bits<2>>,
    /// Read address is valid.
    pub s_axil_arvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axil_arready: Signal<Out, Bit>,
    /// Byte address.
    pub s_axil_araddr: Signal<In, Bits<AXIL_ADDRESS>>,
    /// Read data is valid.
    pub s_axil_rvalid: Signal<Out, Bit>,
    /// It is taken.
    pub s_axil_rready: Signal<In, Bit>,
    /// The data.
    pub s_axil_rdata: Signal<Out, Bits<32>>,
    /// 0 is OKAY, 2 SLVERR.
    pub s_axil_rresp: Signal<Out, Bits<2>>,
    /// Interrupt, high while an enabled event is set.
    pub irq: Signal<Out, Bit>,
    /// Weights, by port: payload beat is valid.
    pub s_axis_weight_payload_tvalid: Vec<Signal<In, Bit>>,
    /// It is taken.
    pub s_axis_weight_payload_tready: Vec<Signal<Out, Bit>>,
    /// Two payload words, the first in the low half.
    pub s_axis_weight_payload_tdata: Vec<Signal<In, Bits<128>>>,
    /// Weights, by port: scale beat is valid.
    pub s_axis_weight_scale_tvalid: Vec<Signal<In, Bit>>,
    /// It is taken.
    pub s_axis_weight_scale_tready: Vec<Signal<Out, Bit>>,
    /// Eight scale bytes, the first lowest.
    pub s_axis_weight_scale_tdata: Vec<Signal<In, Bits<64>>>,
    /// Weights, by port: tag beat is valid.
    pub s_axis_weight_tag_tvalid: Vec<Signal<In, Bit>>,
    /// It is taken.
    pub s_axis_weight_tag_tready: Vec<Signal<Out, Bit>>,
    /// 64 tag bits, the first lowest.
    pub s_axis_weight_tag_tdata: Vec<Signal<In, Bits<64>>>,
    /// Packed activations: payload beat is valid.
    pub s_axis_act_payload_tvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axis_act_payload_tready: Signal<Out, Bit>,
    /// Two payload words, the first in the low half.
    pub s_axis_act_payload_tdata: Signal<In, Bits<128>>,
    /// Packed activations: scale beat is valid.
    pub s_axis_act_scale_tvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axis_act_scale_tready: Signal<Out, Bit>,
    /// Eight scale bytes, the first lowest.
    pub s_axis_act_scale_tdata: Signal<In, Bits<64>>,
    /// Packed activations: tag beat is valid.
    pub s_axis_act_tag_tvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axis_act_tag_tready: Signal<Out, Bit>,
    /// 64 tag bits, the first lowest.
    pub s_axis_act_tag_tdata: Signal<In, Bits<64>>,
    /// BF16 activations: beat is valid.
    pub s_axis_x_tvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axis_x_tready: Signal<Out, Bit>,
    /// A block of sixteen elements, the first lowest.
    pub s_axis_x_tdata: Signal<In, Bits<256>>,
    /// Results: word is valid.
    pub m_axis_out_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_out_tready: Signal<In, Bit>,
    /// Four BF16 results, the first lowest, or one accumulator.
    pub m_axis_out_tdata: Signal<Out, Bits<64>>,
    /// Which of its bytes count.
    pub m_axis_out_tkeep: Signal<Out, Bits<8>>,
    /// It is the last of its job.
    pub m_axis_out_tlast: Signal<Out, Bit>,
    /// Quantized activations: payload word is valid.
    pub m_axis_payload_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_payload_tready: Signal<In, Bit>,
    /// One word of an FP4 block, or one of the two of an FP8 block.
    pub m_axis_payload_tdata: Signal<Out, Bits<64>>,
    /// It is the tensor's last.
    pub m_axis_payload_tlast: Signal<Out, Bit>,
    /// Quantized activations: scale word is valid.
    pub m_axis_scale_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_scale_tready: Signal<In, Bit>,
    /// Eight scale bytes, the first lowest.
    pub m_axis_scale_tdata: Signal<Out, Bits<64>>,
    /// It is the tensor's last.
    pub m_axis_scale_tlast: Signal<Out, Bit>,
    /// Quantized activations: tag word is valid.
    pub m_axis_tag_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_tag_tready: Signal<In, Bit>,
    /// 64 tag bits, the first lowest.
    pub m_axis_tag_tdata: Signal<Out, Bits<64>>,
    /// It is the tensor's last.
    pub m_axis_tag_tlast: Signal<Out, Bit>,

    registers: RegisterFile,
    queue: JobQueue,
    weight_loader: Vec<WeightLoader>,
    weights: Vec<PackedBank>,
    act_reader: BlockReader,
    element_feed: Vec<ElementFeed>,
    serial: Vec<SerialQuantizer>,
    block_feed: Vec<BlockFeed>,
    parallel: Vec<ParallelQuantizer>,
    act_loader: ActLoader,
    acts: Vec<PackedBank>,
    sequencer: Sequencer,
    array: PeArray<ACC>,
    writer: ResultWriter<ACC>,
    fifo: OutputFifo,
    packed_writer: PackedWriter,
    pair_counter: PairCounter,
    counters: Counters,
    array_info: Constant<Bits<32>>,
    memory_info: Constant<Bits<32>>,
    result_info: Constant<Bits<32>>,
    aborting: Register<Bit>,
    error: Register<Bits<8>>,
    nan_seen: Register<Bit>,
    bad_scale: Register<Bit>,
    irq_done: Register<Bit>,
    irq_error: Register<Bit>,
    jobs_done: Register<Bits<32>>,
    fed: Register<Bit>,
    command_start: Signal<Local, Bit>,
    command_abort: Signal<Local, Bit>,
    command_clear_counters: Signal<Local, Bit>,
    command_clear_status: Signal<Local, Bit>,
    act_quantizes: Signal<Local, Bit>,
    act_results: Signal<Local, Bit>,
    act_packed: Signal<Local, Bit>,
    act_reuse: Signal<Local, Bit>,
    send_packed: Signal<Local, Bit>,
    act_turn: Signal<Local, Bit>,
    act_start: Signal<Local, Bit>,
    block_taken: Signal<Local, Bit>,
    reuse_done: Signal<Local, Bit>,
    seq_load_only: Signal<Local, Bit>,
    job_done: Signal<Local, Bit>,
    tee_ready: Signal<Local, Bit>,
    bad_act: Signal<Local, Bit>,
    bad_weights: Signal<Local, Bit>,
    flush: Signal<Local, Bit>,
    chain_features: Signal<Local, Bits<16>>,
    input_scale: Signal<Local, Bits<32>>,
    threshold: Signal<Local, Bits<64>>,
    feed_valid: Signal<Local, Bit>,
    feed_done: Signal<Local, Bit>,
    x_taken: Signal<Local, Bit>,
    block_wanted: Signal<Local, Bit>,
    quantized_valid: Signal<Local, Bit>,
    quantized_fp8: Signal<Local, Bit>,
    quantized_scale: Signal<Local, Bits<8>>,
    quantized_payload: Signal<Local, Bits<128>>,
    irq_clear_done: Signal<Local, Bit>,
    irq_clear_error: Signal<Local, Bit>,
    act_flags: Signal<Local, Bits<6>>,
    act_tokens: Signal<Local, Bits<16>>,
    act_blocks: Signal<Local, Bits<16>>,
    act_align: Signal<Local, Bits<10>>,
    act_half: Signal<Local, Bit>,
    quantized: Signal<Local, Bits<BLOCK_BITS>>,
    arriving: Signal<Local, Bits<BLOCK_BITS>>,
    arriving_exchanged: Signal<Local, Bit>,
    arriving_valid: Signal<Local, Bit>,
    rows_used: Signal<Local, Bits<7>>,
    cols_used: Signal<Local, Bits<7>>,
    weight_bytes: Signal<Local, Bits<16>>,
    act_bytes: Signal<Local, Bits<16>>,
    packed_bytes: Signal<Local, Bits<16>>,
    result_slot: Signal<Local, Bit>,
    weights_there: Signal<Local, Bit>,
    _rows: usize,
    _cols: usize,
    _ports: usize,
    _turns: usize,
    _serial: usize,
    _parallel: usize,
}

impl<const ACC: usize> Accelerator<ACC> {
    /// An accelerator of a configuration that has been validated.
    #[must_use]
    pub fn new(config: ArrayConfig) -> Self {
        let limits = Limits {
            blocks: config
                .weight_blocks
                .min(config.max_k / golden::format::BLOCK),
            act_blocks: config.act_blocks,
            result_elements: config.result_elements,
        };
        let array_info = (config.rows
            | config.cols << 8
            | config.weight_ports << 16
            | config.quantizer_lanes << 24) as u64;
        // One of the two builds of the quantizer.
        let (serial, parallel) = if config.quantizer_lanes == 1 {
            (1, 0)
        } else {
            (0, 1)
        };
        let memory_info = (config.weight_blocks | config.act_blocks << 16) as u64;
        Self {
            clock: Default::default(),
            reset: Default::default(),
            s_axil_awvalid: Default::default(),
            s_axil_awready: Default::default(),
            s_axil_awaddr: Default::default(),
            s_axil_wvalid: Default::default(),
            s_axil_wready: Default::default(),
            s_axil_wdata: Default::default(),
            s_axil_wstrb: Default::default(),
            s_axil_bvalid: Default::default(),
            s_axil_bready: Default::default(),
            s_axil_bresp: Default::default(),
            s_axil_arvalid: Default::default(),
            s_axil_arready: Default::default(),
            s_axil_araddr: Default::default(),
            s_axil_rvalid: Default::default(),
            s_axil_rready: Default::default(),
            s_axil_rdata: Default::default(),
            s_axil_rresp: Default::default(),
            irq: Default::default(),
            s_axis_weight_payload_tvalid: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_payload_tready: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_payload_tdata: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_scale_tvalid: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_scale_tready: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_scale_tdata: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_tag_tvalid: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_tag_tready: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_weight_tag_tdata: (0..config.weight_ports)
                .map(|_| Default::default())
                .collect(),
            s_axis_act_payload_tvalid: Default::default(),
            s_axis_act_payload_tready: Default::default(),
            s_axis_act_payload_tdata: Default::default(),
            s_axis_act_scale_tvalid: Default::default(),
            s_axis_act_scale_tready: Default::default(),
            s_axis_act_scale_tdata: Default::default(),
            s_axis_act_tag_tvalid: Default::default(),
            s_axis_act_tag_tready: Default::default(),
            s_axis_act_tag_tdata: Default::default(),
            s_axis_x_tvalid: Default::default(),
            s_axis_x_tready: Default::default(),
            s_axis_x_tdata: Default::default(),
            m_axis_out_tvalid: Default::default(),
            m_axis_out_tready: Default::default(),
            m_axis_out_tdata: Default::default(),
            m_axis_out_tkeep: Default::default(),
            m_axis_out_tlast: Default::default(),
            m_axis_payload_tvalid: Default::default(),
            m_axis_payload_tready: Default::default(),
            m_axis_payload_tdata: Default::default(),
            m_axis_payload_tlast: Default::default(),
            m_axis_scale_tvalid: Default::default(),
            m_axis_scale_tready: Default::default(),
            m_axis_scale_tdata: Default::default(),
            m_axis_scale_tlast: Default::default(),
            m_axis_tag_tvalid: Default::default(),
            m_axis_tag_tready: Default::default(),
            m_axis_tag_tdata: Default::default(),
            m_axis_tag_tlast: Default::default(),
            registers: Default::default(),
            queue: JobQueue::new(config.cols, config.weight_ports, limits),
            weight_loader: (0..config.weight_ports)
                .map(|port| WeightLoader::new(config.rows, port, config.weight_ports))
                .collect(),
            weights: (0..config.rows)
                .map(|_| PackedBank::new(config.weight_blocks))
                .collect(),
            act_reader: Default::default(),
            element_feed: (0..serial)
                .map(|_| ElementFeed::new(config.result_elements, config.weight_blocks))
                .collect(),
            serial: (0..serial).map(|_| Default::default()).collect(),
            block_feed: (0..parallel)
                .map(|_| BlockFeed::new(config.result_elements, config.weight_blocks))
                .collect(),
            parallel: (0..parallel).map(|_| Default::default()).collect(),
            act_loader: ActLoader::new(config.cols),
            acts: (0..config.cols)
                .map(|_| PackedBank::new(config.act_blocks))
                .collect(),
            sequencer: Sequencer::new(config.rows, config.cols),
            array: PeArray::new(config.rows, config.cols, config.pipeline, config.multiplier),
            writer: ResultWriter::new(config.rows, config.cols),
            fifo: Default::default(),
            packed_writer: Default::default(),
            pair_counter: PairCounter::new(config.rows, config.cols),
            counters: Default::default(),
            array_info: Constant::new(array_info.into()),
            memory_info: Constant::new(memory_info.into()),
            result_info: Constant::new((config.result_elements as u64).into()),
            aborting: Default::default(),
            error: Default::default(),
            nan_seen: Default::default(),
            bad_scale: Default::default(),
            irq_done: Default::default(),
            irq_error: Default::default(),
            jobs_done: Default::default(),
            fed: Default::default(),
            command_start: Default::default(),
            command_abort: Default::default(),
            command_clear_counters: Default::default(),
            command_clear_status: Default::default(),
            act_quantizes: Default::default(),
            act_results: Default::default(),
            act_packed: Default::default(),
            act_reuse: Default::default(),
            send_packed: Default::default(),
            act_turn: Default::default(),
            act_start: Default::default(),
            block_taken: Default::default(),
            reuse_done: Default::default(),
            seq_load_only: Default::default(),
            job_done: Default::default(),
            tee_ready: Default::default(),
            bad_act: Default::default(),
            bad_weights: Default::default(),
            flush: Default::default(),
            chain_features: Default::default(),
            input_scale: Default::default(),
            threshold: Default::default(),
            feed_valid: Default::default(),
            feed_done: Default::default(),
            x_taken: Default::default(),
            block_wanted: Default::default(),
            quantized_valid: Default::default(),
            quantized_fp8: Default::default(),
            quantized_scale: Default::default(),
            quantized_payload: Default::default(),
            irq_clear_done: Default::default(),
            irq_clear_error: Default::default(),
            act_flags: Default::default(),
            act_tokens: Default::default(),
            act_blocks: Default::default(),
            act_align: Default::default(),
            act_half: Default::default(),
            quantized: Default::default(),
            arriving: Default::default(),
            arriving_exchanged: Default::default(),
            arriving_valid: Default::default(),
            rows_used: Default::default(),
            cols_used: Default::default(),
            weight_bytes: Default::default(),
            act_bytes: Default::default(),
            packed_bytes: Default::default(),
            result_slot: Default::default(),
            weights_there: Default::default(),
            _rows: config.rows,
            _cols: config.cols,
            _ports: config.weight_ports,
            _turns: config.rows / config.weight_ports,
            _serial: serial,
            _parallel: parallel,
        }
    }
}

/// Matrix products of packed tensors, and quantization of activations.
///
/// Registers behind AXI4-Lite describe jobs Y = A * W^T of 1 to 65535 tokens and 0 to 65535 output features; two may be outstanding. Data comes and
/// goes on AXI4-Streams: packed tensors of FP4 and FP8 blocks (numerics §2), BF16 to be quantized, results as BF16 or accumulators. K is 16 times
/// the register BLOCKS, at most what the weight memory holds and ACC bits can sum. The configuration stands in manifest.json and in registers.
#[kernel(name = "fgmp_accelerator")]
impl<const ACC: usize> Logic for Accelerator<ACC> {
    fn update(&mut self) {
        registers!(
            self, clock, reset, aborting, error, nan_seen, bad_scale, irq_done, irq_error,
            jobs_done, fed
        );

        // Registers.
        self.registers.clock.next = self.clock.val();
        self.registers.reset.next = self.reset.val();
        self.registers.awvalid.next = self.s_axil_awvalid.val();
        self.registers.awaddr.next = self.s_axil_awaddr.val();
        self.s_axil_awready.next = self.registers.awready.val();
        self.registers.wvalid.next = self.s_axil_wvalid.val();
        self.registers.wdata.next = self.s_axil_wdata.val();
        self.registers.wstrb.next = self.s_axil_wstrb.val();
        self.s_axil_wready.next = self.registers.wready.val();
        self.s_axil_bvalid.next = self.registers.bvalid.val();
        self.s_axil_bresp.next = self.registers.bresp.val();
        self.registers.bready.next = self.s_axil_bready.val();
        self.registers.arvalid.next = self.s_axil_arvalid.val();
        self.registers.araddr.next = self.s_axil_araddr.val();
        self.s_axil_arready.next = self.registers.arready.val();
        self.s_axil_rvalid.next = self.registers.rvalid.val();
        self.s_axil_rdata.next = self.registers.rdata.val();
        self.s_axil_rresp.next = self.registers.rresp.val();
        self.registers.rready.next = self.s_axil_rready.val();
        self.registers.hold.next = self.queue.checking.val() || self.aborting.q.val();
        self.command_start.next =
            self.registers.strobe[place::CONTROL].val() && self.registers.written.val().get_bit(0);
        self.command_abort.next =
            self.registers.strobe[place::CONTROL].val() && self.registers.written.val().get_bit(1);
        self.command_clear_counters.next =
            self.registers.strobe[place::CONTROL].val() && self.registers.written.val().get_bit(2);
        self.command_clear_status.next =
            self.registers.strobe[place::CONTROL].val() && self.registers.written.val().get_bit(3);
        // Abort is a reset of everything but registers, counters and the output's memory.
        self.aborting.d.next = self.command_abort.val();
        self.flush.next = self.reset.val() || self.aborting.q.val();

        // Jobs.
        self.queue.clock.next = self.clock.val();
        self.queue.reset.next = self.flush.val();
        self.queue.start.next = self.command_start.val();
        self.queue.tokens.next = self.registers.value[place::TOKENS].val();
        self.queue.features.next = self.registers.value[place::FEATURES].val();
        self.queue.blocks.next = self.registers.value[place::BLOCKS].val();
        self.queue.flags.next = self.registers.value[place::FLAGS].val();
        self.queue.output_scale.next = self.registers.value[place::OUTPUT_SCALE].val();
        self.queue.input_scale.next = self.registers.value[place::INPUT_SCALE].val();
        self.queue.threshold.next =
            bit_cast::<64, 32>(self.registers.value[place::THRESHOLD_LOW].val())
                | (bit_cast::<64, 32>(self.registers.value[place::THRESHOLD_HIGH].val()) << 32);
        self.queue.weight_align.next = self.registers.value[place::WEIGHT_ALIGN].val();
        self.queue.act_align.next = self.registers.value[place::ACT_ALIGN].val();

        // Sequencer. A job that only loads has no results to keep it in order, so it waits for its turn.
        self.sequencer.clock.next = self.clock.val();
        self.sequencer.reset.next = self.flush.val();
        self.sequencer.job_slot.next = self.queue.sequence_slot.val();
        self.sequencer.tokens.next = self.queue.slot_tokens[0].val();
        self.sequencer.features.next = self.queue.slot_features[0].val();
        self.sequencer.blocks.next = self.queue.slot_blocks[0].val();
        self.sequencer.job_act_half.next = self.queue.slot_half[0].val();
        self.sequencer.act_complete.next = self.queue.act_complete[0].val();
        self.seq_load_only.next = !self.queue.slot_features[0].val().any();
        if self.queue.sequence_slot.val() {
            self.sequencer.tokens.next = self.queue.slot_tokens[1].val();
            self.sequencer.features.next = self.queue.slot_features[1].val();
            self.sequencer.blocks.next = self.queue.slot_blocks[1].val();
            self.sequencer.job_act_half.next = self.queue.slot_half[1].val();
            self.sequencer.act_complete.next = self.queue.act_complete[1].val();
            self.seq_load_only.next = !self.queue.slot_features[1].val().any();
        }
        self.sequencer.job_valid.next = self.queue.sequence_valid.val()
            && (!self.seq_load_only.val()
                || self.queue.oldest.val() == self.queue.sequence_slot.val());
        self.queue.sequence_done.next =
            self.sequencer.job_issued.val() || self.sequencer.load_done.val();

        // Weights.
        self.weights_there.next = true;
        self.weight_bytes.next = 0.into();
        self.bad_weights.next = false;
        for f in 0..self._ports {
            self.weight_loader[f].clock.next = self.clock.val();
            self.weight_loader[f].reset.next = self.flush.val();
            self.weight_loader[f].job_valid.next = self.queue.weight_valid[f].val();
            self.weight_loader[f].features.next = self.queue.slot_features[0].val();
            self.weight_loader[f].blocks.next = self.queue.slot_blocks[0].val();
            self.weight_loader[f].payload_skip.next =
                self.queue.slot_weight_align[0].val().get_bit(0);
            self.weight_loader[f].scale_skip.next =
                self.queue.slot_weight_align[0].val().get_bits::<3>(1);
            self.weight_loader[f].tag_skip.next =
                self.queue.slot_weight_align[0].val().get_bits::<6>(4);
            if self.queue.weight_slot[f].val() {
                self.weight_loader[f].features.next = self.queue.slot_features[1].val();
                self.weight_loader[f].blocks.next = self.queue.slot_blocks[1].val();
                self.weight_loader[f].payload_skip.next =
                    self.queue.slot_weight_align[1].val().get_bit(0);
                self.weight_loader[f].scale_skip.next =
                    self.queue.slot_weight_align[1].val().get_bits::<3>(1);
                self.weight_loader[f].tag_skip.next =
                    self.queue.slot_weight_align[1].val().get_bits::<6>(4);
            }
            self.queue.weight_done[f].next = self.weight_loader[f].job_done.val();
            self.weight_loader[f].payload_valid.next = self.s_axis_weight_payload_tvalid[f].val();
            self.weight_loader[f].payload_data.next = self.s_axis_weight_payload_tdata[f].val();
            self.s_axis_weight_payload_tready[f].next = self.weight_loader[f].payload_ready.val();
            self.weight_loader[f].scale_valid.next = self.s_axis_weight_scale_tvalid[f].val();
            self.weight_loader[f].scale_data.next = self.s_axis_weight_scale_tdata[f].val();
            self.s_axis_weight_scale_tready[f].next = self.weight_loader[f].scale_ready.val();
            self.weight_loader[f].tag_valid.next = self.s_axis_weight_tag_tvalid[f].val();
            self.weight_loader[f].tag_data.next = self.s_axis_weight_tag_tdata[f].val();
            self.s_axis_weight_tag_tready[f].next = self.weight_loader[f].tag_ready.val();
            self.weight_loader[f].freed.next = self.sequencer.freed.val();
            self.weight_loader[f].freed_half.next = self.sequencer.freed_half.val();
            self.weight_loader[f].asked_half.next = self.sequencer.weight_half.val();
            self.weight_loader[f].asked_block.next = self.sequencer.weight_index.val();
            if !self.weight_loader[f].there.val() {
                self.weights_there.next = false;
            }
            if self.weight_loader[f].payload_ready.val()
                && self.s_axis_weight_payload_tvalid[f].val()
            {
                self.weight_bytes.next = self.weight_bytes.val() + 16;
            }
            if self.weight_loader[f].scale_ready.val() && self.s_axis_weight_scale_tvalid[f].val() {
                self.weight_bytes.next = self.weight_bytes.val() + 8;
            }
            if self.weight_loader[f].tag_ready.val() && self.s_axis_weight_tag_tvalid[f].val() {
                self.weight_bytes.next = self.weight_bytes.val() + 8;
            }
            if self.weight_loader[f].write.val()
                && !self.weight_loader[f].write_block.val().get_bit(TAG_BIT)
                && (self.weight_loader[f].write_block.val().get_bit(135)
                    || self.weight_loader[f]
                        .write_block
                        .val()
                        .get_bits::<7>(SCALE_BIT)
                        .all())
            {
                self.bad_weights.next = true;
            }
        }
        self.sequencer.weights_ready.next = self.weights_there.val();
        self.rows_used.next = self.sequencer.step_tile.val().get_bits::<7>(0);
        self.cols_used.next = self.sequencer.step_tile.val().get_bits::<7>(7);
        for r in 0..self._rows {
            self.weights[r].clock.next = self.clock.val();
            self.weights[r].read_tag.next = self.sequencer.read_tag.val();
            self.weights[r].read_index.next = self.sequencer.weight_index.val();
            self.weights[r].read_half.next = self.sequencer.weight_half.val();
            self.weights[r].read_block.next = self.sequencer.read_block.val();
            self.weights[r].block_first.next = self.sequencer.weight_first.val();
            self.weights[r].block_half.next = self.sequencer.block_weight_half.val();
        }
        // Port f fills the rows f, f + ports, ….
        for ports in self._ports..(self._ports + 1) {
            for f in 0..self._ports {
                for turn in 0..self._turns {
                    self.weights[turn * ports + f].write.next = self.weight_loader[f].write.val()
                        && self.weight_loader[f].write_row.val() == (turn * ports + f).to_bits();
                    self.weights[turn * ports + f].write_half.next =
                        self.weight_loader[f].write_half.val();
                    self.weights[turn * ports + f].write_first.next =
                        self.weight_loader[f].write_first.val();
                    self.weights[turn * ports + f].write_block.next =
                        self.weight_loader[f].write_block.val();
                    self.weights[turn * ports + f].write_exchanged.next =
                        self.weight_loader[f].write_exchanged.val();
                }
            }
        }

        // Activations: where they come from.
        self.act_flags.next = self.queue.slot_flags[0].val();
        self.act_tokens.next = self.queue.slot_tokens[0].val();
        self.act_blocks.next = self.queue.slot_blocks[0].val();
        self.act_align.next = self.queue.slot_act_align[0].val();
        self.act_half.next = self.queue.slot_half[0].val();
        self.chain_features.next = self.queue.slot_chain_features[0].val();
        self.input_scale.next = self.queue.slot_input_scale[0].val();
        self.threshold.next = self.queue.slot_threshold[0].val();
        if self.queue.act_slot.val() {
            self.act_flags.next = self.queue.slot_flags[1].val();
            self.act_tokens.next = self.queue.slot_tokens[1].val();
            self.act_blocks.next = self.queue.slot_blocks[1].val();
            self.act_align.next = self.queue.slot_act_align[1].val();
            self.act_half.next = self.queue.slot_half[1].val();
            self.chain_features.next = self.queue.slot_chain_features[1].val();
            self.input_scale.next = self.queue.slot_input_scale[1].val();
            self.threshold.next = self.queue.slot_threshold[1].val();
        }
        self.act_packed.next = self.act_flags.val().get_bits::<2>(0) == 0;
        self.act_results.next = self.act_flags.val().get_bits::<2>(0) == 2;
        self.act_reuse.next = self.act_flags.val().get_bits::<2>(0) == 3;
        self.act_quantizes.next = !self.act_packed.val() && !self.act_reuse.val();
        self.send_packed.next = self.act_flags.val().get_bit(4);
        // Results are complete when the job that gave them has left.
        self.act_turn.next = self.queue.act_valid.val()
            && (!self.act_results.val() || self.queue.oldest.val() == self.queue.act_slot.val());
        self.act_start.next =
            self.act_turn.val() && !self.act_reuse.val() && !self.act_loader.busy.val();
        self.reuse_done.next = self.act_turn.val() && self.act_reuse.val();

        // Activations: packed.
        self.act_reader.clock.next = self.clock.val();
        self.act_reader.reset.next = self.flush.val();
        self.act_reader.start.next = self.act_start.val();
        self.act_reader.payload_skip.next = self.act_align.val().get_bit(0);
        self.act_reader.scale_skip.next = self.act_align.val().get_bits::<3>(1);
        self.act_reader.tag_skip.next = self.act_align.val().get_bits::<6>(4);
        self.act_reader.left.next = 0.into();
        if self.act_packed.val() {
            self.act_reader.left.next = self.act_loader.left.val();
        }
        self.act_reader.payload_valid.next = self.s_axis_act_payload_tvalid.val();
        self.act_reader.payload_data.next = self.s_axis_act_payload_tdata.val();
        self.s_axis_act_payload_tready.next = self.act_reader.payload_ready.val();
        self.act_reader.scale_valid.next = self.s_axis_act_scale_tvalid.val();
        self.act_reader.scale_data.next = self.s_axis_act_scale_tdata.val();
        self.s_axis_act_scale_tready.next = self.act_reader.scale_ready.val();
        self.act_reader.tag_valid.next = self.s_axis_act_tag_tvalid.val();
        self.act_reader.tag_data.next = self.s_axis_act_tag_tdata.val();
        self.s_axis_act_tag_tready.next = self.act_reader.tag_ready.val();
        self.act_reader.block_ready.next = self.act_loader.block_ready.val();

        // Activations: quantized.
        self.feed_valid.next =
            self.act_loader.busy.val() && self.act_quantizes.val() && !self.fed.q.val();
        // A block goes to the memory and to the packed streams in the same cycle.
        self.tee_ready.next = !self.send_packed.val() || self.packed_writer.block_ready.val();
        self.block_wanted.next =
            self.act_loader.block_ready.val() && self.act_quantizes.val() && self.tee_ready.val();
        // One of the two builds is there.
        self.x_taken.next = false;
        self.feed_done.next = false;
        self.quantized_valid.next = false;
        self.quantized_fp8.next = false;
        self.quantized_scale.next = 0.into();
        self.quantized_payload.next = 0.into();
        for i in 0..self._serial {
            self.element_feed[i].clock.next = self.clock.val();
            self.element_feed[i].reset.next = self.flush.val();
            self.element_feed[i].job_valid.next = self.feed_valid.val();
            self.element_feed[i].from_results.next = self.act_results.val();
            self.element_feed[i].result_features.next = self.chain_features.val();
            self.element_feed[i].tokens.next = self.act_tokens.val();
            self.element_feed[i].blocks.next = self.act_blocks.val();
            self.element_feed[i].sensitivity_bank.next = self.act_flags.val().get_bit(5);
            self.element_feed[i].x_valid.next = self.s_axis_x_tvalid.val();
            self.element_feed[i].x_data.next = self.s_axis_x_tdata.val();
            self.x_taken.next = self.element_feed[i].x_ready.val();
            self.feed_done.next = self.element_feed[i].job_done.val();
            self.element_feed[i].sensitivity_write.next =
                self.registers.strobe[place::SENSITIVITY_DATA].val();
            self.element_feed[i].sensitivity_address.next = self.registers.value
                [place::SENSITIVITY_ADDRESS]
                .val()
                .get_bits::<16>(0);
            self.element_feed[i].sensitivity_data.next = self.registers.written.val();
            self.element_feed[i].result_write.next = self.writer.write.val();
            self.element_feed[i].result_address.next = self.writer.write_address.val();
            self.element_feed[i].result_data.next = self.writer.write_data.val();
            self.serial[i].clock.next = self.clock.val();
            self.serial[i].reset.next = self.flush.val();
            self.serial[i].input_scale.next = self.input_scale.val();
            self.serial[i].threshold.next = self.threshold.val();
            self.serial[i].x_valid.next = self.element_feed[i].element_valid.val();
            self.serial[i].x_last.next = self.element_feed[i].element_last.val();
            self.element_feed[i].element_ready.next = self.serial[i].x_ready.val();
            self.quantized_valid.next = self.serial[i].block_valid.val();
            self.quantized_fp8.next = self.serial[i].block_fp8.val();
            self.quantized_scale.next = self.serial[i].block_scale.val();
            self.quantized_payload.next = self.serial[i].block_payload.val();
            self.serial[i].block_ready.next = self.block_wanted.val();
            self.serial[i].x_data.next = self.element_feed[i].element.val();
            self.serial[i].x_sensitivity.next = self.element_feed[i].sensitivity.val();
        }
        for i in 0..self._parallel {
            self.block_feed[i].clock.next = self.clock.val();
            self.block_feed[i].reset.next = self.flush.val();
            self.block_feed[i].job_valid.next = self.feed_valid.val();
            self.block_feed[i].from_results.next = self.act_results.val();
            self.block_feed[i].result_features.next = self.chain_features.val();
            self.block_feed[i].tokens.next = self.act_tokens.val();
            self.block_feed[i].blocks.next = self.act_blocks.val();
            self.block_feed[i].sensitivity_bank.next = self.act_flags.val().get_bit(5);
            self.block_feed[i].x_valid.next = self.s_axis_x_tvalid.val();
            self.block_feed[i].x_data.next = self.s_axis_x_tdata.val();
            self.x_taken.next = self.block_feed[i].x_ready.val();
            self.feed_done.next = self.block_feed[i].job_done.val();
            self.block_feed[i].sensitivity_write.next =
                self.registers.strobe[place::SENSITIVITY_DATA].val();
            self.block_feed[i].sensitivity_address.next = self.registers.value
                [place::SENSITIVITY_ADDRESS]
                .val()
                .get_bits::<16>(0);
            self.block_feed[i].sensitivity_data.next = self.registers.written.val();
            self.block_feed[i].result_write.next = self.writer.write.val();
            self.block_feed[i].result_address.next = self.writer.write_address.val();
            self.block_feed[i].result_data.next = self.writer.write_data.val();
            self.parallel[i].clock.next = self.clock.val();
            self.parallel[i].reset.next = self.flush.val();
            self.parallel[i].input_scale.next = self.input_scale.val();
            self.parallel[i].threshold.next = self.threshold.val();
            self.parallel[i].x_valid.next = self.block_feed[i].element_valid.val();
            self.parallel[i].x_last.next = self.block_feed[i].element_last.val();
            self.block_feed[i].element_ready.next = self.parallel[i].x_ready.val();
            self.quantized_valid.next = self.parallel[i].block_valid.val();
            self.quantized_fp8.next = self.parallel[i].block_fp8.val();
            self.quantized_scale.next = self.parallel[i].block_scale.val();
            self.quantized_payload.next = self.parallel[i].block_payload.val();
            self.parallel[i].block_ready.next = self.block_wanted.val();
            for j in 0..BLOCK {
                self.parallel[i].x_data[j].next = self.block_feed[i].element[j].val();
                self.parallel[i].x_sensitivity[j].next = self.block_feed[i].sensitivity[j].val();
            }
        }
        self.s_axis_x_tready.next = self.x_taken.val();
        if self.feed_done.val() {
            self.fed.d.next = true;
        }
        if self.act_loader.job_done.val() || self.aborting.q.val() {
            self.fed.d.next = false;
        }
        self.quantized.next = bit_cast::<BLOCK_BITS, 128>(self.quantized_payload.val())
            | (bit_cast::<BLOCK_BITS, 1>(self.quantized_fp8.val().into()) << 136);
        if !self.quantized_fp8.val() {
            self.quantized.next = bit_cast::<BLOCK_BITS, 128>(self.quantized_payload.val())
                | (bit_cast::<BLOCK_BITS, 8>(self.quantized_scale.val()) << 128);
        }
        self.packed_writer.clock.next = self.clock.val();
        self.packed_writer.reset.next = self.flush.val();
        self.packed_writer.block.next = self.quantized.val();
        self.packed_writer.block_last.next = self.act_loader.last_block.val();
        self.packed_writer.block_valid.next = self.quantized_valid.val()
            && self.act_loader.block_ready.val()
            && self.act_quantizes.val()
            && self.send_packed.val();
        self.m_axis_payload_tvalid.next = self.packed_writer.payload_valid.val();
        self.m_axis_payload_tdata.next = self.packed_writer.payload_data.val();
        self.m_axis_payload_tlast.next = self.packed_writer.payload_last.val();
        self.packed_writer.payload_ready.next = self.m_axis_payload_tready.val();
        self.m_axis_scale_tvalid.next = self.packed_writer.scale_valid.val();
        self.m_axis_scale_tdata.next = self.packed_writer.scale_data.val();
        self.m_axis_scale_tlast.next = self.packed_writer.scale_last.val();
        self.packed_writer.scale_ready.next = self.m_axis_scale_tready.val();
        self.m_axis_tag_tvalid.next = self.packed_writer.tag_valid.val();
        self.m_axis_tag_tdata.next = self.packed_writer.tag_data.val();
        self.m_axis_tag_tlast.next = self.packed_writer.tag_last.val();
        self.packed_writer.tag_ready.next = self.m_axis_tag_tready.val();

        // Activations: into the memories.
        self.arriving.next = self.act_reader.block.val();
        self.arriving_exchanged.next = self.act_reader.exchanged.val();
        self.arriving_valid.next = self.act_reader.block_valid.val();
        if self.act_quantizes.val() {
            self.arriving.next = self.quantized.val();
            self.arriving_exchanged.next = false;
            self.arriving_valid.next = self.quantized_valid.val() && self.tee_ready.val();
        }
        self.act_loader.clock.next = self.clock.val();
        self.act_loader.reset.next = self.flush.val();
        self.act_loader.job_valid.next = self.act_start.val();
        self.act_loader.tokens.next = self.act_tokens.val();
        self.act_loader.blocks.next = self.act_blocks.val();
        self.act_loader.block_valid.next = self.arriving_valid.val();
        self.block_taken.next = self.act_loader.write.val();
        self.bad_act.next = self.act_loader.write.val()
            && !self.arriving.val().get_bit(TAG_BIT)
            && (self.arriving.val().get_bit(135)
                || self.arriving.val().get_bits::<7>(SCALE_BIT).all());
        self.queue.act_done.next = self.act_loader.job_done.val() || self.reuse_done.val();
        self.sequencer.act_tiles.next = 0.into();
        if self.act_loader.busy.val()
            && !self.act_results.val()
            && self.queue.act_slot.val() == self.queue.sequence_slot.val()
        {
            self.sequencer.act_tiles.next = self.act_loader.tiles.val();
        }
        for c in 0..self._cols {
            self.acts[c].clock.next = self.clock.val();
            self.acts[c].write.next =
                self.act_loader.write.val() && self.act_loader.write_col.val() == c.to_bits();
            self.acts[c].write_half.next = self.act_half.val();
            self.acts[c].write_first.next = self.act_loader.write_first.val();
            self.acts[c].write_block.next = self.arriving.val();
            self.acts[c].write_exchanged.next = self.arriving_exchanged.val();
            self.acts[c].read_tag.next = self.sequencer.read_tag.val();
            self.acts[c].read_index.next = self.sequencer.act_index.val();
            self.acts[c].read_half.next = self.sequencer.act_half.val();
            self.acts[c].read_block.next = self.sequencer.read_block.val();
            self.acts[c].block_first.next = self.sequencer.act_first.val();
            self.acts[c].block_half.next = self.sequencer.block_act_half.val();
        }

        // Array. Rows and columns beyond the matrix's edge are shown zeros.
        self.array.clock.next = self.clock.val();
        self.array.reset.next = self.flush.val();
        self.array.weight_valid.next = self.sequencer.step_valid.val();
        self.array.weight_last.next = self.sequencer.step_last.val();
        self.array.act_valid.next = self.sequencer.step_valid.val();
        self.array.act_last.next = self.sequencer.step_last.val();
        self.array.tile.next = self.sequencer.step_tile.val();
        self.sequencer.array_ready.next = self.array.weight_ready.val();
        for r in 0..self._rows {
            self.array.weight_data[r].next = 0.into();
            self.pair_counter.weight_fp8[r].next = false;
            if self.rows_used.val() > r.to_bits() {
                self.array.weight_data[r].next = self.weights[r].block.val();
                self.pair_counter.weight_fp8[r].next = self.weights[r].block.val().get_bit(TAG_BIT);
            }
        }
        for c in 0..self._cols {
            self.array.act_data[c].next = 0.into();
            self.pair_counter.act_fp8[c].next = false;
            if self.cols_used.val() > c.to_bits() {
                self.array.act_data[c].next = self.acts[c].block.val();
                self.pair_counter.act_fp8[c].next = self.acts[c].block.val().get_bit(TAG_BIT);
            }
        }
        self.array.output_scale.next = self.queue.slot_output_scale[0].val();
        if self.array.scaling_tile.val().get_bit(14) {
            self.array.output_scale.next = self.queue.slot_output_scale[1].val();
        }

        // Results.
        self.result_slot.next = self.array.out_tile.val().get_bit(14);
        self.writer.clock.next = self.clock.val();
        self.writer.reset.next = self.flush.val();
        self.writer.valid.next = self.array.out_valid.val();
        self.array.out_ready.next = self.writer.ready.val();
        self.writer.last.next = self.array.out_last.val();
        self.writer.data.next = self.array.out_data.val();
        self.writer.acc.next = self.array.out_acc.val();
        self.writer.nan.next = self.array.out_nan.val();
        self.writer.tile.next = self.array.out_tile.val();
        self.writer.sink.next = self.queue.slot_flags[0].val().get_bits::<2>(2);
        self.writer.tokens.next = self.queue.slot_tokens[0].val();
        self.writer.result_blocks.next = self.queue.slot_result_blocks[0].val();
        if self.result_slot.val() {
            self.writer.sink.next = self.queue.slot_flags[1].val().get_bits::<2>(2);
            self.writer.tokens.next = self.queue.slot_tokens[1].val();
            self.writer.result_blocks.next = self.queue.slot_result_blocks[1].val();
        }
        self.fifo.clock.next = self.clock.val();
        self.fifo.reset.next = self.reset.val();
        self.fifo.in_valid.next = self.writer.out_valid.val() && !self.aborting.q.val();
        self.fifo.in_data.next = self.writer.out_data.val();
        self.fifo.in_keep.next = self.writer.out_keep.val();
        self.fifo.in_last.next = self.writer.out_last.val();
        self.writer.out_ready.next = self.fifo.in_ready.val();
        self.m_axis_out_tvalid.next = self.fifo.out_valid.val();
        self.m_axis_out_tdata.next = self.fifo.out_data.val();
        self.m_axis_out_tkeep.next = self.fifo.out_keep.val();
        self.m_axis_out_tlast.next = self.fifo.out_last.val();
        self.fifo.out_ready.next = self.m_axis_out_tready.val();
        self.job_done.next = self.writer.job_done.val() || self.sequencer.load_done.val();
        self.queue.job_done.next = self.job_done.val();

        // Counters.
        self.pair_counter.clock.next = self.clock.val();
        self.pair_counter.reset.next = self.flush.val();
        self.pair_counter.step.next =
            self.sequencer.step_valid.val() && self.array.weight_ready.val();
        self.pair_counter.rows.next = self.rows_used.val();
        self.pair_counter.cols.next = self.cols_used.val();
        self.act_bytes.next = 0.into();
        if self.act_reader.payload_ready.val() && self.s_axis_act_payload_tvalid.val() {
            self.act_bytes.next = self.act_bytes.val() + 16;
        }
        if self.act_reader.scale_ready.val() && self.s_axis_act_scale_tvalid.val() {
            self.act_bytes.next = self.act_bytes.val() + 8;
        }
        if self.act_reader.tag_ready.val() && self.s_axis_act_tag_tvalid.val() {
            self.act_bytes.next = self.act_bytes.val() + 8;
        }
        self.packed_bytes.next = 0.into();
        if self.packed_writer.payload_valid.val() && self.m_axis_payload_tready.val() {
            self.packed_bytes.next = self.packed_bytes.val() + 8;
        }
        if self.packed_writer.scale_valid.val() && self.m_axis_scale_tready.val() {
            self.packed_bytes.next = self.packed_bytes.val() + 8;
        }
        if self.packed_writer.tag_valid.val() && self.m_axis_tag_tready.val() {
            self.packed_bytes.next = self.packed_bytes.val() + 8;
        }
        self.counters.clock.next = self.clock.val();
        self.counters.reset.next = self.reset.val();
        self.counters.clear.next = self.command_clear_counters.val();
        for i in 0..COUNTERS {
            self.counters.amount[i].next = 0.into();
        }
        if self.queue.busy.val() {
            self.counters.amount[place::CYCLES_BUSY - FIRST_COUNTER].next = 1.into();
        }
        if self.sequencer.step_valid.val() && self.array.weight_ready.val() {
            self.counters.amount[place::STEPS - FIRST_COUNTER].next = 1.into();
        }
        if self.sequencer.fills.val() {
            self.counters.amount[place::FILLS - FIRST_COUNTER].next = 1.into();
        }
        if self.sequencer.waits_weights.val() {
            self.counters.amount[place::WAITS_WEIGHTS - FIRST_COUNTER].next = 1.into();
        }
        if self.sequencer.waits_acts.val() {
            self.counters.amount[place::WAITS_ACTS - FIRST_COUNTER].next = 1.into();
        }
        if self.sequencer.waits_results.val() {
            self.counters.amount[place::WAITS_RESULTS - FIRST_COUNTER].next = 1.into();
        }
        for i in 0..4 {
            self.counters.amount[place::PAIRS_FP4_FP4 - FIRST_COUNTER + i].next =
                self.pair_counter.pairs[i].val();
        }
        if self.block_taken.val() && self.act_quantizes.val() {
            if self.arriving.val().get_bit(TAG_BIT) {
                self.counters.amount[place::QUANTIZED_FP8 - FIRST_COUNTER].next = 1.into();
            } else {
                self.counters.amount[place::QUANTIZED_FP4 - FIRST_COUNTER].next = 1.into();
            }
        }
        if self.writer.counted.val() {
            self.counters.amount[place::RESULTS - FIRST_COUNTER].next = 1.into();
        }
        self.counters.amount[place::BYTES_WEIGHTS - FIRST_COUNTER].next = self.weight_bytes.val();
        self.counters.amount[place::BYTES_ACTS - FIRST_COUNTER].next = self.act_bytes.val();
        if self.x_taken.val() {
            self.counters.amount[place::BYTES_ELEMENTS - FIRST_COUNTER].next = 32.into();
        }
        if self.fifo.out_valid.val() && self.m_axis_out_tready.val() {
            self.counters.amount[place::BYTES_RESULTS - FIRST_COUNTER].next = 8.into();
        }
        self.counters.amount[place::BYTES_PACKED - FIRST_COUNTER].next = self.packed_bytes.val();

        // Status.
        self.irq_clear_done.next = self.registers.strobe[place::IRQ_STATUS].val()
            && self.registers.written.val().get_bit(0);
        self.irq_clear_error.next = self.registers.strobe[place::IRQ_STATUS].val()
            && self.registers.written.val().get_bit(1);
        if self.irq_clear_done.val() {
            self.irq_done.d.next = false;
        }
        if self.irq_clear_error.val() {
            self.irq_error.d.next = false;
        }
        if self.command_clear_status.val() {
            self.error.d.next = 0.into();
            self.nan_seen.d.next = false;
            self.bad_scale.d.next = false;
        }
        if self.job_done.val() && !self.aborting.q.val() {
            self.irq_done.d.next = true;
            self.jobs_done.d.next = self.jobs_done.q.val() + 1;
        }
        if self.queue.refused.val() {
            self.irq_error.d.next = true;
            self.error.d.next = self.queue.code.val();
        }
        if self.writer.counted.val() && self.array.out_nan.val() {
            self.nan_seen.d.next = true;
        }
        if self.bad_act.val() || self.bad_weights.val() {
            self.bad_scale.d.next = true;
        }
        self.irq.next = (self.irq_done.q.val()
            && self.registers.value[place::IRQ_ENABLE].val().get_bit(0))
            || (self.irq_error.q.val() && self.registers.value[place::IRQ_ENABLE].val().get_bit(1));
        for i in 0..FIRST_COUNTER {
            self.registers.status[i].next = 0.into();
        }
        self.registers.status[place::ID].next = ID.into();
        self.registers.status[place::VERSION].next = VERSION.into();
        self.registers.status[place::ARRAY].next = self.array_info.val();
        self.registers.status[place::MEMORY].next = self.memory_info.val();
        self.registers.status[place::RESULT_ELEMENTS].next = self.result_info.val();
        self.registers.status[place::STATUS].next = bit_cast::<32, 1>(self.queue.busy.val().into())
            | (bit_cast::<32, 1>(self.queue.full.val().into()) << 1)
            | (bit_cast::<32, 1>(self.queue.checking.val().into()) << 2)
            | (bit_cast::<32, 1>(self.nan_seen.q.val().into()) << 3)
            | (bit_cast::<32, 1>(self.array.last_mismatch.val().into()) << 4)
            | (bit_cast::<32, 1>(self.bad_scale.q.val().into()) << 5);
        self.registers.status[place::ERROR].next = bit_cast::<32, 8>(self.error.q.val());
        self.registers.status[place::IRQ_STATUS].next =
            bit_cast::<32, 1>(self.irq_done.q.val().into())
                | (bit_cast::<32, 1>(self.irq_error.q.val().into()) << 1);
        self.registers.status[place::JOBS_DONE].next = self.jobs_done.q.val();
        for i in 0..COUNTERS {
            self.registers.status[i + FIRST_COUNTER].next = self.counters.count[i].val();
        }
    }
}
