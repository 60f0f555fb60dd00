//! A netlist of library cells, as yosys writes it in JSON.
//!
//! Names agree with those of a Verilog netlist only if the Verilog was written first and the JSON from what was read back: yosys
//! names what has no name anew each time it writes Verilog.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Deserialize;

use crate::liberty::{Cell, Direction, Kind, Library};

/// A gate of the clock: a cell with this name needs no entry in the library. Its pins are the clock `C`, the enable `E` and the gated clock
/// `G`. The flip-flops behind it take their next state only in a cycle that began with the enable at 1.
pub const CLOCK_GATE: &str = "fgmp_clock_gate";

/// Stands for a pin that nothing is connected to.
pub const OPEN: u32 = u32::MAX;
/// The net that is always 0.
pub const ZERO: u32 = 0;
/// The net that is always 1.
pub const ONE: u32 = 1;

/// Why a netlist can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NetlistError {
    /// The text is no netlist in yosys's JSON.
    #[error("the netlist is not yosys's JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no such module.
    #[error("the netlist has no module `{0}`")]
    Module(String),
    /// A cell is not in the library.
    #[error("cell `{instance}` is a `{cell}`, which library `{library}` doesn't have")]
    Cell {
        /// The instance.
        instance: String,
        /// What it is of.
        cell: String,
        /// The library.
        library: String,
    },
    /// A cell that can't be simulated.
    #[error("cell `{instance}`: `{cell}` {reason}, which can't be simulated")]
    Unsupported {
        /// The instance.
        instance: String,
        /// What it is of.
        cell: String,
        /// Why.
        reason: String,
    },
    /// Connections that make no circuit.
    #[error("{what} `{name}`: {message}")]
    Connection {
        /// Net, cell or port.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

fn connection(what: &'static str, name: &str, message: impl Into<String>) -> NetlistError {
    NetlistError::Connection {
        what,
        name: name.to_owned(),
        message: message.into(),
    }
}

#[derive(Deserialize)]
struct File {
    modules: BTreeMap<String, FileModule>,
}

#[derive(Deserialize)]
struct FileModule {
    ports: serde_json::Map<String, serde_json::Value>,
    cells: BTreeMap<String, FileCell>,
    netnames: BTreeMap<String, FileNet>,
}

#[derive(Deserialize)]
struct FilePort {
    direction: String,
    bits: Vec<FileBit>,
}

#[derive(Deserialize)]
struct FileCell {
    #[serde(rename = "type")]
    kind: String,
    connections: BTreeMap<String, Vec<FileBit>>,
}

#[derive(Deserialize)]
struct FileNet {
    bits: Vec<FileBit>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
enum FileBit {
    Net(u64),
    Constant(String),
}

/// A port of the top module, its lowest bit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its nets.
    pub bits: Vec<u32>,
}

/// An instance of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name with those of the instances that it was flattened out of: `a.b.c`.
    pub name: String,
    /// Which cell, by place in [`Netlist::cells`].
    pub cell: u32,
    /// The net of each of the cell's pins; [`OPEN`] where nothing is connected.
    pub pins: Vec<u32>,
    /// What it is counted to, by place in [`Netlist::groups`].
    pub group: u32,
    /// A flip-flop's gate, by place in [`Netlist::clock_gates`].
    pub gate: Option<u32>,
}

/// A flat netlist.
#[derive(Clone, Debug)]
pub struct Netlist {
    /// The top module's name.
    pub top: String,
    /// The library's name.
    pub library: String,
    /// Supply in V.
    pub voltage: f64,
    /// The cells that occur.
    pub cells: Vec<Cell>,
    /// All instances, flip-flops and combinational ones.
    pub instances: Vec<Instance>,
    /// A name for each net.
    pub nets: Vec<String>,
    /// Inputs in the order of declaration, the clock among them.
    pub inputs: Vec<Port>,
    /// Outputs in the order of declaration.
    pub outputs: Vec<Port>,
    /// Names of what instances are counted to.
    pub groups: Vec<String>,
    /// Combinational instances, each behind those that drive it.
    pub order: Vec<u32>,
    /// Flip-flops.
    pub flip_flops: Vec<u32>,
    /// Nets that enable a gated clock, each with one gate; see [`CLOCK_GATE`].
    pub clock_gates: Vec<u32>,
    /// The net that clocks all flip-flops; none without flip-flops.
    pub clock: Option<u32>,
}

