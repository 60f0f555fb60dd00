//! The bundle: a folder that stands alone. Someone who never installs Rust can lint, simulate and use it.
//!
//! ```text
//! rtl/*.v               the modules, one a file
//! tb/fgmp_core_tb.v     self-checking testbench
//! tb/*.hex              its stimuli and expected results, from the golden model
//! tb/settings.json      what stands on the ports that aren't streams
//! cocotb/               the same vectors played by cocotb
//! manifest.json         parameters, ports, modules, files
//! manifest.schema.json  JSON schema of the manifest
//! files.f               the modules as a file list
//! fgmp_core.core        FuseSoC: targets lint and sim
//! Bender.yml            Bender
//! README.md             how to use it
//! ```
//!
//! The bundles of accelerator and SPEED have C headers and `registers.md` in place of `tb` and `cocotb`; those of tree search's selector and page table have a testbench for Verilog alone.

mod project;
mod tree;
mod vectors;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::accelerator::registers::{self, Access, RegisterEntry};
use crate::build::{
    ACCELERATOR_TOP, BuildError, PAGE_TABLE_TOP, SELECTOR_TOP, SPEED_TOP, TOP, emit_accelerator,
    emit_core, emit_page_table, emit_selector, emit_speed,
};
use crate::config::ArrayConfig;
use crate::emit::{Bundle, Direction, Port};
use crate::ets::{PageTableConfig, SelectorConfig};
use crate::speed::{self, SpeedConfig};
use project::Project;

/// Version of the manifest's layout.
pub const MANIFEST_VERSION: u32 = 1;

/// The manifest's JSON schema (draft 2020-12), and its name in the bundle.
pub const MANIFEST_SCHEMA: (&str, &str) =
    ("manifest.schema.json", include_str!("manifest.schema.json"));

/// `manifest.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// File of the schema that it follows, relative to it.
    #[serde(rename = "$schema")]
    pub schema: &'static str,
    /// Version of this layout.
    pub manifest_version: u32,
    /// What wrote the bundle.
    pub generator: String,
    /// Version of the numerics that the hardware computes.
    pub numerics_version: u32,
    /// Top module.
    pub top: String,
    /// Parameters of the generator.
    pub parameters: Parameters,
    /// Ports of the top module, in order.
    pub ports: Vec<PortEntry>,
    /// Registers behind AXI4-Lite; none if the top has none.
    pub registers: Vec<RegisterDescription>,
    /// Modules, leaves first.
    pub modules: Vec<ModuleEntry>,
    /// All files of the bundle, relative to it.
    pub files: Vec<String>,
}

/// Parameters of the generator.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Parameters {
    /// Of core and accelerator.
    Array {
        /// What was asked for.
        #[serde(flatten)]
        config: ArrayConfig,
        /// Width of the accumulator that follows from `max_k`.
        acc_bits: usize,
    },
    /// Of SPEED's top.
    Speed {
        /// What was asked for.
        #[serde(flatten)]
        config: SpeedConfig,
        /// Width of the accumulator.
        acc_bits: usize,
        /// Bits of positions and tokens as built.
        entry_bits: usize,
    },
    /// Of tree search's selector.
    Selector {
        /// What was asked for.
        #[serde(flatten)]
        config: SelectorConfig,
        /// Leaves that it is built for.
        built_leaves: usize,
    },
    /// Of tree search's page table.
    PageTable {
        /// What was asked for.
        #[serde(flatten)]
        config: PageTableConfig,
        /// Segments that it is built for.
        built_segments: usize,
    },
}

/// A port of the top module.
#[derive(Clone, Debug, Serialize)]
pub struct PortEntry {
    /// Name.
    pub name: String,
    /// `input` or `output`.
    pub direction: &'static str,
    /// Width in bits.
    pub width: usize,
}

/// A register of the top module.
#[derive(Clone, Debug, Serialize)]
pub struct RegisterDescription {
    /// Name.
    pub name: &'static str,
    /// Byte address.
    pub address: u32,
    /// `read`, `write`, `read/write`, or `read, write 1 to clear`.
    pub access: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Its fields.
    pub fields: Vec<FieldDescription>,
}

