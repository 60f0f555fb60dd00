//! The activation quantization unit's bench: rows in, blocks or three dense streams out, bit for bit. Twin of `hdl::quantizer`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use golden::block::PackedBlock;
use golden::format::{BLOCK, Ue4m3};
use golden::quantizer::{Decision, InputScale, decide, rescale};
use half::bf16;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::array::Waves;
use crate::design::{Direction, Port, PortError, PortId, PortLookup};
use crate::report::{FirstMismatch, PairsByMode, QuantizerCoverage, Report};
use crate::simulator::{SimError, Simulator};
use crate::stream::{InputStream, OutputStream, RunStats, Side, Stall, StreamJob, StreamPorts};

/// One row of activations with the sensitivity of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// BF16 activations, at least one; the last block is padded with zeros.
    pub x: Vec<bf16>,
    /// One code a channel.
    pub sensitivity: Vec<Ue4m3>,
}

/// Rows that share the unit's two constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// M.
    pub scale: InputScale,
    /// T, in units of 2⁻²⁹.
    pub threshold: u64,
    /// The rows.
    pub rows: Vec<Row>,
}

/// How many elements a beat of `x` carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// One.
    Element,
    /// A whole block.
    Block,
}

/// How the blocks leave.
#[derive(Debug, Clone)]
enum Outputs {
    /// Whole, one a beat.
    Blocks(StreamPorts),
    /// As the streams of a packed tensor: payload, scale, tag.
    Packed([StreamPorts; 3]),
}

/// The unit's ports, found by name.
#[derive(Debug, Clone)]
pub struct QuantizerPorts {
    x: StreamPorts,
    lanes: Lanes,
    outputs: Outputs,
    input_scale: PortId,
    threshold: PortId,
}

impl QuantizerPorts {
    /// Finds `x` (`x_data` of one element or `x_data_0` to `x_data_15`), `input_scale`, `threshold`, and `block` or else `payload`,
    /// `scale` and `tag`.
    ///
    /// # Errors
    /// [`PortError`] when a port is missing, or has another direction or width.
    pub fn find(ports: &[Port]) -> Result<Self, PortError> {
        let lanes = if ports.find_port("x_data_0").is_some() {
            Lanes::Block
        } else {
            Lanes::Element
        };
        let of_lanes = |name: &str, width: usize| -> Result<Vec<String>, PortError> {
            let names: Vec<String> = match lanes {
                Lanes::Element => vec![name.to_owned()],
                Lanes::Block => (0..BLOCK).map(|i| format!("{name}_{i}")).collect(),
            };
            for name in &names {
                ports.port(&format!("x_{name}"), Direction::Input, Some(width))?;
            }
            Ok(names)
        };
        let names = [of_lanes("data", 16)?, of_lanes("sensitivity", 8)?].concat();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ports.port("x_last", Direction::Input, Some(1))?;
        let outputs = [
            ("block_fp8", 1),
            ("block_scale", 8),
            ("block_payload", 128),
            ("block_last", 1),
            ("payload_data", 64),
            ("payload_last", 1),
            ("scale_data", 8),
            ("scale_last", 1),
            ("tag_data", 1),
            ("tag_last", 1),
        ];
        let blocks = ports.find_port("block_valid").is_some();
        for (name, width) in outputs {
            if name.starts_with("block") == blocks {
                ports.port(name, Direction::Output, Some(width))?;
            }
        }
        let out = |name, data: &[&str]| StreamPorts::find(ports, name, Side::OutOfDesign, data);
        Ok(Self {
            x: StreamPorts::find(ports, "x", Side::IntoDesign, &names)?,
            lanes,
            outputs: if blocks {
                Outputs::Blocks(out("block", &["fp8", "scale", "payload"])?)
            } else {
                Outputs::Packed([
                    out("payload", &["data"])?,
                    out("scale", &["data"])?,
                    out("tag", &["data"])?,
                ])
            },
            input_scale: ports.port("input_scale", Direction::Input, Some(32))?,
            threshold: ports.port("threshold", Direction::Input, Some(64))?,
        })
    }

