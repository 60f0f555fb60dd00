//! What a command does: its arguments, the memories it writes, the product it asks for.

use super::protocol::{ACCUMULATOR_BYTES, BF16_BYTES, FIRST_COLUMN, Operation, Status};
use super::steps::StepSequencer;
use super::unpack::{BlockUnpacker, SCALE_AND_TAG};
use crate::board::frame::FRAME_LENGTH;
use crate::memory::ADDRESS;
use crate::prelude::*;

const READ_REGISTERS: u8 = Operation::ReadRegisters as u8;
const WRITE_REGISTERS: u8 = Operation::WriteRegisters as u8;
const LOAD_BLOCKS: u8 = Operation::LoadBlocks as u8;
const MULTIPLY: u8 = Operation::Multiply as u8;
const LOAD_ELEMENTS: u8 = Operation::LoadElements as u8;
const LOAD_SENSITIVITIES: u8 = Operation::LoadSensitivities as u8;
const DONE: u8 = Status::Done as u8;
const UNKNOWN: u8 = Status::Unknown as u8;
const REFUSED: u8 = Status::Refused as u8;
const REGISTER_BYTES: u8 = 4;
const ACC_BYTES: u8 = ACCUMULATOR_BYTES as u8;
const RESULT_BYTES: u8 = BF16_BYTES as u8;
/// Bits of a shift register for the longest arguments, those of a product.
const ARGUMENTS: usize = 72;
/// Bits of a block's first payload half, its second, its scale and tag, as the reply gives them.
const HALF: u8 = 8;
const REST: u8 = 2;

