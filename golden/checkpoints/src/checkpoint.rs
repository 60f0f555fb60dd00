//! A checkpoint: its tensors by name, its configuration and its tokenizer, read from disk only as far as asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use golden::model::ConfigHints;
use golden::tensors::{RawTensor, TensorFile};

use crate::encoding::Encoding;
use crate::error::CheckpointError;
use crate::gguf::{Header, Value};
use crate::llama::{self, Role, Rows, interleaved_row};
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
    /// What every decoded element is multiplied with.
    factor: Option<f32>,
}

impl Stored {
    fn row_bytes(&self) -> u64 {
        match self.info.rows() as u64 {
            0 => 0,
            rows => self.info.bytes / rows,
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
}

impl Checkpoint {
    /// Opens a `.gguf` file.
    ///
    /// # Errors
    /// The file can't be read or is not well-formed. A well-formed file of a model that is not supported opens,
    /// and [`Checkpoint::hints`] says why it can't be run.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = open_file(path)?;
        let length = file
            .metadata()
            .map_err(|source| read_error(path, source))?
            .len();
        let header =
            Header::read(BufReader::new(file), length).map_err(|e| CheckpointError::Format {
                path: path.into(),
                reason: e.to_string(),
            })?;
        Self::of_gguf(path, header)
    }

    fn of_gguf(path: &Path, mut header: Header) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self {
            path: path.into(),
            files: vec![path.into()],
            tensors: BTreeMap::new(),
            hints: gguf_hints(&header),
            tokenizer: GgufVocabulary::take(&mut header.metadata)
                .map_or(TokenizerSource::None, |vocabulary| {
                    TokenizerSource::Gguf(Box::new(vocabulary))
                }),
            metadata: None,
        };
        let hints = checkpoint.hints.as_ref().ok().copied();
        let mut scales = Vec::new();
        for entry in header.tensors {
            let mut stored = Stored {
                file: 0,
                offset: entry.offset,
                interleaved: None,
                factor: None,
                info: TensorInfo {
                    name: entry.name,
                    shape: entry.shape,
                    stored: entry.encoding,
                    bytes: entry.bytes,
                },
            };
            // Without a configuration the names stay the file's own.
            if let Some(hints) = hints {
                match llama::role(&stored.info.name) {
                    Some(Role::Named(name, rows)) => {
                        let heads = match rows {
                            Rows::AsStored => None,
                            Rows::Queries => hints.heads,
                            Rows::Keys => hints.kv_heads,
                        };
                        if let Some(heads) = heads {
                            stored.interleaved = Some(head_width(path, &stored.info, heads)?);
                        }
                        stored.info.name = name;
                    }
                    Some(Role::ScaleOf(name)) => {
                        scales.push((name, stored));
                        continue;
                    }
                    Some(Role::InputScale) => continue,
                    None => {
                        checkpoint.hints = Err(format!(
                            "tensor {}: a model of architecture `llama` without biases, experts and rope scaling has none of this name",
                            stored.info.name
                        ));
                    }
                }
            }
            checkpoint.tensors.insert(stored.info.name.clone(), stored);
        }
        for (name, scale) in scales {
            let factor = match checkpoint.read(&scale, 0..scale.info.rows())?.as_slice() {
                [factor] => *factor,
                other => {
                    return Err(checkpoint.fault(
                        &scale.info.name,
                        format!("expected one number, found {}", other.len()),
                    ));
                }
            };
            match checkpoint.tensors.get_mut(&name) {
                Some(stored) => stored.factor = Some(factor),
                None => {
                    return Err(checkpoint
                        .fault(&scale.info.name, format!("scales {name}, which is missing")));
                }
            }
        }
        Ok(checkpoint)
    }

    /// The path that was opened.
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

