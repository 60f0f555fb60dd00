//! A checkpoint: its tensors by name, its configuration and its tokenizer, read from disk only as far as asked.

mod open;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use golden::format::{BLOCK, Ue4m3};
use golden::model::ConfigHints;
use golden::packed::{PackedTensor, TensorScale};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;

use crate::encoding::{self, Encoding};
use crate::error::CheckpointError;
use crate::llama::interleaved_row;
use crate::tokenizer::{self, GgufVocabulary, Tokenizer};

/// Bytes that are read from disk at a time.
const CHUNK: u64 = 1 << 20;

/// What is known of a tensor without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Hugging Face's name; the file's own where it is no model that is supported.
    pub name: String,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Type of the stored elements.
    pub stored: Encoding,
    /// Bytes of the stored elements.
    pub bytes: u64,
}

impl TensorInfo {
    /// Length of a row: the last dimension.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        // Cannot overflow: the product of all was checked when the file was opened.
        self.shape
            .split_last()
            .map_or(1, |(_, outer)| outer.iter().product())
    }
}

/// A tensor and where it is.
#[derive(Clone, Debug)]
struct Stored {
    info: TensorInfo,
    /// Which of the checkpoint's files.
    file: usize,
    offset: u64,
    /// Width of the heads whose rows are interleaved.
    interleaved: Option<usize>,
    scaling: Scaling,
}

/// What decoded elements are multiplied with.
#[derive(Clone, Debug)]
enum Scaling {
    /// Nothing.
    None,
    /// All with the same.
    Number(f32),
    /// Each row with one element of this tensor.
    Rows(Box<Stored>),
    /// Each block of 16 with one E4M3 element of a tensor (rows × blocks of a row), and all with S.
    Blocks {
        scales: Box<Stored>,
        tensor: TensorScale,
    },
}

impl Stored {
    fn row_bytes(&self) -> u64 {
        match self.info.rows() as u64 {
            0 => 0,
            rows => self.info.bytes / rows,
        }
    }

    /// The safetensors type in which the elements can be handed on as they are stored.
    fn plain(&self) -> Option<Dtype> {
        match self.scaling {
            Scaling::None => self.info.stored.plain(),
            _ => None,
        }
    }
}

/// Where a tokenizer comes from.
#[derive(Clone, Debug)]
enum TokenizerSource {
    None,
    File(PathBuf),
    Gguf(Box<GgufVocabulary>),
}

/// Model files, opened: names, shapes and types are known, and nothing else has been read.
///
/// ```no_run
/// use std::path::Path;
/// use checkpoints::Checkpoint;
///
/// let checkpoint = Checkpoint::open(Path::new("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
/// for tensor in checkpoint.tensors() {
///     println!("{} {:?} {}", tensor.name, tensor.shape, tensor.stored);
/// }
/// let first_rows = checkpoint.read_rows("model.embed_tokens.weight", 0..16)?;
/// # Ok::<(), checkpoints::CheckpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Stored>,
    hints: Result<ConfigHints, String>,
    tokenizer: TokenizerSource,
    /// The project's JSON of a single safetensors file.
    metadata: Option<serde_json::Value>,
    /// The one file, where it is in memory.
    bytes: Option<Arc<[u8]>>,
}

impl Checkpoint {
    /// The files that hold the tensors.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The model file, or the index, that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values().map(|stored| &stored.info)
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// What the files say of the model's shape beyond its tensors' shapes.
    ///
    /// # Errors
    /// The model is not one that the engine runs; the message says why and what is supported.
    pub fn hints(&self) -> Result<ConfigHints, CheckpointError> {
        self.hints
            .clone()
            .map_err(|reason| CheckpointError::Unsupported {
                path: self.path.clone(),
                reason,
            })
    }

    /// Rows of a tensor, decoded to FP32; only these are read from disk.
    ///
    /// A tensor of one dimension is one row, and one of more than two dimensions is taken as a matrix of all rows of its last.
    /// Needs the memory of the result and about 1 MB.
    ///
    /// # Errors
    /// There is no such tensor, it has no such rows, its type is no float, or the file can't be read any more.
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, CheckpointError> {
        let stored = self.stored(name)?;
        if rows.start > rows.end || rows.end > stored.info.rows() {
            return Err(self.fault(
                name,
                format!(
                    "rows {} to {} were asked for, it has {}",
                    rows.start,
                    rows.end,
                    stored.info.rows()
                ),
            ));
        }
        self.read(stored, rows)
    }

