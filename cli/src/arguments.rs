//! Command line arguments.

use std::path::PathBuf;

use checkpoints::nvfp4::Layout;
use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use golden::profiles::Profile;
use golden::{Scheme, Selection, Share};
use hdl::board::BoardConfig;
use hdl::bundle::Top;
use hdl::config::{ArrayConfig, Multiplier};
use hdl::ets::{PageTableConfig, SelectorConfig};
use hdl::speed::SpeedConfig;
use synth::device::{DEVICES, Device};
use synth::yosys::Target;

/// An open generator of mixed FP4/FP8 accelerator hardware and the bit-exact model of it.
#[derive(Debug, Parser)]
#[command(
    name = "fgmp",
    version,
    max_term_width = 100,
    after_help = "Every command runs on the embedded model when it is given none.\n\
                  Exit status: 0 done, 1 a check failed, 2 bad usage or bad input.\n\n\
                  Example: fgmp demo"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Write the figures as JSON to FILE, or to standard output instead of the text (`-`)
    #[arg(long, global = true, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Seed of everything random
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The main job, end to end: quantize, evaluate, emit, co-simulate
    #[command(after_help = "Example: fgmp demo")]
    Demo(Demo),
    /// Quantize a model, or plain tensors, to packed tensors
    #[command(
        after_help = "Example: fgmp quantize model.safetensors -o packed.safetensors --fp8-share 0.3"
    )]
    Quantize(Quantize),
    /// Decode packed tensors
    #[command(after_help = "Example: fgmp dequantize packed.safetensors -o plain.safetensors")]
    Dequantize(Dequantize),
    /// Perplexity with the exact arithmetic of the hardware
    #[command(after_help = "Example: fgmp eval --scheme fgmp --tokens valid --windows 20")]
    Eval(Eval),
    /// Exact product of two packed tensors
    #[command(
        after_help = "Example: fgmp matmul weights.safetensors:w acts.safetensors:a -o y.safetensors --raw"
    )]
    Matmul(Matmul),
    /// Write the core as Verilog
    #[command(after_help = "Example: fgmp emit --rows 3 --cols 5 -o core")]
    Emit(Emit),
    /// Run blocks and layers through the emitted Verilog and compare with the golden model
    #[command(after_help = "Example: fgmp cosim --rows 3 --cols 5 --vectors 100000 --json -")]
    Cosim(Cosim),
    /// Area and clock of the processing element's parts beside their bars and peers, or of any module on an FPGA
    #[command(
        after_help = "Example: fgmp synth --no-route\n         fgmp synth --target ice40 --rows 1 --cols 1\n         fgmp synth --target ecp5:25 --module pe --seeds 3"
    )]
    Synth(Synth),
    /// Area of an accelerator without synthesis, from those that were synthesized
    #[command(
        after_help = "Example: fgmp estimate --rows 8 --cols 8 --no-dsp\n         fgmp estimate --no-dsp --check 5"
    )]
    Estimate(Estimate),
    /// Open FPGA boards
    #[command(after_help = "Example: fgmp board list")]
    Board(Board),
    /// Speculative pipelined decoding of a model whose layers are run several times: text, passes, and its peers
    #[command(
        after_help = "Example: fgmp speed --prompt \"Return a list of\" --diagram pipeline.svg\n         fgmp speed --bench"
    )]
    Speed(Speed),
    /// Tree search against a process reward model: an answer, what its keys and values took, and its peers
    #[command(
        after_help = "Example: fgmp ets --problem \"2 12 13 16 16:188\" --tree tree.svg\n         fgmp ets --text \"Return a list of\"\n         fgmp ets --bench"
    )]
    Ets(Ets),
    /// Mean squared loss gradients of weights and of activations by channel
    #[command(
        after_help = "Example: fgmp fisher model.gguf --tokens text.txt --windows 160 -o fisher.safetensors\n\n\
                      An interrupted run goes on where it stopped when the same command is given again."
    )]
    Fisher(Fisher),
    /// Tables and plots
    #[command(after_help = "Example: fgmp report quant base-4 --windows 20 -o report")]
    Report(Report),
}

/// Which model, and what its file does not say of it.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArguments {
    /// Times that the model's group of layers is run
    #[arg(long, value_name = "N", value_parser = positive)]
    pub repetitions: Option<usize>,
    /// Query heads (default: 64 wide)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub heads: Option<usize>,
    /// Key and value heads
    #[arg(long, value_name = "N", value_parser = positive)]
    pub kv_heads: Option<usize>,
    /// Tokens of a window
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// Tokenizer of text files: a tokenizer.json, or a GGUF file or folder that holds one (default: the one that comes with the model)
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Tokens to calibrate activation ranges and the threshold on: text, or numbers in a .u16 or .u32 file (default: the embedded stream)
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Windows of it to take activation ranges from
    #[arg(long, value_name = "N", default_value = "8", value_parser = positive)]
    pub calibration_windows: Option<usize>,
    /// Windows of it to take the threshold from (default: as many, at most 12)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub score_windows: Option<usize>,
    /// Tokens of a calibration window (default: 512, or the model's context if that is less)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub calibration_context: Option<usize>,
    /// Squared gradients that weigh errors, as `fgmp fisher` writes them (default: all weigh the same)
    #[arg(long, value_name = "FILE")]
    pub fisher: Option<PathBuf>,
}

