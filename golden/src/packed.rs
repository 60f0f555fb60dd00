//! Packed tensors: three dense streams, in memory and in safetensors files (numerics §2).

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::NUMERICS_VERSION;
use crate::block::{Block, PackedBlock};
use crate::format::{BLOCK, Ue4m3};
pub use crate::profiles::Profile;
use crate::simd::decode;
use crate::tensors::{FileError, RawTensor, TensorFile};

/// A tensor's one FP32 scale: positive and finite.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "f32", into = "f32")]
pub struct TensorScale(f32);

/// A number that can't be a tensor's scale.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("a tensor's scale is positive and finite, {0:e} isn't")]
pub struct TensorScaleError(pub f32);

impl TensorScale {
    /// S = 1.
    pub const ONE: Self = Self(1.0);

    /// Checks that the scale is positive and finite.
    ///
    /// # Errors
    /// It isn't.
    pub fn new(scale: f32) -> Result<Self, TensorScaleError> {
        if scale > 0.0 && scale.is_finite() {
            Ok(Self(scale))
        } else {
            Err(TensorScaleError(scale))
        }
    }

    /// The scale of a tensor whose largest magnitude is `amax`: [`Profile::tensor_scale`].
    ///
    /// # Errors
    /// As there.
    pub fn of_amax(amax: f32, profile: Profile) -> Result<Self, TensorScaleError> {
        profile.tensor_scale(amax)
    }

    /// The scale.
    pub const fn get(self) -> f32 {
        self.0
    }
}

impl TryFrom<f32> for TensorScale {
    type Error = TensorScaleError;
    fn try_from(scale: f32) -> Result<Self, TensorScaleError> {
        Self::new(scale)
    }
}

impl From<TensorScale> for f32 {
    fn from(scale: TensorScale) -> f32 {
        scale.0
    }
}

/// What is wrong with the parts of a packed tensor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PackedError {
    /// No dimension, a dimension of 0, or more elements than memory can address.
    #[error("shape {0:?} is empty or too large")]
    Shape(Vec<usize>),
    /// Not as many blocks as the shape needs.
    #[error("shape {shape:?} needs {expected} blocks, {found} were given")]
    Blocks {
        /// The logical shape.
        shape: Vec<usize>,
        /// Blocks that it needs.
        expected: usize,
        /// Blocks that there are.
        found: usize,
    },
    /// A stream of the wrong length.
    #[error("{stream} stream: expected {expected} bytes, found {found}")]
    Length {
        /// tags, scales or payload.
        stream: &'static str,
        /// Bytes that the shape and the tags need.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// A tag bit behind the last block is set.
    #[error("tags stream: a bit behind the last block is set")]
    TrailingTag,
    /// A scale code that is none.
    #[error("scales stream: code {code:#04x} of FP4 block {index} is above 0x7e")]
    Scale {
        /// Which FP4 block.
        index: usize,
        /// The code.
        code: u8,
    },
    /// An element behind the end of a row that isn't zero.
    #[error("block {block} pads its row with an element that is not zero")]
    Padding {
        /// Which block.
        block: usize,
    },
}

/// A tensor of blocks. The last dimension is the reduction dimension K, zero-padded to a multiple of 16.
#[derive(Clone, PartialEq, Debug)]
pub struct PackedTensor {
    shape: Vec<usize>,
    scale: TensorScale,
    tags: Vec<u8>,
    scales: Vec<u8>,
    payload: Vec<u64>,
    blocks: usize,
}

/// The three streams while blocks are added to them.
#[derive(Clone, Default)]
pub(crate) struct StreamBuilder {
    tags: Vec<u8>,
    scales: Vec<u8>,
    payload: Vec<u64>,
    blocks: usize,
}

impl StreamBuilder {
    /// With room for this many blocks.
    pub(crate) fn with_capacity(blocks: usize) -> Self {
        Self {
            tags: Vec::with_capacity(blocks.div_ceil(8)),
            scales: Vec::with_capacity(blocks),
            payload: Vec::with_capacity(2 * blocks),
            blocks: 0,
        }
    }

