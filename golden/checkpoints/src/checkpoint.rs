//! A checkpoint: its tensors by name, its configuration and its tokenizer, read from disk only as far as asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use golden::format::{BLOCK, Ue4m3};
use golden::model::ConfigHints;
use golden::packed::{PackedTensor, TensorScale};
use golden::tensors::{FileError, METADATA_KEY, RawTensor, TensorFile};
use safetensors::Dtype;

use crate::encoding::{self, Encoding};
use crate::error::CheckpointError;
use crate::gguf::{self, Header, Value};
use crate::huggingface::{self, Configuration, Index, Part, SafeTensor};
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
}

impl Checkpoint {
    /// Opens a `.gguf` file, a `.safetensors` file, a `model.safetensors.index.json` with its shards beside it, or a
    /// folder that holds one of these. `config.json` and `tokenizer.json` are taken from beside safetensors files.
    ///
    /// # Errors
    /// A file can't be read or is not well-formed. Well-formed files of a model that is not supported open,
    /// and [`Checkpoint::hints`] says why it can't be run.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let path = &model_file(path)?;
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        {
            return Self::of_index(path);
        }
        let mut file = open_file(path)?;
        let mut magic = Vec::new();
        file.by_ref()
            .take(gguf::MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(|source| read_error(path, source))?;
        if magic != gguf::MAGIC {
            let (tensors, texts) = huggingface::safetensors_header(path)?;
            let metadata = texts
                .get(METADATA_KEY)
                .map(|text| serde_json::from_str(text))
                .transpose()
                .map_err(|e| FileError::Metadata {
                    path: path.clone(),
                    reason: e.to_string(),
                })?;
            let tensors = tensors.into_iter().map(|tensor| (0, tensor));
            return Self::of_safetensors(path, vec![path.clone()], tensors, metadata);
        }
        file.rewind().map_err(|source| read_error(path, source))?;
        let length = file
            .metadata()
            .map_err(|source| read_error(path, source))?
            .len();
        let header =
            Header::read(BufReader::new(file), length).map_err(|e| CheckpointError::Format {
                path: path.clone(),
                reason: e.to_string(),
            })?;
        Self::of_gguf(path, header)
    }

    /// The shards that an index names, each opened once.
    fn of_index(path: &Path) -> Result<Self, CheckpointError> {
        let index: Index = huggingface::read_json(path)?;
        let format = |reason| CheckpointError::Format {
            path: path.into(),
            reason,
        };
        let mut files = Vec::new();
        let mut numbers = BTreeMap::new();
        let mut tensors = Vec::new();
        for shard in index.weight_map.values() {
            if numbers.contains_key(shard.as_str()) {
                continue;
            }
            // A name only: an index must not lead out of its folder.
            if Path::new(shard).file_name() != Some(OsStr::new(shard)) {
                return Err(format(format!("shard `{shard}` is no name of a file")));
            }
            let file = path.with_file_name(shard);
            let number = files.len();
            numbers.insert(shard.as_str(), number);
            let (found, _) = huggingface::safetensors_header(&file)?;
            tensors.extend(
                found
                    .into_iter()
                    .filter(|tensor| index.weight_map.get(&tensor.name) == Some(shard))
                    .map(|tensor| (number, tensor)),
            );
            files.push(file);
        }
        let found: BTreeSet<&str> = tensors
            .iter()
            .map(|(_, tensor)| tensor.name.as_str())
            .collect();
        if let Some((name, shard)) = index
            .weight_map
            .iter()
            .find(|(name, _)| !found.contains(name.as_str()))
        {
            return Err(format(format!("shard {shard} has no tensor {name}")));
        }
        Self::of_safetensors(path, files, tensors, None)
    }

