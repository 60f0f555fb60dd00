//! Plain tensors in safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// The metadata key under which this project keeps its own JSON.
pub const METADATA_KEY: &str = "fgmp";

/// What is wrong with a tensor file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file can't be written.
    #[error("{}: can't be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("{}: not a safetensors file that can be read: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The file is no token stream.
    #[error("{}: {reason}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A tensor that was expected is not there.
    #[error("{}: tensor {name} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has the wrong type, shape or content.
    #[error("{}: tensor {name}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The project's JSON in the metadata is missing or wrong.
    #[error("{}: metadata `{METADATA_KEY}`: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
}

/// A tensor exactly as its file holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawTensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements in row-major order.
    pub bytes: Vec<u8>,
}

/// A tensor in FP32.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<f32>,
}

impl RawTensor {
    /// The elements in FP32, if they are F32, F16 or BF16 (each exact).
    pub fn to_f32(&self) -> Option<Tensor> {
        fn convert<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes
                .as_chunks::<N>()
                .0
                .iter()
                .map(|&chunk| element(chunk))
                .collect()
        }
        let data = match self.dtype {
            Dtype::F32 => convert(&self.bytes, f32::from_le_bytes),
            Dtype::F16 => convert(&self.bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(&self.bytes, |b| bf16::from_le_bytes(b).to_f32()),
            _ => return None,
        };
        Some(Tensor {
            shape: self.shape.clone(),
            data,
        })
    }

