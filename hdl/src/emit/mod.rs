//! Verilog from rust-hdl blocks, with the meaning of their Rust simulation.
//!
//! rust-hdl's own translation copies syntax and leaves widths and signs to Verilog's rules, which differ from Rust's. This back
//! end reads the same syntax tree, gives every expression the type that Rust gave it, and prints Verilog in which nothing
//! is left to those rules. What it can't give a meaning it refuses, naming the signal and the reason.
//!
//! Identical instances share one module. Primitives ([`crate::primitive`]) are written out where they stand.

mod bundle;
mod constant;
mod error;
mod expr;
mod lower;
mod names;
mod print;
mod scope;

pub use bundle::{Bundle, Direction, Module, Port};
pub use error::EmitError;

use crate::kernel::Description;
use crate::primitive::Primitive;
use error::Fault;
use lower::Child;
use rust_hdl_core::prelude::{AtomKind, Block, Verilog};
use scope::Scope;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How to emit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmitOptions {
    /// Name of the top module; empty for the name of its type.
    pub top: String,
    /// Stands before the name of every other module, so that a larger design can hold this one without names colliding.
    pub prefix: String,
    /// Base names of modules (`pe`) that Verilator shall not inline, which keeps the build of a large array short.
    /// Other tools see a comment.
    pub keep_hierarchy: Vec<String>,
}

/// Emits a block and all blocks within.
///
/// # Errors
///
/// A construct that has no Verilog of the same meaning, or a fault of the design: a latch, an undriven or doubly named signal,
/// a combinational loop within a kernel, a kernel written without `#[kernel]`.
pub fn emit<B: Block>(block: &B, options: &EmitOptions) -> Result<Bundle, EmitError> {
    let top = if options.top.is_empty() {
        "top"
    } else {
        &options.top
    };
    let mut scope = scope::collect(block, top).map_err(|fault| fault.within(top))?;
    let mut compiler = Compiler::default();
    let path = scope.name.clone();
    let Child::Module(top_unit) = compiler.compile(&mut scope, &path)? else {
        return Err(Fault::new(top, "is a primitive", "put it into a module").within(top));
    };
    compiler.bundle(top_unit, options)
}

/// A distinct module.
struct Unit {
    /// Path of its first instance, for messages.
    path: String,
    description: Description,
    scope: Scope,
    content: Content,
}

impl Unit {
    /// What this module was built with: const generic parameters, then constants that its instance was given, in capitals.
    fn parameters(&self) -> Vec<(String, String)> {
        let constants = self.scope.atoms.iter().filter_map(|atom| {
            let (value, width) = constant::literal_value(atom.value.as_ref()?)?;
            let value = if width <= 32 {
                value.to_string()
            } else {
                format!("0x{value:x}")
            };
            Some((atom.name.replace('$', "_").to_uppercase(), value))
        });
        let parameters = self.description.parameters.iter().cloned();
        parameters.chain(constants).collect()
    }
}

enum Content {
    Kernel {
        plan: Box<print::Plan>,
        children: Vec<Child>,
    },
    /// Text between ports and `endmodule`.
    Custom(String),
}

#[derive(Default)]
struct Compiler {
    units: Vec<Unit>,
    /// Modules by all that decides their text.
    known: HashMap<String, usize>,
}

impl Compiler {
    fn compile(&mut self, scope: &mut Scope, path: &str) -> Result<Child, EmitError> {
        if let Verilog::Blackbox(black_box) = &scope.verilog {
            return match Primitive::from_name(&black_box.name) {
                Some(primitive) => Ok(Child::Primitive(primitive)),
                None => Err(Fault::new(
                    &scope.name,
                    "is a black box",
                    "write its body with hdl::kernel::custom",
                )
                .within(path)),
            };
        }
        let mut children = Vec::new();
        for child in &mut scope.children {
            let child_path = format!("{path}.{}", error::source_name(&child.name));
            children.push(self.compile(child, &child_path)?);
        }
        let key = content_key(scope, &children);
        if let Some(&unit) = self.known.get(&key) {
            return Ok(Child::Module(unit));
        }
        let fault = |reason: &str, hint: &str| Fault::new(&scope.name, reason, hint).within(path);
        let (description, content) = match &scope.verilog {
            Verilog::Combinatorial(block) => {
                let description = Description::of(block).ok_or_else(|| {
                    fault(
                        "is written with plain #[hdl_gen]",
                        "use #[kernel] on the impl block",
                    )
                })?;
                let lowered = lower::lower(scope, block, &description, &children)
                    .map_err(|fault| fault.within(path))?;
                let plan =
                    print::plan(lowered, &children, scope).map_err(|fault| fault.within(path))?;
                (
                    description,
                    Content::Kernel {
                        plan: Box::new(plan),
                        children,
                    },
                )
            }
            Verilog::Custom(text) => {
                let (first, body) = text.split_once('\n').unwrap_or((text, ""));
                let description = Description::decode(first).ok_or_else(|| {
                    fault(
                        "is custom Verilog without a description",
                        "use hdl::kernel::custom",
                    )
                })?;
                (description, Content::Custom(body.to_owned()))
            }
            Verilog::Empty => {
                return Err(fault(
                    "has no Verilog: its Logic is written by hand without `hdl`",
                    "use #[kernel] or hdl::kernel::custom",
                ));
            }
            Verilog::Wrapper(_) | Verilog::Blackbox(_) => {
                return Err(fault("is a wrapper", "use hdl::kernel::custom"));
            }
        };
        let kept = Scope {
            name: scope.name.clone(),
            atoms: std::mem::take(&mut scope.atoms),
            variants: std::mem::take(&mut scope.variants),
            children: scope
                .children
                .iter_mut()
                .map(|child| Scope {
                    name: child.name.clone(),
                    atoms: child.atoms.clone(),
                    variants: BTreeMap::new(),
                    children: Vec::new(),
                    verilog: Verilog::Empty,
                })
                .collect(),
            verilog: Verilog::Empty,
        };
        scope.atoms.clone_from(&kept.atoms);
        let unit = self.units.len();
        self.units.push(Unit {
            path: path.to_owned(),
            description,
            scope: kept,
            content,
        });
        self.known.insert(key, unit);
        Ok(Child::Module(unit))
    }

