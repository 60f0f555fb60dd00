//! From a configuration to the core or the complete accelerator: as Verilog, or as a module of rust-hdl's simulator.

use crate::accelerator::Accelerator;
use crate::board::{BoardConfig, BoardConfigError, BoardEngine};
use crate::config::{ArrayConfig, ConfigError};
use crate::core::Core;
use crate::emit::{Bundle, EmitError, EmitOptions, emit};
use crate::ets::{PageTable, PageTableConfig, SelectorConfig, TreeConfigError, TreeSelector};
use crate::prelude::*;
use crate::sim::Model;
use crate::speed::{SpeedAccelerator, SpeedConfig, SpeedConfigError};

/// Name of the generated top module.
pub const TOP: &str = "fgmp_core";

/// Name of the complete accelerator's top module.
pub const ACCELERATOR_TOP: &str = "fgmp_accelerator";

/// Name of a board's engine.
pub const BOARD_TOP: &str = "fgmp_board";

/// Name of SPEED's top module.
pub const SPEED_TOP: &str = "fgmp_speed";

/// Name of tree search's selector.
pub const SELECTOR_TOP: &str = "fgmp_tree_selector";

/// Name of its page table.
pub const PAGE_TABLE_TOP: &str = "fgmp_page_table";

/// What the names of all modules begin with.
pub const PREFIX: &str = "fgmp_";

