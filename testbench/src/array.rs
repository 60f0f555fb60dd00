//! The array's bench: tiles in, results out, every bit compared with `golden`. Twin of `hdl::array`.

mod shrink;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use golden::mac::{self, Accumulator, Mode};
use golden::packed::PackedTensor;
use golden::requantize::{OutputScale, requantize};
use hdl::decoder::BLOCK_BITS;

pub use shrink::MinimalCase;

use crate::design::{Design, Direction, Port, PortError, PortId, PortLookup};
use crate::report::{ClassSet, Coverage, FirstMismatch, PairsByMode, Report};
use crate::simulator::{SimError, Simulator};
use crate::stimulus::{RandomTiles, Tile, layer_tiles};
use crate::stream::{InputStream, OutputStream, Side, Stall, StreamJob, StreamPorts};
use crate::verilator::Verilator;
use golden::block::Block;

/// Steps that one job holds: enough to make its reset and call cheap, few enough to stay in the processor's caches.
const JOB_STEPS: usize = 2048;

/// Words of one block on a port.
const BLOCK_WORDS: usize = BLOCK_BITS.div_ceil(64);

/// The array's ports, found by name, and the shape that they tell.
#[derive(Debug, Clone)]
pub struct ArrayPorts {
    /// Rows: weight rows, output features.
    pub rows: usize,
    /// Columns: activation rows, tokens.
    pub cols: usize,
    /// Width of the raw accumulator, at most 64.
    pub acc_bits: usize,
    weight: StreamPorts,
    act: StreamPorts,
    out: StreamPorts,
    output_scale: PortId,
}

impl ArrayPorts {
    /// Finds `weight`, `act`, `out` and `output_scale`; rows and columns are counted from the data ports.
    ///
    /// # Errors
    /// [`PortError`] when a port is missing, or has another direction or width.
    pub fn find(ports: &[Port]) -> Result<Self, PortError> {
        let count = |prefix: &str| {
            (0..)
                .take_while(|index| ports.find_port(&format!("{prefix}{index}")).is_some())
                .count()
        };
        // With one row the loop below names the port that a bench can't do without.
        let rows = count("weight_data_").max(1);
        let cols = count("act_data_").max(1);
        let blocks = |stream: &str, count: usize| {
            let names: Vec<String> = (0..count).map(|index| format!("data_{index}")).collect();
            for name in &names {
                ports.port(
                    &format!("{stream}_{name}"),
                    Direction::Input,
                    Some(BLOCK_BITS),
                )?;
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            StreamPorts::find(ports, stream, Side::IntoDesign, &names)
        };
        let acc = ports.port("out_acc", Direction::Output, None)?;
        let acc_bits = ports[acc.0].width;
        ports.port("out_acc", Direction::Output, Some(acc_bits.min(64)))?;
        ports.port("out_data", Direction::Output, Some(16))?;
        ports.port("out_nan", Direction::Output, Some(1))?;
        ports.port("out_last", Direction::Output, Some(1))?;
        Ok(Self {
            rows,
            cols,
            acc_bits,
            weight: blocks("weight", rows)?,
            act: blocks("act", cols)?,
            out: StreamPorts::find(ports, "out", Side::OutOfDesign, &["data", "acc", "nan"])?,
            output_scale: ports.port("output_scale", Direction::Input, Some(32))?,
        })
    }
}

/// One result of the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayResult {
    /// Raw accumulator in units of 2⁻²⁰. Of no meaning with `nan`: numerics §4 defines only the flag.
    pub acc: i128,
    /// A NaN element went in.
    pub nan: bool,
    /// The requantized result, BF16 bits.
    pub bf16: u16,
    /// Whether it is the tile's last.
    pub last: bool,
}

impl ArrayResult {
    /// Whether a design may give `actual` where this is expected.
    pub fn allows(&self, actual: &Self) -> bool {
        self.nan == actual.nan
            && self.bf16 == actual.bf16
            && self.last == actual.last
            && (self.nan || self.acc == actual.acc)
    }
}

/// How a bench drives the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drive {
    /// Chance, in 256ths, that the weight stream pauses in a cycle.
    pub weight_stall: u8,
    /// Chance, in 256ths, that the activation stream pauses.
    pub act_stall: u8,
    /// Chance, in 256ths, that the result stream isn't ready.
    pub out_stall: u8,
    /// Seed of the three patterns.
    pub seed: u64,
    /// Check in every cycle that no valid waits for a ready.
    pub check_combinational: bool,
}

