//! What emission gives.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Whether a port takes or gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the module.
    Input,
    /// Out of the module.
    Output,
}

/// A port of a module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Port {
    /// Verilog identifier.
    pub name: String,
    /// Bits.
    pub width: usize,
    /// Into or out of the module.
    pub direction: Direction,
}

/// A distinct module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Verilog identifier, and name of its file.
    pub name: String,
    /// Its text, header comment included.
    pub source: String,
    /// Ports in declaration order, which is the numbering of [`PortAccess`](crate::sim::PortAccess).
    pub ports: Vec<Port>,
    /// Instances within: instance name, module name.
    pub instances: Vec<(String, String)>,
    /// What it was built with: const generic parameters and constants of the instance, with their values.
    pub parameters: Vec<(String, String)>,
    /// What the module is for.
    pub doc: String,
}

/// All modules of a design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Name of the top module.
    pub top: String,
    /// Modules, those without instances first and the top last.
    pub modules: Vec<Module>,
}

impl Bundle {
    /// All modules in one text.
    pub fn concatenated(&self) -> String {
        let sources: Vec<&str> = self
            .modules
            .iter()
            .map(|module| module.source.as_str())
            .collect();
        sources.join("\n")
    }

    /// How often each module occurs in one instance of `top`, itself included; those that it does not hold are left out.
    pub fn instance_counts(&self, top: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::from([(top.to_owned(), 1)]);
        // Parents stand behind their children, so going backwards every parent is counted before these.
        for module in self.modules.iter().rev() {
            let times = counts.get(&module.name).copied().unwrap_or(0);
            if times > 0 {
                for (_, child) in &module.instances {
                    *counts.entry(child.clone()).or_insert(0) += times;
                }
            }
        }
        counts
    }

    /// Writes one file a module, `<name>.v`, into `folder`, which is made if it is missing. Returns the files, the top's last.
    ///
    /// # Errors
    ///
    /// The folder or a file can't be written.
    pub fn write_rtl(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        self.modules
            .iter()
            .map(|module| {
                let path = folder.join(format!("{}.v", module.name));
                std::fs::write(&path, &module.source)?;
                Ok(path)
            })
            .collect()
    }

    /// The top module.
    ///
    /// # Panics
    ///
    /// Never for a bundle that [`emit`](super::emit) made: it has at least its top.
    pub fn top_module(&self) -> &Module {
        self.modules
            .iter()
            .rev()
            .find(|module| module.name == self.top)
            .unwrap_or(&self.modules[self.modules.len() - 1])
    }
}
