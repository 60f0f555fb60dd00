//! Testbenches of tree search's hardware: what the golden model selects and answers, and the Verilog that compares.

use golden::ets::samples::{Choice, draw};
use golden::ets::{
    EngineSelection, Handle, NodePrice, PageTable, PoolError, ProgrammeError, ROUNDS, Rule,
    SearchTree, select_by_engine,
};

use super::vectors::{bits, hex_line};
use crate::build::{PAGE_TABLE_TOP, SELECTOR_TOP};
use crate::ets::pages::{command, status};
use crate::ets::{NODE, NUMBER, PageTableConfig, SelectorConfig, VALUE, WEIGHT};

/// Selections in the selector's vectors.
const SELECTIONS: usize = 16;
/// Trees that are drawn for them at most: many are too large for a small selector.
const DRAWS: usize = 1000;
/// Commands in the page table's vectors.
const COMMANDS: usize = 2000;
/// Handles that the commands are about, freed ones among them.
const HANDLES: usize = 24;

/// A testbench's files.
pub struct Testbench {
    /// Names of the vectors, in the folder `tb`.
    pub vectors: Vec<String>,
    /// Testbench and vectors: paths in the bundle, and what they hold.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Testbench {
    fn new(top: &str, verilog: String, vectors: Vec<(&str, String)>) -> Self {
        let names = vectors.iter().map(|(name, _)| format!("{name}.hex"));
        let names: Vec<String> = names.collect();
        let mut files = vec![(format!("tb/{top}_tb.v"), verilog.into_bytes())];
        for (name, (_, text)) in names.iter().zip(vectors) {
            files.push((format!("tb/{name}"), text.into_bytes()));
        }
        Self {
            vectors: names,
            files,
        }
    }
}

/// A template with its numbers.
fn filled(template: &str, numbers: &[(&str, usize)]) -> String {
    numbers
        .iter()
        .fold(template.to_owned(), |text, (name, number)| {
            text.replace(&format!("@{name}@"), &number.to_string())
        })
}

fn lines(text: &str) -> usize {
    text.lines().count()
}

/// That a selector of this size can make a selection.
fn fits(selection: &EngineSelection, config: SelectorConfig) -> bool {
    let word = |number: u32| number < 1 << WEIGHT;
    let job = &selection.job;
    job.leaves as usize <= config.built_leaves()
        && job.steps.len() <= config.nodes
        && job.bits() < VALUE as u32
        && job
            .steps
            .iter()
            .all(|step| word(step.cost) && step.leaf.is_none_or(|leaf| word(leaf.weight)))
}

#[derive(Default)]
struct Selections {
    jobs: String,
    nodes: String,
    leaves: String,
    reads: String,
}

impl Selections {
    fn add(
        &mut self,
        tree: &SearchTree,
        rule: Rule,
        selection: &EngineSelection,
    ) -> Result<(), ProgrammeError> {
        let job = &selection.job;
        let tables = selection.tables(tree)?;
        for node in &tables.nodes {
            self.nodes += &hex_line(&format!(
                "{}{}{}",
                u8::from(node.parent.is_none()),
                bits(node.parent.unwrap_or(0).into(), NODE),
                bits(node.cost.into(), WEIGHT)
            ));
        }
        let found = selection
            .pruned
            .kept
            .iter()
            .zip(&selection.allocation.counts);
        for (leaf, (&kept, &count)) in tables.leaves.iter().zip(found) {
            self.leaves += &hex_line(&format!(
                "{}{}{}{}{}{}",
                bits(leaf.node.into(), NODE),
                bits(leaf.cluster.into(), NUMBER),
                u8::from(leaf.score.is_some()),
                bits((leaf.score.unwrap_or(0) as u32).into(), 32),
                u8::from(kept),
                bits(count.into(), WEIGHT)
            ));
        }
        for (at, read) in tables.reads.iter().enumerate() {
            self.reads += &hex_line(&format!(
                "{}{}{}{}{}{}",
                bits(read.node.into(), NODE),
                bits(read.depth.into(), NUMBER),
                u8::from(read.single),
                u8::from(read.leaf.is_some()),
                bits(read.leaf.unwrap_or(0).into(), NUMBER),
                u8::from(at + 1 == tables.reads.len())
            ));
        }
        let pruned = &selection.pruned;
        self.jobs += &hex_line(
            &[
                bits(tables.nodes.len() as u128, 13),
                bits(tables.leaves.len() as u128, 9),
                bits(tables.reads.len() as u128, 13),
                bits(u128::from(job.clusters) - 1, NUMBER),
                bits(tree.remaining().into(), WEIGHT),
                bits(rule.temperature.rate().into(), 32),
                bits(job.gain.into(), VALUE),
                bits(job.price.into(), VALUE),
                bits(job.cover.into(), VALUE),
                bits(ROUNDS.into(), 8),
                u8::from(pruned.proved).to_string(),
                bits(pruned.worth as u64 as u128 & ((1 << VALUE) - 1), VALUE),
                bits(pruned.halves.into(), 9),
            ]
            .concat(),
        );
        Ok(())
    }
}

