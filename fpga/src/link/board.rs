//! A board as a machine that multiplies.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use golden::block::{BlockError, PackedBlock};
use golden::format::{BLOCK, Ue4m3};
use golden::mac::{Accumulator, Mode, PAIR_BITS};
use golden::packed::{PackedError, PackedTensor};
use golden::quantizer::{ActivationQuantizer, InputScale, decide, rescale};
use golden::requantize::{OutputScale, requantize};
use half::bf16;
use hdl::board::protocol::{
    ACCUMULATOR_BYTES, BF16_BYTES, BLOCK_BYTES, FIRST_COLUMN, ID, MAX_COMMAND_BODY, MAX_REPLY_BODY,
    Operation, VERSION, place,
};

use super::plan::{Geometry, Memory, Operand, Pass, Plan, Shape, Source, Task, plan};
use super::session::{LinkError, LinkOptions, Session, Statistics};
use super::transport::Transport;

/// Bytes before the groups of a `LoadBlocks`.
const LOAD_HEADER: usize = 3;
/// Bytes before the elements of a `LoadElements`.
const ELEMENTS_HEADER: usize = 5;
/// Most blocks of a `LoadElements`.
const MOST_ELEMENT_BLOCKS: usize = (MAX_COMMAND_BODY - ELEMENTS_HEADER) / (BF16_BYTES * BLOCK);
/// Most codes of a `LoadSensitivities`.
const MOST_SENSITIVITIES: usize = MAX_COMMAND_BODY - 2;
/// What an accumulator reads whose sum met a NaN.
const NAN: i64 = i64::MIN;

/// How a board is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The session's patience.
    pub link: LinkOptions,
    /// How often a reset board or a closed port is begun anew without anything being done in between, before it is given up.
    pub recoveries: u32,
    /// Pause before a port is opened again.
    pub pause: Duration,
    /// Let the board quantize, if it can.
    pub quantizer: bool,
    /// Let the board requantize, if it can.
    pub requantizer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            link: LinkOptions::default(),
            recoveries: 20,
            pause: Duration::from_millis(500),
            quantizer: true,
            requantizer: true,
        }
    }
}

/// What the registers say of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the protocol, major and minor.
    pub version: (u16, u16),
    /// Rows of the array.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Whether results can be BF16.
    pub requantizer: bool,
    /// Whether activations can be BF16.
    pub quantizer: bool,
    /// Whether the array has eight lanes and takes a block in two steps.
    pub halves: bool,
    /// Bits of an accumulator.
    pub acc_bits: u32,
    /// Blocks of a row's memory.
    pub weight_blocks: usize,
    /// Blocks of a column's memory.
    pub act_blocks: usize,
    /// Clock cycles of a bit on the line.
    pub clocks_per_bit: usize,
}

impl Identity {
    /// What the plans need to know.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        Geometry {
            rows: self.rows,
            cols: self.cols,
            weight_blocks: self.weight_blocks,
            act_blocks: self.act_blocks,
            sum_blocks: 1 << (self.acc_bits - PAIR_BITS),
        }
    }

    fn of_registers(registers: &[u32]) -> Result<Self, BoardError> {
        let register = |place: usize| registers.get(place).copied().unwrap_or_default();
        if register(place::ID) != ID {
            return Err(BoardError::Foreign(register(place::ID)));
        }
        let version = register(place::VERSION);
        if version >> 16 != VERSION >> 16 {
            return Err(BoardError::Version {
                found: (version >> 16) as u16,
                known: (VERSION >> 16) as u16,
            });
        }
        let (array, memory) = (register(place::ARRAY), register(place::MEMORY));
        let byte = |shift: u32| (array >> shift & 0xFF) as usize;
        let identity = Self {
            version: ((version >> 16) as u16, version as u16),
            rows: byte(0),
            cols: byte(8),
            requantizer: array >> 16 & 1 == 1,
            quantizer: array >> 17 & 1 == 1,
            halves: array >> 18 & 1 == 1,
            acc_bits: array >> 24,
            weight_blocks: (memory & 0xFFFF) as usize,
            act_blocks: (memory >> 16) as usize,
            clocks_per_bit: (register(place::LINE) & 0xFFFF) as usize,
        };
        let results = identity.rows * identity.cols;
        if results == 0
            || results * ACCUMULATOR_BYTES > MAX_REPLY_BODY
            || !(PAIR_BITS..=64).contains(&identity.acc_bits)
            || identity.weight_blocks == 0
            || identity.act_blocks == 0
        {
            return Err(BoardError::Implausible(identity));
        }
        Ok(identity)
    }
}

/// The board's counters since its reset; they wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands executed.
    pub frames: u32,
    /// Damaged frames.
    pub damaged: u32,
    /// Intact frames that were not executed.
    pub refused: u32,
    /// Cycles in which a command was executed.
    pub busy: u32,
    /// Steps of the array.
    pub steps: u32,
}