/// Executes one command at a time. `ACC` is the width of an accumulator; `L`, `P` and `W` are those of [`BlockUnpacker`].
#[derive(LogicBlock, PortAccess)]
pub struct Executor<const ACC: usize, const L: usize, const P: usize, const W: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Execute; for one cycle.
    pub start: Signal<In, Bit>,
    /// What.
    pub operation: Signal<In, Bits<8>>,
    /// Bytes of the body.
    pub body_length: Signal<In, Bits<FRAME_LENGTH>>,
    /// A byte of the body is there; as long as there are any.
    pub body_valid: Signal<In, Bit>,
    /// It is taken.
    pub body_ready: Signal<Out, Bit>,
    /// It.
    pub body_data: Signal<In, Bits<8>>,
    /// The command is executed; for one cycle.
    pub done: Signal<Out, Bit>,
    /// How it fared.
    pub status: Signal<Out, Bits<8>>,
    /// Bytes of the reply's body.
    pub reply_length: Signal<Out, Bits<FRAME_LENGTH>>,

    /// The reply's body: begin it.
    pub reply_clear: Signal<Out, Bit>,
    /// A value for it.
    pub reply_valid: Signal<Out, Bit>,
    /// It is taken.
    pub reply_ready: Signal<In, Bit>,
    /// The value.
    pub reply_value: Signal<Out, Bits<64>>,
    /// Its bytes.
    pub reply_bytes: Signal<Out, Bits<4>>,
    /// Bytes of the body so far.
    pub reply_place: Signal<In, Bits<FRAME_LENGTH>>,
    /// The body doesn't fit a reply.
    pub reply_overflow: Signal<In, Bit>,

    /// Number of the register that is read.
    pub register_read: Signal<Out, Bits<8>>,
    /// Its value.
    pub register_value: Signal<In, Bits<32>>,
    /// Write a byte of a register.
    pub register_write: Signal<Out, Bit>,
    /// Number of the register, and byte in its low two bits.
    pub register_byte: Signal<Out, Bits<10>>,
    /// The byte.
    pub register_data: Signal<Out, Bits<8>>,

    /// Write a word of a block.
    pub word_write: Signal<Out, Bit>,
    /// Row, or column from 0x80 on.
    pub word_unit: Signal<Out, Bits<8>>,
    /// Address in its memory.
    pub word_address: Signal<Out, Bits<ADDRESS>>,
    /// The word.
    pub word: Signal<Out, Bits<W>>,

    /// Read the memories.
    pub read: Signal<Out, Bit>,
    /// Address in the rows' memories.
    pub weight_address: Signal<Out, Bits<ADDRESS>>,
    /// Address in the columns' memories.
    pub act_address: Signal<Out, Bits<ADDRESS>>,
    /// What was read is a step.
    pub step_valid: Signal<Out, Bit>,
    /// It is the last of its tile.
    pub step_last: Signal<Out, Bit>,
    /// The array takes it.
    pub step_ready: Signal<In, Bit>,
    /// A result is there.
    pub result_valid: Signal<In, Bit>,
    /// It is taken.
    pub result_ready: Signal<Out, Bit>,
    /// It is the last of its tile.
    pub result_last: Signal<In, Bit>,
    /// The accumulator.
    pub result_acc: Signal<In, Bits<ACC>>,
    /// The result, BF16.
    pub result_bf16: Signal<In, Bits<16>>,
    /// It is NaN.
    pub result_nan: Signal<In, Bit>,

    /// An element for the quantizer is there.
    pub element_valid: Signal<Out, Bit>,
    /// It is taken.
    pub element_ready: Signal<In, Bit>,
    /// It, BF16.
    pub element: Signal<Out, Bits<16>>,
    /// Channel whose sensitivity is read in this cycle; it goes with the element of the next one.
    pub channel: Signal<Out, Bits<16>>,
    /// Write a sensitivity.
    pub sensitivity_write: Signal<Out, Bit>,
    /// Channel.
    pub sensitivity_channel: Signal<Out, Bits<16>>,
    /// Its code.
    pub sensitivity: Signal<Out, Bits<8>>,
    /// A quantized block is there.
    pub quantized_valid: Signal<In, Bit>,
    /// It is taken, and written to the column at `word_address`.
    pub quantized_ready: Signal<Out, Bit>,
    /// It, as a word; an array of eight lanes has no quantizer.
    pub quantized: Signal<In, Bits<W>>,

    reading: Register<Bit>,
    writing: Register<Bit>,
    loading: Register<Bit>,
    multiplying: Register<Bit>,
    quantizing: Register<Bit>,
    sensing: Register<Bit>,
    // The arguments are still coming; they are there for the first time.
    arguing: Register<Bit>,
    beginning: Register<Bit>,
    refused: DataRegister<Bit>,
    unknown: DataRegister<Bit>,
    ending: Register<Bit>,
    arguments: DataRegister<Bits<ARGUMENTS>>,
    arguments_left: DataRegister<Bits<4>>,
    at: DataRegister<Bits<16>>,
    unpacker: BlockUnpacker<L, P, W>,
    sequencer: StepSequencer,
    tiles_inside: Register<Bits<5>>,
    low_byte: DataRegister<Bits<8>>,
    low_there: Register<Bit>,
    next_channel: DataRegister<Bits<16>>,
    blocks_inside: Register<Bits<5>>,
    chunk: Register<Bits<2>>,

    row_count: Constant<Bits<8>>,
    column_count: Constant<Bits<8>>,
    can_requantize: Constant<Bit>,
    can_quantize: Constant<Bit>,
    /// Words of a block, as a shift.
    halves: Constant<Bits<1>>,
    extend: SignExtend<ACC, 64>,

    known: Signal<Local, Bit>,
    fits: Signal<Local, Bit>,
    argument: Signal<Local, Bit>,
    run: Signal<Local, Bit>,
    operand: Signal<Local, Bit>,
    unit: Signal<Local, Bits<8>>,
    unit_there: Signal<Local, Bit>,
    column_unit: Signal<Local, Bits<8>>,
    nothing: Signal<Local, Bit>,
    bf16: Signal<Local, Bit>,
    result: Signal<Local, Bits<64>>,
    finish: Signal<Local, Bit>,
    tile_in: Signal<Local, Bit>,
    tile_out: Signal<Local, Bit>,
    block_in: Signal<Local, Bit>,
    block_out: Signal<Local, Bit>,
    element_taken: Signal<Local, Bit>,
    channel_now: Signal<Local, Bits<16>>,
    last_word: Signal<Local, Bits<8>>,
}