/// Why a core can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The board's configuration is refused.
    #[error(transparent)]
    Board(#[from] BoardConfigError),
    /// SPEED's configuration is refused.
    #[error(transparent)]
    Speed(#[from] SpeedConfigError),
    /// A size of tree search's hardware is refused.
    #[error(transparent)]
    Tree(#[from] TreeConfigError),
    /// The system gives no thread to build in.
    #[error("no thread to build the accelerator in: {0}")]
    Thread(std::io::Error),
    /// The emitter refuses a module.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// Runs an expression with the core of the configured accumulator width: const generics must be known here, so
/// each width of [`crate::config::ACC_WIDTHS`] is an instance of its own.
macro_rules! with_core {
    ($config:expr, $core:ident => $body:expr) => {{
        let config = $config;
        match config.acc_bits() {
            52 => {
                let $core =
                    Core::<52>::new(config.rows, config.cols, config.pipeline, config.multiplier);
                $body
            }
            56 => {
                let $core =
                    Core::<56>::new(config.rows, config.cols, config.pipeline, config.multiplier);
                $body
            }
            60 => {
                let $core =
                    Core::<60>::new(config.rows, config.cols, config.pipeline, config.multiplier);
                $body
            }
            _ => {
                let $core =
                    Core::<64>::new(config.rows, config.cols, config.pipeline, config.multiplier);
                $body
            }
        }
    }};
}

/// Emits the core of a configuration.
///
/// # Errors
/// The configuration is out of bounds, or a module can't be translated.
pub fn emit_core(config: ArrayConfig) -> Result<Bundle, BuildError> {
    let options = EmitOptions {
        top: TOP.to_owned(),
        prefix: PREFIX.to_owned(),
        keep_hierarchy: vec!["pe".to_owned()],
    };
    with_core!(config.validate()?, core => {
        let mut core = core;
        core.connect_all();
        Ok(emit(&core, &options)?)
    })
}

/// Runs an expression with the accelerator of the configured accumulator width.
macro_rules! with_accelerator {
    ($config:expr, $accelerator:ident => $body:expr) => {{
        let config = $config;
        match config.acc_bits() {
            52 => {
                let $accelerator = Accelerator::<52>::new(config);
                $body
            }
            56 => {
                let $accelerator = Accelerator::<56>::new(config);
                $body
            }
            60 => {
                let $accelerator = Accelerator::<60>::new(config);
                $body
            }
            _ => {
                let $accelerator = Accelerator::<64>::new(config);
                $body
            }
        }
    }};
}

/// Stack for building an accelerator: its units are large and are moved about while they are built.
const STACK_BYTES: usize = 64 << 20;

/// Emits the complete accelerator of a configuration.
///
/// # Errors
/// The configuration is out of bounds, a module can't be translated, or the system gives no thread.
pub fn emit_accelerator(config: ArrayConfig) -> Result<Bundle, BuildError> {
    let config = config.validate()?;
    in_thread(move || {
        let options = EmitOptions {
            top: ACCELERATOR_TOP.to_owned(),
            prefix: PREFIX.to_owned(),
            keep_hierarchy: vec!["pe".to_owned()],
        };
        with_accelerator!(config, accelerator => {
            let mut accelerator = accelerator;
            accelerator.connect_all();
            Ok(emit(&accelerator, &options)?)
        })
    })
}

/// Builds with a stack of [`STACK_BYTES`].
fn in_thread(
    build: impl FnOnce() -> Result<Bundle, BuildError> + Send + 'static,
) -> Result<Bundle, BuildError> {
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(build)
        .map_err(BuildError::Thread)?;
    match thread.join() {
        Ok(bundle) => bundle,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs an expression with the engine of the configured accumulator width.
macro_rules! with_engine {
    ($config:expr, $engine:ident => $body:expr) => {{
        let config = $config;
        macro_rules! engine {
            ($acc:literal) => {
                if config.array.lanes == golden::format::BLOCK {
                    let $engine = BoardEngine::<$acc, 64, 128, 137>::new(config);
                    $body
                } else {
                    let $engine = BoardEngine::<$acc, 32, 64, 73>::new(config);
                    $body
                }
            };
        }
        match config.array.acc_bits() {
            52 => engine!(52),
            56 => engine!(56),
            60 => engine!(60),
            _ => engine!(64),
        }
    }};
}

/// Emits the engine of a board.
///
/// # Errors
/// The configuration is out of bounds, a module can't be translated, or the system gives no thread.
pub fn emit_board(config: BoardConfig) -> Result<Bundle, BuildError> {
    let config = config.validate()?;
    in_thread(move || {
        let options = EmitOptions {
            top: BOARD_TOP.to_owned(),
            prefix: PREFIX.to_owned(),
            keep_hierarchy: vec!["pe".to_owned()],
        };
        with_engine!(config, engine => {
            let mut engine = engine;
            engine.connect_all();
            Ok(emit(&engine, &options)?)
        })
    })
}

/// Runs an expression with SPEED's top of the configured widths.
macro_rules! with_speed {
    ($config:expr, $speed:ident => $body:expr) => {{
        let config = $config;
        macro_rules! speed {
            ($acc:literal) => {
                match config.entry_bits() {
                    8 => speed!($acc, 8),
                    12 => speed!($acc, 12),
                    16 => speed!($acc, 16),
                    _ => speed!($acc, 20),
                }
            };
            ($acc:literal, $entry:literal) => {{
                let $speed = SpeedAccelerator::<$acc, $entry>::new(config);
                $body
            }};
        }
        match config.array.acc_bits() {
            52 => speed!(52),
            56 => speed!(56),
            60 => speed!(60),
            _ => speed!(64),
        }
    }};
}

/// Emits SPEED's top: the complete accelerator with what decodes speculatively on it.
///
/// # Errors
/// The configuration is out of bounds, a module can't be translated, or the system gives no thread.
pub fn emit_speed(config: SpeedConfig) -> Result<Bundle, BuildError> {
    let config = config.validate()?;
    in_thread(move || {
        let options = EmitOptions {
            top: SPEED_TOP.to_owned(),
            prefix: PREFIX.to_owned(),
            keep_hierarchy: vec!["pe".to_owned()],
        };
        with_speed!(config, speed => {
            let mut speed = speed;
            speed.connect_all();
            Ok(emit(&speed, &options)?)
        })
    })
}

/// Emits tree search's selector.
///
/// # Errors
/// A size is out of bounds, or a module can't be translated.
pub fn emit_selector(config: SelectorConfig) -> Result<Bundle, BuildError> {
    let config = config.validate()?;
    let nodes = config.nodes;
    Ok(match config.built_leaves() {
        16 => emit_as(SELECTOR_TOP, TreeSelector::<4, 3>::new(nodes))?,
        64 => emit_as(SELECTOR_TOP, TreeSelector::<6, 5>::new(nodes))?,
        _ => emit_as(SELECTOR_TOP, TreeSelector::<8, 7>::new(nodes))?,
    })
}

/// Emits tree search's page table.
///
/// # Errors
/// A size is out of bounds, or a module can't be translated.
pub fn emit_page_table(config: PageTableConfig) -> Result<Bundle, BuildError> {
    let config = config.validate()?;
    // Both fit: validated.
    let (pages, page_tokens) = (config.pages as u16, config.page_tokens as u8);
    macro_rules! table {
        ($segments:literal) => {
            match config.number_bits().1 {
                6 => table!($segments, 6),
                8 => table!($segments, 8),
                10 => table!($segments, 10),
                _ => table!($segments, 12),
            }
        };
        ($segments:literal, $pages:literal) => {{
            let table = PageTable::<$segments, $pages>::new(pages, page_tokens);
            emit_as(PAGE_TABLE_TOP, table)?
        }};
    }
    Ok(match config.number_bits().0 {
        6 => table!(6),
        8 => table!(8),
        10 => table!(10),
        _ => table!(12),
    })
}

/// Emits one module with all that is in it, under its own name.
///
/// # Errors
/// The module can't be translated.
pub fn emit_module(module: impl Block) -> Result<Bundle, EmitError> {
    emit_as(&EmitOptions::default().top, module)
}

/// Emits a module under another name.
fn emit_as(top: &str, mut module: impl Block) -> Result<Bundle, EmitError> {
    module.connect_all();
    let options = EmitOptions {
        top: top.to_owned(),
        prefix: PREFIX.to_owned(),
        ..EmitOptions::default()
    };
    emit(&module, &options)
}

/// The core of a configuration for rust-hdl's simulator; ports are numbered as in the emitted top.
///
/// # Errors
/// The configuration is out of bounds.
pub fn simulated_core(config: ArrayConfig) -> Result<Box<dyn Model>, ConfigError> {
    with_core!(config.validate()?, core => Ok(Box::new(core)))
}
