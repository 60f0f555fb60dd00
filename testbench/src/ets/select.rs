//! Whole selections.

use golden::ets::{
    EngineSelection, PruneJob, Pruned, Rule, SearchTree, State, TableRead, Tables, select_by_engine,
};
use hdl::build::emit_module;
use hdl::ets::{NODE, TreeSelector, VALUE};
use serde::Serialize;

use super::pins::Pins;
use super::prune::PruneBench;
use super::{EtsError, within};
use crate::design::{Design, PortId};
use crate::simulator::Simulator;
use crate::verilator::{Verilator, VerilatorSim};

/// More cycles than any selection takes.
const PATIENCE: u64 = 1 << 21;

/// What hardware selected, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorRun {
    /// Which leaves are kept.
    pub pruned: Pruned,
    /// How often each is continued.
    pub counts: Vec<u32>,
    /// The kept nodes in the order in which they were read, by their numbers in [`EngineSelection::tables`].
    pub reads: Vec<TableRead>,
    /// Exactly the last of them was said to be the last.
    pub marked: bool,
    /// Cycles from the start until continuations are known.
    pub cycles: u64,
    /// Until all kept nodes are read.
    pub cycles_with_reads: u64,
}

struct Ports {
    node_write: PortId,
    node: PortId,
    node_root: PortId,
    node_parent: PortId,
    node_cost: PortId,
    leaf_write: PortId,
    leaf: PortId,
    leaf_node: PortId,
    leaf_cluster: PortId,
    leaf_scored: PortId,
    leaf_score: PortId,
    start: PortId,
    last_leaf: PortId,
    last_cluster: PortId,
    width: PortId,
    rate: PortId,
    gain: PortId,
    price: PortId,
    cover: PortId,
    rounds: PortId,
    done: PortId,
    selected: PortId,
    proved: PortId,
    worth: PortId,
    halves: PortId,
    leaf_kept: PortId,
    leaf_count: PortId,
    read_valid: PortId,
    read_ready: PortId,
    read_node: PortId,
    read_depth: PortId,
    read_single: PortId,
    read_leaf: PortId,
    read_number: PortId,
    read_last: PortId,
}

/// Drives `hdl::ets::TreeSelector`.
pub struct SelectorBench<S> {
    pins: Pins<S>,
    ports: Ports,
    leaves: usize,
    nodes: usize,
}

impl SelectorBench<VerilatorSim> {
    /// The hardware for up to so many leaves (64 or 256 are built) and nodes (a power of two, at most 4096) in Verilator.
    ///
    /// # Errors
    /// It is larger than hardware can be, or can't be built.
    pub fn build(verilator: &Verilator, leaves: usize, nodes: usize) -> Result<Self, EtsError> {
        within("leaves", leaves as u64, 256)?;
        within("nodes", nodes as u64, 1 << NODE)?;
        let nodes = nodes.next_power_of_two().max(2);
        let (bundle, leaves) = if leaves <= 64 {
            (emit_module(TreeSelector::<6, 5>::new(nodes))?, 64)
        } else {
            (emit_module(TreeSelector::<8, 7>::new(nodes))?, 256)
        };
        Self::new(verilator.simulate(&Design::from(&bundle))?, leaves, nodes)
    }
}

