//! Building blocks that a kernel can't say itself: registers, and arithmetic wider than rust-hdl's.
//!
//! They are no modules in the emitted Verilog: the emitter writes each one out in its parent, a register as
//! `always @(posedge clock)`, the others as expressions. Values are two's complement in `Bits` where a sign matters.

mod arithmetic;
mod register;
mod select;

pub use arithmetic::{AddCarry, AddTree, MulS, MulU, Negate, ShiftLeft, SignExtend};
pub use register::{DataRegister, PipelineRegister, Register};
pub use select::MuxN;

use rust_hdl_core::prelude::{BlackBox, Verilog};

/// Prefix of the names under which primitives reach the emitter.
pub(crate) const PREFIX: &str = "fgmp$";

/// The primitives that the emitter knows how to write out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    /// `clock`, `reset`, `d` → `q`; constant `init`.
    Register,
    /// `clock`, `d` → `q`.
    DataRegister,
    /// `clock`, `enable`, `d` → `q`.
    PipelineRegister,
    /// The same as a wire: `d` → `q`.
    PipelineWire,
    /// `a`, `b` → `p`, unsigned.
    MulU,
    /// `a`, `b` → `p`, two's complement.
    MulS,
    /// `a` → `y`, two's complement.
    SignExtend,
    /// `a[n]` → `sum`, two's complement.
    AddTree,
    /// `a`, `b`, `carry` → `sum`, two's complement.
    AddCarry,
    /// `a`, `amount` → `y`.
    ShiftLeft,
    /// `a` → `y`, two's complement.
    Negate,
    /// `a[n]`, `select` → `y`.
    Mux,
}

impl Primitive {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Register, "register"),
        (Self::DataRegister, "data_register"),
        (Self::PipelineRegister, "pipeline_register"),
        (Self::PipelineWire, "pipeline_wire"),
        (Self::MulU, "mul_u"),
        (Self::MulS, "mul_s"),
        (Self::SignExtend, "sign_extend"),
        (Self::AddTree, "add_tree"),
        (Self::AddCarry, "add_carry"),
        (Self::ShiftLeft, "shift_left"),
        (Self::Negate, "negate"),
        (Self::Mux, "mux"),
    ];

    /// What `Logic::hdl` returns for this primitive.
    pub(crate) fn verilog(self) -> Verilog {
        let name = Self::ALL
            .iter()
            .find(|(primitive, _)| *primitive == self)
            .map_or("", |(_, name)| name);
        Verilog::Blackbox(BlackBox {
            code: String::new(),
            name: format!("{PREFIX}{name}"),
        })
    }

    /// The primitive of a black box's name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix(PREFIX)?;
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(primitive, _)| *primitive)
    }
}
