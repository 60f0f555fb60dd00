//! `fgmp board run`: text from a model whose linear layers run on a board.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use fpga::link::{
    Activations, Board, BoardError, FaultRates, Faulty, Identity, LinkOptions, Options, Product,
    SerialTransport, Transport, TransportError, TwinTransport, WeightKey, Weights,
};
use fpga::simulated::{FaultPlan, Setup, SimulatedBoard};
use golden::mac::Mode;
use golden::model::{
    Config, Input, KvCache, LanguageModel, Matrix, QuantizedModel, Site, Tally, Trunk, forward,
};
use golden::quantizer::WeightOptions;
use golden::requantize::OutputScale;
use golden::{Scheme, Share};
use half::bf16;
use hdl::board::BoardConfig;
use hdl::build::emit_board;
use hdl::config::ArrayConfig;
use serde::Serialize;
use synth::estimate::{PairEnergy, energies, energies_at, shipped_energies};
use synth::store::Store;

use crate::arguments::{EngineArguments, ModelArguments};
use crate::model::{Found, TokenReader, open};
use crate::output::{Outcome, Output, count, percent};

/// What is simulated if no board is named.
const SIMULATED: &str = "icebreaker";
/// Least patience with a simulated board.
const SIMULATION_SLACK: Duration = Duration::from_secs(10);
/// Library of the energies.
const LIBRARY: &str = "osu018";

/// Arguments of the command.
#[derive(Debug, Args)]
pub struct BoardRun {
    /// Serial port of the board; `sim` for the generated hardware in a simulator, `twin` for a model of the board in this process
    #[arg(long, value_name = "PATH|sim|twin", default_value = "twin")]
    pub port: String,
    /// Board that is on the port, or that is simulated (default with `sim` and `twin`: icebreaker)
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Model, packed or not (default: shared-4x3, embedded)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// What the text begins with
    #[arg(long, value_name = "TEXT", default_value = "Return a list of")]
    pub prompt: String,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub tokens: usize,
    /// Milliseconds to wait for an answer beyond the time that its bytes take
    #[arg(long, value_name = "MS", default_value_t = 300)]
    pub timeout: u64,
    /// Layers on the board: all of them, or those whose weights stay in its memories, the others being computed here
    #[arg(long, value_enum, default_value_t = Layers::All)]
    pub layers: Layers,
    /// With `twin`: hurt one byte in N on the line, both ways
    #[arg(long, value_name = "N")]
    pub faults: Option<f64>,
    /// With `twin` and `sim`; a board says itself what it is.
    #[command(flatten)]
    pub engine: EngineArguments,
    #[command(flatten)]
    pub model_arguments: ModelArguments,
}

/// Which layers run on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layers {
    /// All; weights that don't stay on the board are sent for each product
    All,
    /// Those whose weights all stay on the board
    Resident,
}

type AnyBoard = Board<Box<dyn Transport + Send>>;

