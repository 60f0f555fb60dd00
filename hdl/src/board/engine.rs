//! The engine's top module.

use super::BoardConfig;
use super::executor::Executor;
use super::frame::{FrameReceiver, FrameSender};
use super::link::LinkControl;
use super::protocol::{FIRST_COLUMN, ID, REGISTER_COUNT, REGISTERS, VERSION, place};
use super::reply::ReplyWriter;
use super::uart::{UartReceiver, UartTransmitter};
use super::unpack::SCALE_AND_TAG;
use crate::accelerator::registers::Access;
use crate::array::PeArray;
use crate::decoder::BLOCK_BITS;
use crate::memory::{BlockBuffer, Ram};
use crate::prelude::*;
use crate::quantizer::SerialQuantizer;

/// Shifts count in `u64`.
const SCALE_AT: u64 = crate::decoder::SCALE_BIT as u64;
/// Likewise.
const TAG_AT: u64 = crate::decoder::TAG_BIT as u64;
const FRAMES: usize = place::FRAMES;
const DAMAGED: usize = place::DAMAGED;
const REFUSED: usize = place::REFUSED;
const BUSY: usize = place::BUSY;
const STEPS: usize = place::STEPS;
const OUTPUT_SCALE: usize = place::OUTPUT_SCALE;
const INPUT_SCALE: usize = place::INPUT_SCALE;
const THRESHOLD_LOW: usize = place::THRESHOLD_LOW;
const THRESHOLD_HIGH: usize = place::THRESHOLD_HIGH;
/// Bits of the counter for which a light shines: 2^20 cycles are 87 ms at 12 MHz.
const LIGHT: usize = 20;

/// An array with memories behind a serial line. `ACC` is the width of an accumulator; `L`, `P` and `W` are those of [`super::unpack::BlockUnpacker`].
///
/// An array of eight lanes is one of sixteen whose upper lanes are fed zeros: synthesis of the flat design removes them.
#[derive(LogicBlock, PortAccess)]
pub struct BoardEngine<const ACC: usize, const L: usize, const P: usize, const W: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Serial line from the host, high while idle; in no relation to the clock.
    pub rx: Signal<In, Bit>,
    /// Serial line to the host.
    pub tx: Signal<Out, Bit>,
    /// A session is open.
    pub ok: Signal<Out, Bit>,
    /// A command is executed.
    pub busy: Signal<Out, Bit>,
    /// A damaged frame came within the last 2^20 cycles.
    pub fault: Signal<Out, Bit>,

    receiver: UartReceiver,
    transmitter: UartTransmitter,
    frames: FrameReceiver,
    sender: FrameSender,
    link: LinkControl,
    executor: Executor<ACC, L, P, W>,
    reply: ReplyWriter,
    command_memory: BlockBuffer<8, 10>,
    reply_memory: BlockBuffer<8, 9>,
    weights: Vec<Ram<W>>,
    acts: Vec<Ram<W>>,
    array: PeArray<ACC>,
    quantizer: Vec<SerialQuantizer>,
    sensitivities: Vec<Ram<8>>,

    counters: [Register<Bits<32>>; 5],
    counts: [Signal<Local, Bit>; 5],
    // Registers that the host writes, byte by byte.
    kept: Vec<Register<Bits<8>>>,
    // The registers by number.
    identity: Constant<Bits<32>>,
    version: Constant<Bits<32>>,
    shape: Constant<Bits<32>>,
    depths: Constant<Bits<32>>,
    bit_length: Constant<Bits<32>>,
    register_mux: MuxN<Bits<32>, 8>,
    word: [Signal<Local, Bits<32>>; 4],
    block: Signal<Local, Bits<BLOCK_BITS>>,
    light: Register<Bits<LIGHT>>,

    _rows: usize,
    _cols: usize,
    _quantizers: usize,
    /// Bytes of `kept`; its registers follow each other from `OUTPUT_SCALE` on.
    _bytes: usize,
    _words: usize,
}