impl Drive {
    /// Streams that never hold back, for throughput.
    pub const FULL_SPEED: Self = Self {
        weight_stall: 0,
        act_stall: 0,
        out_stall: 0,
        seed: 0,
        check_combinational: false,
    };

    /// Pauses on all streams, other ones for every seed, and all rules checked.
    pub const fn stalling(seed: u64) -> Self {
        Self {
            weight_stall: 40,
            act_stall: 70,
            out_stall: 90,
            seed,
            check_combinational: true,
        }
    }
}

/// Where to write the waveform of a failing case.
#[derive(Debug, Clone)]
pub struct Waves {
    /// Builds the recording model.
    pub verilator: Verilator,
    /// The design.
    pub design: Design,
    /// The file, `.fst` or `.vcd`.
    pub file: PathBuf,
}

/// Drives an array and keeps the score.
pub struct ArrayBench<S> {
    simulator: S,
    ports: ArrayPorts,
    drive: Drive,
    scale: OutputScale,
    waves: Option<Waves>,
}

/// What is counted during a run.
#[derive(Default)]
struct Tally {
    vectors: u64,
    mismatches: u64,
    cycles: u64,
    simulating: Duration,
    pairs: PairsByMode,
    coverage: Coverage,
    first: Option<FirstMismatch>,
}

impl<S: Simulator> ArrayBench<S> {
    /// A bench for the array in `simulator`, at full speed, with M = 1.
    ///
    /// # Errors
    /// [`SimError::InvalidJob`] when the design's ports aren't an array's.
    pub fn new(simulator: S) -> Result<Self, SimError> {
        let ports = ArrayPorts::find(simulator.ports()).map_err(not_an_array)?;
        let scale = OutputScale::new(1.0).map_err(|error| SimError::InvalidJob {
            reason: error.to_string(),
        })?;
        Ok(Self {
            simulator,
            ports,
            drive: Drive::FULL_SPEED,
            scale,
            waves: None,
        })
    }

