//! Weights of any size, quantized tensor by tensor in bounded memory, and resumed where an interrupted run stopped.
//!
//! One threshold serves all weights, so that no block can be written before every block is scored. A run
//! therefore has three stages, each of which leaves its results in a work folder beside the output:
//! **score** (S, FP4 scale and impact score of every block), **select** (the threshold, by counting the digits of
//! the scores), **pack** (the three streams of every tensor). The output is then put together and takes its
//! name at once. What a stage has finished of a tensor is never done again. The bits are those of
//! [`golden::quantizer::quantize_weights`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use golden::block::bits_per_element;
use golden::format::{BLOCK, Ue4m3};
use golden::packed::{PackedTensor, TensorScale, TensorScaleError, packed_metadata};
use golden::profiles;
use golden::quantizer::{Candidates, QuantizeError, WeightOptions, pack_rows, score_rows};
use golden::tensors::{METADATA_KEY, write_atomically};
use golden::{Scheme, Selection};
use rayon::prelude::*;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::CheckpointError;

/// Elements of a tensor in memory at a time, at least one group of rows: 16 MB in FP32.
const CHUNK_ELEMENTS: usize = 1 << 22;
/// Rows come in groups whose tags fill whole bytes, whatever their length.
const ROW_GROUP: usize = 8;

/// Why weights can't be quantized as a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The checkpoint, or that of the sensitivities, is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The options don't go together.
    #[error(transparent)]
    Options(#[from] QuantizeError),
    /// A file of the work folder or the output can't be written or read back.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A tensor can't be quantized.
    #[error("tensor {tensor}: {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The caller stopped it; it can be resumed.
    #[error("interrupted; the same command goes on where it stopped")]
    Interrupted,
    /// There is nothing to quantize.
    #[error(
        "nothing to quantize: expected F32, F16 or BF16 tensors of two or more dimensions, found {0}"
    )]
    Nothing(String),
}

/// What to quantize, how, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The weights.
    pub checkpoint: &'a Checkpoint,
    /// Squared gradients under the weights' names; those without weigh the same everywhere.
    pub sensitivity: Option<&'a Checkpoint>,
    /// How.
    pub options: WeightOptions,
    /// The packed file to be.
    pub output: &'a Path,
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step<'a> {
    /// `scoring`, `selecting`, `packing` or `writing`.
    pub stage: &'static str,
    /// The tensor at hand.
    pub tensor: &'a str,
    /// Elements done in all stages.
    pub done: u64,
    /// Elements of all stages.
    pub all: u64,
}

/// What became of a tensor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamedTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// S.
    pub scale: TensorScale,
    /// Its blocks.
    pub blocks: usize,
    /// Those that became FP8.
    pub fp8_blocks: usize,
    /// Bits of the three streams for each element.
    pub bits_per_element: f64,
    /// Mean squared error of the decoded values.
    pub mse: f64,
}

/// Whether a tensor is packed: floats of two dimensions or more, and of a model only the matrices of its layers.
fn is_packed(info: &TensorInfo, model: bool) -> bool {
    let wanted =
        !model || (info.name.starts_with("model.layers.") && info.name.ends_with("_proj.weight"));
    wanted && info.shape.len() >= 2 && info.stored.is_float()
}

