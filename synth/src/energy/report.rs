//! What was measured, and what follows from it for layers and models.

use std::collections::BTreeMap;
use std::path::Path;

use gates::energy::{Conditions, Energy};
use gates::liberty::Library;
use golden::mac::Mode;
use golden::model::Matrix;
use serde::{Deserialize, Serialize};

use super::Options;
use super::data::{Blocks, Product, Sample, products};
use crate::asic::MappedReport;
use crate::table::Status;

/// Bits of a packed block with its tag (numerics §2).
const FP4_BITS: f64 = 73.0;
const FP8_BITS: f64 = 129.0;
/// Of a tensor that has only FP8 blocks, which needs no tags.
const UNTAGGED_BITS: f64 = 128.0;

/// The node of a library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryNode {
    /// What its name begins with.
    pub prefix: String,
    /// nm.
    pub node_nm: f64,
}

/// What memory costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficients {
    /// How reports call them.
    pub name: String,
    /// Where they are from.
    pub source: String,
    /// Node at which the on-chip figure holds.
    pub node_nm: f64,
    /// Supply in V at which it holds.
    pub voltage: f64,
    /// pJ a bit read from or written to a buffer beside the array; scaled to the library's node and supply.
    pub buffer_pj_per_bit: f64,
    /// pJ a bit from DRAM; not scaled.
    pub dram_pj_per_bit: f64,
    /// Nodes of libraries, which Liberty files don't tell.
    pub libraries: Vec<LibraryNode>,
}

/// Why coefficients can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CoefficientsError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's message.
        source: std::io::Error,
    },
    /// The text is no coefficients.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A figure is negative, zero or not finite.
    #[error("{path}: {what} must be positive, found {found}")]
    Value {
        /// The file.
        path: String,
        /// Which figure.
        what: &'static str,
        /// What it is.
        found: f64,
    },
}

impl Coefficients {
    /// Those that come with the program.
    ///
    /// # Errors
    /// Never, unless the program was built with a broken file.
    pub fn embedded() -> Result<Self, CoefficientsError> {
        Self::parse("energy.json", include_str!("../energy.json"))
    }

    /// Those of a file.
    ///
    /// # Errors
    /// It can't be read, or has no meaning.
    pub fn open(path: &Path) -> Result<Self, CoefficientsError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| CoefficientsError::File {
            path: name.clone(),
            source,
        })?;
        Self::parse(&name, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Self, CoefficientsError> {
        let it: Self = serde_json::from_str(text).map_err(|source| CoefficientsError::Json {
            path: path.to_owned(),
            source,
        })?;
        let nodes = it
            .libraries
            .iter()
            .map(|l| ("libraries.node_nm", l.node_nm));
        for (what, found) in [
            ("node_nm", it.node_nm),
            ("voltage", it.voltage),
            ("buffer_pj_per_bit", it.buffer_pj_per_bit),
            ("dram_pj_per_bit", it.dram_pj_per_bit),
        ]
        .into_iter()
        .chain(nodes)
        {
            if !(found > 0.0 && found.is_finite()) {
                return Err(CoefficientsError::Value {
                    path: path.to_owned(),
                    what,
                    found,
                });
            }
        }
        Ok(it)
    }

    /// What a figure at the reference is multiplied with for a library: capacitance goes with the node, energy with the square of the
    /// supply. 1 for a library of unknown node.
    #[must_use]
    pub fn scale(&self, library: &Library) -> f64 {
        let node = self
            .libraries
            .iter()
            .find(|known| library.name.starts_with(&known.prefix))
            .map(|known| known.node_nm);
        node.map_or(1.0, |node| {
            node / self.node_nm * (library.voltage / self.voltage).powi(2)
        })
    }
}

/// A figure over seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value; zeros of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        let middle = values.len() / 2;
        Self {
            min: at(0),
            median: if values.len() % 2 == 1 || values.is_empty() {
                at(middle)
            } else {
                (at(middle - 1) + at(middle)) / 2.0
            },
            max: at(values.len().saturating_sub(1)),
        }
    }
}

/// A figure without and with glitches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bracket {
    /// No delays: each net changes at most once a cycle.
    pub zero_delay: Spread,
    /// With the library's delays.
    pub timed: Spread,
}

impl Bracket {
    fn medians(&self) -> [f64; 2] {
        [self.zero_delay.median, self.timed.median]
    }
}