    /// FP4 blocks by their scales and words, which are equally many.
    pub(crate) fn of_fp4(scales: Vec<u8>, payload: Vec<u64>) -> Self {
        Self {
            tags: vec![0; scales.len().div_ceil(8)],
            blocks: scales.len(),
            scales,
            payload,
        }
    }

    #[inline(always)]
    fn push_tag(&mut self, fp8: bool) {
        if self.blocks.is_multiple_of(8) {
            self.tags.push(0);
        }
        if let Some(byte) = self.tags.last_mut() {
            *byte |= u8::from(fp8) << (self.blocks % 8);
        }
        self.blocks += 1;
    }

    /// Adds an FP4 block; `scale` is at most 0x7E.
    #[inline(always)]
    pub(crate) fn push_fp4(&mut self, scale: u8, word: u64) {
        self.push_tag(false);
        self.scales.push(scale);
        self.payload.push(word);
    }

    /// Adds an FP8 block.
    #[inline(always)]
    pub(crate) fn push_fp8(&mut self, words: [u64; 2]) {
        self.push_tag(true);
        self.payload.extend_from_slice(&words);
    }

    /// Adds any block.
    pub(crate) fn push(&mut self, block: &Block) {
        let packed = block.pack();
        let low = packed.payload as u64;
        if packed.tag {
            self.push_fp8([low, (packed.payload >> 64) as u64]);
        } else {
            self.push_fp4(packed.scale, low);
        }
    }

    /// Adds another's blocks; fast where this one's are a multiple of 8.
    pub(crate) fn append(&mut self, other: &Self) {
        if self.blocks.is_multiple_of(8) {
            self.tags.extend_from_slice(&other.tags);
            self.blocks += other.blocks;
        } else {
            for index in 0..other.blocks {
                let byte = other.tags.get(index / 8).copied().unwrap_or_default();
                self.push_tag(byte >> (index % 8) & 1 == 1);
            }
        }
        self.scales.extend_from_slice(&other.scales);
        self.payload.extend_from_slice(&other.payload);
    }
}

/// Rows, blocks a row, and blocks, if none is zero and the padded elements can be counted in memory.
fn block_counts(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let (&k, outer) = shape.split_last()?;
    let rows = outer
        .iter()
        .try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
    let row_blocks = k.div_ceil(BLOCK);
    let blocks = rows.checked_mul(row_blocks)?;
    // 16 payload bytes a block is the largest stream, decoded FP64 the largest copy.
    blocks
        .checked_mul(BLOCK * 8)
        .filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok())?;
    Some((rows, row_blocks, blocks))
}

impl PackedTensor {
    /// Packs blocks given in row-major order.
    ///
    /// # Errors
    /// The shape is empty or too large, the number of blocks is not the shape's, or padding is not zero.
    pub fn from_blocks(
        shape: &[usize],
        scale: TensorScale,
        blocks: impl IntoIterator<Item = Block>,
    ) -> Result<Self, PackedError> {
        let mut streams = StreamBuilder::default();
        for block in blocks {
            streams.push(&block);
        }
        Self::from_builder(shape, scale, streams)
    }

    /// Takes blocks in row-major order that are packed already.
    ///
    /// # Errors
    /// As [`from_blocks`](Self::from_blocks).
    pub(crate) fn from_builder(
        shape: &[usize],
        scale: TensorScale,
        streams: StreamBuilder,
    ) -> Result<Self, PackedError> {
        let (_, _, expected) =
            block_counts(shape).ok_or_else(|| PackedError::Shape(shape.into()))?;
        let StreamBuilder {
            tags,
            scales,
            payload,
            blocks,
        } = streams;
        if blocks != expected {
            return Err(PackedError::Blocks {
                shape: shape.into(),
                expected,
                found: blocks,
            });
        }
        let tensor = Self {
            shape: shape.into(),
            scale,
            tags,
            scales,
            payload,
            blocks,
        };
        tensor.check_padding()?;
        Ok(tensor)
    }