/// How FP8 blocks are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SelectionName {
    /// One threshold for all weights, one for all activations
    Global,
    /// Likewise, but an activation block counts once for each row of weights that it meets: a share of the work
    Pairs,
    /// A threshold for each matrix and each input
    PerLayer,
    /// At random, by --seed
    Random,
}

impl SelectionName {
    /// The selection with a seed for the random one.
    pub const fn selection(self, seed: u64) -> Selection {
        match self {
            Self::Global => Selection::Global,
            Self::Pairs => Selection::Pairs,
            Self::PerLayer => Selection::PerLayer,
            Self::Random => Selection::Random(seed),
        }
    }
}

#[derive(Debug, Args)]
pub struct Fisher {
    /// Model, or `shared-4x3` or `base-4` (default: shared-4x3)
    pub input: Option<PathBuf>,
    /// Tokens: text, or numbers in a .u16 or .u32 file (default: the embedded calibration stream)
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Windows from the start of the tokens
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub windows: usize,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub window: usize,
    /// Squared gradients
    #[arg(short, long, value_name = "FILE", default_value = "fisher.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArguments,
}

#[derive(Debug, Args)]
pub struct Report {
    #[command(subcommand)]
    pub command: ReportCommand,
}

#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Perplexity against bits an element: schemes, shares and policies of one model
    Quant(ReportQuant),
}

#[derive(Debug, Args)]
pub struct ReportQuant {
    /// Model, or `shared-4x3` or `base-4` (default: shared-4x3)
    pub input: Option<PathBuf>,
    /// Token stream: `valid`, `test` (embedded), text, or numbers in a .u16 or .u32 file
    #[arg(long, value_name = "valid|test|FILE", default_value = "valid")]
    pub tokens: String,
    /// Only the first windows
    #[arg(long, value_name = "N", value_parser = positive)]
    pub windows: Option<usize>,
    /// Shares of FP8 blocks to sweep, in percent
    #[arg(
        long,
        value_name = "P,P,…",
        value_delimiter = ',',
        default_value = "0,10,20,30,50,70,100",
        value_parser = percentage
    )]
    pub shares: Vec<Share>,
    /// Share that the alternatives are compared at
    #[arg(long, value_name = "P", default_value = "0.3", value_parser = share)]
    pub fp8_share: Share,
    /// Windows of the calibration stream for the Fisher pass, if --fisher gives no file
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub fisher_windows: usize,
    /// Calibration windows for the compensation of rounding errors; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub compensate: usize,
    /// Steps of tuning the norms; 0 leaves it out
    #[arg(long, value_name = "STEPS", default_value_t = 40)]
    pub distill: usize,
    /// Folder of quant.md, quant.svg, quant.json and fisher.safetensors
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArguments,
}

/// Which blocks are held how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemeName {
    /// BF16 weights, FP32 arithmetic
    Bf16,
    /// Every block FP8
    Fp8,
    /// Every block FP4
    Nvfp4,
    /// The given share of blocks FP8, the rest FP4
    Fgmp,
}

impl SchemeName {
    /// The scheme with a share for FGMP.
    pub fn scheme(self, fp8_share: Share) -> Scheme {
        match self {
            Self::Bf16 => Scheme::Bf16,
            Self::Fp8 => Scheme::Fp8,
            Self::Nvfp4 => Scheme::Nvfp4,
            Self::Fgmp => Scheme::Fgmp { fp8_share },
        }
    }
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Windows of 512 tokens for each perplexity
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = positive)]
    pub windows: usize,
    /// Simulator of the co-simulation
    #[arg(long, value_enum, default_value_t = SimulatorName::Auto)]
    pub simulator: SimulatorName,
}

#[derive(Debug, Args)]
pub struct Quantize {
    /// Model or tensors, safetensors with F32, F16 or BF16 (default: the embedded model)
    pub input: Option<PathBuf>,
    /// Packed tensors (default: only report)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which blocks are FP8: fp8, nvfp4 or fgmp
    #[arg(long, value_enum, default_value_t = SchemeName::Fgmp)]
    pub scheme: SchemeName,
    /// Target share of FP8 blocks
    #[arg(long, value_name = "P", default_value = "0.3", value_parser = share)]
    pub fp8_share: Share,
    /// How tensors are scaled: fgmp, nvfp4, or the library whose bits are wanted (see docs/profiles.md)
    #[arg(long, value_name = "PROFILE", default_value = "fgmp", value_parser = profile)]
    pub profile: Profile,
    /// Layout of the output: a packed file, or a folder that NVFP4 readers load
    #[arg(long, value_enum, default_value_t = FormatName::Packed)]
    pub format: FormatName,
    /// Of a model only the weights, without calibration: any size, in bounded memory, resumed where it was interrupted
    #[arg(long)]
    pub weights_only: bool,
    /// Search each FP4 weight block's scale for the smallest error
    #[arg(long)]
    pub clip: bool,
    /// How FP8 blocks are chosen
    #[arg(long, value_enum, default_value_t = SelectionName::Global)]
    pub selection: SelectionName,
    #[command(flatten)]
    pub refinement: Refinement,
    #[command(flatten)]
    pub model: ModelArguments,
}

/// Layout of quantized tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// One safetensors file with the dense streams of FP4 and FP8 blocks
    Packed,
    /// A folder in compressed-tensors' layout; FP4 blocks only
    CompressedTensors,
    /// A folder in modelopt's layout; FP4 blocks only
    Modelopt,
}