impl<const ACC: usize, const L: usize, const P: usize, const W: usize> BoardEngine<ACC, L, P, W> {
    /// The engine of a validated configuration.
    #[must_use]
    pub fn new(config: BoardConfig) -> Self {
        let array = config.array;
        let (rows, cols) = (array.rows, array.cols);
        let requantizers = usize::from(config.requantizer);
        let (stages, multiplier) = (array.pipeline, array.multiplier);
        let words = golden::format::BLOCK * 8 / P;
        let writable = REGISTERS
            .iter()
            .filter(|register| register.access == Access::ReadWrite)
            .count();
        // Without a quantizer only the first of them has a reader; without both none.
        let kept = match (config.requantizer, config.quantizer) {
            (_, true) => writable,
            (true, false) => 1,
            (false, false) => 0,
        };
        let quantizers = usize::from(config.quantizer);
        let bits = |value: u64| Constant::new(value.into());
        let units = u64::from(config.requantizer) | u64::from(config.quantizer) << 1;
        Self {
            clock: Default::default(),
            reset: Default::default(),
            rx: Default::default(),
            tx: Default::default(),
            ok: Default::default(),
            busy: Default::default(),
            fault: Default::default(),
            receiver: UartReceiver::new(config.clocks_per_bit),
            transmitter: UartTransmitter::new(config.clocks_per_bit),
            frames: Default::default(),
            sender: Default::default(),
            link: Default::default(),
            executor: Executor::new(rows, cols, config.requantizer, config.quantizer),
            reply: Default::default(),
            command_memory: Default::default(),
            reply_memory: Default::default(),
            weights: (0..rows)
                .map(|_| Ram::new(words * array.weight_blocks))
                .collect(),
            acts: (0..cols)
                .map(|_| Ram::new(words * array.act_blocks))
                .collect(),
            array: PeArray::with_units(rows, cols, stages, multiplier, array.lanes, requantizers),
            quantizer: (0..quantizers).map(|_| Default::default()).collect(),
            sensitivities: (0..quantizers)
                .map(|_| Ram::new(config.channels()))
                .collect(),
            counters: Default::default(),
            counts: Default::default(),
            kept: (0..4 * kept).map(|_| Default::default()).collect(),
            identity: bits(ID.into()),
            version: bits(VERSION.into()),
            shape: bits(
                rows as u64
                    | (cols as u64) << 8
                    | units << 16
                    | (words as u64 - 1) << 18
                    | (ACC as u64) << 24,
            ),
            depths: bits(array.weight_blocks as u64 | (array.act_blocks as u64) << 16),
            bit_length: bits(config.clocks_per_bit as u64),
            register_mux: MuxN::new(REGISTER_COUNT),
            word: Default::default(),
            block: Default::default(),
            light: Default::default(),
            _rows: rows,
            _cols: cols,
            _quantizers: quantizers,
            _bytes: 4 * kept,
            _words: kept,
        }
    }
}