/// Why a board does not multiply.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It came back too often without getting anything done.
    #[error("given up after {attempts} new beginnings in a row: {last}")]
    GivenUp {
        /// How many.
        attempts: u32,
        /// The last reason.
        last: LinkError,
    },
    /// Its first register isn't that of this project.
    #[error("the board's ID is {0:#010x}, not {ID:#010x}: another design is on it")]
    Foreign(u32),
    /// Its protocol is another one.
    #[error(
        "the board speaks version {found} of the protocol, this program version {known}: build its bitstream anew"
    )]
    Version {
        /// The board's.
        found: u16,
        /// This program's.
        known: u16,
    },
    /// Its registers contradict the protocol.
    #[error("the board's registers say what no board is: {0:?}")]
    Implausible(Identity),
    /// Another board answers after a new beginning.
    #[error("another board answers: {found:?} instead of {expected:?}")]
    Changed {
        /// Before.
        expected: Box<Identity>,
        /// Now.
        found: Box<Identity>,
    },
    /// Weights and activations don't fit.
    #[error("weights of {weights} blocks a row don't fit activations of {activations}")]
    Shape {
        /// Blocks of a weight row.
        weights: usize,
        /// Blocks of an activation row.
        activations: usize,
    },
    /// A key that [`Board::keep`] didn't give, or not the last time.
    #[error("these weights are not kept on the board")]
    UnknownKey,
    /// As many scales as weights are needed.
    #[error("{weights} products need as many scales, {scales} were given")]
    Scales {
        /// Tensors of weights.
        weights: usize,
        /// Scales.
        scales: usize,
    },
    /// Elements that are not whole rows, or none.
    #[error(transparent)]
    Elements(#[from] PackedError),
    /// The board's quantizer gave another block than the golden model's.
    #[error(
        "the board quantizes token {token}, block {block} to {found:?}, and the golden model to {expected:?}"
    )]
    Quantizer {
        /// Row of the activations.
        token: usize,
        /// Block of the row.
        block: usize,
        /// The board's.
        found: PackedBlock,
        /// The golden model's.
        expected: PackedBlock,
    },
    /// The board's quantizer gave a block that is none.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Weights that [`Board::keep`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightKey(usize);

/// Weights of a product.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Those that [`Board::keep`] was given: what fits is sent once.
    Kept(WeightKey),
    /// Any: sent for this product.
    Once(&'a PackedTensor),
}

/// Activations of a product.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// Quantized.
    Packed(&'a PackedTensor),
    /// BF16 rows, quantized by the board if it can, else here: the same bits.
    Elements {
        /// Rows of as many elements as the quantizer has channels.
        x: &'a [bf16],
        /// Scale, sensitivities, threshold.
        quantizer: &'a ActivationQuantizer,
    },
}

/// Results of one product, row-major, a row for each token.
#[derive(Clone, Debug, PartialEq)]
pub enum Product {
    /// Exact.
    Accumulators(Vec<Accumulator>),
    /// Requantized.
    Bf16(Vec<bf16>),
}

/// Block pairs multiplied, in the order of [`Mode::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts(pub [u64; 4]);

impl PairCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those of `rows` × `tokens`, all of the same K.
    fn count(&mut self, weights: &[PackedBlock], acts: &[PackedBlock], blocks: usize) {
        let by_column = |all: &[PackedBlock]| {
            let mut tags = vec![[0u64; 2]; blocks];
            for row in all.chunks(blocks.max(1)) {
                for (tags, block) in tags.iter_mut().zip(row) {
                    tags[usize::from(block.tag)] += 1;
                }
            }
            tags
        };
        for (w, a) in by_column(weights).iter().zip(by_column(acts)) {
            for (count, mode) in self.0.iter_mut().zip(Mode::ALL) {
                let [weight, act] = mode.tags();
                *count += w[usize::from(weight)] * a[usize::from(act)];
            }
        }
    }
}

/// Weights with what of them is on the board.
struct Kept {
    shape: Shape,
    blocks: Vec<PackedBlock>,
    /// (chunk, row group) of those that are there.
    there: BTreeSet<(usize, usize)>,
}

/// What the board's memories and registers hold. A reset forgets it.
#[derive(Default)]
struct Contents {
    /// Pass of the activations.
    acts: Option<usize>,
    /// Pass, weights and row groups of the scratch region.
    scratch: Option<(usize, usize, Range<usize>)>,
    output_scale: Option<u32>,
    input: Option<(u32, u64)>,
    sensitivities: Option<Vec<Ue4m3>>,
}

/// What a product's activations are sent as.
struct Sent<'a> {
    blocks: Vec<PackedBlock>,
    elements: Option<(&'a [bf16], &'a ActivationQuantizer)>,
}

/// A product under way.
struct Job<'a> {
    plan: Plan,
    /// Shape and blocks of weights that are not kept.
    shapes: Vec<Shape>,
    once: Vec<Option<Vec<PackedBlock>>>,
    weights: &'a [Weights<'a>],
    acts: Sent<'a>,
    blocks: usize,
    scales: Option<&'a [OutputScale]>,
    /// By weights: sums in units of 2⁻²⁰ and NaN flags, or BF16 results.
    sums: Vec<Vec<(i128, bool)>>,
    results: Vec<Vec<bf16>>,
}