    fn bundle(self, top: usize, options: &EmitOptions) -> Result<Bundle, EmitError> {
        let names = self.module_names(top, options)?;
        let mut modules = Vec::new();
        for (unit, name) in self.units.iter().zip(&names) {
            let parameters = unit.parameters();
            let header = print::Header {
                name,
                doc: &unit.description.doc,
                parameters: &parameters,
                keep_hierarchy: options.keep_hierarchy.contains(&unit.description.name),
            };
            let (source, instances) = match &unit.content {
                Content::Kernel { plan, children } => {
                    let source =
                        print::print(&unit.scope, plan, &header, &|module| names[module].clone())
                            .map_err(|fault| fault.within(&unit.path))?;
                    let instances = unit
                        .scope
                        .children
                        .iter()
                        .zip(children)
                        .filter_map(|(scope, child)| match child {
                            Child::Module(module) => {
                                Some((scope.name.replace('$', "_"), names[*module].clone()))
                            }
                            Child::Primitive(_) => None,
                        })
                        .collect();
                    (source, instances)
                }
                Content::Custom(body) => {
                    let source = custom_module(&unit.scope, &header, body)
                        .map_err(|fault| fault.within(&unit.path))?;
                    (source, Vec::new())
                }
            };
            modules.push(Module {
                name: name.clone(),
                source,
                ports: unit.scope.ports().map(port).collect(),
                instances,
                parameters,
                doc: unit.description.doc.clone(),
            });
        }
        Ok(Bundle {
            top: names[top].clone(),
            modules,
        })
    }

    /// A name for each module: that of its type, with the parameters that tell it from others of the type.
    fn module_names(&self, top: usize, options: &EmitOptions) -> Result<Vec<String>, EmitError> {
        let base = |unit: usize| {
            if unit == top && !options.top.is_empty() {
                options.top.as_str()
            } else {
                self.units[unit].description.name.as_str()
            }
        };
        let mut taken: HashSet<String> = HashSet::new();
        let mut names = Vec::new();
        // The top's name is the caller's; the others give way.
        taken.insert(base(top).to_owned());
        for (number, unit) in self.units.iter().enumerate() {
            let name = if number == top {
                base(top).to_owned()
            } else {
                let alike: Vec<usize> = (0..self.units.len())
                    .filter(|other| base(*other) == base(number))
                    .collect();
                // A top within another one has the prefix already.
                let mut name = if base(number).starts_with(&options.prefix) {
                    base(number).to_owned()
                } else {
                    format!("{}{}", options.prefix, base(number))
                };
                if alike.len() > 1 {
                    for (parameter, value) in &unit.description.parameters {
                        let differs = alike.iter().any(|other| {
                            let parameters = &self.units[*other].description.parameters;
                            parameters.iter().any(|(known, other_value)| {
                                known == parameter && other_value != value
                            })
                        });
                        if differs {
                            let value: String = value
                                .chars()
                                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                                .collect();
                            name.push_str(&format!("_{}{value}", parameter.to_lowercase()));
                        }
                    }
                }
                let mut free = name.clone();
                let mut ordinal = 2;
                while taken.contains(&free) {
                    free = format!("{name}_v{ordinal}");
                    ordinal += 1;
                }
                taken.insert(free.clone());
                free
            };
            let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !plain || names::is_reserved(&name) {
                return Err(
                    Fault::new(&name, "can't name a module", "#[kernel(name = \"…\")]")
                        .within(&unit.path),
                );
            }
            names.push(name);
        }
        Ok(names)
    }
}

fn port(atom: &scope::AtomInfo) -> Port {
    Port {
        name: atom.name.replace('$', "_"),
        width: atom.width,
        direction: if atom.kind == AtomKind::InputParameter {
            Direction::Input
        } else {
            Direction::Output
        },
    }
}

/// Everything that decides a module's text.
fn content_key(scope: &Scope, children: &[Child]) -> String {
    use std::fmt::Write;
    let mut key = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        key,
        "{:?}{:?}{:?}",
        scope.atoms, scope.variants, scope.verilog
    );
    for (child, child_scope) in children.iter().zip(&scope.children) {
        let _ = write!(key, "{}={child:?}", child_scope.name);
        if matches!(child, Child::Primitive(_)) {
            let _ = write!(key, "{:?}", child_scope.atoms);
        }
    }
    key
}

fn custom_module(scope: &Scope, header: &print::Header<'_>, body: &str) -> Result<String, Fault> {
    let mut names = names::Names::default();
    let mut ports = Vec::new();
    for atom in scope.ports() {
        let kind = if atom.kind == AtomKind::InputParameter {
            "input  wire"
        } else {
            "output reg "
        };
        ports.push((kind, atom.width, names.claim(&atom.name)?));
    }
    Ok(format!(
        "{}\n{}\n\nendmodule\n",
        print::module_head(header, &ports),
        body.trim_matches('\n').trim_end()
    ))
}