    /// A tensor as it is stored, if it is of a plain type, or as F32.
    ///
    /// # Errors
    /// There is no such tensor, or the file can't be read any more.
    pub fn read_raw(&self, name: &str) -> Result<RawTensor, CheckpointError> {
        self.raw(self.stored(name)?)
    }

    /// Type and bytes of what [`Checkpoint::read_raw`] gives.
    ///
    /// # Errors
    /// There is no such tensor, or it is too large for memory.
    pub fn raw_type(&self, name: &str) -> Result<(Dtype, usize), CheckpointError> {
        let stored = self.stored(name)?;
        let (dtype, bytes) = match stored.plain() {
            Some(dtype) => (dtype, usize::try_from(stored.info.bytes).ok()),
            None => (
                Dtype::F32,
                stored
                    .info
                    .rows()
                    .checked_mul(stored.info.width())
                    .and_then(|elements| elements.checked_mul(4)),
            ),
        };
        bytes
            .map(|bytes| (dtype, bytes))
            .ok_or_else(|| self.fault(name, "too large for this machine's memory"))
    }

    /// A weight of an NVFP4 checkpoint with the codes and scales that the files hold; `None` for any other tensor.
    ///
    /// # Errors
    /// There is no such tensor, a scale is NaN or negative, or the file can't be read any more.
    pub fn read_packed(&self, name: &str) -> Result<Option<PackedTensor>, CheckpointError> {
        let stored = self.stored(name)?;
        let rows = 0..stored.info.rows();
        let (scale, scales, payload) = match (&stored.scaling, stored.info.stored) {
            (Scaling::Blocks { scales, tensor }, _) => (
                *tensor,
                self.bytes(scales, rows.clone())?,
                // Byte for byte what a stream of FP4 blocks holds (numerics §2).
                self.bytes(stored, rows)?,
            ),
            (scaling @ (Scaling::None | Scaling::Number(_)), Encoding::Nvfp4) => {
                let factor = match scaling {
                    Scaling::Number(factor) => *factor,
                    _ => 1.0,
                };
                let scale =
                    TensorScale::new(factor).map_err(|e| self.fault(name, e.to_string()))?;
                let (scales, payload) = encoding::split_nvfp4(&self.bytes(stored, rows)?);
                (scale, scales, payload)
            }
            _ => return Ok(None),
        };
        let tags = vec![0; scales.len().div_ceil(8)];
        PackedTensor::from_streams(&stored.info.shape, scale, tags, scales, &payload)
            .map(Some)
            .map_err(|e| self.fault(name, e.to_string()))
    }

    /// The whole model in memory: float tensors as they are stored, others as F32; the configuration in the metadata.
    ///
    /// # Errors
    /// As [`Checkpoint::hints`] and [`Checkpoint::read_rows`].
    pub fn to_tensor_file(&self) -> Result<TensorFile, CheckpointError> {
        let hints = self.hints()?;
        let mut file = TensorFile::new(&self.path);
        for (name, stored) in &self.tensors {
            file.tensors.insert(name.clone(), self.raw(stored)?);
        }
        file.metadata = self.metadata.clone();
        if hints != ConfigHints::default() {
            let config = serde_json::to_value(hints)
                .map_err(|e| file.metadata_fault(format!("config: {e}")))?;
            file.metadata = Some(serde_json::json!({ "config": config }));
        }
        Ok(file)
    }

