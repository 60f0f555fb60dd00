//! The header of a GGUF file: metadata and the table of tensors.
//!
//! Nothing is allocated before the file's length has shown that it can be there, and the tensors' data is not read.

use std::collections::BTreeMap;
use std::io::Read;

use crate::encoding::Encoding;

/// The first four bytes of a GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Longest header that is read. A vocabulary of a quarter million tokens needs some 15 MB.
const MAX_HEADER: u64 = 64 << 20;
/// ggml's bound on dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// Where data starts unless the metadata says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What is wrong with a GGUF header.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a GGUF file that can be read: {0}")]
pub struct Malformed(String);

fn malformed<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(reason.into()))
}

/// A value of the metadata.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of any of the eight integer types.
    Integer(i128),
    /// FP32 or FP64.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// An array of texts.
    Texts(Vec<String>),
    /// An array of 32-bit integers, signed or not.
    Integers(Vec<i64>),
    /// An array of another type; its elements are passed over.
    OtherArray {
        /// Number of elements.
        count: usize,
    },
}

/// An entry of the table of tensors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// ggml's name.
    pub name: String,
    /// Extents, outermost dimension first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub encoding: Encoding,
    /// Where its bytes start in the file.
    pub offset: u64,
    /// How many bytes they are.
    pub bytes: u64,
}

/// A header.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors in the order of the file. Each lies inside the file and none overlaps another.
    pub tensors: Vec<Entry>,
}

impl Header {
    /// Reads a header from the start of a file of `length` bytes.
    ///
    /// # Errors
    /// The header is cut short, contradicts itself or the file's length, or is of a version or type that is not read.
    pub fn read(reader: impl Read, length: u64) -> Result<Self, Malformed> {
        let mut input = Input {
            reader,
            position: 0,
            end: length.min(MAX_HEADER),
        };
        if input.bytes::<4>("the magic number")? != MAGIC {
            return malformed("it doesn't start with `GGUF`");
        }
        match input.u32("the version")? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 2 | 3) => {
                return malformed("it is big-endian; only little-endian files are read");
            }
            version => {
                return malformed(format!("version {version}; versions 2 and 3 are read"));
            }
        }
        // Name's length, count of dimensions, one extent, type, offset.
        let tensor_count = input.count("tensors", 8 + 4 + 8 + 4 + 8)?;
        // Key's length, type and one byte of value.
        let entry_count = input.count("metadata entries", 8 + 4 + 1)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = input.text("a metadata key")?;
            let value = input.value(&key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return malformed(format!("metadata key `{key}` stands there twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Integer(n)) => u64::try_from(*n)
                .ok()
                .filter(|n| n.is_power_of_two() && *n <= MAX_HEADER)
                .ok_or_else(|| Malformed(format!("alignment {n} is no power of two")))?,
            Some(_) => return malformed("`general.alignment` is no integer"),
        };

        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(input.tensor()?);
        }
        let start = input.position.next_multiple_of(alignment);
        place(&mut tensors, start, alignment, length)?;
        Ok(Self { metadata, tensors })
    }
}

/// Turns offsets within the data into offsets within the file, and checks them.
fn place(tensors: &mut [Entry], start: u64, alignment: u64, length: u64) -> Result<(), Malformed> {
    for tensor in &mut *tensors {
        if !tensor.offset.is_multiple_of(alignment) {
            return malformed(format!(
                "tensor {}: its offset {} is no multiple of the alignment {alignment}",
                tensor.name, tensor.offset
            ));
        }
        tensor.offset = start
            .checked_add(tensor.offset)
            .filter(|offset| {
                offset
                    .checked_add(tensor.bytes)
                    .is_some_and(|end| end <= length)
            })
            .ok_or_else(|| {
                Malformed(format!(
                    "tensor {}: its {} bytes at offset {} lie outside of the file of {length} bytes",
                    tensor.name, tensor.bytes, tensor.offset
                ))
            })?;
    }
    let mut by_offset: Vec<&Entry> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if let [first, second] = pair
            && first.offset + first.bytes > second.offset
        {
            return malformed(format!(
                "tensors {} and {} overlap",
                first.name, second.name
            ));
        }
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    if let Some(name) = names.windows(2).find_map(|pair| {
        (pair.first() == pair.last())
            .then(|| pair.first())
            .flatten()
    }) {
        return malformed(format!("tensor {name} stands there twice"));
    }
    Ok(())
}

/// Bytes of a scalar of each of GGUF's value types; `None` for strings and arrays.
fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

struct Input<R> {
    reader: R,
    position: u64,
    end: u64,
}

impl<R: Read> Input<R> {
    fn remaining(&self) -> u64 {
        self.end - self.position
    }

