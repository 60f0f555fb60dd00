//! The engine of a board in plain Rust: byte for byte what `docs/link.md` says, with golden's arithmetic.
//!
//! [`DeviceTwin`] is what the generated hardware is compared with, reply by reply, and what a driver can be tried on without any simulator. It has no time of its own:
//! a command is executed as soon as the reply before it has left, and the counter `BUSY` stays 0.

use std::collections::VecDeque;

use golden::block::{Block, PackedBlock};
use golden::format::{BLOCK, E4m3, Ue4m3};
use golden::mac::Accumulator;
use golden::quantizer::{InputScale, decide, rescale};
use golden::requantize::{OutputScale, requantize};
use half::bf16;
use hdl::board::protocol::{
    ACCUMULATOR_BYTES, BF16_BYTES, COMMAND_HEADER, Deframer, FIRST_COLUMN, ID, MAX_COMMAND,
    MAX_REPLY_BODY, Operation, Received, Status, VERSION, encode, place,
};
use hdl::board::{BoardConfig, BoardConfigError};

/// Commands that wait for their execution at most: halves of the command memory.
const COMMAND_BUFFERS: usize = 2;
/// Most registers that one command reads.
const MOST_REGISTERS: usize = MAX_REPLY_BODY / 4;
/// What a memory holds before it is written: hardware promises nothing, and NaN shows in every result that depends on it.
const UNWRITTEN: Block = Block::Fp8 {
    elements: [E4m3::NAN; BLOCK],
};

/// Counters that the registers show; they wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwinCounters {
    /// `FRAMES`: commands executed.
    pub frames: u32,
    /// `DAMAGED`: frames that were none.
    pub damaged: u32,
    /// `REFUSED`: intact frames that were not executed.
    pub refused: u32,
    /// `STEPS`: steps of the array.
    pub steps: u32,
}

/// The engine of a board.
#[derive(Clone, Debug)]
pub struct DeviceTwin {
    config: BoardConfig,
    line: Deframer,
    waiting: VecDeque<Vec<u8>>,
    /// A damaged frame has not been answered yet. However many came in the meantime, one reply answers them.
    damaged: bool,
    /// Likewise for frames that found no place to wait.
    overrun: bool,
    sending: VecDeque<u8>,
    /// 0 while none is open.
    session: u8,
    expected: u8,
    /// Reply of the last executed command.
    last: (Status, Vec<u8>),
    counters: TwinCounters,
    output_scale: u32,
    input_scale: u32,
    threshold: u64,
    /// By row.
    weights: Vec<Vec<Block>>,
    /// By column.
    acts: Vec<Vec<Block>>,
    /// By channel.
    sensitivities: Vec<Ue4m3>,
}

impl DeviceTwin {
    /// The engine after its reset.
    ///
    /// # Errors
    /// The configuration is out of range.
    pub fn new(config: BoardConfig) -> Result<Self, BoardConfigError> {
        let config = config.validate()?;
        let array = config.array;
        Ok(Self {
            config,
            line: Deframer::new(MAX_COMMAND),
            waiting: VecDeque::new(),
            damaged: false,
            overrun: false,
            sending: VecDeque::new(),
            session: 0,
            expected: 0,
            last: (Status::Done, Vec::new()),
            counters: TwinCounters::default(),
            output_scale: 0,
            input_scale: 0,
            threshold: 0,
            weights: vec![vec![UNWRITTEN; array.weight_blocks]; array.rows],
            acts: vec![vec![UNWRITTEN; array.act_blocks]; array.cols],
            sensitivities: vec![Ue4m3::ZERO; config.channels()],
        })
    }

    /// What it is the twin of.
    #[must_use]
    pub const fn config(&self) -> &BoardConfig {
        &self.config
    }

    /// The counters, as the registers show them.
    #[must_use]
    pub const fn counters(&self) -> TwinCounters {
        self.counters
    }

    /// The reset button: sessions, counters, memories and what is under way are lost.
    pub fn reset(&mut self) {
        if let Ok(fresh) = Self::new(self.config) {
            *self = fresh;
        }
    }

    /// Takes a byte from the line.
    pub fn receive(&mut self, byte: u8) {
        match self.line.push(byte) {
            None => {}
            Some(Received::Frame(content)) if content.len() >= COMMAND_HEADER => {
                if self.waiting.len() < COMMAND_BUFFERS {
                    self.waiting.push_back(content);
                } else {
                    self.overrun = true;
                    self.counters.refused = self.counters.refused.wrapping_add(1);
                }
            }
            Some(_) => {
                self.damaged = true;
                self.counters.damaged = self.counters.damaged.wrapping_add(1);
            }
        }
        self.advance();
    }

