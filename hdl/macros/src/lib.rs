//! The `#[kernel]` attribute and the `PortAccess` derive of the `hdl` crate.
//!
//! rust-hdl's `#[hdl_gen]` translates the *syntax* of an update function. Some constructs it drops or garbles without a
//! word, and some lose the information that a typed back end needs. `#[kernel]` looks at the function before rust-hdl
//! does, refuses those constructs with an error at their place in the source, and hands the rest on together with
//! the facts that the syntax tree can't hold (module name, parameters, constants, widths of the sign casts).

mod kernel;
mod ports;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

/// Makes `impl Logic for X { fn update(&mut self) { … } }` a kernel that `hdl::emit` accepts.
///
/// `#[kernel]` names the Verilog module after the type (`DotProduct` becomes `dot_product`);
/// `#[kernel(name = "dot_product")]` names it outright. Doc comments on the impl block become the header of
/// the Verilog file.
///
/// Two statement macros exist inside a kernel:
///
/// * `registers!(self, clock, reset, a, b[i], lane[i].acc)` connects clock and reset of each register and holds its value
///   (`d = q`), so that a later assignment to `d` under a condition is a clock enable;
/// * `data_registers!(self, clock, a, …)` does the same for registers without reset.
#[proc_macro_attribute]
pub fn kernel(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let attributes = parse_macro_input!(attributes as kernel::Attributes);
    let item = parse_macro_input!(item as ItemImpl);
    kernel::expand(&attributes, item)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Numbers the ports of a module in declaration order and reads and writes them as 64-bit words.
///
/// Fields of type `Signal<In, T>` and `Signal<Out, T>`, and arrays and `Vec`s of them, are ports. A field that is a
/// `LogicInterface` (itself `PortAccess`) is named with `#[interface]`. Every other field is internal.
#[proc_macro_derive(PortAccess, attributes(interface))]
pub fn port_access(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    ports::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