    /// The beats of `x` that carry a row. What pads a whole block is the zero of M's sign, which M makes +0.
    fn beats(&self, row: &Row, scale: InputScale, beats: &mut Vec<u64>) {
        let padding = bf16::ZERO.to_bits() | u16::from(scale.get().is_sign_negative()) << 15;
        let lanes = match self.lanes {
            Lanes::Element => 1,
            Lanes::Block => BLOCK,
        };
        let count = row.x.len().div_ceil(lanes);
        let chunks = row.x.chunks(lanes).zip(row.sensitivity.chunks(lanes));
        for (at, (x, sensitivity)) in chunks.enumerate() {
            let x = x.iter().map(|x| x.to_bits());
            let x = x.chain(std::iter::repeat(padding)).take(lanes);
            let sensitivity = sensitivity.iter().map(|f| f.to_bits());
            let sensitivity = sensitivity.chain(std::iter::repeat(0)).take(lanes);
            beats.extend(x.map(u64::from));
            beats.extend(sensitivity.map(u64::from));
            beats.push(u64::from(at + 1 == count));
        }
    }
}

/// Drives a quantization unit and keeps the score.
pub struct QuantizerBench<S> {
    simulator: S,
    ports: QuantizerPorts,
    /// Chance of holding back, in 256ths: elements, payload or blocks, scales, tags.
    stalls: [u8; 4],
    waves: Option<Waves>,
}

/// A block as the three streams carry it, and whether its row ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StreamedBlock {
    packed: PackedBlock,
    last: bool,
}

/// One block's inputs, for messages and for shrinking.
#[derive(Debug, Clone, Copy)]
struct BlockInput {
    /// Elements that the row has here; the rest is padding.
    length: usize,
    x: [bf16; BLOCK],
    sensitivity: [Ue4m3; BLOCK],
}

impl<S: Simulator> QuantizerBench<S> {
    /// A bench for the unit in `simulator`, streams at full speed.
    ///
    /// # Errors
    /// [`SimError::InvalidJob`] when the design's ports aren't the unit's.
    pub fn new(simulator: S) -> Result<Self, SimError> {
        let ports = QuantizerPorts::find(simulator.ports()).map_err(not_the_unit)?;
        Ok(Self {
            simulator,
            ports,
            stalls: [0; 4],
            waves: None,
        })
    }

    /// Chances of holding back in a cycle, in 256ths: elements in, payload (or whole blocks), scales and tags out. With any of them the
    /// rules of the streams are checked in full.
    #[must_use]
    pub fn stalls(mut self, stalls: [u8; 4]) -> Self {
        self.stalls = stalls;
        self
    }

    /// Writes the waveform of the smallest failing case, should there be one.
    #[must_use]
    pub fn waves(mut self, waves: Waves) -> Self {
        self.waves = Some(waves);
        self
    }

    /// Runs at least `blocks` random blocks (see [`RandomBatches`]). `progress` is told the blocks done so far.
    ///
    /// # Errors
    /// [`SimError`]: a rule of the streams is broken, the unit hangs or stops. A wrong result is no error but in the report.
    pub fn random(
        &mut self,
        blocks: u64,
        seed: u64,
        progress: impl FnMut(u64),
    ) -> Result<Report<QuantizerCoverage>, SimError> {
        self.batches(RandomBatches::new(blocks, seed), seed, progress)
    }

