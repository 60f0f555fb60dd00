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
//! The accelerator's bundle has `fgmp_registers.h` and `registers.md` in place of `tb` and `cocotb`.

mod project;
mod vectors;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::accelerator::registers::{Access, REGISTERS, address};
use crate::build::{ACCELERATOR_TOP, BuildError, TOP, emit_accelerator, emit_core};
use crate::config::ArrayConfig;
use crate::emit::Direction;

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
    /// Registers behind AXI4-Lite; none if the top is the core.
    pub registers: Vec<RegisterDescription>,
    /// Modules, leaves first.
    pub modules: Vec<ModuleEntry>,
    /// All files of the bundle, relative to it.
    pub files: Vec<String>,
}

/// Parameters of the generator.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parameters {
    /// What was asked for.
    #[serde(flatten)]
    pub config: ArrayConfig,
    /// Width of the accumulator that follows from `max_k`.
    pub acc_bits: usize,
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

/// The register map as the manifest holds it.
fn register_descriptions() -> Vec<RegisterDescription> {
    REGISTERS
        .iter()
        .enumerate()
        .map(|(place, register)| RegisterDescription {
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
        .collect()
}

/// What a bundle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Top {
    /// The array and the quantization unit with bare streams.
    #[default]
    Core,
    /// The complete accelerator.
    Accelerator,
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

/// Emits the core or the accelerator of a configuration and writes its bundle: whole or not at all.
///
/// An earlier bundle in the same folder is replaced; anything else there is left alone and refused.
///
/// # Errors
/// The configuration is refused, or the folder can't be written.
pub fn write(
    folder: &Path,
    top: Top,
    config: ArrayConfig,
    seed: u64,
) -> Result<Manifest, BundleError> {
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

    let (bundle, name) = match top {
        Top::Core => (emit_core(config)?, TOP),
        Top::Accelerator => (emit_accelerator(config)?, ACCELERATOR_TOP),
    };
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
    match top {
        Top::Core => {
            files.extend(vectors::testbench(config, &bundle.top_module().ports, seed));
            files.extend(project::files(&rtl));
        }
        Top::Accelerator => files.extend(project::accelerator_files(&rtl)),
    }
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
        top: name.to_owned(),
        parameters: Parameters {
            config,
            acc_bits: config.acc_bits(),
        },
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
        registers: match top {
            Top::Core => Vec::new(),
            Top::Accelerator => register_descriptions(),
        },
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