/// A board that is connected.
///
/// Products survive resets of the board and pulled cables: what was in its memories is sent again, and the product goes on behind the last result that came.
pub struct Board<T> {
    session: Session<T>,
    options: Options,
    identity: Identity,
    memory: Memory,
    kept: Vec<Kept>,
    contents: Contents,
    pairs: PairCounts,
    recoveries: u64,
}

impl<T: Transport> Board<T> {
    /// Opens a session and reads what the board is.
    ///
    /// # Errors
    /// It doesn't answer, or is none of this project's, or speaks another version of the protocol.
    pub fn connect(transport: T, options: Options) -> Result<Self, BoardError> {
        let mut session = Session::new(transport, options.link);
        let mut attempts = 0;
        let identity = loop {
            match session
                .open()
                .map_err(BoardError::from)
                .and_then(|()| identify(&mut session))
            {
                Ok(identity) => break identity,
                // A line that worked and was lost comes back; one that never answered is another matter.
                Err(BoardError::Link(
                    error @ (LinkError::Transport(_) | LinkError::BoardReset),
                )) if attempts < options.recoveries => {
                    attempts += 1;
                    if matches!(error, LinkError::Transport(_)) {
                        std::thread::sleep(options.pause);
                        if let Err(error) = session.reopen()
                            && attempts == options.recoveries
                        {
                            return Err(error.into());
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self {
            session,
            options,
            identity,
            memory: Memory::scratch_only(identity.geometry()),
            kept: Vec::new(),
            contents: Contents::default(),
            pairs: PairCounts::default(),
            recoveries: 0,
        })
    }

    /// What the board is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What went over the line.
    pub const fn statistics(&self) -> &Statistics {
        self.session.statistics()
    }

    /// Block pairs of the products, by mode.
    pub const fn pairs(&self) -> PairCounts {
        self.pairs
    }

    /// Resets of the board and openings of the port that products survived.
    pub const fn recoveries(&self) -> u64 {
        self.recoveries
    }

    /// The line.
    pub const fn transport(&self) -> &T {
        self.session.transport()
    }

    /// The line, to do something to it.
    pub const fn transport_mut(&mut self) -> &mut T {
        self.session.transport_mut()
    }

    /// Reads the registers that say what the board is.
    ///
    /// # Errors
    /// It doesn't answer, or is none that can be used.
    pub fn identify(&mut self) -> Result<Identity, BoardError> {
        identify(&mut self.session)
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The board doesn't answer.
    pub fn counters(&mut self) -> Result<Counters, BoardError> {
        let registers = self.persistently(|board| {
            Ok(read_registers(
                &mut board.session,
                place::FRAMES,
                place::STEPS - place::FRAMES + 1,
            )?)
        })?;
        let register = |number: usize| {
            registers
                .get(number - place::FRAMES)
                .copied()
                .unwrap_or_default()
        };
        Ok(Counters {
            frames: register(place::FRAMES),
            damaged: register(place::DAMAGED),
            refused: register(place::REFUSED),
            busy: register(place::BUSY),
            steps: register(place::STEPS),
        })
    }

    /// Writes blocks to the memory of a row, or of a column (0x80 + its number), addresses modulo its depth.
    ///
    /// What products had put into memories counts as lost.
    ///
    /// # Errors
    /// There is no such row or column, or the link fails.
    pub fn load_blocks(
        &mut self,
        unit: u8,
        address: u16,
        blocks: &[PackedBlock],
    ) -> Result<(), BoardError> {
        self.forget();
        self.post_blocks(unit, address.into(), blocks.iter())?;
        Ok(self.session.flush()?)
    }

    /// Writes channels' sensitivities from the channel `first` on.
    ///
    /// # Errors
    /// The board has no quantizer, or the link fails.
    pub fn load_sensitivities(&mut self, first: u16, codes: &[Ue4m3]) -> Result<(), BoardError> {
        self.forget();
        self.post_sensitivities(first.into(), codes)?;
        Ok(self.session.flush()?)
    }

    /// Quantizes blocks of elements into the memory of a column, with the scale, threshold and sensitivities that were written. `first` is the number of the first block
    /// within its row. Returns what they became.
    ///
    /// # Errors
    /// The board has no quantizer or no such column, or the link fails.
    pub fn load_elements(
        &mut self,
        column: u8,
        address: u16,
        first: u16,
        x: &[[bf16; BLOCK]],
    ) -> Result<Vec<PackedBlock>, BoardError> {
        self.forget();
        let elements: Vec<bf16> = x.iter().flatten().copied().collect();
        Ok(self.call_elements(column.into(), address.into(), first.into(), &elements)?)
    }

    /// Sets scale and threshold of the board's quantizer.
    ///
    /// # Errors
    /// The link fails.
    pub fn set_input(&mut self, scale: InputScale, threshold: u64) -> Result<(), BoardError> {
        self.post_input(scale, threshold)?;
        Ok(self.session.flush()?)
    }

    /// Sets the scale of BF16 results.
    ///
    /// # Errors
    /// The link fails.
    pub fn set_output_scale(&mut self, scale: OutputScale) -> Result<(), BoardError> {
        self.post_output_scale(scale)?;
        Ok(self.session.flush()?)
    }

    /// One multiplication of what lies in the memories, as the protocol has it: the bytes of the results.
    ///
    /// # Errors
    /// The results don't fit a reply, or the link fails.
    pub fn multiply(
        &mut self,
        weights: u16,
        activations: u16,
        blocks: u16,
        tiles: [u8; 2],
        bf16: bool,
    ) -> Result<Vec<u8>, BoardError> {
        Ok(self.call_multiply(
            weights.into(),
            activations.into(),
            blocks.into(),
            tiles.map(usize::from),
            bf16,
        )?)
    }

    /// Keeps weights on the board, as many row groups of each as fit, first come: they are sent when they are first needed and not again. Weights that were kept before are
    /// kept no longer. The tensors are copied, so that they can be sent again after a reset.
    pub fn keep<'w>(
        &mut self,
        tensors: impl IntoIterator<Item = &'w PackedTensor>,
    ) -> Vec<WeightKey> {
        self.forget();
        self.kept = tensors
            .into_iter()
            .map(|tensor| Kept {
                shape: shape_of(tensor),
                blocks: tensor.packed_blocks().collect(),
                there: BTreeSet::new(),
            })
            .collect();
        let shapes: Vec<Shape> = self.kept.iter().map(|it| it.shape).collect();
        let geometry = self.identity.geometry();
        self.memory = if shapes.is_empty() {
            Memory::scratch_only(geometry)
        } else {
            Memory::keeping(geometry, &shapes)
        };
        (0..self.kept.len()).map(WeightKey).collect()
    }

    /// How the rows' memories are used.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Share of kept weights' rows that stay on the board.
    ///
    /// # Errors
    /// The key is none.
    pub fn resident_share(&self, key: WeightKey) -> Result<f64, BoardError> {
        let (kept, placement) = self
            .kept
            .get(key.0)
            .zip(self.memory.placements.get(key.0))
            .ok_or(BoardError::UnknownKey)?;
        Ok(placement.groups as f64 / kept.shape.groups(self.identity.rows).max(1) as f64)
    }

    /// Y = A · Wᵀ exactly: an accumulator for each token and weight row, a row for each token.
    ///
    /// # Errors
    /// K differs, or the board can't be used any more.
    pub fn gemm(
        &mut self,
        weights: Weights<'_>,
        activations: Activations<'_>,
    ) -> Result<Vec<Accumulator>, BoardError> {
        match self.products(&[weights], activations, None)?.pop() {
            Some(Product::Accumulators(accumulators)) => Ok(accumulators),
            _ => Ok(Vec::new()),
        }
    }

    /// Y = A · Wᵀ, requantized with `scale`.
    ///
    /// # Errors
    /// As [`Self::gemm`].
    pub fn gemm_bf16(
        &mut self,
        weights: Weights<'_>,
        activations: Activations<'_>,
        scale: OutputScale,
    ) -> Result<Vec<bf16>, BoardError> {
        match self
            .products(&[weights], activations, Some(&[scale]))?
            .pop()
        {
            Some(Product::Bf16(results)) => Ok(results),
            _ => Ok(Vec::new()),
        }
    }

    /// Several products with the same activations, which are sent once. With scales, one for each tensor of weights, results are BF16.
    ///
    /// # Errors
    /// As [`Self::gemm`].
    pub fn products(
        &mut self,
        weights: &[Weights<'_>],
        activations: Activations<'_>,
        scales: Option<&[OutputScale]>,
    ) -> Result<Vec<Product>, BoardError> {
        if let Some(scales) = scales
            && scales.len() != weights.len()
        {
            return Err(BoardError::Scales {
                weights: weights.len(),
                scales: scales.len(),
            });
        }
        let mut job = self.job(weights, activations, scales)?;
        self.contents.acts = None;
        self.contents.scratch = None;
        let mut next = 0;
        while next < job.plan.tasks.len() {
            // Behind each task its results are here, so that a new beginning goes on with the next one.
            self.persistently(|board| board.execute(&mut job, next))?;
            next += 1;
        }
        for (index, weights) in weights.iter().enumerate() {
            let blocks = match (weights, &job.once[index]) {
                (Weights::Kept(key), _) => self.kept.get(key.0).map(|it| &it.blocks),
                (Weights::Once(_), once) => once.as_ref(),
            };
            if let Some(blocks) = blocks {
                self.pairs.count(blocks, &job.acts.blocks, job.blocks);
            }
        }
        Ok(job.finish())
    }

    fn job<'a>(
        &self,
        weights: &'a [Weights<'a>],
        activations: Activations<'a>,
        scales: Option<&'a [OutputScale]>,
    ) -> Result<Job<'a>, BoardError> {
        let (acts, tokens, blocks) = match activations {
            Activations::Packed(tensor) => (
                Sent {
                    blocks: tensor.packed_blocks().collect(),
                    elements: None,
                },
                tensor.rows(),
                tensor.row_blocks(),
            ),
            Activations::Elements { x, quantizer } => self.elements(x, quantizer)?,
        };
        let mut shapes = Vec::new();
        let mut operands = Vec::new();
        let mut once = Vec::new();
        for weights in weights {
            let (shape, placement, copy) = match weights {
                Weights::Kept(key) => {
                    let kept = self.kept.get(key.0).ok_or(BoardError::UnknownKey)?;
                    (kept.shape, self.memory.placements.get(key.0), None)
                }
                Weights::Once(tensor) => (
                    shape_of(tensor),
                    None,
                    Some(tensor.packed_blocks().collect()),
                ),
            };
            if shape.blocks != blocks {
                return Err(BoardError::Shape {
                    weights: shape.blocks,
                    activations: blocks,
                });
            }
            shapes.push(shape);
            operands.push(Operand { shape, placement });
            once.push(copy);
        }
        let bf16 = scales.is_some() && self.identity.requantizer && self.options.requantizer;
        let plan = plan(&self.memory, &operands, blocks, tokens, bf16);
        let results = |shape: &Shape| shape.features * tokens;
        let (sums, bf16) = if plan.bf16 {
            (
                Vec::new(),
                shapes
                    .iter()
                    .map(|it| vec![bf16::ZERO; results(it)])
                    .collect(),
            )
        } else {
            (
                shapes
                    .iter()
                    .map(|it| vec![(0, false); results(it)])
                    .collect(),
                Vec::new(),
            )
        };
        Ok(Job {
            plan,
            shapes,
            once,
            weights,
            acts,
            blocks,
            scales,
            sums,
            results: bf16,
        })
    }

    /// What elements become, and whether the board is to make it of them.
    fn elements<'a>(
        &self,
        x: &'a [bf16],
        quantizer: &'a ActivationQuantizer,
    ) -> Result<(Sent<'a>, usize, usize), BoardError> {
        let channels = quantizer.channels();
        if channels == 0 || x.is_empty() || !x.len().is_multiple_of(channels) {
            return Err(PackedError::Shape(vec![x.len(), channels]).into());
        }
        let on_board = self.identity.quantizer
            && self.options.quantizer
            // Beyond that the sensitivities would overwrite one another.
            && quantizer.padded() <= self.identity.weight_blocks * BLOCK;
        let mut sensitivity = quantizer.sensitivity().codes.clone();
        sensitivity.resize(quantizer.padded(), Ue4m3::ZERO);
        let mut blocks = Vec::new();
        for row in x.chunks_exact(channels) {
            if !on_board {
                blocks.extend(quantizer.blocks(row).map(|block| block.pack()));
                continue;
            }
            // What the board makes of a policy is its threshold.
            let mut padded = row.to_vec();
            padded.resize(quantizer.padded(), bf16::ZERO);
            let (x, _) = padded.as_chunks::<BLOCK>();
            let (f, _) = sensitivity.as_chunks::<BLOCK>();
            let m = quantizer.input_scale();
            let threshold = quantizer.policy().threshold();
            blocks.extend(
                x.iter()
                    .zip(f)
                    .map(|(x, f)| decide(&x.map(|x| rescale(x, m)), f, threshold).block.pack()),
            );
        }
        Ok((
            Sent {
                blocks,
                elements: on_board.then_some((x, quantizer)),
            },
            x.len() / channels,
            quantizer.padded() / BLOCK,
        ))
    }

    /// Does it until it is done: resets, pulled cables and lines that fail for a while are new beginnings.
    fn persistently<R>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<R, BoardError>,
    ) -> Result<R, BoardError> {
        let mut attempts = 0;
        let mut result = work(self);
        loop {
            match result {
                Err(BoardError::Link(error)) if error.is_passing() => {
                    if attempts >= self.options.recoveries {
                        return Err(BoardError::GivenUp {
                            attempts,
                            last: error,
                        });
                    }
                    attempts += 1;
                    self.recoveries += 1;
                    result = self.begin_anew(&error).and_then(|()| work(self));
                }
                Ok(done) => return Ok(done),
                Err(error) => {
                    // Who goes on in spite of it begins with empty memories.
                    self.forget();
                    return Err(error);
                }
            }
        }
    }