impl Netlist {
    /// Reads the module `top` of yosys's JSON, flat and mapped to `library`.
    ///
    /// # Errors
    /// [`NetlistError`]: the text, a cell, or a connection has no meaning here.
    pub fn parse(json: &str, top: &str, library: &Library) -> Result<Self, NetlistError> {
        let mut file: File = serde_json::from_str(json)?;
        let module = file
            .modules
            .remove(top)
            .ok_or_else(|| NetlistError::Module(top.to_owned()))?;
        Builder::new(top, library).module(module)
    }

    /// The cell of an instance.
    #[must_use]
    pub fn cell(&self, instance: &Instance) -> &Cell {
        &self.cells[instance.cell as usize]
    }

    /// All input bits but the clock, in the order in which a simulation takes them.
    #[must_use]
    pub fn input_bits(&self) -> Vec<u32> {
        self.inputs
            .iter()
            .flat_map(|port| port.bits.iter().copied())
            .filter(|&net| Some(net) != self.clock)
            .collect()
    }

    /// Where an input port's bits begin in [`Netlist::input_bits`], and how many they are.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<(usize, usize)> {
        let mut at = 0;
        for port in &self.inputs {
            let width = port
                .bits
                .iter()
                .filter(|&&net| Some(net) != self.clock)
                .count();
            if port.name == name {
                return Some((at, width));
            }
            at += width;
        }
        None
    }

    /// An output port.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }

    /// Instances by cell.
    #[must_use]
    pub fn cells_by_kind(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for instance in &self.instances {
            *counts.entry(self.cell(instance).name.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// Area of all instances, in the library's unit.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.instances.iter().map(|i| self.cell(i).area).sum()
    }

    /// Area by group.
    #[must_use]
    pub fn area_by_group(&self) -> BTreeMap<String, f64> {
        let mut areas = BTreeMap::new();
        for instance in &self.instances {
            *areas
                .entry(self.groups[instance.group as usize].clone())
                .or_insert(0.0) += self.cell(instance).area;
        }
        areas
    }
}

struct Builder<'a> {
    library: &'a Library,
    netlist: Netlist,
    nets: HashMap<u64, u32>,
    kinds: HashMap<String, u32>,
    /// Gated clocks: what they are made of, and by which gate.
    gated: HashMap<u32, (u32, u32)>,
}

impl<'a> Builder<'a> {
    fn new(top: &str, library: &'a Library) -> Self {
        Self {
            library,
            netlist: Netlist {
                top: top.to_owned(),
                library: library.name.clone(),
                voltage: library.voltage,
                cells: Vec::new(),
                instances: Vec::new(),
                nets: vec!["0".to_owned(), "1".to_owned()],
                inputs: Vec::new(),
                outputs: Vec::new(),
                groups: Vec::new(),
                order: Vec::new(),
                flip_flops: Vec::new(),
                clock_gates: Vec::new(),
                clock: None,
            },
            nets: HashMap::new(),
            kinds: HashMap::new(),
            gated: HashMap::new(),
        }
    }

    fn net(&mut self, bit: &FileBit, of: &str) -> Result<u32, NetlistError> {
        match bit {
            FileBit::Net(id) => {
                let fresh = self.netlist.nets.len() as u32;
                let net = *self.nets.entry(*id).or_insert(fresh);
                if net == fresh {
                    self.netlist.nets.push(format!("net {id}"));
                }
                Ok(net)
            }
            FileBit::Constant(value) => match value.as_str() {
                "0" => Ok(ZERO),
                "1" => Ok(ONE),
                // Undefined on purpose: the mapper was free to choose, so either value is right.
                "x" => Ok(ZERO),
                other => Err(connection(
                    "cell or port",
                    of,
                    format!("is connected to `{other}`"),
                )),
            },
        }
    }

