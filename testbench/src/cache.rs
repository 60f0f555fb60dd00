//! Where results of long work are kept between runs, and under which key.

use std::fmt::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// `$FGMP_CACHE/name`, else `fgmp/name` of the user's cache folder. It may not exist yet.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    let set = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(folder) = set("FGMP_CACHE") {
        return folder.join(name);
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("fgmp")
        .join(name)
}

/// SHA-256 over the parts, each with its length, in hex.
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_same_text_in_other_parts_has_another_key() {
        assert_eq!(digest(["ab", "c"]), digest(["ab", "c"]));
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_eq!(digest([]).len(), 64);
    }
}
