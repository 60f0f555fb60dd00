//! SPEED's top: pipeline, player and registers around the complete accelerator.

use super::bus::{HOST_ADDRESS, OWN_BIT, SwitchPath};
use super::config::SpeedConfig;
use super::pipeline::{COUNT_FLIPS, ENTRIES, STAGE, SpeedPipeline};
use super::player::PassPlayer;
use super::registers::{COUNT, ID, SpeedRegisters, VERSION, place};
use crate::accelerator::Accelerator;
use crate::accelerator::registers::AXIL_ADDRESS;
use crate::memory::ADDRESS;
use crate::prelude::*;

/// The accelerator with what decodes one sequence speculatively on it.
///
/// `E` bits of a position and of a token.
#[derive(LogicBlock, PortAccess)]
pub struct SpeedAccelerator<const ACC: usize, const E: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// AXI4-Lite: write address is valid.
    pub s_axil_awvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axil_awready: Signal<Out, Bit>,
    /// Byte address.
    pub s_axil_awaddr: Signal<In, Bits<HOST_ADDRESS>>,
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
    pub s_axil_araddr: Signal<In, Bits<HOST_ADDRESS>>,
    /// Read data is valid.
    pub s_axil_rvalid: Signal<Out, Bit>,
    /// It is taken.
    pub s_axil_rready: Signal<In, Bit>,
    /// The data.
    pub s_axil_rdata: Signal<Out, Bits<32>>,
    /// 0 is OKAY, 2 SLVERR.
    pub s_axil_rresp: Signal<Out, Bits<2>>,
    /// Interrupt of the accelerator, high while an enabled event is set.
    pub irq: Signal<Out, Bit>,
    /// Rows of a pass: row is valid.
    pub m_axis_row_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_row_tready: Signal<In, Bit>,
    /// `{repetition[7:0], position[23:0], token[31:0]}`.
    pub m_axis_row_tdata: Signal<Out, Bits<64>>,
    /// It is the pass's last.
    pub m_axis_row_tlast: Signal<Out, Bit>,
    /// Classes of a pass's rows, in their order: class is valid.
    pub s_axis_class_tvalid: Signal<In, Bit>,
    /// It is taken.
    pub s_axis_class_tready: Signal<Out, Bit>,
    /// A token.
    pub s_axis_class_tdata: Signal<In, Bits<32>>,
    /// Committed tokens: token is valid.
    pub m_axis_commit_tvalid: Signal<Out, Bit>,
    /// It is taken.
    pub m_axis_commit_tready: Signal<In, Bit>,
    /// `{position[31:0], token[31:0]}`.
    pub m_axis_commit_tdata: Signal<Out, Bits<64>>,
    /// It is the sequence's last.
    pub m_axis_commit_tlast: Signal<Out, Bit>,
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

    accelerator: Accelerator<ACC>,
    pipeline: SpeedPipeline<E, E>,
    player: PassPlayer,
    registers: SpeedRegisters,
    writes: SwitchPath,
    reads: SwitchPath,
    shape: Constant<Bits<32>>,
    program_words: Constant<Bits<32>>,
    refused: Register<Bit>,
    fault: Register<Bit>,
    last_flip: Register<Bit>,
    last_stage: Register<Bits<STAGE>>,
    last_flushed: Register<Bits<ENTRIES>>,
    last_committed: Register<Bit>,
    command: Signal<Local, Bits<4>>,
    starting: Signal<Local, Bit>,
    play: Signal<Local, Bit>,
    quiet: Signal<Local, Bit>,
    _ports: usize,
    _stages: usize,
    _older: usize,
}

