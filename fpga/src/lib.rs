//! Where it runs: open FPGA boards as data
