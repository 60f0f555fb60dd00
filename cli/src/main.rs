//! The `fgmp` command.
fn main() {}