impl FormatName {
    /// The layout of a folder; `None` for a packed file.
    pub const fn layout(self) -> Option<Layout> {
        match self {
            Self::Packed => None,
            Self::CompressedTensors => Some(Layout::CompressedTensors),
            Self::Modelopt => Some(Layout::ModelOpt),
        }
    }
}

/// What is done to a quantized model beyond rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Refinement {
    /// Compensate rounding errors of the weights on so many calibration windows
    #[arg(long, value_name = "N", value_parser = positive)]
    pub compensate: Option<usize>,
    /// Tune the gains of the norms towards the full-precision model in so many steps of 4 calibration windows
    #[arg(long, value_name = "STEPS", value_parser = positive)]
    pub distill: Option<usize>,
}

/// Element type of decoded tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    /// FP32
    F32,
    /// BF16, rounded to nearest even
    Bf16,
}

#[derive(Debug, Args)]
pub struct Dequantize {
    /// Packed tensors
    pub input: PathBuf,
    /// Decoded tensors
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Type of the elements
    #[arg(long, value_enum, default_value_t = DtypeName::F32)]
    pub dtype: DtypeName,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// Model or packed model (default: the embedded model)
    pub input: Option<PathBuf>,
    /// Token streams: `valid`, `test` (embedded) or u16 files (default: both embedded ones)
    #[arg(long, value_name = "valid|test|FILE")]
    pub tokens: Vec<String>,
    /// Schemes to evaluate (default: all four)
    #[arg(long, value_enum)]
    pub scheme: Vec<SchemeName>,
    /// Target share of FP8 blocks, of weights and of activations
    #[arg(long, value_name = "P", default_value = "0.3", value_parser = share)]
    pub fp8_share: Share,
    /// Only the first windows of each stream
    #[arg(long, value_name = "N", value_parser = positive)]
    pub windows: Option<usize>,
    /// Search each FP4 weight block's scale for the smallest error
    #[arg(long)]
    pub clip: bool,
    /// How FP8 blocks are chosen
    #[arg(long, value_enum, default_value_t = SelectionName::Global)]
    pub selection: SelectionName,
    #[command(flatten)]
    pub refinement: Refinement,
    #[command(flatten)]
    pub model: ModelArguments,
}

#[derive(Debug, Args)]
pub struct Matmul {
    /// Weights: packed file, `FILE:TENSOR` if it has several (default: a layer of the embedded model)
    #[arg(requires = "activations")]
    pub weights: Option<String>,
    /// Activations, likewise
    pub activations: Option<String>,
    /// Result: `y` BF16 (default: only report)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write the exact accumulators: `accumulator` I64 in units of 2^-20, `nan` U8
    #[arg(long)]
    pub raw: bool,
}

/// Size of the array.
#[derive(Clone, Copy, Debug, Args)]
pub struct ArrayArguments {
    /// Rows: weight rows side by side
    #[arg(long, value_name = "R", default_value_t = ArrayConfig::default().rows)]
    pub rows: usize,
    /// Columns: activation rows side by side
    #[arg(long, value_name = "C", default_value_t = ArrayConfig::default().cols)]
    pub cols: usize,
    /// Largest reduction dimension without overflow
    #[arg(long, value_name = "K", default_value_t = ArrayConfig::default().max_k)]
    pub max_k: usize,
    /// Stages of a processing element, 3 to 9: more of them for a faster clock
    #[arg(long, value_name = "N", default_value_t = ArrayConfig::default().pipeline)]
    pub pipeline: usize,
    /// Elements that the quantization unit takes a cycle: 1 or 16
    #[arg(long, value_name = "N", default_value_t = ArrayConfig::default().quantizer_lanes)]
    pub quantizer_lanes: usize,
    /// Accelerator: weight ports, a divisor of the rows; one a row if not given
    #[arg(long, value_name = "N")]
    pub weight_ports: Option<usize>,
    /// Accelerator: blocks of a weight row that its memory holds, twice; a power of two
    #[arg(long, value_name = "N", default_value_t = ArrayConfig::default().weight_blocks)]
    pub weight_blocks: usize,
    /// Accelerator: blocks of activations that a column's memory holds, twice; a power of two
    #[arg(long, value_name = "N", default_value_t = ArrayConfig::default().act_blocks)]
    pub act_blocks: usize,
    /// Accelerator: elements of the result memory; a power of two
    #[arg(long, value_name = "N", default_value_t = ArrayConfig::default().result_elements)]
    pub result_elements: usize,
    /// What multiplies two elements
    #[arg(long, value_enum, default_value_t = MultiplierName::Lut)]
    pub multiplier: MultiplierName,
}

/// What multiplies two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MultiplierName {
    /// Logic: a small multiplier and a shifter
    Lut,
    /// Multiplier blocks of 18 x 18 bits
    Dsp,
}

impl ArrayArguments {
    /// The validated configuration.
    pub fn config(self) -> anyhow::Result<ArrayConfig> {
        let config = ArrayConfig {
            rows: self.rows,
            cols: self.cols,
            max_k: self.max_k,
            pipeline: self.pipeline,
            quantizer_lanes: self.quantizer_lanes,
            weight_ports: self.weight_ports.unwrap_or(self.rows),
            weight_blocks: self.weight_blocks,
            act_blocks: self.act_blocks,
            result_elements: self.result_elements,
            multiplier: match self.multiplier {
                MultiplierName::Lut => Multiplier::Lut,
                MultiplierName::Dsp => Multiplier::Dsp,
            },
            ..ArrayConfig::default()
        };
        Ok(config.validate()?)
    }
}