/// The selector's testbench: selections of trees of all kinds that fit.
///
/// # Errors
/// Never: trees are well made.
pub fn selector(config: SelectorConfig, seed: u64) -> Result<Testbench, ProgrammeError> {
    let mut state = seed;
    let mut vectors = Selections::default();
    let mut made = 0;
    for trial in 0..DRAWS {
        if made == SELECTIONS {
            break;
        }
        let kind = ["grown", "scattered", "tied", "covering"][trial % 4];
        let most = config.built_leaves() as u64;
        let width = 2 + draw(&mut state, most - 1) as u32;
        let choice = Choice::of_kind(&mut state, kind, width, trial)?;
        let mut rule = Rule::published(width);
        if trial % 3 == 2 {
            rule.prices.node = NodePrice::Tokens;
        }
        let Some(selection) = select_by_engine(&choice.tree, rule, ROUNDS)? else {
            continue;
        };
        if fits(&selection, config) {
            vectors.add(&choice.tree, rule, &selection)?;
            made += 1;
        }
    }
    let Selections {
        jobs,
        nodes,
        leaves,
        reads,
    } = vectors;
    let verilog = filled(
        include_str!("tree_selector_tb.v"),
        &[
            ("JOBS", lines(&jobs)),
            ("NODES", lines(&nodes)),
            ("LEAVES", lines(&leaves)),
            ("READS", lines(&reads)),
        ],
    );
    let vectors = vec![
        ("jobs", jobs),
        ("nodes", nodes),
        ("leaves", leaves),
        ("reads", reads),
    ];
    Ok(Testbench::new(SELECTOR_TOP, verilog, vectors))
}

/// What a command answers.
#[derive(Default)]
struct Answer {
    segment: Option<Handle>,
    slot: (usize, usize),
    list: Vec<usize>,
}