    /// Takes streams as files hold them, and checks all of them.
    ///
    /// # Errors
    /// Any [`PackedError`].
    pub fn from_streams(
        shape: &[usize],
        scale: TensorScale,
        tags: Vec<u8>,
        scales: Vec<u8>,
        payload: &[u8],
    ) -> Result<Self, PackedError> {
        let (_, _, blocks) = block_counts(shape).ok_or_else(|| PackedError::Shape(shape.into()))?;
        let length = |stream, expected, found| {
            if expected == found {
                Ok(())
            } else {
                Err(PackedError::Length {
                    stream,
                    expected,
                    found,
                })
            }
        };
        length("tags", blocks.div_ceil(8), tags.len())?;
        if let Some(last) = tags.last()
            && !blocks.is_multiple_of(8)
            && last >> (blocks % 8) != 0
        {
            return Err(PackedError::TrailingTag);
        }
        let fp8_blocks: usize = tags.iter().map(|byte| byte.count_ones() as usize).sum();
        length("scales", blocks - fp8_blocks, scales.len())?;
        length("payload", 8 * (blocks + fp8_blocks), payload.len())?;
        if let Some((index, &code)) = scales
            .iter()
            .enumerate()
            .find(|(_, code)| Ue4m3::from_bits(**code).is_none())
        {
            return Err(PackedError::Scale { index, code });
        }
        let payload = payload
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&word| u64::from_le_bytes(word))
            .collect();
        let tensor = Self {
            shape: shape.into(),
            scale,
            tags,
            scales,
            payload,
            blocks,
        };
        tensor.check_padding()?;
        Ok(tensor)
    }

    fn check_padding(&self) -> Result<(), PackedError> {
        let used = self.k() % BLOCK;
        if used == 0 {
            return Ok(());
        }
        let row_blocks = self.row_blocks();
        for (index, block) in self.blocks().enumerate() {
            // NaN is not zero either.
            if index % row_blocks == row_blocks - 1
                && block.values().iter().skip(used).any(|&v| v != 0.0)
            {
                return Err(PackedError::Padding { block: index });
            }
        }
        Ok(())
    }

    /// The logical shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.blocks / self.row_blocks()
    }

    /// Length of the reduction dimension, without padding.
    pub fn k(&self) -> usize {
        self.shape.last().copied().unwrap_or_default()
    }

    /// Blocks of a row.
    pub fn row_blocks(&self) -> usize {
        self.k().div_ceil(BLOCK)
    }

    /// The tensor's scale S.
    pub fn scale(&self) -> TensorScale {
        self.scale
    }

    /// 1 bit a block, bit i of byte i/8.
    pub fn tags(&self) -> &[u8] {
        &self.tags
    }

    /// The UE4M3 code of each FP4 block.
    pub fn scales(&self) -> &[u8] {
        &self.scales
    }

    /// One word for an FP4 block, two for an FP8 block.
    pub fn payload(&self) -> &[u64] {
        &self.payload
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.blocks
    }

    /// Number of FP8 blocks.
    pub fn fp8_blocks(&self) -> usize {
        self.blocks - self.scales.len()
    }

    /// Share of FP8 blocks.
    pub fn fp8_share(&self) -> f64 {
        self.fp8_blocks() as f64 / self.blocks as f64
    }

    /// Bits of the three streams for each logical element (padding is paid for, the one tensor scale isn't counted).
    pub fn bits_per_element(&self) -> f64 {
        let bits = 64 * self.payload.len() + 8 * self.scales.len() + self.blocks;
        bits as f64 / (self.rows() * self.k()) as f64
    }

    /// The blocks in row-major order, packed.
    pub fn packed_blocks(&self) -> impl Iterator<Item = PackedBlock> {
        let mut scales = self.scales.iter();
        let mut words = self.payload.iter();
        (0..self.blocks).map_while(move |index| {
            let tag = self.tags.get(index / 8)? >> (index % 8) & 1 == 1;
            let low = u128::from(*words.next()?);
            Some(if tag {
                PackedBlock {
                    tag,
                    scale: 0,
                    payload: u128::from(*words.next()?) << 64 | low,
                }
            } else {
                PackedBlock {
                    tag,
                    scale: *scales.next()?,
                    payload: low,
                }
            })
        })
    }

    /// The blocks in row-major order.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        // Every way to make a tensor has checked the scales, so that no block is dropped.
        self.packed_blocks()
            .filter_map(|packed| Block::unpack(&packed).ok())
    }

    fn streams(&self) -> decode::Streams<'_> {
        decode::Streams {
            tags: &self.tags,
            scales: &self.scales,
            payload: &self.payload,
        }
    }

    /// Values without the tensor's scale, rows padded to whole blocks; exact.
    pub fn unscaled_values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.blocks * BLOCK];
        decode::to_f32(self.streams(), 1.0, values.as_chunks_mut().0);
        values
    }

    /// [`unscaled_values`](Self::unscaled_values) in FP64, for exact products.
    pub fn unscaled_values_f64(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.blocks * BLOCK];
        decode::to_f64(self.streams(), values.as_chunks_mut().0);
        values
    }

    /// The tensor in FP32, each value RNE_FP32(S · value), padding dropped.
    pub fn decode(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.blocks * BLOCK];
        decode::to_f32(self.streams(), self.scale.0, values.as_chunks_mut().0);
        let (k, padded) = (self.k(), self.row_blocks() * BLOCK);
        if k != padded {
            // Rows move towards the start, the first stays.
            for row in 1..self.rows() {
                values.copy_within(row * padded..row * padded + k, row * k);
            }
            values.truncate(self.rows() * k);
        }
        values
    }
}

