//! How large an engine a board holds: an estimate from engines that were measured, and the largest array by it.
//!
//! Cells and block memories of an engine are a linear function of a few numbers of its configuration ([`terms`]), with coefficients found by least
//! squares of the relative error, for each family. What came with the program was measured by [`measure`], which maps engines and has nextpnr pack them into cells.

use golden::format::BLOCK;
use hdl::board::BoardConfig;
use hdl::build::{BuildError, emit_board};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};
use synth::nextpnr::Usage;
use synth::yosys::Hierarchy;

use crate::flow::{FlowError, synthesize};
use crate::{Board, Family};

/// What an engine takes of a device, in nextpnr's cells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Cells that hold a table of four inputs: logic cells.
    pub logic: f64,
    /// Registers, where they are cells of their own. In iCE40 they are in the logic cells.
    pub registers: f64,
    /// Block memories.
    pub memories: f64,
}

/// A measured engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Family.
    pub family: Family,
    /// The engine.
    pub config: BoardConfig,
    /// Its size with a board's top around it.
    pub size: Size,
}

/// Engines that were measured and come with the program, a line of JSON each.
const SHIPPED: &str = include_str!("../data/engines.jsonl");

/// The measured engines that come with the program.
#[must_use]
pub fn shipped() -> Vec<Sample> {
    SHIPPED
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Share of a device's cells up to which engines are tried. What doesn't succeed is followed by the next smaller. 87 % of an LFE5U-25F is routed in minutes.
const FILL: f64 = 0.88;
/// The same of devices with more than [`MANY_CELLS`]: what was routed to the end. `docs/boards.md` tells what became of larger ones.
const FILL_OF_LARGE: f64 = 0.77;
const MANY_CELLS: u32 = 40_000;

impl Family {
    /// How designs of the family are mapped for boards: ECP5 holds many processing elements, which are mapped once; of the others' flows, one keeps modules
    /// apart badly, and the other has devices of one processing element.
    #[must_use]
    pub const fn hierarchy(self) -> Hierarchy {
        match self {
            Self::Ecp5 => Hierarchy::Late,
            Self::Ice40 | Self::Gowin => Hierarchy::Flat,
        }
    }

    /// The size that nextpnr's counts say.
    #[must_use]
    pub fn size(self, usage: &std::collections::BTreeMap<String, Usage>) -> Size {
        let sum = |kinds: &[&str]| -> f64 {
            usage
                .iter()
                .filter(|(kind, _)| kinds.contains(&kind.as_str()))
                .map(|(_, it)| it.used as f64)
                .sum()
        };
        match self {
            Self::Ice40 => Size {
                logic: sum(&["ICESTORM_LC"]),
                registers: 0.0,
                memories: sum(&["ICESTORM_RAM"]),
            },
            Self::Ecp5 => Size {
                logic: sum(&["TRELLIS_COMB"]),
                registers: sum(&["TRELLIS_FF"]),
                memories: sum(&["DP16KD"]),
            },
            // A carry cell takes the place of a table.
            Self::Gowin => Size {
                logic: sum(&["LUT4", "ALU"]),
                registers: sum(&["DFF"]),
                memories: sum(&["BSRAM"]),
            },
        }
    }
}

/// Maps engines for a board's family and counts their cells. `done` is told each.
///
/// # Errors
/// A configuration is refused, a program is missing or fails.
pub fn measure(
    board: &Board,
    configs: &[BoardConfig],
    mut done: impl FnMut(&Sample),
) -> Result<Vec<Sample>, SizingError> {
    let family = board.family;
    let mut samples = Vec::new();
    for &config in configs {
        let engine = emit_board(config)?.concatenated();
        let usage = synthesize(board, &engine, family.hierarchy())?.usage(board)?;
        let sample = Sample {
            family,
            config,
            size: family.size(&usage),
        };
        done(&sample);
        samples.push(sample);
    }
    Ok(samples)
}

/// Why engines can't be measured or a model not be made.
#[derive(Debug, thiserror::Error)]
pub enum SizingError {
    /// The engine can't be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It can't be mapped.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// Nothing is known of the family.
    #[error("no measured engines of {0} are known; `fgmp board measure` makes them")]
    NoSamples(Family),
    /// Least squares has no solution.
    #[error("the estimate can't be fitted: {0}")]
    Singular(&'static str),
    /// Not even the smallest engine fits.
    #[error(
        "by the estimate {board} doesn't hold even a 1 x 1 array: {logic:.0} of {cells} logic cells; give --rows and --cols to try all the same"
    )]
    TooSmall {
        /// The board.
        board: &'static str,
        /// Estimated cells.
        logic: f64,
        /// The device's.
        cells: u32,
    },
}

