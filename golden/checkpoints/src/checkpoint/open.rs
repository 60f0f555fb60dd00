//! Opening: which files belong to a checkpoint, and what each of their tensors is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use golden::format::BLOCK;
use golden::model::ConfigHints;
use golden::packed::TensorScale;
use golden::tensors::{FileError, METADATA_KEY};
use safetensors::Dtype;

use super::{Checkpoint, Scaling, Stored, TensorInfo, TokenizerSource, read_error};
use crate::encoding::Encoding;
use crate::error::CheckpointError;
use crate::gguf::{self, Header, Value};
use crate::huggingface::{self, Configuration, Index, Part, SafeTensor};
use crate::llama::{self, Role, Rows};
use crate::tokenizer::GgufVocabulary;

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
        let (reader, length) = open_file(path)?;
        Self::of_file(path, reader, length, None)
    }

    /// Opens the bytes of a `.gguf` or `.safetensors` file; `path` is only used in messages.
    ///
    /// Nothing beside it is looked for: a safetensors file has no configuration and no tokenizer then.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn parse(path: &Path, bytes: Arc<[u8]>) -> Result<Self, CheckpointError> {
        let reader = Cursor::new(Arc::clone(&bytes));
        Self::of_file(path, reader, bytes.len() as u64, Some(bytes))
    }

    /// One file, on disk or in memory.
    fn of_file(
        path: &Path,
        mut reader: impl Read + Seek,
        length: u64,
        bytes: Option<Arc<[u8]>>,
    ) -> Result<Self, CheckpointError> {
        let read = |source| read_error(path, source);
        let mut magic = Vec::new();
        (&mut reader)
            .take(gguf::MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(read)?;
        reader.rewind().map_err(read)?;
        if magic == gguf::MAGIC {
            let header = Header::read(reader, length).map_err(|e| CheckpointError::Format {
                path: path.into(),
                reason: e.to_string(),
            })?;
            return Self::of_gguf(path, header, bytes);
        }
        let (tensors, texts) = huggingface::safetensors_header(path, reader, length)?;
        let metadata = texts
            .get(METADATA_KEY)
            .map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|e| FileError::Metadata {
                path: path.into(),
                reason: e.to_string(),
            })?;
        let tensors = tensors.into_iter().map(|tensor| (0, tensor));
        Self::of_safetensors(path, vec![path.into()], tensors, metadata, bytes)
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
            let (reader, length) = open_file(&file)?;
            let (found, _) = huggingface::safetensors_header(&file, reader, length)?;
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
        Self::of_safetensors(path, files, tensors, None, None)
    }

    fn of_safetensors(
        path: &Path,
        files: Vec<PathBuf>,
        tensors: impl IntoIterator<Item = (usize, SafeTensor)>,
        metadata: Option<serde_json::Value>,
        bytes: Option<Arc<[u8]>>,
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
        let on_disk = bytes.is_none();
        let beside =
            |name: &str| Some(path.with_file_name(name)).filter(|path| on_disk && path.is_file());
        let mut checkpoint = Self {
            path: path.into(),
            files,
            tensors,
            hints: Ok(ConfigHints::default()),
            tokenizer: beside("tokenizer.json")
                .map_or(TokenizerSource::None, TokenizerSource::File),
            metadata,
            bytes,
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
                let global = self.take_number(&format!("{stem}.weight_global_scale"))?;
                self.join_blocks(&name, stem, 1.0 / global)?;
            } else if let Some(stem) = name.strip_suffix(".weight") {
                let scale = format!("{stem}.weight_scale");
                match self.stored(&name)?.info.stored {
                    Encoding::Verbatim(Dtype::U8) if self.tensors.contains_key(&scale) => {
                        let factor = self.take_number(&format!("{stem}.weight_scale_2"))?;
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

    /// The number of a tensor that has one.
    fn number(&self, stored: &Stored) -> Result<f32, CheckpointError> {
        let one = stored.info.rows().checked_mul(stored.info.width()) == Some(1);
        let number = if one {
            self.read(stored, 0..1)?.first().copied()
        } else {
            None
        };
        number.ok_or_else(|| {
            let found = &stored.info.shape;
            self.fault(
                &stored.info.name,
                format!("expected one number, found shape {found:?}"),
            )
        })
    }

    /// The number of a tensor that has one; the tensor is then taken out.
    fn take_number(&mut self, name: &str) -> Result<f32, CheckpointError> {
        let number = self.number(self.stored(name)?)?;
        self.tensors.remove(name);
        Ok(number)
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
            [] | [1] | [1, 1] => Scaling::Number(self.take_number(scale_name)?),
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

    /// A GGUF file: names, order of rows and scales as the engine expects them.
    fn of_gguf(
        path: &Path,
        mut header: Header,
        bytes: Option<Arc<[u8]>>,
    ) -> Result<Self, CheckpointError> {
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
            bytes,
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
            let factor = checkpoint.number(&scale)?;
            match checkpoint.tensors.get_mut(&name) {
                Some(stored) => stored.scaling = Scaling::Number(factor),
                None => {
                    let reason = format!("scales {name}, which is missing");
                    return Err(checkpoint.fault(&scale.info.name, reason));
                }
            }
        }
        Ok(checkpoint)
    }
}

/// A file to be read from its start, and its length.
fn open_file(path: &Path) -> Result<(BufReader<File>, u64), CheckpointError> {
    let read = |source| read_error(path, source);
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    Ok((BufReader::new(file), length))
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