    fn of_safetensors(
        path: &Path,
        files: Vec<PathBuf>,
        tensors: impl IntoIterator<Item = (usize, SafeTensor)>,
        metadata: Option<serde_json::Value>,
    ) -> Result<Self, CheckpointError> {
        let tensors = tensors
            .into_iter()
            .map(|(file, tensor)| {
                let stored = Stored {
                    file,
                    offset: tensor.offset,
                    interleaved: None,
                    scaling: Scaling::None,
                    info: TensorInfo {
                        name: tensor.name.clone(),
                        shape: tensor.shape,
                        stored: match tensor.dtype {
                            Dtype::F32 => Encoding::F32,
                            Dtype::F16 => Encoding::F16,
                            Dtype::BF16 => Encoding::Bf16,
                            other => Encoding::Verbatim(other),
                        },
                        bytes: tensor.bytes,
                    },
                };
                let rows = stored.info.rows() as u64;
                if stored.row_bytes().checked_mul(rows) == Some(stored.info.bytes) {
                    Ok((tensor.name, stored))
                } else {
                    Err(CheckpointError::Tensor {
                        path: path.into(),
                        name: tensor.name,
                        reason: format!(
                            "rows of {} elements {} are no whole bytes",
                            stored.info.width(),
                            stored.info.stored
                        ),
                    })
                }
            })
            .collect::<Result<_, _>>()?;
        let beside = |name: &str| Some(path.with_file_name(name)).filter(|path| path.is_file());
        let mut checkpoint = Self {
            path: path.into(),
            files,
            tensors,
            hints: Ok(ConfigHints::default()),
            tokenizer: beside("tokenizer.json")
                .map_or(TokenizerSource::None, TokenizerSource::File),
            metadata,
        };
        // The project's own files say all of themselves.
        if checkpoint.metadata.is_none() {
            checkpoint.join_scales()?;
            if let Some(config) = beside("config.json") {
                let json = huggingface::read_json(&config)?;
                checkpoint.hints = huggingface::configuration(&json)
                    .and_then(|configuration| checkpoint.configure(configuration))
                    .map_err(|reason| format!("{}: {reason}", config.display()));
            }
        }
        Ok(checkpoint)
    }

