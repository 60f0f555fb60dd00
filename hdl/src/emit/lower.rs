//! From rust-hdl's syntax tree to one definition for each signal.
//!
//! The kernel is executed symbolically: loops are unrolled, indices evaluated, every expression typed as Rust typed it.
//! A `Local` or `Out` that is read back after an assignment gets a net of its own for that version, so the result is free of
//! order. What the tree leaves open and context does not settle is refused.

use super::constant::{
    Constant, decode, encode, evaluate_index, literal_value, parse_rust_integer, parse_value,
};
use super::error::{Fault, source_name};
use super::expr::{Arithmetic, Expr, ExprRef, Kind, NetId, Reduction, Relation};
use super::scope::{Scope, Variant};
use crate::kernel::{CastWidth, Description};
use crate::primitive::Primitive;
use num_bigint::{BigInt, BigUint};
use rust_hdl_core::ast::{
    VerilogBlock, VerilogBlockOrConditional, VerilogConditional, VerilogExpression, VerilogLink,
    VerilogLiteral, VerilogMatch, VerilogOp, VerilogOpUnary, VerilogStatement,
};
use rust_hdl_core::prelude::AtomKind;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// Trips of a loop, and statements of an unrolled kernel, above which something is wrong.
const MAX_TRIPS: usize = 1 << 20;

/// What a net is in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Input,
    Output,
    Local,
    /// Input of a block within.
    ChildInput,
    /// Output of a block within.
    ChildOutput,
    /// An earlier version of a Local or Output, or a value inside a primitive.
    Version(NetId),
}

/// A named value.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// The tree's spelling.
    pub name: String,
    pub width: usize,
    pub signed: bool,
    pub role: Role,
}

pub(super) type ValueRef = Rc<Value>;

/// What an assignment target holds, with the structure of the source's conditions.
#[derive(Debug)]
pub(super) enum Value {
    Undefined,
    Is(ExprRef),
    /// `before` is what it held when the conditional began; branches that leave it alone hold the very same reference.
    If {
        before: ValueRef,
        test: ExprRef,
        then: ValueRef,
        otherwise: ValueRef,
    },
    Case {
        before: ValueRef,
        test: ExprRef,
        arms: Vec<(ExprRef, ValueRef)>,
        default: ValueRef,
    },
}

impl Value {
    pub fn branches(&self) -> Vec<&ValueRef> {
        match self {
            Self::Undefined | Self::Is(_) => Vec::new(),
            Self::If {
                then, otherwise, ..
            } => vec![then, otherwise],
            Self::Case { arms, default, .. } => arms
                .iter()
                .map(|(_, value)| value)
                .chain([default])
                .collect(),
        }
    }

    pub fn tests(&self) -> Vec<&ExprRef> {
        match self {
            Self::Undefined | Self::Is(_) => Vec::new(),
            Self::If { test, .. } => vec![test],
            Self::Case { test, .. } => vec![test],
        }
    }
}

/// Whether `goal` holds for a value that some branch leads to.
pub(super) fn reaches(value: &ValueRef, goal: &dyn Fn(&ValueRef) -> bool) -> bool {
    fn walk(
        value: &ValueRef,
        goal: &dyn Fn(&ValueRef) -> bool,
        seen: &mut HashSet<*const Value>,
    ) -> bool {
        if goal(value) {
            return true;
        }
        seen.insert(Rc::as_ptr(value))
            && value
                .branches()
                .into_iter()
                .any(|branch| walk(branch, goal, seen))
    }
    walk(value, goal, &mut HashSet::new())
}

pub(super) fn may_be_undefined(value: &ValueRef) -> bool {
    reaches(value, &|value| match value.as_ref() {
        Value::Undefined => true,
        Value::Is(expr) => expr.has_undefined(),
        _ => false,
    })
}

/// Calls `visit` for every expression in a value, each shared part once.
pub(super) fn for_each_expression(value: &ValueRef, visit: &mut dyn FnMut(&ExprRef)) {
    fn walk(value: &ValueRef, visit: &mut dyn FnMut(&ExprRef), seen: &mut HashSet<*const Value>) {
        if !seen.insert(Rc::as_ptr(value)) {
            return;
        }
        if let Value::Is(expr) = value.as_ref() {
            visit(expr);
        }
        value.tests().into_iter().for_each(&mut *visit);
        for branch in value.branches() {
            walk(branch, visit, seen);
        }
    }
    walk(value, visit, &mut HashSet::new());
}

/// How a net gets its value.
#[derive(Clone, Debug)]
pub(super) enum Definition {
    Value(ValueRef),
    Register {
        clock: NetId,
        reset: Option<(NetId, BigUint)>,
        d: NetId,
    },
}

/// A block within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    /// Number of the module it is an instance of.
    Module(usize),
    Primitive(Primitive),
}

/// A lowered kernel.
#[derive(Debug)]
pub(super) struct Lowered {
    pub nets: Vec<Net>,
    pub definitions: BTreeMap<NetId, Definition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Type {
    width: usize,
    signed: bool,
}

const BOOL: Type = Type {
    width: 1,
    signed: false,
};

struct Lowering<'a> {
    nets: Vec<Net>,
    names: HashMap<String, NetId>,
    constants: HashMap<String, Constant>,
    variants: &'a BTreeMap<String, Variant>,
    definitions: BTreeMap<NetId, Definition>,
    /// Casts by the address of their node.
    casts: HashMap<*const VerilogExpression, CastWidth>,
    loops: Vec<(String, BigInt)>,
    /// Present values, innermost branch last.
    frames: Vec<BTreeMap<NetId, ValueRef>>,
    /// How many versions of a net exist.
    versions: HashMap<NetId, usize>,
}

/// Lowers a kernel. `children` says what the scope's children are.
pub(super) fn lower(
    scope: &Scope,
    block: &VerilogBlock,
    description: &Description,
    children: &[Child],
) -> Result<Lowered, Fault> {
    let mut lowering = Lowering {
        nets: Vec::new(),
        names: HashMap::new(),
        constants: HashMap::new(),
        variants: &scope.variants,
        definitions: BTreeMap::new(),
        casts: HashMap::new(),
        loops: Vec::new(),
        frames: vec![BTreeMap::new()],
        versions: HashMap::new(),
    };
    lowering.declare(scope, description)?;
    lowering.number_casts(block, description)?;
    lowering.run(block)?;
    for (child, scope) in children.iter().zip(&scope.children) {
        if let Child::Primitive(primitive) = child {
            lowering.primitive(*primitive, scope)?;
        }
    }
    lowering.finish()?;
    Ok(Lowered {
        nets: lowering.nets,
        definitions: lowering.definitions,
    })
}

fn typed(width: usize, signed: bool) -> Type {
    Type { width, signed }
}

