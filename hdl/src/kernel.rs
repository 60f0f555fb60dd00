//! What a kernel tells the emitter beside its syntax tree.
//!
//! rust-hdl's tree holds neither the module's name nor its parameters nor the widths of sign casts. `#[kernel]`
//! collects them in a [`Description`], which rides as a comment at the head of the tree.

use rust_hdl_core::prelude::*;
use serde::{Deserialize, Serialize};

/// First characters of the comment that carries a description.
const MARK: &str = "fgmp-kernel:";

/// Width of the result of a sign or width cast, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CastWidth {
    /// As wide as the operand.
    Same,
    /// Stated in the source.
    Given(usize),
    /// Left to the type that the context wants.
    Inferred,
}

/// What `#[kernel]` knows of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Base name of the Verilog module.
    pub name: String,
    /// Const generic parameters with their values.
    pub parameters: Vec<(String, String)>,
    /// Named constants, as the tree spells them, with their values.
    pub constants: Vec<(String, String)>,
    /// Sign and width casts in source order.
    pub casts: Vec<CastWidth>,
    /// What the module is for; becomes its header comment.
    pub doc: String,
}

impl Description {
    /// The comment text that carries this description.
    fn encode(&self) -> String {
        // Strings, numbers and vectors of them always serialize; an empty description is refused by the emitter.
        format!("{MARK}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads a description from the head of a kernel's tree; `None` if there is none.
    pub fn of(block: &[ast::VerilogStatement]) -> Option<Self> {
        let Some(ast::VerilogStatement::Comment(text)) = block.first() else {
            return None;
        };
        Self::decode(text)
    }

    /// Reads a description from a comment's text.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix(MARK)?).ok()
    }
}

/// Puts a description at the head of a kernel's tree. Other kinds of Verilog pass unchanged.
pub fn describe(verilog: Verilog, description: &Description) -> Verilog {
    match verilog {
        Verilog::Combinatorial(mut block) => {
            block.insert(0, ast::VerilogStatement::Comment(description.encode()));
            Verilog::Combinatorial(block)
        }
        other => other,
    }
}

/// A module whose Verilog body is written by hand: `body` stands between the port list and `endmodule`. Outputs are
/// declared `output reg`. For memories and what else a kernel can't say.
pub fn custom(description: &Description, body: &str) -> Verilog {
    Verilog::Custom(format!("{}\n{body}", description.encode()))
}

/// A constant that a kernel may name.
pub trait Value {
    /// Its value: decimal for a Rust integer, `true` or `false`, and `8'd5` or `8'sd-5` for a value that has a width.
    fn text(&self) -> String;
}

macro_rules! integer_values {
    ($($integer:ty),*) => {
        $(impl Value for $integer {
            fn text(&self) -> String {
                self.to_string()
            }
        })*
    };
}

integer_values!(u8, u16, u32, u64, u128, usize, i32, i64, bool);

impl<const N: usize> Value for Bits<N> {
    fn text(&self) -> String {
        format!("{N}'d{}", num_bigint::BigUint::from(*self))
    }
}

impl<const N: usize> Value for Signed<N> {
    fn text(&self) -> String {
        format!("{N}'sd{}", self.bigint())
    }
}

/// Zero-extends or truncates: what `bit_cast` means inside a kernel, where `#[kernel]` puts this in its place.
pub fn unsigned_cast_to_width<const M: usize, const N: usize>(x: Bits<N>) -> Bits<M> {
    bit_cast::<M, N>(x)
}

/// Sign-extends or truncates: what `signed_bit_cast` means inside a kernel, where `#[kernel]` puts this in its
/// place. (rust-hdl's own overflows the stack on the most negative value.)
pub fn signed_cast_to_width<const M: usize, const N: usize>(x: Signed<N>) -> Signed<M> {
    let bits = unsigned_cast(x);
    if x.sign_bit() {
        signed_cast(!bit_cast::<M, N>(!bits))
    } else {
        signed_cast(bit_cast::<M, N>(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_its_encoding() {
        let description = Description {
            name: "dot_product".to_owned(),
            parameters: vec![("LANES".to_owned(), "16".to_owned())],
            constants: vec![("Self$BIAS".to_owned(), "7".to_owned())],
            casts: vec![CastWidth::Same, CastWidth::Given(9), CastWidth::Inferred],
            doc: "Sum of products.\n\n\"Exact\".".to_owned(),
        };
        let Verilog::Combinatorial(block) =
            describe(Verilog::Combinatorial(Vec::new()), &description)
        else {
            panic!("a described block is a block");
        };
        assert_eq!(Description::of(&block), Some(description));
        assert_eq!(Description::of(&[]), None);
    }

    #[test]
    fn sign_extension_covers_every_8_bit_value() {
        for value in i8::MIN..=i8::MAX {
            let narrow = Signed::<8>::from(i64::from(value));
            assert_eq!(
                signed_cast_to_width::<40, 8>(narrow).bigint(),
                i64::from(value).into()
            );
            let truncated = signed_cast_to_width::<4, 8>(narrow).bigint();
            assert_eq!(truncated, i64::from((value << 4) >> 4).into());
        }
    }
}