    fn advance(&mut self, count: u64, what: &str) -> Result<(), Malformed> {
        if count > self.remaining() {
            return malformed(format!(
                "{what} of {count} bytes at offset {} goes beyond the header's end: the file, or {MAX_HEADER} bytes",
                self.position
            ));
        }
        self.position += count;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        self.advance(N as u64, what)?;
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| Malformed(format!("{what}: {e}")))?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Malformed> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Malformed> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A count of things that need at least `smallest` bytes each.
    fn count(&mut self, what: &str, smallest: u64) -> Result<usize, Malformed> {
        let count = self.u64(what)?;
        usize::try_from(count)
            .ok()
            .filter(|_| count <= self.remaining() / smallest)
            .ok_or_else(|| {
                Malformed(format!(
                    "{count} {what} don't fit the {} bytes that the header has left",
                    self.remaining()
                ))
            })
    }

    fn text(&mut self, what: &str) -> Result<String, Malformed> {
        let length = self.count(what, 1)?;
        self.advance(length as u64, what)?;
        let mut bytes = vec![0; length];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| Malformed(format!("{what}: {e}")))?;
        String::from_utf8(bytes).map_err(|_| Malformed(format!("{what} is not UTF-8")))
    }

    fn skip(&mut self, count: u64, what: &str) -> Result<(), Malformed> {
        self.advance(count, what)?;
        let skipped = std::io::copy(&mut (&mut self.reader).take(count), &mut std::io::sink())
            .map_err(|e| Malformed(format!("{what}: {e}")))?;
        if skipped == count {
            Ok(())
        } else {
            malformed(format!("{what}: the file ends within it"))
        }
    }

    fn value(&mut self, key: &str) -> Result<Value, Malformed> {
        match self.u32(key)? {
            TEXT => self.text(key).map(Value::Text),
            ARRAY => self.array(key),
            kind => self.scalar(kind, key),
        }
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<Value, Malformed> {
        Ok(match kind {
            0 => Value::Integer(self.bytes(key).map(u8::from_le_bytes)?.into()),
            1 => Value::Integer(self.bytes(key).map(i8::from_le_bytes)?.into()),
            2 => Value::Integer(self.bytes(key).map(u16::from_le_bytes)?.into()),
            3 => Value::Integer(self.bytes(key).map(i16::from_le_bytes)?.into()),
            4 => Value::Integer(self.u32(key)?.into()),
            5 => Value::Integer(self.bytes(key).map(i32::from_le_bytes)?.into()),
            6 => Value::Float(self.bytes(key).map(f32::from_le_bytes)?.into()),
            7 => Value::Bool(self.bytes::<1>(key)? != [0]),
            10 => Value::Integer(self.u64(key)?.into()),
            11 => Value::Integer(self.bytes(key).map(i64::from_le_bytes)?.into()),
            12 => Value::Float(self.bytes(key).map(f64::from_le_bytes)?),
            _ => return malformed(format!("metadata key `{key}`: unknown value type {kind}")),
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, Malformed> {
        let kind = self.u32(key)?;
        match kind {
            // A text has at least its length.
            TEXT => {
                let count = self.count(key, 8)?;
                (0..count)
                    .map(|_| self.text(key))
                    .collect::<Result<_, _>>()
                    .map(Value::Texts)
            }
            4 | 5 => {
                let count = self.count(key, 4)?;
                (0..count)
                    .map(|_| {
                        let bits = self.u32(key)?;
                        Ok(if kind == 4 {
                            i64::from(bits)
                        } else {
                            i64::from(bits.cast_signed())
                        })
                    })
                    .collect::<Result<_, _>>()
                    .map(Value::Integers)
            }
            _ => {
                let Some(size) = scalar_bytes(kind) else {
                    return malformed(format!(
                        "metadata key `{key}`: an array of elements of type {kind}"
                    ));
                };
                let count = self.count(key, size)?;
                // Checked by `count`: the product is at most what remains.
                self.skip(count as u64 * size, key)?;
                Ok(Value::OtherArray { count })
            }
        }
    }

    fn tensor(&mut self) -> Result<Entry, Malformed> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return malformed(format!(
                "tensor {name}: {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible"
            ));
        }
        let mut shape = Vec::new();
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let extent = self.u64(&name)?;
            elements = elements
                .checked_mul(extent)
                .filter(|&elements| elements > 0 && isize::try_from(elements).is_ok())
                .ok_or_else(|| {
                    Malformed(format!(
                        "tensor {name}: an extent of {extent} is too large or 0"
                    ))
                })?;
            // Cannot fail: the product is below isize::MAX.
            shape.push(usize::try_from(extent).unwrap_or(usize::MAX));
        }
        let encoding = Encoding::of_ggml(self.u32(&name)?)
            .map_err(|reason| Malformed(format!("tensor {name}: {reason}")))?;
        // GGUF has the innermost dimension first; blocks run along it.
        let width = shape.first().copied().unwrap_or(1);
        if !width.is_multiple_of(encoding.block().elements) {
            return malformed(format!(
                "tensor {name}: rows of {width} elements are no whole blocks of {encoding}"
            ));
        }
        let bytes = encoding
            .bytes_of(elements)
            .ok_or_else(|| Malformed(format!("tensor {name}: too large")))?;
        shape.reverse();
        Ok(Entry {
            offset: self.u64(&name)?,
            name,
            shape,
            encoding,
            bytes,
        })
    }
}