    /// Runs any batches; `seed` decides the stalls.
    ///
    /// # Errors
    /// As [`QuantizerBench::random`]; [`SimError::InvalidJob`] when a row is empty or has other than one sensitivity an element.
    pub fn batches(
        &mut self,
        batches: impl IntoIterator<Item = Batch>,
        seed: u64,
        mut progress: impl FnMut(u64),
    ) -> Result<Report<QuantizerCoverage>, SimError> {
        let started = Instant::now();
        let mut simulating = Duration::ZERO;
        let mut report = Report {
            simulator: self.simulator.name().to_owned(),
            vectors: 0,
            mismatches: 0,
            cycles: 0,
            seconds: 0.0,
            cycles_per_second: 0.0,
            pairs_per_second: 0.0,
            pairs_by_mode: PairsByMode::default(),
            coverage: QuantizerCoverage::default(),
            first_mismatch: None,
        };
        for (number, batch) in batches.into_iter().enumerate() {
            if let Some(row) = batch
                .rows
                .iter()
                .find(|row| row.x.is_empty() || row.x.len() != row.sensitivity.len())
            {
                return Err(SimError::InvalidJob {
                    reason: format!(
                        "a row has {} elements and {} sensitivities",
                        row.x.len(),
                        row.sensitivity.len()
                    ),
                });
            }
            let expected = expected(&batch);
            let seed = seed.wrapping_add(4 * number as u64);
            let mut job = self.job(&batch, &expected, self.stalls, seed)?;
            let before = Instant::now();
            let ran = self.simulator.run(&mut job);
            simulating += before.elapsed();
            let actual = streamed(&job);
            let wrong = expected.iter().zip(&actual).filter(|(e, a)| e != a).count()
                + expected.len().saturating_sub(actual.len());
            let first = (0..expected.len()).find(|at| actual.get(*at) != expected.get(*at));
            let stats = match (ran, first) {
                (Ok(stats), _) => stats,
                // Streams that don't end where they should: a wrong decision is the cause when there is one.
                (Err(SimError::Rule { .. } | SimError::Deadlock { .. }), Some(at))
                    if at < actual.len() =>
                {
                    RunStats::default()
                }
                (Err(error), _) => return Err(error),
            };
            report.cycles += stats.cycles;
            report.vectors += expected.len() as u64;
            report.mismatches += wrong as u64;
            count(&batch, &mut report.coverage);
            if let (None, Some(at)) = (&report.first_mismatch, first) {
                report.first_mismatch =
                    Some(self.investigate(&batch, at, &expected[at], actual.get(at))?);
            }
            progress(report.vectors);
        }
        let per_second = |count: u64, seconds: f64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        report.seconds = started.elapsed().as_secs_f64();
        report.cycles_per_second = per_second(report.cycles, simulating.as_secs_f64());
        report.pairs_per_second = per_second(report.vectors, report.seconds);
        Ok(report)
    }

    fn job(
        &self,
        batch: &Batch,
        expected: &[StreamedBlock],
        stalls: [u8; 4],
        seed: u64,
    ) -> Result<StreamJob, SimError> {
        let mut job = StreamJob::new(self.simulator.ports()).map_err(not_the_unit)?;
        let stall = |at: usize| Stall {
            chance: stalls[at],
            seed: seed.wrapping_add(at as u64),
        };
        let mut beats = Vec::new();
        for row in &batch.rows {
            self.ports.beats(row, batch.scale, &mut beats);
        }
        let fp8 = expected.iter().filter(|block| block.packed.tag).count();
        job.constants = vec![
            (
                self.ports.input_scale,
                vec![u64::from(batch.scale.get().to_bits())],
            ),
            (self.ports.threshold, vec![batch.threshold]),
        ];
        job.inputs.push(InputStream {
            ports: self.ports.x.clone(),
            beats,
            stall: stall(0),
        });
        let outputs = match &self.ports.outputs {
            Outputs::Blocks(blocks) => vec![(blocks, expected.len())],
            Outputs::Packed([payload, scale, tag]) => vec![
                (payload, expected.len() + fp8),
                (scale, expected.len() - fp8),
                (tag, expected.len()),
            ],
        };
        for (at, (ports, count)) in outputs.into_iter().enumerate() {
            job.outputs.push(OutputStream {
                ports: ports.clone(),
                expected: count,
                stall: stall(at + 1),
                collected: Vec::new(),
            });
        }
        job.check_combinational = stalls != [0; 4];
        Ok(job)
    }

    /// Runs a block as a row of its own; the results when they differ.
    fn fails(&mut self, batch: &Batch) -> Result<Option<(StreamedBlock, StreamedBlock)>, SimError> {
        let expected = expected(batch);
        let mut job = self.job(batch, &expected, [0; 4], 0)?;
        match self.simulator.run(&mut job) {
            Ok(_) | Err(SimError::Rule { .. } | SimError::Deadlock { .. }) => {}
            Err(error) => return Err(error),
        }
        let actual = streamed(&job);
        Ok(expected
            .into_iter()
            .zip(actual)
            .next_back()
            .filter(|(expected, actual)| expected != actual))
    }