impl<S: Simulator> SelectorBench<S> {
    /// A bench for a selector with room for so many leaves and nodes.
    ///
    /// # Errors
    /// The design has other ports, or the simulation fails.
    pub fn new(simulator: S, leaves: usize, nodes: usize) -> Result<Self, EtsError> {
        let pins = Pins::new(simulator)?;
        let ports = Ports {
            node_write: pins.input("node_write")?,
            node: pins.input("node")?,
            node_root: pins.input("node_root")?,
            node_parent: pins.input("node_parent")?,
            node_cost: pins.input("node_cost")?,
            leaf_write: pins.input("leaf_write")?,
            leaf: pins.input("leaf")?,
            leaf_node: pins.input("leaf_node")?,
            leaf_cluster: pins.input("leaf_cluster")?,
            leaf_scored: pins.input("leaf_scored")?,
            leaf_score: pins.input("leaf_score")?,
            start: pins.input("start")?,
            last_leaf: pins.input("last_leaf")?,
            last_cluster: pins.input("last_cluster")?,
            width: pins.input("width")?,
            rate: pins.input("rate")?,
            gain: pins.input("gain")?,
            price: pins.input("price")?,
            cover: pins.input("cover_worth")?,
            rounds: pins.input("rounds")?,
            done: pins.output("done")?,
            selected: pins.output("selected")?,
            proved: pins.output("proved")?,
            worth: pins.output("worth")?,
            halves: pins.output("halves")?,
            leaf_kept: pins.output("leaf_kept")?,
            leaf_count: pins.output("leaf_count")?,
            read_valid: pins.output("read_valid")?,
            read_ready: pins.input("read_ready")?,
            read_node: pins.output("read_node")?,
            read_depth: pins.output("read_depth")?,
            read_single: pins.output("read_single")?,
            read_leaf: pins.output("read_leaf")?,
            read_number: pins.output("read_number")?,
            read_last: pins.output("read_last")?,
        };
        Ok(Self {
            pins,
            ports,
            leaves,
            nodes,
        })
    }

    /// That hardware of this size can take a choice.
    fn fits(&self, job: &PruneJob) -> Result<(), EtsError> {
        PruneBench::<S>::fits(job, self.leaves)?;
        within("nodes", job.steps.len() as u64, self.nodes as u64)
    }

    /// Selects as `twin` did in at most so many rounds, from the tree, scores and clusters alone; a node is read in each cycle for which `ready` says so.
    ///
    /// # Errors
    /// The choice doesn't fit the hardware, or the simulation fails.
    pub fn run(
        &mut self,
        tree: &SearchTree,
        rule: Rule,
        twin: &EngineSelection,
        rounds: u8,
        mut ready: impl FnMut() -> bool,
    ) -> Result<SelectorRun, EtsError> {
        let job = &twin.job;
        self.fits(job)?;
        let width = tree.remaining();
        within("the width", u64::from(width), u64::from(u16::MAX))?;
        let pins = &mut self.pins;
        let ports = &self.ports;

        let tables = twin
            .tables(tree)
            .map_err(golden::ets::ProgrammeError::from)?;
        pins.set(ports.node_write, 1);
        for (at, node) in tables.nodes.iter().enumerate() {
            pins.set(ports.node, at as u64);
            pins.set(ports.node_root, u64::from(node.parent.is_none()));
            pins.set(ports.node_parent, u64::from(node.parent.unwrap_or(0)));
            pins.set(ports.node_cost, u64::from(node.cost));
            pins.cycle()?;
        }
        pins.set(ports.node_write, 0);
        pins.set(ports.leaf_write, 1);
        for (number, leaf) in tables.leaves.iter().enumerate() {
            pins.set(ports.leaf, number as u64);
            pins.set(ports.leaf_node, u64::from(leaf.node));
            pins.set(ports.leaf_cluster, u64::from(leaf.cluster));
            pins.set(ports.leaf_scored, u64::from(leaf.score.is_some()));
            pins.set(ports.leaf_score, u64::from(leaf.score.unwrap_or(0) as u32));
            pins.cycle()?;
        }
        pins.set(ports.leaf_write, 0);

        pins.set(ports.last_leaf, twin.leaves.len() as u64 - 1);
        pins.set(ports.last_cluster, u64::from(job.clusters) - 1);
        pins.set(ports.width, u64::from(width));
        pins.set(ports.rate, u64::from(rule.temperature.rate()));
        pins.set(ports.gain, job.gain);
        pins.set(ports.price, job.price);
        pins.set(ports.cover, job.cover);
        pins.set(ports.rounds, u64::from(rounds));
        pins.set(ports.start, 1);
        pins.cycle()?;
        pins.set(ports.start, 0);
        let begin = pins.cycles();
        while pins.get(ports.selected) == 0 {
            pins.cycle()?;
            if pins.cycles() - begin > PATIENCE {
                return Err(EtsError::Endless(PATIENCE));
            }
        }
        let cycles = pins.cycles() - begin;
        let mut reads = Vec::new();
        let mut marked = true;
        while pins.get(ports.done) == 0 {
            let take = ready();
            pins.set(ports.read_ready, u64::from(take));
            pins.settle()?;
            if take && pins.get(ports.read_valid) == 1 {
                let number = pins.get(ports.read_number) as u32;
                reads.push(TableRead {
                    node: pins.get(ports.read_node) as u32,
                    depth: pins.get(ports.read_depth) as u32,
                    single: pins.get(ports.read_single) == 1,
                    leaf: (pins.get(ports.read_leaf) == 1).then_some(number),
                });
                marked &= pins.get(ports.read_last) == u64::from(reads.len() == tables.reads.len());
            }
            pins.cycle()?;
            if pins.cycles() - begin > PATIENCE {
                return Err(EtsError::Endless(PATIENCE));
            }
        }
        pins.set(ports.read_ready, 0);
        let cycles_with_reads = pins.cycles() - begin;
        let (mut kept, mut counts) = (Vec::new(), Vec::new());
        for leaf in 0..twin.leaves.len() {
            pins.set(ports.leaf, leaf as u64);
            pins.settle()?;
            kept.push(pins.get(ports.leaf_kept) == 1);
            counts.push(pins.get(ports.leaf_count) as u32);
        }
        let shift = 64 - VALUE;
        Ok(SelectorRun {
            pruned: Pruned {
                kept,
                worth: (pins.get(ports.worth) << shift) as i64 >> shift,
                proved: pins.get(ports.proved) == 1,
                halves: pins.get(ports.halves) as u32,
            },
            counts,
            reads,
            marked,
            cycles,
            cycles_with_reads,
        })
    }
}

