//! The embedded models and streams, and models from files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoints::{Checkpoint, Tokenizer};
use fisher::{DistillationError, DistillationOptions};
use golden::fisher::FisherInformation;
use golden::model::{
    Calibration, CalibrationWindows, Compensation, ConfigHints, LanguageModel, Model, ModelError,
    QuantizedModel,
};
use golden::packed::PackedFile;
use golden::quantizer::WeightOptions;
use golden::tensors::{TensorFile, read_metadata, read_tokens};

use crate::arguments::{ModelArguments, Refinement};
use crate::output::{Interrupt, Output};

static SHARED: &[u8] = include_bytes!("../../models/shared-4x3.safetensors");
static BASE: &[u8] = include_bytes!("../../models/base-4.safetensors");
static POLICY: &[u8] = include_bytes!("../../models/countdown-policy.safetensors");
static REWARD: &[u8] = include_bytes!("../../models/countdown-prm.safetensors");
static CALIBRATION: &[u8] = include_bytes!("../../models/calibration.u16");
static VALID: &[u8] = include_bytes!("../../models/valid.u16");
static TEST: &[u8] = include_bytes!("../../models/test.u16");
static TOKENIZER: &[u8] = include_bytes!("../../models/tokenizer.json");

/// How messages call the embedded model that commands take by default.
pub const EMBEDDED: &str = "shared-4x3 (embedded)";

/// Stands in front of each document that the embedded models were trained on.
const BEGIN: &str = "<|bos|>";

/// Calibration windows that scores are taken from unless something else is asked for: eight bytes for each block.
const SCORE_WINDOWS: usize = 12;

/// Tokens of a calibration window unless something else is asked for.
const CALIBRATION_CONTEXT: usize = 512;

fn tokens_of(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&pair| u16::from_le_bytes(pair).into())
        .collect()
}

/// The model that a name or a path means, and the name that messages give it.
enum Source {
    /// One of those in this program.
    Embedded(&'static str, &'static [u8]),
    /// A file or a folder.
    File(PathBuf),
}

impl Source {
    fn of(input: Option<&Path>) -> Self {
        match input {
            None => Self::Embedded(EMBEDDED, SHARED),
            Some(path) if path.exists() => Self::File(path.to_owned()),
            Some(path) => match path.to_str() {
                Some("shared-4x3") => Self::Embedded(EMBEDDED, SHARED),
                Some("base-4") => Self::Embedded("base-4 (embedded)", BASE),
                Some("countdown-policy") => Self::Embedded("countdown-policy (embedded)", POLICY),
                Some("countdown-prm") => Self::Embedded("countdown-prm (embedded)", REWARD),
                _ => Self::File(path.to_owned()),
            },
        }
    }
}

/// A model's file as it was found.
enum Contents {
    Tensors(TensorFile),
    Checkpoint(Checkpoint),
}

/// Reads packed files and plain tensors whole; of checkpoints only what they hold.
fn contents(input: Option<&Path>) -> anyhow::Result<(Contents, PathBuf)> {
    match Source::of(input) {
        Source::Embedded(name, bytes) => {
            let path = PathBuf::from(name);
            let file = TensorFile::parse(&path, bytes)?;
            Ok((Contents::Tensors(file), path))
        }
        Source::File(path) => {
            let packed = path.extension().is_some_and(|e| e == "safetensors")
                && read_metadata(&path)?.is_some_and(|json| json.get("shapes").is_some());
            let contents = if packed {
                Contents::Tensors(TensorFile::open(&path)?)
            } else {
                Contents::Checkpoint(Checkpoint::open(&path)?)
            };
            Ok((contents, path))
        }
    }
}

/// Whether it is a packed file.
pub fn is_packed(input: Option<&Path>) -> anyhow::Result<bool> {
    Ok(match contents(input)?.0 {
        Contents::Tensors(file) => PackedFile::is_packed(&file),
        Contents::Checkpoint(_) => false,
    })
}

/// Whether there are a Llama-style model's tensors, packed ones aside.
pub fn is_model(input: Option<&Path>) -> anyhow::Result<bool> {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    Ok(match contents(input)?.0 {
        Contents::Tensors(file) => {
            !PackedFile::is_packed(&file) && file.tensors.contains_key(EMBEDDING)
        }
        Contents::Checkpoint(checkpoint) => checkpoint.tensor(EMBEDDING).is_some(),
    })
}

