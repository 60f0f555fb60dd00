//! Files that tell other tools what the bundle is.

/// What other tools are told.
pub struct Project<'a> {
    /// Top module.
    pub top: &'a str,
    /// What it is, in a line.
    pub description: &'a str,
    /// What it is and where its parameters and registers stand, for the README.
    pub introduction: &'a str,
    /// Names of the vectors in `tb`; none if there is no testbench.
    pub vectors: &'a [String],
    /// There is a testbench for cocotb.
    pub cocotb: bool,
    /// Last paragraph of the README: what checks this top.
    pub checked: &'a str,
}

impl Project<'_> {
    /// File list, FuseSoC core, Bender manifest and README.
    pub fn files(&self, rtl: &[String]) -> Vec<(String, Vec<u8>)> {
        let list: String = rtl.iter().map(|file| format!("{file}\n")).collect();
        let bender: String = rtl.iter().map(|file| format!("  - {file}\n")).collect();
        let bender = format!("package:\n  name: {}\n\nsources:\n{bender}", self.top);
        vec![
            ("files.f".to_owned(), list.into_bytes()),
            (format!("{}.core", self.top), self.core(rtl).into_bytes()),
            ("Bender.yml".to_owned(), bender.into_bytes()),
            ("README.md".to_owned(), self.readme().into_bytes()),
        ]
    }

    fn core(&self, rtl: &[String]) -> String {
        let Self {
            top, description, ..
        } = self;
        let version = env!("CARGO_PKG_VERSION");
        let rtl: String = rtl.iter().map(|file| format!("      - {file}\n")).collect();
        let (mut filesets, mut simulation) = (String::new(), String::new());
        if !self.vectors.is_empty() {
            let vectors: String = self
                .vectors
                .iter()
                .map(|name| format!("      - tb/{name}: {{copyto: tb/{name}}}\n"))
                .collect();
            filesets = format!(
                "  tb:
    files:
      - tb/{top}_tb.v
    file_type: verilogSource
  vectors:
    files:
{vectors}    file_type: user
"
            );
            simulation = format!(
                "  sim:
    <<: *default
    filesets: [rtl, tb, vectors]
    toplevel: {top}_tb
    flow: sim
    flow_options:
      tool: icarus
      vvp_options: [-N]
"
            );
        }
        format!(
            "CAPI=2:
name: \"fgmp:core:{top}:{version}\"
description: {description}
filesets:
  rtl:
    files:
{rtl}    file_type: verilogSource
{filesets}targets:
  default: &default
    filesets: [rtl]
    toplevel: {top}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
{simulation}"
        )
    }

    fn readme(&self) -> String {
        let Self {
            top,
            introduction,
            checked,
            ..
        } = self;
        let (simulate, target, targets) = if self.vectors.is_empty() {
            (String::new(), "lint", "")
        } else {
            let simulate = format!(
                "
Simulate (prints `PASS` and the number of results compared; `-N` gives a failure exit status 1):

    iverilog -g2005 -o {top}_tb tb/{top}_tb.v rtl/*.v && vvp -N {top}_tb
"
            );
            (simulate, "sim", " (targets `lint` and `sim`)")
        };
        let cocotb = if self.cocotb {
            "
With cocotb 2 (`pip install cocotb`), the same vectors and random stalls on every stream:

    make -C cocotb
"
        } else {
            ""
        };
        format!(
            "# {top}

{introduction}

Lint:

    verilator --lint-only -Wall --top-module {top} rtl/*.v
{simulate}{cocotb}
With FuseSoC{targets}:

    fusesoc --cores-root . run --target={target} fgmp:core:{top}

{checked} `manifest.schema.json` is the manifest's JSON schema.
"
        )
    }
}