    fn module(mut self, module: FileModule) -> Result<Netlist, NetlistError> {
        for (name, value) in module.ports {
            let port: FilePort = serde_json::from_value(value)?;
            let bits = port
                .bits
                .iter()
                .map(|bit| self.net(bit, &name))
                .collect::<Result<_, _>>()?;
            let ports = match port.direction.as_str() {
                "input" => &mut self.netlist.inputs,
                "output" => &mut self.netlist.outputs,
                other => return Err(connection("port", &name, format!("is `{other}`"))),
            };
            ports.push(Port { name, bits });
        }
        for (name, cell) in &module.cells {
            if cell.kind == CLOCK_GATE {
                self.clock_gate(name, cell)?;
            } else {
                self.instance(name, cell)?;
            }
        }
        for (name, net) in &module.netnames {
            for (index, bit) in net.bits.iter().enumerate() {
                if let FileBit::Net(id) = bit
                    && let Some(&at) = self.nets.get(id)
                {
                    let full = if net.bits.len() > 1 {
                        format!("{name}[{index}]")
                    } else {
                        name.clone()
                    };
                    // The best name tells where in the hierarchy a net is; numbers tell nothing.
                    let place = &mut self.netlist.nets[at as usize];
                    if rank(&full) < rank(place) {
                        *place = full;
                    }
                }
            }
        }
        self.connect()?;
        self.group();
        Ok(self.netlist)
    }

    fn instance(&mut self, name: &str, file: &FileCell) -> Result<(), NetlistError> {
        let cell = self
            .library
            .cell(&file.kind)
            .ok_or_else(|| NetlistError::Cell {
                instance: name.to_owned(),
                cell: file.kind.clone(),
                library: self.library.name.clone(),
            })?;
        if let Kind::Unsupported(reason) = &cell.kind {
            return Err(NetlistError::Unsupported {
                instance: name.to_owned(),
                cell: cell.name.clone(),
                reason: reason.clone(),
            });
        }
        let mut pins = vec![OPEN; cell.pins.len()];
        for (pin, bits) in &file.connections {
            let place = cell.pin(pin).ok_or_else(|| {
                connection("cell", name, format!("`{}` has no pin `{pin}`", cell.name))
            })?;
            match bits.as_slice() {
                [] => (),
                [bit] => pins[place] = self.net(bit, name)?,
                _ => {
                    return Err(connection(
                        "cell",
                        name,
                        format!("pin `{pin}` has {} bits", bits.len()),
                    ));
                }
            }
        }
        for (pin, net) in cell.pins.iter().zip(&pins) {
            if pin.direction == Direction::Input && *net == OPEN {
                return Err(connection(
                    "cell",
                    name,
                    format!("input `{}` is open", pin.name),
                ));
            }
        }
        let fresh = self.netlist.cells.len() as u32;
        let kind = *self.kinds.entry(cell.name.clone()).or_insert(fresh);
        if kind == fresh {
            self.netlist.cells.push(cell.clone());
        }
        self.netlist.instances.push(Instance {
            name: name.to_owned(),
            cell: kind,
            pins,
            group: 0,
            gate: None,
        });
        Ok(())
    }

    /// Gates with the same enable are one.
    fn clock_gate(&mut self, name: &str, file: &FileCell) -> Result<(), NetlistError> {
        let mut pin = |pin: &str| match file.connections.get(pin).map(Vec::as_slice) {
            Some([bit]) => self.net(bit, name),
            _ => Err(connection(
                "cell",
                name,
                format!("pin `{pin}` is no single bit"),
            )),
        };
        let (clock, enable, gated) = (pin("C")?, pin("E")?, pin("G")?);
        let gates = &mut self.netlist.clock_gates;
        let gate = gates
            .iter()
            .position(|&net| net == enable)
            .unwrap_or_else(|| {
                gates.push(enable);
                gates.len() - 1
            });
        self.gated.insert(gated, (clock, gate as u32));
        Ok(())
    }

