//! A search's tree as a picture: steps from left to right, siblings with the same text once.

use std::collections::BTreeSet;

use anyhow::anyhow;
use golden::ets::live::{Event, Found, Trajectory};
use golden::ets::{NodeId, State};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::is_pruned;

/// What went on while the tree grew.
#[derive(Default)]
pub struct Drawing {
    /// Nodes that were continued.
    continued: BTreeSet<NodeId>,
}

/// Siblings that say the same.
struct Bundle {
    nodes: Vec<NodeId>,
    text: String,
    depth: usize,
    parent: Option<usize>,
    children: Vec<usize>,
    row: f64,
}

const ROW: f64 = 17.0;
/// Width of a step's column: of Countdown's, and of text.
const COLUMNS: [i32; 2] = [250, 370];
/// Characters of a label that a column holds.
const CHARACTERS: [usize; 2] = [40, 58];
const TOP: i32 = 58;
const LEFT: i32 = 16;
/// Beyond this a bundle of the least kind is left out, with a note: a picture of thousands of rows shows nothing.
const MOST_ROWS: usize = 260;

impl Drawing {
    /// Takes a step.
    pub fn record(&mut self, event: &Event<'_>) {
        self.continued
            .extend(event.plan.iter().map(|&(leaf, _)| leaf));
    }