    /// The line had no stop bit where one was due.
    pub fn framing_error(&mut self) {
        self.line.damage();
    }

    /// Gives a byte to the line; `None` if there is nothing to say.
    pub fn transmit(&mut self) -> Option<u8> {
        let byte = self.sending.pop_front();
        self.advance();
        byte
    }

    /// Whether no byte waits to be given to the line.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.sending.is_empty()
    }

    /// Executes while the sender is free: commands first, then what tells of frames that were none.
    fn advance(&mut self) {
        while self.sending.is_empty() {
            if let Some(command) = self.waiting.pop_front() {
                self.execute(&command);
            } else if std::mem::take(&mut self.damaged) {
                self.reply(self.expected, Status::Damaged, &[]);
            } else if std::mem::take(&mut self.overrun) {
                self.reply(self.expected, Status::Overrun, &[]);
            } else {
                break;
            }
        }
    }

    fn reply(&mut self, sequence: u8, status: Status, body: &[u8]) {
        let mut content = vec![self.session, sequence, status as u8, self.expected];
        content.extend_from_slice(body);
        self.sending.extend(encode(&content));
    }

    /// An intact frame that is not executed.
    fn refuse(&mut self, sequence: u8, status: Status) {
        self.counters.refused = self.counters.refused.wrapping_add(1);
        self.reply(sequence, status, &[]);
    }

    fn execute(&mut self, command: &[u8]) {
        let &[session, sequence, operation, ref body @ ..] = command else {
            return;
        };
        let operation = Operation::from_code(operation);
        if operation == Some(Operation::Open) {
            if session == 0 {
                self.refuse(sequence, Status::Closed);
            } else if !body.is_empty() {
                self.refuse(sequence, Status::Refused);
            } else if session == self.session {
                self.refuse(sequence, Status::Done);
            } else {
                self.session = session;
                self.finish(sequence, Status::Done, Vec::new());
            }
        } else if self.session == 0 || session != self.session {
            self.refuse(sequence, Status::Closed);
        } else if sequence == self.expected {
            let (status, body) = match operation {
                Some(operation) => match self.operate(operation, body) {
                    Ok(body) => (Status::Done, body),
                    Err(status) => (status, Vec::new()),
                },
                None => (Status::Unknown, Vec::new()),
            };
            self.finish(sequence, status, body);
        } else if sequence == self.expected.wrapping_sub(1) {
            self.counters.refused = self.counters.refused.wrapping_add(1);
            let (status, body) = std::mem::replace(&mut self.last, (Status::Done, Vec::new()));
            self.reply(sequence, status, &body);
            self.last = (status, body);
        } else {
            self.refuse(sequence, Status::OutOfOrder);
        }
    }

    /// Counts a command as executed, and answers it.
    fn finish(&mut self, sequence: u8, status: Status, body: Vec<u8>) {
        self.expected = sequence.wrapping_add(1);
        self.counters.frames = self.counters.frames.wrapping_add(1);
        self.reply(sequence, status, &body);
        self.last = (status, body);
    }

    fn operate(&mut self, operation: Operation, body: &[u8]) -> Result<Vec<u8>, Status> {
        match operation {
            // Not executed here: it does not have to be in order.
            Operation::Open => Err(Status::Refused),
            Operation::ReadRegisters => self.read_registers(body),
            Operation::WriteRegisters => self.write_registers(body),
            Operation::LoadBlocks => self.load_blocks(body),
            Operation::Multiply => self.multiply(body),
            Operation::LoadElements if self.config.quantizer => self.load_elements(body),
            Operation::LoadSensitivities if self.config.quantizer => self.load_sensitivities(body),
            Operation::LoadElements | Operation::LoadSensitivities => Err(Status::Unknown),
        }
    }

    fn register(&self, number: u8) -> u32 {
        let array = &self.config.array;
        let flag = |flag: bool, bit: u32| u32::from(flag) << bit;
        match usize::from(number) {
            place::ID => ID,
            place::VERSION => VERSION,
            place::ARRAY => {
                array.rows as u32
                    | (array.cols as u32) << 8
                    | flag(self.config.requantizer, 16)
                    | flag(self.config.quantizer, 17)
                    | flag(array.lanes < BLOCK, 18)
                    | (array.acc_bits() as u32) << 24
            }
            place::MEMORY => array.weight_blocks as u32 | (array.act_blocks as u32) << 16,
            place::LINE => self.config.clocks_per_bit as u32,
            place::FRAMES => self.counters.frames,
            place::DAMAGED => self.counters.damaged,
            place::REFUSED => self.counters.refused,
            place::STEPS => self.counters.steps,
            place::OUTPUT_SCALE => self.output_scale,
            place::INPUT_SCALE => self.input_scale,
            place::THRESHOLD_LOW => self.threshold as u32,
            place::THRESHOLD_HIGH => (self.threshold >> 32) as u32,
            _ => 0,
        }
    }

    fn read_registers(&self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let &[first, number] = body else {
            return Err(Status::Refused);
        };
        if usize::from(number) > MOST_REGISTERS {
            return Err(Status::Refused);
        }
        Ok((0..number)
            .flat_map(|offset| self.register(first.wrapping_add(offset)).to_le_bytes())
            .collect())
    }

    fn write_registers(&mut self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let (&first, values) = body.split_first().ok_or(Status::Refused)?;
        let (values, rest) = values.as_chunks::<4>();
        complete(rest)?;
        for (offset, &value) in values.iter().enumerate() {
            let value = u32::from_le_bytes(value);
            let number = first.wrapping_add(offset as u8);
            let (requantizer, quantizer) = (self.config.requantizer, self.config.quantizer);
            match usize::from(number) {
                place::OUTPUT_SCALE if requantizer => self.output_scale = value,
                place::INPUT_SCALE if quantizer => self.input_scale = value,
                place::THRESHOLD_LOW if quantizer => {
                    self.threshold = self.threshold >> 32 << 32 | u64::from(value);
                }
                place::THRESHOLD_HIGH if quantizer => {
                    self.threshold = u64::from(self.threshold as u32) | u64::from(value) << 32;
                }
                _ => {}
            }
        }
        Ok(Vec::new())
    }

    /// The memory of a row or a column.
    fn memory(&mut self, unit: u8) -> Option<&mut Vec<Block>> {
        match unit.checked_sub(FIRST_COLUMN) {
            Some(column) => self.acts.get_mut(usize::from(column)),
            None => self.weights.get_mut(usize::from(unit)),
        }
    }

    fn load_blocks(&mut self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let &[unit, low, high, ref groups @ ..] = body else {
            return Err(Status::Refused);
        };
        let memory = self.memory(unit).ok_or(Status::Refused)?;
        let mut address = usize::from(u16::from_le_bytes([low, high]));
        let mut rest = groups;
        while let Some((&tags, blocks)) = rest.split_first() {
            rest = blocks;
            for place in 0..8 {
                let fp8 = tags >> place & 1 == 1;
                let length = if fp8 { BLOCK } else { 1 + BLOCK / 2 };
                let Some((bytes, behind)) = rest.split_at_checked(length) else {
                    return complete(rest);
                };
                rest = behind;
                let depth = memory.len();
                if let Some(word) = memory.get_mut(address % depth) {
                    *word = block_of(fp8, bytes);
                }
                address += 1;
            }
        }
        Ok(Vec::new())
    }

    fn multiply(&mut self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let &[w0, w1, a0, a1, k0, k1, weight_tiles, act_tiles, form] = body else {
            return Err(Status::Refused);
        };
        let bf16_results = form & 1 == 1;
        let blocks = usize::from(u16::from_le_bytes([k0, k1]));
        let (rows, cols) = (self.config.array.rows, self.config.array.cols);
        let tiles = usize::from(weight_tiles) * usize::from(act_tiles);
        let bytes = if bf16_results {
            BF16_BYTES
        } else {
            ACCUMULATOR_BYTES
        };
        if blocks == 0 || tiles == 0 || (bf16_results && !self.config.requantizer) {
            return Err(Status::Refused);
        }
        let steps = (tiles * blocks * (BLOCK / self.config.array.lanes)) as u32;
        self.counters.steps = self.counters.steps.wrapping_add(steps);
        // Hardware finds out when the reply is full.
        if tiles * rows * cols * bytes > MAX_REPLY_BODY {
            return Err(Status::Refused);
        }
        let start = |low, high, tile: u8| {
            usize::from(u16::from_le_bytes([low, high])) + usize::from(tile) * blocks
        };
        let mut results = Vec::with_capacity(tiles * rows * cols * bytes);
        for weight_tile in 0..weight_tiles {
            for act_tile in 0..act_tiles {
                for acts in &self.acts {
                    for weights in &self.weights {
                        let row = wrapping(weights, start(w0, w1, weight_tile), blocks);
                        let column = wrapping(acts, start(a0, a1, act_tile), blocks);
                        let mut sum = Accumulator::new();
                        for (w, a) in row.zip(column) {
                            sum.add(w, a);
                        }
                        let spare = 128 - self.config.array.acc_bits();
                        let value = sum.value() << spare >> spare;
                        if bf16_results {
                            let result = requantize(value, sum.is_nan(), self.output_scale());
                            results.extend(result.to_bits().to_le_bytes());
                        } else {
                            let value = if sum.is_nan() { i64::MIN } else { value as i64 };
                            results.extend(value.to_le_bytes());
                        }
                    }
                }
            }
        }
        Ok(results)
    }

    /// What it is outside the range of multipliers is not specified; here it counts as 0.
    fn output_scale(&self) -> OutputScale {
        OutputScale::new(f32::from_bits(self.output_scale))
            .or_else(|_| OutputScale::new(0.0))
            .unwrap_or(OutputScale::ONE)
    }

    /// As [`Self::output_scale`].
    fn input_scale(&self) -> InputScale {
        InputScale::new(f32::from_bits(self.input_scale))
            .or_else(|_| InputScale::new(0.0))
            .unwrap_or(InputScale::ONE)
    }

    fn load_elements(&mut self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let &[unit, a0, a1, b0, b1, ref elements @ ..] = body else {
            return Err(Status::Refused);
        };
        if unit < FIRST_COLUMN || self.memory(unit).is_none() {
            return Err(Status::Refused);
        }
        let address = usize::from(u16::from_le_bytes([a0, a1]));
        let first = usize::from(u16::from_le_bytes([b0, b1]));
        let (blocks, rest) = elements.as_chunks::<{ BF16_BYTES * BLOCK }>();
        complete(rest)?;
        let mut reply = Vec::new();
        for (offset, bytes) in blocks.iter().enumerate() {
            let channels = self.sensitivities.len();
            let x: [bf16; BLOCK] = std::array::from_fn(|i| {
                bf16::from_bits(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))
            });
            let z = x.map(|x| rescale(x, self.input_scale()));
            let sensitivity = std::array::from_fn(|i| {
                self.sensitivities[((first + offset) * BLOCK + i) % channels]
            });
            let block = decide(&z, &sensitivity, self.threshold).block;
            let packed = block.pack();
            reply.extend(packed.payload.to_le_bytes());
            reply.extend([packed.scale, u8::from(packed.tag)]);
            if let Some(memory) = self.memory(unit) {
                let depth = memory.len();
                if let Some(word) = memory.get_mut((address + offset) % depth) {
                    *word = block;
                }
            }
        }
        Ok(reply)
    }

    fn load_sensitivities(&mut self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let &[low, high, ref codes @ ..] = body else {
            return Err(Status::Refused);
        };
        let first = usize::from(u16::from_le_bytes([low, high]));
        let channels = self.sensitivities.len();
        for (offset, &code) in codes.iter().enumerate() {
            if let Some(place) = self.sensitivities.get_mut((first + offset) % channels) {
                *place = scale_of(code);
            }
        }
        Ok(Vec::new())
    }
}