    /// Shrinks a wrong block: alone as a row, then element by element to zero.
    fn investigate(
        &mut self,
        batch: &Batch,
        at: usize,
        expected: &StreamedBlock,
        actual: Option<&StreamedBlock>,
    ) -> Result<FirstMismatch, SimError> {
        let mut input = block_inputs(batch).nth(at).unwrap_or(BlockInput {
            length: BLOCK,
            x: [bf16::ZERO; BLOCK],
            sensitivity: [Ue4m3::ZERO; BLOCK],
        });
        let alone = |input: &BlockInput| Batch {
            rows: vec![Row {
                x: input.x[..input.length].to_vec(),
                sensitivity: input.sensitivity[..input.length].to_vec(),
            }],
            ..*batch
        };
        let mut results = (*expected, actual.copied());
        let reproducible = match self.fails(&alone(&input))? {
            Some((expected, actual)) => {
                results = (expected, Some(actual));
                true
            }
            None => false,
        };
        if reproducible {
            let length = input.length;
            for change in (0..2 * BLOCK).filter(|change| change % BLOCK < length) {
                let mut simpler = input;
                if change < BLOCK {
                    simpler.x[change] = bf16::ZERO;
                } else {
                    simpler.sensitivity[change - BLOCK] = Ue4m3::ZERO;
                }
                if let Some((expected, actual)) = self.fails(&alone(&simpler))? {
                    results = (expected, Some(actual));
                    input = simpler;
                }
            }
        }
        let mut waveform = None;
        if let Some(waves) = &self.waves {
            let batch = alone(&input);
            let mut job = self.job(&batch, &self::expected(&batch), [0; 4], 0)?;
            match waves
                .verilator
                .run_traced(&waves.design, &mut job, &waves.file)
            {
                Ok(_) | Err(SimError::Rule { .. } | SimError::Deadlock { .. }) => {
                    waveform = Some(waves.file.clone());
                }
                Err(error) => return Err(error),
            }
        }
        let (expected, actual) = results;
        let actual = actual.map_or_else(|| "nothing came".to_owned(), |actual| hex(&actual));
        Ok(FirstMismatch {
            description: describe(batch, at, &input, &hex(&expected), &actual, reproducible),
            expected: hex(&expected),
            actual,
            smallest_case: 1,
            waveform,
        })
    }
}

fn hex(block: &StreamedBlock) -> String {
    let PackedBlock {
        tag,
        scale,
        payload,
    } = block.packed;
    let last = if block.last { " last" } else { "" };
    if tag {
        format!("FP8 payload {payload:#034x}{last}")
    } else {
        format!("FP4 payload {payload:#018x} scale {scale:#04x}{last}")
    }
}

fn describe(
    batch: &Batch,
    at: usize,
    input: &BlockInput,
    expected: &str,
    actual: &str,
    reproducible: bool,
) -> String {
    let decision = golden_decision(batch, input);
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "block {at}, M = {:e} ({:#010x}), T = {}{}\n",
        batch.scale.get(),
        batch.scale.get().to_bits(),
        batch.threshold,
        if reproducible {
            ""
        } else {
            " (agrees when run alone: the failure needs what came before, or the stalls)"
        }
    );
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "  x           [{}]",
        list(&mut input.x.iter().map(|x| format!("{:#06x}", x.to_bits())))
    );
    let _ = writeln!(
        text,
        "            = [{}]",
        list(&mut input.x.iter().map(|x| format!("{:e}", x.to_f32())))
    );
    let _ = writeln!(
        text,
        "  sensitivity [{}]",
        list(
            &mut input
                .sensitivity
                .iter()
                .map(|f| format!("{:#04x}", f.to_bits()))
        )
    );
    let _ = writeln!(
        text,
        "  score {}, FP4 scale {}",
        decision.score,
        decision.fp4.1.to_f32()
    );
    let _ = writeln!(text, "  expected {expected}\n  actual   {actual}");
    text
}