    /// Checks that every net that is read has one driver, and orders the combinational cells.
    fn connect(&mut self) -> Result<(), NetlistError> {
        const UNDRIVEN: u32 = u32::MAX;
        const OUTSIDE: u32 = u32::MAX - 1;
        let netlist = &mut self.netlist;
        // A gated flip-flop is one on the clock itself, with an enable.
        for instance in &mut netlist.instances {
            let cell = &netlist.cells[instance.cell as usize];
            if let Kind::FlipFlop(ff) = &cell.kind {
                let pin = &mut instance.pins[usize::from(ff.clock)];
                if let Some(&(clock, gate)) = self.gated.get(pin) {
                    *pin = clock;
                    instance.gate = Some(gate);
                }
            }
        }
        let mut driver = vec![UNDRIVEN; netlist.nets.len()];
        driver[ZERO as usize] = OUTSIDE;
        driver[ONE as usize] = OUTSIDE;
        for port in &netlist.inputs {
            for &bit in &port.bits {
                if driver[bit as usize] != UNDRIVEN {
                    return Err(connection("port", &port.name, "has a net of another port"));
                }
                driver[bit as usize] = OUTSIDE;
            }
        }
        let mut clock = None;
        for (at, instance) in (0u32..).zip(&netlist.instances) {
            let cell = &netlist.cells[instance.cell as usize];
            for (pin, &net) in cell.pins.iter().zip(&instance.pins) {
                if pin.direction == Direction::Output && net != OPEN {
                    if driver[net as usize] != UNDRIVEN {
                        let name = &netlist.nets[net as usize];
                        return Err(connection("net", name, "has two drivers"));
                    }
                    driver[net as usize] = at;
                }
            }
            if let Kind::FlipFlop(ff) = &cell.kind {
                netlist.flip_flops.push(at);
                let net = instance.pins[usize::from(ff.clock)];
                if driver[net as usize] != OUTSIDE || net <= ONE {
                    return Err(connection(
                        "cell",
                        &instance.name,
                        "its clock is no input of the module: gated and divided clocks can't be simulated",
                    ));
                }
                if clock.is_some_and(|clock| clock != net) {
                    return Err(connection("cell", &instance.name, "has another clock"));
                }
                clock = Some(net);
            }
        }
        netlist.clock = clock;
        // Kahn's algorithm over combinational cells.
        let mut waits = vec![0u32; netlist.instances.len()];
        let mut readers: Vec<Vec<u32>> = vec![Vec::new(); netlist.nets.len()];
        for (at, instance) in (0u32..).zip(&netlist.instances) {
            let cell = &netlist.cells[instance.cell as usize];
            for (pin, &net) in cell.pins.iter().zip(&instance.pins) {
                if pin.direction != Direction::Input {
                    continue;
                }
                let by = driver[net as usize];
                if by == UNDRIVEN {
                    let name = &netlist.nets[net as usize];
                    return Err(connection("net", name, "is read, but nothing drives it"));
                }
                if cell.kind != Kind::Combinational {
                    continue;
                }
                let combinational = by != OUTSIDE && {
                    let driving = &netlist.instances[by as usize];
                    netlist.cells[driving.cell as usize].kind == Kind::Combinational
                };
                if combinational {
                    waits[at as usize] += 1;
                    readers[net as usize].push(at);
                }
            }
        }
        if let Some(&net) = netlist
            .clock_gates
            .iter()
            .find(|&&net| driver[net as usize] == UNDRIVEN)
        {
            let name = &netlist.nets[net as usize];
            return Err(connection(
                "net",
                name,
                "enables a clock, but nothing drives it",
            ));
        }
        for port in &netlist.outputs {
            if port
                .bits
                .iter()
                .any(|&bit| driver[bit as usize] == UNDRIVEN)
            {
                return Err(connection("port", &port.name, "nothing drives it"));
            }
        }
        let is_gate = |i: &Instance| netlist.cells[i.cell as usize].kind == Kind::Combinational;
        let mut ready: VecDeque<u32> = (0u32..)
            .zip(&netlist.instances)
            .filter(|(at, i)| is_gate(i) && waits[*at as usize] == 0)
            .map(|(at, _)| at)
            .collect();
        let mut order = Vec::new();
        while let Some(at) = ready.pop_front() {
            order.push(at);
            let instance = &netlist.instances[at as usize];
            let cell = &netlist.cells[instance.cell as usize];
            for (pin, &net) in cell.pins.iter().zip(&instance.pins) {
                if pin.direction == Direction::Output && net != OPEN {
                    for &reader in &readers[net as usize] {
                        waits[reader as usize] -= 1;
                        if waits[reader as usize] == 0 {
                            ready.push_back(reader);
                        }
                    }
                }
            }
        }
        if let Some((_, instance)) = (0u32..)
            .zip(&netlist.instances)
            .find(|(at, i)| is_gate(i) && waits[*at as usize] > 0)
        {
            return Err(connection(
                "cell",
                &instance.name,
                "is part of a combinational loop, or behind one",
            ));
        }
        netlist.order = order;
        Ok(())
    }