    fn begin_anew(&mut self, error: &LinkError) -> Result<(), BoardError> {
        self.forget();
        if matches!(error, LinkError::Transport(_) | LinkError::NoAnswer { .. }) {
            std::thread::sleep(self.options.pause);
            self.session.reopen()?;
        }
        self.session.open()?;
        let found = identify(&mut self.session)?;
        if found != self.identity {
            return Err(BoardError::Changed {
                expected: Box::new(self.identity),
                found: Box::new(found),
            });
        }
        Ok(())
    }

    /// Nothing that was sent counts any more.
    fn forget(&mut self) {
        self.contents = Contents::default();
        for kept in &mut self.kept {
            kept.there.clear();
        }
    }

    fn execute(&mut self, job: &mut Job<'_>, index: usize) -> Result<(), BoardError> {
        let (Some(task), plan) = (job.plan.tasks.get(index).cloned(), &job.plan) else {
            return Ok(());
        };
        let Some(pass) = plan.passes.get(task.pass).cloned() else {
            return Ok(());
        };
        let bf16 = plan.bf16;
        if self.contents.acts != Some(task.pass) {
            self.send_activations(job, &pass)?;
            self.contents.acts = Some(task.pass);
        }
        self.send_weights(job, &task, &pass)?;
        if bf16 && let Some(&scale) = job.scales.and_then(|scales| scales.get(task.weights)) {
            self.post_output_scale(scale)?;
        }
        let bytes = self.call_multiply(
            task.address,
            task.tiles.start * pass.blocks.len(),
            pass.blocks.len(),
            [task.groups.len(), task.tiles.len()],
            bf16,
        )?;
        job.take(&task, &pass, &bytes, self.identity.rows, self.identity.cols);
        Ok(())
    }