/// What golden decides. Padding is a zero after scaling, +0 also where M is negative.
fn golden_decision(batch: &Batch, input: &BlockInput) -> Decision {
    let mut z = [bf16::ZERO; BLOCK];
    for (z, x) in z.iter_mut().zip(&input.x[..input.length]) {
        *z = rescale(*x, batch.scale);
    }
    decide(&z, &input.sensitivity, batch.threshold)
}

fn count(batch: &Batch, coverage: &mut QuantizerCoverage) {
    coverage.padded_rows += batch
        .rows
        .iter()
        .filter(|row| row.x.len() % BLOCK != 0)
        .count() as u64;
    for input in block_inputs(batch) {
        let decision = golden_decision(batch, &input);
        *if decision.block.has_nan() {
            &mut coverage.nan_blocks
        } else if decision.block.is_fp8() {
            &mut coverage.fp8_blocks
        } else {
            &mut coverage.fp4_blocks
        } += 1;
        coverage.score_equals_threshold += u64::from(decision.score == batch.threshold);
        coverage.zero_scale += u64::from(decision.fp4.1 == Ue4m3::ZERO);
        coverage.largest_scale += u64::from(decision.fp4.1 == Ue4m3::quantize(448.0 / 6.0));
    }
}

/// The blocks of all rows, padded with zeros.
fn block_inputs(batch: &Batch) -> impl Iterator<Item = BlockInput> + '_ {
    batch.rows.iter().flat_map(|row| {
        row.x
            .chunks(BLOCK)
            .zip(row.sensitivity.chunks(BLOCK))
            .map(|(x, sensitivity)| {
                let mut input = BlockInput {
                    length: x.len(),
                    x: [bf16::ZERO; BLOCK],
                    sensitivity: [Ue4m3::ZERO; BLOCK],
                };
                input.x[..x.len()].copy_from_slice(x);
                input.sensitivity[..sensitivity.len()].copy_from_slice(sensitivity);
                input
            })
    })
}

fn expected(batch: &Batch) -> Vec<StreamedBlock> {
    let mut ends = batch.rows.iter().flat_map(|row| {
        let blocks = row.x.len().div_ceil(BLOCK);
        (0..blocks).map(move |at| at + 1 == blocks)
    });
    block_inputs(batch)
        .map(|input| StreamedBlock {
            packed: golden_decision(batch, &input).block.pack(),
            last: ends.next().unwrap_or(true),
        })
        .collect()
}

/// The blocks that came, as far as they are whole.
fn streamed(job: &StreamJob) -> Vec<StreamedBlock> {
    match job.outputs.as_slice() {
        [blocks] => whole(blocks),
        [payload, scale, tag] => packed(payload, scale, tag),
        _ => Vec::new(),
    }
}

/// The blocks of a stream of blocks. The scale of an FP8 block has no meaning.
fn whole(blocks: &OutputStream) -> Vec<StreamedBlock> {
    let beats = blocks.collected.as_chunks::<5>().0.iter();
    beats
        .map(|&[fp8, scale, low, high, last]| StreamedBlock {
            packed: PackedBlock {
                tag: fp8 == 1,
                scale: if fp8 == 1 { 0 } else { scale as u8 },
                payload: u128::from(low) | u128::from(high) << 64,
            },
            last: last == 1,
        })
        .collect()
}

/// Puts the three streams back together, as long as each has what the tags ask for. A `last` that the streams disagree on
/// makes a block that equals none.
fn packed(payload: &OutputStream, scale: &OutputStream, tag: &OutputStream) -> Vec<StreamedBlock> {
    let beats = |stream: &OutputStream| {
        stream
            .collected
            .as_chunks::<2>()
            .0
            .to_vec()
            .into_iter()
            .map(|[data, last]| (data, last == 1))
    };
    let (mut payload, mut scale) = (beats(payload), beats(scale));
    let mut blocks = Vec::new();
    for (tag, last) in beats(tag) {
        let fp8 = tag == 1;
        let Some((low, mut payload_last)) = payload.next() else {
            break;
        };
        let mut packed = PackedBlock {
            tag: fp8,
            scale: 0,
            payload: u128::from(low),
        };
        let mut agreed = true;
        if fp8 {
            let Some((high, high_last)) = payload.next() else {
                break;
            };
            agreed = !payload_last;
            payload_last = high_last;
            packed.payload |= u128::from(high) << 64;
        } else {
            let Some((code, scale_last)) = scale.next() else {
                break;
            };
            agreed = agreed && scale_last == last;
            packed.scale = code as u8;
        }
        if !agreed || payload_last != last {
            // No FP8 block has a scale, no scale code is 0xFF.
            packed.scale = 0xff;
        }
        blocks.push(StreamedBlock { packed, last });
    }
    blocks
}