    /// The whole model in memory: float tensors as they are stored, others as F32; the configuration in the metadata.
    ///
    /// # Errors
    /// As [`Checkpoint::hints`] and [`Checkpoint::read_rows`].
    pub fn to_tensor_file(&self) -> Result<TensorFile, CheckpointError> {
        let hints = self.hints()?;
        let mut file = TensorFile::new(&self.path);
        for (name, stored) in &self.tensors {
            let rows = 0..stored.info.rows();
            let raw = match stored.info.stored.plain() {
                Some(dtype) if stored.factor.is_none() => {
                    let mut bytes = Vec::new();
                    self.visit_rows(stored, rows, |chunk| {
                        bytes.extend_from_slice(chunk);
                        true
                    })?;
                    RawTensor {
                        dtype,
                        shape: stored.info.shape.clone(),
                        bytes,
                    }
                }
                _ => RawTensor::from_f32(stored.info.shape.clone(), &self.read(stored, rows)?),
            };
            file.tensors.insert(name.clone(), raw);
        }
        let mut metadata = self
            .metadata
            .clone()
            .unwrap_or_else(|| serde_json::json!({}));
        if hints != ConfigHints::default()
            && let Some(object) = metadata.as_object_mut()
        {
            let config = serde_json::to_value(hints)
                .map_err(|e| file.metadata_fault(format!("config: {e}")))?;
            object.insert("config".into(), config);
        }
        file.metadata = Some(metadata);
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

    fn read(&self, stored: &Stored, rows: Range<usize>) -> Result<Vec<f32>, CheckpointError> {
        let mut out = Vec::new();
        rows.len()
            .checked_mul(stored.info.width())
            .and_then(|elements| out.try_reserve_exact(elements).ok())
            .ok_or_else(|| self.fault(&stored.info.name, "too large for this machine's memory"))?;
        let encoding = stored.info.stored;
        if !self.visit_rows(stored, rows, |chunk| encoding.decode(chunk, &mut out))? {
            return Err(self.fault(
                &stored.info.name,
                format!("{encoding} elements are not decoded to FP32"),
            ));
        }
        if let Some(factor) = stored.factor {
            out.iter_mut().for_each(|x| *x *= factor);
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
        let path = self.files.get(stored.file).unwrap_or(&self.path);
        let mut file = open_file(path)?;
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
            file.seek(SeekFrom::Start(stored.offset + first as u64 * row_bytes))
                .and_then(|_| {
                    (&mut file)
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

fn open_file(path: &Path) -> Result<File, CheckpointError> {
    File::open(path).map_err(|source| read_error(path, source))
}

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Read {
        path: path.into(),
        source,
    }
}

/// Rows of a head, from the rows of a matrix of so many heads.
fn head_width(path: &Path, info: &TensorInfo, heads: usize) -> Result<usize, CheckpointError> {
    info.rows()
        .checked_div(heads)
        .filter(|width| width * heads == info.rows() && *width > 0 && width.is_multiple_of(2))
        .ok_or_else(|| CheckpointError::Tensor {
            path: path.into(),
            name: info.name.clone(),
            reason: format!(
                "{} rows are no {heads} heads of an even number of rows",
                info.rows()
            ),
        })
}

/// The configuration of a GGUF file, or why the engine can't run its model.
fn gguf_hints(header: &Header) -> Result<ConfigHints, String> {
    match header.metadata.get("general.architecture") {
        Some(Value::Text(architecture)) if architecture == llama::ARCHITECTURE => {}
        Some(Value::Text(architecture)) => {
            return Err(format!(
                "architecture `{architecture}`; of GGUF files `{}` is supported",
                llama::ARCHITECTURE
            ));
        }
        _ => return Err("it names no architecture".into()),
    }
    if let Some(Value::Integer(count)) = header.metadata.get("split.count")
        && *count > 1
    {
        return Err(format!(
            "one of {count} parts of a model; merge them with `llama-gguf-split --merge`"
        ));
    }
    if let Some(Value::Integer(version)) = header.metadata.get("general.quantization_version")
        && *version != 2
    {
        return Err(format!(
            "quantization version {version}; version 2 is supported"
        ));
    }
    llama::hints(&header.metadata)
}