/// A mapped part.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Cells, area, path.
    pub mapped: MappedReport,
    /// ns of its slowest path at the conditions of the measurement, wires included, setup not; the clock period for leakage.
    pub critical_path_ns: f64,
    /// Enables that gate a clock.
    pub clock_gates: usize,
}

/// What a stream of blocks costs on a part.
#[derive(Debug, Clone, Serialize)]
pub struct StreamRow {
    /// The part.
    pub part: &'static str,
    /// Which blocks.
    pub stream: String,
    /// What the figures are for one of.
    pub unit: &'static str,
    /// How many were simulated without delays, over all seeds.
    pub units_zero_delay: u64,
    /// How many with.
    pub units_timed: u64,
    /// pJ.
    pub energy: Bracket,
    /// pJ of each seed, without and with glitches.
    pub by_seed: Vec<[f64; 2]>,
    /// pJ by kind, mean over seeds, without delays.
    pub zero_delay: Energy,
    /// The same with delays.
    pub timed: Energy,
    /// Changes of nets, without and with delays.
    pub toggles: [f64; 2],
    /// pJ by register and the logic before it, with delays, mean over seeds.
    pub by_group: BTreeMap<String, Energy>,
}

/// The model at a share of FP8 blocks. All energies in pJ a block pair; pairs of figures are without and with glitches.
#[derive(Debug, Clone, Serialize)]
pub struct ShareRow {
    /// Target share of FP8 blocks on both sides.
    pub share: f64,
    /// Share of FP8 blocks among those in memory: weights, activations of the tokens that were used.
    pub fp8_blocks: [f64; 2],
    /// Pairs by mode, as shares. A block counts as often as it is used, so that its FP8 share may differ much from that in memory.
    pub modes: [f64; 4],
    /// Processing element.
    pub datapath: [f64; 2],
    /// Decoders, each shared by a row or a column.
    pub decoder: [f64; 2],
    /// Activation quantizer, each block going into many products.
    pub quantizer: [f64; 2],
    /// Buffers beside the array.
    pub buffer: f64,
    /// Weights from DRAM.
    pub dram: f64,
    /// All.
    pub total: [f64; 2],
    /// How far the datapath is below the FP8 element's at FP8 alone.
    pub datapath_saving: [f64; 2],
    /// How far all is below a machine of FP8 alone, without quantizer and tags.
    pub total_saving: [f64; 2],
    /// How far all is below the same machine at 100 % FP8.
    pub same_machine_saving: [f64; 2],
}

/// A matrix at 30 % FP8, all its repetitions together.
#[derive(Debug, Clone, Serialize)]
pub struct LayerRow {
    /// Which layer.
    pub layer: usize,
    /// Which matrix.
    pub matrix: Matrix,
    /// Block pairs a token.
    pub pairs: f64,
    /// Of them by mode.
    pub modes: [f64; 4],
    /// nJ a token in the datapath: each mode's own energy, times the mixing factor.
    pub datapath_nj: [f64; 2],
    /// nJ a token with memory and quantizer.
    pub total_nj: [f64; 2],
    /// How far the datapath is below FP8 alone.
    pub datapath_saving: [f64; 2],
    /// How far all is.
    pub total_saving: [f64; 2],
}

/// A bar and how it was met.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// What it says.
    pub text: &'static str,
    /// At least this, or at most.
    pub bound: f64,
    /// What was measured, without and with glitches.
    pub value: [f64; 2],
    /// What the seeds, each by itself, give: without glitches, with.
    pub over_seeds: [Spread; 2],
    /// By the worse end of the bracket.
    pub status: Status,
}