/// Bits of a register.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FieldDescription {
    /// Name.
    pub name: &'static str,
    /// Lowest bit.
    pub low: usize,
    /// Number of bits.
    pub width: usize,
    /// What they mean.
    pub purpose: &'static str,
}

/// A register map as the manifest holds it.
fn register_descriptions(
    registers: &[RegisterEntry],
    address: impl Fn(usize) -> u32,
) -> impl Iterator<Item = RegisterDescription> {
    registers
        .iter()
        .enumerate()
        .map(move |(place, register)| RegisterDescription {
            name: register.name,
            address: address(place),
            access: Access::name(register.access),
            purpose: register.doc,
            fields: register
                .fields
                .iter()
                .map(|field| FieldDescription {
                    name: field.name,
                    low: field.low,
                    width: field.width,
                    purpose: field.doc,
                })
                .collect(),
        })
}

/// What a bundle holds, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// The array and the quantization unit with bare streams.
    Core(ArrayConfig),
    /// The complete accelerator.
    Accelerator(ArrayConfig),
    /// The accelerator with what decodes speculatively on it.
    Speed(SpeedConfig),
    /// Tree search: which leaves are kept, and how often each is continued.
    TreeSelector(SelectorConfig),
    /// Tree search: segments and pages of keys and values.
    PageTable(PageTableConfig),
}