#[derive(Serialize)]
struct Report {
    port: String,
    board: Option<String>,
    baud: u32,
    identity: IdentityReport,
    model: String,
    prompt: String,
    text: String,
    tokens: Vec<u32>,
    golden_tokens: Vec<u32>,
    tokens_equal: bool,
    results: u64,
    mismatches: u64,
    seconds: f64,
    comparing_seconds: f64,
    tokens_per_second: f64,
    link_seconds: f64,
    link_share: f64,
    line_seconds: f64,
    bytes_sent: u64,
    bytes_received: u64,
    commands: u64,
    repeated: u64,
    timeouts: u64,
    damaged: u64,
    recoveries: u64,
    pairs: [u64; 4],
    energy: Vec<Energy>,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct IdentityReport {
    rows: usize,
    cols: usize,
    weight_blocks: usize,
    act_blocks: usize,
    acc_bits: u32,
    quantizer: bool,
    requantizer: bool,
}

impl From<&Identity> for IdentityReport {
    fn from(it: &Identity) -> Self {
        Self {
            rows: it.rows,
            cols: it.cols,
            weight_blocks: it.weight_blocks,
            act_blocks: it.act_blocks,
            acc_bits: it.acc_bits,
            quantizer: it.quantizer,
            requantizer: it.requantizer,
        }
    }
}

/// What the block pairs would take in a standard-cell library.
#[derive(Serialize)]
struct Energy {
    library: String,
    clock_gating: bool,
    stages: usize,
    /// Without and with glitches.
    microjoules: [f64; 2],
}

/// An input of a layer and the matrices that it meets, all repetitions together.
#[derive(Clone, Serialize, Default)]
struct Layer {
    name: String,
    features: usize,
    k: usize,
    /// Absent if it ran on the board.
    on_host_because: Option<String>,
    resident_share: f64,
    seconds: f64,
    bytes_sent: u64,
    bytes_received: u64,
    pairs: u64,
    results: u64,
    mismatches: u64,
}

/// Runs the command.
pub fn run(arguments: &BoardRun, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let (model, reader, name) = quantized(arguments, output)?;
    let prompt = reader.prompt(&arguments.prompt)?;
    let config = *model.config();
    if prompt.is_empty() || arguments.tokens == 0 {
        bail!("--prompt and --tokens: expected at least one token of each");
    }
    if prompt.len() + arguments.tokens > config.context {
        bail!(
            "--tokens {}: with the prompt's {} tokens more than the model's context of {}",
            arguments.tokens,
            prompt.len(),
            config.context
        );
    }
    let (board, baud) = connect(arguments, seed, output)?;
    let identity = *board.identity();
    output.line(format!(
        "{name} on {} x {} processing elements behind {} at {baud} baud; memories of {} and {} blocks, accumulators of {} bits, quantizer {}, requantizer {}",
        identity.rows,
        identity.cols,
        arguments.port,
        identity.weight_blocks,
        identity.act_blocks,
        identity.acc_bits,
        if identity.quantizer { "on the board" } else { "on the host" },
        if identity.requantizer { "on the board" } else { "on the host" },
    ));

    let engine = OnBoard::new(&model, board, arguments.layers);
    let start = Instant::now();
    output.piece(&format!("\n{}", arguments.prompt));
    let mut shown = arguments.prompt.len();
    let mut tokens = prompt.clone();
    let stop = reader.begin_token();
    let first = prompt.len();
    let generated = generate(&engine, &prompt, arguments.tokens, stop, |token| {
        engine.check()?;
        tokens.push(token);
        // The first token of embedded models begins the document and is no text.
        let text = reader.text(&tokens[usize::from(stop.is_some())..])?;
        // A character may need several tokens.
        if let Some(piece) = text.get(shown..)
            && !piece.ends_with('\u{FFFD}')
        {
            output.piece(piece);
            shown = text.len();
        }
        Ok(())
    })?;
    engine.check()?;
    output.piece("\n\n");
    let wall = start.elapsed();
    let golden = generate(&model, &prompt, arguments.tokens, stop, |_| Ok(()))?;
    let state = engine.into_state()?;
    let text = reader.text(&tokens[first..])?;
    let report = report(
        arguments, &name, baud, wall, &state, text, generated, golden,
    )?;
    print(&report, output);
    output.json(&report)?;
    Ok(Outcome::of_check(
        report.tokens_equal && report.mismatches == 0,
    ))
}

/// The model, quantized if it is not.
fn quantized(
    arguments: &BoardRun,
    output: &Output,
) -> anyhow::Result<(QuantizedModel, TokenReader, String)> {
    let found = open(arguments.model.as_deref(), &arguments.model_arguments)?;
    Ok(match found {
        Found::Packed(model, reader) => {
            let name = arguments
                .model
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string());
            (*model, *reader, name)
        }
        Found::Full(prepared) => {
            let calibrated = prepared.calibrate(output)?;
            let scheme = Scheme::Fgmp {
                fp8_share: Share::FGMP,
            };
            let model = prepared.quantize(WeightOptions::new(scheme), &calibrated)?;
            let name = prepared.name.clone();
            (model, prepared.reader, name)
        }
    })
}