/// All figures with or without gated clocks.
#[derive(Debug, Clone, Serialize)]
pub struct Variant {
    /// Whether registers that don't load are not clocked.
    pub clock_gating: bool,
    /// The parts.
    pub parts: Vec<Part>,
    /// What streams cost.
    pub streams: Vec<StreamRow>,
    /// All-FP8 machine, pJ a block pair: datapath, decoder, buffer and DRAM; without and with glitches.
    pub baseline: [[f64; 2]; 4],
    /// What a mixed stream at 30 % costs, by the sum of its pairs' modes: changing modes costs, too.
    pub mixing: [f64; 2],
    /// The model by share.
    pub shares: Vec<ShareRow>,
    /// Its matrices.
    pub layers: Vec<LayerRow>,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// Tokens whose activations were used.
    pub tokens: usize,
    /// How FP8 blocks were chosen.
    pub selection: &'static str,
    /// The library.
    pub library: String,
    /// Its operating conditions.
    pub corner: String,
    /// V.
    pub voltage: f64,
    /// Wires, slews, loads.
    pub conditions: Conditions,
    /// Rows and columns of the array.
    pub array: [usize; 2],
    /// Tokens that share a reading of the weights.
    pub batch: usize,
    /// Slices of the data.
    pub seeds: usize,
    /// What memory costs at the reference.
    pub coefficients: Coefficients,
    /// What the on-chip figure was multiplied with.
    pub memory_scale: f64,
    /// With and without gated clocks.
    pub variants: Vec<Variant>,
}

/// Traffic of one product for one token.
struct Traffic {
    modes: [f64; 4],
    weight_bits: f64,
    act_bits: f64,
}

fn traffic(blocks: &Blocks, product: &Product, untagged: bool) -> Traffic {
    let modes = blocks.modes(product);
    let pairs: f64 = modes.iter().sum();
    let mean = |fp8: f64| {
        if untagged {
            UNTAGGED_BITS
        } else {
            FP4_BITS + (FP8_BITS - FP4_BITS) * fp8 / pairs.max(1.0)
        }
    };
    Traffic {
        modes,
        weight_bits: mean(modes[2] + modes[3]),
        act_bits: mean(modes[1] + modes[3]),
    }
}

/// pJ of memory for one token of a product: buffers, DRAM.
struct Memory<'a> {
    options: &'a Options,
    buffer: f64,
}

impl Memory<'_> {
    fn of(&self, product: &Product, traffic: &Traffic) -> [f64; 2] {
        let options = self.options;
        let pairs: f64 = traffic.modes.iter().sum();
        // The array reads a weight block for a row of elements, an activation block for a column.
        let operands = pairs
            * (traffic.weight_bits / options.cols as f64 + traffic.act_bits / options.rows as f64);
        // BF16 results, written once; and of each input block, which several matrices share, its BF16 elements read and its packed form written.
        let results = product.rows as f64 * 16.0;
        let share = 1.0 / product.site.input.matrices().len() as f64;
        let inputs = product.row_blocks as f64 * share * (256.0 + traffic.act_bits);
        let dram = pairs * traffic.weight_bits / options.batch as f64;
        [
            (operands + results + inputs) * self.buffer,
            dram * options.coefficients.dram_pj_per_bit,
        ]
    }
}

fn saving(value: [f64; 2], of: [f64; 2]) -> [f64; 2] {
    [1.0 - value[0] / of[0], 1.0 - value[1] / of[1]]
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

fn times(a: [f64; 2], factor: f64) -> [f64; 2] {
    [a[0] * factor, a[1] * factor]
}

/// What the figures of a model are made from, besides the streams.
pub(super) struct Basis<'a> {
    pub options: &'a Options,
    pub library: &'a Library,
    pub sample: &'a Sample,
    /// By share.
    pub mixed: &'a [Blocks],
    pub fp8: &'a Blocks,
    pub at_30: &'a Blocks,
}

/// All figures of a variant, and how much they depend on the seed.
pub(super) fn variant(
    clock_gating: bool,
    parts: Vec<Part>,
    streams: Vec<StreamRow>,
    basis: &Basis<'_>,
) -> Variant {
    let (baseline, mixing, shares, layers, mut bars) =
        figures(&streams, basis, |row| row.energy.medians());
    let by_seed: Vec<Vec<Bar>> = (0..basis.options.seeds)
        .map(|seed| {
            let of_seed = |row: &StreamRow| row.by_seed.get(seed).copied().unwrap_or_default();
            figures(&streams, basis, of_seed).4
        })
        .collect();
    for (index, bar) in bars.iter_mut().enumerate() {
        bar.over_seeds = [0, 1].map(|end: usize| {
            let values = by_seed.iter().filter_map(|bars| bars.get(index));
            Spread::of(values.map(|bar| bar.value[end]).collect())
        });
    }
    Variant {
        clock_gating,
        parts,
        streams,
        baseline,
        mixing,
        shares,
        layers,
        bars,
    }
}