/// Numbers that the size of an engine depends on.
const TERMS: usize = 9;

/// What the size of an engine depends on.
#[must_use]
pub fn terms(config: &BoardConfig) -> [f64; TERMS] {
    let array = &config.array;
    let (rows, cols) = (array.rows as f64, array.cols as f64);
    let stages = array.pipeline as f64;
    let elements = rows * cols;
    let lanes = array.lanes as f64 / BLOCK as f64;
    [
        1.0,
        rows * lanes,
        cols * lanes,
        elements,
        elements * lanes,
        elements * lanes * stages,
        rows * array.weight_blocks as f64 + cols * array.act_blocks as f64,
        f64::from(u8::from(config.requantizer)),
        f64::from(u8::from(config.quantizer)),
    ]
}

/// The estimate for a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    logic: DVector<f64>,
    registers: DVector<f64>,
    memories: DVector<f64>,
    samples: Vec<Sample>,
}

impl Model {
    /// Fits the samples of a family.
    ///
    /// # Errors
    /// There are none.
    pub fn fit(samples: &[Sample], family: Family) -> Result<Self, SizingError> {
        let samples: Vec<Sample> = samples
            .iter()
            .filter(|it| it.family == family)
            .copied()
            .collect();
        if samples.is_empty() {
            return Err(SizingError::NoSamples(family));
        }
        Ok(Self {
            logic: solve(&samples, |size| size.logic)?,
            registers: solve(&samples, |size| size.registers)?,
            memories: solve(&samples, |size| size.memories)?,
            samples,
        })
    }

    /// The estimate for what comes with the program.
    ///
    /// # Errors
    /// As [`Model::fit`].
    pub fn of(family: Family) -> Result<Self, SizingError> {
        Self::fit(&shipped(), family)
    }

    /// The estimated size of an engine.
    #[must_use]
    pub fn predict(&self, config: &BoardConfig) -> Size {
        let terms = DVector::from_row_slice(&terms(config));
        Size {
            logic: self.logic.dot(&terms).max(0.0),
            registers: self.registers.dot(&terms).max(0.0),
            memories: self.memories.dot(&terms).max(0.0),
        }
    }

    /// Largest relative error of the logic cells over the samples, each predicted from the others.
    #[must_use]
    pub fn left_out(&self) -> Option<f64> {
        let errors = (0..self.samples.len()).filter_map(|index| {
            let mut others = self.samples.clone();
            let sample = others.remove(index);
            let coefficients = solve(&others, |size| size.logic).ok()?;
            let predicted = coefficients.dot(&DVector::from_row_slice(&terms(&sample.config)));
            Some((predicted / sample.size.logic - 1.0).abs())
        });
        errors.reduce(f64::max)
    }
}

