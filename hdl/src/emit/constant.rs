//! Numbers known when the design is emitted: literals, loop variables, array indices.

use super::error::Fault;
use num_bigint::{BigInt, BigUint, Sign};
use rust_hdl_core::ast::VerilogLiteral;

/// A compile-time number of the kernel's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    /// A Rust integer: it takes the width of its context.
    Integer(BigInt),
    /// `true` or `false`.
    Bool(bool),
    /// A value that has a width of its own: a `Bits` or `Signed` constant.
    Sized {
        value: BigInt,
        width: usize,
        signed: bool,
    },
}

/// The value and width of a literal of rust-hdl's tree (its fields are private, its text is not).
pub(super) fn literal_value(literal: &VerilogLiteral) -> Option<(BigInt, usize)> {
    let text = literal.to_string();
    let (width, digits) = text.split_once('\'')?;
    let width = width.parse().ok()?;
    let (radix, digits) = match digits.chars().next()? {
        'b' => (2, &digits[1..]),
        'h' => (16, &digits[1..]),
        _ => return None,
    };
    Some((BigInt::parse_bytes(digits.as_bytes(), radix)?, width))
}

/// Reads the text that `kernel::Value` makes.
pub(super) fn parse_value(text: &str) -> Option<Constant> {
    match text {
        "true" => return Some(Constant::Bool(true)),
        "false" => return Some(Constant::Bool(false)),
        _ => {}
    }
    let Some((width, digits)) = text.split_once('\'') else {
        return text.parse().ok().map(Constant::Integer);
    };
    let width = width.parse().ok()?;
    let (signed, digits) = match digits.strip_prefix("sd") {
        Some(digits) => (true, digits),
        None => (false, digits.strip_prefix('d')?),
    };
    Some(Constant::Sized {
        value: digits.parse().ok()?,
        width,
        signed,
    })
}

/// Reads a Rust integer literal: `0x1F`, `1_000`, `5u8`, `0b10_usize`.
pub(super) fn parse_rust_integer(text: &str) -> Option<BigInt> {
    let text = text.replace('_', "");
    let (radix, digits) = match text.get(..2) {
        Some("0x") => (16, &text[2..]),
        Some("0b") => (2, &text[2..]),
        Some("0o") => (8, &text[2..]),
        _ => (10, text.as_str()),
    };
    let suffix = [
        "usize", "isize", "u128", "i128", "u16", "u32", "u64", "i16", "i32", "i64", "u8", "i8",
    ]
    .into_iter()
    .find(|suffix| digits.ends_with(suffix));
    let digits = suffix.map_or(digits, |suffix| &digits[..digits.len() - suffix.len()]);
    BigInt::parse_bytes(digits.as_bytes(), radix)
}

/// The bits of a number in `width` bits, if it fits: unsigned, or two's complement.
pub(super) fn encode(value: &BigInt, width: usize, signed: bool) -> Option<BigUint> {
    let modulus = BigInt::from(1) << width;
    let (low, high) = if signed && width > 0 {
        let half = BigInt::from(1) << (width - 1);
        (-half.clone(), half)
    } else {
        (BigInt::from(0), modulus.clone())
    };
    if *value < low || *value >= high {
        return None;
    }
    let value = if value.sign() == Sign::Minus {
        value + modulus
    } else {
        value.clone()
    };
    value.to_biguint()
}

/// The number that bits stand for: unsigned, or two's complement.
pub(super) fn decode(bits: &BigUint, width: usize, signed: bool) -> BigInt {
    let value = BigInt::from(bits.clone());
    if signed && bits.bit(width as u64 - 1) {
        value - (BigInt::from(1) << width)
    } else {
        value
    }
}