/// The project's JSON in a packed file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct PackedMetadata {
    numerics_version: u32,
    /// Logical shape of each packed tensor.
    shapes: BTreeMap<String, Vec<usize>>,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    model: serde_json::Map<String, serde_json::Value>,
}

/// The project's JSON of a file that holds packed tensors of these logical shapes and no model, for who writes one by other means.
pub fn packed_metadata(shapes: BTreeMap<String, Vec<usize>>) -> serde_json::Value {
    let metadata = PackedMetadata {
        numerics_version: NUMERICS_VERSION,
        shapes,
        model: serde_json::Map::new(),
    };
    // A struct of numbers, lists and strings always becomes JSON.
    serde_json::to_value(metadata).unwrap_or_default()
}

/// A file of packed tensors, with any unquantized ones beside them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PackedFile {
    /// The packed tensors by name.
    pub packed: BTreeMap<String, PackedTensor>,
    /// Tensors that are held verbatim: embedding, norms.
    pub plain: BTreeMap<String, RawTensor>,
    /// What the engine wants to know of a model; empty for plain tensors.
    pub model: serde_json::Map<String, serde_json::Value>,
}

const PAYLOAD: &str = "payload";
const SCALES: &str = "scales";
const TAGS: &str = "tags";
const TENSOR_SCALE: &str = "tensor_scale";