/// Baseline, mixing, shares, layers and bars of a [`Variant`] from one bracket of each stream.
type Figures = (
    [[f64; 2]; 4],
    [f64; 2],
    Vec<ShareRow>,
    Vec<LayerRow>,
    Vec<Bar>,
);

fn figures(
    streams: &[StreamRow],
    basis: &Basis<'_>,
    pick: impl Fn(&StreamRow) -> [f64; 2],
) -> Figures {
    let &Basis {
        options,
        library,
        sample,
        mixed,
        fp8,
        at_30,
    } = basis;
    let energy = |part: &str, stream: &str| {
        streams
            .iter()
            .find(|row| row.part == part && row.stream == stream)
            .map_or([0.0; 2], &pick)
    };
    let products = products(&sample.config);
    let memory = Memory {
        options,
        buffer: options.coefficients.buffer_pj_per_bit * options.coefficients.scale(library),
    };
    let name = |share: f64| super::share_name(share);
    let pairs: f64 = products
        .iter()
        .map(|p| (p.rows * p.row_blocks) as f64)
        .sum();
    // A decoder works for a row of elements, another for a column.
    let shared = 1.0 / options.cols as f64 + 1.0 / options.rows as f64;
    let decoder_30 = energy("decoder", &name(0.3));
    let decoder_100 = energy("decoder", &name(1.0));
    // Blocks that are quantized for each pair.
    let quantized: f64 = products
        .iter()
        .map(|p| p.row_blocks as f64 / p.site.input.matrices().len() as f64)
        .sum::<f64>()
        / pairs;
    let serial = energy("serial_quantizer", &name(0.3));
    let quantizer = times(serial, quantized);
    let all_memory = |blocks: &Blocks, untagged: bool| {
        let mut sum = [0.0; 2];
        let mut modes = [0.0; 4];
        for product in &products {
            let traffic = traffic(blocks, product, untagged);
            sum = add(sum, memory.of(product, &traffic));
            for (sum, mode) in modes.iter_mut().zip(traffic.modes) {
                *sum += mode / pairs;
            }
        }
        (times(sum, 1.0 / pairs), modes)
    };

    let (fp8_memory, _) = all_memory(fp8, true);
    let fp8_datapath = energy("fp8_pe", Mode::Fp8Fp8.name());
    let fp8_decoder = times(decoder_100, shared);
    let fp8_total = add(
        add(fp8_datapath, fp8_decoder),
        [fp8_memory[0] + fp8_memory[1]; 2],
    );
    let total_at = |blocks: &Blocks, share: f64| {
        let (memory, modes) = all_memory(blocks, false);
        let datapath = energy("pe", &name(share));
        // Decoding costs the more the more bits change: between its two figures by the share.
        let towards = ((share - 0.3) / 0.7).max(-0.3 / 0.7);
        let decoder = [0, 1].map(|i| decoder_30[i] + (decoder_100[i] - decoder_30[i]) * towards);
        let decoder = times(decoder, shared);
        let total = add(
            add(add(datapath, decoder), quantizer),
            [memory[0] + memory[1]; 2],
        );
        (memory, modes, datapath, decoder, total)
    };
    let full = mixed
        .iter()
        .zip(&options.shares)
        .find(|(_, share)| **share >= 1.0)
        .map(|(blocks, share)| total_at(blocks, *share).4);
    let shares: Vec<ShareRow> = options
        .shares
        .iter()
        .zip(mixed)
        .map(|(&share, blocks)| {
            let (memory, modes, datapath, decoder, total) = total_at(blocks, share);
            ShareRow {
                share,
                fp8_blocks: blocks.fp8_shares(),
                modes,
                datapath,
                decoder,
                quantizer,
                buffer: memory[0],
                dram: memory[1],
                total,
                datapath_saving: saving(datapath, fp8_datapath),
                total_saving: saving(total, fp8_total),
                same_machine_saving: saving(total, full.unwrap_or(total)),
            }
        })
        .collect();

    let modes_30 = all_memory(at_30, false).1;
    let by_mode: Vec<[f64; 2]> = Mode::ALL
        .iter()
        .map(|mode| energy("pe", mode.name()))
        .collect();
    let sum_of_modes = |modes: &[f64; 4]| {
        modes
            .iter()
            .zip(&by_mode)
            .fold([0.0; 2], |sum, (&share, &mode)| {
                add(sum, times(mode, share))
            })
    };
    let pure = sum_of_modes(&modes_30);
    let stream_30 = energy("pe", &name(0.3));
    let mixing = [0, 1].map(|i| {
        if pure[i] > 0.0 {
            stream_30[i] / pure[i]
        } else {
            1.0
        }
    });
    let mut layers: Vec<LayerRow> = Vec::new();
    let mut base: Vec<([f64; 2], [f64; 2])> = Vec::new();
    for product in &products {
        let traffic_30 = traffic(at_30, product, false);
        let pairs: f64 = traffic_30.modes.iter().sum();
        let pure = sum_of_modes(&traffic_30.modes);
        let datapath = [pure[0] * mixing[0], pure[1] * mixing[1]];
        let blocks = product.row_blocks as f64 / product.site.input.matrices().len() as f64;
        let [buffer, dram] = memory.of(product, &traffic_30);
        let fixed = add(times(serial, blocks), times(decoder_30, shared * pairs));
        let total = add(add(datapath, fixed), [buffer + dram; 2]);
        let [buffer, dram] = memory.of(product, &traffic(fp8, product, true));
        let base_datapath = times(fp8_datapath, pairs);
        let base_total = add(
            add(base_datapath, times(fp8_decoder, pairs)),
            [buffer + dram; 2],
        );
        let at = layers
            .iter()
            .position(|row| row.layer == product.site.layer && row.matrix == product.matrix)
            .unwrap_or_else(|| {
                layers.push(LayerRow {
                    layer: product.site.layer,
                    matrix: product.matrix,
                    pairs: 0.0,
                    modes: [0.0; 4],
                    datapath_nj: [0.0; 2],
                    total_nj: [0.0; 2],
                    datapath_saving: [0.0; 2],
                    total_saving: [0.0; 2],
                });
                base.push(([0.0; 2], [0.0; 2]));
                layers.len() - 1
            });
        let row = &mut layers[at];
        row.pairs += pairs;
        for (sum, mode) in row.modes.iter_mut().zip(traffic_30.modes) {
            *sum += mode;
        }
        row.datapath_nj = add(row.datapath_nj, times(datapath, 1e-3));
        row.total_nj = add(row.total_nj, times(total, 1e-3));
        base[at].0 = add(base[at].0, times(base_datapath, 1e-3));
        base[at].1 = add(base[at].1, times(base_total, 1e-3));
        row.datapath_saving = saving(row.datapath_nj, base[at].0);
        row.total_saving = saving(row.total_nj, base[at].1);
    }

    let mut bars = Vec::new();
    if let Some(row) = shares.iter().find(|row| (row.share - 0.3).abs() < 1e-9) {
        let least = |text, bound: f64, value: [f64; 2]| {
            let worse = value[0].min(value[1]);
            Bar {
                text,
                bound,
                value,
                over_seeds: Default::default(),
                status: status(worse >= bound, worse >= bound * 0.9),
            }
        };
        bars.push(least(
            "model at 30 % FP8, memory included: at least 14 % below all-FP8",
            0.14,
            row.total_saving,
        ));
        bars.push(least(
            "datapath alone at 30 % FP8: at least 30 % below all-FP8",
            0.30,
            row.datapath_saving,
        ));
        let value = [0, 1].map(|i| row.quantizer[i] / row.datapath[i]);
        let worse = value[0].max(value[1]);
        bars.push(Bar {
            text: "activation quantizer (serial): below 2 % of the datapath's energy",
            bound: 0.02,
            value,
            over_seeds: Default::default(),
            status: status(worse < 0.02, worse < 0.022),
        });
    }
    let baseline = [
        fp8_datapath,
        fp8_decoder,
        [fp8_memory[0]; 2],
        [fp8_memory[1]; 2],
    ];
    (baseline, mixing, shares, layers, bars)
}

const fn status(met: bool, nearly: bool) -> Status {
    match (met, nearly) {
        (true, _) => Status::Green,
        (false, true) => Status::Amber,
        (false, false) => Status::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }

    #[test]
    fn coefficients_are_checked() {
        assert!(Coefficients::embedded().is_ok());
        let text = include_str!("../energy.json").replace("20.3125", "-1");
        let error = Coefficients::parse("mine.json", &text).expect_err("it is negative");
        assert!(
            error.to_string().contains("mine.json: dram_pj_per_bit"),
            "{error}"
        );
        assert!(Coefficients::parse("mine.json", "{}").is_err());
    }
}