/// Evaluates arithmetic in square brackets: `i * COLS + j - 1`. `lookup` gives the numbers that names stand for.
pub(super) fn evaluate_index(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<BigInt>,
) -> Result<usize, Fault> {
    let mut parser = IndexParser {
        text,
        rest: text,
        lookup,
    };
    let value = parser.sum()?;
    if !parser.rest.trim_start().is_empty() {
        return Err(parser.fault("can't be evaluated"));
    }
    usize::try_from(&value)
        .map_err(|_| Fault::new(text, format!("is {value}, which is no index"), ""))
}

struct IndexParser<'a> {
    text: &'a str,
    rest: &'a str,
    lookup: &'a dyn Fn(&str) -> Option<BigInt>,
}

impl IndexParser<'_> {
    fn fault(&self, reason: &str) -> Fault {
        Fault::new(
            self.text,
            reason,
            "an array index is arithmetic of loop variables, literals and constants",
        )
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(token) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    /// Rust's precedence: shifts bind weaker than sums.
    fn sum(&mut self) -> Result<BigInt, Fault> {
        let mut value = self.additive()?;
        loop {
            let left = if self.take("<<") {
                true
            } else if self.take(">>") {
                false
            } else {
                return Ok(value);
            };
            let amount = self.additive()?;
            let amount = usize::try_from(&amount)
                .map_err(|_| self.fault("shifts by a negative or huge number"))?;
            value = if left {
                value << amount
            } else {
                value >> amount
            };
        }
    }

    fn additive(&mut self) -> Result<BigInt, Fault> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<BigInt, Fault> {
        let mut value = self.atom()?;
        while self.take("*") {
            value *= self.atom()?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<BigInt, Fault> {
        if self.take("(") {
            let value = self.sum()?;
            if !self.take(")") {
                return Err(self.fault("has unbalanced parentheses"));
            }
            return Ok(value);
        }
        let rest = self.rest.trim_start();
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        self.rest = after;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return parse_rust_integer(word).ok_or_else(|| self.fault("has a malformed number"));
        }
        (self.lookup)(word).ok_or_else(|| {
            if word.is_empty() {
                self.fault("can't be evaluated")
            } else {
                self.fault(&format!(
                    "names `{word}`, which is no loop variable, parameter or constant"
                ))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Option<usize> {
        evaluate_index(text, &|name| match name {
            "i" => Some(3.into()),
            "COLS" => Some(4.into()),
            "Self$BASE" => Some(100.into()),
            _ => None,
        })
        .ok()
    }

    #[test]
    fn indices_follow_rusts_precedence() {
        assert_eq!(index("i*COLS+i-1"), Some(14));
        assert_eq!(index("(i+1)*COLS"), Some(16));
        assert_eq!(index("1<<i+1"), Some(16));
        assert_eq!(index("Self$BASE+0x1f_usize"), Some(131));
        assert_eq!(index("i-4"), None, "negative");
        assert_eq!(index("j"), None, "unknown");
        assert_eq!(index("(i"), None);
        assert_eq!(index("i i"), None);
    }

    #[test]
    fn numbers_fit_their_width_or_not() {
        assert_eq!(encode(&255.into(), 8, false), Some(255_u32.into()));
        assert_eq!(encode(&256.into(), 8, false), None);
        assert_eq!(encode(&BigInt::from(-1), 8, false), None);
        assert_eq!(encode(&BigInt::from(-128), 8, true), Some(128_u32.into()));
        assert_eq!(encode(&128.into(), 8, true), None);
    }

    #[test]
    fn values_are_read_back() {
        assert_eq!(parse_value("16"), Some(Constant::Integer(16.into())));
        assert_eq!(parse_value("true"), Some(Constant::Bool(true)));
        let sized = Constant::Sized {
            value: BigInt::from(-5),
            width: 8,
            signed: true,
        };
        assert_eq!(parse_value("8'sd-5"), Some(sized));
        assert_eq!(literal_value(&true.into()), Some((1.into(), 1)));
        assert_eq!(literal_value(&0x1234_u32.into()), Some((0x1234.into(), 32)));
    }
}