impl Lowering<'_> {
    fn add_net(&mut self, name: String, width: usize, signed: bool, role: Role) -> NetId {
        self.nets.push(Net {
            name,
            width,
            signed,
            role,
        });
        self.nets.len() - 1
    }

    fn declare(&mut self, scope: &Scope, description: &Description) -> Result<(), Fault> {
        for atom in &scope.atoms {
            if atom.width == 0 {
                return Err(Fault::new(
                    &atom.name,
                    "has no bits",
                    "an enum of one variant needs no signal",
                ));
            }
            let role = match atom.kind {
                AtomKind::InputParameter => Role::Input,
                AtomKind::OutputParameter => Role::Output,
                AtomKind::LocalSignal => Role::Local,
                AtomKind::Constant => {
                    let value = atom.value.as_ref().and_then(literal_value);
                    let Some((value, _)) = value else {
                        return Err(Fault::new(&atom.name, "has a value that can't be read", ""));
                    };
                    let bits =
                        encode(&value, atom.width, value < BigInt::from(0)).ok_or_else(|| {
                            Fault::new(&atom.name, "has a value beyond its width", "")
                        })?;
                    let value = decode(&bits, atom.width, atom.signed);
                    self.constants.insert(
                        atom.name.clone(),
                        Constant::Sized {
                            value,
                            width: atom.width,
                            signed: atom.signed,
                        },
                    );
                    continue;
                }
                _ => {
                    return Err(Fault::new(
                        &atom.name,
                        "is an InOut signal",
                        "bidirectional signals belong to the board's top level",
                    ));
                }
            };
            let id = self.add_net(atom.name.clone(), atom.width, atom.signed, role);
            if self.names.insert(atom.name.clone(), id).is_some() {
                return Err(Fault::new(&atom.name, "is declared twice", ""));
            }
        }
        for child in &scope.children {
            for port in child.ports() {
                let name = format!("{}${}", child.name, port.name);
                if port.width == 0 {
                    return Err(Fault::new(&name, "has no bits", ""));
                }
                let role = match port.kind {
                    AtomKind::InputParameter => Role::ChildInput,
                    AtomKind::OutputParameter => Role::ChildOutput,
                    _ => return Err(Fault::new(&name, "is an InOut signal", "")),
                };
                let id = self.add_net(name.clone(), port.width, port.signed, role);
                if self.names.insert(name.clone(), id).is_some() {
                    return Err(Fault::new(&name, "is declared twice", ""));
                }
            }
        }
        for (name, text) in description.parameters.iter().chain(&description.constants) {
            let value = parse_value(text).ok_or_else(|| {
                Fault::new(name, format!("has the unreadable value `{text}`"), "")
            })?;
            if self.names.contains_key(name) {
                return Err(Fault::new(
                    name,
                    "is both a signal and a constant",
                    "rename one",
                ));
            }
            self.constants.insert(name.clone(), value);
        }
        Ok(())
    }

    // ---- casts -------------------------------------------------------------------------------------------------------

    fn number_casts(
        &mut self,
        block: &VerilogBlock,
        description: &Description,
    ) -> Result<(), Fault> {
        let mut nodes = Vec::new();
        casts_of_block(block, &mut nodes);
        if nodes.len() != description.casts.len() {
            return Err(Fault::new(
                &description.name,
                format!(
                    "has {} casts in its tree and {} in its source",
                    nodes.len(),
                    description.casts.len()
                ),
                "write the kernel with #[kernel]",
            ));
        }
        self.casts
            .extend(nodes.into_iter().zip(description.casts.iter().copied()));
        Ok(())
    }

    fn cast_width(&self, node: &VerilogExpression) -> CastWidth {
        self.casts
            .get(&std::ptr::from_ref(node))
            .copied()
            .unwrap_or(CastWidth::Inferred)
    }

    // ---- names -------------------------------------------------------------------------------------------------------

    fn number(&self, name: &str) -> Option<BigInt> {
        if let Some((_, value)) = self
            .loops
            .iter()
            .rev()
            .find(|(variable, _)| variable == name)
        {
            return Some(value.clone());
        }
        match self.constants.get(name) {
            Some(Constant::Integer(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// The tree's spelling of a signal with every `[…]` replaced by its number.
    fn resolve_name(&self, name: &str) -> Result<String, Fault> {
        let mut rest = name.trim_end_matches("$next");
        let mut resolved = String::new();
        while let Some(open) = rest.find('[') {
            resolved.push_str(&rest[..open]);
            let inner = &rest[open + 1..];
            let close = inner
                .find(']')
                .ok_or_else(|| Fault::new(name, "has an unclosed bracket", ""))?;
            if inner[..close].contains('[') {
                return Err(Fault::new(name, "has an index inside an index", ""));
            }
            let index =
                evaluate_index(&inner[..close], &|word| self.number(word)).map_err(|fault| {
                    Fault {
                        name: source_name(name),
                        reason: format!("index `{}` {}", fault.name, fault.reason),
                        hint: fault.hint,
                    }
                })?;
            resolved.push_str(&format!("${index}"));
            rest = &inner[close + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    fn net_of(&self, name: &str) -> Result<NetId, Fault> {
        let resolved = self.resolve_name(name)?;
        self.names
            .get(&resolved)
            .copied()
            .ok_or_else(|| self.undeclared(&resolved))
    }

    fn undeclared(&self, name: &str) -> Fault {
        Fault::new(
            name,
            "is not declared in this block",
            "not a signal (fields that start with `_` are none), an index out of range, or an enum that no signal of the block has",
        )
    }

    // ---- statements --------------------------------------------------------------------------------------------------

    fn run(&mut self, block: &VerilogBlock) -> Result<(), Fault> {
        block
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &VerilogStatement) -> Result<(), Fault> {
        match statement {
            VerilogStatement::Assignment(target, value) => self.assignment(target, value),
            VerilogStatement::SliceAssignment {
                base,
                width,
                offset,
                replacement,
            } => self.slice_assignment(base, *width, offset, replacement),
            VerilogStatement::If(conditional) => self.conditional(conditional),
            VerilogStatement::Match(selection) => self.selection(selection),
            VerilogStatement::Loop(repetition) => {
                let end = |literal: &VerilogLiteral| {
                    literal_value(literal)
                        .and_then(|(value, _)| usize::try_from(&value).ok())
                        .filter(|value| *value <= MAX_TRIPS)
                        .ok_or_else(|| {
                            Fault::new(&repetition.index, "loops over an impossible range", "")
                        })
                };
                let (from, to) = (end(&repetition.from)?, end(&repetition.to)?);
                if self.names.contains_key(&repetition.index) {
                    return Err(Fault::new(
                        &repetition.index,
                        "is both a signal and a loop variable",
                        "rename the loop variable",
                    ));
                }
                for trip in from..to {
                    self.loops.push((repetition.index.clone(), trip.into()));
                    self.run(&repetition.block)?;
                    self.loops.pop();
                }
                Ok(())
            }
            VerilogStatement::Comment(_) => Ok(()),
            VerilogStatement::Macro(block) => self.run(block),
            VerilogStatement::Link(links) => links.iter().try_for_each(|link| self.link(link)),
        }
    }

    fn link(&mut self, link: &VerilogLink) -> Result<(), Fault> {
        let (details, forward) = match link {
            VerilogLink::Forward(details) => (details, true),
            VerilogLink::Backward(details) => (details, false),
            VerilogLink::Bidirectional(details) => {
                return Err(Fault::new(&details.owner_name, "joins InOut signals", ""));
            }
        };
        let full = |owner: &str| format!("{owner}{}", details.my_name).replace('.', "$");
        let (owner, other) = (full(&details.owner_name), full(&details.other_name));
        let (target, source) = if forward {
            (other, owner)
        } else {
            (owner, other)
        };
        let target = self.net_of(&target)?;
        let source = self.net_of(&source)?;
        let value = self.read(source)?;
        self.assign(target, value)
    }

    fn assignment(
        &mut self,
        target: &VerilogExpression,
        value: &VerilogExpression,
    ) -> Result<(), Fault> {
        let VerilogExpression::Signal(name) = target else {
            return Err(Fault::new(describe(target), "can't be assigned", ""));
        };
        let target = self.net_of(name)?;
        let net = &self.nets[target];
        let wanted = typed(net.width, net.signed);
        let value = self
            .value_of(value, Some(wanted))
            .map_err(|fault| within_target(fault, name))?;
        if value.width != wanted.width {
            return Err(Fault::new(
                name,
                format!("has {} bits and is assigned {}", wanted.width, value.width),
                "",
            ));
        }
        self.assign(target, value)
    }

    fn slice_assignment(
        &mut self,
        base: &VerilogExpression,
        width: usize,
        offset: &VerilogExpression,
        replacement: &VerilogExpression,
    ) -> Result<(), Fault> {
        let VerilogExpression::Signal(name) = base else {
            return Err(Fault::new(describe(base), "can't be assigned", ""));
        };
        let target = self.net_of(name)?;
        let total = self.nets[target].width;
        let low = match self.constant(offset)? {
            Some(Constant::Integer(value)) => usize::try_from(&value).ok(),
            _ => None,
        };
        let Some(low) = low.filter(|low| width > 0 && low + width <= total) else {
            return Err(Fault::new(name, "has a field outside itself", ""));
        };
        let replacement = self.value_of(replacement, Some(typed(width, false)))?;
        if replacement.width != width {
            return Err(Fault::new(
                name,
                format!(
                    "has a field of {width} bits that is assigned {}",
                    replacement.width
                ),
                "",
            ));
        }
        let old = match self.present(target).as_deref() {
            None | Some(Value::Undefined) => Expr::new(total, Kind::Undefined),
            Some(Value::Is(expr)) => Rc::clone(expr),
            Some(_) => self.read(target)?,
        };
        let mut parts = Vec::new();
        if low + width < total {
            parts.push(Expr::slice(&old, low + width, total - low - width));
        }
        parts.push(replacement);
        if low > 0 {
            parts.push(Expr::slice(&old, 0, low));
        }
        self.assign(target, Expr::concat(parts))
    }

    fn conditional(&mut self, conditional: &VerilogConditional) -> Result<(), Fault> {
        let test = self.value_of(&conditional.test, Some(BOOL))?;
        if test.width != 1 {
            return Err(Fault::new(
                describe(&conditional.test),
                "is no condition of one bit",
                "",
            ));
        }
        if let Some(value) = test.as_constant() {
            return if value.bit(0) {
                self.run(&conditional.then)
            } else {
                self.otherwise(&conditional.otherwise)
            };
        }
        let then = self.branch(|lowering| lowering.run(&conditional.then))?;
        let otherwise = self.branch(|lowering| lowering.otherwise(&conditional.otherwise))?;
        self.merge_if(&test, &then, &otherwise);
        Ok(())
    }

    fn otherwise(&mut self, otherwise: &VerilogBlockOrConditional) -> Result<(), Fault> {
        match otherwise {
            VerilogBlockOrConditional::Block(block) => self.run(block),
            VerilogBlockOrConditional::Conditional(statement) => self.statement(statement),
            VerilogBlockOrConditional::None => Ok(()),
        }
    }

    fn branch(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<BTreeMap<NetId, ValueRef>, Fault> {
        self.frames.push(BTreeMap::new());
        body(self)?;
        Ok(self.frames.pop().unwrap_or_default())
    }

    fn merge_if(
        &mut self,
        test: &ExprRef,
        then: &BTreeMap<NetId, ValueRef>,
        otherwise: &BTreeMap<NetId, ValueRef>,
    ) {
        let targets: Vec<NetId> = then
            .keys()
            .chain(otherwise.keys().filter(|id| !then.contains_key(id)))
            .copied()
            .collect();
        for target in targets {
            let before = self
                .present(target)
                .unwrap_or_else(|| Rc::new(Value::Undefined));
            let held =
                |branch: &BTreeMap<NetId, ValueRef>| branch.get(&target).unwrap_or(&before).clone();
            let value = Value::If {
                test: Rc::clone(test),
                then: held(then),
                otherwise: held(otherwise),
                before: Rc::clone(&before),
            };
            self.hold(target, Rc::new(value));
        }
    }

    fn selection(&mut self, selection: &VerilogMatch) -> Result<(), Fault> {
        let chosen = self.constant(&selection.test)?;
        let test = match &chosen {
            Some(Constant::Sized { .. }) | None => Some(self.value_of(&selection.test, None)?),
            Some(_) => None,
        };
        let fault = |reason: &str| Fault::new(describe(&selection.test), reason, "");
        let mut arms: Vec<(BigInt, Option<Rc<str>>, &VerilogBlock)> = Vec::new();
        let mut default = None;
        for case in &selection.cases {
            if default.is_some() {
                return Err(fault("is matched with `_` before the last arm"));
            }
            if case.condition == "default" {
                default = Some(&case.block);
                continue;
            }
            let (label, name) = self.label(&case.condition, test.as_ref())?;
            if arms.iter().any(|(known, ..)| *known == label) {
                return Err(fault(&format!(
                    "is matched with `{}` twice",
                    source_name(&case.condition)
                )));
            }
            arms.push((label, name, &case.block));
        }
        let Some(test) = test else {
            let number = match chosen {
                Some(Constant::Bool(value)) => BigInt::from(u32::from(value)),
                Some(Constant::Integer(value)) => value,
                _ => return Err(fault("can't be matched")),
            };
            let arm = arms
                .iter()
                .find(|(label, ..)| *label == number)
                .map(|(.., block)| *block)
                .or(default);
            return arm.map_or(Ok(()), |block| self.run(block));
        };
        // A label beyond the width is never met: Rust compares as usize.
        let mut arms: Vec<(ExprRef, &VerilogBlock)> = arms
            .into_iter()
            .filter_map(|(label, name, block)| {
                let bits = encode(&label, test.width, false)?;
                Some((Expr::new(test.width, Kind::Const(bits, name)), block))
            })
            .collect();
        let default = match default {
            Some(default) => default,
            // Rust has checked that the arms cover everything; the last one takes what codes are left.
            None => match arms.pop() {
                Some((_, block)) => block,
                None => return Ok(()),
            },
        };
        if let Some(value) = test.as_constant() {
            let arm = arms
                .iter()
                .find(|(label, _)| label.as_constant() == Some(value))
                .map(|(_, block)| *block);
            return self.run(arm.unwrap_or(default));
        }
        if let ([(label, block)], true) = (arms.as_slice(), test.width == 1) {
            let one = label.as_constant().is_some_and(|value| value.bit(0));
            let (high, low) = if one {
                (*block, default)
            } else {
                (default, *block)
            };
            let then = self.branch(|lowering| lowering.run(high))?;
            let otherwise = self.branch(|lowering| lowering.run(low))?;
            self.merge_if(&test, &then, &otherwise);
            return Ok(());
        }
        if arms.is_empty() {
            return self.run(default);
        }
        let mut branches = Vec::new();
        for (label, block) in arms {
            branches.push((label, self.branch(|lowering| lowering.run(block))?));
        }
        let default = self.branch(|lowering| lowering.run(default))?;
        let mut targets: Vec<NetId> = branches
            .iter()
            .flat_map(|(_, branch)| branch.keys())
            .chain(default.keys())
            .copied()
            .collect();
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            let before = self
                .present(target)
                .unwrap_or_else(|| Rc::new(Value::Undefined));
            let held =
                |branch: &BTreeMap<NetId, ValueRef>| branch.get(&target).unwrap_or(&before).clone();
            let value = Value::Case {
                test: Rc::clone(&test),
                arms: branches
                    .iter()
                    .map(|(label, branch)| (Rc::clone(label), held(branch)))
                    .collect(),
                default: held(&default),
                before: Rc::clone(&before),
            };
            self.hold(target, Rc::new(value));
        }
        Ok(())
    }

    fn label(
        &self,
        text: &str,
        test: Option<&ExprRef>,
    ) -> Result<(BigInt, Option<Rc<str>>), Fault> {
        match text {
            "true" => return Ok((1.into(), None)),
            "false" => return Ok((0.into(), None)),
            _ => {}
        }
        if let Some(value) = parse_rust_integer(text) {
            if test.is_some_and(|test| test.width > 32) {
                return Err(Fault::new(
                    text,
                    "matches more than 32 bits as an index",
                    "rust-hdl panics on that in simulation",
                ));
            }
            return Ok((value, None));
        }
        match self.variants.get(text) {
            Some(variant) if test.is_none_or(|test| test.width == variant.width) => {
                Ok((variant.value.into(), Some(text.into())))
            }
            Some(_) => Err(Fault::new(text, "is a variant of another enum", "")),
            None => Err(self.undeclared(text)),
        }
    }

    // ---- targets -----------------------------------------------------------------------------------------------------

    fn present(&self, target: NetId) -> Option<ValueRef> {
        self.frames
            .iter()
            .rev()
            .find_map(|frame| frame.get(&target))
            .cloned()
    }

    fn hold(&mut self, target: NetId, value: ValueRef) {
        if let Some(frame) = self.frames.last_mut() {
            frame.insert(target, value);
        }
    }

    fn assign(&mut self, target: NetId, value: ExprRef) -> Result<(), Fault> {
        let net = &self.nets[target];
        match net.role {
            Role::Input => Err(Fault::new(&net.name, "is an input and is assigned", "")),
            Role::ChildOutput => Err(Fault::new(
                &net.name,
                "is an output of a block within and is assigned",
                "",
            )),
            Role::Output | Role::Local | Role::ChildInput | Role::Version(_) => {
                self.hold(target, Rc::new(Value::Is(value)));
                Ok(())
            }
        }
    }

    /// The value that reading a signal gives at this point of the kernel.
    fn read(&mut self, id: NetId) -> Result<ExprRef, Fault> {
        let net = &self.nets[id];
        let width = net.width;
        if !matches!(net.role, Role::Local | Role::Output) {
            return Ok(Expr::net(id, width));
        }
        let (name, signed) = (net.name.clone(), net.signed);
        let unassigned = || {
            Fault::new(
                &name,
                "is read before it is assigned on every path",
                "assign a default first; for a value of the last cycle use a Register",
            )
        };
        let Some(position) = self
            .frames
            .iter()
            .rposition(|frame| frame.contains_key(&id))
        else {
            return Err(unassigned());
        };
        let Some(value) = self.frames[position].get(&id).cloned() else {
            return Err(unassigned());
        };
        if let Value::Is(expr) = value.as_ref() {
            let own_version =
                matches!(expr.kind, Kind::Net(net) if self.nets[net].role == Role::Version(id));
            if own_version || matches!(expr.kind, Kind::Const(..)) {
                return Ok(Rc::clone(expr));
            }
        }
        if may_be_undefined(&value) {
            return Err(unassigned());
        }
        let count = self.versions.entry(id).or_insert(0);
        *count += 1;
        let version_name = format!("{name}${count}");
        let version = self.add_net(version_name, width, signed, Role::Version(id));
        self.definitions.insert(version, Definition::Value(value));
        let expr = Expr::net(version, width);
        self.frames[position].insert(id, Rc::new(Value::Is(Rc::clone(&expr))));
        Ok(expr)
    }

    /// Checks that everything is driven and makes the last version of each target its definition.
    fn finish(&mut self) -> Result<(), Fault> {
        let held = self.frames.pop().unwrap_or_default();
        for id in 0..self.nets.len() {
            let net = &self.nets[id];
            let must_be_driven = matches!(net.role, Role::Output | Role::ChildInput);
            match held.get(&id) {
                Some(value) if may_be_undefined(value) => {
                    return Err(Fault::new(
                        &net.name,
                        "is not assigned on every path, which is a latch",
                        "assign a default first",
                    ));
                }
                Some(value) => {
                    self.definitions
                        .insert(id, Definition::Value(Rc::clone(value)));
                }
                None if must_be_driven => {
                    let reason = if net.role == Role::Output {
                        "is an output that nothing drives"
                    } else {
                        "is an input of a block within that nothing drives"
                    };
                    return Err(Fault::new(&net.name, reason, ""));
                }
                None => {}
            }
        }
        Ok(())
    }

    // ---- primitives --------------------------------------------------------------------------------------------------

    fn primitive(&mut self, primitive: Primitive, scope: &Scope) -> Result<(), Fault> {
        let port = |lowering: &Self, name: &str| lowering.net_of(&format!("{}${name}", scope.name));
        let value = |lowering: &Self, name: &str| -> Result<ExprRef, Fault> {
            let id = port(lowering, name)?;
            Ok(Expr::net(id, lowering.nets[id].width))
        };
        let (output, expr) = match primitive {
            Primitive::Register | Primitive::DataRegister => {
                let reset = if primitive == Primitive::Register {
                    let init = scope
                        .atoms
                        .iter()
                        .find(|atom| atom.kind == AtomKind::Constant)
                        .and_then(|atom| {
                            let (value, _) = literal_value(atom.value.as_ref()?)?;
                            encode(&value, atom.width, value < BigInt::from(0))
                        });
                    let init = init.ok_or_else(|| {
                        Fault::new(&scope.name, "has no readable reset value", "")
                    })?;
                    Some((port(self, "reset")?, init))
                } else {
                    None
                };
                let q = port(self, "q")?;
                let register = Definition::Register {
                    clock: port(self, "clock")?,
                    reset,
                    d: port(self, "d")?,
                };
                self.definitions.insert(q, register);
                return Ok(());
            }
            Primitive::PipelineRegister => {
                let q = port(self, "q")?;
                let (d, enable) = (value(self, "d")?, value(self, "enable")?);
                let width = self.nets[q].width;
                let hold = Rc::new(Value::Is(Expr::net(q, width)));
                let name = format!("{}$next", scope.name);
                let next = self.add_net(name, width, false, Role::Local);
                let taken = Value::If {
                    before: Rc::clone(&hold),
                    test: enable,
                    then: Rc::new(Value::Is(d)),
                    otherwise: hold,
                };
                self.definitions
                    .insert(next, Definition::Value(Rc::new(taken)));
                let register = Definition::Register {
                    clock: port(self, "clock")?,
                    reset: None,
                    d: next,
                };
                self.definitions.insert(q, register);
                return Ok(());
            }
            Primitive::PipelineWire => (port(self, "q")?, value(self, "d")?),
            Primitive::MulU | Primitive::MulS => {
                let (a, b, p) = (value(self, "a")?, value(self, "b")?, port(self, "p")?);
                (p, product(&a, &b, primitive == Primitive::MulS))
            }
            Primitive::SignExtend => {
                let y = port(self, "y")?;
                (
                    y,
                    Expr::extend(&value(self, "a")?, self.nets[y].width, true),
                )
            }
            Primitive::Negate => {
                let a = value(self, "a")?;
                (port(self, "y")?, Expr::negate(&a))
            }
            Primitive::ShiftLeft => {
                let (a, amount) = (value(self, "a")?, value(self, "amount")?);
                (port(self, "y")?, Expr::shift(&a, true, &amount))
            }
            Primitive::AddCarry => {
                let sum = port(self, "sum")?;
                let width = self.nets[sum].width;
                let wide = |e: ExprRef| Expr::extend(&e, width, true);
                let (a, b) = (wide(value(self, "a")?), wide(value(self, "b")?));
                // One adder for all three: the carry comes out of a bit below the lowest.
                let name = format!("{}$sum2", scope.name);
                let id = self.add_net(name, width + 1, true, Role::Version(sum));
                let both = Expr::arithmetic(
                    Arithmetic::Add,
                    &Expr::concat(vec![a, Expr::bit(true)]),
                    &Expr::concat(vec![b, value(self, "carry")?]),
                );
                self.definitions
                    .insert(id, Definition::Value(Rc::new(Value::Is(both))));
                (sum, Expr::slice(&Expr::net(id, width + 1), 1, width))
            }
            Primitive::AddTree => {
                let sum = port(self, "sum")?;
                let mut level: Vec<ExprRef> = Vec::new();
                for i in 0..scope.ports().count() - 1 {
                    level.push(value(self, &format!("a${i}"))?);
                }
                let mut terms = 1;
                loop {
                    terms *= 2;
                    let pairs: Vec<ExprRef> = level
                        .chunks(2)
                        .map(|pair| {
                            let wide = |e: &ExprRef| Expr::extend(e, e.width + 1, true);
                            match pair {
                                [a, b] => Expr::arithmetic(Arithmetic::Add, &wide(a), &wide(b)),
                                rest => rest.first().map(wide).unwrap_or_else(|| Expr::zero(1)),
                            }
                        })
                        .collect();
                    if let [root] = pairs.as_slice() {
                        break (sum, Rc::clone(root));
                    }
                    level = pairs
                        .into_iter()
                        .enumerate()
                        .map(|(i, pair)| {
                            let name = format!("{}$sum{terms}${i}", scope.name);
                            let id = self.add_net(name, pair.width, true, Role::Version(sum));
                            let width = pair.width;
                            self.definitions
                                .insert(id, Definition::Value(Rc::new(Value::Is(pair))));
                            Expr::net(id, width)
                        })
                        .collect();
                }
            }
            Primitive::Mux => {
                let (y, select) = (port(self, "y")?, value(self, "select")?);
                let width = self.nets[y].width;
                let is = |expr: ExprRef| Rc::new(Value::Is(expr));
                let before = Rc::new(Value::Undefined);
                let mut arms = Vec::new();
                for i in 0..scope.ports().count() - 2 {
                    let Some(label) = encode(&i.into(), select.width, false) else {
                        break;
                    };
                    arms.push((
                        Expr::constant(label, select.width),
                        is(value(self, &format!("a${i}"))?),
                    ));
                }
                let selected = match (arms.len(), select.width) {
                    (0, _) => is(Expr::zero(width)),
                    (1, 1) => Rc::new(Value::If {
                        test: select,
                        then: is(Expr::zero(width)),
                        otherwise: Rc::clone(&arms[0].1),
                        before,
                    }),
                    (2, 1) => Rc::new(Value::If {
                        test: select,
                        then: Rc::clone(&arms[1].1),
                        otherwise: Rc::clone(&arms[0].1),
                        before,
                    }),
                    _ => Rc::new(Value::Case {
                        test: select,
                        arms,
                        default: is(Expr::zero(width)),
                        before,
                    }),
                };
                self.definitions.insert(y, Definition::Value(selected));
                return Ok(());
            }
        };
        if expr.width != self.nets[output].width {
            return Err(Fault::new(
                &self.nets[output].name,
                "has a width that its operands don't give",
                "",
            ));
        }
        self.definitions
            .insert(output, Definition::Value(Rc::new(Value::Is(expr))));
        Ok(())
    }

    // ---- expressions -------------------------------------------------------------------------------------------------

    /// The number an expression is, if it has one at emission.
    fn constant(&self, expression: &VerilogExpression) -> Result<Option<Constant>, Fault> {
        Ok(match expression {
            VerilogExpression::Paren(inner) => self.constant(inner)?,
            VerilogExpression::Literal(literal) => match literal_value(literal) {
                Some((value, 1)) => Some(Constant::Bool(value.bit(0))),
                Some((value, _)) => Some(Constant::Integer(value)),
                None => {
                    return Err(Fault::new(
                        literal.to_string(),
                        "is a literal that can't be read",
                        "",
                    ));
                }
            },
            VerilogExpression::Signal(name) => {
                if let Some(value) = self.number(name) {
                    Some(Constant::Integer(value))
                } else {
                    self.constants.get(name.as_str()).cloned()
                }
            }
            VerilogExpression::Unary(op, operand) => match (op, self.constant(operand)?) {
                (VerilogOpUnary::Neg, Some(Constant::Integer(value))) => {
                    Some(Constant::Integer(-value))
                }
                (VerilogOpUnary::Not, Some(Constant::Bool(value))) => Some(Constant::Bool(!value)),
                (VerilogOpUnary::Not, Some(Constant::Integer(_))) => {
                    return Err(Fault::new(
                        describe(expression),
                        "inverts a number of no known width",
                        "write the number out",
                    ));
                }
                _ => None,
            },
            VerilogExpression::Binary(left, op, right) => {
                match (self.constant(left)?, self.constant(right)?) {
                    (Some(Constant::Integer(a)), Some(Constant::Integer(b))) => {
                        Some(integer_operation(op, &a, &b, expression)?)
                    }
                    (Some(Constant::Bool(a)), Some(Constant::Bool(b))) => bool_operation(op, a, b),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    /// The type that an expression has by itself.
    fn type_of(&self, expression: &VerilogExpression) -> Result<Option<Type>, Fault> {
        match self.constant(expression)? {
            Some(Constant::Bool(_)) => return Ok(Some(BOOL)),
            Some(Constant::Sized { width, signed, .. }) => return Ok(Some(typed(width, signed))),
            Some(Constant::Integer(_)) => return Ok(None),
            None => {}
        }
        Ok(match expression {
            VerilogExpression::Paren(inner) => self.type_of(inner)?,
            VerilogExpression::Signal(name) => {
                if let Some(variant) = self.variants.get(name.as_str()) {
                    return Ok(Some(typed(variant.width, false)));
                }
                let net = &self.nets[self.net_of(name)?];
                Some(typed(net.width, net.signed))
            }
            VerilogExpression::Literal(_) => None,
            VerilogExpression::Cast(_, width) => Some(typed(*width, false)),
            VerilogExpression::Signed(operand) | VerilogExpression::Unsigned(operand) => {
                let signed = matches!(expression, VerilogExpression::Signed(_));
                match self.cast_width(expression) {
                    CastWidth::Same => self.type_of(operand)?.map(|ty| typed(ty.width, signed)),
                    CastWidth::Given(width) => Some(typed(width, signed)),
                    CastWidth::Inferred => None,
                }
            }
            VerilogExpression::Binary(left, op, right) => match op {
                VerilogOp::Eq
                | VerilogOp::Ne
                | VerilogOp::Lt
                | VerilogOp::Le
                | VerilogOp::Gt
                | VerilogOp::Ge
                | VerilogOp::LogicalAnd
                | VerilogOp::LogicalOr => Some(BOOL),
                VerilogOp::Shl | VerilogOp::Shr => self.type_of(left)?,
                VerilogOp::Mul => {
                    let operand = match self.type_of(left)? {
                        None => self.type_of(right)?,
                        some => some,
                    };
                    operand.map(|ty| typed(32, ty.signed))
                }
                _ => match self.type_of(left)? {
                    None => self.type_of(right)?,
                    some => some,
                },
            },
            VerilogExpression::Unary(op, operand) => match op {
                VerilogOpUnary::Not | VerilogOpUnary::Neg => self.type_of(operand)?,
                VerilogOpUnary::All | VerilogOpUnary::Any | VerilogOpUnary::Xor => Some(BOOL),
            },
            VerilogExpression::Index(..) => Some(BOOL),
            VerilogExpression::Slice(operand, width, _) => {
                let signed = self.type_of(operand)?.is_some_and(|ty| ty.signed);
                Some(typed(*width, signed))
            }
            VerilogExpression::IndexReplace(operand, ..) => self.type_of(operand)?,
        })
    }

    fn value_of(
        &mut self,
        expression: &VerilogExpression,
        wanted: Option<Type>,
    ) -> Result<ExprRef, Fault> {
        if let Some(constant) = self.constant(expression)? {
            return self.constant_value(expression, &constant, wanted);
        }
        match expression {
            VerilogExpression::Paren(inner) => self.value_of(inner, wanted),
            VerilogExpression::Signal(name) => {
                if let Some(variant) = self.variants.get(name.as_str()) {
                    let kind = Kind::Const(variant.value.into(), Some(name.as_str().into()));
                    return Ok(Expr::new(variant.width, kind));
                }
                let id = self.net_of(name)?;
                self.read(id)
            }
            VerilogExpression::Literal(literal) => Err(Fault::new(
                literal.to_string(),
                "is a literal that can't be read",
                "",
            )),
            VerilogExpression::Cast(operand, width) => {
                self.unsigned_cast(expression, operand, *width)
            }
            VerilogExpression::Unsigned(operand) => match self.cast_width(expression) {
                CastWidth::Same => self.value_of(operand, wanted.map(|ty| typed(ty.width, true))),
                CastWidth::Given(width) => self.unsigned_cast(expression, operand, width),
                CastWidth::Inferred => {
                    let width = self.wanted_width(expression, wanted)?;
                    self.unsigned_cast(expression, operand, width)
                }
            },
            VerilogExpression::Signed(operand) => {
                let width = match self.cast_width(expression) {
                    CastWidth::Same => {
                        return self.value_of(operand, wanted.map(|ty| typed(ty.width, false)));
                    }
                    CastWidth::Given(width) => width,
                    CastWidth::Inferred => self.wanted_width(expression, wanted)?,
                };
                if width == 0 {
                    return Err(Fault::new(describe(expression), "is cast to no bits", ""));
                }
                if let Some(constant @ (Constant::Integer(_) | Constant::Bool(_))) =
                    self.constant(operand)?
                {
                    return self.constant_value(operand, &constant, Some(typed(width, true)));
                }
                if let Some(Type { signed: false, .. }) = self.type_of(operand)? {
                    return Err(Fault::new(
                        describe(expression),
                        "sign-extends a value without sign",
                        "signed_cast it first",
                    ));
                }
                let operand = self.value_of(operand, None)?;
                Ok(Expr::resize(&operand, width, true))
            }
            VerilogExpression::Binary(left, op, right) => {
                self.binary(expression, left, op, right, wanted)
            }
            VerilogExpression::Unary(op, operand) => match op {
                VerilogOpUnary::Not => Ok(Expr::not(&self.value_of(operand, wanted)?)),
                VerilogOpUnary::Neg => {
                    let value = self.value_of(operand, wanted)?;
                    Ok(Expr::negate(&value))
                }
                VerilogOpUnary::All | VerilogOpUnary::Any | VerilogOpUnary::Xor => {
                    let value = self.value_of(operand, None)?;
                    let reduction = match op {
                        VerilogOpUnary::All => Reduction::All,
                        VerilogOpUnary::Any => Reduction::Any,
                        _ => Reduction::Parity,
                    };
                    Ok(Expr::reduce(reduction, &value))
                }
            },
            VerilogExpression::Index(operand, index) => {
                let value = self.value_of(operand, None)?;
                match self.offset(index)? {
                    Offset::Constant(offset) if offset < value.width => {
                        Ok(Expr::slice(&value, offset, 1))
                    }
                    Offset::Constant(offset) => Err(beyond(operand, offset, value.width)),
                    Offset::Signal(index) => Ok(select(&value, &index)),
                }
            }
            VerilogExpression::Slice(operand, width, offset) => {
                if *width == 0 {
                    return Err(Fault::new(describe(expression), "takes no bits", ""));
                }
                let value = self.value_of(operand, None)?;
                match self.offset(offset)? {
                    Offset::Constant(offset) if offset < value.width => {
                        let available = (value.width - offset).min(*width);
                        Ok(Expr::extend(
                            &Expr::slice(&value, offset, available),
                            *width,
                            false,
                        ))
                    }
                    Offset::Constant(offset) if offset == value.width => Ok(Expr::zero(*width)),
                    Offset::Constant(offset) => Err(beyond(operand, offset, value.width)),
                    Offset::Signal(index) => {
                        let shifted = Expr::shift(&value, false, &index);
                        Ok(Expr::resize(&shifted, *width, false))
                    }
                }
            }
            VerilogExpression::IndexReplace(operand, index, bit) => {
                let value = self.value_of(operand, wanted)?;
                let bit = self.value_of(bit, Some(BOOL))?;
                let width = value.width;
                match self.offset(index)? {
                    Offset::Constant(offset) if offset < width => {
                        let mut parts = Vec::new();
                        if offset + 1 < width {
                            parts.push(Expr::slice(&value, offset + 1, width - offset - 1));
                        }
                        parts.push(bit);
                        if offset > 0 {
                            parts.push(Expr::slice(&value, 0, offset));
                        }
                        Ok(Expr::concat(parts))
                    }
                    Offset::Constant(offset) => Err(beyond(operand, offset, width)),
                    Offset::Signal(index) => {
                        let shifted = |of: &ExprRef| Expr::shift(of, true, &index);
                        let one = shifted(&Expr::constant(1_u32.into(), width));
                        let cleared = Expr::arithmetic(Arithmetic::And, &value, &Expr::not(&one));
                        Ok(Expr::arithmetic(
                            Arithmetic::Or,
                            &cleared,
                            &shifted(&Expr::extend(&bit, width, false)),
                        ))
                    }
                }
            }
        }
    }

    fn wanted_width(
        &self,
        expression: &VerilogExpression,
        wanted: Option<Type>,
    ) -> Result<usize, Fault> {
        wanted.map(|ty| ty.width).ok_or_else(|| {
            Fault::new(
                describe(expression),
                "is cast to a width that can't be told here",
                "state it: `signed_bit_cast::<TO, FROM>(…)`",
            )
        })
    }

    fn unsigned_cast(
        &mut self,
        expression: &VerilogExpression,
        operand: &VerilogExpression,
        width: usize,
    ) -> Result<ExprRef, Fault> {
        if width == 0 {
            return Err(Fault::new(describe(expression), "is cast to no bits", ""));
        }
        if let Some(constant @ Constant::Integer(_)) = self.constant(operand)? {
            return self.constant_value(operand, &constant, Some(typed(width, false)));
        }
        let value = self.value_of(operand, None)?;
        Ok(Expr::resize(&value, width, false))
    }

    fn constant_value(
        &self,
        expression: &VerilogExpression,
        constant: &Constant,
        wanted: Option<Type>,
    ) -> Result<ExprRef, Fault> {
        match constant {
            Constant::Bool(value) => Ok(Expr::bit(*value)),
            Constant::Sized {
                value,
                width,
                signed,
            } => {
                let bits = encode(value, *width, *signed).ok_or_else(|| {
                    Fault::new(describe(expression), "has a value beyond its width", "")
                })?;
                let name = match strip(expression) {
                    VerilogExpression::Signal(name) => Some(name.as_str().into()),
                    _ => None,
                };
                Ok(Expr::new(*width, Kind::Const(bits, name)))
            }
            Constant::Integer(value) => {
                let wanted = wanted.ok_or_else(|| {
                    Fault::new(
                        describe(expression),
                        "is a number of no known width",
                        "use `.to_bits::<N>()` or a Constant",
                    )
                })?;
                let bits = encode(value, wanted.width, wanted.signed).ok_or_else(|| {
                    let kind = if wanted.signed { "signed" } else { "unsigned" };
                    Fault::new(
                        describe(expression),
                        format!("is {value}, which {} {kind} bits can't hold", wanted.width),
                        "",
                    )
                })?;
                let name = match strip(expression) {
                    VerilogExpression::Signal(name)
                        if self.constants.contains_key(name.as_str()) =>
                    {
                        Some(name.as_str().into())
                    }
                    _ => None,
                };
                Ok(Expr::new(wanted.width, Kind::Const(bits, name)))
            }
        }
    }

    fn offset(&mut self, offset: &VerilogExpression) -> Result<Offset, Fault> {
        match self.constant(offset)? {
            Some(Constant::Integer(value)) => {
                usize::try_from(&value).map(Offset::Constant).map_err(|_| {
                    Fault::new(
                        describe(offset),
                        format!("is {value}, which is no bit offset"),
                        "",
                    )
                })
            }
            Some(_) => Err(Fault::new(describe(offset), "is no bit offset", "")),
            None => {
                let value = self.value_of(offset, None)?;
                if value.width > 32 {
                    return Err(Fault::new(
                        describe(offset),
                        "is an index of more than 32 bits",
                        "rust-hdl panics on that in simulation",
                    ));
                }
                Ok(
                    match value
                        .as_constant()
                        .and_then(|value| usize::try_from(value).ok())
                    {
                        Some(constant) => Offset::Constant(constant),
                        None => Offset::Signal(value),
                    },
                )
            }
        }
    }

    fn binary(
        &mut self,
        expression: &VerilogExpression,
        left: &VerilogExpression,
        op: &VerilogOp,
        right: &VerilogExpression,
        wanted: Option<Type>,
    ) -> Result<ExprRef, Fault> {
        let plain = |op: Arithmetic| (op, false);
        let (arithmetic, logical) = match op {
            VerilogOp::Shl | VerilogOp::Shr => {
                return self.shift(
                    expression,
                    left,
                    matches!(op, VerilogOp::Shl),
                    right,
                    wanted,
                );
            }
            VerilogOp::Eq => return self.comparison(expression, left, Relation::Eq, right),
            VerilogOp::Ne => return self.comparison(expression, left, Relation::Ne, right),
            VerilogOp::Lt => return self.comparison(expression, left, Relation::Lt, right),
            VerilogOp::Le => return self.comparison(expression, left, Relation::Le, right),
            VerilogOp::Gt => return self.comparison(expression, left, Relation::Gt, right),
            VerilogOp::Ge => return self.comparison(expression, left, Relation::Ge, right),
            VerilogOp::Mul => return self.multiplication(expression, left, right),
            VerilogOp::LogicalAnd => (Arithmetic::And, true),
            VerilogOp::LogicalOr => (Arithmetic::Or, true),
            VerilogOp::Add => plain(Arithmetic::Add),
            VerilogOp::Sub => plain(Arithmetic::Sub),
            VerilogOp::BitAnd => plain(Arithmetic::And),
            VerilogOp::BitOr => plain(Arithmetic::Or),
            VerilogOp::BitXor => plain(Arithmetic::Xor),
        };
        let (left_type, right_type) = (self.type_of(left)?, self.type_of(right)?);
        let ty = if logical {
            Some(BOOL)
        } else {
            left_type.or(right_type).or(wanted)
        };
        let a = self.value_of(left, left_type.or(ty))?;
        let mut b = self.value_of(right, right_type.or(ty))?;
        // `Bits<N> + bool` is the one sum of different widths that rust-hdl has.
        if arithmetic == Arithmetic::Add && b.width == 1 && a.width > 1 {
            b = Expr::extend(&b, a.width, false);
        }
        if a.width != b.width || (logical && a.width != 1) {
            return Err(Fault::new(
                describe(expression),
                format!("has operands of {} and {} bits", a.width, b.width),
                "",
            ));
        }
        Ok(fold_bits(arithmetic, &a, &b))
    }

    fn multiplication(
        &mut self,
        expression: &VerilogExpression,
        left: &VerilogExpression,
        right: &VerilogExpression,
    ) -> Result<ExprRef, Fault> {
        let ty = match self.type_of(left)? {
            None => self.type_of(right)?,
            some => some,
        };
        let Some(ty) = ty.filter(|ty| ty.width == 16) else {
            return Err(Fault::new(
                describe(expression),
                "multiplies other than 16 by 16 bits",
                "use the primitive MulU or MulS",
            ));
        };
        let (a, b) = (
            self.value_of(left, Some(ty))?,
            self.value_of(right, Some(ty))?,
        );
        if a.width != 16 || b.width != 16 {
            return Err(Fault::new(
                describe(expression),
                "multiplies other than 16 by 16 bits",
                "use the primitive MulU or MulS",
            ));
        }
        Ok(product(&a, &b, ty.signed))
    }

    fn shift(
        &mut self,
        expression: &VerilogExpression,
        left: &VerilogExpression,
        to_left: bool,
        right: &VerilogExpression,
        wanted: Option<Type>,
    ) -> Result<ExprRef, Fault> {
        if self
            .constant(left)?
            .is_some_and(|constant| matches!(constant, Constant::Integer(_)))
        {
            return Err(Fault::new(
                describe(expression),
                "shifts a number of no known width",
                "make the number a Constant or `.to_bits::<N>()` in a Local",
            ));
        }
        let value = self.value_of(left, wanted)?;
        match self.constant(right)? {
            Some(Constant::Integer(amount)) => {
                let amount = usize::try_from(&amount).map_err(|_| {
                    Fault::new(
                        describe(right),
                        format!("is {amount}, which is no shift amount"),
                        "",
                    )
                })?;
                Ok(Expr::shift_by(&value, to_left, amount))
            }
            _ => {
                let amount = self.value_of(right, None)?;
                if amount.width > 32 {
                    return Err(Fault::new(
                        describe(right),
                        "is a shift amount of more than 32 bits",
                        "cast it to what it needs",
                    ));
                }
                Ok(Expr::shift(&value, to_left, &amount))
            }
        }
    }

    fn comparison(
        &mut self,
        expression: &VerilogExpression,
        left: &VerilogExpression,
        relation: Relation,
        right: &VerilogExpression,
    ) -> Result<ExprRef, Fault> {
        let (left_type, right_type) = (self.type_of(left)?, self.type_of(right)?);
        let Some(ty) = left_type.or(right_type) else {
            return Err(Fault::new(
                describe(expression),
                "compares numbers of no known width",
                "",
            ));
        };
        // Against a number: it may lie outside what the signal can hold (`.index()` compares as usize).
        if let Some(Constant::Integer(number)) = self.constant(right)? {
            let value = self.value_of(left, Some(ty))?;
            return Ok(Expr::compare_with_number(
                relation, ty.signed, &value, &number,
            ));
        }
        if let Some(Constant::Integer(number)) = self.constant(left)? {
            let value = self.value_of(right, Some(ty))?;
            return Ok(Expr::compare_with_number(
                relation.mirrored(),
                ty.signed,
                &value,
                &number,
            ));
        }
        let (a, b) = (
            self.value_of(left, Some(ty))?,
            self.value_of(right, Some(ty))?,
        );
        // Different widths: `.index()` on both sides, or a struct's enum field; all of them unsigned.
        if a.width != b.width
            && (left_type.is_some_and(|ty| ty.signed) || right_type.is_some_and(|ty| ty.signed))
        {
            return Err(Fault::new(
                describe(expression),
                format!("compares {} with {} bits", a.width, b.width),
                "",
            ));
        }
        let width = a.width.max(b.width);
        let (a, b) = (
            Expr::extend(&a, width, false),
            Expr::extend(&b, width, false),
        );
        Ok(Expr::compare(relation, ty.signed, &a, &b))
    }
}

/// A bit offset.
enum Offset {
    Constant(usize),
    Signal(ExprRef),
}

fn within_target(fault: Fault, target: &str) -> Fault {
    let target = source_name(target);
    if fault.name == target {
        return fault;
    }
    Fault {
        reason: format!("{} (assigned to `{target}`)", fault.reason),
        ..fault
    }
}

fn beyond(operand: &VerilogExpression, offset: usize, width: usize) -> Fault {
    Fault::new(
        describe(operand),
        format!("has {width} bits, of which bit {offset} is taken"),
        "",
    )
}

fn strip(expression: &VerilogExpression) -> &VerilogExpression {
    match expression {
        VerilogExpression::Paren(inner) => strip(inner),
        other => other,
    }
}

/// Operators with what constants make plain.
fn fold_bits(op: Arithmetic, a: &ExprRef, b: &ExprRef) -> ExprRef {
    if a.width == 1 && matches!(op, Arithmetic::And | Arithmetic::Or) {
        for (constant, other) in [(a, b), (b, a)] {
            match (op, constant.as_constant().map(|value| value.bit(0))) {
                (Arithmetic::And, Some(true)) | (Arithmetic::Or, Some(false)) => {
                    return Rc::clone(other);
                }
                (Arithmetic::And, Some(false)) => return Expr::bit(false),
                (Arithmetic::Or, Some(true)) => return Expr::bit(true),
                _ => {}
            }
        }
    }
    Expr::arithmetic(op, a, b)
}

fn product(a: &ExprRef, b: &ExprRef, signed: bool) -> ExprRef {
    let width = a.width + b.width;
    let (a, b) = (
        Expr::extend(a, width, signed),
        Expr::extend(b, width, signed),
    );
    if signed {
        Expr::new(width, Kind::SignedProduct(a, b))
    } else {
        Expr::arithmetic(Arithmetic::Mul, &a, &b)
    }
}

/// One bit at a signal's position.
fn select(value: &ExprRef, index: &ExprRef) -> ExprRef {
    let bits = (usize::BITS - (value.width - 1).leading_zeros()) as usize;
    let reachable = 1_usize.checked_shl(index.width as u32);
    if value.width > 1 && reachable.is_some_and(|reachable| reachable <= value.width) {
        return Expr::select(value, &Expr::extend(index, bits, false));
    }
    // An index beyond the value panics in simulation; here it gives zero and not X.
    Expr::slice(&Expr::shift(value, false, index), 0, 1)
}

fn integer_operation(
    op: &VerilogOp,
    a: &BigInt,
    b: &BigInt,
    expression: &VerilogExpression,
) -> Result<Constant, Fault> {
    let fault = |reason: &str| Fault::new(describe(expression), reason, "");
    let amount = || {
        usize::try_from(b)
            .ok()
            .filter(|amount| *amount < 128)
            .ok_or_else(|| fault("shifts too far"))
    };
    Ok(match op {
        VerilogOp::Add => Constant::Integer(a + b),
        VerilogOp::Sub => {
            let difference = a - b;
            if difference < BigInt::from(0) && *a >= BigInt::from(0) {
                return Err(fault("is negative, which Rust's usize can't be"));
            }
            Constant::Integer(difference)
        }
        VerilogOp::Mul => Constant::Integer(a * b),
        VerilogOp::BitAnd => Constant::Integer(a & b),
        VerilogOp::BitOr => Constant::Integer(a | b),
        VerilogOp::BitXor => Constant::Integer(a ^ b),
        VerilogOp::Shl => Constant::Integer(a << amount()?),
        VerilogOp::Shr => Constant::Integer(a >> amount()?),
        VerilogOp::Eq => Constant::Bool(a == b),
        VerilogOp::Ne => Constant::Bool(a != b),
        VerilogOp::Lt => Constant::Bool(a < b),
        VerilogOp::Le => Constant::Bool(a <= b),
        VerilogOp::Gt => Constant::Bool(a > b),
        VerilogOp::Ge => Constant::Bool(a >= b),
        VerilogOp::LogicalAnd | VerilogOp::LogicalOr => {
            return Err(fault("takes numbers for conditions"));
        }
    })
}

fn bool_operation(op: &VerilogOp, a: bool, b: bool) -> Option<Constant> {
    Some(Constant::Bool(match op {
        VerilogOp::BitAnd | VerilogOp::LogicalAnd => a & b,
        VerilogOp::BitOr | VerilogOp::LogicalOr => a | b,
        VerilogOp::BitXor | VerilogOp::Ne => a ^ b,
        VerilogOp::Eq => a == b,
        VerilogOp::Lt => !a & b,
        VerilogOp::Le => a <= b,
        VerilogOp::Gt => a & !b,
        VerilogOp::Ge => a >= b,
        _ => return None,
    }))
}

/// An expression as its source might have read, for messages.
fn describe(expression: &VerilogExpression) -> String {
    let list = |e: &VerilogExpression| describe(e);
    match expression {
        VerilogExpression::Signal(name) => source_name(name),
        VerilogExpression::Literal(literal) => literal_value(literal)
            .map_or_else(|| literal.to_string(), |(value, _)| value.to_string()),
        VerilogExpression::Cast(e, width) => format!("bits::<{width}>({})", list(e)),
        VerilogExpression::Signed(e) => format!("signed({})", list(e)),
        VerilogExpression::Unsigned(e) => format!("unsigned({})", list(e)),
        VerilogExpression::Paren(e) => format!("({})", list(e)),
        VerilogExpression::Binary(a, op, b) => {
            let op = match op {
                VerilogOp::Add => "+",
                VerilogOp::Sub => "-",
                VerilogOp::Mul => "*",
                VerilogOp::LogicalAnd => "&&",
                VerilogOp::LogicalOr => "||",
                VerilogOp::BitXor => "^",
                VerilogOp::BitAnd => "&",
                VerilogOp::BitOr => "|",
                VerilogOp::Shl => "<<",
                VerilogOp::Shr => ">>",
                VerilogOp::Eq => "==",
                VerilogOp::Lt => "<",
                VerilogOp::Le => "<=",
                VerilogOp::Ne => "!=",
                VerilogOp::Ge => ">=",
                VerilogOp::Gt => ">",
            };
            format!("{} {op} {}", list(a), list(b))
        }
        VerilogExpression::Unary(op, e) => match op {
            VerilogOpUnary::Not => format!("!{}", list(e)),
            VerilogOpUnary::Neg => format!("-{}", list(e)),
            VerilogOpUnary::All => format!("{}.all()", list(e)),
            VerilogOpUnary::Any => format!("{}.any()", list(e)),
            VerilogOpUnary::Xor => format!("{}.xor()", list(e)),
        },
        VerilogExpression::Index(e, index) => format!("{}.get_bit({})", list(e), list(index)),
        VerilogExpression::Slice(e, width, offset) => {
            format!("{}.get_bits::<{width}>({})", list(e), list(offset))
        }
        VerilogExpression::IndexReplace(e, index, bit) => {
            format!("{}.replace_bit({}, {})", list(e), list(index), list(bit))
        }
    }
}

/// Cast nodes in source order.
fn casts_of_block(block: &VerilogBlock, nodes: &mut Vec<*const VerilogExpression>) {
    block
        .iter()
        .for_each(|statement| casts_of_statement(statement, nodes));
}

fn casts_of_statement(statement: &VerilogStatement, nodes: &mut Vec<*const VerilogExpression>) {
    match statement {
        VerilogStatement::Assignment(_, value) => casts_of(value, nodes),
        VerilogStatement::SliceAssignment { replacement, .. } => casts_of(replacement, nodes),
        VerilogStatement::If(conditional) => {
            casts_of(&conditional.test, nodes);
            casts_of_block(&conditional.then, nodes);
            match &conditional.otherwise {
                VerilogBlockOrConditional::Block(block) => casts_of_block(block, nodes),
                VerilogBlockOrConditional::Conditional(statement) => {
                    casts_of_statement(statement, nodes)
                }
                VerilogBlockOrConditional::None => {}
            }
        }
        VerilogStatement::Match(selection) => {
            casts_of(&selection.test, nodes);
            selection
                .cases
                .iter()
                .for_each(|case| casts_of_block(&case.block, nodes));
        }
        VerilogStatement::Loop(repetition) => casts_of_block(&repetition.block, nodes),
        VerilogStatement::Macro(block) => casts_of_block(block, nodes),
        VerilogStatement::Comment(_) | VerilogStatement::Link(_) => {}
    }
}

fn casts_of(expression: &VerilogExpression, nodes: &mut Vec<*const VerilogExpression>) {
    match expression {
        VerilogExpression::Signal(_) | VerilogExpression::Literal(_) => {}
        VerilogExpression::Signed(operand) | VerilogExpression::Unsigned(operand) => {
            nodes.push(std::ptr::from_ref(expression));
            casts_of(operand, nodes);
        }
        VerilogExpression::Cast(operand, _)
        | VerilogExpression::Paren(operand)
        | VerilogExpression::Unary(_, operand) => casts_of(operand, nodes),
        VerilogExpression::Binary(a, _, b)
        | VerilogExpression::Index(a, b)
        | VerilogExpression::Slice(a, _, b) => {
            casts_of(a, nodes);
            casts_of(b, nodes);
        }
        VerilogExpression::IndexReplace(a, b, c) => {
            casts_of(a, nodes);
            casts_of(b, nodes);
            casts_of(c, nodes);
        }
    }
}
