//! A cell library: what a Liberty file says of cells, in one set of units.
//!
//! Times are in ns, capacitances in pF, energies in pJ, leakage in nW, whatever the file's own units are; a file that
//! doesn't name its units is refused. The energies of `internal_power` tables have the unit that Liberty gives them, the capacitance's times the voltage's squared.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use liberty_db::expression::{ClearPresetState, Expr};
use liberty_db::pin::Direction as FileDirection;
use liberty_db::table::{TableCtx, TableTemple, Variable};
use liberty_db::timing::{ArcCombinational, ArcSequential, TimingType};
use liberty_db::{DefaultCtx, Library as File};

use crate::logic::{Logic, Step};

/// Deepest nesting of braces and parentheses in a file; Liberty's is below ten.
const NESTING: usize = 64;
/// Most pins of a cell that can be used.
const PINS: usize = 32;
/// Most inputs of a combinational cell that can be simulated: its truth table is one word.
pub const MAX_INPUTS: usize = 6;

/// Why a library can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LibertyError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// The text is no Liberty.
    #[error("{}: not a Liberty file: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where that is known.
        message: String,
    },
    /// A library attribute is missing or has no meaning.
    #[error("{}: library attribute `{attribute}`: {message}", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// The attribute.
        attribute: &'static str,
        /// What was expected and found.
        message: String,
    },
    /// A cell contradicts itself.
    #[error("{}: cell `{cell}`: {message}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The cell.
        cell: String,
        /// What was expected and found.
        message: String,
    },
}

/// Rising or falling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// From 0 to 1.
    Rise,
    /// From 1 to 0.
    Fall,
}

impl Edge {
    /// The edge that ends at a value.
    #[must_use]
    pub const fn to(value: bool) -> Self {
        if value { Self::Rise } else { Self::Fall }
    }
}

/// A table over input slew and output load.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Slews in ns, rising; one zero if the table doesn't depend on it.
    slews: Vec<f64>,
    /// Loads in pF, rising; one zero if the table doesn't depend on it.
    loads: Vec<f64>,
    /// Row by slew.
    values: Vec<f64>,
}

impl Table {
    /// A table that is the same everywhere.
    #[must_use]
    pub fn constant(value: f64) -> Self {
        Self {
            slews: vec![0.0],
            loads: vec![0.0],
            values: vec![value],
        }
    }

    /// The value at a slew in ns and a load in pF: linear between the four nearest points, and beyond the table along its outermost
    /// segment, as timing analysers do.
    #[must_use]
    pub fn at(&self, slew: f64, load: f64) -> f64 {
        let (row, down) = segment(&self.slews, slew);
        let (column, right) = segment(&self.loads, load);
        let width = self.loads.len();
        let value = |r: usize, c: usize| self.values.get(r * width + c).copied().unwrap_or(0.0);
        let along = |r: usize| {
            if right == 0.0 {
                value(r, column)
            } else {
                value(r, column) * (1.0 - right) + value(r, column + 1) * right
            }
        };
        if down == 0.0 {
            along(row)
        } else {
            along(row) * (1.0 - down) + along(row + 1) * down
        }
    }
}

/// The lower of the two nearest points, and how far beyond it, as a share of their distance.
fn segment(axis: &[f64], at: f64) -> (usize, f64) {
    if axis.len() < 2 {
        return (0, 0.0);
    }
    let above = axis.partition_point(|&point| point <= at);
    let lower = above.clamp(1, axis.len() - 1) - 1;
    let share = (at - axis[lower]) / (axis[lower + 1] - axis[lower]);
    (lower, share)
}

/// Delay and transition of an output's edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// ns from the related pin's edge.
    pub delay: Table,
    /// ns between the library's slew thresholds.
    pub transition: Table,
}

/// What makes a timing arc's output move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArcKind {
    /// A change of the related pin.
    Combinational,
    /// A clock edge.
    Clock(Edge),
    /// An asynchronous set or reset.
    Asynchronous,
}

/// How a change of one pin reaches an output.
#[derive(Clone, Debug, PartialEq)]
pub struct Arc {
    /// The pin, by place in [`Cell::pins`].
    pub related: u8,
    /// What makes the output move.
    pub kind: ArcKind,
    /// States for which it holds; all if absent.
    pub when: Option<Logic>,
    /// Of the output's rising edge.
    pub rise: Option<Response>,
    /// Of the output's falling edge.
    pub fall: Option<Response>,
}