/// Opens the port, whatever is behind it.
fn connect(arguments: &BoardRun, seed: u64, output: &Output) -> anyhow::Result<(AnyBoard, u32)> {
    let board = arguments.board.as_deref().map(fpga::board).transpose()?;
    let real = !matches!(arguments.port.as_str(), "twin" | "sim");
    if arguments.faults.is_some() && arguments.port != "twin" {
        bail!("--faults: is for --port twin");
    }
    if arguments
        .faults
        .is_some_and(|bytes| bytes.is_nan() || bytes < 50.0)
    {
        bail!("--faults: expected at least 50 bytes to one that is hurt");
    }
    if real && arguments.engine.shape_is_given() {
        bail!(
            "--rows, --lanes, --units and the like: are for --port twin and --port sim; a board says itself what it is"
        );
    }
    let simulated = match board {
        Some(board) => board,
        None => fpga::board(SIMULATED)?,
    };
    let (engine, mut baud) = arguments.engine.engine(simulated)?;
    if real && board.is_none() {
        baud = arguments.engine.baud.context(
            "--board: says at what rate to talk to the port; or give the rate that the bitstream was built for with --baud",
        )?;
    }
    let mut options = Options {
        link: LinkOptions {
            slack: Duration::from_millis(arguments.timeout),
            ..LinkOptions::default()
        },
        ..Options::default()
    };
    let transport: Box<dyn Transport + Send> = match arguments.port.as_str() {
        "twin" => {
            // Nothing that is due comes later than at once.
            options.link.tries = 60;
            options.pause = Duration::ZERO;
            let twin = TwinTransport::new(engine, baud)?;
            let rates = arguments.faults.map(FaultRates::noise).unwrap_or_default();
            Box::new(Faulty::new(twin, rates, seed))
        }
        "sim" => {
            // Simulated time is slower than the line's, how much depends on the machine.
            options.link.slack = options.link.slack.max(SIMULATION_SLACK);
            Box::new(Simulated::start(simulated, engine, baud, output)?)
        }
        path => Box::new(SerialTransport::open(path, baud)?),
    };
    Ok((Board::connect(transport, options)?, baud))
}

/// The generated hardware of an engine in Verilator, behind a pseudo-terminal that is opened as a board's port is.
struct Simulated {
    port: SerialTransport,
    /// It runs as long as this lives.
    _board: SimulatedBoard,
}

impl Simulated {
    fn start(
        board: &fpga::Board,
        engine: BoardConfig,
        baud: u32,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let spinner = output.spinner("compiling the Verilog");
        let design = board.design(&emit_board(engine)?);
        let setup = Setup::of_board(board, &design, engine.clocks_per_bit, FaultPlan::default())?;
        let board = SimulatedBoard::start_with(&design, setup)?;
        spinner.finish_and_clear();
        let port = SerialTransport::open(&board.path().to_string_lossy(), baud)?;
        Ok(Self {
            port,
            _board: board,
        })
    }
}

impl Transport for Simulated {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.port.write_all(bytes)
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError> {
        self.port.read(buffer, patience)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        self.port.reopen()
    }

    fn rate(&self) -> u32 {
        self.port.rate()
    }

    fn name(&self) -> String {
        "the simulated board".into()
    }
}

/// The model's linear layers on a board, and what they took.
struct OnBoard<'a> {
    model: &'a QuantizedModel,
    state: Mutex<State>,
}

struct State {
    board: AnyBoard,
    /// By layer, in the order of [`Matrix::ALL`].
    keys: Vec<WeightKey>,
    /// By layer, in the order of [`Input::ALL`].
    layers: Vec<Layer>,
    /// After it nothing goes to the board any more.
    error: Option<BoardError>,
    /// Time in which the golden model computed what is compared.
    comparing: Duration,
}

const fn matrix_letter(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Query => "q",
        Matrix::Key => "k",
        Matrix::Value => "v",
        Matrix::Output => "o",
        Matrix::Gate => "gate",
        Matrix::Up => "up",
        Matrix::Down => "down",
    }
}