impl<const ACC: usize, const L: usize, const P: usize, const W: usize> Executor<ACC, L, P, W> {
    /// For an array of so many rows and columns, with the units that there are.
    #[must_use]
    pub fn new(rows: usize, cols: usize, requantizer: bool, quantizer: bool) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            operation: Default::default(),
            body_length: Default::default(),
            body_valid: Default::default(),
            body_ready: Default::default(),
            body_data: Default::default(),
            done: Default::default(),
            status: Default::default(),
            reply_length: Default::default(),
            reply_clear: Default::default(),
            reply_valid: Default::default(),
            reply_ready: Default::default(),
            reply_value: Default::default(),
            reply_bytes: Default::default(),
            reply_place: Default::default(),
            reply_overflow: Default::default(),
            register_read: Default::default(),
            register_value: Default::default(),
            register_write: Default::default(),
            register_byte: Default::default(),
            register_data: Default::default(),
            word_write: Default::default(),
            word_unit: Default::default(),
            word_address: Default::default(),
            word: Default::default(),
            read: Default::default(),
            weight_address: Default::default(),
            act_address: Default::default(),
            step_valid: Default::default(),
            step_last: Default::default(),
            step_ready: Default::default(),
            result_valid: Default::default(),
            result_ready: Default::default(),
            result_last: Default::default(),
            result_acc: Default::default(),
            result_bf16: Default::default(),
            result_nan: Default::default(),
            element_valid: Default::default(),
            element_ready: Default::default(),
            element: Default::default(),
            channel: Default::default(),
            sensitivity_write: Default::default(),
            sensitivity_channel: Default::default(),
            sensitivity: Default::default(),
            quantized_valid: Default::default(),
            quantized_ready: Default::default(),
            quantized: Default::default(),
            reading: Default::default(),
            writing: Default::default(),
            loading: Default::default(),
            multiplying: Default::default(),
            quantizing: Default::default(),
            sensing: Default::default(),
            arguing: Default::default(),
            beginning: Default::default(),
            refused: Default::default(),
            unknown: Default::default(),
            ending: Default::default(),
            arguments: Default::default(),
            arguments_left: Default::default(),
            at: Default::default(),
            unpacker: Default::default(),
            sequencer: Default::default(),
            tiles_inside: Default::default(),
            low_byte: Default::default(),
            low_there: Default::default(),
            next_channel: Default::default(),
            blocks_inside: Default::default(),
            chunk: Default::default(),
            row_count: Constant::new((rows as u64).into()),
            column_count: Constant::new((cols as u64).into()),
            can_requantize: Constant::new(requantizer),
            can_quantize: Constant::new(quantizer),
            halves: Constant::new(u64::from(L == 32).into()),
            extend: Default::default(),
            known: Default::default(),
            fits: Default::default(),
            argument: Default::default(),
            run: Default::default(),
            operand: Default::default(),
            unit: Default::default(),
            unit_there: Default::default(),
            column_unit: Default::default(),
            nothing: Default::default(),
            bf16: Default::default(),
            result: Default::default(),
            finish: Default::default(),
            tile_in: Default::default(),
            tile_out: Default::default(),
            block_in: Default::default(),
            block_out: Default::default(),
            element_taken: Default::default(),
            channel_now: Default::default(),
            last_word: Default::default(),
        }
    }
}

