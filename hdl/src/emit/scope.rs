//! The design as a tree: what a probe of the block sees.

use super::error::Fault;
use rust_hdl_core::prelude::*;
use std::collections::BTreeMap;

/// A signal or constant of a block.
#[derive(Clone, Debug)]
pub(super) struct AtomInfo {
    /// Name with `$` between parts, as rust-hdl's tree spells it.
    pub name: String,
    pub kind: AtomKind,
    pub width: usize,
    pub signed: bool,
    /// Value of a constant.
    pub value: Option<VerilogLiteral>,
}

/// A variant of an enum that the block's signals use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub value: usize,
    pub width: usize,
}

/// A block with its signals and the blocks within.
#[derive(Debug)]
pub(super) struct Scope {
    pub name: String,
    pub atoms: Vec<AtomInfo>,
    /// Enum variants by the tree's spelling (`State$Idle`).
    pub variants: BTreeMap<String, Variant>,
    pub children: Vec<Scope>,
    pub verilog: Verilog,
}

impl Scope {
    /// Ports in declaration order.
    pub fn ports(&self) -> impl Iterator<Item = &AtomInfo> {
        self.atoms.iter().filter(|atom| atom.kind.is_parameter())
    }
}

#[derive(Default)]
struct Collector {
    open: Vec<(Scope, Vec<String>)>,
    root: Option<Scope>,
    faults: Vec<Fault>,
}

fn note_variants(variants: &mut BTreeMap<String, Variant>, descriptor: &TypeDescriptor) {
    match &descriptor.kind {
        TypeKind::Enum(labels) => {
            let width = clog2(labels.len());
            for (value, label) in labels.iter().enumerate() {
                variants.insert(label.replace("::", "$"), Variant { value, width });
            }
        }
        TypeKind::Composite(fields) => fields
            .iter()
            .for_each(|field| note_variants(variants, &field.kind)),
        TypeKind::Bits(_) | TypeKind::Signed(_) => {}
    }
}

impl Probe for Collector {
    fn visit_start_scope(&mut self, name: &str, node: &dyn Block) {
        let scope = Scope {
            name: name.to_owned(),
            atoms: Vec::new(),
            variants: BTreeMap::new(),
            children: Vec::new(),
            verilog: node.hdl(),
        };
        self.open.push((scope, Vec::new()));
    }

    fn visit_start_namespace(&mut self, name: &str, _node: &dyn Block) {
        if let Some((_, namespace)) = self.open.last_mut() {
            namespace.push(name.to_owned());
        }
    }

    fn visit_atom(&mut self, name: &str, signal: &dyn Atom) {
        let Some((scope, namespace)) = self.open.last_mut() else {
            self.faults
                .push(Fault::new(name, "a lone signal is no block", ""));
            return;
        };
        let mut parts = namespace.clone();
        parts.push(name.to_owned());
        let descriptor = signal.descriptor();
        note_variants(&mut scope.variants, &descriptor);
        scope.atoms.push(AtomInfo {
            name: parts.join("$"),
            kind: signal.kind(),
            width: signal.bits(),
            signed: matches!(descriptor.kind, TypeKind::Signed(_)),
            value: (signal.kind() == AtomKind::Constant).then(|| signal.verilog()),
        });
    }

    fn visit_end_namespace(&mut self, _name: &str, _node: &dyn Block) {
        if let Some((_, namespace)) = self.open.last_mut() {
            namespace.pop();
        }
    }

    fn visit_end_scope(&mut self, _name: &str, _node: &dyn Block) {
        let Some((scope, _)) = self.open.pop() else {
            return;
        };
        match self.open.last_mut() {
            Some((parent, _)) => {
                // A parent's kernel may name the variants of its children's ports.
                for (name, variant) in &scope.variants {
                    parent
                        .variants
                        .entry(name.clone())
                        .or_insert_with(|| variant.clone());
                }
                parent.children.push(scope);
            }
            None => self.root = Some(scope),
        }
    }
}

/// Probes a block.
pub(super) fn collect<B: Block>(block: &B, name: &str) -> Result<Scope, Fault> {
    let mut collector = Collector::default();
    block.accept(name, &mut collector);
    if let Some(fault) = collector.faults.into_iter().next() {
        return Err(fault);
    }
    collector
        .root
        .ok_or_else(|| Fault::new(name, "is no block", ""))
}