/// That hardware did what its twin does: nothing, or where they differ first.
pub(super) fn difference(
    run: &SelectorRun,
    twin: &EngineSelection,
    tables: &Tables,
) -> Option<String> {
    if run.pruned != twin.pruned {
        return Some(format!("pruned {:?}, not {:?}", run.pruned, twin.pruned));
    }
    if run.counts != twin.allocation.counts {
        return Some(format!(
            "continuations {:?}, not {:?}",
            run.counts, twin.allocation.counts
        ));
    }
    if !run.marked {
        return Some("another read than the last is said to be the last".to_owned());
    }
    (run.reads != tables.reads).then(|| format!("read {:?}, not {:?}", run.reads, tables.reads))
}

/// What came of many selections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelectionReport {
    /// Leaves and nodes that the hardware has room for.
    pub room: (usize, usize),
    /// Rounds of the pruning engine at most.
    pub rounds: u8,
    /// Selections that were made.
    pub instances: usize,
    /// Those in which nothing was left to select.
    pub ended: usize,
    /// Those that don't fit the hardware, with the reason of the first.
    pub refused: usize,
    /// Why the first of these doesn't.
    pub first_refusal: Option<String>,
    /// Selections in which hardware and twin differ.
    pub mismatches: usize,
    /// How the first of these does.
    pub first_mismatch: Option<String>,
    /// Selections whose kept leaves are worth as much as the best set.
    pub at_optimum: usize,
    /// Of these, how many the exact method proved. Equal to the instances unless the rule's effort ended.
    pub exact: usize,
    /// Selections that the hardware itself proved to be the best.
    pub proved: usize,
    /// The share of instances at the optimum.
    pub share_at_optimum: f64,
    /// Largest difference to the best set, of the published objective.
    pub largest_gap: f64,
    /// Cycles until continuations are known: mean and most.
    pub mean_cycles: f64,
    /// Most of them.
    pub most_cycles: u64,
    /// Cycles until all kept nodes are read, a node whenever it is offered: most.
    pub most_cycles_with_reads: u64,
    /// Live leaves, most.
    pub most_leaves: usize,
    /// Nodes on their paths, most.
    pub most_nodes: usize,
}