/// What the arguments say of a model's shape.
fn hints(arguments: &ModelArguments) -> ConfigHints {
    ConfigHints {
        repetitions: arguments.repetitions,
        heads: arguments.heads,
        kv_heads: arguments.kv_heads,
        context: arguments.context,
        ..ConfigHints::default()
    }
}

/// The tokenizer of a `tokenizer.json`, or of the model that a GGUF file or a folder holds.
fn open_tokenizer(path: &Path) -> anyhow::Result<Tokenizer> {
    let gguf = path
        .extension()
        .is_some_and(|extension| extension == "gguf");
    if !gguf && !path.is_dir() {
        return Ok(Tokenizer::open(path)?);
    }
    Checkpoint::open(path)?
        .tokenizer()?
        .with_context(|| format!("{}: comes with no tokenizer", path.display()))
}

/// Turns text into the tokens of a model.
#[derive(Default)]
pub struct TokenReader {
    tokenizer: Option<Tokenizer>,
    /// Whether the embedded streams are in the model's vocabulary.
    embedded: bool,
}

impl TokenReader {
    /// A token stream: `valid`, `test` (a file of that name is called `./test`), numbers in a `.u16` or `.u32` file, or text.
    pub fn read(&self, name: &str) -> anyhow::Result<Vec<u32>> {
        let path = Path::new(name);
        let extension = path.extension().and_then(|extension| extension.to_str());
        match (name, extension) {
            ("valid" | "test", _) => {
                self.check_embedded(name)?;
                Ok(tokens_of(if name == "valid" { VALID } else { TEST }))
            }
            (_, Some("u16" | "u32")) => Ok(read_tokens(path)?),
            _ => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{name}: can't be read as text"))?;
                let tokenizer = self.tokenizer.as_ref().with_context(|| {
                    format!(
                        "{name}: is text, and the model comes with no tokenizer; \
                         give one with --tokenizer, or numbers in a .u16 or .u32 file"
                    )
                })?;
                tokenizer
                    .encode(&text)
                    .with_context(|| format!("{name}: can't be tokenized"))
            }
        }
    }

    /// Tokens of a prompt, behind the token that begins a document where the model knows one.
    pub fn prompt(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let tokenizer = self.tokenizer.as_ref().context(
            "the model comes with no tokenizer, and a prompt is text; give one with --tokenizer",
        )?;
        let begin = if self.embedded { BEGIN } else { "" };
        Ok(tokenizer.encode(&format!("{begin}{text}"))?)
    }

    /// The token that begins a document, and so ends the one before, where the model knows one.
    pub fn begin_token(&self) -> Option<u32> {
        let tokenizer = self.tokenizer.as_ref().filter(|_| self.embedded)?;
        tokenizer.encode(BEGIN).ok()?.first().copied()
    }

    /// The tokenizer, where the model has one.
    pub const fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Text of tokens.
    pub fn text(&self, tokens: &[u32]) -> anyhow::Result<String> {
        let tokenizer = self
            .tokenizer
            .as_ref()
            .context("the model comes with no tokenizer")?;
        Ok(tokenizer.decode(tokens)?)
    }

    fn check_embedded(&self, name: &str) -> anyhow::Result<()> {
        if self.embedded {
            return Ok(());
        }
        bail!(
            "{name}: the embedded streams are in the vocabulary of the embedded models, which this model \
             doesn't share; give text or numbers of its own"
        );
    }

    /// The calibration stream of the arguments.
    fn calibration(&self, arguments: &ModelArguments) -> anyhow::Result<Vec<u32>> {
        match &arguments.calibration {
            Some(path) => self.read(&path.to_string_lossy()),
            None => {
                self.check_embedded("no --calibration is given")?;
                Ok(tokens_of(CALIBRATION))
            }
        }
    }
}

/// A model in full precision, and what commands read beside it.
pub struct Prepared {
    /// How messages call it.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Its tokens.
    pub reader: TokenReader,
    /// Squared gradients, if the arguments name a file of them.
    pub fisher: Option<FisherInformation>,
    arguments: ModelArguments,
}

/// [`Calibration::run`], or another that takes the same.
type Calibrate = fn(
    &dyn LanguageModel,
    &[u32],
    CalibrationWindows,
    Option<&[Vec<f32>]>,
    &(dyn Fn(usize, usize) + Sync),
) -> Result<Calibration, ModelError>;

/// Ranges and scores, and whether Fisher information went into the scores.
pub struct Calibrated {
    /// What was found.
    pub calibration: Calibration,
    weighted: bool,
}