impl PackedFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file can't be read, is no packed file, has another numerics version, or holds a tensor
    /// whose streams contradict one another. The message names the file and the tensor.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::from_tensors(TensorFile::open(path)?)
    }

    /// Whether a file's metadata says that it holds packed tensors.
    pub fn is_packed(file: &TensorFile) -> bool {
        file.metadata
            .as_ref()
            .is_some_and(|metadata| metadata.get("shapes").is_some())
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// As [`PackedFile::open`].
    pub fn from_tensors(mut file: TensorFile) -> Result<Self, FileError> {
        let json = file.metadata.take().ok_or_else(|| {
            file.metadata_fault("expected, but the file has none: it is no packed file")
        })?;
        let metadata: PackedMetadata = serde_json::from_value(json)
            .map_err(|e| file.metadata_fault(format!("not that of a packed file: {e}")))?;
        if metadata.numerics_version != NUMERICS_VERSION {
            return Err(file.metadata_fault(format!(
                "expected numerics version {NUMERICS_VERSION}, found {}",
                metadata.numerics_version
            )));
        }
        let mut packed = BTreeMap::new();
        for (name, shape) in metadata.shapes {
            let payload = take_stream(&mut file, &name, PAYLOAD, Dtype::U8)?;
            let scales = take_stream(&mut file, &name, SCALES, Dtype::F8_E4M3)?;
            let tags = take_stream(&mut file, &name, TAGS, Dtype::U8)?;
            let scale = take_stream(&mut file, &name, TENSOR_SCALE, Dtype::F32)?;
            let scale: [u8; 4] = scale.try_into().map_err(|_| {
                file.fault(&format!("{name}.{TENSOR_SCALE}"), "expected one element")
            })?;
            let tensor = TensorScale::new(f32::from_le_bytes(scale))
                .map_err(|e| file.fault(&format!("{name}.{TENSOR_SCALE}"), e.to_string()))
                .and_then(|scale| {
                    PackedTensor::from_streams(&shape, scale, tags, scales, &payload)
                        .map_err(|e| file.fault(&name, e.to_string()))
                })?;
            packed.insert(name, tensor);
        }
        Ok(Self {
            packed,
            plain: file.tensors,
            model: metadata.model,
        })
    }

    /// The safetensors file that holds all of it; `path` is only used in messages.
    ///
    /// # Errors
    /// A plain tensor has the name of a packed tensor's stream.
    pub fn to_tensors(&self, path: &Path) -> Result<TensorFile, FileError> {
        let mut file = TensorFile::new(path);
        file.tensors = self.plain.clone();
        for (name, tensor) in &self.packed {
            let payload = tensor
                .payload
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            let streams = [
                (PAYLOAD, Dtype::U8, payload),
                (SCALES, Dtype::F8_E4M3, tensor.scales.clone()),
                (TAGS, Dtype::U8, tensor.tags.clone()),
                (
                    TENSOR_SCALE,
                    Dtype::F32,
                    tensor.scale.0.to_le_bytes().to_vec(),
                ),
            ];
            for (stream, dtype, bytes) in streams {
                let name = format!("{name}.{stream}");
                let shape = vec![bytes.len() / (dtype.bitsize() / 8)];
                if file
                    .tensors
                    .insert(
                        name.clone(),
                        RawTensor {
                            dtype,
                            shape,
                            bytes,
                        },
                    )
                    .is_some()
                {
                    return Err(file.fault(&name, "two tensors have this name"));
                }
            }
        }
        let metadata = PackedMetadata {
            numerics_version: NUMERICS_VERSION,
            shapes: self
                .packed
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
                .collect(),
            model: self.model.clone(),
        };
        file.metadata = Some(
            serde_json::to_value(metadata).map_err(|e| FileError::Metadata {
                path: path.into(),
                reason: e.to_string(),
            })?,
        );
        Ok(file)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As [`PackedFile::to_tensors`], or the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        self.to_tensors(path)?.save(path)
    }
}

fn take_stream(
    file: &mut TensorFile,
    name: &str,
    stream: &str,
    dtype: Dtype,
) -> Result<Vec<u8>, FileError> {
    let name = format!("{name}.{stream}");
    let tensor = file
        .tensors
        .remove(&name)
        .ok_or_else(|| FileError::Missing {
            path: file.path().into(),
            name: name.clone(),
        })?;
    if tensor.dtype != dtype {
        return Err(file.fault(
            &name,
            format!("expected {dtype:?}, found {:?}", tensor.dtype),
        ));
    }
    Ok(tensor.bytes)
}