    /// Gives every instance its group.
    ///
    /// An instance that was flattened out of a module belongs to that module. In a netlist that was mapped as a whole only registers
    /// have names, so a register gives the name, and the logic before it is counted to it, up to the registers before: a cell
    /// goes to the register that is the fewest cells away.
    fn group(&mut self) {
        let netlist = &mut self.netlist;
        let mut places: HashMap<String, u32> = HashMap::new();
        let mut groups = Vec::new();
        let mut place = |label: String| {
            *places.entry(label.clone()).or_insert_with(|| {
                groups.push(label);
                groups.len() as u32 - 1
            })
        };
        const NONE: u32 = u32::MAX;
        let mut group = vec![NONE; netlist.instances.len()];
        let mut queue = VecDeque::new();
        let mut driver: HashMap<u32, u32> = HashMap::new();
        for (at, instance) in (0u32..).zip(&netlist.instances) {
            let cell = &netlist.cells[instance.cell as usize];
            let outputs = cell.pins.iter().zip(&instance.pins);
            let outputs = outputs.filter(|(p, n)| p.direction == Direction::Output && **n != OPEN);
            for (_, &net) in outputs {
                driver.insert(net, at);
                let name = &netlist.nets[net as usize];
                let label = match instance.name.rsplit_once('.') {
                    Some((module, own)) if numbered(own) => Some(general(module)),
                    _ if rank(name) == 0 => Some(general(name)),
                    _ => None,
                };
                if let Some(label) = label
                    && group[at as usize] == NONE
                {
                    group[at as usize] = place(label);
                    queue.push_back(at);
                }
            }
        }
        while let Some(at) = queue.pop_front() {
            let instance = &netlist.instances[at as usize];
            let cell = &netlist.cells[instance.cell as usize];
            for (pin, net) in cell.pins.iter().zip(&instance.pins) {
                if pin.direction != Direction::Input {
                    continue;
                }
                if let Some(&by) = driver.get(net)
                    && group[by as usize] == NONE
                {
                    group[by as usize] = group[at as usize];
                    queue.push_back(by);
                }
            }
        }
        let rest = place("(other)".to_owned());
        for (instance, group) in netlist.instances.iter_mut().zip(group) {
            instance.group = if group == NONE { rest } else { group };
        }
        netlist.groups = groups;
    }
}

/// How little a net's name says: 0 for one that somebody gave.
fn rank(name: &str) -> u8 {
    let own = name.rsplit('.').next().unwrap_or(name);
    if name.starts_with("net ") {
        3
    } else if name.contains('$') {
        2
    } else {
        u8::from(numbered(own))
    }
}

/// `_123_`, yosys's name for what has none.
fn numbered(name: &str) -> bool {
    name.strip_prefix('_')
        .and_then(|rest| rest.strip_suffix('_'))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// A name without its index in brackets, numbers that follow `_` replaced by `*`: registers of all lanes are one group.
fn general(name: &str) -> String {
    let name = name.split('[').next().unwrap_or(name);
    let mut general = String::new();
    let mut number = false;
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_digit() && (number || before == '_') {
            if !number {
                general.push('*');
            }
            number = true;
        } else {
            number = false;
            general.push(c);
        }
        before = c;
    }
    general
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_group() {
        assert_eq!(general("tree.product_12[3]"), "tree.product_*");
        assert_eq!(general("four_bit_0_q"), "four_bit_*_q");
        assert_eq!(general("operand_fp8"), "operand_fp8");
        assert!(numbered("_0123_") && !numbered("_q_") && !numbered("__"));
        assert!(rank("a.product") < rank("a._12_") && rank("_12_") < rank("net 3"));
    }
}