/// Energy within the cell when a pin changes, in pJ; the load's is not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Power {
    /// The pin that causes it, if the table is of an output; by place in [`Cell::pins`].
    pub related: Option<u8>,
    /// States for which it holds; those for which no other table of the same related pin does if absent.
    pub when: Option<Logic>,
    /// Of the pin's rising edge.
    pub rise: Option<Table>,
    /// Of its falling edge.
    pub fall: Option<Table>,
}

impl Power {
    /// pJ of an edge.
    #[must_use]
    pub fn at(&self, edge: Edge, slew: f64, load: f64) -> f64 {
        let table = match edge {
            Edge::Rise => &self.rise,
            Edge::Fall => &self.fall,
        };
        table.as_ref().map_or(0.0, |table| table.at(slew, load))
    }
}

/// Into or out of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read by the cell.
    Input,
    /// Driven by the cell.
    Output,
    /// Anything else, such as a pad's.
    Other,
}

/// A pin.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// Its direction.
    pub direction: Direction,
    /// pF; the mean of rise and fall where the file has both.
    pub capacitance: f64,
    /// It is a clock.
    pub clock: bool,
    /// What an output computes from pins and, in a sequential cell, from its state.
    pub function: Option<Logic>,
    /// How it is reached, if it is an output.
    pub arcs: Vec<Arc>,
    /// Energy of its edges.
    pub power: Vec<Power>,
}

/// Leakage in some states.
#[derive(Clone, Debug, PartialEq)]
pub struct Leakage {
    /// The states.
    pub when: Logic,
    /// nW.
    pub power: f64,
}

/// A flip-flop's state. Variable n of its functions is pin n; behind the pins come the state and its complement.
#[derive(Clone, Debug, PartialEq)]
pub struct FlipFlop {
    /// The clock pin.
    pub clock: u8,
    /// Which edge of it.
    pub edge: Edge,
    /// What the state becomes.
    pub next: Logic,
    /// Holds the state at 0.
    pub clear: Option<Logic>,
    /// Holds it at 1.
    pub preset: Option<Logic>,
    /// The state while both hold.
    pub both: bool,
}

/// What a cell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Outputs are functions of inputs; at most [`MAX_INPUTS`] of them.
    Combinational,
    /// One edge-triggered bit.
    FlipFlop(Box<FlipFlop>),
    /// Something else, and what: a netlist that uses it is refused.
    Unsupported(String),
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// Area in the library's own unit, usually um2.
    pub area: f64,
    /// What it does.
    pub kind: Kind,
    /// Its pins without supplies.
    pub pins: Vec<Pin>,
    /// Leakage by state.
    pub leakage: Vec<Leakage>,
    /// nW in states that no entry names.
    pub other_leakage: f64,
}

impl Cell {
    /// The place of a pin.
    #[must_use]
    pub fn pin(&self, name: &str) -> Option<usize> {
        self.pins.iter().position(|pin| pin.name == name)
    }

    /// Places of the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = u8> + '_ {
        (0u8..)
            .zip(&self.pins)
            .filter(|(_, pin)| pin.direction == Direction::Input)
            .map(|(place, _)| place)
    }
}

/// A library.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Name of its operating conditions, the library's if it has none.
    pub corner: String,
    /// Supply in V.
    pub voltage: f64,
    /// Degrees Celsius, if the file says so.
    pub temperature: Option<f64>,
    /// The cells by name.
    pub cells: BTreeMap<String, Cell>,
}

impl Library {
    /// Reads a file.
    ///
    /// # Errors
    /// [`LibertyError`]: it can't be read, or what it says has no meaning.
    pub fn open(path: &Path) -> Result<Self, LibertyError> {
        let bytes = std::fs::read(path).map_err(|source| LibertyError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &String::from_utf8_lossy(&bytes))
    }

    /// Takes the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`LibertyError`]: what it says has no meaning.
    pub fn parse(path: &Path, text: &str) -> Result<Self, LibertyError> {
        let syntax = |message: String| LibertyError::Syntax {
            path: path.to_owned(),
            message,
        };
        check_nesting(text).map_err(syntax)?;
        // The parser is not ours: a text that it panics on is an error like any other.
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            File::<DefaultCtx>::parse_lib(text, None).map_err(|error| error.to_string())
        }));
        let file = match parsed {
            Ok(Ok(file)) => file,
            Ok(Err(message)) => return Err(syntax(message)),
            Err(_) => return Err(syntax("the parser gave up".to_owned())),
        };
        Reader::new(path, &file)?.library(&file)
    }

    /// A cell by name.
    #[must_use]
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.get(name)
    }
}

