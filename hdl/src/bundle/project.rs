//! Files that tell other tools what the bundle is.

use crate::accelerator::registers;
use crate::build::{ACCELERATOR_TOP, TOP};

/// File list, FuseSoC core, Bender manifest, README, C header and register page of the accelerator.
pub fn accelerator_files(rtl: &[String]) -> Vec<(String, Vec<u8>)> {
    let list: String = rtl.iter().map(|file| format!("{file}\n")).collect();
    let core_files: String = rtl.iter().map(|file| format!("      - {file}\n")).collect();
    let bender_files: String = rtl.iter().map(|file| format!("  - {file}\n")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let core = format!(
        "CAPI=2:
name: \"fgmp:core:{ACCELERATOR_TOP}:{version}\"
description: Matrix products of packed FP4/FP8 tensors, with memories, job queue and AXI ports
filesets:
  rtl:
    files:
{core_files}    file_type: verilogSource
targets:
  default: &default
    filesets: [rtl]
    toplevel: {ACCELERATOR_TOP}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
"
    );
    let bender = format!("package:\n  name: {ACCELERATOR_TOP}\n\nsources:\n{bender_files}");
    let readme = format!(
        "# {ACCELERATOR_TOP}

Matrix products of packed tensors of FP4 (NVFP4) and FP8 (E4M3) blocks, any mix, exact sums: on-chip memories, a job queue behind AXI4-Lite,
AXI4-Streams for data, and the unit that quantizes activations. Plain Verilog-2005. Parameters, ports and registers stand in
`manifest.json`; the registers also in `registers.md` and, for a driver, in `fgmp_registers.h`.

Lint:

    verilator --lint-only -Wall --top-module {ACCELERATOR_TOP} rtl/*.v

With FuseSoC:

    fusesoc --cores-root . run --target=lint fgmp:core:{ACCELERATOR_TOP}

`manifest.schema.json` is the manifest's JSON schema. This bundle has no testbench: the generator's own co-simulation (`fgmp cosim --top`) runs whole models through this top.
"
    );
    vec![
        ("files.f".to_owned(), list.into_bytes()),
        (format!("{ACCELERATOR_TOP}.core"), core.into_bytes()),
        ("Bender.yml".to_owned(), bender.into_bytes()),
        ("README.md".to_owned(), readme.into_bytes()),
        (
            "fgmp_registers.h".to_owned(),
            registers::c_header().into_bytes(),
        ),
        (
            "registers.md".to_owned(),
            registers::markdown().into_bytes(),
        ),
    ]
}

/// File list, FuseSoC core, Bender manifest and README.
pub fn files(rtl: &[String]) -> Vec<(String, Vec<u8>)> {
    let list: String = rtl.iter().map(|file| format!("{file}\n")).collect();
    let core_files: String = rtl.iter().map(|file| format!("      - {file}\n")).collect();
    let bender_files: String = rtl.iter().map(|file| format!("  - {file}\n")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let core = format!(
        "CAPI=2:
name: \"fgmp:core:{TOP}:{version}\"
description: Mixed FP4/FP8 matrix array and activation quantization unit
filesets:
  rtl:
    files:
{core_files}    file_type: verilogSource
  tb:
    files:
      - tb/{TOP}_tb.v
    file_type: verilogSource
  vectors:
    files:
      - tb/weight.hex: {{copyto: tb/weight.hex}}
      - tb/act.hex: {{copyto: tb/act.hex}}
      - tb/out.hex: {{copyto: tb/out.hex}}
      - tb/x.hex: {{copyto: tb/x.hex}}
      - tb/payload.hex: {{copyto: tb/payload.hex}}
      - tb/scale.hex: {{copyto: tb/scale.hex}}
      - tb/tag.hex: {{copyto: tb/tag.hex}}
    file_type: user
targets:
  default: &default
    filesets: [rtl]
    toplevel: {TOP}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
  sim:
    <<: *default
    filesets: [rtl, tb, vectors]
    toplevel: {TOP}_tb
    flow: sim
    flow_options:
      tool: icarus
      vvp_options: [-N]
"
    );
    let bender = format!("package:\n  name: {TOP}\n\nsources:\n{bender_files}");
    let readme = format!(
        "# {TOP}

A matrix array for blocks of 16 elements held as FP4 (NVFP4) or FP8 (E4M3), any mix, exact sums, and the unit that
quantizes activations for it. Plain Verilog-2005. Parameters and ports stand in `manifest.json`.

Lint:

    verilator --lint-only -Wall --top-module {TOP} rtl/*.v

Simulate (prints `PASS` and the number of results compared; `-N` gives a failure exit status 1):

    iverilog -g2005 -o {TOP}_tb tb/{TOP}_tb.v rtl/*.v && vvp -N {TOP}_tb

With cocotb 2 (`pip install cocotb`), the same vectors and random stalls on every stream:

    make -C cocotb

With FuseSoC (targets `lint` and `sim`):

    fusesoc --cores-root . run --target=sim fgmp:core:{TOP}

The results in `tb/*.hex` were computed by the generator's bit-exact model. `manifest.schema.json` is the manifest's JSON schema.
"
    );
    vec![
        ("files.f".to_owned(), list.into_bytes()),
        (format!("{TOP}.core"), core.into_bytes()),
        ("Bender.yml".to_owned(), bender.into_bytes()),
        ("README.md".to_owned(), readme.into_bytes()),
    ]
}