    fn send_activations(&mut self, job: &Job<'_>, pass: &Pass) -> Result<(), BoardError> {
        let cols = self.identity.cols;
        let length = pass.blocks.len();
        let row = |token: usize| {
            let start = token * job.blocks;
            job.acts
                .blocks
                .get(start + pass.blocks.start..start + pass.blocks.end)
                .unwrap_or_default()
        };
        let Some((x, quantizer)) = job.acts.elements else {
            for column in 0..cols {
                let tokens = pass.tokens.clone().skip(column).step_by(cols);
                self.post_blocks(FIRST_COLUMN + column as u8, 0, tokens.flat_map(row))?;
            }
            return Ok(());
        };
        self.post_input(quantizer.input_scale(), quantizer.policy().threshold())?;
        let mut codes = quantizer.sensitivity().codes.clone();
        codes.resize(quantizer.padded(), Ue4m3::ZERO);
        if self.contents.sensitivities.as_ref() != Some(&codes) {
            self.post_sensitivities(0, &codes)?;
            self.contents.sensitivities = Some(codes);
        }
        let channels = quantizer.channels();
        for (index, token) in pass.tokens.clone().enumerate() {
            let mut elements = x
                .get(token * channels..(token + 1) * channels)
                .unwrap_or_default()
                .to_vec();
            elements.resize(quantizer.padded(), bf16::ZERO);
            let elements = elements
                .get(pass.blocks.start * BLOCK..pass.blocks.end * BLOCK)
                .unwrap_or_default();
            let unit = usize::from(FIRST_COLUMN) + index % cols;
            let found =
                self.call_elements(unit, index / cols * length, pass.blocks.start, elements)?;
            for (offset, (found, expected)) in found.iter().zip(row(token)).enumerate() {
                if found != expected {
                    return Err(BoardError::Quantizer {
                        token,
                        block: pass.blocks.start + offset,
                        found: *found,
                        expected: *expected,
                    });
                }
            }
        }
        Ok(())
    }