/// One command at a time: gathers its arguments, then reads or writes registers, writes blocks or sensitivities, multiplies, or quantizes.
///
/// Arguments are shifted in from the top, so those of each operation end at bit 71.
#[kernel]
impl<const ACC: usize, const L: usize, const P: usize, const W: usize> Logic
    for Executor<ACC, L, P, W>
{
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            reading,
            writing,
            loading,
            multiplying,
            quantizing,
            sensing,
            arguing,
            beginning,
            ending,
            tiles_inside,
            low_there,
            blocks_inside,
            chunk
        );
        data_registers!(
            self,
            clock,
            refused,
            unknown,
            arguments,
            arguments_left,
            at,
            low_byte,
            next_channel
        );

        // A new command: which one, and whether its body has a length that it can have.
        self.known.next = true;
        self.fits.next = true;
        if self.start.val() {
            self.refused.d.next = false;
            self.unknown.d.next = false;
            self.arguing.d.next = true;
            self.low_there.d.next = false;
            self.chunk.d.next = 0.into();
            if self.operation.val() == READ_REGISTERS.to_bits::<8>() {
                self.reading.d.next = true;
                self.arguments_left.d.next = 2.into();
                self.fits.next = self.body_length.val() == 2;
            } else if self.operation.val() == WRITE_REGISTERS.to_bits::<8>() {
                self.writing.d.next = true;
                self.arguments_left.d.next = 1.into();
                self.fits.next = self.body_length.val().get_bits::<2>(0) == 1;
            } else if self.operation.val() == LOAD_BLOCKS.to_bits::<8>() {
                self.loading.d.next = true;
                self.arguments_left.d.next = 3.into();
                self.fits.next = self.body_length.val() >= 3;
            } else if self.operation.val() == MULTIPLY.to_bits::<8>() {
                self.multiplying.d.next = true;
                self.arguments_left.d.next = 9.into();
                self.fits.next = self.body_length.val() == 9;
            } else if self.operation.val() == LOAD_ELEMENTS.to_bits::<8>()
                && self.can_quantize.val()
            {
                self.quantizing.d.next = true;
                self.arguments_left.d.next = 5.into();
                self.fits.next = self.body_length.val().get_bits::<5>(0) == 5;
            } else if self.operation.val() == LOAD_SENSITIVITIES.to_bits::<8>()
                && self.can_quantize.val()
            {
                self.sensing.d.next = true;
                self.arguments_left.d.next = 2.into();
                self.fits.next = self.body_length.val() >= 2;
            } else {
                self.known.next = false;
            }
            if !self.known.val() || !self.fits.val() {
                self.arguing.d.next = false;
                self.ending.d.next = true;
                self.refused.d.next = !self.fits.val();
                self.unknown.d.next = !self.known.val();
            }
        }

        // Arguments.
        self.argument.next = self.arguing.q.val() && self.body_valid.val();
        if self.argument.val() {
            self.arguments.d.next = (self.arguments.q.val() >> 8)
                | (bit_cast::<ARGUMENTS, 8>(self.body_data.val()) << 64);
            self.arguments_left.d.next = self.arguments_left.q.val() - 1;
            if self.arguments_left.q.val() == 1 {
                self.arguing.d.next = false;
                self.beginning.d.next = true;
            }
        }
        if self.beginning.q.val() {
            self.beginning.d.next = false;
        }
        self.run.next = !self.arguing.q.val() && !self.beginning.q.val() && !self.ending.q.val();
        self.operand.next = self.body_valid.val() && self.run.val();
        self.finish.next = false;

        // Where blocks go: LoadBlocks has unit and address last, LoadElements the block's number behind them.
        self.unit.next = self.arguments.q.val().get_bits::<8>(48);
        if self.beginning.q.val() {
            self.at.d.next = self.arguments.q.val().get_bits::<16>(56);
            if self.loading.q.val() {
                self.at.d.next = self.arguments.q.val().get_bits::<16>(56) << self.halves.val();
            }
        }
        if self.quantizing.q.val() {
            self.unit.next = self.arguments.q.val().get_bits::<8>(32);
            if self.beginning.q.val() {
                self.at.d.next = self.arguments.q.val().get_bits::<16>(40);
            }
        }
        self.column_unit.next = self.unit.val() ^ FIRST_COLUMN.to_bits::<8>();
        self.unit_there.next = self.unit.val() < self.row_count.val() && !self.quantizing.q.val();
        if self.column_unit.val() < self.column_count.val() {
            self.unit_there.next = true;
        }
        if self.beginning.q.val()
            && (self.loading.q.val() || self.quantizing.q.val())
            && !self.unit_there.val()
        {
            self.refused.d.next = true;
            self.ending.d.next = true;
        }

        // Registers.
        self.register_read.next = self.arguments.q.val().get_bits::<8>(56);
        self.last_word.next = self.arguments.q.val().get_bits::<8>(64);
        self.register_write.next = self.writing.q.val() && self.operand.val();
        self.register_byte.next = self.at.q.val().get_bits::<10>(0);
        self.register_data.next = self.body_data.val();
        if self.writing.q.val() && self.beginning.q.val() {
            self.at.d.next = bit_cast::<16, 8>(self.last_word.val()) << 2;
        }
        if self.register_write.val() {
            self.at.d.next = self.at.q.val() + 1;
        }

        // Blocks of the frame.
        self.unpacker.clock.next = self.clock.val();
        self.unpacker.clear.next = self.start.val() || self.reset.val();
        self.unpacker.valid.next = self.loading.q.val() && self.operand.val();
        self.unpacker.data.next = self.body_data.val();
        self.word_unit.next = self.unit.val();
        self.word_address.next = self.at.q.val();
        self.word.next = self.unpacker.word.val();
        self.word_write.next = self.unpacker.word_valid.val();
        if self.word_write.val() {
            self.at.d.next = self.at.q.val() + 1;
        }

        // Products: arguments from bit 0 on.
        self.nothing.next = !self.arguments.q.val().get_bits::<16>(32).any()
            || !self.arguments.q.val().get_bits::<8>(48).any()
            || !self.arguments.q.val().get_bits::<8>(56).any();
        self.bf16.next = self.arguments.q.val().get_bit(64) && self.can_requantize.val();
        self.sequencer.clock.next = self.clock.val();
        self.sequencer.reset.next = self.reset.val();
        self.sequencer.start.next = false;
        self.sequencer.weight_first.next =
            self.arguments.q.val().get_bits::<16>(0) << self.halves.val();
        self.sequencer.act_first.next =
            self.arguments.q.val().get_bits::<16>(16) << self.halves.val();
        self.sequencer.blocks.next = self.arguments.q.val().get_bits::<16>(32) << self.halves.val();
        self.sequencer.weight_tiles.next = self.arguments.q.val().get_bits::<8>(48);
        self.sequencer.act_tiles.next = self.arguments.q.val().get_bits::<8>(56);
        self.sequencer.step_ready.next = self.step_ready.val();
        if self.multiplying.q.val() && self.beginning.q.val() {
            if self.nothing.val()
                || (self.arguments.q.val().get_bit(64) && !self.can_requantize.val())
            {
                self.refused.d.next = true;
                self.ending.d.next = true;
            } else {
                self.sequencer.start.next = true;
            }
        }
        self.read.next = self.sequencer.read.val();
        self.weight_address.next = self.sequencer.weight_address.val();
        self.act_address.next = self.sequencer.act_address.val();
        self.step_valid.next = self.sequencer.step_valid.val();
        self.step_last.next = self.sequencer.step_last.val();
        self.tile_in.next = self.sequencer.step_valid.val()
            && self.sequencer.step_last.val()
            && self.step_ready.val();
        self.tile_out.next =
            self.result_valid.val() && self.result_last.val() && self.reply_ready.val();
        if self.tile_in.val() && !self.tile_out.val() {
            self.tiles_inside.d.next = self.tiles_inside.q.val() + 1;
        }
        if self.tile_out.val() && !self.tile_in.val() {
            self.tiles_inside.d.next = self.tiles_inside.q.val() - 1;
        }
        self.extend.a.next = self.result_acc.val();
        self.result.next = self.extend.y.val();
        if self.result_nan.val() {
            self.result.next = 0x8000_0000_0000_0000_u64.into();
        }
        if self.bf16.val() {
            self.result.next = bit_cast::<64, 16>(self.result_bf16.val());
        }
        self.result_ready.next = self.reply_ready.val();

        // Elements for the quantizer: two bytes each, the sensitivity's memory is read with the first.
        self.channel_now.next = self.next_channel.q.val();
        self.element.next = bit_cast::<16, 8>(self.low_byte.q.val())
            | (bit_cast::<16, 8>(self.body_data.val()) << 8);
        self.element_valid.next =
            self.quantizing.q.val() && self.operand.val() && self.low_there.q.val();
        self.element_taken.next = self.element_valid.val() && self.element_ready.val();
        self.channel.next = self.channel_now.val();
        if self.quantizing.q.val() && self.operand.val() && !self.low_there.q.val() {
            self.low_byte.d.next = self.body_data.val();
            self.low_there.d.next = true;
        }
        self.block_in.next =
            self.element_taken.val() && self.next_channel.q.val().get_bits::<4>(0).all();
        if self.element_taken.val() {
            self.low_there.d.next = false;
            self.next_channel.d.next = self.next_channel.q.val() + 1;
        }
        if self.quantizing.q.val() && self.beginning.q.val() {
            self.next_channel.d.next = self.arguments.q.val().get_bits::<16>(56) << 4;
        }
        self.sensitivity_write.next = self.sensing.q.val() && self.operand.val();
        self.sensitivity_channel.next = self.at.q.val();
        self.sensitivity.next = self.body_data.val();
        if self.sensitivity_write.val() {
            self.at.d.next = self.at.q.val() + 1;
        }

        // The body of the reply: registers, results, or quantized blocks in three chunks.
        self.reply_clear.next = self.start.val() || self.reset.val();
        self.reply_valid.next = self.result_valid.val();
        self.reply_value.next = self.result.val();
        self.reply_bytes.next = ACC_BYTES.to_bits::<4>();
        if self.bf16.val() {
            self.reply_bytes.next = RESULT_BYTES.to_bits::<4>();
        }
        self.quantized_ready.next = false;
        self.block_out.next = false;
        if self.reading.q.val() {
            self.reply_valid.next = self.run.val() && self.last_word.val().any();
            self.reply_value.next = bit_cast::<64, 32>(self.register_value.val());
            self.reply_bytes.next = REGISTER_BYTES.to_bits::<4>();
            if self.run.val() && self.last_word.val().any() && self.reply_ready.val() {
                // Number and how many stand side by side.
                self.arguments.d.next = (bit_cast::<ARGUMENTS, 8>(self.last_word.val() - 1) << 64)
                    | (bit_cast::<ARGUMENTS, 8>(self.register_read.val() + 1) << 56);
            }
        }
        if self.quantizing.q.val() {
            self.reply_valid.next = self.quantized_valid.val();
            self.reply_bytes.next = HALF.to_bits::<4>();
            self.reply_value.next = self.quantized.val().get_bits::<64>(0);
            if self.chunk.q.val() == 1 {
                for n in L..(L + 1) {
                    self.reply_value.next =
                        bit_cast::<64, L>(self.quantized.val().get_bits::<L>(n));
                }
            }
            if self.chunk.q.val() == 2 {
                self.reply_bytes.next = REST.to_bits::<4>();
                for n in L..(L + 1) {
                    self.reply_value.next = bit_cast::<64, SCALE_AND_TAG>(
                        self.quantized.val().get_bits::<SCALE_AND_TAG>(2 * n),
                    );
                }
            }
            if self.quantized_valid.val() && self.reply_ready.val() {
                self.chunk.d.next = self.chunk.q.val() + 1;
                if self.chunk.q.val() == 2 {
                    self.chunk.d.next = 0.into();
                    self.quantized_ready.next = true;
                    self.block_out.next = true;
                    self.word_write.next = true;
                    self.word.next = self.quantized.val();
                    self.at.d.next = self.at.q.val() + 1;
                }
            }
        }
        if self.block_in.val() && !self.block_out.val() {
            self.blocks_inside.d.next = self.blocks_inside.q.val() + 1;
        }
        if self.block_out.val() && !self.block_in.val() {
            self.blocks_inside.d.next = self.blocks_inside.q.val() - 1;
        }

        // A byte of the body is taken as an argument, or by what wants it: the quantizer may let it wait.
        self.body_ready.next = self.arguing.q.val() || self.run.val();
        if self.quantizing.q.val() && self.low_there.q.val() {
            self.body_ready.next = self.element_taken.val();
        }

        // The end: nothing is left of the body, nor on its way.
        if self.run.val() && !self.body_valid.val() && self.reply_ready.val() {
            self.finish.next = (self.reading.q.val() && !self.last_word.val().any())
                || self.writing.q.val()
                || (self.loading.q.val() && !self.unpacker.word_valid.val())
                || (self.multiplying.q.val()
                    && !self.sequencer.busy.val()
                    && !self.tiles_inside.q.val().any())
                || (self.quantizing.q.val() && !self.blocks_inside.q.val().any())
                || self.sensing.q.val();
        }
        if self.finish.val() {
            self.ending.d.next = true;
            if (self.loading.q.val() && self.unpacker.partial.val()) || self.reply_overflow.val() {
                self.refused.d.next = true;
            }
        }
        self.done.next = self.ending.q.val();
        self.status.next = DONE.to_bits::<8>();
        self.reply_length.next = self.reply_place.val();
        if self.refused.q.val() {
            self.status.next = REFUSED.to_bits::<8>();
            self.reply_length.next = 0.into();
        }
        if self.unknown.q.val() {
            self.status.next = UNKNOWN.to_bits::<8>();
            self.reply_length.next = 0.into();
        }
        if self.ending.q.val() {
            self.ending.d.next = false;
            self.reading.d.next = false;
            self.writing.d.next = false;
            self.loading.d.next = false;
            self.multiplying.d.next = false;
            self.quantizing.d.next = false;
            self.sensing.d.next = false;
        }
    }
}