/// Makes recorded selections on the Verilated hardware, and compares kept leaves, worth, proof, continuations and the order of reads with the golden twins bit for bit, and the worth with the exact method's.
///
/// The hardware is built for as many leaves and nodes as the largest selection needs that can be built.
///
/// # Errors
/// The hardware can't be built, or its simulation fails. What doesn't fit is counted.
pub fn cosim(
    verilator: &Verilator,
    selections: &[(SearchTree, Rule)],
    rounds: u8,
) -> Result<SelectionReport, EtsError> {
    let mut leaves = 1;
    let mut nodes = 2;
    for (tree, _) in selections {
        let frontier = tree.leaves(State::Live);
        leaves = leaves.max(frontier.len());
        let union = tree
            .union(&frontier)
            .map_err(golden::ets::ProgrammeError::from)?;
        nodes = nodes.max(union.len());
    }
    let mut bench = SelectorBench::build(verilator, leaves.min(256), nodes.clamp(1024, 1 << NODE))?;
    let mut report = SelectionReport {
        room: (bench.leaves, bench.nodes),
        rounds,
        instances: 0,
        ended: 0,
        refused: 0,
        first_refusal: None,
        mismatches: 0,
        first_mismatch: None,
        at_optimum: 0,
        exact: 0,
        proved: 0,
        share_at_optimum: 0.0,
        largest_gap: 0.0,
        mean_cycles: 0.0,
        most_cycles: 0,
        most_cycles_with_reads: 0,
        most_leaves: 0,
        most_nodes: 0,
    };
    let mut cycles = 0;
    for (tree, rule) in selections {
        let twin = match select_by_engine(tree, *rule, u32::from(rounds)) {
            Ok(Some(twin)) => twin,
            Ok(None) => {
                report.ended += 1;
                continue;
            }
            Err(error) => {
                report.refused += 1;
                report
                    .first_refusal
                    .get_or_insert_with(|| error.to_string());
                continue;
            }
        };
        if let Err(error) = bench.fits(&twin.job) {
            report.refused += 1;
            report
                .first_refusal
                .get_or_insert_with(|| error.to_string());
            continue;
        }
        let run = bench.run(tree, *rule, &twin, rounds, || true)?;
        report.instances += 1;
        let tables = twin
            .tables(tree)
            .map_err(golden::ets::ProgrammeError::from)?;
        if let Some(difference) = difference(&run, &twin, &tables) {
            report.mismatches += 1;
            report.first_mismatch.get_or_insert(difference);
        }
        let programme = twin.programme(tree, rule.prices)?;
        let exact = programme.solve(rule.effort);
        let found = programme.evaluate(&run.pruned.kept);
        let gap = programme.value(exact.evaluation.objective - found.objective);
        report.exact += usize::from(exact.proved);
        report.at_optimum += usize::from(gap <= 0.0);
        report.proved += usize::from(run.pruned.proved);
        report.largest_gap = report.largest_gap.max(gap);
        cycles += run.cycles;
        report.most_cycles = report.most_cycles.max(run.cycles);
        report.most_cycles_with_reads = report.most_cycles_with_reads.max(run.cycles_with_reads);
        report.most_leaves = report.most_leaves.max(twin.leaves.len());
        report.most_nodes = report.most_nodes.max(twin.job.steps.len());
    }
    let instances = report.instances.max(1) as f64;
    report.share_at_optimum = report.at_optimum as f64 / instances;
    report.mean_cycles = cycles as f64 / instances;
    Ok(report)
}