/// The parser descends by recursion, so a file of parentheses alone could exhaust the stack.
fn check_nesting(text: &str) -> Result<(), String> {
    let mut depth = 0usize;
    for (number, line) in (1..).zip(text.lines()) {
        for byte in line.bytes() {
            match byte {
                b'{' | b'(' => depth += 1,
                b'}' | b')' => depth = depth.saturating_sub(1),
                _ => (),
            }
            if depth > NESTING {
                return Err(format!("line {number}: nested more than {NESTING} deep"));
            }
        }
    }
    Ok(())
}

/// Factors from the file's units to ours.
#[derive(Clone, Copy)]
struct Units {
    time: f64,
    capacitance: f64,
    energy: f64,
    leakage: f64,
}

struct Reader<'a> {
    path: &'a Path,
    units: Units,
    other_leakage: f64,
    input_capacitance: f64,
}

/// A failure within a cell, before the cell's name is known.
type Fault = String;

impl<'a> Reader<'a> {
    fn new(path: &'a Path, file: &File<DefaultCtx>) -> Result<Self, LibertyError> {
        let wrong = |attribute: &'static str, message: &str| LibertyError::Library {
            path: path.to_owned(),
            attribute,
            message: message.to_owned(),
        };
        // What the parser doesn't understand of an attribute it puts here, and takes a default.
        for attribute in [
            "time_unit",
            "voltage_unit",
            "leakage_power_unit",
            "capacitive_load_unit",
            "nom_voltage",
        ] {
            if file.attributes.contains_key(attribute) {
                return Err(wrong(
                    attribute,
                    "its value is none that Liberty knows for it",
                ));
            }
        }
        let capacitance = file
            .capacitive_load_unit
            .ok_or_else(|| wrong("capacitive_load_unit", "missing"))?
            .value();
        if !(capacitance > 0.0 && capacitance.is_finite()) {
            return Err(wrong(
                "capacitive_load_unit",
                "expected a positive capacitance",
            ));
        }
        let leakage = file.leakage_power_unit.map_or(1e-9, |unit| unit.value());
        let volt = file.voltage_unit.value();
        let units = Units {
            time: file.time_unit.value() * 1e9,
            capacitance: capacitance * 1e12,
            energy: capacitance * volt * volt * 1e12,
            leakage: leakage * 1e9,
        };
        Ok(Self {
            path,
            units,
            other_leakage: file.default_cell_leakage_power.unwrap_or(0.0),
            input_capacitance: file.default_input_pin_cap.unwrap_or(0.0),
        })
    }

    fn library(&self, file: &File<DefaultCtx>) -> Result<Library, LibertyError> {
        let conditions = file
            .default_operating_conditions
            .as_ref()
            .and_then(|name| file.operating_conditions.iter().find(|c| c.name == *name))
            .or_else(|| file.operating_conditions.iter().next());
        let name = file.name.first().cloned().unwrap_or_default();
        let voltage = file.nom_voltage.ok_or_else(|| LibertyError::Library {
            path: self.path.to_owned(),
            attribute: "nom_voltage",
            message: "missing".to_owned(),
        })? * file.voltage_unit.value();
        if !(voltage > 0.0 && voltage.is_finite()) {
            return Err(LibertyError::Library {
                path: self.path.to_owned(),
                attribute: "nom_voltage",
                message: format!("expected a positive voltage, found {voltage}"),
            });
        }
        let mut cells = BTreeMap::new();
        for cell in &file.cell {
            let read = self.cell(cell).map_err(|message| LibertyError::Cell {
                path: self.path.to_owned(),
                cell: cell.name.clone(),
                message,
            })?;
            cells.insert(cell.name.clone(), read);
        }
        if cells.is_empty() {
            return Err(LibertyError::Syntax {
                path: self.path.to_owned(),
                message: "there are no cells".to_owned(),
            });
        }
        Ok(Library {
            corner: conditions.map_or_else(|| name.clone(), |c| c.name.clone()),
            name,
            voltage,
            temperature: file.nom_temperature,
            cells,
        })
    }

    fn cell(&self, cell: &liberty_db::Cell<DefaultCtx>) -> Result<Cell, Fault> {
        let mut kind = Kind::Combinational;
        if !cell.bus.is_empty() || !cell.bundle.is_empty() {
            kind = Kind::Unsupported("has buses or bundles".to_owned());
        } else if !cell.latch.is_empty() || !cell.latch_bank.is_empty() {
            kind = Kind::Unsupported("is a latch".to_owned());
        } else if !cell.ff_bank.is_empty() || cell.ff.len() > 1 {
            kind = Kind::Unsupported("has several flip-flops".to_owned());
        } else if cell.statetable.is_some() {
            kind = Kind::Unsupported("has a state table".to_owned());
        } else if cell.pin.len() > PINS {
            kind = Kind::Unsupported(format!("has more than {PINS} pins"));
        }
        let mut names: Vec<String> = cell.pin.iter().map(|pin| pin.name.clone()).collect();
        if matches!(kind, Kind::Unsupported(_)) {
            return Ok(Cell {
                name: cell.name.clone(),
                area: cell.area.unwrap_or(0.0),
                kind,
                pins: Vec::new(),
                leakage: Vec::new(),
                other_leakage: 0.0,
            });
        }
        if let Some(ff) = cell.ff.iter().next() {
            names.push(ff.variable1.clone());
            names.push(ff.variable2.clone());
            let edge_of = |clock: &Logic| match clock.variables().as_slice() {
                [pin] => match clock.truth(&[*pin]).map(|table| table & 3) {
                    Some(0b10) => Some((*pin, Edge::Rise)),
                    Some(0b01) => Some((*pin, Edge::Fall)),
                    _ => None,
                },
                _ => None,
            };
            let logic = |e: &Option<liberty_db::expression::LogicBooleanExpression>| {
                e.as_ref().map(|e| function(&e.expr, &names)).transpose()
            };
            let clock = logic(&ff.clocked_on)?.as_ref().and_then(edge_of);
            let next = logic(&ff.next_state)?;
            let both = match ff.clear_preset_var1 {
                Some(ClearPresetState::H) => true,
                Some(ClearPresetState::L) | None => false,
                Some(_) => {
                    return Err("clear_preset_var1: only L and H can be simulated".to_owned());
                }
            };
            kind = match (clock, next) {
                _ if ff.clocked_on_also.is_some() => Kind::Unsupported("has two clocks".to_owned()),
                (Some((clock, edge)), Some(next)) => Kind::FlipFlop(Box::new(FlipFlop {
                    clock,
                    edge,
                    next,
                    clear: logic(&ff.clear)?,
                    preset: logic(&ff.preset)?,
                    both,
                })),
                _ => Kind::Unsupported("has a clock that is not one pin".to_owned()),
            };
        }
        let mut pins = Vec::new();
        for pin in &cell.pin {
            pins.push(
                self.pin(pin, &names)
                    .map_err(|fault| format!("pin `{}`: {fault}", pin.name))?,
            );
        }
        let mut leakage = Vec::new();
        let mut other = cell
            .leakage_power
            .iter()
            .find(|l| l.when.is_none())
            .map(|l| l.value);
        for entry in &cell.leakage_power {
            if let Some(when) = &entry.when {
                leakage.push(Leakage {
                    when: function(&when.expr, &names)?,
                    power: finite("leakage_power", entry.value)? * self.units.leakage,
                });
            }
        }
        other = other.or(cell.cell_leakage_power);
        let mut cell = Cell {
            name: cell.name.clone(),
            area: finite("area", cell.area.unwrap_or(0.0))?,
            kind,
            pins,
            leakage,
            other_leakage: finite("cell_leakage_power", other.unwrap_or(self.other_leakage))?
                * self.units.leakage,
        };
        if cell.kind == Kind::Combinational {
            cell.kind = combinational(&cell);
        }
        Ok(cell)
    }

    fn pin(&self, pin: &liberty_db::Pin<DefaultCtx>, names: &[String]) -> Result<Pin, Fault> {
        let place = |name: &str| -> Result<u8, Fault> {
            names
                .iter()
                .position(|n| n == name)
                .and_then(|place| u8::try_from(place).ok())
                .ok_or_else(|| format!("related_pin `{name}` is no pin of the cell"))
        };
        let direction = match pin.direction {
            Some(FileDirection::Input) => Direction::Input,
            Some(FileDirection::Output) if pin.three_state.is_none() => Direction::Output,
            _ => Direction::Other,
        };
        let both = pin
            .rise_capacitance
            .zip(pin.fall_capacitance)
            .map(|(rise, fall)| (rise + fall) / 2.0);
        let capacitance = both.or(pin.capacitance).unwrap_or(match direction {
            Direction::Input => self.input_capacitance,
            _ => 0.0,
        });
        if capacitance < 0.0 {
            return Err(format!("capacitance {capacitance} is negative"));
        }
        let logic = |e: &Option<liberty_db::expression::LogicBooleanExpression>| {
            e.as_ref().map(|e| function(&e.expr, names)).transpose()
        };
        let mut arcs = Vec::new();
        for timing in &pin.timing {
            let kind = match timing.timing_type {
                None | Some(TimingType::Combinational(ArcCombinational::Combinational(_))) => {
                    ArcKind::Combinational
                }
                Some(TimingType::Sequential(ArcSequential::Edge(edge))) => {
                    ArcKind::Clock(match edge {
                        liberty_db::expression::logic::Edge::R => Edge::Rise,
                        liberty_db::expression::logic::Edge::F => Edge::Fall,
                    })
                }
                Some(TimingType::Sequential(ArcSequential::Preset | ArcSequential::Clear)) => {
                    ArcKind::Asynchronous
                }
                // Constraints, and what is only about three-state outputs.
                _ => continue,
            };
            let table = |t: &Option<liberty_db::timing::TimingTableLookUp<DefaultCtx>>| {
                t.as_ref()
                    .map(|t| {
                        self.table(
                            t.extra_ctx.lut_template().as_deref(),
                            [&t.index_1, &t.index_2],
                            &t.values,
                            self.units.time,
                        )
                        .map_err(|fault| format!("timing table `{}`: {fault}", t.name))
                    })
                    .transpose()
            };
            let response = |delay: Option<Table>, transition: Option<Table>| {
                delay
                    .zip(transition)
                    .map(|(delay, transition)| Response { delay, transition })
            };
            let rise = response(table(&timing.cell_rise)?, table(&timing.rise_transition)?);
            let fall = response(table(&timing.cell_fall)?, table(&timing.fall_transition)?);
            for related in &timing.related_pin.inner {
                arcs.push(Arc {
                    related: place(related)?,
                    kind,
                    when: logic(&timing.when)?,
                    rise: rise.clone(),
                    fall: fall.clone(),
                });
            }
        }
        let mut power = Vec::new();
        for entry in &pin.internal_power {
            let table = |t: &Option<liberty_db::table::TableLookUp<DefaultCtx>>| {
                t.as_ref()
                    .map(|t| {
                        if !t.index_3.is_empty() {
                            return Err(format!("power table `{}`: more than two axes", t.name));
                        }
                        self.table(
                            t.extra_ctx.lut_template().as_deref(),
                            [&t.index_1, &t.index_2],
                            &t.values.inner,
                            self.units.energy,
                        )
                        .map_err(|fault| format!("power table `{}`: {fault}", t.name))
                    })
                    .transpose()
            };
            let any = table(&entry.power)?;
            let rise = table(&entry.rise_power)?.or_else(|| any.clone());
            let fall = table(&entry.fall_power)?.or(any);
            let related: Vec<Option<u8>> = if entry.related_pin.inner.is_empty() {
                vec![None]
            } else {
                let places = entry.related_pin.inner.iter();
                places
                    .map(|name| place(name).map(Some))
                    .collect::<Result<_, _>>()?
            };
            for related in related {
                power.push(Power {
                    related,
                    when: logic(&entry.when)?,
                    rise: rise.clone(),
                    fall: fall.clone(),
                });
            }
        }
        Ok(Pin {
            name: pin.name.clone(),
            direction,
            capacitance: finite("capacitance", capacitance)? * self.units.capacitance,
            clock: pin.clock.unwrap_or(false),
            function: if direction == Direction::Output {
                logic(&pin.function)?
            } else {
                None
            },
            arcs,
            power,
        })
    }

    /// Axes come from the table, or from its template where the table has none.
    fn table(
        &self,
        template: Option<&TableTemple<DefaultCtx>>,
        indices: [&Vec<f64>; 2],
        values: &[f64],
        unit: f64,
    ) -> Result<Table, Fault> {
        let mut slews = vec![0.0];
        let mut loads = vec![0.0];
        let mut axes = 0usize;
        let mut slew_first = true;
        if let Some(template) = template {
            let variables = [
                (&template.variable_1, &template.index_1),
                (&template.variable_2, &template.index_2),
            ];
            if template.variable_3.is_some() {
                return Err("more than two axes".to_owned());
            }
            for ((variable, default), given) in variables.into_iter().zip(indices) {
                let Some(variable) = variable else { continue };
                let points = if given.is_empty() {
                    default.as_ref().unwrap_or(given)
                } else {
                    given
                };
                let (axis, unit) = match variable {
                    Variable::Time(_) => (&mut slews, self.units.time),
                    Variable::Capacitance(_) => {
                        slew_first = axes > 0;
                        (&mut loads, self.units.capacitance)
                    }
                    Variable::Scalar(_) => continue,
                    other => return Err(format!("axis {other} is neither a slew nor a load")),
                };
                axes += 1;
                if points.is_empty()
                    || points.iter().any(|p| !p.is_finite())
                    || points.windows(2).any(|pair| pair[0] >= pair[1])
                {
                    return Err(format!("its points {points:?} don't rise"));
                }
                *axis = points.iter().map(|point| point * unit).collect();
            }
        }
        if slews.len() * loads.len() != values.len() {
            return Err(format!(
                "expected {} x {} values, found {}",
                slews.len(),
                loads.len(),
                values.len()
            ));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err("a value is not a finite number".to_owned());
        }
        let (rows, columns) = (slews.len(), loads.len());
        let values = (0..rows * columns)
            .map(|i| {
                let (slew, load) = (i / columns, i % columns);
                let from = if slew_first { i } else { load * rows + slew };
                values[from] * unit
            })
            .collect();
        Ok(Table {
            slews,
            loads,
            values,
        })
    }
}