    /// Joins weights with their scales, by the names that compressed-tensors and modelopt give them.
    fn join_scales(&mut self) -> Result<(), CheckpointError> {
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        for name in names {
            if let Some(stem) = name.strip_suffix(".weight_packed") {
                let global = self.one_number(&format!("{stem}.weight_global_scale"))?;
                self.join_blocks(&name, stem, 1.0 / global)?;
            } else if let Some(stem) = name.strip_suffix(".weight") {
                let scale = format!("{stem}.weight_scale");
                match self.stored(&name)?.info.stored {
                    Encoding::Verbatim(Dtype::U8) if self.tensors.contains_key(&scale) => {
                        let factor = self.one_number(&format!("{stem}.weight_scale_2"))?;
                        self.join_blocks(&name, stem, factor)?;
                    }
                    Encoding::Verbatim(Dtype::F8_E4M3) if self.tensors.contains_key(&scale) => {
                        self.join_rows(&name, &scale)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The one number of a tensor, which is then taken out.
    fn one_number(&mut self, name: &str) -> Result<f32, CheckpointError> {
        let stored = self.stored(name)?;
        if stored.info.rows().checked_mul(stored.info.width()) != Some(1) {
            return Err(self.fault(
                name,
                format!("expected one number, found shape {:?}", stored.info.shape),
            ));
        }
        let number = self.read(stored, 0..1)?.first().copied();
        self.tensors.remove(name);
        number.ok_or_else(|| self.fault(name, "expected one number"))
    }

    /// Makes `stem.weight` of packed E2M1 codes and the scales of their blocks.
    fn join_blocks(&mut self, name: &str, stem: &str, factor: f32) -> Result<(), CheckpointError> {
        let tensor = TensorScale::new(factor).map_err(|e| self.fault(name, e.to_string()))?;
        let scale_name = format!("{stem}.weight_scale");
        let mut codes = self.stored(name)?.clone();
        let mut scales = self.stored(&scale_name)?.clone();
        let [rows, width] = <[usize; 2]>::try_from(codes.info.shape.as_slice())
            .ok()
            .filter(|_| codes.info.stored == Encoding::Verbatim(Dtype::U8))
            .and_then(|[rows, bytes]| Some([rows, bytes.checked_mul(2)?]))
            .filter(|[_, width]| width.is_multiple_of(BLOCK))
            .ok_or_else(|| {
                self.fault(
                    name,
                    format!(
                        "expected a matrix of U8 whose rows are whole blocks of 8 bytes, found {} {:?}",
                        codes.info.stored, codes.info.shape
                    ),
                )
            })?;
        if scales.info.stored != Encoding::Verbatim(Dtype::F8_E4M3)
            || scales.info.shape != [rows, width / BLOCK]
        {
            return Err(self.fault(
                &scale_name,
                format!(
                    "expected F8_E4M3 {:?}, found {} {:?}",
                    [rows, width / BLOCK],
                    scales.info.stored,
                    scales.info.shape
                ),
            ));
        }
        self.tensors.remove(name);
        self.tensors.remove(&scale_name);
        let weight = format!("{stem}.weight");
        if self.tensors.contains_key(&weight) {
            return Err(self.fault(&weight, "is there packed and unpacked"));
        }
        scales.info.stored = Encoding::E4m3;
        codes.info = TensorInfo {
            name: weight.clone(),
            shape: vec![rows, width],
            stored: Encoding::E2m1,
            bytes: codes.info.bytes,
        };
        codes.scaling = Scaling::Blocks {
            scales: Box::new(scales),
            tensor,
        };
        self.tensors.insert(weight, codes);
        Ok(())
    }

    /// Gives an FP8 weight its scale: one number, or one for each row.
    fn join_rows(&mut self, name: &str, scale_name: &str) -> Result<(), CheckpointError> {
        let rows = self.stored(name)?.info.rows();
        let scales = self.stored(scale_name)?.clone();
        let scaling = match scales.info.shape.as_slice() {
            [] | [1] | [1, 1] => Scaling::Number(self.one_number(scale_name)?),
            [count] | [count, 1] if *count == rows && scales.info.stored.is_float() => {
                self.tensors.remove(scale_name);
                let mut scales = scales;
                scales.info.shape = vec![rows, 1];
                Scaling::Rows(Box::new(scales))
            }
            shape => {
                return Err(self.fault(
                    scale_name,
                    format!(
                        "expected one float or one for each of {rows} rows, found {} {shape:?}",
                        scales.info.stored
                    ),
                ));
            }
        };
        if let Some(stored) = self.tensors.get_mut(name) {
            stored.info.stored = Encoding::E4m3;
            stored.scaling = scaling;
        }
        Ok(())
    }

    /// Takes a configuration, drops the tensors that the engine can do without, and checks that no other is there.
    fn configure(&mut self, configuration: Configuration) -> Result<ConfigHints, String> {
        const HEAD: &str = "lm_head.weight";
        if configuration.tied {
            self.tensors.remove(HEAD);
        } else if !self.tensors.contains_key(HEAD)
            && self.tensors.contains_key("model.embed_tokens.weight")
        {
            return Err(format!(
                "`tie_word_embeddings` is not true, and there is no tensor {HEAD}"
            ));
        }
        self.tensors
            .retain(|name, _| huggingface::part(name) != Part::Ignored);
        if let Some(name) = self
            .tensors
            .keys()
            .find(|name| huggingface::part(name) == Part::Foreign)
        {
            return Err(format!(
                "tensor {name}: a Llama model without biases and experts has none of this name"
            ));
        }
        let heads = configuration.hints.heads.unwrap_or(1);
        if let (Some(width), Some(query)) = (
            configuration.head_width,
            self.tensors.get("model.layers.0.self_attn.q_proj.weight"),
        ) && width.checked_mul(heads) != Some(query.info.rows())
        {
            return Err(format!(
                "{heads} heads of `head_dim` {width} contradict the {} rows of {}",
                query.info.rows(),
                query.info.name
            ));
        }
        Ok(configuration.hints)
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
                scaling: Scaling::None,
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
            let name = stored.info.name.clone();
            if checkpoint.tensors.insert(name.clone(), stored).is_some() {
                return Err(checkpoint.fault(&name, "two tensors have this name"));
            }
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
                Some(stored) => stored.scaling = Scaling::Number(factor),
                None => {
                    return Err(checkpoint
                        .fault(&scale.info.name, format!("scales {name}, which is missing")));
                }
            }
        }
        Ok(checkpoint)
    }

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

/// The file to open: the one given, or the model's in a folder.
fn model_file(path: &Path) -> Result<PathBuf, CheckpointError> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    for name in ["model.safetensors.index.json", "model.safetensors"] {
        let file = path.join(name);
        if file.is_file() {
            return Ok(file);
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|source| read_error(path, source))? {
        let file = entry.map_err(|source| read_error(path, source))?.path();
        if file.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("gguf") || extension.eq_ignore_ascii_case("safetensors")
        }) {
            found.push(file);
        }
    }
    match found.as_slice() {
        [file] => Ok(file.clone()),
        files => Err(CheckpointError::Format {
            path: path.into(),
            reason: format!(
                "expected model.safetensors.index.json, model.safetensors or one .safetensors or .gguf file, found {} such files",
                files.len()
            ),
        }),
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
