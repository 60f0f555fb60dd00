//! What was measured is kept: one line of JSON for each result.
//!
//! A line's key is a SHA-256 over everything that decides the result: the Verilog (so the configuration, and the version of this
//! program as far as it matters), the tools' versions, the device and the settings. Asked again, a result comes from the store.
//! A table or a plot is a query over the lines: `fgmp synth --list --json -`, or any tool that reads JSON lines.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// SHA-256 of what decides the result.
    pub key: String,
    /// Seconds since 1970.
    pub measured: u64,
    /// Kind of result: `mapped`, `routed`, …
    pub kind: String,
    /// What was measured, for people and queries: module, configuration, device, seed, tool.
    pub subject: Value,
    /// The result.
    pub result: Value,
}

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// A line of it is no result.
    #[error("{}, line {line}: {message}; mend the line or remove it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// A file of results. It may be used by several threads; several processes may add lines at once.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Store {
    /// Where results are kept unless the user says otherwise.
    #[must_use]
    pub fn default_path() -> PathBuf {
        testbench::cache::folder("synth").join("results.jsonl")
    }

    /// Opens a file of results; one that isn't there is an empty one.
    ///
    /// # Errors
    /// [`StoreError`] if it can't be read, or a line isn't a result. A last line without its end, as an interrupted
    /// writer leaves it, is not one yet and is passed over.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(StoreError::File { path, source }),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut entries = HashMap::new();
        for (number, line) in text[..whole].lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let entry: Entry = serde_json::from_str(line).map_err(|error| StoreError::Line {
                path: path.clone(),
                line: number + 1,
                message: error.to_string(),
            })?;
            entries.insert(entry.key.clone(), entry);
        }
        Ok(Self {
            path,
            entries: Mutex::new(entries),
        })
    }

    /// A file of results whose results don't count: everything is measured anew and added.
    #[must_use]
    pub fn anew(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            entries: Mutex::default(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The result under a key; none if there is none or it was written by a version whose results had another form.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let entries = self.entries.lock().ok()?;
        T::deserialize(&entries.get(key)?.result).ok()
    }

    /// All results, the oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self
            .entries
            .lock()
            .map(|entries| entries.values().cloned().collect())
            .unwrap_or_default();
        all.sort_by(|a, b| (a.measured, &a.key).cmp(&(b.measured, &b.key)));
        all
    }

    /// Adds a result, replacing one of the same key.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn put(
        &self,
        key: String,
        kind: &str,
        subject: Value,
        result: &impl Serialize,
    ) -> Result<(), StoreError> {
        let file = |source| StoreError::File {
            path: self.path.clone(),
            source,
        };
        let entry = Entry {
            key,
            measured: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            kind: kind.to_owned(),
            subject,
            result: serde_json::to_value(result).map_err(|error| file(error.into()))?,
        };
        let mut line = serde_json::to_string(&entry).map_err(|error| file(error.into()))?;
        line.push('\n');
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(file)?;
        }
        let mut out = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&self.path)
            .map_err(file)?;
        out.lock().map_err(file)?;
        cut_partial_line(&mut out).map_err(file)?;
        out.write_all(line.as_bytes()).map_err(file)?;
        if let Ok(mut entries) = self.entries.lock() {
            entries.insert(entry.key.clone(), entry);
        }
        Ok(())
    }

    /// The result under a key, or that of `measure`, which is added.
    ///
    /// # Errors
    /// As `measure`, and [`StoreError::File`].
    pub fn get_or<T, E>(
        &self,
        key: String,
        kind: &str,
        subject: Value,
        measure: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<StoreError>,
    {
        if let Some(known) = self.get(&key) {
            return Ok(known);
        }
        let result = measure()?;
        self.put(key, kind, subject, &result)?;
        Ok(result)
    }
}

/// Removes what an interrupted writer left behind the last whole line.
fn cut_partial_line(file: &mut File) -> std::io::Result<()> {
    let mut length = file.metadata()?.len();
    let mut last = [0];
    while length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" {
            break;
        }
        length -= 1;
    }
    if length < file.metadata()?.len() {
        file.set_len(length)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_found_again_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/results.jsonl");
        let store = Store::open(&path).unwrap();
        let mut measured = 0;
        for _ in 0..2 {
            let value: Result<u32, StoreError> =
                store.get_or("k".to_owned(), "mapped", json!({"module": "pe"}), || {
                    measured += 1;
                    Ok(7)
                });
            assert_eq!(value.unwrap(), 7);
        }
        assert_eq!(measured, 1);
        assert_eq!(Store::anew(&path).get::<u32>("k"), None);
        let again = Store::open(&path).unwrap();
        assert_eq!(again.get::<u32>("k"), Some(7));
        assert_eq!(again.get::<String>("k"), None, "another form");
        assert_eq!(again.entries()[0].subject["module"], "pe");
    }

    #[test]
    fn half_a_line_is_passed_over_and_then_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let store = Store::open(&path).unwrap();
        store.put("a".into(), "mapped", Value::Null, &1).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"key\": \"b")).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get::<u32>("a"), Some(1));
        store.put("c".into(), "mapped", Value::Null, &3).unwrap();
        let again = Store::open(&path).unwrap();
        assert_eq!(again.get::<u32>("a"), Some(1));
        assert_eq!(again.get::<u32>("c"), Some(3));
    }

    #[test]
    fn a_line_that_is_no_result_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        fs::write(&path, "\n{\"key\": 1}\n").unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("results.jsonl, line 2"), "{error}");
    }
}