impl<'a> OnBoard<'a> {
    fn new(model: &'a QuantizedModel, mut board: AnyBoard, layers: Layers) -> Self {
        let tensors: Vec<_> = model.packed_tensors().map(|(_, tensor)| tensor).collect();
        let keys = board.keep(tensors);
        let config: Config = *model.config();
        let depth = board.identity().weight_blocks;
        let layers = (0..config.layers)
            .flat_map(|layer| Input::ALL.map(|input| (layer, input)))
            .map(|(layer, input)| {
                let matrices = input.matrices();
                let share = |&matrix: &Matrix| {
                    let key = keys.get(layer * Matrix::ALL.len() + matrix as usize);
                    key.and_then(|&key| board.resident_share(key).ok())
                        .unwrap_or_default()
                };
                let features = |&matrix: &Matrix| config.matrix_shape(matrix)[0];
                let all: usize = matrices.iter().map(features).sum();
                let resident: f64 = matrices
                    .iter()
                    .map(|matrix| share(matrix) * features(matrix) as f64)
                    .sum();
                let resident_share = resident / all as f64;
                let letters: Vec<_> = matrices.iter().map(|&m| matrix_letter(m)).collect();
                Layer {
                    name: format!("layers.{layer} {}", letters.join(" ")),
                    features: all,
                    k: config.input_width(input),
                    on_host_because: (layers == Layers::Resident && resident_share < 1.0).then(
                        || {
                            format!(
                                "{} of its weights don't fit the memories of {depth} blocks",
                                percent(1.0 - resident_share)
                            )
                        },
                    ),
                    resident_share,
                    ..Layer::default()
                }
            })
            .collect();
        Self {
            model,
            state: Mutex::new(State {
                board,
                keys,
                layers,
                error: None,
                comparing: Duration::ZERO,
            }),
        }
    }

    /// The error that the board ended with, if it did.
    fn check(&self) -> anyhow::Result<()> {
        let mut state = self.lock()?;
        match state.error.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn lock(&self) -> anyhow::Result<std::sync::MutexGuard<'_, State>> {
        self.state
            .lock()
            .map_err(|_| anyhow::anyhow!("the board's thread has ended"))
    }

    fn into_state(self) -> anyhow::Result<State> {
        self.state
            .into_inner()
            .map_err(|_| anyhow::anyhow!("the board's thread has ended"))
    }
}

impl LanguageModel for OnBoard<'_> {
    fn trunk(&self) -> &Trunk {
        self.model.trunk()
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        let start = Instant::now();
        let golden = self.model.project(site, x, tally);
        let comparing = start.elapsed();
        let Ok(mut state) = self.state.lock() else {
            return golden;
        };
        state.comparing += comparing;
        if state.error.is_some() {
            return golden;
        }
        match state.project(self.model, site, x, &golden) {
            Ok(products) => products.unwrap_or(golden),
            Err(error) => {
                // The generation stops at the next token.
                state.error = Some(error);
                golden
            }
        }
    }
}