    /// The tokenizer: `tokenizer.json` beside the files, or rebuilt from a GGUF file's vocabulary.
    ///
    /// `None` if there is none.
    ///
    /// # Errors
    /// The tokenizer is of a kind that is not read; the message names those that are.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, CheckpointError> {
        match &self.tokenizer {
            TokenizerSource::None => Ok(None),
            TokenizerSource::File(path) => Tokenizer::open(path).map(Some),
            TokenizerSource::Gguf(vocabulary) => {
                tokenizer::of_gguf(vocabulary).map(Some).map_err(|reason| {
                    CheckpointError::Tokenizer {
                        path: self.path.clone(),
                        reason,
                    }
                })
            }
        }
    }

    fn stored(&self, name: &str) -> Result<&Stored, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing {
                path: self.path.clone(),
                name: name.into(),
            })
    }

    fn fault(&self, name: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// A tensor as it is stored, or as F32.
    fn raw(&self, stored: &Stored) -> Result<RawTensor, CheckpointError> {
        let rows = 0..stored.info.rows();
        match stored.plain() {
            Some(dtype) => Ok(RawTensor {
                dtype,
                shape: stored.info.shape.clone(),
                bytes: self.bytes(stored, rows)?,
            }),
            None => Ok(RawTensor::from_f32(
                stored.info.shape.clone(),
                &self.read(stored, rows)?,
            )),
        }
    }

    /// Stored bytes of rows, in the order that the tensor has to the outside.
    fn bytes(&self, stored: &Stored, rows: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = Vec::new();
        self.visit_rows(stored, rows, |chunk| {
            bytes.extend_from_slice(chunk);
            true
        })?;
        Ok(bytes)
    }

    fn read(&self, stored: &Stored, rows: Range<usize>) -> Result<Vec<f32>, CheckpointError> {
        let name = &stored.info.name;
        let width = stored.info.width();
        let mut out = Vec::new();
        rows.len()
            .checked_mul(width)
            .and_then(|elements| out.try_reserve_exact(elements).ok())
            .ok_or_else(|| self.fault(name, "too large for this machine's memory"))?;
        let encoding = stored.info.stored;
        if !self.visit_rows(stored, rows.clone(), |chunk| {
            encoding.decode(chunk, &mut out)
        })? {
            return Err(self.fault(name, format!("{encoding} elements are not decoded to FP32")));
        }
        match &stored.scaling {
            Scaling::None => {}
            Scaling::Number(factor) => out.iter_mut().for_each(|x| *x *= factor),
            Scaling::Rows(scales) => {
                for (row, factor) in out.chunks_mut(width.max(1)).zip(self.read(scales, rows)?) {
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            Scaling::Blocks { scales, tensor } => {
                let codes = self.bytes(scales, rows)?;
                for (block, &code) in out.chunks_mut(BLOCK).zip(&codes) {
                    let scale = Ue4m3::from_bits(code)
                        .ok_or_else(|| {
                            self.fault(
                                &scales.info.name,
                                format!("code {code:#04x} is negative or NaN"),
                            )
                        })?
                        .to_f32();
                    // The first product is exact, as in `PackedTensor::decode`.
                    block
                        .iter_mut()
                        .for_each(|x| *x = *x * scale * tensor.get());
                }
            }
        }
        Ok(out)
    }

    /// Gives the stored bytes of rows that the tensor has to `visit`, whole rows at a time, until it returns false.
    fn visit_rows(
        &self,
        stored: &Stored,
        rows: Range<usize>,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, CheckpointError> {
        // Without elements there may be any number of rows.
        if stored.info.bytes == 0 {
            return Ok(stored.info.stored.is_float() || stored.info.stored.plain().is_some());
        }
        let path = self.files.get(stored.file).unwrap_or(&self.path);
        let mut disk;
        let mut memory;
        let reader: &mut dyn Source = match &self.bytes {
            Some(bytes) => {
                memory = Cursor::new(&**bytes);
                &mut memory
            }
            None => {
                disk = File::open(path).map_err(|source| read_error(path, source))?;
                &mut disk
            }
        };
        let row_bytes = stored.row_bytes();
        // Interleaved rows come a head at a time, so that all of a chunk's rows are in what is read for it.
        let group = stored.interleaved.unwrap_or(1);
        let step = usize::try_from(CHUNK / row_bytes.max(1))
            .unwrap_or(usize::MAX)
            .next_multiple_of(group)
            .max(group);
        let mut buffer = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let first = start - start % group;
            let last = rows.end.min(first.saturating_add(step));
            // Cannot go beyond the tensor: its rows are a whole number of groups.
            let read_to = last.next_multiple_of(group);
            buffer.clear();
            // Both products are at most the tensor's bytes.
            reader
                .seek(SeekFrom::Start(stored.offset + first as u64 * row_bytes))
                .and_then(|_| {
                    (&mut *reader)
                        .take((read_to - first) as u64 * row_bytes)
                        .read_to_end(&mut buffer)
                })
                .map_err(|source| read_error(path, source))?;
            let row_length = buffer.len() / (read_to - first);
            if row_length as u64 != row_bytes {
                return Err(read_error(path, std::io::ErrorKind::UnexpectedEof.into()));
            }
            let bytes_of = |row: usize| {
                let at = (row - first) * row_length;
                buffer.get(at..at + row_length).unwrap_or_default()
            };
            match stored.interleaved {
                None => {
                    if !visit(&buffer) {
                        return Ok(false);
                    }
                }
                Some(head_width) => {
                    for row in start..last {
                        if !visit(bytes_of(interleaved_row(row, head_width))) {
                            return Ok(false);
                        }
                    }
                }
            }
            start = last;
        }
        Ok(true)
    }
}

/// What rows are read from.
trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Read {
        path: path.into(),
        source,
    }
}