/// Sizes of what is built around and beside the array.
#[derive(Clone, Copy, Debug, Args)]
pub struct DesignArguments {
    #[command(flatten)]
    pub array: ArrayArguments,
    /// SPEED: repetitions of the model's group of layers, stages of its pipeline
    #[arg(long, value_name = "N", default_value_t = SpeedConfig::default().repetitions)]
    pub repetitions: usize,
    /// SPEED: bits of a position, for sequences of up to 2^N positions
    #[arg(long, value_name = "N", default_value_t = SpeedConfig::default().position_bits)]
    pub position_bits: usize,
    /// SPEED: bits of a token, for a vocabulary of up to 2^N
    #[arg(long, value_name = "N", default_value_t = SpeedConfig::default().token_bits)]
    pub token_bits: usize,
    /// SPEED: words of the program memory; a power of two
    #[arg(long, value_name = "N", default_value_t = SpeedConfig::default().program_words)]
    pub program_words: usize,
    /// Tree selector: live leaves, up to 256; built for 16, 64 or 256
    #[arg(long, value_name = "N", default_value_t = SelectorConfig::default().leaves)]
    pub leaves: usize,
    /// Tree selector: nodes on their paths; a power of two
    #[arg(long, value_name = "N", default_value_t = SelectorConfig::default().nodes)]
    pub nodes: usize,
    /// Page table: segments, up to 4096; built for 64, 256, 1024 or 4096
    #[arg(long, value_name = "N", default_value_t = PageTableConfig::default().segments)]
    pub segments: usize,
    /// Page table: pages, up to 4096
    #[arg(long, value_name = "N", default_value_t = PageTableConfig::default().pages)]
    pub pages: usize,
    /// Page table: tokens of a page
    #[arg(long, value_name = "N", default_value_t = PageTableConfig::default().page_tokens)]
    pub page_tokens: usize,
}

impl DesignArguments {
    /// A top with its parameters; emitting it validates all but the array's.
    pub fn top(self, name: TopName) -> anyhow::Result<Top> {
        let array = self.array.config()?;
        Ok(match name {
            TopName::Core => Top::Core(array),
            TopName::Accelerator => Top::Accelerator(array),
            TopName::Speed => Top::Speed(SpeedConfig {
                array,
                repetitions: self.repetitions,
                position_bits: self.position_bits,
                token_bits: self.token_bits,
                program_words: self.program_words,
            }),
            TopName::TreeSelector => Top::TreeSelector(SelectorConfig {
                leaves: self.leaves,
                nodes: self.nodes,
            }),
            TopName::PageTable => Top::PageTable(PageTableConfig {
                segments: self.segments,
                pages: self.pages,
                page_tokens: self.page_tokens,
            }),
        })
    }
}

#[derive(Debug, Args)]
pub struct Emit {
    #[command(flatten)]
    pub design: DesignArguments,
    /// What to emit
    #[arg(long, value_enum, default_value_t = TopName::Core)]
    pub top: TopName,
    /// Folder of the bundle; by default the top module's name
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A top module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopName {
    /// The array and the quantization unit with bare streams
    Core,
    /// The complete accelerator: memories, job queue, AXI ports
    Accelerator,
    /// The accelerator with what decodes speculatively on it
    Speed,
    /// Tree search: which leaves are kept, and how often each is continued
    TreeSelector,
    /// Tree search: segments and pages of keys and values
    PageTable,
}

/// Arithmetic of a model's linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arithmetic {
    /// FP32 on the weights as the file holds them
    Fp32,
    /// The hardware's: FP4 and FP8 blocks, exact sums
    Fgmp,
}

impl Arithmetic {
    /// As tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Fgmp => "FGMP",
        }
    }
}

// One element a cycle would make three rows' quantization the pace of a pass.
#[derive(Debug, Args)]
#[command(mut_arg("quantizer_lanes", |argument| argument.default_value("16")))]
pub struct Speed {
    /// Model, packed or not (default: shared-4x3, embedded)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// What the text begins with
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Return a list of",
        conflicts_with = "bench"
    )]
    pub prompt: String,
    /// Tokens to decode, of each prompt (default: 64)
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub tokens: usize,
    /// Arithmetic of the linear layers; with --bench both
    #[arg(long, value_enum, default_value_t = Arithmetic::Fgmp)]
    pub arithmetic: Arithmetic,
    /// Draw tokens at this temperature, by --seed (default: take the likeliest)
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f32>,
    /// Draw the pipeline to FILE (.svg)
    #[arg(long, value_name = "FILE", conflicts_with = "bench")]
    pub diagram: Option<PathBuf>,
    /// Compare with decoding token by token, early exits, drafts of another model, and that model alone
    #[arg(long)]
    pub bench: bool,
    /// With --bench: prompts, taken from the stream `test`
    #[arg(long, value_name = "N", default_value_t = 8, requires = "bench", value_parser = positive)]
    pub prompts: usize,
    /// With --bench: tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 32, requires = "bench", value_parser = positive)]
    pub prompt_tokens: usize,
    /// With --bench: model that drafts
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "base-4",
        requires = "bench"
    )]
    pub draft: PathBuf,
    /// With --bench: tokens that it drafts ahead
    #[arg(long, value_name = "N", default_value_t = 3, requires = "bench", value_parser = positive)]
    pub ahead: usize,
    /// With --bench: leads of the likeliest token at which decoding with early exits stops
    #[arg(long, value_name = "P", value_delimiter = ',', default_values_t = [0.3, 0.6, 0.9], requires = "bench")]
    pub confidence: Vec<f32>,
    /// With --bench: windows of the stream `valid` that perplexity is taken from
    #[arg(long, value_name = "N", default_value_t = 2, requires = "bench", value_parser = positive)]
    pub windows: usize,
    /// Decode on the hardware as well: the accelerator with its pipeline of tokens, in Verilator
    #[arg(long)]
    pub cosim: bool,
    /// With --cosim: tokens to decode there
    #[arg(long, value_name = "N", default_value_t = 24, requires = "cosim", value_parser = positive)]
    pub cosim_tokens: usize,
    #[command(flatten)]
    pub array: ArrayArguments,
    #[command(flatten)]
    pub model_arguments: ModelArguments,
}