/// Quantizes; see the [module](self).
///
/// `progress` is told of every chunk, and may stop the run. A run that was killed at any time goes on where it was when it is called
/// again with the same job; the work folder is the output's name with `.partial` appended, and is removed at the end.
/// It needs about 9 bytes a block and the size of the output on disk.
///
/// # Errors
/// A tensor can't be read, is not finite or empty, or the disk refuses. The output is then absent or as it was.
pub fn quantize(
    job: Job<'_>,
    progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<StreamedTensor>, StreamError> {
    let mut progress = |step: Step<'_>| match progress(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(StreamError::Interrupted),
    };
    job.options.check()?;
    let model = job.checkpoint.tensor("model.embed_tokens.weight").is_some();
    let packed: Vec<&TensorInfo> = job
        .checkpoint
        .tensors()
        .filter(|info| is_packed(info, model))
        .collect();
    if let Some(info) = job
        .checkpoint
        .tensors()
        .find(|info| !info.stored.is_float() && !info.stored.is_integer())
    {
        return Err(fault(
            &info.name,
            format!("expected F32, F16 or BF16, found {}", info.stored),
        ));
    }
    if packed.is_empty() {
        let found: Vec<String> = job
            .checkpoint
            .tensors()
            .map(|info| format!("{} ({}, shape {:?})", info.name, info.stored, info.shape))
            .collect();
        return Err(StreamError::Nothing(if found.is_empty() {
            "none at all".to_owned()
        } else {
            found.join(", ")
        }));
    }
    if let Some(info) = packed.iter().find(|info| info.shape.contains(&0)) {
        return Err(fault(
            &info.name,
            format!(
                "has shape {:?}; the reduction dimension K and all others must be at least 1",
                info.shape
            ),
        ));
    }
    let work = Work::open(job, &packed)?;
    let result = work.run(&packed, &mut progress);
    if matches!(
        result,
        Err(StreamError::Tensor { .. } | StreamError::Options(_) | StreamError::Checkpoint(_))
    ) {
        // Another run would end as this one did. The first error is the one to report.
        let _ = fs::remove_dir_all(&work.folder);
    }
    result
}

fn fault(tensor: &str, reason: impl Into<String>) -> StreamError {
    StreamError::Tensor {
        tensor: tensor.into(),
        reason: reason.into(),
    }
}

/// What scoring leaves of a tensor beside the scores themselves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Scored {
    scale: TensorScale,
    amax: f32,
    blocks: u64,
}

/// The folder that a run's intermediate results are in.
struct Work<'a> {
    job: Job<'a>,
    folder: PathBuf,
}

impl<'a> Work<'a> {
    /// Takes an interrupted run's folder if it was about the same job, else begins a new one.
    fn open(job: Job<'a>, packed: &[&TensorInfo]) -> Result<Self, StreamError> {
        let mut name = job.output.as_os_str().to_owned();
        name.push(".partial");
        let work = Self {
            job,
            folder: name.into(),
        };
        let description = work.describe(packed)?;
        let file = work.folder.join("job.json");
        if fs::read(&file).is_ok_and(|found| found == description.as_bytes()) {
            return Ok(work);
        }
        let io = |path: &Path, source| StreamError::Io {
            path: path.into(),
            source,
        };
        if work.folder.exists() {
            if !file.exists() {
                return Err(io(
                    &work.folder,
                    std::io::Error::new(
                        std::io::ErrorKind::AlreadyExists,
                        "exists and is not of an interrupted run; remove it",
                    ),
                ));
            }
            fs::remove_dir_all(&work.folder).map_err(|e| io(&work.folder, e))?;
        }
        fs::create_dir_all(&work.folder).map_err(|e| io(&work.folder, e))?;
        write_atomically(&file, description.as_bytes()).map_err(|e| io(&file, e))?;
        Ok(work)
    }