impl<const ACC: usize, const E: usize> SpeedAccelerator<ACC, E> {
    /// The top of a configuration that has been validated.
    #[must_use]
    pub fn new(config: SpeedConfig) -> Self {
        fn each<S: Default>(count: usize) -> Vec<S> {
            (0..count).map(|_| S::default()).collect()
        }
        let ports = config.array.weight_ports;
        let shape = (config.repetitions | E << 8 | E << 16) as u64;
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
            m_axis_row_tvalid: Default::default(),
            m_axis_row_tready: Default::default(),
            m_axis_row_tdata: Default::default(),
            m_axis_row_tlast: Default::default(),
            s_axis_class_tvalid: Default::default(),
            s_axis_class_tready: Default::default(),
            s_axis_class_tdata: Default::default(),
            m_axis_commit_tvalid: Default::default(),
            m_axis_commit_tready: Default::default(),
            m_axis_commit_tdata: Default::default(),
            m_axis_commit_tlast: Default::default(),
            s_axis_weight_payload_tvalid: each(ports),
            s_axis_weight_payload_tready: each(ports),
            s_axis_weight_payload_tdata: each(ports),
            s_axis_weight_scale_tvalid: each(ports),
            s_axis_weight_scale_tready: each(ports),
            s_axis_weight_scale_tdata: each(ports),
            s_axis_weight_tag_tvalid: each(ports),
            s_axis_weight_tag_tready: each(ports),
            s_axis_weight_tag_tdata: each(ports),
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
            accelerator: Accelerator::new(config.array),
            pipeline: SpeedPipeline::new(config.repetitions),
            player: PassPlayer::new(config.program_words),
            registers: Default::default(),
            writes: Default::default(),
            reads: Default::default(),
            shape: Constant::new(shape.into()),
            program_words: Constant::new((config.program_words as u64).into()),
            refused: Default::default(),
            fault: Default::default(),
            last_flip: Default::default(),
            last_stage: Default::default(),
            last_flushed: Default::default(),
            last_committed: Default::default(),
            command: Default::default(),
            starting: Default::default(),
            play: Default::default(),
            quiet: Default::default(),
            _ports: ports,
            _stages: config.repetitions,
            _older: config.repetitions - 1,
        }
    }
}