fn temperature(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|t: &f32| t.is_finite() && *t > 0.0)
        .ok_or_else(|| "expected a number above 0".into())
}

/// How a tree search shares its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SearchMethod {
    /// The cost model chooses leaves that are worth their keys and values; among those, by score
    Ets,
    /// By score
    Rebase,
    /// The best leaves, equally often
    Beam,
    /// Of each of several subtrees the best leaf
    Dvts,
    /// Independent samples, the best is taken
    BestOfN,
    /// Independent samples, the most frequent answer
    Majority,
}

/// What a trajectory's steps' scores come to in the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AggregateName {
    /// The last step's
    Last,
    /// The smallest
    Least,
    /// Their product
    Product,
    /// Their mean
    Mean,
}

/// What siblings share of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SharingName {
    /// Tokens: siblings that begin alike are one row until they differ
    Tokens,
    /// Whole steps: what is before them
    Steps,
}

#[derive(Clone, Debug, Args)]
pub struct Ets {
    /// Numbers, each to be used once, and what they are to make
    #[arg(
        long,
        value_name = "NUMBERS:TARGET",
        default_value = "2 12 13 16 16:188",
        conflicts_with = "bench"
    )]
    pub problem: String,
    #[command(flatten)]
    pub prose: Prose,
    /// How the width is shared among leaves
    #[arg(long, value_enum, default_value_t = SearchMethod::Ets, conflicts_with = "bench")]
    pub method: SearchMethod,
    /// Trajectories (with --text 16)
    #[arg(long, value_name = "N", default_value_t = 64, default_value_if("text", ArgPredicate::IsPresent, "16"), value_parser = width, conflicts_with = "bench")]
    pub width: u32,
    /// Arithmetic of the linear layers (default: fgmp; with --bench fp32)
    #[arg(long, value_enum)]
    pub arithmetic: Option<Arithmetic>,
    /// Price of keys and values, λ_b (default: by the width, chosen on other problems; with --text 5); with --bench several, each a line
    #[arg(
        long,
        value_name = "X",
        value_delimiter = ',',
        default_value_if("text", ArgPredicate::IsPresent, "5")
    )]
    pub lambda_b: Vec<f64>,
    /// Worth of saying different things, λ_d (default: by the width, chosen on other problems; with --text 3); with --bench several
    #[arg(
        long,
        value_name = "X",
        value_delimiter = ',',
        default_value_if("text", ArgPredicate::IsPresent, "3")
    )]
    pub lambda_d: Vec<f64>,
    /// Temperature of the softmax of scores
    #[arg(long, value_name = "T", default_value_t = 0.2)]
    pub score_temperature: f64,
    /// What a trajectory's scores come to in the vote (with --text the smallest)
    #[arg(long, value_enum, default_value_t = AggregateName::Product, default_value_if("text", ArgPredicate::IsPresent, "least"))]
    pub aggregate: AggregateName,
    /// Searches until an answer is right, which can be checked: each the next seed, twice as wide (up to 256), with twice the score temperature and with --calculator
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "bench", value_parser = positive)]
    pub tries: usize,
    /// Score 0 for a step whose arithmetic is wrong: a calculator beside the reward model
    #[arg(long)]
    pub calculator: bool,
    /// Temperature at which the policy's tokens are drawn, by --seed
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = temperature)]
    pub temperature: f32,
    /// Distance up to which steps say the same (with --text 0.1)
    #[arg(long, value_name = "D", default_value_t = golden::ets::countdown::CUT, default_value_if("text", ArgPredicate::IsPresent, "0.1"), value_parser = distance)]
    pub cut: f64,
    /// Beams, or subtrees of --method dvts (default: the square root of the width)
    #[arg(long, value_name = "N")]
    pub beams: Option<u32>,
    /// Pages of 16 tokens for keys and values (default: as many as are needed; with --bench half of the most that REBASE needs)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub pages: Option<usize>,
    /// What siblings share of keys and values
    #[arg(long, value_enum, default_value_t = SharingName::Tokens)]
    pub sharing: SharingName,
    /// Draw the tree to FILE (.svg)
    #[arg(long, value_name = "FILE", conflicts_with = "bench")]
    pub tree: Option<PathBuf>,
    /// Model that writes steps (default: countdown-policy, with --text base-4, both embedded)
    #[arg(long, value_name = "MODEL")]
    pub policy: Option<PathBuf>,
    /// Model that scores them (default: countdown-prm, with --text shared-4x3, both embedded)
    #[arg(long, value_name = "MODEL")]
    pub reward: Option<PathBuf>,
    /// Make the same selections on the hardware: sharing, pruning and order of reads, in Verilator
    #[arg(long, conflicts_with_all = ["bench", "text"])]
    pub cosim: bool,
    /// Compare all methods on many problems
    #[arg(long)]
    pub bench: bool,
    /// With --bench: problems from FILE, one a line (default: the 500 that come with the models)
    #[arg(long, value_name = "FILE", requires = "bench")]
    pub problems: Option<PathBuf>,
    /// With --bench: problems drawn by --seed instead, none of those that come with the models
    #[arg(long, requires = "bench", conflicts_with = "problems")]
    pub drawn: bool,
    /// With --bench: how many of them, from the first on
    #[arg(long, value_name = "N", default_value_t = 40, requires = "bench", value_parser = positive)]
    pub count: usize,
    /// With --bench: widths
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [16, 64], requires = "bench", value_parser = width)]
    pub widths: Vec<u32>,
    /// With --bench: problems on which the engine's time is taken, each method's search by itself; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 6, requires = "bench")]
    pub timed: usize,
}