    /// The tree as an SVG. `solved` says which trajectories are right, where there is right and wrong; without it steps are taken to be text, which is long.
    pub fn to_svg(
        &self,
        problem: &str,
        found: &Found,
        answer: Option<&Trajectory>,
        solved: Option<&dyn Fn(&Trajectory) -> bool>,
    ) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg, problem, found, answer, solved)
            .map_err(|error| anyhow!("the tree can't be drawn: {error}"))?;
        Ok(svg)
    }

    /// Bundles of siblings, parents before their children.
    fn bundles(found: &Found) -> Result<Vec<Bundle>, golden::ets::TreeError> {
        let mut bundles: Vec<Bundle> = vec![Bundle {
            nodes: vec![0],
            text: String::new(),
            depth: 0,
            parent: None,
            children: Vec::new(),
            row: 0.0,
        }];
        // By node, its bundle. Parents come before their children.
        let mut of = vec![0; found.tree.len()];
        for node in 1..found.tree.len() {
            let Some(above) = found.tree.parent(node)? else {
                continue;
            };
            let parent = of[above];
            let text = found.texts[node].trim_end().to_owned();
            let twin = bundles[parent]
                .children
                .iter()
                .copied()
                .find(|&child| bundles[child].text == text);
            let bundle = match twin {
                Some(bundle) => {
                    bundles[bundle].nodes.push(node);
                    bundle
                }
                None => {
                    let depth = bundles[parent].depth + 1;
                    bundles.push(Bundle {
                        nodes: vec![node],
                        text,
                        depth,
                        parent: Some(parent),
                        children: Vec::new(),
                        row: 0.0,
                    });
                    let bundle = bundles.len() - 1;
                    bundles[parent].children.push(bundle);
                    bundle
                }
            };
            of[node] = bundle;
        }
        Ok(bundles)
    }

    fn draw(
        &self,
        svg: &mut String,
        problem: &str,
        found: &Found,
        answer: Option<&Trajectory>,
        solved: Option<&dyn Fn(&Trajectory) -> bool>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        const FONT: &str = "sans-serif";
        let column = COLUMNS[usize::from(solved.is_none())];
        let most = CHARACTERS[usize::from(solved.is_none())];
        let mut bundles = Self::bundles(found)?;
        let path: BTreeSet<NodeId> = match answer {
            Some(answer) => found.tree.path(answer.node)?.into_iter().collect(),
            None => BTreeSet::new(),
        };
        let right: BTreeSet<NodeId> = found
            .trajectories
            .iter()
            .filter(|it| solved.is_some_and(|solved| solved(it)))
            .map(|it| it.node)
            .collect();
        let elected = |bundle: &Bundle| bundle.nodes.iter().any(|node| path.contains(node));
        let goes_on = |bundle: &Bundle| {
            bundle
                .nodes
                .iter()
                .any(|node| self.continued.contains(node))
        };
        // The elected path first, then what went on, then by score: the best are at the top.
        let score = |bundle: &Bundle| {
            let scores = bundle
                .nodes
                .iter()
                .filter_map(|&node| found.tree.score(node).ok());
            scores.filter(|score| !score.is_nan()).fold(0f32, f32::max)
        };
        for place in 0..bundles.len() {
            let mut children = std::mem::take(&mut bundles[place].children);
            children.sort_by(|&a, &b| {
                let key = |it: usize| (elected(&bundles[it]), goes_on(&bundles[it]));
                key(b)
                    .cmp(&key(a))
                    .then(score(&bundles[b]).total_cmp(&score(&bundles[a])))
                    .then(a.cmp(&b))
            });
            bundles[place].children = children;
        }
        // Rows from the leaves up; of too many, pruned leaves are left out.
        let leaves = bundles.iter().filter(|it| it.children.is_empty()).count();
        let mut hidden = leaves.saturating_sub(MOST_ROWS);
        let left_out = hidden;
        let mut shown = vec![true; bundles.len()];
        for place in (0..bundles.len()).rev() {
            let bundle = &bundles[place];
            if hidden > 0
                && bundle.children.is_empty()
                && !elected(bundle)
                && bundle.nodes.iter().all(|&node| is_pruned(found, node))
            {
                shown[place] = false;
                hidden -= 1;
            }
        }
        let mut rows = 0;
        let mut stack = vec![(0usize, false)];
        while let Some((place, done)) = stack.pop() {
            let children: Vec<usize> = bundles[place]
                .children
                .iter()
                .copied()
                .filter(|&child| shown[child])
                .collect();
            if done {
                // Beside its first child, so that the elected path is a straight line.
                if let Some(&first) = children.first() {
                    bundles[place].row = bundles[first].row;
                }
            } else if children.is_empty() {
                bundles[place].row = f64::from(rows);
                rows += 1;
            } else {
                stack.push((place, true));
                stack.extend(children.into_iter().rev().map(|child| (child, false)));
            }
        }
        let depth = bundles.iter().map(|it| it.depth).max().unwrap_or(0) as i32;
        let width = LEFT + (depth + 1) * column + 20;
        let height = TOP + (f64::from(rows.max(1)) * ROW) as i32 + 54;
        let root = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let font = |size: i32, color: &RGBColor| {
            (FONT, size)
                .into_font()
                .color(color)
                .pos(Pos::new(HPos::Left, VPos::Center))
        };
        root.draw(&Text::new(
            format!(
                "tree search for {}: steps from left to right",
                short(problem, 100)
            ),
            (LEFT, 20),
            font(15, &BLACK),
        ))?;
        let ends = match solved {
            Some(_) => "green: right answer; red: wrong answer; thick: what the vote elected",
            None => "framed: complete; thick: what is elected",
        };
        root.draw(&Text::new(
            format!("blue: score of the reward model, the darker the better; grey: pruned; {ends}; ×: continuations with the same text"),
            (LEFT, 40),
            font(12, &BLACK),
        ))?;
        let at = |bundle: &Bundle| {
            (
                LEFT + bundle.depth as i32 * column,
                TOP + (bundle.row * ROW) as i32 + (ROW / 2.0) as i32,
            )
        };
        for (place, bundle) in bundles.iter().enumerate() {
            let Some(parent) = bundle
                .parent
                .map(|parent| &bundles[parent])
                .filter(|_| shown[place])
            else {
                continue;
            };
            let (x, y) = at(bundle);
            let (px, py) = at(parent);
            let bend = px + column - 30;
            let thick = elected(bundle);
            let color = if thick {
                BLACK
            } else if goes_on(bundle) || bundle.nodes.iter().any(|n| ended(found, *n)) {
                RGBColor(120, 150, 190)
            } else {
                RGBColor(215, 215, 215)
            };
            let line = vec![(bend - 8, py), (bend, py), (bend, y), (x - 4, y)];
            root.draw(&PathElement::new(
                line,
                color.stroke_width(if thick { 2 } else { 1 }),
            ))?;
        }
        for (place, bundle) in bundles.iter().enumerate() {
            if !shown[place] {
                continue;
            }
            let (x, y) = at(bundle);
            let answered = bundle.nodes.iter().any(|&node| ended(found, node));
            let is_right = bundle.nodes.iter().any(|node| right.contains(node));
            let pruned = !goes_on(bundle) && !answered && bundle.depth > 0;
            let fill = if bundle.depth == 0 {
                WHITE
            } else if pruned {
                RGBColor(238, 238, 238)
            } else {
                shade(score(bundle))
            };
            let corners = [(x - 4, y - 8), (x + column - 44, y + 8)];
            root.draw(&Rectangle::new(corners, fill.filled()))?;
            let border = if answered && solved.is_some() {
                let color = if is_right {
                    RGBColor(0, 140, 60)
                } else {
                    RGBColor(200, 40, 40)
                };
                Some(color.stroke_width(2))
            } else if answered && !elected(bundle) {
                Some(RGBColor(120, 150, 190).stroke_width(1))
            } else if elected(bundle) {
                Some(BLACK.stroke_width(2))
            } else {
                None
            };
            if let Some(border) = border {
                root.draw(&Rectangle::new(corners, border))?;
            }
            let times = if bundle.nodes.len() > 1 {
                format!(" ×{}", bundle.nodes.len())
            } else {
                String::new()
            };
            let label = if bundle.depth == 0 {
                short(problem, most)
            } else {
                let text = match solved {
                    Some(_) => bundle.text.replace(';', "; "),
                    None if bundle.text.trim().is_empty() => "(the text ends)".to_owned(),
                    None => short(&bundle.text, most),
                };
                format!("{text}  {:.2}{times}", score(bundle))
            };
            let dark = !pruned && score(bundle) > 0.6 && bundle.depth > 0;
            let color = if pruned {
                RGBColor(130, 130, 130)
            } else if dark {
                WHITE
            } else {
                BLACK
            };
            root.draw(&Text::new(label, (x, y), font(11, &color)))?;
        }
        let mut note = format!(
            "{} nodes, {} trajectories completed",
            found.tree.len(),
            found.trajectories.len()
        );
        if solved.is_some() {
            note = format!("{note}, {} of them right", right.len());
        }
        if left_out > hidden {
            note = format!("{note}; {} pruned texts are left out", left_out - hidden);
        }
        root.draw(&Text::new(note, (LEFT, height - 22), font(12, &BLACK)))?;
        root.present()?;
        Ok(())
    }
}

fn ended(found: &Found, node: NodeId) -> bool {
    matches!(
        found.tree.state(node),
        Ok(State::Completed | State::OverLong)
    )
}

/// The beginning of a text, on one line and in characters that XML may hold.
fn short(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ").replace(
        |it: char| it.is_control() || matches!(it, '\u{fffe}' | '\u{ffff}'),
        "\u{fffd}",
    );
    if line.chars().count() <= most {
        return line;
    }
    let beginning: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", beginning.trim_end())
}

/// Of a score from 0 to 1.
fn shade(score: f32) -> RGBColor {
    let step = (score.clamp(0.0, 1.0) * 170.0) as u8;
    RGBColor(225 - step, 238 - step / 2, 250 - step / 5)
}
