//! The text of a module.
//!
//! One definition for each signal: `assign` where the source assigns it unconditionally, an `always @*` of its own
//! where it does so under conditions. Every operand has the width that its operator works in, so Verilog's rules of width
//! and sign have nothing to decide.

use super::error::{Fault, source_name};
use super::expr::{Arithmetic, Expr, ExprRef, Kind, NetId, Reduction, Relation};
use super::lower::{
    Child, Definition, Lowered, Role, Value, ValueRef, for_each_expression, reaches,
};
use super::names::Names;
use super::scope::Scope;
use num_bigint::BigUint;
use rust_hdl_core::prelude::AtomKind;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::rc::Rc;

/// What a module is called and how it introduces itself.
pub(super) struct Header<'a> {
    pub name: &'a str,
    pub doc: &'a str,
    pub parameters: &'a [(String, String)],
    pub keep_hierarchy: bool,
}

/// `[7:0] `, or nothing for one bit.
fn range(width: usize) -> String {
    if width == 1 {
        String::new()
    } else {
        format!("[{}:0] ", width - 1)
    }
}

/// A sized literal: decimal where that is readable.
fn literal(value: &BigUint, width: usize) -> String {
    if width <= 16 {
        format!("{width}'d{value}")
    } else {
        format!("{width}'h{value:x}")
    }
}

/// Plain ASCII, since some tools take no other: the section sign in words, what else is foreign as `?`.
fn ascii(line: &str) -> String {
    line.replace('§', "section ")
        .replace('×', "x")
        .replace('·', "*")
        .chars()
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect()
}

pub(super) fn header_text(header: &Header<'_>) -> String {
    let mut text = String::new();
    for line in header.doc.lines() {
        let _ = writeln!(text, "{}", format!("// {}", ascii(line)).trim_end());
    }
    if !header.parameters.is_empty() {
        if !text.is_empty() {
            text.push_str("//\n");
        }
        let list: Vec<String> = header
            .parameters
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let _ = writeln!(text, "// Parameters: {}", list.join(", "));
    }
    text
}

/// One port of the module: direction and kind, width, name.
pub(super) fn module_head(header: &Header<'_>, ports: &[(&str, usize, String)]) -> String {
    let mut text = header_text(header);
    if ports.is_empty() {
        let _ = writeln!(text, "module {};", header.name);
        return text;
    }
    let _ = writeln!(text, "module {} (", header.name);
    let widest = ports
        .iter()
        .map(|(_, width, _)| range(*width).len())
        .max()
        .unwrap_or(0);
    for (i, (kind, width, name)) in ports.iter().enumerate() {
        let comma = if i + 1 < ports.len() { "," } else { "" };
        let _ = writeln!(text, "  {kind} {:<widest$}{name}{comma}", range(*width));
    }
    let pragma = if header.keep_hierarchy {
        " /*verilator no_inline_module*/"
    } else {
        ""
    };
    let _ = writeln!(text, ");{pragma}");
    text
}

/// Replaces nets throughout a value; shared parts stay shared.
fn substitute(
    value: &ValueRef,
    replacement: &dyn Fn(NetId) -> Option<ExprRef>,
    done: &mut HashMap<*const Value, ValueRef>,
) -> ValueRef {
    if let Some(value) = done.get(&Rc::as_ptr(value)) {
        return Rc::clone(value);
    }
    let new = match value.as_ref() {
        Value::Undefined => Rc::clone(value),
        Value::Is(expr) => Rc::new(Value::Is(expr.substitute(replacement))),
        Value::If {
            before,
            test,
            then,
            otherwise,
        } => {
            let test = test.substitute(replacement);
            match test.as_constant() {
                Some(test) => substitute(
                    if test.bit(0) { then } else { otherwise },
                    replacement,
                    done,
                ),
                None => Rc::new(Value::If {
                    before: substitute(before, replacement, done),
                    test,
                    then: substitute(then, replacement, done),
                    otherwise: substitute(otherwise, replacement, done),
                }),
            }
        }
        Value::Case {
            before,
            test,
            arms,
            default,
        } => {
            let test = test.substitute(replacement);
            match test.as_constant() {
                Some(test) => {
                    let arm = arms
                        .iter()
                        .find(|(label, _)| label.as_constant() == Some(test));
                    substitute(arm.map_or(default, |(_, arm)| arm), replacement, done)
                }
                None => Rc::new(Value::Case {
                    before: substitute(before, replacement, done),
                    test,
                    arms: arms
                        .iter()
                        .map(|(label, value)| {
                            (Rc::clone(label), substitute(value, replacement, done))
                        })
                        .collect(),
                    default: substitute(default, replacement, done),
                }),
            }
        }
    };
    done.insert(Rc::as_ptr(value), Rc::clone(&new));
    new
}