impl State {
    /// The board's products; `None` if they are computed on the host.
    fn project(
        &mut self,
        model: &QuantizedModel,
        site: Site,
        x: &[f32],
        golden: &[Vec<f32>],
    ) -> Result<Option<Vec<Vec<f32>>>, BoardError> {
        let index = site.layer * Input::ALL.len() + site.input as usize;
        let Some(layer) = self.layers.get_mut(index) else {
            return Ok(None);
        };
        let Some(quantizer) = model.quantizer(site) else {
            return Ok(None);
        };
        if layer.on_host_because.is_some() {
            return Ok(None);
        }
        let x: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let matrices = site.input.matrices();
        let weights: Vec<Weights<'_>> = matrices
            .iter()
            .filter_map(|&matrix| {
                self.keys
                    .get(site.layer * Matrix::ALL.len() + matrix as usize)
            })
            .map(|&key| Weights::Kept(key))
            .collect();
        let scales: Vec<OutputScale> = matrices
            .iter()
            .filter_map(|&matrix| model.output_scale(site, matrix))
            .collect();
        let before = (*self.board.statistics(), self.board.pairs().total());
        let start = Instant::now();
        let activations = Activations::Elements { x: &x, quantizer };
        let products = self.board.products(&weights, activations, Some(&scales))?;
        layer.seconds += start.elapsed().as_secs_f64();
        let statistics = self.board.statistics();
        layer.bytes_sent += statistics.bytes_sent - before.0.bytes_sent;
        layer.bytes_received += statistics.bytes_received - before.0.bytes_received;
        layer.pairs += self.board.pairs().total() - before.1;
        let mut all = Vec::new();
        for (product, golden) in products.into_iter().zip(golden) {
            let Product::Bf16(results) = product else {
                continue;
            };
            layer.results += golden.len() as u64;
            layer.mismatches += results.len().abs_diff(golden.len()) as u64;
            layer.mismatches += results
                .iter()
                .zip(golden)
                .filter(|(result, golden)| result.to_bits() != bf16::from_f32(**golden).to_bits())
                .count() as u64;
            all.push(results.into_iter().map(bf16::to_f32).collect());
        }
        Ok(Some(all))
    }
}