impl Top {
    /// Name of the top module.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Core(_) => TOP,
            Self::Accelerator(_) => ACCELERATOR_TOP,
            Self::Speed(_) => SPEED_TOP,
            Self::TreeSelector(_) => SELECTOR_TOP,
            Self::PageTable(_) => PAGE_TABLE_TOP,
        }
    }

    /// Its Verilog.
    ///
    /// # Errors
    /// The configuration is refused, or a module can't be translated.
    pub fn emit(&self) -> Result<Bundle, BuildError> {
        match *self {
            Self::Core(config) => emit_core(config),
            Self::Accelerator(config) => emit_accelerator(config),
            Self::Speed(config) => emit_speed(config),
            Self::TreeSelector(config) => emit_selector(config),
            Self::PageTable(config) => emit_page_table(config),
        }
    }

    /// Its parameters, with what follows from them.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        match *self {
            Self::Core(config) | Self::Accelerator(config) => Parameters::Array {
                config,
                acc_bits: config.acc_bits(),
            },
            Self::Speed(config) => Parameters::Speed {
                config,
                acc_bits: config.array.acc_bits(),
                entry_bits: config.entry_bits(),
            },
            Self::TreeSelector(config) => Parameters::Selector {
                config,
                built_leaves: config.built_leaves(),
            },
            Self::PageTable(config) => Parameters::PageTable {
                config,
                built_segments: config.built_segments(),
            },
        }
    }

    fn registers(&self) -> Vec<RegisterDescription> {
        let accelerator = || register_descriptions(registers::REGISTERS, registers::address);
        let own = &speed::registers::REGISTERS;
        match self {
            Self::Accelerator(_) => accelerator().collect(),
            Self::Speed(_) => accelerator()
                .chain(register_descriptions(own, speed::registers::address))
                .collect(),
            Self::Core(_) | Self::TreeSelector(_) | Self::PageTable(_) => Vec::new(),
        }
    }

    /// All files but the modules and the manifest.
    fn project(
        &self,
        rtl: &[String],
        ports: &[Port],
        seed: u64,
    ) -> Result<Vec<(String, Vec<u8>)>, BundleError> {
        let header = |name: &str, text: String| (name.to_owned(), text.into_bytes());
        let mut files = Vec::new();
        let mut project = Project {
            top: self.name(),
            description: "",
            introduction: "",
            vectors: &[],
            cocotb: false,
            checked: "",
        };
        let vectors: Vec<String>;
        match *self {
            Self::Core(config) => {
                files = vectors::testbench(config, ports, seed);
                vectors = vectors::STREAMS.map(|name| format!("{name}.hex")).to_vec();
                project.vectors = &vectors;
                project.cocotb = true;
                project.description = "Mixed FP4/FP8 matrix array and activation quantization unit";
                project.introduction = "\
A matrix array for blocks of 16 elements held as FP4 (NVFP4) or FP8 (E4M3), any mix, exact sums, and the unit that
quantizes activations for it. Plain Verilog-2005. Parameters and ports stand in `manifest.json`.";
                project.checked =
                    "The results in `tb/*.hex` were computed by the generator's bit-exact model.";
                files.extend(project.files(rtl));
            }
            Self::Accelerator(_) => {
                project.description = "Matrix products of packed FP4/FP8 tensors, with memories, job queue and AXI ports";
                project.introduction = "\
Matrix products of packed tensors of FP4 (NVFP4) and FP8 (E4M3) blocks, any mix, exact sums: on-chip memories, a job queue behind AXI4-Lite,
AXI4-Streams for data, and the unit that quantizes activations. Plain Verilog-2005. Parameters, ports and registers stand in
`manifest.json`; the registers also in `registers.md` and, for a driver, in `fgmp_registers.h`.";
                project.checked = "\
This bundle has no testbench: the generator's own co-simulation (`fgmp cosim --top`) runs whole models through this top.";
                files.extend(project.files(rtl));
                files.push(header("fgmp_registers.h", registers::c_header()));
                files.push(header("registers.md", registers::markdown()));
            }
            Self::Speed(_) => {
                project.description = "Speculative decoding of models with shared layers, around a mixed FP4/FP8 accelerator";
                project.introduction = "\
The accelerator for packed tensors of FP4 (NVFP4) and FP8 (E4M3) blocks with what decodes speculatively on it: a pipeline of tokens, one stage for each
repetition of the model's shared layers, and a player of the jobs of a pass. Plain Verilog-2005. Parameters, ports and registers stand in `manifest.json`; the
registers also in `registers.md` (the accelerator's) and `speed_registers.md`, and, for a driver, in `fgmp_registers.h` and `fgmp_speed_registers.h`.";
                project.checked = "\
This bundle has no testbench: the generator's own co-simulation (`fgmp speed --cosim`) decodes text on this top.";
                files.extend(project.files(rtl));
                files.push(header("fgmp_registers.h", registers::c_header()));
                files.push(header("registers.md", registers::markdown()));
                let own = speed::registers::c_header();
                files.push(header("fgmp_speed_registers.h", own));
                files.push(header("speed_registers.md", speed::registers::markdown()));
            }
            Self::TreeSelector(config) => {
                let testbench = tree::selector(config, seed).map_err(BundleError::Selection)?;
                vectors = testbench.vectors;
                files = testbench.files;
                project.vectors = &vectors;
                project.description =
                    "One step of an efficient tree search: pruning engine, allocator and walker";
                project.introduction = "\
One step of an efficient tree search: which leaves are worth their keys and values, how often each of them is continued, and in which order the kept nodes are
read. Nodes and leaves are written, `start` selects, `done` tells the end. Plain Verilog-2005. Parameters and ports stand in `manifest.json`.";
                project.checked = "\
What is expected in `tb/*.hex` was computed by the generator's bit-exact model; `fgmp ets --cosim` makes the selections of real searches on this top.";
                files.extend(project.files(rtl));
            }
            Self::PageTable(config) => {
                let testbench = tree::page_table(config, seed).map_err(BundleError::Pages)?;
                vectors = testbench.vectors;
                files = testbench.files;
                project.vectors = &vectors;
                project.description = "Reference-counted segments and pages of keys and values for branches that share their beginnings";
                project.introduction = "\
Segments of keys and values that build upon each other, reference-counted, and the pages that they lie in. Commands (0 root, 1 fork, 2 append, 3 release, 4 prune,
5 walk, 6 pages) come one at a time and are answered with a status: 0 done, 1 all pages are in use, 2 freed, 3 released, 4 has descendants, 5 all segments are in
use, 6 no such command. Plain Verilog-2005. Parameters and ports stand in `manifest.json`.";
                project.checked = "What is expected in `tb/*.hex` was computed by the generator's bit-exact model.";
                files.extend(project.files(rtl));
            }
        }
        Ok(files)
    }
}