fn nets_of(expr: &ExprRef, found: &mut Vec<NetId>) {
    if let Kind::Net(id) = expr.kind {
        found.push(id);
    }
    for operand in expr.operands() {
        nets_of(operand, found);
    }
}

fn dependencies(definition: &Definition) -> Vec<NetId> {
    let mut found = Vec::new();
    match definition {
        Definition::Value(value) => {
            for_each_expression(value, &mut |expr| nets_of(expr, &mut found))
        }
        Definition::Register { clock, reset, d } => {
            found.extend([*clock, *d]);
            found.extend(reset.as_ref().map(|(reset, _)| *reset));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A kernel ready to be written down.
#[derive(Debug)]
pub(super) struct Plan {
    lowered: Lowered,
    /// Inputs of blocks within that are plain signals: what they are.
    aliases: HashMap<NetId, ExprRef>,
    /// Nets that something visible depends on.
    live: HashSet<NetId>,
    /// `d` inputs that only their register reads: they are written into the register's own block.
    inlined: HashSet<NetId>,
    children: Vec<Child>,
}

/// Settles which nets exist, and refuses loops.
pub(super) fn plan(mut lowered: Lowered, children: &[Child], scope: &Scope) -> Result<Plan, Fault> {
    // The last version of a signal is the signal.
    let mut last_versions: HashMap<NetId, NetId> = HashMap::new();
    for (&id, definition) in &lowered.definitions {
        if let Definition::Value(value) = definition
            && let Value::Is(expr) = value.as_ref()
            && let Kind::Net(version) = expr.kind
            && lowered.nets[version].role == Role::Version(id)
        {
            last_versions.insert(version, id);
        }
    }
    for (version, id) in &last_versions {
        if let Some(definition) = lowered.definitions.remove(version) {
            lowered.definitions.insert(*id, definition);
        }
    }
    let widths: Vec<usize> = lowered.nets.iter().map(|net| net.width).collect();
    let to_last = |id: NetId| {
        last_versions
            .get(&id)
            .map(|last| Expr::net(*last, widths[*last]))
    };
    rewrite(&mut lowered.definitions, &to_last);

    refuse_loops(&lowered)?;

    // Constants that become known make further ones: an `always @*` must not be left with nothing to wait for.
    let mut aliases: HashMap<NetId, ExprRef> = HashMap::new();
    loop {
        let known = aliases.len();
        for id in 0..lowered.nets.len() {
            resolve_alias(&lowered, id, &mut aliases);
        }
        if aliases.len() == known {
            break;
        }
        rewrite(&mut lowered.definitions, &|id| aliases.get(&id).cloned());
    }

    // Ports of modules within are wired up whatever becomes of them.
    let mut queue: Vec<NetId> = Vec::new();
    for (id, net) in lowered.nets.iter().enumerate() {
        if net.role == Role::Output {
            queue.push(id);
        }
    }
    let by_name: HashMap<&str, NetId> = lowered
        .nets
        .iter()
        .enumerate()
        .map(|(id, net)| (net.name.as_str(), id))
        .collect();
    for (child, child_scope) in children.iter().zip(&scope.children) {
        if matches!(child, Child::Module(_)) {
            for port in child_scope.ports() {
                queue.extend(by_name.get(format!("{}${}", child_scope.name, port.name).as_str()));
            }
        }
    }
    let mut live = HashSet::new();
    while let Some(id) = queue.pop() {
        if !live.insert(id) {
            continue;
        }
        if let Some(alias) = aliases.get(&id) {
            nets_of(alias, &mut queue);
        } else if let Some(definition) = lowered.definitions.get(&id) {
            queue.extend(dependencies(definition));
        }
    }
    let mut readers: HashMap<NetId, usize> = HashMap::new();
    for id in &live {
        let mut read = Vec::new();
        match (aliases.get(id), lowered.definitions.get(id)) {
            (Some(alias), _) => nets_of(alias, &mut read),
            (None, Some(definition)) => read = dependencies(definition),
            (None, None) => {}
        }
        for net in read {
            *readers.entry(net).or_default() += 1;
        }
    }
    let inlined = live
        .iter()
        .filter_map(|id| match lowered.definitions.get(id) {
            Some(Definition::Register { clock, reset, d }) => {
                let also_control =
                    *d == *clock || reset.as_ref().is_some_and(|(reset, _)| reset == d);
                let defined = matches!(lowered.definitions.get(d), Some(Definition::Value(_)));
                let private = defined && !also_control && readers.get(d) == Some(&1);
                (private && !aliases.contains_key(d)).then_some(*d)
            }
            _ => None,
        })
        .collect();
    Ok(Plan {
        lowered,
        aliases,
        live,
        inlined,
        children: children.to_vec(),
    })
}

fn rewrite(
    definitions: &mut BTreeMap<NetId, Definition>,
    replacement: &dyn Fn(NetId) -> Option<ExprRef>,
) {
    for definition in definitions.values_mut() {
        if let Definition::Value(value) = definition {
            *value = substitute(value, replacement, &mut HashMap::new());
        }
    }
}

/// What stands in the place of a net: of an input of a block within, the plain signal it is connected to; of anything but
/// a port, the constant it always is.
fn resolve_alias(
    lowered: &Lowered,
    id: NetId,
    aliases: &mut HashMap<NetId, ExprRef>,
) -> Option<ExprRef> {
    if let Some(alias) = aliases.get(&id) {
        return Some(Rc::clone(alias));
    }
    let role = lowered.nets[id].role;
    if matches!(role, Role::Input | Role::Output) {
        return None;
    }
    let Definition::Value(value) = lowered.definitions.get(&id)? else {
        return None;
    };
    let Value::Is(expr) = value.as_ref() else {
        return None;
    };
    if !(expr.is_simple() && (role == Role::ChildInput || expr.as_constant().is_some())) {
        return None;
    }
    let mut nets = Vec::new();
    nets_of(expr, &mut nets);
    for net in nets {
        resolve_alias(lowered, net, aliases);
    }
    let resolved = expr.substitute(&|net| aliases.get(&net).cloned());
    aliases.insert(id, Rc::clone(&resolved));
    Some(resolved)
}

fn refuse_loops(lowered: &Lowered) -> Result<(), Fault> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let edges: HashMap<NetId, Vec<NetId>> = lowered
        .definitions
        .iter()
        .filter(|(_, definition)| matches!(definition, Definition::Value(_)))
        .map(|(id, definition)| (*id, dependencies(definition)))
        .collect();
    let mut marks = vec![Mark::New; lowered.nets.len()];
    for start in 0..lowered.nets.len() {
        // Depth first without recursion: (net, next edge to look at).
        let mut path: Vec<(NetId, usize)> = vec![(start, 0)];
        while let Some((id, next)) = path.last().copied() {
            marks[id] = if marks[id] == Mark::Done {
                Mark::Done
            } else {
                Mark::Open
            };
            let successor = edges.get(&id).and_then(|edges| edges.get(next)).copied();
            match successor {
                Some(_) if marks[id] == Mark::Done => {
                    path.pop();
                }
                Some(successor) => {
                    if let Some(last) = path.last_mut() {
                        last.1 += 1;
                    }
                    match marks[successor] {
                        Mark::Open => {
                            let from = path
                                .iter()
                                .position(|(id, _)| *id == successor)
                                .unwrap_or(0);
                            let cycle: Vec<String> = path[from..]
                                .iter()
                                .map(|(id, _)| source_name(&lowered.nets[*id].name))
                                .collect();
                            return Err(Fault::new(
                                &lowered.nets[successor].name,
                                format!("depends on itself: {}", cycle.join(" ← ")),
                                "a value of the last cycle is in a Register",
                            ));
                        }
                        Mark::New => path.push((successor, 0)),
                        Mark::Done => {}
                    }
                }
                None => {
                    marks[id] = Mark::Done;
                    path.pop();
                }
            }
        }
    }
    Ok(())
}

/// Bits of a declared signal that something reads.
struct Signal {
    width: usize,
    read: Vec<bool>,
}

struct Printer<'a> {
    plan: &'a Plan,
    names: Names,
    /// Identifiers of nets.
    identifiers: HashMap<NetId, String>,
    /// Every signal that tools expect to be read, in declaration order.
    signals: Vec<(String, Signal)>,
    signal_numbers: HashMap<String, usize>,
    declarations: String,
    parameters: BTreeMap<String, String>,
    parameter_names: HashMap<Rc<str>, String>,
    /// Wires for parts of expressions that Verilog can't slice, by their text.
    wires: HashMap<(String, usize), String>,
    body: String,
    /// Name of the signal being defined: what its parts are named after.
    target: String,
    /// `=`, or `<=` in a register.
    operator: &'static str,
    /// The register being defined.
    hold: Option<NetId>,
}

/// Prints a kernel's module. `module_names` are those of the children that are modules.
pub(super) fn print(
    scope: &Scope,
    plan: &Plan,
    header: &Header<'_>,
    module_names: &dyn Fn(usize) -> String,
) -> Result<String, Fault> {
    let mut printer = Printer {
        plan,
        names: Names::default(),
        identifiers: HashMap::new(),
        signals: Vec::new(),
        signal_numbers: HashMap::new(),
        declarations: String::new(),
        parameters: BTreeMap::new(),
        parameter_names: HashMap::new(),
        wires: HashMap::new(),
        body: String::new(),
        target: String::new(),
        operator: "=",
        hold: None,
    };
    printer.module(scope, header, module_names)
}

fn is_conditional(definition: Option<&Definition>) -> bool {
    matches!(definition, Some(Definition::Value(value)) if !matches!(value.as_ref(), Value::Is(_)))
}

impl Printer<'_> {
    fn module(
        &mut self,
        scope: &Scope,
        header: &Header<'_>,
        module_names: &dyn Fn(usize) -> String,
    ) -> Result<String, Fault> {
        let plan = self.plan;
        let nets = &plan.lowered.nets;
        let definitions = &plan.lowered.definitions;
        let mut ports = Vec::new();
        for (id, net) in nets.iter().enumerate() {
            let kind = match net.role {
                Role::Input => "input  wire",
                Role::Output if is_conditional(definitions.get(&id)) => "output reg ",
                Role::Output => "output wire",
                _ => continue,
            };
            let identifier = self.names.claim(&net.name)?;
            ports.push((kind, net.width, identifier.clone()));
            self.identifiers.insert(id, identifier.clone());
            if net.role == Role::Input {
                self.expect_reader(identifier, net.width);
            }
        }
        let instance_names: Vec<Option<String>> = plan
            .children
            .iter()
            .zip(&scope.children)
            .map(|(child, child_scope)| match child {
                Child::Module(_) => self.names.claim(&child_scope.name).map(Some),
                Child::Primitive(_) => Ok(None),
            })
            .collect::<Result<_, _>>()?;

        // Named nets of the source first, so that invented names give way.
        let declared: Vec<NetId> = (0..nets.len())
            .filter(|id| {
                plan.live.contains(id)
                    && !plan.aliases.contains_key(id)
                    && !plan.inlined.contains(id)
                    && !self.identifiers.contains_key(id)
            })
            .collect();
        for &id in declared
            .iter()
            .filter(|id| !matches!(nets[**id].role, Role::Version(_)))
        {
            let identifier = self.names.claim(&nets[id].name)?;
            self.identifiers.insert(id, identifier);
        }
        for &id in declared
            .iter()
            .filter(|id| matches!(nets[**id].role, Role::Version(_)))
        {
            let identifier = self.names.invent(&nets[id].name);
            self.identifiers.insert(id, identifier);
        }
        for &id in &declared {
            let definition = definitions.get(&id);
            let register = matches!(definition, Some(Definition::Register { .. }));
            let kind = if register || is_conditional(definition) {
                "reg "
            } else {
                "wire"
            };
            let identifier = self.identifier(id);
            let width = nets[id].width;
            let _ = writeln!(self.declarations, "  {kind} {}{identifier};", range(width));
            self.expect_reader(identifier, width);
        }

        let mut versions: HashMap<NetId, Vec<NetId>> = HashMap::new();
        for (id, net) in nets.iter().enumerate() {
            if let Role::Version(of) = net.role {
                versions.entry(of).or_default().push(id);
            }
        }
        let order = |role: Role| {
            let mut ids = Vec::new();
            for id in (0..nets.len()).filter(|id| nets[*id].role == role) {
                ids.extend(versions.get(&id).into_iter().flatten().copied());
                ids.push(id);
            }
            ids
        };
        for id in order(Role::Local) {
            self.define(id);
        }
        let by_name: HashMap<&str, NetId> = nets
            .iter()
            .enumerate()
            .map(|(id, net)| (net.name.as_str(), id))
            .collect();
        for ((child, child_scope), instance) in plan
            .children
            .iter()
            .zip(&scope.children)
            .zip(&instance_names)
        {
            let mut connections = Vec::new();
            for port in child_scope.ports() {
                let Some(&id) = by_name.get(format!("{}${}", child_scope.name, port.name).as_str())
                else {
                    continue;
                };
                if port.kind == AtomKind::InputParameter {
                    self.define(id);
                } else {
                    for &version in versions.get(&id).into_iter().flatten() {
                        self.define(version);
                    }
                    if matches!(child, Child::Primitive(_)) {
                        self.define(id);
                    }
                }
                connections.push((port, id));
            }
            if let (Child::Module(module), Some(instance)) = (child, instance) {
                let mut lines = Vec::new();
                for (port, id) in connections {
                    let text = if port.kind == AtomKind::InputParameter {
                        self.target.clone_from(instance);
                        self.text(&Expr::net(id, nets[id].width))
                    } else {
                        self.identifier(id)
                    };
                    lines.push(format!("    .{}({text})", port.name.replace('$', "_")));
                }
                let _ = writeln!(
                    self.body,
                    "\n  {} {instance} (\n{}\n  );\n",
                    module_names(*module),
                    lines.join(",\n")
                );
            }
        }
        for id in order(Role::Output) {
            self.define(id);
        }

        let mut text = module_head(header, &ports);
        let sections = [
            self.parameters
                .values()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
            std::mem::take(&mut self.declarations),
            blank_lines_merged(&std::mem::take(&mut self.body)),
            self.unused(),
        ];
        for section in sections.iter().filter(|section| !section.is_empty()) {
            text.push('\n');
            text.push_str(section);
        }
        text.push_str("\nendmodule\n");
        Ok(text)
    }

    fn identifier(&self, id: NetId) -> String {
        self.identifiers.get(&id).cloned().unwrap_or_default()
    }

    fn expect_reader(&mut self, identifier: String, width: usize) {
        self.signal_numbers
            .insert(identifier.clone(), self.signals.len());
        self.signals.push((
            identifier,
            Signal {
                width,
                read: vec![false; width],
            },
        ));
    }

    fn note_read(&mut self, identifier: &str, low: usize, width: usize) {
        if let Some(&number) = self.signal_numbers.get(identifier) {
            self.signals[number].1.read[low..low + width].fill(true);
        }
    }

    /// A wire that reads the bits nothing else reads, which says to tools that they are known.
    fn unused(&mut self) -> String {
        let mut parts = Vec::new();
        for (identifier, signal) in &self.signals {
            let mut high = signal.width;
            while high > 0 {
                let Some(top) = signal.read[..high].iter().rposition(|read| !read) else {
                    break;
                };
                let bottom = signal.read[..top]
                    .iter()
                    .rposition(|read| *read)
                    .map_or(0, |read| read + 1);
                parts.push(bits_text(
                    identifier,
                    signal.width,
                    bottom,
                    top + 1 - bottom,
                ));
                high = bottom;
            }
        }
        if parts.is_empty() {
            return String::new();
        }
        let name = self.names.invent("unused");
        let mut lines = vec![String::new()];
        for part in ["1'b0".to_owned()].iter().chain(&parts) {
            let last = lines.len() - 1;
            let separator = if lines[last].is_empty() { "" } else { ", " };
            if lines[last].len() + part.len() > 96 {
                lines[last].push(',');
                lines.push(part.clone());
            } else {
                lines[last].push_str(&format!("{separator}{part}"));
            }
        }
        format!(
            "  // Bits that nothing reads.\n  wire {name} = &{{{}}};\n",
            lines.join("\n    ")
        )
    }

    /// Prints a net's definition.
    fn define(&mut self, id: NetId) {
        let plan = self.plan;
        if !plan.live.contains(&id) || plan.aliases.contains_key(&id) || plan.inlined.contains(&id)
        {
            return;
        }
        let identifier = self.identifier(id);
        self.target.clone_from(&identifier);
        match plan.lowered.definitions.get(&id) {
            None => {}
            Some(Definition::Value(value)) => {
                if let Value::Is(expr) = value.as_ref() {
                    let text = self.text(expr);
                    let _ = writeln!(self.body, "  assign {identifier} = {text};");
                } else {
                    let mut lines = Vec::new();
                    self.assignments(&identifier, value, None, 2, &mut lines);
                    let _ = writeln!(
                        self.body,
                        "\n  always @* begin\n{}\n  end\n",
                        lines.join("\n")
                    );
                }
            }
            Some(Definition::Register { clock, reset, d }) => {
                self.register(&identifier, id, (*clock, reset.as_ref(), *d));
            }
        }
    }

    /// A register: `q` follows `d` at the clock's edge. What `d` is stands in the same block, and that `q` keeps its
    /// value need not be said.
    fn register(
        &mut self,
        identifier: &str,
        q: NetId,
        (clock, reset, d): (NetId, Option<&(NetId, BigUint)>, NetId),
    ) {
        let plan = self.plan;
        let net = |id: NetId| Expr::net(id, plan.lowered.nets[id].width);
        let clock = self.text(&net(clock));
        let reset = reset.map(|(reset, init)| {
            let init = literal(init, plan.lowered.nets[q].width);
            (self.text(&net(*reset)), init)
        });
        let value = match plan.lowered.definitions.get(&d) {
            Some(Definition::Value(value)) if plan.inlined.contains(&d) => Rc::clone(value),
            _ => Rc::new(Value::Is(net(d))),
        };
        self.operator = "<=";
        self.hold = Some(q);
        let mut lines = Vec::new();
        match (&reset, value.as_ref()) {
            (Some((reset, init)), Value::If { before, .. })
                if !needs_before(&value) || self.is_held(before) =>
            {
                lines.push(format!("    if ({reset}) {identifier} <= {init};"));
                self.conditional(identifier, &value, 2, "    else ", &mut lines);
            }
            (Some((reset, init)), Value::Is(_)) => {
                let mut next = Vec::new();
                self.assignments(identifier, &value, None, 2, &mut next);
                lines.push(format!("    if ({reset}) {identifier} <= {init};"));
                lines.extend(
                    next.iter()
                        .map(|next| format!("    else {}", next.trim_start())),
                );
            }
            (Some((reset, init)), _) => {
                lines.push(format!("    if ({reset}) {identifier} <= {init};"));
                lines.push("    else begin".to_owned());
                self.assignments(identifier, &value, None, 3, &mut lines);
                lines.push("    end".to_owned());
            }
            (None, _) => self.assignments(identifier, &value, None, 2, &mut lines),
        }
        if lines.is_empty() {
            lines.push(format!("    {identifier} <= {identifier};"));
        }
        self.operator = "=";
        self.hold = None;
        let _ = writeln!(
            self.body,
            "\n  always @(posedge {clock}) begin\n{}\n  end\n",
            lines.join("\n")
        );
    }

    /// Whether a value is the register's present one.
    fn is_held(&self, value: &ValueRef) -> bool {
        matches!(value.as_ref(), Value::Is(expr) if matches!(expr.kind, Kind::Net(id) if Some(id) == self.hold))
    }

    /// Statements that give `target` the value; nothing where it holds `base` already.
    fn assignments(
        &mut self,
        target: &str,
        value: &ValueRef,
        base: Option<&ValueRef>,
        indent: usize,
        lines: &mut Vec<String>,
    ) {
        if base.is_some_and(|base| Rc::ptr_eq(base, value)) {
            return;
        }
        let pad = "  ".repeat(indent);
        match value.as_ref() {
            Value::Undefined => {}
            // Nothing was assigned before on this path: the register keeps its value by itself.
            Value::Is(_) if base.is_none() && self.is_held(value) => {}
            Value::Is(expr) => {
                let text = self.text(expr);
                lines.push(format!("{pad}{target} {} {text};", self.operator));
            }
            Value::If { before, .. } => {
                if needs_before(value) {
                    self.assignments(target, before, base, indent, lines);
                }
                self.conditional(target, value, indent, &pad, lines);
            }
            Value::Case {
                before,
                test,
                arms,
                default,
            } => {
                if needs_before(value) {
                    self.assignments(target, before, base, indent, lines);
                }
                let test = self.text(test);
                lines.push(format!("{pad}case ({test})"));
                let default_holds = Rc::ptr_eq(default, before);
                for (label, arm) in arms {
                    if Rc::ptr_eq(arm, before) && default_holds {
                        continue;
                    }
                    let label = self.text(label);
                    self.body_of(
                        target,
                        arm,
                        before,
                        indent + 1,
                        &format!("{pad}  {label}:"),
                        lines,
                    );
                }
                self.body_of(
                    target,
                    default,
                    before,
                    indent + 1,
                    &format!("{pad}  default:"),
                    lines,
                );
                lines.push(format!("{pad}endcase"));
            }
        }
    }

    fn conditional(
        &mut self,
        target: &str,
        value: &ValueRef,
        indent: usize,
        lead: &str,
        lines: &mut Vec<String>,
    ) {
        let Value::If {
            before,
            test,
            then,
            otherwise,
        } = value.as_ref()
        else {
            return;
        };
        let pad = "  ".repeat(indent);
        let (test, then, otherwise) = if Rc::ptr_eq(then, before) {
            (Expr::not(test), otherwise, then)
        } else {
            (Rc::clone(test), then, otherwise)
        };
        let test = self.text(&test);
        self.body_of(
            target,
            then,
            before,
            indent,
            &format!("{lead}if ({test})"),
            lines,
        );
        if Rc::ptr_eq(otherwise, before) {
            return;
        }
        // `else if` where the second conditional starts from the same value.
        if let Value::If { before: inner, .. } = otherwise.as_ref()
            && (Rc::ptr_eq(inner, before) || !needs_before(otherwise))
        {
            self.conditional(target, otherwise, indent, &format!("{pad}else "), lines);
        } else {
            self.body_of(
                target,
                otherwise,
                before,
                indent,
                &format!("{pad}else"),
                lines,
            );
        }
    }

    /// A head with its statements: on one line if there is one assignment, else between `begin` and `end`.
    fn body_of(
        &mut self,
        target: &str,
        value: &ValueRef,
        base: &ValueRef,
        indent: usize,
        head: &str,
        lines: &mut Vec<String>,
    ) {
        let mut body = Vec::new();
        self.assignments(target, value, Some(base), indent + 1, &mut body);
        match (value.as_ref(), body.as_slice()) {
            (_, []) => lines.push(format!("{head} ;")),
            (Value::Is(_), [only]) => lines.push(format!("{head} {}", only.trim_start())),
            _ => {
                lines.push(format!("{head} begin"));
                lines.extend(body);
                lines.push(format!("{}end", "  ".repeat(indent)));
            }
        }
    }

    // ---- expressions -------------------------------------------------------------------------------------------------

    /// Text of an expression, without parentheses around it.
    fn text(&mut self, expr: &ExprRef) -> String {
        let plan = self.plan;
        match &expr.kind {
            Kind::Undefined => "'bx".to_owned(),
            Kind::Const(value, None) => literal(value, expr.width),
            Kind::Const(value, Some(name)) => self.parameter(name, value, expr.width),
            Kind::Net(id) => {
                if let Some(alias) = plan.aliases.get(id) {
                    return self.text(alias);
                }
                let identifier = self.identifier(*id);
                self.note_read(&identifier, 0, expr.width);
                identifier
            }
            Kind::Slice { of, low } => {
                let (identifier, width) = self.named(of);
                self.note_read(&identifier, *low, expr.width);
                bits_text(&identifier, width, *low, expr.width)
            }
            Kind::Concat(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.text(part)).collect();
                format!("{{{}}}", parts.join(", "))
            }
            Kind::Extend { of, signed: false } => {
                let text = self.text(of);
                let inner = text
                    .strip_prefix('{')
                    .and_then(|text| text.strip_suffix('}'));
                let zeros = literal(&BigUint::default(), expr.width - of.width);
                match (&of.kind, inner) {
                    (Kind::Concat(_), Some(inner)) => format!("{{{zeros}, {inner}}}"),
                    _ => format!("{{{zeros}, {text}}}"),
                }
            }
            Kind::Extend { of, signed: true } => {
                let count = expr.width - of.width;
                if of.width == 1 {
                    let text = self.text(of);
                    return format!("{{{}{{{text}}}}}", expr.width);
                }
                let of = if of.is_simple() {
                    Rc::clone(of)
                } else {
                    self.wire(of)
                };
                let sign = self.text(&Expr::slice(&of, of.width - 1, 1));
                let text = self.text(&of);
                format!("{{{{{count}{{{sign}}}}}, {text}}}")
            }
            Kind::Arithmetic(op, a, b) => {
                let symbol = match op {
                    Arithmetic::Add => "+",
                    Arithmetic::Sub => "-",
                    Arithmetic::Mul => "*",
                    Arithmetic::And => "&",
                    Arithmetic::Or => "|",
                    Arithmetic::Xor => "^",
                };
                let a = self.operand_of(a, Some(*op));
                let b = self.operand_of(b, None);
                format!("{a} {symbol} {b}")
            }
            Kind::SignedProduct(a, b) => {
                let (a, b) = (self.text(a), self.text(b));
                format!("$signed({a}) * $signed({b})")
            }
            Kind::Not(a) => {
                let symbol = if expr.width == 1 { "!" } else { "~" };
                format!("{symbol}{}", self.operand(a))
            }
            Kind::Negate(a) => format!("-{}", self.operand(a)),
            Kind::Compare {
                relation,
                signed,
                left,
                right,
            } => {
                let symbol = match relation {
                    Relation::Eq => "==",
                    Relation::Ne => "!=",
                    Relation::Lt => "<",
                    Relation::Le => "<=",
                    Relation::Gt => ">",
                    Relation::Ge => ">=",
                };
                if *signed {
                    let (left, right) = (self.text(left), self.text(right));
                    format!("$signed({left}) {symbol} $signed({right})")
                } else {
                    format!("{} {symbol} {}", self.operand(left), self.operand(right))
                }
            }
            Kind::Reduce(reduction, a) => {
                let symbol = match reduction {
                    Reduction::All => "&",
                    Reduction::Any => "|",
                    Reduction::Parity => "^",
                };
                format!("{symbol}{}", self.operand(a))
            }
            Kind::Shift { left, of, amount } => {
                let symbol = if *left { "<<" } else { ">>" };
                format!("{} {symbol} {}", self.operand(of), self.operand(amount))
            }
            Kind::Select { of, index } => {
                let (identifier, width) = self.named(of);
                self.note_read(&identifier, 0, width);
                let index = self.text(index);
                format!("{identifier}[{index}]")
            }
        }
    }

    /// Text as an operand: in parentheses unless it is one word or a concatenation.
    fn operand(&mut self, expr: &ExprRef) -> String {
        self.operand_of(expr, None)
    }

    /// As [`Self::operand`], but chains of one associative operator stay flat on their left.
    fn operand_of(&mut self, expr: &ExprRef, parent: Option<Arithmetic>) -> String {
        let text = self.text(expr);
        let bare = match &expr.kind {
            Kind::Const(..)
            | Kind::Net(_)
            | Kind::Slice { .. }
            | Kind::Concat(_)
            | Kind::Extend { .. }
            | Kind::Select { .. }
            | Kind::Undefined => true,
            Kind::Arithmetic(op, ..) => Some(*op) == parent && *op != Arithmetic::Sub,
            Kind::Not(_) => parent.is_some(),
            _ => false,
        };
        if bare { text } else { format!("({text})") }
    }

    /// The identifier and width of an expression; a wire is made for it if it has none.
    fn named(&mut self, expr: &ExprRef) -> (String, usize) {
        let plan = self.plan;
        if let Kind::Net(id) = expr.kind {
            match plan.aliases.get(&id) {
                Some(alias) if matches!(alias.kind, Kind::Net(_)) => return self.named(alias),
                Some(_) => {}
                None => return (self.identifier(id), expr.width),
            }
        }
        let text = self.text(expr);
        if let Some(identifier) = self.wires.get(&(text.clone(), expr.width)) {
            return (identifier.clone(), expr.width);
        }
        let suffix = match &expr.kind {
            Kind::Arithmetic(Arithmetic::Add, ..) => "sum",
            Kind::Arithmetic(Arithmetic::Sub, ..) => "difference",
            Kind::Arithmetic(Arithmetic::Mul, ..) | Kind::SignedProduct(..) => "product",
            Kind::Shift { .. } => "shifted",
            Kind::Negate(_) => "negated",
            _ => "value",
        };
        let identifier = self.names.invent(&format!("{}_{suffix}", self.target));
        let _ = writeln!(
            self.declarations,
            "  wire {}{identifier};",
            range(expr.width)
        );
        let _ = writeln!(self.body, "  assign {identifier} = {text};");
        self.expect_reader(identifier.clone(), expr.width);
        self.wires.insert((text, expr.width), identifier.clone());
        (identifier, expr.width)
    }

    /// An expression that stands for a wire made for `expr`: sliced in full, it is the wire's name.
    fn wire(&mut self, expr: &ExprRef) -> ExprRef {
        let (identifier, width) = self.named(expr);
        // A wire without a net: give it a number above all nets.
        let id = self.plan.lowered.nets.len() + self.wires.len() + self.identifiers.len();
        self.identifiers.insert(id, identifier);
        Expr::net(id, width)
    }

    fn parameter(&mut self, name: &Rc<str>, value: &BigUint, width: usize) -> String {
        // One constant may stand in several widths; each has a name.
        let key: Rc<str> = format!("{name}'{width}").into();
        if let Some(identifier) = self.parameter_names.get(&key) {
            return identifier.clone();
        }
        let mut words = String::new();
        let mut previous = '_';
        for c in name
            .trim_start_matches("Self$")
            .trim_start_matches('_')
            .chars()
        {
            if c.is_uppercase() && previous.is_lowercase() {
                words.push('_');
            }
            words.push(if c == '$' {
                '_'
            } else {
                c.to_ascii_uppercase()
            });
            previous = c;
        }
        let identifier = self.names.invent(&words);
        let line = format!(
            "  localparam {}{identifier} = {};",
            range(width),
            literal(value, width)
        );
        self.parameters.insert(identifier.clone(), line);
        self.parameter_names.insert(key, identifier.clone());
        identifier
    }
}

/// Whether the branches of a conditional lead back to what was held before it.
fn needs_before(value: &ValueRef) -> bool {
    match value.as_ref() {
        Value::If { before, .. } | Value::Case { before, .. } => value
            .branches()
            .into_iter()
            .any(|branch| reaches(branch, &|value| Rc::ptr_eq(value, before))),
        _ => false,
    }
}

/// At most one blank line in a row, none at either end.
fn blank_lines_merged(text: &str) -> String {
    let mut merged = String::new();
    for line in text.lines() {
        if !line.is_empty() || !(merged.is_empty() || merged.ends_with("\n\n")) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged.truncate(merged.trim_end().len());
    if !merged.is_empty() {
        merged.push('\n');
    }
    merged
}

fn bits_text(identifier: &str, total: usize, low: usize, width: usize) -> String {
    if width == total {
        identifier.to_owned()
    } else if width == 1 {
        format!("{identifier}[{low}]")
    } else {
        format!("{identifier}[{}:{low}]", low + width - 1)
    }
}
