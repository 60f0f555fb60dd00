//! Other projects' figures for the same jobs.
//!
//! All were measured by us from their sources with one flow: yosys 0.70 (`synth_ecp5`), nextpnr-ecp5 0.11.1 under
//! [`TABLE_CONDITIONS`](crate::nextpnr::TABLE_CONDITIONS), operands from a shift register and the result registered, the harness's 25 to 55 LUT4 included. None of them is
//! pipelined within the dot product.

use serde::Serialize;

/// One figure of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// The part of [`crate::table`] that does the same job.
    pub part: &'static str,
    /// Project.
    pub name: &'static str,
    /// What of it was measured.
    pub unit: &'static str,
    /// Where it stands.
    pub source: &'static str,
    /// LUT4, carry cells as two; without multiplier blocks.
    pub lut4: u64,
    /// Highest clock in MHz, if it was placed and routed.
    pub mhz: Option<f64>,
    /// With multiplier blocks: LUT4 and blocks, if that was measured.
    pub with_blocks: Option<(u64, u64)>,
}

const MX_FOR_FPGA: &str = "https://github.com/ebby-s/MX-for-FPGA";
const SASHAKATNE: &str = "https://github.com/sashakatne/nvfp4-dotprod-formal-dv";
const HRUSHI: &str = "https://github.com/Hrushi199/nvfp4-riscv-inference-engine";

/// All figures.
pub const PEERS: [Peer; 6] = [
    Peer {
        part: "fp4_sum",
        name: "MX-for-FPGA",
        unit: "dot_fp E2M1",
        source: MX_FOR_FPGA,
        lut4: 1_000,
        mhz: Some(54.3),
        with_blocks: None,
    },
    Peer {
        part: "fp4_sum",
        name: "Hrushi199",
        unit: "nvfp4_dot_product_16, inner sum",
        source: HRUSHI,
        lut4: 2_272,
        mhz: Some(54.2),
        with_blocks: Some((669, 16)),
    },
    Peer {
        part: "nvfp4_pair",
        name: "sashakatne",
        unit: "block with both UE4M3 scales to FP32",
        source: SASHAKATNE,
        lut4: 2_828,
        mhz: Some(24.5),
        with_blocks: Some((1_137, 18)),
    },
    Peer {
        part: "nvfp4_pair",
        name: "Hrushi199",
        unit: "block and FP32 scale, truncating",
        source: HRUSHI,
        lut4: 4_422,
        mhz: Some(23.9),
        with_blocks: Some((798, 20)),
    },
    Peer {
        part: "fp8_sum",
        name: "MX-for-FPGA",
        unit: "dot_fp E4M3",
        source: MX_FOR_FPGA,
        lut4: 6_686,
        mhz: Some(41.7),
        with_blocks: None,
    },
    Peer {
        part: "fp8_sum",
        name: "MX-for-FPGA",
        unit: "dot_fp E5M2 (not placed)",
        source: MX_FOR_FPGA,
        lut4: 8_970,
        mhz: None,
        with_blocks: None,
    },
];
