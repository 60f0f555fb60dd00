//! What it costs: yosys flows over an emitted bundle
