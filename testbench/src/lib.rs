//! That they agree: Verilator driver, stream benches, scoreboards