fn not_the_unit(error: PortError) -> SimError {
    SimError::InvalidJob {
        reason: format!("this is no quantization unit: {error}"),
    }
}

/// Random rows of every kind, in batches that share M and T.
///
/// T is 0, the largest number, or the score of one of the batch's own blocks: exactly, so that I = T happens, one below, or one above.
#[derive(Debug, Clone)]
pub struct RandomBatches {
    rng: ChaCha8Rng,
    left: u64,
}

/// Blocks that a batch has at least.
const BATCH_BLOCKS: u64 = 256;

impl RandomBatches {
    /// Batches with at least `blocks` blocks in all.
    pub fn new(blocks: u64, seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            left: blocks,
        }
    }
}

impl Iterator for RandomBatches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.left == 0 {
            return None;
        }
        let rng = &mut self.rng;
        let exponent = rng.random_range(-12..=12);
        let m = match rng.random_range(0..4) {
            0 => 1.0,
            1 => f32::from(rng.random_range(1..=u16::MAX)) * 1e-3,
            2 => (exponent as f32).exp2(),
            _ => -rng.random_range(1e-4..1e4),
        };
        let scale = InputScale::new(m).unwrap_or(InputScale::ONE);
        let mut batch = Batch {
            scale,
            threshold: 0,
            rows: Vec::new(),
        };
        let wanted = self.left.min(BATCH_BLOCKS);
        let mut blocks = 0;
        while blocks < wanted {
            let length = if rng.random() {
                BLOCK * rng.random_range(1..=4)
            } else {
                rng.random_range(1..=4 * BLOCK)
            };
            let mut row = Row {
                x: Vec::with_capacity(length + BLOCK),
                sensitivity: Vec::with_capacity(length + BLOCK),
            };
            while row.x.len() < length {
                let kind = ActKind::draw(rng);
                // The tie kind aims at z; dividing by a power of two is exact.
                row.x
                    .extend(activations(rng, kind).map(|z| bf16::from_f32(z / scale.get())));
                row.sensitivity.extend(sensitivities(rng));
            }
            row.x.truncate(length);
            row.sensitivity.truncate(length);
            blocks += length.div_ceil(BLOCK) as u64;
            batch.rows.push(row);
        }
        self.left -= wanted;
        let inputs: Vec<BlockInput> = block_inputs(&batch).collect();
        let score = inputs
            .choose(rng)
            .map_or(0, |input| golden_decision(&batch, input).score);
        batch.threshold = match rng.random_range(0..8) {
            0 => 0,
            1 => u64::MAX,
            2 => score.saturating_sub(1),
            3 => score.saturating_add(1),
            _ => score,
        };
        Some(batch)
    }
}

/// What a block of activations is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActKind {
    /// Bell-shaped, as layers give them, at any magnitude.
    Bell,
    /// Any BF16 bits: NaN, infinities, subnormals.
    Bits,
    /// On the decision points of E2M1 under the block's scale and of E4M3, and one BF16 step beside them.
    Ties,
    /// Largest, smallest, clamped, infinite, NaN.
    Extremes,
    /// Zeros of both signs.
    Zeros,
}

impl ActKind {
    fn draw<R: Rng>(rng: &mut R) -> Self {
        match rng.random_range(0..16) {
            0..5 => Self::Bell,
            5 => Self::Bits,
            6..12 => Self::Ties,
            12..15 => Self::Extremes,
            _ => Self::Zeros,
        }
    }
}