/// The page table's testbench: commands at random, for segments alive and freed, until all are in use and beyond.
///
/// # Errors
/// Never: a page holds a token.
pub fn page_table(config: PageTableConfig, seed: u64) -> Result<Testbench, PoolError> {
    let mut state = seed;
    let mut table = PageTable::new(config.built_segments(), config.pages, config.page_tokens)?;
    let mut handles: Vec<Handle> = Vec::new();
    let (mut commands, mut items) = (String::new(), String::new());
    for at in 0..COMMANDS {
        let nobody = Handle {
            segment: 0,
            generation: 0,
        };
        let place = draw(&mut state, handles.len() as u64) as usize;
        let handle = handles.get(place).copied().unwrap_or(nobody);
        // Times of growth and times of giving up, so that both ends are reached.
        let growing = at / 250 % 2 == 0;
        let asked = match (draw(&mut state, 32), growing) {
            (0..=1, _) => command::ROOT,
            (2..=7, _) => command::FORK,
            (8, _) | (9..=14, false) => command::RELEASE,
            (15..=18, false) => command::PRUNE,
            (19, true) if draw(&mut state, 4) == 0 => command::PRUNE,
            (20..=21, _) => command::WALK,
            (22..=23, _) => command::PAGES,
            _ => command::APPEND,
        };
        let answer = |segment| Answer {
            segment: Some(segment),
            ..Answer::default()
        };
        let listed = |list| Answer {
            list,
            ..Answer::default()
        };
        let answer = match asked {
            command::ROOT => table.root().map(answer),
            command::FORK => table.fork(handle).map(answer),
            command::RELEASE => table.release(handle).map(|()| Answer::default()),
            command::PRUNE => table.prune(handle).map(|()| Answer::default()),
            command::WALK => table
                .walk(handle)
                .map(|walk| listed(walk.into_iter().map(|segment| segment as usize).collect())),
            command::PAGES => table.pages(handle).map(listed),
            _ => table.append(handle).map(|slot| Answer {
                slot,
                ..Answer::default()
            }),
        };
        let (status, answer) = match answer {
            Ok(answer) => (status::OK, answer),
            Err(error) => (
                match error {
                    PoolError::Full { .. } | PoolError::PageTokens => status::FULL,
                    PoolError::Freed => status::FREED,
                    PoolError::Released => status::RELEASED,
                    PoolError::Frozen => status::FROZEN,
                    PoolError::Segments => status::SEGMENTS,
                },
                Answer::default(),
            ),
        };
        // A freed one is asked for again now and then.
        if status == status::FREED && !handles.is_empty() && draw(&mut state, 8) > 0 {
            handles.swap_remove(place);
        }
        if let Some(segment) = answer.segment {
            if handles.len() < HANDLES {
                handles.push(segment);
            } else {
                handles[place] = segment;
            }
        }
        for &item in &answer.list {
            items += &hex_line(&bits(item as u128, 12));
        }
        let usage = table.usage();
        let segment = answer.segment.unwrap_or(nobody);
        commands += &hex_line(
            &[
                bits(asked.into(), 3),
                bits(handle.segment.into(), 12),
                bits(handle.generation.into(), 8),
                bits(status.into(), 3),
                bits(segment.segment.into(), 12),
                bits(segment.generation.into(), 8),
                bits(answer.slot.0 as u128, 12),
                bits(answer.slot.1 as u128, 8),
                bits(answer.list.len() as u128, 13),
                bits(usage.pages as u128, 16),
                bits(usage.segments as u128, 16),
            ]
            .concat(),
        );
    }
    let (segment_bits, page_bits) = config.number_bits();
    let verilog = filled(
        include_str!("page_table_tb.v"),
        &[
            ("COMMANDS", lines(&commands)),
            ("ITEMS", lines(&items)),
            ("S", segment_bits as usize),
            ("P", page_bits as usize),
        ],
    );
    let vectors = vec![("commands", commands), ("items", items)];
    Ok(Testbench::new(PAGE_TABLE_TOP, verilog, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(testbench: &'a Testbench, name: &str) -> &'a str {
        let (_, bytes) = testbench
            .files
            .iter()
            .find(|(path, _)| path == name)
            .unwrap();
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_selector_has_selections() {
        for leaves in crate::ets::LEAVES {
            for nodes in [16, 1024, 4096] {
                let testbench = selector(SelectorConfig { leaves, nodes }, 1).unwrap();
                let jobs = lines(text(&testbench, "tb/jobs.hex"));
                assert_eq!(jobs, SELECTIONS, "{leaves} leaves, {nodes} nodes");
                let verilog = text(&testbench, "tb/fgmp_tree_selector_tb.v");
                assert!(!verilog.contains("= @"), "{verilog}");
            }
        }
    }

    #[test]
    fn commands_meet_every_answer() {
        let config = PageTableConfig {
            segments: 64,
            pages: 40,
            page_tokens: 2,
        };
        let testbench = page_table(config, 1).unwrap();
        let mut seen = [0; 8];
        for line in text(&testbench, "tb/commands.hex").lines() {
            let word = u128::from_str_radix(line, 16).unwrap();
            seen[(word >> 85 & 7) as usize] += 1;
        }
        // Neither an unknown command nor a fault.
        assert!(seen[..6].iter().all(|&count| count > 0), "{seen:?}");
        assert_eq!(seen[6..], [0, 0]);
    }
}