/// A search for a text instead of a problem's solution.
#[derive(Clone, Debug, Args)]
pub struct Prose {
    /// Write on from TEXT: a step is a sentence or a line, its score the likelihood that --reward gives it
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["problem", "bench", "tries", "calculator"])]
    pub text: Option<String>,
    /// With --text: steps of a text, if it doesn't end before
    #[arg(long, value_name = "N", default_value_t = 4, requires = "text", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// With --text: most tokens of a step
    #[arg(long, value_name = "N", default_value_t = 24, requires = "text", value_parser = positive)]
    pub step_tokens: usize,
    /// With --text: folder of the sentence encoder that finds steps that say the same, or `reward`: --reward's own vectors (default: $FGMP_MINILM, or .tools/models/all-MiniLM-L6-v2, which ./setup --models installs)
    #[arg(long, value_name = "DIR|reward", requires = "text")]
    pub embeddings: Option<PathBuf>,
    /// With --text: tokenizer of both models: a tokenizer.json, or a GGUF file or folder that holds one (default: the one that comes with them)
    #[arg(long, value_name = "FILE", requires = "text")]
    pub tokenizer: Option<PathBuf>,
    /// With --text: text, or numbers in a .u16 or .u32 file, to calibrate the models on (default: the embedded stream)
    #[arg(long, value_name = "FILE", requires = "text")]
    pub calibration: Option<PathBuf>,
}

fn width(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|width| (1..=4096).contains(width))
        .ok_or_else(|| "expected a whole number from 1 to 4096".into())
}

fn distance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|distance| (0.0..=2.0).contains(distance))
        .ok_or_else(|| "expected a cosine distance from 0 to 2".into())
}

/// What runs the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SimulatorName {
    /// Verilator if it is installed, else rust-hdl's own simulator
    Auto,
    /// Verilator
    Verilator,
    /// rust-hdl's own simulator: slower, the same checks
    RustHdl,
}

#[derive(Debug, Args)]
pub struct Cosim {
    #[command(flatten)]
    pub array: ArrayArguments,
    /// Run every linear layer of a model through the complete accelerator instead
    #[arg(long)]
    pub top: bool,
    /// With --top: the model, `shared-4x3` (default), `base-4`, a file or a folder
    #[arg(long, value_name = "MODEL", requires = "top")]
    pub model: Option<PathBuf>,
    /// With --top: tokens of the stream `valid` that go through it at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub tokens: usize,
    /// With --top: chance in percent that a stream stalls in a cycle, for a second run; 0 for none
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = stall_chance)]
    pub stalls: f64,
    /// Random block pairs to compare, shared among the four modes
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub vectors: u64,
    /// Also run this matrix of the embedded model, such as `model.layers.0.mlp.up_proj` (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub layer: Vec<String>,
    /// Tokens of real activations for each layer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    pub layer_tokens: usize,
    /// Blocks through the activation quantization unit
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub quantizer_blocks: u64,
    /// Write a waveform of the first tiles to FILE (.fst or .vcd)
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Simulator
    #[arg(long, value_enum, default_value_t = SimulatorName::Auto)]
    pub simulator: SimulatorName,
}

/// What to map to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    /// A family, mapped only.
    Family(Target),
    /// A device, placed and routed.
    Device(&'static Device),
    /// Cells of a Liberty library: this one, or Debian's.
    Asic(Option<PathBuf>),
}

fn target(text: &str) -> Result<TargetName, String> {
    if let Some(family) = Target::ALL.into_iter().find(|family| family.name() == text) {
        return Ok(TargetName::Family(family));
    }
    if text == "asic" {
        return Ok(TargetName::Asic(None));
    }
    if let Some(file) = text.strip_prefix("asic:").filter(|file| !file.is_empty()) {
        return Ok(TargetName::Asic(Some(file.into())));
    }
    Device::named(text).map(TargetName::Device).ok_or_else(|| {
        let families = Target::ALL.map(Target::name).join(", ");
        let devices: Vec<String> = DEVICES.iter().map(ToString::to_string).collect();
        format!(
            "expected {families} to map only, {} to place and route, or asic or asic:LIBERTY",
            devices.join(", ")
        )
    })
}

/// What a mapping to a library optimises for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoalName {
    /// Few and small cells
    Area,
    /// A short critical path
    Speed,
}