/// A rows x cols array of mixed FP4/FP8 processing elements with a memory for each row and each column, driven by frames on a serial line.
///
/// The frames and what they do are in the page on the link.
#[kernel(name = "fgmp_board")]
impl<const ACC: usize, const L: usize, const P: usize, const W: usize> Logic
    for BoardEngine<ACC, L, P, W>
{
    fn update(&mut self) {
        registers!(self, clock, reset, light);
        for i in 0..5 {
            registers!(self, clock, reset, counters[i]);
        }
        for i in 0..self._bytes {
            registers!(self, clock, reset, kept[i]);
        }

        // The line.
        self.receiver.clock.next = self.clock.val();
        self.receiver.reset.next = self.reset.val();
        self.receiver.rx.next = self.rx.val();
        self.frames.clock.next = self.clock.val();
        self.frames.reset.next = self.reset.val();
        self.frames.valid.next = self.receiver.valid.val();
        self.frames.data.next = self.receiver.data.val();
        self.frames.broken.next = self.receiver.broken.val();
        self.frames.retire.next = self.link.retire.val();
        self.command_memory.clock.next = self.clock.val();
        self.command_memory.write.next = self.frames.write.val();
        self.command_memory.write_address.next = self.frames.write_address.val();
        self.command_memory.write_data.next = self.frames.write_data.val();
        self.command_memory.read.next = true;
        self.command_memory.read_address.next = self.link.read_address.val();

        self.transmitter.clock.next = self.clock.val();
        self.transmitter.reset.next = self.reset.val();
        self.transmitter.valid.next = self.sender.valid.val();
        self.transmitter.data.next = self.sender.data.val();
        self.tx.next = self.transmitter.tx.val();
        self.sender.clock.next = self.clock.val();
        self.sender.reset.next = self.reset.val();
        self.sender.start.next = self.link.send.val();
        self.sender.header.next = self.link.send_header.val();
        self.sender.body_length.next = self.link.send_length.val();
        self.sender.ready.next = self.transmitter.ready.val();
        self.sender.read_data.next = self.reply_memory.read_data.val();
        self.reply_memory.clock.next = self.clock.val();
        self.reply_memory.read.next = true;
        self.reply_memory.read_address.next = self.sender.read_address.val();
        self.reply_memory.write.next = self.reply.write.val();
        self.reply_memory.write_address.next = self.reply.write_address.val();
        self.reply_memory.write_data.next = self.reply.write_data.val();

        // Commands.
        self.link.clock.next = self.clock.val();
        self.link.reset.next = self.reset.val();
        self.link.waiting.next = self.frames.waiting.val();
        self.link.half.next = self.frames.half.val();
        self.link.length.next = self.frames.length.val();
        self.link.damaged.next = self.frames.damaged.val();
        self.link.overrun.next = self.frames.overrun.val();
        self.link.read_data.next = self.command_memory.read_data.val();
        self.link.body_ready.next = self.executor.body_ready.val();
        self.link.done.next = self.executor.done.val();
        self.link.status.next = self.executor.status.val();
        self.link.reply_length.next = self.executor.reply_length.val();
        self.link.sender_idle.next = self.sender.idle.val();
        self.executor.clock.next = self.clock.val();
        self.executor.reset.next = self.reset.val();
        self.executor.start.next = self.link.start.val();
        self.executor.operation.next = self.link.operation.val();
        self.executor.body_length.next = self.link.body_length.val();
        self.executor.body_valid.next = self.link.body_valid.val();
        self.executor.body_data.next = self.link.body_data.val();
        self.reply.clock.next = self.clock.val();
        self.reply.clear.next = self.executor.reply_clear.val();
        self.reply.valid.next = self.executor.reply_valid.val();
        self.reply.value.next = self.executor.reply_value.val();
        self.reply.bytes.next = self.executor.reply_bytes.val();
        self.executor.reply_ready.next = self.reply.ready.val();
        self.executor.reply_place.next = self.reply.length.val();
        self.executor.reply_overflow.next = self.reply.overflow.val();

        // Memories and array.
        self.array.clock.next = self.clock.val();
        self.array.reset.next = self.reset.val();
        self.array.tile.next = 0.into();
        self.array.weight_valid.next = self.executor.step_valid.val();
        self.array.act_valid.next = self.executor.step_valid.val();
        self.array.weight_last.next = self.executor.step_last.val();
        self.array.act_last.next = self.executor.step_last.val();
        self.executor.step_ready.next = self.array.weight_ready.val();
        for r in 0..self._rows {
            self.weights[r].clock.next = self.clock.val();
            self.weights[r].write.next =
                self.executor.word_write.val() && self.executor.word_unit.val() == r.to_bits::<8>();
            self.weights[r].write_address.next = self.executor.word_address.val();
            self.weights[r].write_data.next = self.executor.word.val();
            self.weights[r].read.next = self.executor.read.val();
            self.weights[r].read_address.next = self.executor.weight_address.val();
            for n in P..(P + 1) {
                self.array.weight_data[r].next =
                    bit_cast::<BLOCK_BITS, P>(self.weights[r].read_data.val().get_bits::<P>(0))
                        | (bit_cast::<BLOCK_BITS, SCALE_AND_TAG>(
                            self.weights[r].read_data.val().get_bits::<SCALE_AND_TAG>(n),
                        ) << SCALE_AT);
            }
        }
        for c in 0..self._cols {
            self.acts[c].clock.next = self.clock.val();
            self.acts[c].write.next = self.executor.word_write.val()
                && (self.executor.word_unit.val() ^ FIRST_COLUMN.to_bits::<8>())
                    == c.to_bits::<8>();
            self.acts[c].write_address.next = self.executor.word_address.val();
            self.acts[c].write_data.next = self.executor.word.val();
            self.acts[c].read.next = self.executor.read.val();
            self.acts[c].read_address.next = self.executor.act_address.val();
            for n in P..(P + 1) {
                self.array.act_data[c].next =
                    bit_cast::<BLOCK_BITS, P>(self.acts[c].read_data.val().get_bits::<P>(0))
                        | (bit_cast::<BLOCK_BITS, SCALE_AND_TAG>(
                            self.acts[c].read_data.val().get_bits::<SCALE_AND_TAG>(n),
                        ) << SCALE_AT);
            }
        }
        self.array.out_ready.next = self.executor.result_ready.val();
        self.executor.result_valid.next = self.array.out_valid.val();
        self.executor.result_last.next = self.array.out_last.val();
        self.executor.result_acc.next = self.array.out_acc.val();
        self.executor.result_bf16.next = self.array.out_data.val();
        self.executor.result_nan.next = self.array.out_nan.val();

        // Registers.
        for w in 0..4 {
            self.word[w].next = 0.into();
        }
        for w in 0..self._words {
            self.word[w].next = bit_cast::<32, 8>(self.kept[4 * w].q.val())
                | (bit_cast::<32, 8>(self.kept[4 * w + 1].q.val()) << 8)
                | (bit_cast::<32, 8>(self.kept[4 * w + 2].q.val()) << 16)
                | (bit_cast::<32, 8>(self.kept[4 * w + 3].q.val()) << 24);
        }
        for first in OUTPUT_SCALE..(OUTPUT_SCALE + 1) {
            for i in 0..self._bytes {
                if self.executor.register_write.val()
                    && self.executor.register_byte.val() == (4 * first + i).to_bits::<10>()
                {
                    self.kept[i].d.next = self.executor.register_data.val();
                }
            }
        }
        self.array.output_scale.next = self.word[0].val();
        self.register_mux.a[0].next = self.identity.val();
        self.register_mux.a[1].next = self.version.val();
        self.register_mux.a[2].next = self.shape.val();
        self.register_mux.a[3].next = self.depths.val();
        self.register_mux.a[4].next = self.bit_length.val();
        for first in FRAMES..(FRAMES + 1) {
            for i in 0..5 {
                self.register_mux.a[first + i].next = self.counters[i].q.val();
            }
        }
        for first in OUTPUT_SCALE..(OUTPUT_SCALE + 1) {
            for i in 0..4 {
                self.register_mux.a[first + i].next = self.word[i].val();
            }
        }
        self.register_mux.select.next = self.executor.register_read.val();
        self.executor.register_value.next = self.register_mux.y.val();

        // Counters, in the order of their registers.
        self.counts[0].next = self.link.count_frame.val();
        self.counts[1].next = self.frames.damaged.val();
        self.counts[2].next = self.link.count_refused.val();
        self.counts[3].next = self.link.executing.val();
        self.counts[4].next = self.executor.step_valid.val() && self.array.weight_ready.val();
        for i in 0..5 {
            if self.counts[i].val() {
                self.counters[i].d.next = self.counters[i].q.val() + 1;
            }
        }

        // Quantizer.
        self.executor.element_ready.next = false;
        self.executor.quantized_valid.next = false;
        self.block.next = 0.into();
        for i in 0..self._quantizers {
            self.sensitivities[i].clock.next = self.clock.val();
            self.sensitivities[i].write.next = self.executor.sensitivity_write.val();
            self.sensitivities[i].write_address.next = self.executor.sensitivity_channel.val();
            self.sensitivities[i].write_data.next = self.executor.sensitivity.val();
            self.sensitivities[i].read.next = true;
            self.sensitivities[i].read_address.next = self.executor.channel.val();
            self.quantizer[i].clock.next = self.clock.val();
            self.quantizer[i].reset.next = self.reset.val();
            self.quantizer[i].input_scale.next = self.word[1].val();
            self.quantizer[i].threshold.next = bit_cast::<64, 32>(self.word[2].val())
                | (bit_cast::<64, 32>(self.word[3].val()) << 32);
            self.quantizer[i].x_valid.next = self.executor.element_valid.val();
            self.quantizer[i].x_last.next = false;
            self.quantizer[i].x_data.next = self.executor.element.val();
            self.quantizer[i].x_sensitivity.next = self.sensitivities[i].read_data.val();
            self.executor.element_ready.next = self.quantizer[i].x_ready.val();
            self.executor.quantized_valid.next = self.quantizer[i].block_valid.val();
            self.quantizer[i].block_ready.next = self.executor.quantized_ready.val();
            self.block.next = bit_cast::<BLOCK_BITS, 128>(self.quantizer[i].block_payload.val());
            if self.quantizer[i].block_fp8.val() {
                self.block.next =
                    bit_cast::<BLOCK_BITS, 128>(self.quantizer[i].block_payload.val())
                        | (bit_cast::<BLOCK_BITS, 1>(self.quantizer[i].block_fp8.val().into())
                            << TAG_AT);
            } else {
                self.block.next =
                    bit_cast::<BLOCK_BITS, 128>(self.quantizer[i].block_payload.val())
                        | (bit_cast::<BLOCK_BITS, 8>(self.quantizer[i].block_scale.val())
                            << SCALE_AT);
            }
        }
        self.executor.quantized.next = bit_cast::<W, BLOCK_BITS>(self.block.val());

        // Lights.
        self.ok.next = self.link.open.val();
        self.busy.next = self.link.executing.val();
        self.fault.next = self.light.q.val().any();
        if self.light.q.val().any() {
            self.light.d.next = self.light.q.val() - 1;
        }
        if self.frames.damaged.val() {
            self.light.d.next = 0xF_FFFF.into();
        }
    }
}

const _: () = assert!(
    DAMAGED == FRAMES + 1
        && REFUSED == FRAMES + 2
        && BUSY == FRAMES + 3
        && STEPS == FRAMES + 4
        && INPUT_SCALE == OUTPUT_SCALE + 1
        && THRESHOLD_LOW == OUTPUT_SCALE + 2
        && THRESHOLD_HIGH == OUTPUT_SCALE + 3
        && FRAMES == 5
        && REGISTER_COUNT == FRAMES + 9,
    "the engine counts on the registers' order"
);