impl Prepared {
    fn new(contents: Contents, path: &Path, arguments: &ModelArguments) -> anyhow::Result<Self> {
        let (file, found, own_tokenizer) = match contents {
            Contents::Tensors(file) => (file, ConfigHints::default(), None),
            Contents::Checkpoint(checkpoint) => (
                checkpoint.to_tensor_file()?,
                checkpoint.hints()?,
                checkpoint.tokenizer()?,
            ),
        };
        let model = Model::from_tensors(file, hints(arguments).or(found))
            .with_context(|| format!("{}", path.display()))?;
        let given = match &arguments.tokenizer {
            Some(file) => Some(open_tokenizer(file)?),
            None => None,
        };
        let embedded_vocabulary = Tokenizer::parse(Path::new("tokenizer.json"), TOKENIZER)?;
        let tokenizer = given.or(own_tokenizer);
        // A model without a tokenizer is taken to have been trained on the embedded streams if its vocabulary is as large.
        let embedded =
            tokenizer.is_none() && model.config().vocabulary == embedded_vocabulary.vocabulary();
        let tokenizer = tokenizer.or_else(|| embedded.then_some(embedded_vocabulary));
        let fisher = arguments
            .fisher
            .as_ref()
            .map(|file| FisherInformation::open(file, model.config()))
            .transpose()?;
        Ok(Self {
            name: path.display().to_string(),
            model,
            reader: TokenReader {
                tokenizer,
                embedded,
            },
            fisher,
            arguments: arguments.clone(),
        })
    }

    /// Reads a model in full precision.
    pub fn open(input: Option<&Path>, arguments: &ModelArguments) -> anyhow::Result<Self> {
        let (contents, path) = contents(input)?;
        if let Contents::Tensors(file) = &contents
            && PackedFile::is_packed(file)
        {
            bail!(
                "{}: is already packed, a model in full precision is needed",
                path.display()
            );
        }
        Self::new(contents, &path, arguments)
    }

    /// The calibration stream.
    pub fn calibration_tokens(&self) -> anyhow::Result<Vec<u32>> {
        self.reader.calibration(&self.arguments)
    }

    /// Windows that ranges are taken from.
    pub fn calibration_windows(&self) -> usize {
        self.arguments.calibration_windows.unwrap_or(8)
    }

    /// Tokens of a calibration window.
    pub fn calibration_window(&self) -> usize {
        self.arguments
            .calibration_context
            .unwrap_or(CALIBRATION_CONTEXT.min(self.model.config().context))
    }

    fn windows(&self) -> CalibrationWindows {
        let ranges = self.calibration_windows();
        let scores = self.arguments.score_windows;
        CalibrationWindows {
            window: self.calibration_window(),
            ranges,
            scores: scores.unwrap_or(ranges.min(SCORE_WINDOWS)),
        }
    }

    /// Ranges, and scores weighted with the Fisher information if there is any.
    pub fn calibrate(&self, output: &Output) -> anyhow::Result<Calibrated> {
        self.calibrate_with(Calibration::run, output)
    }

    /// The same for a model whose repetitions are quantized alike.
    pub fn calibrate_alike(&self, output: &Output) -> anyhow::Result<Calibrated> {
        self.calibrate_with(Calibration::run_alike, output)
    }

    fn calibrate_with(&self, run: Calibrate, output: &Output) -> anyhow::Result<Calibrated> {
        let tokens = self.calibration_tokens()?;
        let progress = output.progress("calibrating", 1);
        let calibration = run(
            &self.model,
            &tokens,
            self.windows(),
            self.fisher.as_ref().map(|f| f.activations.as_slice()),
            &|done, all| {
                progress.set_length(all as u64);
                progress.set_position(done as u64);
            },
        )
        .with_context(|| {
            let source = self.arguments.calibration.as_ref().map_or_else(
                || {
                    "the embedded calibration stream (give one that fits the model with --calibration)"
                        .to_owned()
                },
                |path| path.display().to_string(),
            );
            format!("calibration on {source}")
        })?;
        progress.finish_and_clear();
        Ok(Calibrated {
            calibration,
            weighted: self.fisher.is_some(),
        })
    }

    /// The same ranges with scores in which all channels weigh the same.
    pub fn unweighted(&self, calibrated: &Calibrated) -> anyhow::Result<Calibrated> {
        let tokens = self.calibration_tokens()?;
        let calibration =
            calibrated
                .calibration
                .with_sensitivity(&self.model, &tokens, self.windows(), None)?;
        Ok(Calibrated {
            calibration,
            weighted: false,
        })
    }