/// Least squares of the relative error by singular values: a term that no sample varies gets no coefficient of its own.
fn solve(samples: &[Sample], of: impl Fn(Size) -> f64) -> Result<DVector<f64>, SizingError> {
    let rows: Vec<[f64; TERMS]> = samples.iter().map(|it| terms(&it.config)).collect();
    let weight = |index: usize| 1.0 / of(samples[index].size).max(1.0);
    // Terms differ by orders of magnitude; their largest values become one.
    let scales: Vec<f64> = (0..TERMS)
        .map(|term| {
            let largest = rows.iter().map(|row| row[term]).fold(0.0, f64::max);
            if largest > 0.0 { largest } else { 1.0 }
        })
        .collect();
    let matrix = DMatrix::from_fn(samples.len(), TERMS, |row, term| {
        rows[row][term] / scales[term] * weight(row)
    });
    let values = DVector::from_fn(samples.len(), |row, _| of(samples[row].size) * weight(row));
    let solution = matrix
        .svd(true, true)
        .solve(&values, 1e-9)
        .map_err(SizingError::Singular)?;
    Ok(DVector::from_fn(TERMS, |term, _| {
        solution[term] / scales[term]
    }))
}

/// Most rows or columns that are tried.
const MOST_SIDE: usize = 16;

/// Arrays of at least one column that a board holds by the estimate, the largest first, at most as wide as high. With equal numbers of processing elements the one
/// with the shorter longer side comes first. All else is as in `base`.
///
/// # Errors
/// None fits, or nothing is known of the family.
pub fn largest(
    board: &Board,
    base: &BoardConfig,
    model: &Model,
) -> Result<Vec<(BoardConfig, Size)>, SizingError> {
    let fits = |size: &Size| {
        let fill = if board.logic_cells > MANY_CELLS {
            FILL_OF_LARGE
        } else {
            FILL
        };
        let share = |used: f64, there: u32| used <= f64::from(there) * fill;
        share(size.logic, board.logic_cells)
            && share(size.registers, board.logic_cells)
            && size.memories <= f64::from(board.block_memories)
    };
    let mut found: Vec<(BoardConfig, Size)> = Vec::new();
    for rows in 1..=MOST_SIDE {
        for cols in 1..=rows {
            let mut config = *base;
            (config.array.rows, config.array.cols) = (rows, cols);
            let size = model.predict(&config);
            if fits(&size) && config.validate().is_ok() {
                found.push((config, size));
            }
        }
    }
    found.sort_by_key(|(config, _)| {
        let array = &config.array;
        (std::cmp::Reverse(array.rows * array.cols), array.rows)
    });
    if found.is_empty() {
        let mut config = *base;
        (config.array.rows, config.array.cols) = (1, 1);
        return Err(SizingError::TooSmall {
            board: board.name,
            logic: model.predict(&config).logic,
            cells: board.logic_cells,
        });
    }
    Ok(found)
}

/// Engines that the estimate is made of: sides, depths, stages and options, each varied.
#[must_use]
pub fn engines_to_measure(family: Family) -> Vec<BoardConfig> {
    let config = |rows, cols, pipeline, blocks, requantizer, quantizer| {
        let mut config = BoardConfig::default();
        config.array.rows = rows;
        config.array.cols = cols;
        config.array.pipeline = pipeline;
        config.array.weight_blocks = blocks;
        config.array.act_blocks = blocks;
        config.clocks_per_bit = 8;
        config.requantizer = requantizer;
        config.quantizer = quantizer;
        config
    };
    let mut configs = vec![
        config(1, 1, 7, 256, false, false),
        config(1, 1, 3, 256, false, false),
        config(2, 1, 7, 256, false, false),
        config(1, 2, 7, 256, false, false),
        config(2, 2, 5, 256, false, false),
        config(1, 1, 7, 512, false, false),
        config(1, 1, 9, 128, false, false),
        config(1, 1, 7, 256, true, false),
        config(1, 1, 7, 256, false, true),
    ];
    if family == Family::Ice40 {
        for (rows, stages) in [(1, 5), (1, 7), (2, 5)] {
            let mut halves = config(rows, 1, stages, 256, false, false);
            halves.array.lanes = BLOCK / 2;
            configs.push(halves);
        }
    } else {
        configs.extend([
            config(3, 2, 7, 512, false, false),
            config(2, 1, 7, 256, true, true),
            config(4, 3, 7, 256, false, false),
        ]);
    }
    configs
}