    /// Sends the task's weights, if they are not there.
    fn send_weights(&mut self, job: &Job<'_>, task: &Task, pass: &Pass) -> Result<(), BoardError> {
        let length = pass.blocks.len();
        let (missing, address) = match &task.source {
            Source::Scratch(groups) => {
                let wanted = (task.pass, task.weights, groups.clone());
                if self.contents.scratch.as_ref() == Some(&wanted) {
                    return Ok(());
                }
                self.contents.scratch = Some(wanted);
                (groups.clone(), self.memory.scratch)
            }
            Source::Kept => {
                let Some(Weights::Kept(key)) = job.weights.get(task.weights) else {
                    return Ok(());
                };
                let there = |group: usize| {
                    self.kept
                        .get(key.0)
                        .is_some_and(|kept| kept.there.contains(&(pass.chunk, group)))
                };
                let first = task.groups.clone().find(|&group| !there(group));
                let last = task.groups.clone().rfind(|&group| !there(group));
                let (Some(first), Some(last)) = (first, last) else {
                    return Ok(());
                };
                (
                    first..last + 1,
                    task.address + (first - task.groups.start) * length,
                )
            }
        };
        let rows = self.identity.rows;
        let Some(shape) = job.shapes.get(task.weights) else {
            return Ok(());
        };
        let blocks: &[PackedBlock] = match (job.weights.get(task.weights), &job.once[task.weights])
        {
            (_, Some(blocks)) => blocks,
            (Some(Weights::Kept(key)), None) => match self.kept.get(key.0) {
                Some(kept) => &kept.blocks,
                None => return Err(BoardError::UnknownKey),
            },
            _ => return Err(BoardError::UnknownKey),
        };
        let mut commands = Vec::new();
        for row in 0..rows.min(shape.features) {
            let mine = missing
                .clone()
                .map(|group| group * rows + row)
                .filter(|&row| row < shape.features)
                .flat_map(|row| {
                    let start = row * shape.blocks;
                    blocks
                        .get(start + pass.blocks.start..start + pass.blocks.end)
                        .unwrap_or_default()
                });
            commands.extend(load_commands(row as u8, address, mine));
        }
        for body in commands {
            self.session.post(Operation::LoadBlocks, &body)?;
        }
        if task.source == Source::Kept
            && let Some(Weights::Kept(key)) = job.weights.get(task.weights)
            && let Some(kept) = self.kept.get_mut(key.0)
        {
            kept.there.extend(missing.map(|group| (pass.chunk, group)));
        }
        Ok(())
    }