    /// Everything that the results depend on, but the contents of files whose size and time stayed the same.
    fn describe(&self, packed: &[&TensorInfo]) -> Result<String, StreamError> {
        let mut files = Vec::new();
        let checkpoints = [Some(self.job.checkpoint), self.job.sensitivity];
        for path in checkpoints
            .into_iter()
            .flatten()
            .flat_map(Checkpoint::files)
        {
            let io = |source| StreamError::Io {
                path: path.clone(),
                source,
            };
            let metadata = fs::metadata(path).map_err(io)?;
            let modified = metadata
                .modified()
                .map_err(io)?
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_nanos());
            let full = fs::canonicalize(path).map_err(io)?;
            files.push(format!("{} {} {modified}", full.display(), metadata.len()));
        }
        let tensors: Vec<_> = packed
            .iter()
            .map(|info| format!("{} {:?} {}", info.name, info.shape, info.stored))
            .collect();
        Ok(format!(
            "{:#}",
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "numerics_version": golden::NUMERICS_VERSION,
                "options": format!("{:?}", self.job.options),
                "files": files,
                "tensors": tensors,
            })
        ))
    }

    /// All stages.
    fn run(
        &self,
        packed: &[&TensorInfo],
        progress: &mut dyn FnMut(Step<'_>) -> Result<(), StreamError>,
    ) -> Result<Vec<StreamedTensor>, StreamError> {
        let elements = |info: &TensorInfo| (info.rows() * info.width()) as u64;
        let stages = if self.needs_scores() { 2 } else { 1 };
        let all = stages * packed.iter().map(|info| elements(info)).sum::<u64>();
        let mut done = 0;
        let mut scored = Vec::new();
        for (index, info) in packed.iter().enumerate() {
            let start = done;
            scored.push(self.score(index, info, &mut |elements| {
                progress(Step {
                    stage: "scoring",
                    tensor: &info.name,
                    done: start + elements,
                    all,
                })
            })?);
            if self.needs_scores() {
                done += elements(info);
            }
        }
        // Kept, because packing a tensor removes its scores. As bits: JSON has no infinities.
        let file = self.folder.join("thresholds.json");
        let kept: Option<Vec<u64>> = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let thresholds: Vec<f64> = match kept {
            Some(bits) => bits.into_iter().map(f64::from_bits).collect(),
            None => {
                let found = self.thresholds(&scored, &mut |tensor| {
                    progress(Step {
                        stage: "selecting",
                        tensor,
                        done,
                        all,
                    })
                })?;
                let bits: Vec<u64> = found.iter().map(|t| t.to_bits()).collect();
                serde_json::to_vec(&bits)
                    .map_err(std::io::Error::from)
                    .and_then(|bytes| write_atomically(&file, &bytes))
                    .map_err(|source| StreamError::Io { path: file, source })?;
                found
            }
        };
        let mut tensors = Vec::new();
        for (index, (info, threshold)) in packed.iter().zip(thresholds).enumerate() {
            let start = done;
            let Some(scored) = scored.get(index) else {
                continue;
            };
            tensors.push(self.pack(index, info, scored, threshold, &mut |elements| {
                progress(Step {
                    stage: "packing",
                    tensor: &info.name,
                    done: start + elements,
                    all,
                })
            })?);
            done += elements(info);
        }
        progress(Step {
            stage: "writing",
            tensor: "",
            done,
            all,
        })?;
        self.assemble(&tensors)?;
        Ok(tensors)
    }

    fn needs_scores(&self) -> bool {
        matches!(self.job.options.scheme, Scheme::Fgmp { .. }) || self.job.options.clip
    }

    fn path(&self, index: usize, stream: &str) -> PathBuf {
        self.folder.join(format!("{index:05}.{stream}"))
    }

    fn read_json<T: for<'de> Deserialize<'de>>(&self, index: usize, stream: &str) -> Option<T> {
        let bytes = fs::read(self.path(index, stream)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn write_json(
        &self,
        index: usize,
        stream: &str,
        value: &impl Serialize,
    ) -> Result<(), StreamError> {
        let path = self.path(index, stream);
        serde_json::to_vec(value)
            .map_err(std::io::Error::from)
            .and_then(|bytes| write_atomically(&path, &bytes))
            .map_err(|source| StreamError::Io { path, source })
    }

    /// Scores and FP4 scales of a tensor's blocks, and its S, unless they are there already.
    fn score(
        &self,
        index: usize,
        info: &TensorInfo,
        progress: &mut dyn FnMut(u64) -> Result<(), StreamError>,
    ) -> Result<Scored, StreamError> {
        if let Some(scored) = self.read_json(index, "scored") {
            return Ok(scored);
        }
        let mut amax = 0f32;
        self.each_chunk(info, |first, chunk| {
            let bad = chunk.iter().position(|x| !x.is_finite());
            if let Some(at) = bad {
                let element = first * info.width() + at;
                return Err(fault(
                    &info.name,
                    format!(
                        "element {element} is {}; weights must be finite",
                        chunk.get(at).copied().unwrap_or_default()
                    ),
                ));
            }
            amax = chunk
                .par_iter()
                .fold(|| 0f32, |amax, x| amax.max(x.abs()))
                .reduce(|| 0.0, f32::max)
                .max(amax);
            Ok(())
        })?;
        let scale = TensorScale::of_amax(amax, self.job.options.profile)
            .map_err(|e: TensorScaleError| fault(&info.name, e.to_string()))?;
        let blocks = (info.rows() * info.width().div_ceil(BLOCK)) as u64;
        let scored = Scored {
            scale,
            amax,
            blocks,
        };
        if self.needs_scores() {
            let mut scores = self.create(index, "scores")?;
            let mut scales = self.create(index, "codes")?;
            let unit = match self.job.options.selection {
                Selection::Random(_) => 1.0,
                Selection::Global | Selection::Pairs | Selection::PerLayer => {
                    f64::from(scale.get()).powi(2)
                }
            };
            self.each_chunk(info, |first, chunk| {
                let sensitivity = self.sensitivity(info, first, chunk.len())?;
                let found = self.candidates(info, scale, chunk, sensitivity.as_deref())?;
                let first_block = first * info.width().div_ceil(BLOCK);
                let score =
                    |(at, candidates): (usize, &Candidates)| match self.job.options.selection {
                        Selection::Random(seed) => {
                            Selection::random_score(seed, index, first_block + at)
                        }
                        _ => candidates.score * unit,
                    };
                let bytes: Vec<u8> = found
                    .iter()
                    .enumerate()
                    .flat_map(|both| score(both).to_le_bytes())
                    .collect();
                scores.write(&bytes)?;
                let codes: Vec<u8> = found.iter().map(|c| c.scale.to_bits()).collect();
                scales.write(&codes)?;
                progress((first * info.width() + chunk.len()) as u64)
            })?;
            scores.finish()?;
            scales.finish()?;
        }
        self.write_json(index, "scored", &scored)?;
        Ok(scored)
    }

    /// Both forms of every block of a chunk, by threads.
    fn candidates(
        &self,
        info: &TensorInfo,
        scale: TensorScale,
        chunk: &[f32],
        sensitivity: Option<&[f32]>,
    ) -> Result<Vec<Candidates>, StreamError> {
        let (width, clip) = (info.width(), self.job.options.clip);
        let part = part_elements(width);
        let parts: Vec<Vec<Candidates>> = chunk
            .par_chunks(part)
            .enumerate()
            .map(|(index, rows)| {
                let start = index * part;
                let f = sensitivity.and_then(|f| f.get(start..start + rows.len()));
                score_rows(rows, width, f, scale, clip)
                    .map_err(|e| fault(&info.name, e.to_string()))
            })
            .collect::<Result<_, _>>()?;
        Ok(parts.concat())
    }

    /// Rows packed with the scales chosen for their blocks, FP8 for `None`, by threads: parts whose streams follow one another.
    fn packed(
        &self,
        info: &TensorInfo,
        scored: &Scored,
        chunk: &[f32],
        choices: &[Option<Ue4m3>],
    ) -> Result<Vec<PackedTensor>, StreamError> {
        let width = info.width();
        let part = part_elements(width);
        let part_blocks = part / width * width.div_ceil(BLOCK);
        let profile = self.job.options.profile;
        chunk
            .par_chunks(part)
            .enumerate()
            .map(|(index, rows)| {
                if profile.is_recipe() {
                    let shape = [rows.len() / width, width];
                    let made = profiles::quantize_with_amax(
                        &info.name,
                        &shape,
                        rows,
                        profile,
                        scored.amax,
                    )?;
                    return Ok(made.tensor);
                }
                let start = index * part_blocks;
                let end = start + rows.len() / width * width.div_ceil(BLOCK);
                let choices = choices.get(start..end).unwrap_or_default();
                pack_rows(rows, width, scored.scale, choices)
                    .map_err(|e| fault(&info.name, e.to_string()))
            })
            .collect()
    }

    /// The squared gradients of a chunk's elements.
    fn sensitivity(
        &self,
        info: &TensorInfo,
        first_row: usize,
        elements: usize,
    ) -> Result<Option<Vec<f32>>, StreamError> {
        let Some(checkpoint) = self.job.sensitivity else {
            return Ok(None);
        };
        let Some(found) = checkpoint.tensor(&info.name) else {
            return Ok(None);
        };
        if found.shape != info.shape {
            return Err(fault(
                &info.name,
                format!(
                    "has shape {:?}, its squared gradients {:?}",
                    info.shape, found.shape
                ),
            ));
        }
        let rows = first_row..first_row + elements / info.width();
        let values = checkpoint.read_rows(&info.name, rows)?;
        if let Some(bad) = values.iter().find(|f| !f.is_finite() || **f < 0.0) {
            return Err(fault(
                &info.name,
                format!("squared gradient {bad} is negative or not finite"),
            ));
        }
        Ok(Some(values))
    }

    /// The threshold of each tensor; see [`golden::Share::threshold`].
    fn thresholds(
        &self,
        scored: &[Scored],
        progress: &mut dyn FnMut(&str) -> Result<(), StreamError>,
    ) -> Result<Vec<f64>, StreamError> {
        let all: Vec<usize> = (0..scored.len()).collect();
        match self.job.options.scheme {
            Scheme::Nvfp4 => Ok(vec![f64::INFINITY; scored.len()]),
            Scheme::Bf16 | Scheme::Fp8 => Ok(vec![f64::NEG_INFINITY; scored.len()]),
            Scheme::Fgmp { fp8_share } => {
                let groups: Vec<&[usize]> = match self.job.options.selection {
                    Selection::PerLayer => all.chunks(1).collect(),
                    Selection::Global | Selection::Pairs | Selection::Random(_) => vec![&all],
                };
                let mut thresholds = Vec::new();
                for group in groups {
                    progress("")?;
                    let blocks: u64 = group
                        .iter()
                        .filter_map(|&index| scored.get(index))
                        .map(|scored| scored.blocks)
                        .sum();
                    // p·n is not negative, and the cast is the floor.
                    let rank = (fp8_share.get() * blocks as f64) as u64;
                    let threshold = if rank >= blocks {
                        f64::NEG_INFINITY
                    } else {
                        self.largest(group, rank)?
                    };
                    thresholds.extend(group.iter().map(|_| threshold));
                }
                Ok(thresholds)
            }
        }
    }

    /// The score that has `rank` others above it or equal to it in order, found 16 bits at a time from the top.
    ///
    /// Bits of numbers that are not negative are ordered as the numbers are.
    fn largest(&self, group: &[usize], mut rank: u64) -> Result<f64, StreamError> {
        const DIGIT: u32 = 16;
        let mut prefix = 0u64;
        for digit in 0..u64::BITS / DIGIT {
            let shift = u64::BITS - DIGIT * (digit + 1);
            let mut counts = vec![0u64; 1 << DIGIT];
            for &index in group {
                self.each_score(index, |bits| {
                    // All of it at the first digit, whose shift would be out of range.
                    let above = bits.checked_shr(shift + DIGIT).unwrap_or(0);
                    if above == prefix
                        && let Some(count) = counts.get_mut((bits >> shift & 0xFFFF) as usize)
                    {
                        *count += 1;
                    }
                })?;
            }
            let mut found = 0;
            for (value, &count) in counts.iter().enumerate().rev() {
                if rank < count {
                    found = value as u64;
                    break;
                }
                rank -= count;
            }
            prefix = prefix << DIGIT | found;
        }
        Ok(f64::from_bits(prefix))
    }

    fn each_score(&self, index: usize, mut see: impl FnMut(u64)) -> Result<(), StreamError> {
        let path = self.path(index, "scores");
        let io = |source| StreamError::Io {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(io)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let mut filled = 0;
            // Whole scores, whatever a read gives.
            while filled < buffer.len() {
                let free = buffer.get_mut(filled..).unwrap_or_default();
                match file.read(free).map_err(io)? {
                    0 => break,
                    read => filled += read,
                }
            }
            let (scores, _) = buffer.get(..filled).unwrap_or_default().as_chunks::<8>();
            scores
                .iter()
                .for_each(|&score| see(u64::from_le_bytes(score)));
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    /// The three streams of a tensor, unless they are there already.
    fn pack(
        &self,
        index: usize,
        info: &TensorInfo,
        scored: &Scored,
        threshold: f64,
        progress: &mut dyn FnMut(u64) -> Result<(), StreamError>,
    ) -> Result<StreamedTensor, StreamError> {
        if let Some(tensor) = self.read_json(index, "packed") {
            return Ok(tensor);
        }
        let mut streams = [
            self.create(index, "payload")?,
            self.create(index, "scales")?,
            self.create(index, "tags")?,
        ];
        let mut stored = if self.needs_scores() {
            Some((self.reader(index, "scores")?, self.reader(index, "codes")?))
        } else {
            None
        };
        let width = info.width();
        let row_blocks = width.div_ceil(BLOCK);
        let (mut blocks, mut fp8_blocks, mut squares) = (0, 0, 0f64);
        self.each_chunk(info, |first, chunk| {
            let wanted = chunk.len() / width * row_blocks;
            let found = match &mut stored {
                Some((scores, codes)) => {
                    read_candidates(scores, codes, wanted).map_err(|source| StreamError::Io {
                        path: self.path(index, "scores"),
                        source,
                    })?
                }
                // A recipe needs none.
                None if self.job.options.profile.is_recipe() => Vec::new(),
                None => self.candidates(info, scored.scale, chunk, None)?,
            };
            let choices: Vec<Option<Ue4m3>> = found
                .iter()
                .map(|c| (c.score <= threshold).then_some(c.scale))
                .collect();
            let parts = self.packed(info, scored, chunk, &choices)?;
            squares += parts
                .par_iter()
                .zip(chunk.par_chunks(part_elements(width)))
                .map(|(part, rows)| {
                    rows.iter()
                        .zip(part.decode())
                        .map(|(x, y)| (f64::from(*x) - f64::from(y)).powi(2))
                        .sum::<f64>()
                })
                .collect::<Vec<_>>()
                .iter()
                .sum::<f64>();
            for part in &parts {
                blocks += part.block_count();
                fp8_blocks += part.fp8_blocks();
                write_streams(&mut streams, part)?;
            }
            progress((first * width + chunk.len()) as u64)
        })?;
        for stream in streams {
            stream.finish()?;
        }
        let elements = (info.rows() * width) as f64;
        let padded = (blocks * BLOCK) as f64;
        let bits = bits_per_element(fp8_blocks as f64 / blocks as f64) * padded;
        let tensor = StreamedTensor {
            name: info.name.clone(),
            shape: info.shape.clone(),
            scale: scored.scale,
            blocks,
            fp8_blocks,
            bits_per_element: bits / elements,
            mse: squares / elements,
        };
        self.write_json(index, "packed", &tensor)?;
        // Their place is needed no more; if they stay, the end removes them.
        for stream in ["scores", "codes"] {
            let _ = fs::remove_file(self.path(index, stream));
        }
        Ok(tensor)
    }

    /// The output, from what the work folder holds and from the tensors that stay as they are.
    fn assemble(&self, tensors: &[StreamedTensor]) -> Result<(), StreamError> {
        let failure = Mutex::new(None);
        let mut parts = Vec::new();
        for (index, tensor) in tensors.iter().enumerate() {
            let streams = [
                ("payload", Dtype::U8),
                ("scales", Dtype::F8_E4M3),
                ("tags", Dtype::U8),
            ];
            for (stream, dtype) in streams {
                let path = self.path(index, stream);
                let length = fs::metadata(&path)
                    .map_err(|source| StreamError::Io {
                        path: path.clone(),
                        source,
                    })?
                    .len() as usize;
                parts.push((
                    format!("{}.{stream}", tensor.name),
                    Part {
                        dtype,
                        shape: vec![length],
                        bytes: length,
                        source: Source::File(path),
                        failure: &failure,
                    },
                ));
            }
            parts.push((
                format!("{}.tensor_scale", tensor.name),
                Part {
                    dtype: Dtype::F32,
                    shape: vec![1],
                    bytes: 4,
                    source: Source::Bytes(tensor.scale.get().to_le_bytes().to_vec()),
                    failure: &failure,
                },
            ));
        }
        for info in self.job.checkpoint.tensors() {
            if tensors.iter().any(|tensor| tensor.name == info.name) {
                continue;
            }
            let (dtype, bytes) = self.job.checkpoint.raw_type(&info.name)?;
            parts.push((
                info.name.clone(),
                Part {
                    dtype,
                    shape: info.shape.clone(),
                    bytes,
                    source: Source::Checkpoint(self.job.checkpoint, &info.name),
                    failure: &failure,
                },
            ));
        }
        let shapes: BTreeMap<String, Vec<usize>> = tensors
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
            .collect();
        let metadata = [(METADATA_KEY.to_owned(), packed_metadata(shapes).to_string())];
        let whole = self.folder.join("whole");
        safetensors::serialize_to_file(parts, Some(metadata.into_iter().collect()), &whole)
            .map_err(|e| fault(&self.job.output.display().to_string(), e.to_string()))?;
        let io = |path: &Path, source| StreamError::Io {
            path: path.into(),
            source,
        };
        // A source that failed while it was written left zeros, and its reason.
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(error);
        }
        File::open(&whole)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&whole, self.job.output))
            .map_err(|e| io(self.job.output, e))?;
        fs::remove_dir_all(&self.folder).map_err(|e| io(&self.folder, e))
    }

    /// Gives the rows of a tensor in chunks, each with the number of its first row.
    fn each_chunk(
        &self,
        info: &TensorInfo,
        mut see: impl FnMut(usize, &[f32]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        let step = (CHUNK_ELEMENTS / info.width().max(1)).next_multiple_of(ROW_GROUP);
        let step = step.max(ROW_GROUP);
        let mut first = 0;
        while first < info.rows() {
            let last = info.rows().min(first + step);
            see(
                first,
                &self.job.checkpoint.read_rows(&info.name, first..last)?,
            )?;
            first = last;
        }
        Ok(())
    }

    fn create(&self, index: usize, stream: &str) -> Result<Stream, StreamError> {
        let path = self.path(index, stream);
        match File::create(&path) {
            Ok(file) => Ok(Stream {
                path,
                file: BufWriter::new(file),
            }),
            Err(source) => Err(StreamError::Io { path, source }),
        }
    }

    fn reader(&self, index: usize, stream: &str) -> Result<BufReader<File>, StreamError> {
        let path = self.path(index, stream);
        File::open(&path)
            .map(BufReader::new)
            .map_err(|source| StreamError::Io { path, source })
    }
}

/// A file of the work folder while it is written.
struct Stream {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.file
            .write_all(bytes)
            .map_err(|source| StreamError::Io {
                path: self.path.clone(),
                source,
            })
    }

    /// On disk when the note that it is complete is.
    fn finish(mut self) -> Result<(), StreamError> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|source| StreamError::Io {
                path: self.path,
                source,
            })
    }
}