/// No body if nothing is left over.
fn complete(rest: &[u8]) -> Result<Vec<u8>, Status> {
    if rest.is_empty() {
        Ok(Vec::new())
    } else {
        Err(Status::Refused)
    }
}

/// `count` words from `start` on, addresses modulo the memory's depth.
fn wrapping(memory: &[Block], start: usize, count: usize) -> impl Iterator<Item = &Block> {
    let (before, from) = memory.split_at(start % memory.len());
    from.iter().chain(before).cycle().take(count)
}

/// What a code above 0x7E is, is not specified; here it loses its sign, and the NaN code counts as the largest.
fn scale_of(code: u8) -> Ue4m3 {
    Ue4m3::from_bits(code & 0x7F).unwrap_or(Ue4m3::MAX)
}

fn block_of(fp8: bool, bytes: &[u8]) -> Block {
    let payload = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0u128, |word, &byte| word << 8 | u128::from(byte))
    };
    let packed = match bytes.split_first() {
        Some((&scale, elements)) if !fp8 => PackedBlock {
            tag: false,
            scale: scale_of(scale).to_bits(),
            payload: payload(elements),
        },
        _ => PackedBlock {
            tag: true,
            scale: 0,
            payload: payload(bytes),
        },
    };
    // Tag, scale and width are right by construction.
    Block::unpack(&packed).unwrap_or(UNWRITTEN)
}