    fn post_blocks<'b>(
        &mut self,
        unit: u8,
        address: usize,
        blocks: impl Iterator<Item = &'b PackedBlock>,
    ) -> Result<(), LinkError> {
        for body in load_commands(unit, address, blocks) {
            self.session.post(Operation::LoadBlocks, &body)?;
        }
        Ok(())
    }

    fn post_sensitivities(&mut self, first: usize, codes: &[Ue4m3]) -> Result<(), LinkError> {
        for (index, codes) in codes.chunks(MOST_SENSITIVITIES).enumerate() {
            let first = first + index * MOST_SENSITIVITIES;
            let mut body = (first as u16).to_le_bytes().to_vec();
            body.extend(codes.iter().map(|code| code.to_bits()));
            self.session.post(Operation::LoadSensitivities, &body)?;
        }
        Ok(())
    }

    fn post_input(&mut self, scale: InputScale, threshold: u64) -> Result<(), LinkError> {
        let wanted = (scale.get().to_bits(), threshold);
        if self.contents.input == Some(wanted) {
            return Ok(());
        }
        let mut body = vec![place::INPUT_SCALE as u8];
        body.extend(wanted.0.to_le_bytes());
        body.extend(threshold.to_le_bytes());
        self.session.post(Operation::WriteRegisters, &body)?;
        self.contents.input = Some(wanted);
        Ok(())
    }

    fn post_output_scale(&mut self, scale: OutputScale) -> Result<(), LinkError> {
        let wanted = scale.get().to_bits();
        if self.contents.output_scale == Some(wanted) {
            return Ok(());
        }
        let mut body = vec![place::OUTPUT_SCALE as u8];
        body.extend(wanted.to_le_bytes());
        self.session.post(Operation::WriteRegisters, &body)?;
        self.contents.output_scale = Some(wanted);
        Ok(())
    }

    fn call_elements(
        &mut self,
        unit: usize,
        address: usize,
        first: usize,
        elements: &[bf16],
    ) -> Result<Vec<PackedBlock>, LinkError> {
        let mut blocks = Vec::new();
        for (index, part) in elements.chunks(MOST_ELEMENT_BLOCKS * BLOCK).enumerate() {
            let offset = index * MOST_ELEMENT_BLOCKS;
            let mut body = vec![unit as u8];
            body.extend(((address + offset) as u16).to_le_bytes());
            body.extend(((first + offset) as u16).to_le_bytes());
            body.extend(part.iter().flat_map(|x| x.to_bits().to_le_bytes()));
            let count = part.len() / BLOCK;
            let reply = self
                .session
                .call(Operation::LoadElements, &body, count * BLOCK_BYTES)?;
            for bytes in reply.as_chunks::<BLOCK_BYTES>().0 {
                let [payload @ .., scale, tag] = bytes;
                blocks.push(PackedBlock {
                    tag: *tag & 1 == 1,
                    scale: *scale,
                    payload: u128::from_le_bytes(*payload),
                });
            }
        }
        Ok(blocks)
    }

    fn call_multiply(
        &mut self,
        weights: usize,
        activations: usize,
        blocks: usize,
        tiles: [usize; 2],
        bf16: bool,
    ) -> Result<Vec<u8>, LinkError> {
        let mut body = Vec::with_capacity(9);
        for number in [weights, activations, blocks] {
            body.extend((number as u16).to_le_bytes());
        }
        body.extend([tiles[0] as u8, tiles[1] as u8, u8::from(bf16)]);
        let bytes = if bf16 { BF16_BYTES } else { ACCUMULATOR_BYTES };
        let results = tiles[0] * tiles[1] * self.identity.rows * self.identity.cols;
        self.session
            .call(Operation::Multiply, &body, results * bytes)
    }
}