/// Speculative pipelined decoding of one sequence on the accelerator.
///
/// A pass runs the group of layers once: its rows, one for each token in flight, leave on a stream, and the player has the accelerator compute all products of the group for all rows together, so that
/// one fetch of the weights serves them all. What lies between the products, and the classifier, is the host's; the rows' classes come back on a stream, and committed tokens leave on another.
/// Below 0x100 the registers are the accelerator's, from there on its own. REPETITIONS stages; E bits of a position and of a token; the rest of the configuration is the accelerator's.
#[kernel(name = "fgmp_speed")]
impl<const ACC: usize, const E: usize> Logic for SpeedAccelerator<ACC, E> {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            refused,
            fault,
            last_flip,
            last_stage,
            last_flushed,
            last_committed
        );

        // The host's accesses, writes and reads apart.
        self.writes.clock.next = self.clock.val();
        self.writes.reset.next = self.reset.val();
        self.writes.playing.next = self.player.busy.val();
        self.writes.host_valid.next =
            self.s_axil_awvalid.val() && self.s_axil_wvalid.val() && !self.reset.val();
        self.writes.host_own.next = self.s_axil_awaddr.val().get_bit(OWN_BIT);
        self.writes.host_done_ready.next = self.s_axil_bready.val();
        self.writes.own_ready.next = self.registers.write_ready.val();
        self.writes.own_done.next = self.registers.bvalid.val();
        self.writes.window_ready.next = self.accelerator.s_axil_awready.val();
        self.writes.window_done.next = self.accelerator.s_axil_bvalid.val();
        self.s_axil_awready.next = self.writes.host_ready.val();
        self.s_axil_wready.next = self.writes.host_ready.val();
        self.s_axil_bvalid.next = self.writes.host_done.val();
        self.s_axil_bresp.next = self.accelerator.s_axil_bresp.val();
        if self.writes.from_own.val() {
            self.s_axil_bresp.next = self.registers.bresp.val();
        }
        if self.writes.from_none.val() {
            self.s_axil_bresp.next = 2.into();
        }
        self.reads.clock.next = self.clock.val();
        self.reads.reset.next = self.reset.val();
        self.reads.playing.next = self.player.busy.val();
        self.reads.host_valid.next = self.s_axil_arvalid.val() && !self.reset.val();
        self.reads.host_own.next = self.s_axil_araddr.val().get_bit(OWN_BIT);
        self.reads.host_done_ready.next = self.s_axil_rready.val();
        self.reads.own_ready.next = self.registers.arready.val();
        self.reads.own_done.next = self.registers.rvalid.val();
        self.reads.window_ready.next = self.accelerator.s_axil_arready.val();
        self.reads.window_done.next = self.accelerator.s_axil_rvalid.val();
        self.s_axil_arready.next = self.reads.host_ready.val();
        self.s_axil_rvalid.next = self.reads.host_done.val();
        self.s_axil_rdata.next = self.accelerator.s_axil_rdata.val();
        self.s_axil_rresp.next = self.accelerator.s_axil_rresp.val();
        if self.reads.from_own.val() {
            self.s_axil_rdata.next = self.registers.rdata.val();
            self.s_axil_rresp.next = self.registers.rresp.val();
        }
        if self.reads.from_none.val() {
            self.s_axil_rdata.next = 0.into();
            self.s_axil_rresp.next = 2.into();
        }

        // The accelerator's registers: the host's, or the player's.
        self.accelerator.clock.next = self.clock.val();
        self.accelerator.reset.next = self.reset.val();
        self.accelerator.s_axil_awvalid.next = self.writes.window_valid.val();
        self.accelerator.s_axil_wvalid.next = self.writes.window_valid.val();
        self.accelerator.s_axil_awaddr.next = self.s_axil_awaddr.val().get_bits::<AXIL_ADDRESS>(0);
        self.accelerator.s_axil_wdata.next = self.s_axil_wdata.val();
        self.accelerator.s_axil_wstrb.next = self.s_axil_wstrb.val();
        self.accelerator.s_axil_bready.next = self.writes.window_done_ready.val();
        self.accelerator.s_axil_arvalid.next = self.reads.window_valid.val();
        self.accelerator.s_axil_araddr.next = self.s_axil_araddr.val().get_bits::<AXIL_ADDRESS>(0);
        self.accelerator.s_axil_rready.next = self.reads.window_done_ready.val();
        if self.writes.player_turn.val() {
            self.accelerator.s_axil_awvalid.next = self.player.awvalid.val();
            self.accelerator.s_axil_wvalid.next = self.player.wvalid.val();
            self.accelerator.s_axil_awaddr.next = self.player.address.val();
            self.accelerator.s_axil_wdata.next = self.player.wdata.val();
            self.accelerator.s_axil_wstrb.next = 0xF.into();
            self.accelerator.s_axil_bready.next = self.player.bready.val();
        }
        if self.reads.player_turn.val() {
            self.accelerator.s_axil_arvalid.next = self.player.arvalid.val();
            self.accelerator.s_axil_araddr.next = self.player.address.val();
            self.accelerator.s_axil_rready.next = self.player.rready.val();
        }
        self.player.awready.next =
            self.writes.player_turn.val() && self.accelerator.s_axil_awready.val();
        self.player.wready.next =
            self.writes.player_turn.val() && self.accelerator.s_axil_wready.val();
        self.player.bvalid.next =
            self.writes.player_turn.val() && self.accelerator.s_axil_bvalid.val();
        self.player.bresp.next = self.accelerator.s_axil_bresp.val();
        self.player.arready.next =
            self.reads.player_turn.val() && self.accelerator.s_axil_arready.val();
        self.player.rvalid.next =
            self.reads.player_turn.val() && self.accelerator.s_axil_rvalid.val();
        self.player.rdata.next = self.accelerator.s_axil_rdata.val();
        self.player.rresp.next = self.accelerator.s_axil_rresp.val();

        // The accelerator's streams.
        self.irq.next = self.accelerator.irq.val();
        for f in 0..self._ports {
            self.accelerator.s_axis_weight_payload_tvalid[f].next =
                self.s_axis_weight_payload_tvalid[f].val();
            self.s_axis_weight_payload_tready[f].next =
                self.accelerator.s_axis_weight_payload_tready[f].val();
            self.accelerator.s_axis_weight_payload_tdata[f].next =
                self.s_axis_weight_payload_tdata[f].val();
            self.accelerator.s_axis_weight_scale_tvalid[f].next =
                self.s_axis_weight_scale_tvalid[f].val();
            self.s_axis_weight_scale_tready[f].next =
                self.accelerator.s_axis_weight_scale_tready[f].val();
            self.accelerator.s_axis_weight_scale_tdata[f].next =
                self.s_axis_weight_scale_tdata[f].val();
            self.accelerator.s_axis_weight_tag_tvalid[f].next =
                self.s_axis_weight_tag_tvalid[f].val();
            self.s_axis_weight_tag_tready[f].next =
                self.accelerator.s_axis_weight_tag_tready[f].val();
            self.accelerator.s_axis_weight_tag_tdata[f].next =
                self.s_axis_weight_tag_tdata[f].val();
        }
        self.accelerator.s_axis_act_payload_tvalid.next = self.s_axis_act_payload_tvalid.val();
        self.s_axis_act_payload_tready.next = self.accelerator.s_axis_act_payload_tready.val();
        self.accelerator.s_axis_act_payload_tdata.next = self.s_axis_act_payload_tdata.val();
        self.accelerator.s_axis_act_scale_tvalid.next = self.s_axis_act_scale_tvalid.val();
        self.s_axis_act_scale_tready.next = self.accelerator.s_axis_act_scale_tready.val();
        self.accelerator.s_axis_act_scale_tdata.next = self.s_axis_act_scale_tdata.val();
        self.accelerator.s_axis_act_tag_tvalid.next = self.s_axis_act_tag_tvalid.val();
        self.s_axis_act_tag_tready.next = self.accelerator.s_axis_act_tag_tready.val();
        self.accelerator.s_axis_act_tag_tdata.next = self.s_axis_act_tag_tdata.val();
        self.accelerator.s_axis_x_tvalid.next = self.s_axis_x_tvalid.val();
        self.s_axis_x_tready.next = self.accelerator.s_axis_x_tready.val();
        self.accelerator.s_axis_x_tdata.next = self.s_axis_x_tdata.val();
        self.m_axis_out_tvalid.next = self.accelerator.m_axis_out_tvalid.val();
        self.accelerator.m_axis_out_tready.next = self.m_axis_out_tready.val();
        self.m_axis_out_tdata.next = self.accelerator.m_axis_out_tdata.val();
        self.m_axis_out_tkeep.next = self.accelerator.m_axis_out_tkeep.val();
        self.m_axis_out_tlast.next = self.accelerator.m_axis_out_tlast.val();
        self.m_axis_payload_tvalid.next = self.accelerator.m_axis_payload_tvalid.val();
        self.accelerator.m_axis_payload_tready.next = self.m_axis_payload_tready.val();
        self.m_axis_payload_tdata.next = self.accelerator.m_axis_payload_tdata.val();
        self.m_axis_payload_tlast.next = self.accelerator.m_axis_payload_tlast.val();
        self.m_axis_scale_tvalid.next = self.accelerator.m_axis_scale_tvalid.val();
        self.accelerator.m_axis_scale_tready.next = self.m_axis_scale_tready.val();
        self.m_axis_scale_tdata.next = self.accelerator.m_axis_scale_tdata.val();
        self.m_axis_scale_tlast.next = self.accelerator.m_axis_scale_tlast.val();
        self.m_axis_tag_tvalid.next = self.accelerator.m_axis_tag_tvalid.val();
        self.accelerator.m_axis_tag_tready.next = self.m_axis_tag_tready.val();
        self.m_axis_tag_tdata.next = self.accelerator.m_axis_tag_tdata.val();
        self.m_axis_tag_tlast.next = self.accelerator.m_axis_tag_tlast.val();

        // Commands.
        self.command.next = 0.into();
        if self.registers.strobe[place::CONTROL].val() {
            self.command.next = self.s_axil_wdata.val().get_bits::<4>(0);
        }
        self.quiet.next = !self.player.busy.val() && !self.pipeline.active.val();
        self.starting.next = self.command.val().get_bit(0) && self.quiet.val();
        self.play.next =
            self.command.val().get_bit(2) && !self.command.val().get_bit(0) && self.quiet.val();
        if self.command.val().get_bit(0) || self.command.val().get_bit(2) {
            self.refused.d.next = (self.command.val().get_bit(0)
                && (!self.quiet.val() || self.pipeline.refused.val()))
                || (self.command.val().get_bit(2) && !self.play.val());
            if self.quiet.val() {
                self.fault.d.next = false;
            }
        }
        if self.player.failed.val() {
            self.fault.d.next = true;
        }

        // The pipeline.
        self.pipeline.clock.next = self.clock.val();
        self.pipeline.reset.next = self.reset.val();
        self.pipeline.start.next = self.starting.val();
        self.pipeline.start_position.next =
            self.registers.value[place::POSITION].val().get_bits::<E>(0);
        self.pipeline.start_token.next = self.registers.value[place::TOKEN].val().get_bits::<E>(0);
        self.pipeline.start_limit.next = self.registers.value[place::LAST_POSITION]
            .val()
            .get_bits::<E>(0);
        self.pipeline.start_end_enable.next =
            self.registers.value[place::END_TOKEN].val().get_bit(31);
        self.pipeline.start_end_token.next = self.registers.value[place::END_TOKEN]
            .val()
            .get_bits::<E>(0);
        self.pipeline.cancel.next = self.command.val().get_bit(1) || self.player.failed.val();
        self.pipeline.hold.next = self.player.busy.val();
        self.pipeline.clear_counters.next = self.command.val().get_bit(3);
        self.m_axis_row_tvalid.next = self.pipeline.row_valid.val();
        self.m_axis_row_tdata.next = bit_cast::<64, E>(self.pipeline.row_token.val())
            | (bit_cast::<64, E>(self.pipeline.row_position.val()) << 32)
            | (bit_cast::<64, STAGE>(self.pipeline.row_repetition.val()) << 56);
        self.m_axis_row_tlast.next = self.pipeline.row_last.val();
        self.pipeline.row_ready.next = self.m_axis_row_tready.val();
        self.pipeline.class_valid.next = self.s_axis_class_tvalid.val();
        self.pipeline.class_data.next = self.s_axis_class_tdata.val().get_bits::<E>(0);
        self.s_axis_class_tready.next = self.pipeline.class_ready.val();
        self.m_axis_commit_tvalid.next = self.pipeline.commit_valid.val();
        self.m_axis_commit_tdata.next = bit_cast::<64, E>(self.pipeline.commit_token.val())
            | (bit_cast::<64, E>(self.pipeline.commit_position.val()) << 32);
        self.m_axis_commit_tlast.next = self.pipeline.commit_last.val();
        self.pipeline.commit_ready.next = self.m_axis_commit_tready.val();
        if self.pipeline.resolved.val() {
            self.last_flip.d.next = self.pipeline.flip.val();
            self.last_stage.d.next = 0.into();
            if self.pipeline.flip.val() {
                self.last_stage.d.next = self.pipeline.flip_stage.val();
            }
            self.last_flushed.d.next = self.pipeline.flushed.val();
            self.last_committed.d.next = self.pipeline.committed.val();
        }

        // The player.
        self.player.clock.next = self.clock.val();
        self.player.reset.next = self.reset.val();
        self.player.start.next = self.pipeline.pass_start.val() || self.play.val();
        self.player.rows.next = self.registers.value[place::ROWS].val().get_bits::<16>(0);
        if self.pipeline.pass_start.val() {
            self.player.rows.next = bit_cast::<16, ENTRIES>(self.pipeline.pass_rows.val());
        }
        self.player.cancel.next = self.command.val().get_bit(1);
        self.player.program_write.next = self.registers.strobe[place::PROGRAM_DATA].val();
        self.player.program_address.next = self.registers.value[place::PROGRAM_ADDRESS]
            .val()
            .get_bits::<ADDRESS>(0);
        self.player.program_data.next = self.s_axil_wdata.val();

        // Registers.
        self.registers.clock.next = self.clock.val();
        self.registers.reset.next = self.reset.val();
        self.registers.write_valid.next = self.writes.own_valid.val();
        self.registers.write_place.next = self.s_axil_awaddr.val().get_bits::<6>(2);
        self.registers.wdata.next = self.s_axil_wdata.val();
        self.registers.wstrb.next = self.s_axil_wstrb.val();
        self.registers.bready.next = self.writes.own_done_ready.val();
        self.registers.arvalid.next = self.reads.own_valid.val();
        self.registers.read_place.next = self.s_axil_araddr.val().get_bits::<6>(2);
        self.registers.rready.next = self.reads.own_done_ready.val();
        for i in 0..COUNT {
            self.registers.status[i].next = 0.into();
        }
        self.registers.status[place::ID].next = ID.into();
        self.registers.status[place::VERSION].next = VERSION.into();
        self.registers.status[place::SHAPE].next = self.shape.val();
        self.registers.status[place::PROGRAM_WORDS].next = self.program_words.val();
        self.registers.status[place::STATUS].next =
            bit_cast::<32, 1>(self.pipeline.active.val().into())
                | (bit_cast::<32, 1>(self.pipeline.done.val().into()) << 1)
                | (bit_cast::<32, 1>(self.player.busy.val().into()) << 2)
                | (bit_cast::<32, 1>(self.refused.q.val().into()) << 3)
                | (bit_cast::<32, 1>(self.fault.q.val().into()) << 4);
        self.registers.status[place::ERROR].next = bit_cast::<32, 8>(self.player.job_error.val())
            | (bit_cast::<32, 1>(self.player.bus_error.val().into()) << 8)
            | (bit_cast::<32, 1>(self.player.program_error.val().into()) << 9);
        self.registers.status[place::LAST_PASS].next =
            bit_cast::<32, 1>(self.last_flip.q.val().into())
                | (bit_cast::<32, STAGE>(self.last_stage.q.val()) << 1)
                | (bit_cast::<32, ENTRIES>(self.last_flushed.q.val()) << 4)
                | (bit_cast::<32, 1>(self.last_committed.q.val().into()) << 8);
        for i in 0..self._stages {
            self.registers.status[i + place::TAIL_0].next =
                bit_cast::<32, E>(self.pipeline.tails[i].val());
        }
        for i in 0..COUNT_FLIPS {
            self.registers.status[i + place::PASSES].next = self.pipeline.counts[i].val();
        }
        for i in 0..self._older {
            self.registers.status[i + place::FLIPS_1].next =
                self.pipeline.counts[COUNT_FLIPS + i].val();
        }
    }
}