/// What --target asic and --energy take.
#[derive(Debug, Args)]
pub struct AsicArguments {
    /// Energy of block pairs, quantized blocks, layers and a model, by simulation of mapped netlists
    #[arg(long, conflicts_with_all = ["target", "module", "no_dsp", "table", "no_route", "part"])]
    pub energy: bool,
    /// Energy: the model whose blocks are used, shared-4x3, base-4 or a file
    #[arg(long, value_name = "MODEL", requires = "energy")]
    pub model: Option<PathBuf>,
    /// Energy: tokens that the model reads
    #[arg(long, value_name = "N", default_value_t = 160, value_parser = positive, requires = "energy")]
    pub tokens: usize,
    /// Energy: what the share of FP8 is a share of: stored blocks (global), or block pairs
    #[arg(long, value_enum, default_value_t = SelectionName::Global, requires = "energy")]
    pub selection: SelectionName,
    /// Energy: tokens that share one reading of the weights from DRAM
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive, requires = "energy")]
    pub batch: usize,
    /// Energy: capacitance of the wire to each pin, in fF
    #[arg(long, value_name = "FF", default_value_t = 2.0, requires = "energy")]
    pub wire_ff: f64,
    /// Energy: what memory costs (JSON as in synth/src/energy.json)
    #[arg(long, value_name = "FILE", requires = "energy")]
    pub memory: Option<PathBuf>,
    /// Energy: without the quantizer that takes a block a cycle, whose mapping takes minutes
    #[arg(long, requires = "energy")]
    pub no_parallel_quantizer: bool,
    /// Target asic, energy: Liberty library (default: Debian's osu018, where it is installed)
    #[arg(long, value_name = "FILE")]
    pub liberty: Option<PathBuf>,
    /// What a mapping to a library optimises for
    #[arg(long, value_enum, default_value_t = GoalName::Area)]
    pub goal: GoalName,
    /// Target asic: registers with an enable get a gated clock
    #[arg(long, conflicts_with = "energy")]
    pub clock_gating: bool,
    /// Target asic: prove that the netlist equals the Verilog
    #[arg(long, conflicts_with = "energy")]
    pub prove: bool,
}

#[derive(Debug, Args)]
pub struct Synth {
    #[command(flatten)]
    pub design: DesignArguments,
    /// The table of parts (default without --target and --module)
    #[arg(long, conflicts_with_all = ["module", "no_dsp"])]
    pub table: bool,
    /// Table: only this part (may be given several times)
    #[arg(long, value_name = "PART", conflicts_with_all = ["module", "no_dsp"])]
    pub part: Vec<String>,
    /// What to map to: generic, ice40, ecp5, gowin (default: generic); a device to place and route on: ice40:hx8k,
    /// ice40:up5k, ecp5:25, ecp5:45, ecp5:85, gowin:gw1n-9, gowin:gw2a-18 (default of the table: ecp5:85); or asic,
    /// asic:LIBERTY: the cells of a library
    #[arg(long, value_name = "TARGET", value_parser = target)]
    pub target: Option<TargetName>,
    /// Module to synthesize (default: the whole core)
    #[arg(long, value_name = "MODULE")]
    pub module: Option<String>,
    /// Multipliers as logic, where the target has blocks for them
    #[arg(long)]
    pub no_dsp: bool,
    /// Area only, without placing and routing
    #[arg(long)]
    pub no_route: bool,
    /// Seeds of the placer, 1 to N: the clock is the middle one of theirs (default: 1); energy: slices of the data (default: 5)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: Option<u32>,
    /// Clock that the placer aims at, MHz
    #[arg(long, value_name = "MHZ", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub mhz: u32,
    /// Where results are kept and looked for (default: synth/results.jsonl in the user's cache folder of fgmp)
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// Measure everything anew
    #[arg(long)]
    pub fresh: bool,
    /// List what the store has
    #[arg(long, conflicts_with_all = ["table", "part", "target", "module", "no_dsp", "no_route"])]
    pub list: bool,
    #[command(flatten)]
    pub asic: AsicArguments,
}

/// Families that estimates are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EstimateTarget {
    /// Lattice ECP5
    Ecp5,
    /// Lattice iCE40
    Ice40,
    /// Gowin
    Gowin,
}

impl From<EstimateTarget> for Target {
    fn from(target: EstimateTarget) -> Self {
        match target {
            EstimateTarget::Ecp5 => Self::Ecp5,
            EstimateTarget::Ice40 => Self::Ice40,
            EstimateTarget::Gowin => Self::Gowin,
        }
    }
}

#[derive(Debug, Args)]
pub struct Estimate {
    #[command(flatten)]
    pub array: ArrayArguments,
    /// Family
    #[arg(long, value_enum, default_value_t = EstimateTarget::Ecp5)]
    pub target: EstimateTarget,
    /// Multiplications as logic
    #[arg(long)]
    pub no_dsp: bool,
    /// First synthesize N accelerators of random parameters (of --seed) and keep them in the store
    #[arg(long, value_name = "N")]
    pub measure: Option<usize>,
    /// Try the model on N accelerators that it has not seen; fails if one is off by more than 15 %
    #[arg(long, value_name = "N")]
    pub check: Option<usize>,
    /// Where results are kept and looked for (default: synth/results.jsonl in the user's cache folder of fgmp)
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Board {
    #[command(subcommand)]
    pub command: BoardCommand,
}

#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// The boards that are known
    List,
    /// Generate text with all linear layers on a board
    #[command(
        after_help = "Example: fgmp board run --port twin\n         fgmp board run --port /dev/ttyUSB1 --board icebreaker --prompt \"The island\" --tokens 40"
    )]
    Run(Box<crate::commands::board_run::BoardRun>),
    /// A bitstream: the engine in Verilog, mapped, placed on the board's pins at the board's clock, packed
    #[command(after_help = "Example: fgmp board build icebreaker -o out --check")]
    Build(BoardBuild),
    /// Writes a bitstream to a board
    #[command(after_help = "Example: fgmp board flash icebreaker out")]
    Flash(BoardFlash),
    /// Maps engines and counts their cells: the lines of fpga/data/engines.jsonl, which estimates are made of
    #[command(after_help = "Example: fgmp board measure ulx3s-85f > engines.jsonl")]
    Measure(BoardMeasure),
}