impl Job<'_> {
    /// Puts a task's results where they belong; those of rows and tokens that are not there are dropped.
    fn take(&mut self, task: &Task, pass: &Pass, bytes: &[u8], rows: usize, cols: usize) {
        let Some(features) = self.shapes.get(task.weights).map(|it| it.features) else {
            return;
        };
        let size = if self.plan.bf16 {
            BF16_BYTES
        } else {
            ACCUMULATOR_BYTES
        };
        let places = task.groups.clone().flat_map(|group| {
            task.tiles.clone().flat_map(move |tile| {
                (0..cols).flat_map(move |col| {
                    (0..rows).map(move |row| (tile * cols + col, group * rows + row))
                })
            })
        });
        for ((token, feature), bytes) in places.zip(bytes.chunks_exact(size)) {
            let token = pass.tokens.start + token;
            if token >= pass.tokens.end || feature >= features {
                continue;
            }
            let place = token * features + feature;
            match bytes {
                &[low, high] => {
                    let results = self.results.get_mut(task.weights);
                    if let Some(result) = results.and_then(|it| it.get_mut(place)) {
                        *result = bf16::from_bits(u16::from_le_bytes([low, high]));
                    }
                }
                bytes => {
                    let sums = self.sums.get_mut(task.weights);
                    if let (Some((sum, nan)), Ok(bytes)) =
                        (sums.and_then(|it| it.get_mut(place)), bytes.try_into())
                    {
                        match i64::from_le_bytes(bytes) {
                            NAN => *nan = true,
                            value => *sum += i128::from(value),
                        }
                    }
                }
            }
        }
    }

    fn finish(self) -> Vec<Product> {
        if self.plan.bf16 {
            return self.results.into_iter().map(Product::Bf16).collect();
        }
        self.sums
            .into_iter()
            .enumerate()
            .map(|(index, sums)| {
                let scale = self.scales.and_then(|scales| scales.get(index));
                match scale {
                    Some(&scale) => Product::Bf16(
                        sums.into_iter()
                            .map(|(sum, nan)| requantize(sum, nan, scale))
                            .collect(),
                    ),
                    None => Product::Accumulators(
                        sums.into_iter()
                            .map(|(sum, nan)| Accumulator::from_parts(sum, nan))
                            .collect(),
                    ),
                }
            })
            .collect()
    }
}

fn shape_of(tensor: &PackedTensor) -> Shape {
    Shape {
        features: tensor.rows(),
        blocks: tensor.row_blocks(),
    }
}

fn read_registers<T: Transport>(
    session: &mut Session<T>,
    first: usize,
    count: usize,
) -> Result<Vec<u32>, LinkError> {
    let bytes = session.call(
        Operation::ReadRegisters,
        &[first as u8, count as u8],
        4 * count,
    )?;
    Ok(bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| u32::from_le_bytes(bytes))
        .collect())
}

fn identify<T: Transport>(session: &mut Session<T>) -> Result<Identity, BoardError> {
    Identity::of_registers(&read_registers(session, place::ID, place::LINE + 1)?)
}

/// Bodies of the commands that write blocks one behind the other, as full as they can be.
fn load_commands<'b>(
    unit: u8,
    mut address: usize,
    blocks: impl Iterator<Item = &'b PackedBlock>,
) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    let mut tags = 0;
    let mut in_group = 0;
    for block in blocks {
        let length = if block.tag { BLOCK } else { 1 + BLOCK / 2 };
        let starts_group = in_group == 0 || in_group == 8;
        if !body.is_empty() && body.len() + usize::from(starts_group) + length > MAX_COMMAND_BODY {
            bodies.push(std::mem::take(&mut body));
        }
        if body.is_empty() {
            body.push(unit);
            body.extend((address as u16).to_le_bytes());
            in_group = 0;
        }
        if in_group == 0 || in_group == 8 {
            tags = body.len();
            body.push(0);
            in_group = 0;
        }
        if let Some(byte) = body.get_mut(tags) {
            *byte |= u8::from(block.tag) << in_group;
        }
        let payload = block.payload.to_le_bytes();
        if block.tag {
            body.extend(payload);
        } else {
            body.push(block.scale);
            body.extend(&payload[..BLOCK / 2]);
        }
        in_group += 1;
        address += 1;
    }
    if body.len() > LOAD_HEADER {
        bodies.push(body);
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;
    use golden::strategies::block;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn load_commands_hold_all_blocks(blocks in prop::collection::vec(block(), 0..300)) {
            let packed: Vec<PackedBlock> = blocks.iter().map(|it| it.pack()).collect();
            let mut address = 9;
            let mut found = Vec::new();
            let bodies = load_commands(0x81, address, packed.iter());
            for body in &bodies {
                prop_assert!(body.len() <= MAX_COMMAND_BODY);
                prop_assert_eq!(body[0], 0x81);
                prop_assert_eq!(usize::from(u16::from_le_bytes([body[1], body[2]])), address);
                let mut rest = &body[LOAD_HEADER..];
                while let Some((&tags, behind)) = rest.split_first() {
                    rest = behind;
                    for bit in 0..8 {
                        if rest.is_empty() {
                            break;
                        }
                        let tag = tags >> bit & 1 == 1;
                        let (bytes, behind) = rest.split_at(if tag { 16 } else { 9 });
                        rest = behind;
                        let (scale, payload) = if tag { (0, bytes) } else { (bytes[0], &bytes[1..]) };
                        let payload = payload.iter().rev().fold(0, |word, &byte| word << 8 | u128::from(byte));
                        found.push(PackedBlock { tag, scale, payload });
                        address += 1;
                    }
                }
            }
            prop_assert_eq!(found, packed);
        }
    }
}