/// Tokens behind a prompt, the most probable one each time, up to `count` of them or to `stop`; `each` sees them as they come.
fn generate(
    model: &dyn LanguageModel,
    prompt: &[u32],
    count: usize,
    stop: Option<u32>,
    mut each: impl FnMut(u32) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<u32>> {
    let config = *model.trunk().config();
    let mut cache = KvCache::new();
    let mut tally = Tally::new(&config);
    let mut generated = Vec::new();
    let mut next = prompt.to_vec();
    while generated.len() < count {
        let hidden = forward(model, &next, &mut cache, &mut tally, |_, _| ())?;
        let last = hidden
            .len()
            .checked_sub(config.hidden)
            .and_then(|start| hidden.get(start..))
            .unwrap_or_default();
        let logits = model.trunk().logits(last);
        let mut best = (0u32, f32::NEG_INFINITY);
        for (token, &logit) in (0u32..).zip(&logits) {
            if logit > best.1 {
                best = (token, logit);
            }
        }
        let token = best.0;
        if stop == Some(token) {
            break;
        }
        generated.push(token);
        each(token)?;
        next = vec![token];
    }
    Ok(generated)
}

#[allow(clippy::too_many_arguments)]
fn report(
    arguments: &BoardRun,
    model: &str,
    baud: u32,
    wall: Duration,
    state: &State,
    text: String,
    tokens: Vec<u32>,
    golden_tokens: Vec<u32>,
) -> anyhow::Result<Report> {
    let statistics = state.board.statistics();
    let seconds = wall.saturating_sub(state.comparing).as_secs_f64();
    let link_seconds = statistics.waiting.as_secs_f64();
    let pairs = state.board.pairs().0;
    let bytes = statistics.bytes_sent + statistics.bytes_received;
    Ok(Report {
        port: arguments.port.clone(),
        board: arguments.board.clone(),
        baud,
        identity: state.board.identity().into(),
        model: model.to_owned(),
        prompt: arguments.prompt.clone(),
        text,
        tokens_equal: tokens == golden_tokens,
        results: state.layers.iter().map(|layer| layer.results).sum(),
        mismatches: state.layers.iter().map(|layer| layer.mismatches).sum(),
        seconds,
        comparing_seconds: state.comparing.as_secs_f64(),
        tokens_per_second: tokens.len() as f64 / seconds,
        link_seconds,
        link_share: link_seconds / seconds,
        line_seconds: bytes as f64 * 10.0 / f64::from(baud.max(1)),
        bytes_sent: statistics.bytes_sent,
        bytes_received: statistics.bytes_received,
        commands: statistics.commands,
        repeated: statistics.repeated,
        timeouts: statistics.timeouts,
        damaged: statistics.damaged + statistics.complaints,
        recoveries: state.board.recoveries(),
        pairs,
        energy: energy(pairs)?,
        layers: state.layers.clone(),
        tokens,
        golden_tokens,
    })
}

/// What so many pairs by mode take in the library, at the default number of stages.
fn energy(pairs: [u64; 4]) -> anyhow::Result<Vec<Energy>> {
    let mut known = shipped_energies();
    known.extend(energies(&Store::open(Store::default_path())?.entries()));
    let stages = ArrayConfig::default().pipeline;
    let of = |it: &PairEnergy, glitches: usize| {
        pairs
            .iter()
            .zip(&it.pair_pj)
            .map(|(&count, pj)| count as f64 * pj[glitches] * 1e-6)
            .sum::<f64>()
    };
    // Modes cost what they cost, whatever share was chosen how; only the last column depends on it.
    let mut found: Vec<Energy> = Vec::new();
    for it in energies_at(&known, stages) {
        let known =
            |other: &Energy| other.library == it.library && other.clock_gating == it.clock_gating;
        if it.library.starts_with(LIBRARY) && !found.iter().any(known) {
            found.push(Energy {
                microjoules: [of(&it, 0), of(&it, 1)],
                library: it.library,
                clock_gating: it.clock_gating,
                stages,
            });
        }
    }
    Ok(found)
}

fn print(report: &Report, output: &Output) {
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|layer| {
            let place = match &layer.on_host_because {
                None => "board".to_owned(),
                Some(reason) => format!("host: {reason}"),
            };
            vec![
                layer.name.clone(),
                format!("{} x {}", layer.features, layer.k),
                place,
                percent(layer.resident_share),
                format!("{:.2}", layer.seconds),
                count(layer.bytes_sent),
                count(layer.bytes_received),
                count(layer.pairs),
                count(layer.results),
                layer.mismatches.to_string(),
            ]
        })
        .collect();
    output.table(
        &[
            "layer",
            "N x K",
            "runs on",
            "stays there",
            "seconds",
            "bytes to the board",
            "from it",
            "block pairs",
            "results",
            "mismatches",
        ],
        &rows,
    );
    output.line(format!(
        "{} tokens in {:.2} s, {:.2} tokens/s (the golden model's comparison of each product, {:.2} s, left out)",
        report.tokens.len(),
        report.seconds,
        report.tokens_per_second,
        report.comparing_seconds
    ));
    output.line(format!(
        "link: {} of the time waited for it; {} bytes to the board and {} back take {:.1} s at {} baud",
        percent(report.link_share),
        count(report.bytes_sent),
        count(report.bytes_received),
        report.line_seconds,
        report.baud
    ));
    output.line(format!(
        "commands {}, repeated {}, damaged frames {}, waits in vain {}, new beginnings {}",
        count(report.commands),
        count(report.repeated),
        count(report.damaged),
        count(report.timeouts),
        count(report.recoveries)
    ));
    let pairs: Vec<String> = Mode::ALL
        .iter()
        .zip(report.pairs)
        .map(|(mode, pairs)| format!("{} {}", mode.name(), count(pairs)))
        .collect();
    output.line(format!("block pairs: {}", pairs.join(", ")));
    for it in &report.energy {
        output.line(format!(
            "these pairs in {} standard cells, {} stages, {}: {:.1} to {:.1} uJ without and with glitches, {:.2} uJ a token (an estimate from measured pJ a pair; not what the board's device takes)",
            it.library,
            it.stages,
            if it.clock_gating { "gated clocks" } else { "clocks not gated" },
            it.microjoules[0],
            it.microjoules[1],
            it.microjoules[1] / report.tokens.len().max(1) as f64
        ));
    }
    let products = if report.mismatches == 0 {
        format!(
            "all {} results the golden model's bit for bit",
            count(report.results)
        )
    } else {
        format!(
            "{} of {} results differ from the golden model's",
            count(report.mismatches),
            count(report.results)
        )
    };
    output.line(format!(
        "{products}; tokens {} the golden engine's",
        if report.tokens_equal {
            "are"
        } else {
            "are NOT"
        }
    ));
}
