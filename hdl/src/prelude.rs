//! Everything a hardware module needs in scope: `use crate::prelude::*;` (`use hdl::prelude::*;` outside this crate).

pub use crate::kernel::{signed_cast_to_width, unsigned_cast_to_width};
pub use crate::primitive::{
    AddCarry, AddTree, DataRegister, MulS, MulU, MuxN, Negate, PipelineRegister, Register,
    ShiftLeft, SignExtend,
};
pub use crate::sim::{PortAccess, Word};
pub use hdl_macros::{PortAccess, kernel};
pub use rust_hdl_core::prelude::*;