/// A module.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleEntry {
    /// Name.
    pub name: String,
    /// File, relative to the bundle.
    pub file: String,
    /// What it is for.
    pub purpose: String,
    /// Parameters that it was built with.
    pub parameters: Vec<(String, String)>,
    /// Instances in it: name and module.
    pub instances: Vec<(String, String)>,
}

/// Why a bundle can't be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The core can't be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The selector's testbench can't be made.
    #[error("no testbench for this selector: {0}")]
    Selection(golden::ets::ProgrammeError),
    /// The page table's can't.
    #[error("no testbench for this page table: {0}")]
    Pages(golden::ets::PoolError),
    /// The folder holds something else.
    #[error("{}: exists and is no bundle (it has no manifest.json); name a new or empty folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A file can't be written.
    #[error("{}: can't be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Emits a top and writes its bundle: whole or not at all. `seed` makes the testbench's vectors.
///
/// An earlier bundle in the same folder is replaced; anything else there is left alone and refused.
///
/// # Errors
/// The configuration is refused, or the folder can't be written.
pub fn write(folder: &Path, top: Top, seed: u64) -> Result<Manifest, BundleError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::Write { path, source }
    };
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if folder.exists() && !folder.is_dir() {
        let source = std::io::Error::new(
            std::io::ErrorKind::NotADirectory,
            "a file of this name exists",
        );
        return Err(BundleError::Write {
            path: folder.to_owned(),
            source,
        });
    }
    if occupied && !folder.join("manifest.json").is_file() {
        return Err(BundleError::Occupied {
            path: folder.to_owned(),
        });
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed(parent))?;
    // Built beside its place and renamed into it.
    let draft = tempfile::Builder::new()
        .prefix(".fgmp-bundle-")
        .tempdir_in(parent)
        .map_err(failed(parent))?;

    let bundle = top.emit()?;
    let mut files: Vec<(String, Vec<u8>)> = bundle
        .modules
        .iter()
        .map(|module| {
            (
                format!("rtl/{}.v", module.name),
                module.source.clone().into_bytes(),
            )
        })
        .collect();
    let rtl: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    files.extend(top.project(&rtl, &bundle.top_module().ports, seed)?);
    let (schema, text) = MANIFEST_SCHEMA;
    files.push((schema.to_owned(), text.as_bytes().to_vec()));
    let mut names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    names.push("manifest.json".to_owned());
    names.sort();

    let manifest = Manifest {
        schema,
        manifest_version: MANIFEST_VERSION,
        generator: concat!("fgmp ", env!("CARGO_PKG_VERSION")).to_owned(),
        numerics_version: golden::NUMERICS_VERSION,
        top: top.name().to_owned(),
        parameters: top.parameters(),
        ports: bundle
            .top_module()
            .ports
            .iter()
            .map(|port| PortEntry {
                name: port.name.clone(),
                direction: match port.direction {
                    Direction::Input => "input",
                    Direction::Output => "output",
                },
                width: port.width,
            })
            .collect(),
        registers: top.registers(),
        modules: bundle
            .modules
            .iter()
            .map(|module| ModuleEntry {
                name: module.name.clone(),
                file: format!("rtl/{}.v", module.name),
                purpose: module.doc.clone(),
                parameters: module.parameters.clone(),
                instances: module.instances.clone(),
            })
            .collect(),
        files: names,
    };
    let mut json = serde_json::to_string_pretty(&manifest)
        .map_err(std::io::Error::other)
        .map_err(failed(&folder.join("manifest.json")))?;
    json.push('\n');
    files.push(("manifest.json".to_owned(), json.into_bytes()));

    for (name, bytes) in &files {
        let path = draft.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(&folder.join(name)))?;
        }
        fs::write(&path, bytes).map_err(failed(&folder.join(name)))?;
    }
    // A temporary folder is private; a bundle has the permissions that new folders have.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))
            .map_err(failed(folder))?;
    }
    let draft = draft.keep();
    if folder.exists() {
        let old = tempfile::Builder::new()
            .prefix(".fgmp-old-")
            .tempdir_in(parent)
            .map_err(failed(parent))?;
        fs::rename(folder, old.path().join("bundle")).map_err(failed(folder))?;
    }
    fs::rename(&draft, folder).map_err(failed(folder))?;
    Ok(manifest)
}