    /// Drives the streams in this way.
    #[must_use]
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drive = drive;
        self
    }

    /// Uses this M for requantizing.
    #[must_use]
    pub fn output_scale(mut self, scale: OutputScale) -> Self {
        self.scale = scale;
        self
    }

    /// Writes the waveform of the smallest failing case, should there be one.
    #[must_use]
    pub fn waves(mut self, waves: Waves) -> Self {
        self.waves = Some(waves);
        self
    }

    /// The array's shape.
    pub fn ports(&self) -> &ArrayPorts {
        &self.ports
    }

    /// Runs random tiles with at least `pairs_per_mode` block pairs of each mode (see [`RandomTiles`]), tiles of at most `longest` steps.
    /// `progress` is told the block pairs done so far.
    ///
    /// # Errors
    /// [`SimError`]: a rule of the streams is broken, the array hangs or stops. A wrong result is no error but in the report.
    pub fn random(
        &mut self,
        pairs_per_mode: u64,
        longest: usize,
        seed: u64,
        progress: impl FnMut(u64),
    ) -> Result<Report, SimError> {
        let tiles = RandomTiles::new(
            self.ports.rows,
            self.ports.cols,
            pairs_per_mode,
            longest,
            seed,
        );
        self.tiles(tiles, progress)
    }

    /// Runs a layer: `weights` (output features × K) times `activations` (tokens × K), tiled with zero blocks at the edges.
    ///
    /// # Errors
    /// As [`ArrayBench::random`]; [`SimError::InvalidJob`] when the two don't fit each other or the accumulator.
    pub fn layer(
        &mut self,
        weights: &PackedTensor,
        activations: &PackedTensor,
        progress: impl FnMut(u64),
    ) -> Result<Report, SimError> {
        if weights.row_blocks() != activations.row_blocks() {
            return Err(SimError::InvalidJob {
                reason: format!(
                    "weights have K = {}, activations K = {}",
                    weights.k(),
                    activations.k()
                ),
            });
        }
        let tiles = layer_tiles(weights, activations, self.ports.rows, self.ports.cols);
        self.tiles(tiles, progress)
    }

    /// Runs any tiles of the array's shape.
    ///
    /// # Errors
    /// As [`ArrayBench::random`]; [`SimError::InvalidJob`] when a tile has another shape or could overflow the accumulator.
    pub fn tiles(
        &mut self,
        tiles: impl IntoIterator<Item = Tile>,
        mut progress: impl FnMut(u64),
    ) -> Result<Report, SimError> {
        let started = Instant::now();
        let mut tally = Tally::default();
        let mut tiles = tiles.into_iter();
        let mut jobs = 0;
        loop {
            let mut batch: Vec<Tile> = Vec::new();
            let mut steps = 0;
            while steps < JOB_STEPS {
                let Some(tile) = tiles.next() else {
                    break;
                };
                self.fits(&tile)?;
                steps += tile.steps;
                batch.push(tile);
            }
            if batch.is_empty() {
                break;
            }
            self.batch(&batch, jobs, &mut tally)?;
            jobs += 1;
            progress(tally.pairs.total());
        }
        let seconds = started.elapsed().as_secs_f64();
        let per_second = |count: u64, seconds: f64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        Ok(Report {
            simulator: self.simulator.name().to_owned(),
            vectors: tally.vectors,
            mismatches: tally.mismatches,
            cycles: tally.cycles,
            seconds,
            cycles_per_second: per_second(tally.cycles, tally.simulating.as_secs_f64()),
            pairs_per_second: per_second(tally.pairs.total(), seconds),
            pairs_by_mode: tally.pairs,
            coverage: tally.coverage,
            first_mismatch: tally.first,
        })
    }

    fn fits(&self, tile: &Tile) -> Result<(), SimError> {
        let ArrayPorts {
            rows,
            cols,
            acc_bits,
            ..
        } = self.ports;
        if tile.steps == 0
            || tile.weight.len() != tile.steps * rows
            || tile.act.len() != tile.steps * cols
        {
            return Err(SimError::InvalidJob {
                reason: format!("a tile isn't one of a {rows}×{cols} array"),
            });
        }
        let k = tile.steps * golden::format::BLOCK;
        let needed = mac::acc_bits(k) as usize;
        if needed > acc_bits {
            return Err(SimError::InvalidJob {
                reason: format!(
                    "K = {k} needs an accumulator of {needed} bits, the array's has {acc_bits}"
                ),
            });
        }
        Ok(())
    }

    fn batch(&mut self, tiles: &[Tile], number: u64, tally: &mut Tally) -> Result<(), SimError> {
        let drive = Drive {
            seed: self.drive.seed.wrapping_add(number.wrapping_mul(3)),
            ..self.drive
        };
        let mut job = self.job(tiles, drive)?;
        let before = Instant::now();
        let ran = self.simulator.run(&mut job);
        tally.simulating += before.elapsed();
        let stats = ran?;
        tally.cycles += stats.cycles;
        let actual = self.results(&job);
        let mut failing: VecDeque<(usize, usize, usize, ArrayResult, ArrayResult)> =
            VecDeque::new();
        let per_tile = self.ports.rows * self.ports.cols;
        for (index, (tile, actual)) in tiles.iter().zip(actual.chunks(per_tile)).enumerate() {
            self.count(tile, tally);
            for (at, actual) in actual.iter().enumerate() {
                let (row, col) = (at % self.ports.rows, at / self.ports.rows);
                let expected = self.expected(tile, row, col);
                tally.vectors += 1;
                if !expected.allows(actual) {
                    tally.mismatches += 1;
                    failing.push_back((index, row, col, expected, *actual));
                }
            }
        }
        if let (None, Some((index, row, col, expected, actual))) =
            (&tally.first, failing.pop_front())
        {
            tally.first = Some(self.investigate(&tiles[index], row, col, expected, actual)?);
        }
        Ok(())
    }

    fn count(&self, tile: &Tile, tally: &mut Tally) {
        let sets = |blocks: &[Block]| -> Vec<(ClassSet, ClassSet)> {
            blocks
                .iter()
                .map(|block| (ClassSet::of_elements(block), ClassSet::of_scale(block)))
                .collect()
        };
        for (weight, act) in tile
            .weight
            .chunks(self.ports.rows)
            .zip(tile.act.chunks(self.ports.cols))
        {
            let (weight, act) = (&weight[..tile.live_rows], &act[..tile.live_cols]);
            let (weight_sets, act_sets) = (sets(weight), sets(act));
            for (w, (w_elements, w_scale)) in weight.iter().zip(&weight_sets) {
                for (a, (a_elements, a_scale)) in act.iter().zip(&act_sets) {
                    let mode = Mode::of(w, a);
                    tally.pairs.add(mode);
                    let seen = tally.coverage.mode(mode);
                    seen.weight.add(*w_elements);
                    seen.weight_scale.add(*w_scale);
                    seen.act.add(*a_elements);
                    seen.act_scale.add(*a_scale);
                }
            }
        }
    }

    /// What the golden model gives for one result of a tile.
    fn expected(&self, tile: &Tile, row: usize, col: usize) -> ArrayResult {
        let mut sum = Accumulator::new();
        for step in 0..tile.steps {
            sum.add(
                &tile.weight[step * self.ports.rows + row],
                &tile.act[step * self.ports.cols + col],
            );
        }
        ArrayResult {
            acc: sum.value(),
            nan: sum.is_nan(),
            bf16: requantize(sum.value(), sum.is_nan(), self.scale).to_bits(),
            last: row + 1 == self.ports.rows && col + 1 == self.ports.cols,
        }
    }

    /// The job that sends these tiles.
    fn job(&self, tiles: &[Tile], drive: Drive) -> Result<StreamJob, SimError> {
        let mut job = StreamJob::new(self.simulator.ports()).map_err(not_an_array)?;
        let steps: usize = tiles.iter().map(|tile| tile.steps).sum();
        let beats = |side: fn(&Tile) -> &[Block], count: usize| {
            let mut words = Vec::with_capacity(steps * (count * BLOCK_WORDS + 1));
            for tile in tiles {
                for (step, blocks) in side(tile).chunks(count).enumerate() {
                    for block in blocks {
                        words.extend(block_words(block));
                    }
                    words.push(u64::from(step + 1 == tile.steps));
                }
            }
            words
        };
        let stall = |chance, offset| Stall {
            chance,
            seed: drive.seed.wrapping_add(offset),
        };
        job.constants.push((
            self.ports.output_scale,
            vec![u64::from(self.scale.get().to_bits())],
        ));
        job.inputs.push(InputStream {
            ports: self.ports.weight.clone(),
            beats: beats(|tile| &tile.weight, self.ports.rows),
            stall: stall(drive.weight_stall, 0),
        });
        job.inputs.push(InputStream {
            ports: self.ports.act.clone(),
            beats: beats(|tile| &tile.act, self.ports.cols),
            stall: stall(drive.act_stall, 1),
        });
        job.outputs.push(OutputStream {
            ports: self.ports.out.clone(),
            expected: tiles.len() * self.ports.rows * self.ports.cols,
            stall: stall(drive.out_stall, 2),
            collected: Vec::new(),
        });
        job.check_combinational = drive.check_combinational;
        Ok(job)
    }

    /// The results that a job's run collected, token by token.
    fn results(&self, job: &StreamJob) -> Vec<ArrayResult> {
        let unused = 64 - self.ports.acc_bits.min(64);
        job.outputs
            .first()
            .map(|out| out.collected.as_chunks::<4>().0)
            .unwrap_or_default()
            .iter()
            .map(|[data, acc, nan, last]| ArrayResult {
                acc: i128::from((acc << unused) as i64 >> unused),
                nan: *nan == 1,
                bf16: *data as u16,
                last: *last == 1,
            })
            .collect()
    }

    /// Makes the failing result's case as small as it goes and writes its waveform.
    fn investigate(
        &mut self,
        tile: &Tile,
        row: usize,
        col: usize,
        expected: ArrayResult,
        actual: ArrayResult,
    ) -> Result<FirstMismatch, SimError> {
        let case = self.shrink(tile, row, col, expected, actual)?;
        let mut waveform = None;
        if let Some(waves) = &self.waves {
            let mut job = self.job(std::slice::from_ref(&case.tile), case.drive)?;
            // The case may also break a rule: the waveform is written all the same.
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
        Ok(FirstMismatch {
            description: case.to_string(),
            expected: shrink::hex(&case.expected),
            actual: shrink::hex(&case.actual),
            smallest_case: case.tile.steps,
            waveform,
        })
    }
}

/// A block as the array's ports carry it: two words of payload, then scale and tag.
fn block_words(block: &Block) -> [u64; BLOCK_WORDS] {
    let packed = block.pack();
    [
        packed.payload as u64,
        (packed.payload >> 64) as u64,
        u64::from(packed.scale) | u64::from(packed.tag) << 8,
    ]
}

fn not_an_array(error: PortError) -> SimError {
    SimError::InvalidJob {
        reason: format!("this is no array: {error}"),
    }
}
