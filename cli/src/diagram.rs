//! The pipeline of speculative decoding as a picture: tokens down, passes across.

use anyhow::anyhow;
use golden::speed::Passage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A row of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    pass: usize,
    position: usize,
    repetition: usize,
    class: u32,
    /// Its class changed, and what was younger was dropped behind this pass.
    flipped: bool,
    /// It was dropped behind this pass.
    dropped: bool,
    /// Its class was committed behind this pass.
    committed: bool,
}

/// What the passes of one sequence ran.
#[derive(Clone, Debug, Default)]
pub struct Diagram {
    cells: Vec<Cell>,
    passes: usize,
}

impl Diagram {
    /// Takes a pass of sequence 0.
    pub fn record(&mut self, passage: &Passage<'_>) {
        let Some(resolution) = passage.resolutions.first() else {
            return;
        };
        let last = passage.rows.iter().map(|row| row.repetition).max();
        for (row, class) in passage.rows.iter().zip(passage.classes) {
            let committed = resolution
                .committed
                .is_some_and(|(position, _)| position == row.position + 1);
            let ends = last == Some(row.repetition) && committed;
            self.cells.push(Cell {
                pass: self.passes,
                position: row.position,
                repetition: row.repetition,
                class: class.unwrap_or_default(),
                flipped: resolution.flip == Some(row.repetition),
                dropped: resolution.flip.is_some_and(|stage| row.repetition < stage),
                committed: ends,
            });
        }
        self.passes += 1;
    }

    /// Passes so far.
    pub const fn passes(&self) -> usize {
        self.passes
    }

    /// The first passes as lines of text: a column a repetition, in it the position that is predicted and the class; `!` where a class changed, `x` where a token was dropped, `=` where one was
    /// committed.
    pub fn to_text(&self, passes: usize, name: impl Fn(u32) -> String) -> Vec<Vec<String>> {
        let stages = self.cells.iter().map(|cell| cell.repetition + 1).max();
        (0..passes.min(self.passes))
            .map(|pass| {
                let mut line = vec![(pass + 1).to_string()];
                line.resize(1 + stages.unwrap_or(0), String::new());
                for cell in self.cells.iter().filter(|cell| cell.pass == pass) {
                    let mark = match cell {
                        Cell {
                            committed: true,
                            flipped: true,
                            ..
                        } => "!=",
                        Cell {
                            committed: true, ..
                        } => "=",
                        Cell { flipped: true, .. } => "!",
                        Cell { dropped: true, .. } => "x",
                        _ => "",
                    };
                    line[cell.repetition + 1] =
                        format!("{} {} {mark}", cell.position + 1, name(cell.class));
                }
                line
            })
            .collect()
    }

    /// The first passes as an SVG; `name` is the text of a token.
    pub fn to_svg(&self, passes: usize, name: impl Fn(u32) -> String) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg, passes, name)
            .map_err(|error| anyhow!("the diagram can't be drawn: {error}"))?;
        Ok(svg)
    }

    fn draw(
        &self,
        svg: &mut String,
        passes: usize,
        name: impl Fn(u32) -> String,
    ) -> Result<(), Box<dyn std::error::Error>> {
        const FONT: &str = "sans-serif";
        const CELL: (i32, i32) = (58, 24);
        const LEFT: i32 = 110;
        const TOP: i32 = 64;
        let shown: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| cell.pass < passes)
            .collect();
        let columns = shown.iter().map(|cell| cell.pass + 1).max().unwrap_or(0) as i32;
        let first = shown.iter().map(|cell| cell.position).min().unwrap_or(0);
        let last = shown.iter().map(|cell| cell.position).max().unwrap_or(0);
        let rows = (last - first + 1) as i32;
        let width = LEFT + columns * CELL.0 + 20;
        let height = TOP + rows * CELL.1 + 52;
        let root = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let text = |size: i32, h: HPos| {
            (FONT, size)
                .into_font()
                .color(&BLACK)
                .pos(Pos::new(h, VPos::Center))
        };
        root.draw(&Text::new(
            "pass",
            (LEFT - 10, TOP - 14),
            text(13, HPos::Right),
        ))?;
        for column in 0..columns {
            let x = LEFT + column * CELL.0 + CELL.0 / 2;
            root.draw(&Text::new(
                (column + 1).to_string(),
                (x, TOP - 14),
                text(13, HPos::Center),
            ))?;
        }
        for row in 0..rows {
            let position = first + row as usize;
            let y = TOP + row * CELL.1 + CELL.1 / 2;
            let committed = self
                .cells
                .iter()
                .find(|cell| cell.committed && cell.position == position);
            let label = committed.map_or_else(String::new, |cell| short(&name(cell.class), 9));
            root.draw(&Text::new(
                format!("{} {label}", position + 1),
                (LEFT - 10, y),
                text(13, HPos::Right),
            ))?;
        }
        for cell in shown {
            let x = LEFT + cell.pass as i32 * CELL.0;
            let y = TOP + (cell.position - first) as i32 * CELL.1;
            let corners = [(x + 1, y + 1), (x + CELL.0 - 1, y + CELL.1 - 1)];
            let color = shade(cell);
            root.draw(&Rectangle::new(corners, color.filled()))?;
            if cell.flipped || cell.committed {
                let border = if cell.flipped { RED } else { BLACK };
                root.draw(&Rectangle::new(corners, border.stroke_width(2)))?;
            }
            if cell.dropped {
                let ends = [(x + 4, y + CELL.1 / 2), (x + CELL.0 - 4, y + CELL.1 / 2)];
                root.draw(&PathElement::new(ends, RED.stroke_width(1)))?;
            }
            root.draw(&Text::new(
                short(&name(cell.class), 7),
                (x + CELL.0 / 2, y + CELL.1 / 2),
                text(11, HPos::Center),
            ))?;
        }
        root.draw(&Text::new(
            "speculative decoding: what the classifier says of each token (down: position predicted) behind each pass",
            (12, 20),
            text(14, HPos::Left),
        ))?;
        root.draw(&Text::new(
            "the darker, the later the repetition; red frame: class changed, tokens struck out are dropped; black frame: committed",
            (12, height - 20),
            text(12, HPos::Left),
        ))?;
        root.present()?;
        Ok(())
    }
}

/// Of a cell by its repetition: lighter is earlier; grey if it was dropped.
fn shade(cell: &Cell) -> RGBColor {
    if cell.dropped {
        return RGBColor(225, 225, 225);
    }
    let step = 34 * cell.repetition.min(5) as u8;
    RGBColor(222 - step, 235 - step / 2, 247 - step / 6)
}

/// At most so many characters.
fn short(text: &str, most: usize) -> String {
    let text = text.replace('\n', "⏎");
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