    /// The model quantized; weights weigh as the calibration's activations do.
    pub fn quantize(
        &self,
        options: WeightOptions,
        calibrated: &Calibrated,
    ) -> anyhow::Result<QuantizedModel> {
        let fisher = self.fisher.as_ref().filter(|_| calibrated.weighted);
        Ok(QuantizedModel::new(
            &self.model,
            options,
            fisher.map(|fisher| &fisher.weights),
            &calibrated.calibration,
        )?)
    }
}

impl Prepared {
    /// Compensates rounding errors and tunes norms, as asked; `clip` says how scales of FP4 blocks are chosen.
    /// False if the user stopped it.
    pub fn refine(
        &self,
        quantized: &mut QuantizedModel,
        refinement: Refinement,
        clip: bool,
        calibrated: &Calibrated,
        output: &Output,
    ) -> anyhow::Result<bool> {
        if refinement.compensate.is_none() && refinement.distill.is_none() {
            return Ok(true);
        }
        let tokens = self.calibration_tokens()?;
        let window = self.calibration_window();
        if let Some(count) = refinement.compensate {
            let windows: Vec<&[u32]> = tokens.chunks_exact(window).take(count).collect();
            if windows.len() < count {
                bail!(
                    "--compensate {count}: the calibration stream has {} windows of {window} tokens",
                    windows.len()
                );
            }
            let fisher = self.fisher.as_ref().filter(|_| calibrated.weighted);
            let options = Compensation {
                clip,
                ..Compensation::default()
            };
            let progress = output.progress("compensating", 1);
            quantized.compensate(
                &self.model,
                &windows,
                options,
                fisher.map(|fisher| &fisher.weights),
                &mut |done, all| {
                    progress.set_length(all as u64);
                    progress.set_position(done as u64);
                },
            )?;
            progress.finish_and_clear();
        }
        if let Some(steps) = refinement.distill {
            let options = DistillationOptions {
                steps,
                ..DistillationOptions::default()
            };
            let windows = fisher::windows(&tokens, window, steps * options.batch);
            let interrupt = Interrupt::graceful();
            let progress = output.progress("tuning norms", steps as u64);
            let result = fisher::distill(&self.model, quantized, &windows, &options, &mut |step| {
                progress.set_position(step.done as u64);
                if let Some(loss) = step.loss {
                    progress.set_message(format!("tuning norms, {loss:.4}"));
                }
                if interrupt.asked() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            progress.finish_and_clear();
            match result {
                Err(DistillationError::Interrupted { done, steps }) => {
                    output.line(format!("interrupted after {done} of {steps} steps"));
                    return Ok(false);
                }
                result => result?,
            };
        }
        Ok(true)
    }
}

/// A model as it was found.
pub enum Found {
    /// In full precision.
    Full(Box<Prepared>),
    /// Already quantized.
    Packed(Box<QuantizedModel>, Box<TokenReader>),
}

/// Opens a model, packed or not.
pub fn open(input: Option<&Path>, arguments: &ModelArguments) -> anyhow::Result<Found> {
    let (contents, path) = contents(input)?;
    match contents {
        Contents::Tensors(file) if PackedFile::is_packed(&file) => {
            let packed = PackedFile::from_tensors(file)?;
            for (flag, given) in [
                ("--calibration", &arguments.calibration),
                ("--fisher", &arguments.fisher),
            ] {
                if given.is_some() {
                    bail!(
                        "{}: is already quantized, so {flag} can't change it; give the full-precision model",
                        path.display()
                    );
                }
            }
            let model = QuantizedModel::from_packed_file(&path, packed, hints(arguments))?;
            let tokenizer = match &arguments.tokenizer {
                Some(file) => open_tokenizer(file)?,
                None => Tokenizer::parse(Path::new("tokenizer.json"), TOKENIZER)?,
            };
            let embedded = arguments.tokenizer.is_none()
                && model.trunk().config().vocabulary == tokenizer.vocabulary();
            let reader = TokenReader {
                tokenizer: (embedded || arguments.tokenizer.is_some()).then_some(tokenizer),
                embedded,
            };
            Ok(Found::Packed(Box::new(model), Box::new(reader)))
        }
        contents => Ok(Found::Full(Box::new(Prepared::new(
            contents, &path, arguments,
        )?))),
    }
}

/// The default embedded model in full precision.
pub fn embedded(arguments: &ModelArguments) -> anyhow::Result<Prepared> {
    Prepared::open(None, arguments)
}