fn finite(what: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(format!("{what}: {value} is not a finite number"))
    }
}

/// Combinational if every output is a function of at most [`MAX_INPUTS`] inputs.
fn combinational(cell: &Cell) -> Kind {
    let inputs: Vec<u8> = cell.inputs().collect();
    if let Some(pin) = cell
        .pins
        .iter()
        .find(|pin| pin.direction == Direction::Other)
    {
        return Kind::Unsupported(format!(
            "pin `{}` is neither input nor plain output",
            pin.name
        ));
    }
    for pin in &cell.pins {
        if pin.direction != Direction::Output {
            continue;
        }
        match &pin.function {
            None => return Kind::Unsupported(format!("output `{}` has no function", pin.name)),
            Some(function) if function.truth(&inputs).is_none() => {
                return Kind::Unsupported(format!(
                    "output `{}` is no function of at most {MAX_INPUTS} inputs",
                    pin.name
                ));
            }
            Some(_) => (),
        }
    }
    Kind::Combinational
}

/// Variables by their place in `names`.
fn function(expression: &Expr, names: &[String]) -> Result<Logic, Fault> {
    let mut steps = Vec::new();
    push(expression, names, &mut steps)?;
    Logic::new(steps).ok_or_else(|| "an expression is nested too deeply".to_owned())
}

fn push(expression: &Expr, names: &[String], steps: &mut Vec<Step>) -> Result<(), Fault> {
    let mut two = |a: &Expr, b: &Expr, step: Step| {
        push(a, names, steps)?;
        push(b, names, steps)?;
        steps.push(step);
        Ok(())
    };
    match expression {
        Expr::Const(value) => {
            steps.push(Step::Constant(*value));
            Ok(())
        }
        Expr::Variable(name) => {
            let place = names
                .iter()
                .position(|n| n == name)
                .and_then(|place| u8::try_from(place).ok())
                .ok_or_else(|| {
                    format!("an expression names `{name}`, which the cell doesn't have")
                })?;
            steps.push(Step::Variable(place));
            Ok(())
        }
        Expr::Not(a) => {
            push(a, names, steps)?;
            steps.push(Step::Not);
            Ok(())
        }
        Expr::And(a, b) => two(a, b, Step::And),
        Expr::Or(a, b) => two(a, b, Step::Or),
        Expr::Xor(a, b) => two(a, b, Step::Xor),
        Expr::Imp(..) | Expr::Iff(..) | Expr::Cond(..) => {
            Err("an expression has an operator that Liberty hasn't".to_owned())
        }
    }
}
