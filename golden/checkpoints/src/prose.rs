//! Text as a task of tree search: its steps are sentences and lines.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use golden::ets::live::{Ending, Task};

use crate::tokenizer::{EncodeError, Tokenizer};

/// Writing on. A step ends with a sentence or a line, a text at a special token (the embedded models' `<|bos|>`, others' `<|endoftext|>`) or after so many steps.
///
/// A token ends a sentence if a full stop, a question mark or an exclamation mark is the last of its characters but for closing quotes and brackets; the point of a
/// number or an abbreviation does, too. Empty lines belong to the step behind them. The answer is the text behind the prompt.
#[derive(Clone, Debug)]
pub struct Prose<'a> {
    tokenizer: &'a Tokenizer,
    special: BTreeSet<u32>,
    /// By token, what its text is for a step.
    marks: Vec<Mark>,
    /// A token, and its text by itself: some decoders change what they begin with.
    anchor: (u32, String),
    steps: u32,
}

impl<'a> Prose<'a> {
    /// Texts of at most so many steps in the tokens of a tokenizer.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn new(tokenizer: &'a Tokenizer, steps: u32) -> Result<Self, EncodeError> {
        let anchor = tokenizer.encode("a")?.last().copied().unwrap_or(0);
        let mut prose = Self {
            tokenizer,
            special: tokenizer.special(),
            marks: Vec::new(),
            anchor: (anchor, tokenizer.decode(&[anchor])?),
            steps,
        };
        let tokens = u32::try_from(tokenizer.vocabulary()).unwrap_or(u32::MAX);
        prose.marks = (0..tokens)
            .map(|token| Ok(Mark::of(&prose.decode(&[token])?)))
            .collect::<Result<_, EncodeError>>()?;
        Ok(prose)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, EncodeError> {
        let (anchor, own) = &self.anchor;
        let tokens: Vec<u32> = [anchor]
            .into_iter()
            .chain(tokens.iter().filter(|&token| !self.special.contains(token)))
            .copied()
            .collect();
        let text = self.tokenizer.decode(&tokens)?;
        Ok(text.strip_prefix(own).map(str::to_owned).unwrap_or(text))
    }
}

impl Task for Prose<'_> {
    fn ends_step(&self, step: &[u32]) -> bool {
        let mark = |&token: &u32| self.marks.get(token as usize).copied();
        step.last().is_some_and(|last| {
            self.special.contains(last)
                || mark(last).is_some_and(|mark| mark.ends)
                    && step
                        .iter()
                        .any(|token| mark(token).is_some_and(|mark| !mark.blank))
        })
    }

    fn ending(&self, step: &[u32]) -> Ending {
        match step.last() {
            Some(token) if self.special.contains(token) => Ending::Answers,
            _ => Ending::Continues,
        }
    }

    fn complete_at(&self) -> Option<u32> {
        Some(self.steps)
    }

    fn answer(&self, steps: &[String]) -> String {
        steps.concat()
    }

    /// Without special tokens. A character that a step's end cuts in two is the replacement character in both.
    fn text(&self, tokens: &[u32]) -> String {
        // Every token was decoded once before, so that a failure would have been seen.
        self.decode(tokens).unwrap_or_default()
    }
}

/// What a token's text is for a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    /// It ends a sentence or holds the end of a line.
    ends: bool,
    /// It is nothing but spaces and ends of lines.
    blank: bool,
}

impl Mark {
    fn of(text: &str) -> Self {
        const CLOSING: [char; 8] = ['"', '\'', '”', '’', '»', ')', ']', '}'];
        const ENDS: [char; 7] = ['.', '?', '!', '…', '。', '？', '！'];
        let sentence = text.trim_end().trim_end_matches(CLOSING);
        Self {
            ends: text.contains('\n') || sentence.ends_with(ENDS),
            blank: text.trim().is_empty(),
        }
    }
}

/// A model of sentences that encodes each text once: what siblings of a search say alike, and what several steps of it ask for again.
///
/// Spaces around a text are no part of it.
pub struct Remembering<F> {
    embed: F,
    known: RefCell<HashMap<String, Vec<f32>>>,
}

impl<F: Fn(&[String]) -> Result<Vec<Vec<f32>>, String>> Remembering<F> {
    /// Nothing is known yet. `embed` gives a vector for each of the texts that it is given, and the same whatever others are among them.
    pub fn new(embed: F) -> Self {
        Self {
            embed,
            known: RefCell::default(),
        }
    }

    /// A vector of each text.
    ///
    /// # Errors
    /// The model's own, or it gives more or fewer vectors than texts.
    pub fn vectors(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let mut known = self.known.borrow_mut();
        let mut new: Vec<String> = Vec::new();
        for text in texts {
            let text = text.trim();
            if !known.contains_key(text) && !new.iter().any(|other| other == text) {
                new.push(text.to_owned());
            }
        }
        if !new.is_empty() {
            let vectors = (self.embed)(&new)?;
            if vectors.len() != new.len() {
                return Err(format!(
                    "{} texts have {} vectors",
                    new.len(),
                    vectors.len()
                ));
            }
            known.extend(new.into_iter().zip(vectors));
        }
        texts
            .iter()
            .map(|text| {
                let vector = known.get(text.trim()).cloned();
                vector.ok_or_else(|| format!("a text has no vector: `{text}`"))
            })
            .collect()
    }

    /// Texts that were encoded.
    pub fn encoded(&self) -> usize {
        self.known.borrow().len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn sentences_and_lines_end_steps() {
        for text in [
            ".", "?", "!", ").", ".)", " end.\"", "\n", "a\nb", "...", "。", ".] ",
        ] {
            assert!(Mark::of(text).ends, "{text:?}");
        }
        for text in ["", " ", "a", ",", ".a", ")", ";", "\"", "\u{fffd}"] {
            assert!(!Mark::of(text).ends, "{text:?}");
        }
        assert!(Mark::of("\n").blank && Mark::of("").blank && !Mark::of(".").blank);
    }

    #[test]
    fn each_text_is_encoded_once() {
        let asked = Cell::new(0);
        let memory = Remembering::new(|texts: &[String]| {
            asked.set(asked.get() + texts.len());
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        });
        let texts =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.to_owned()).collect() };
        let found = memory.vectors(&texts(&["one", " one\n", "three"])).unwrap();
        assert_eq!(found, [[3.0], [3.0], [5.0]]);
        assert_eq!((asked.get(), memory.encoded()), (2, 2));
        let found = memory.vectors(&texts(&["three", "", "one"])).unwrap();
        assert_eq!(found, [[5.0], [0.0], [3.0]]);
        assert_eq!((asked.get(), memory.encoded()), (3, 3));
        assert!(memory.vectors(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_model_that_fails_is_understood() {
        let none = Remembering::new(|_: &[String]| Ok(Vec::new()));
        assert_eq!(
            none.vectors(&["a".into()]).unwrap_err(),
            "1 texts have 0 vectors"
        );
        let failing = Remembering::new(|_: &[String]| Err("no".into()));
        assert_eq!(failing.vectors(&["a".into()]).unwrap_err(), "no");
        assert_eq!(failing.encoded(), 0);
    }
}