    /// An F32 tensor. `data` must have as many elements as `shape` says, or writing it fails.
    pub fn from_f32(shape: Vec<usize>, data: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape,
            bytes: data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// A BF16 tensor. `data` must have as many elements as `shape` says, or writing it fails.
    pub fn from_bf16(shape: Vec<usize>, data: &[bf16]) -> Self {
        Self {
            dtype: Dtype::BF16,
            shape,
            bytes: data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// The tensors and metadata of a safetensors file, in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// The tensors by name.
    pub tensors: BTreeMap<String, RawTensor>,
    /// The project's JSON, if the file has any.
    pub metadata: Option<serde_json::Value>,
}

impl TensorFile {
    /// An empty file in memory; `path` is only used in messages.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            tensors: BTreeMap::new(),
            metadata: None,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read or is not a well-formed safetensors file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let bytes = fs::read(path).map_err(|source| FileError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(path, &bytes)
    }

    /// Parses the bytes of a file; `path` is only used in messages.
    ///
    /// # Errors
    /// The bytes are no well-formed safetensors file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        let malformed = |reason: String| FileError::Format {
            path: path.into(),
            reason,
        };
        check_offsets(bytes).map_err(malformed)?;
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|e| malformed(e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(e.to_string()))?;
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let tensor = RawTensor {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: view.data().to_vec(),
                };
                (name.to_owned(), tensor)
            })
            .collect();
        let metadata = header
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(METADATA_KEY))
            .map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|e| FileError::Metadata {
                path: path.into(),
                reason: e.to_string(),
            })?;
        Ok(Self {
            path: path.into(),
            tensors,
            metadata,
        })
    }

    /// The path that messages name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A tensor as the file holds it.
    ///
    /// # Errors
    /// The file has no tensor of this name.
    pub fn raw(&self, name: &str) -> Result<&RawTensor, FileError> {
        self.tensors.get(name).ok_or_else(|| FileError::Missing {
            path: self.path.clone(),
            name: name.into(),
        })
    }

    /// A tensor in FP32.
    ///
    /// # Errors
    /// The file has no tensor of this name, or it is neither F32 nor F16 nor BF16.
    pub fn tensor(&self, name: &str) -> Result<Tensor, FileError> {
        let raw = self.raw(name)?;
        raw.to_f32().ok_or_else(|| {
            self.fault(
                name,
                format!("expected F32, F16 or BF16, found {:?}", raw.dtype),
            )
        })
    }

    /// An error about one of the tensors.
    pub fn fault(&self, name: &str, reason: impl Into<String>) -> FileError {
        FileError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// An error about the project's JSON.
    pub fn metadata_fault(&self, reason: impl Into<String>) -> FileError {
        FileError::Metadata {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    /// The bytes of the file; equal contents give equal bytes.
    ///
    /// # Errors
    /// A tensor's shape and length don't match.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        let views = self
            .tensors
            .iter()
            .map(|(name, t)| {
                TensorView::new(t.dtype, t.shape.clone(), &t.bytes)
                    .map(|view| (name.as_str(), view))
                    .map_err(|e| self.fault(name, e.to_string()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        // One entry only: the crate writes several in random order.
        let metadata = self
            .metadata
            .as_ref()
            .map(|json| HashMap::from([(METADATA_KEY.into(), json.to_string())]));
        safetensors::serialize(views, metadata).map_err(|e| FileError::Format {
            path: self.path.clone(),
            reason: e.to_string(),
        })
    }

    /// Writes the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// A tensor's shape and length don't match, or the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        write_atomically(path, &self.to_bytes()?).map_err(|source| FileError::Write {
            path: path.into(),
            source,
        })
    }
}

/// Refuses offsets beyond the file, so that the parser's own sums can't overflow.
fn check_offsets(bytes: &[u8]) -> Result<(), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err("shorter than the 8 bytes of its header length".into());
    };
    let header = usize::try_from(u64::from_le_bytes(*length))
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| "its header is longer than the file".to_owned())?;
    let entries: HashMap<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|e| format!("its header is not a JSON object: {e}"))?;
    for (name, entry) in &entries {
        let Some(offsets) = entry
            .get("data_offsets")
            .and_then(|offsets| offsets.as_array())
        else {
            continue;
        };
        if offsets.iter().any(|offset| {
            offset
                .as_u64()
                .is_none_or(|offset| offset > bytes.len() as u64)
        }) {
            return Err(format!("tensor {name} lies outside of it"));
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: to a temporary name in the same folder, then renamed.
///
/// # Errors
/// Whatever the system refuses; the temporary file is then removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file")
    })?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.partial", std::process::id()));
    let temporary = path.with_file_name(temporary_name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

/// The project's JSON of a safetensors file, if it has any; nothing but the header is read.
///
/// # Errors
/// The file can't be read or its header is malformed.
pub fn read_metadata(path: &Path) -> Result<Option<serde_json::Value>, FileError> {
    /// The longest header that the format allows.
    const LONGEST_HEADER: u64 = 100_000_000;
    let malformed = |reason: String| FileError::Format {
        path: path.into(),
        reason,
    };
    let read = || -> std::io::Result<(u64, u64, Vec<u8>)> {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut header = Vec::new();
        file.take(length.min(LONGEST_HEADER))
            .read_to_end(&mut header)?;
        Ok((size, length, header))
    };
    let (size, length, header) = match read() {
        Ok(read) => read,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(malformed(
                "shorter than the 8 bytes of its header length".into(),
            ));
        }
        Err(source) => {
            return Err(FileError::Read {
                path: path.into(),
                source,
            });
        }
    };
    if length > LONGEST_HEADER || header.len() as u64 != length {
        return Err(malformed(format!(
            "its header is said to have {length} bytes, the file has {size}"
        )));
    }
    let entries: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|e| malformed(format!("its header is not a JSON object: {e}")))?;
    entries
        .get("__metadata__")
        .and_then(|metadata| metadata.get(METADATA_KEY))
        .and_then(|text| text.as_str())
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| FileError::Metadata {
            path: path.into(),
            reason: e.to_string(),
        })
}

/// Reads a stream of little-endian tokens: of 32 bits in a `.u32` file, of 16 bits in any other.
///
/// # Errors
/// The file can't be read or ends within a token.
pub fn read_tokens(path: &Path) -> Result<Vec<u32>, FileError> {
    let bytes = fs::read(path).map_err(|source| FileError::Read {
        path: path.into(),
        source,
    })?;
    let partial = |bits: usize| FileError::Tokens {
        path: path.into(),
        reason: format!(
            "a stream of {bits}-bit tokens has a multiple of {} bytes, this one has {}",
            bits / 8,
            bytes.len()
        ),
    };
    if path.extension().is_some_and(|extension| extension == "u32") {
        let (tokens, []) = bytes.as_chunks::<4>() else {
            return Err(partial(32));
        };
        return Ok(tokens.iter().map(|&t| u32::from_le_bytes(t)).collect());
    }
    let (tokens, []) = bytes.as_chunks::<2>() else {
        return Err(partial(16));
    };
    Ok(tokens
        .iter()
        .map(|&t| u16::from_le_bytes(t).into())
        .collect())
}