/// Appends payload, scales and tags, in this order, of whole rows to their files.
fn write_streams(streams: &mut [Stream; 3], part: &PackedTensor) -> Result<(), StreamError> {
    let payload: Vec<u8> = part
        .payload()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    for (stream, bytes) in streams
        .iter_mut()
        .zip([payload.as_slice(), part.scales(), part.tags()])
    {
        stream.write(bytes)?;
    }
    Ok(())
}

fn read_candidates(
    scores: &mut impl Read,
    codes: &mut impl Read,
    blocks: usize,
) -> std::io::Result<Vec<Candidates>> {
    let mut score_bytes = vec![0; 8 * blocks];
    let mut code_bytes = vec![0; blocks];
    scores.read_exact(&mut score_bytes)?;
    codes.read_exact(&mut code_bytes)?;
    Ok(score_bytes
        .as_chunks::<8>()
        .0
        .iter()
        .zip(code_bytes)
        .map(|(&score, code)| Candidates {
            scale: Ue4m3::from_bits(code).unwrap_or_default(),
            score: f64::from_le_bytes(score),
            nan: false,
        })
        .collect())
}

/// Elements of the rows that a thread takes at a time: groups of rows, so that the tags of a part fill whole bytes.
fn part_elements(width: usize) -> usize {
    /// Enough for the kernels, few enough for all threads to have some.
    const ELEMENTS: usize = 1 << 16;
    width
        * (ELEMENTS / width.max(1))
            .next_multiple_of(ROW_GROUP)
            .max(ROW_GROUP)
}

/// A tensor of the output, read when it is written.
struct Part<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
    source: Source<'a>,
    /// Where the first failure is noted: a view can't return one.
    failure: &'a Mutex<Option<StreamError>>,
}

enum Source<'a> {
    File(PathBuf),
    Bytes(Vec<u8>),
    Checkpoint(&'a Checkpoint, &'a str),
}

impl Part<'_> {
    fn read(&self) -> Result<Vec<u8>, StreamError> {
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::File(path) => fs::read(path).map_err(|source| StreamError::Io {
                path: path.clone(),
                source,
            }),
            Source::Checkpoint(checkpoint, name) => Ok(checkpoint.read_raw(name)?.bytes),
        }
    }
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.read().unwrap_or_else(|error| {
            if let Ok(mut failure) = self.failure.lock() {
                failure.get_or_insert(error);
            }
            vec![0; self.bytes]
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes
    }
}