fn activations<R: Rng>(rng: &mut R, kind: ActKind) -> [f32; BLOCK] {
    let mut z = [0f32; BLOCK];
    let signed = |rng: &mut R, magnitude: f32| if rng.random() { -magnitude } else { magnitude };
    match kind {
        ActKind::Bell => {
            let width = (rng.random_range(-14.0..9.0f32)).exp2();
            // The sum of twelve uniform numbers is bell-shaped.
            z.fill_with(|| width * ((0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0));
        }
        ActKind::Bits => z.fill_with(|| bf16::from_bits(rng.random()).to_f32()),
        ActKind::Ties => {
            let scale = Ue4m3::from_bits(rng.random_range(1..=0x6f))
                .unwrap_or(Ue4m3::ONE)
                .to_f32();
            z.fill_with(|| {
                let tie = if rng.random() {
                    scale
                        * [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
                            .choose(rng)
                            .unwrap_or(&0.25)
                } else {
                    // Halfway between two E4M3 codes.
                    let code = rng.random_range(0..0x7d);
                    let value = |code| Ue4m3::from_bits(code).unwrap_or(Ue4m3::ZERO).to_f32();
                    (value(code) + value(code + 1)) / 2.0
                };
                let tie = tie.min(6.0 * scale);
                let bits = bf16::from_f32(tie).to_bits();
                let beside = [bits, bits, bits.saturating_add(1), bits.saturating_sub(1)];
                let chosen = *beside.choose(rng).unwrap_or(&bits);
                signed(rng, bf16::from_bits(chosen).to_f32())
            });
            // This amax gives the block exactly this scale.
            z[rng.random_range(0..BLOCK)] = 6.0 * scale;
        }
        ActKind::Extremes => z.fill_with(|| {
            const MAGNITUDES: [f32; 14] = [
                448.0,
                464.0,
                447.0,
                450.0,
                1e30,
                f32::INFINITY,
                1.0 / 512.0,
                1.0 / 1024.0,
                1.0 / 64.0,
                1e-30,
                1.2e-38,
                1e-40,
                0.0,
                2688.0,
            ];
            let magnitude = *MAGNITUDES.choose(rng).unwrap_or(&0.0);
            signed(rng, magnitude)
        }),
        ActKind::Zeros => z.fill_with(|| signed(rng, 0.0)),
    }
    if rng.random_range(0..24) == 0 {
        z[rng.random_range(0..BLOCK)] = f32::NAN;
    }
    z
}

fn sensitivities<R: Rng>(rng: &mut R) -> [Ue4m3; BLOCK] {
    let same = rng.random_range(0..=0x7e);
    let kind = rng.random_range(0..4);
    std::array::from_fn(|_| {
        let code = match kind {
            0 => same,
            1 => *[0u8, 0x7e, 1].choose(rng).unwrap_or(&0),
            _ => rng.random_range(0..=0x7e),
        };
        Ue4m3::from_bits(code).unwrap_or(Ue4m3::ZERO)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_batches_reach_both_formats_nan_and_a_score_equal_to_the_threshold() {
        let mut seen = QuantizerCoverage::default();
        for batch in RandomBatches::new(20_000, 1) {
            count(&batch, &mut seen);
        }
        for (what, count) in [
            ("FP4", seen.fp4_blocks),
            ("FP8", seen.fp8_blocks),
            ("NaN", seen.nan_blocks),
            ("padded", seen.padded_rows),
            ("scale 0", seen.zero_scale),
            ("largest scale", seen.largest_scale),
        ] {
            assert!(count > 500, "{what}: {count}");
        }
        assert!(seen.fp4_blocks + seen.fp8_blocks + seen.nan_blocks >= 20_000);
        assert!(
            seen.score_equals_threshold > 20,
            "I = T: {}",
            seen.score_equals_threshold
        );
    }

    #[test]
    fn a_seed_gives_the_same_batches() {
        let bits = |seed| -> Vec<u16> {
            RandomBatches::new(300, seed)
                .flat_map(|batch| batch.rows.into_iter().flat_map(|row| row.x))
                .map(bf16::to_bits)
                .collect()
        };
        assert_eq!(bits(4), bits(4));
        assert_ne!(bits(4), bits(5));
    }
}
