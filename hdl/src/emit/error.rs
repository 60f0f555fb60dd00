//! Why a design can't be emitted.

/// A construct that has no Verilog of the same meaning, or a fault of the design.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{module}: `{name}`: {reason}{}", if hint.is_empty() { String::new() } else { format!(" ({hint})") })]
pub struct EmitError {
    /// Path of the instance in the design, from the top.
    pub module: String,
    /// Signal or expression, as the source names it.
    pub name: String,
    /// What is wrong.
    pub reason: String,
    /// How to say it instead; may be empty.
    pub hint: String,
}

/// What is wrong, before it is known in which instance.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub name: String,
    pub reason: String,
    pub hint: String,
}

impl Fault {
    pub fn new(name: impl AsRef<str>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            name: source_name(name.as_ref()),
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    pub fn within(self, module: &str) -> EmitError {
        EmitError {
            module: module.to_owned(),
            name: self.name,
            reason: self.reason,
            hint: self.hint,
        }
    }
}

/// Spells a name of rust-hdl's tree (`pe$3$acc`) as the source does (`pe[3].acc`).
pub(super) fn source_name(name: &str) -> String {
    let mut text = String::new();
    for (i, part) in name.trim_end_matches("$next").split('$').enumerate() {
        if i > 0 && !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()) {
            text.push_str(&format!("[{part}]"));
        } else {
            if i > 0 {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}