/// Units of a board's engine beside the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Units {
    /// Neither: activations go as blocks, results come as accumulators
    None,
    /// Results come as BF16, too
    Requantizer,
    /// Activations may be sent as BF16
    Quantizer,
    /// Requantizer and quantizer
    Both,
}

/// What --rows and the like say of a board's engine, where it isn't to be as the board's data has it.
#[derive(Clone, Debug, Args)]
pub struct EngineArguments {
    /// Rows of the array
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rows: Option<usize>,
    /// Columns of the array
    #[arg(long, value_name = "N", value_parser = positive)]
    pub cols: Option<usize>,
    /// Largest K without an overflow of the accumulators
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_k: Option<usize>,
    /// Stages of a processing element
    #[arg(long, value_name = "N", value_parser = positive)]
    pub pipeline: Option<usize>,
    /// Blocks of a weight row that the memory holds
    #[arg(long, value_name = "N", value_parser = positive)]
    pub weight_blocks: Option<usize>,
    /// Blocks of activations that the memory of a column holds
    #[arg(long, value_name = "N", value_parser = positive)]
    pub act_blocks: Option<usize>,
    /// Lanes of a processing element; 8 take a block in two steps
    #[arg(long, value_name = "8|16", value_parser = positive)]
    pub lanes: Option<usize>,
    /// Units beside the array
    #[arg(long, value_enum)]
    pub units: Option<Units>,
    /// Rate of the serial line (default: the board's)
    #[arg(long, value_name = "BAUD")]
    pub baud: Option<u32>,
}

impl EngineArguments {
    /// Whether they ask for anything but a rate.
    pub const fn shape_is_given(&self) -> bool {
        self.rows.is_some()
            || self.cols.is_some()
            || self.lanes.is_some()
            || self.max_k.is_some()
            || self.pipeline.is_some()
            || self.weight_blocks.is_some()
            || self.act_blocks.is_some()
            || self.units.is_some()
    }

    /// The board's engine, changed as they say, and the line's rate in baud.
    pub fn engine(&self, board: &fpga::Board) -> anyhow::Result<(BoardConfig, u32)> {
        let baud = self.baud.unwrap_or(board.uart.baud);
        let mut config = board.engine(baud)?;
        let array = &mut config.array;
        for (place, wanted) in [
            (&mut array.rows, self.rows),
            (&mut array.cols, self.cols),
            (&mut array.lanes, self.lanes),
            (&mut array.max_k, self.max_k),
            (&mut array.pipeline, self.pipeline),
            (&mut array.weight_blocks, self.weight_blocks),
            (&mut array.act_blocks, self.act_blocks),
        ] {
            if let Some(wanted) = wanted {
                *place = wanted;
            }
        }
        if let Some(units) = self.units {
            config.requantizer = matches!(units, Units::Requantizer | Units::Both);
            config.quantizer = matches!(units, Units::Quantizer | Units::Both);
        }
        Ok((config, baud))
    }
}

#[derive(Debug, Args)]
pub struct BoardBuild {
    /// The board, a name of `fgmp board list`. Without --rows and --cols the array is the largest that fits
    pub board: String,
    #[command(flatten)]
    pub engine: EngineArguments,
    /// Folder for bitstream, report, constraints and Verilog; replaced if an earlier build is in it (default: the board's name)
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Placings at most, with seeds from --seed on, until the clock is met
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: u32,
    /// Read the bitstream back and compare
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct BoardFlash {
    /// The board, a name of `fgmp board list`
    pub board: String,
    /// The bitstream, or the folder of a build
    #[arg(value_name = "BITSTREAM|DIR")]
    pub bitstream: PathBuf,
    /// To the device's own memory: at once, and lost with power
    #[arg(long)]
    pub sram: bool,
    /// Refuse where nothing reads back what was written
    #[arg(long)]
    pub verify: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct BoardMeasure {
    /// A board of the family, the larger the better
    pub board: String,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

fn stall_chance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=90.0).contains(&percent) => Ok(percent),
        Ok(_) => Err("expected 0 to 90".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::ALL
        .into_iter()
        .find(|profile| profile.name() == text)
        .ok_or_else(|| {
            let names: Vec<_> = Profile::ALL.into_iter().map(Profile::name).collect();
            format!("expected one of {}", names.join(", "))
        })
}

fn percentage(text: &str) -> Result<Share, String> {
    let number: f64 = text
        .parse()
        .map_err(|error: std::num::ParseFloatError| error.to_string())?;
    Share::new(number / 100.0).map_err(|_| "expected 0 to 100".to_owned())
}

fn share(text: &str) -> Result<Share, String> {
    let number: f64 = text
        .parse()
        .map_err(|error: std::num::ParseFloatError| error.to_string())?;
    Share::new(number).map_err(|error| error.to_string())
}
