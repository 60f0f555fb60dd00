//! `fgmp board build`: from weights' engine to a bitstream, and `fgmp board measure`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use fpga::flow::{self, Attempt, Built, Check, Effort, FlowError, Step, implement, synthesize};
use fpga::sizing::{Model, Size, engines_to_measure, largest};
use fpga::{Board, bitstream};
use hdl::board::BoardConfig;
use hdl::build::emit_board;
use serde::Serialize;
use synth::nextpnr::{CriticalPath, RouteError, Usage};

use crate::arguments::{BoardBuild, BoardMeasure, EngineArguments};
use crate::output::{Outcome, Output, count};

/// What `report.json` is of: a folder with it may be replaced.
const KIND: &str = "fgmp board build";

/// The report, on the command line and in the folder.
#[derive(Serialize)]
struct Report<'a> {
    kind: &'static str,
    board: &'static str,
    part: &'static str,
    engine: BoardConfig,
    baud: u32,
    /// Hz of the engine's clock.
    clock_hz: u32,
    /// MHz by nextpnr.
    mhz: f64,
    /// MHz by icetime, where it is installed.
    icetime_mhz: Option<f64>,
    seed: u32,
    attempts: &'a [Attempt],
    /// Estimated cells, where the array was chosen by them.
    estimate: Option<Size>,
    /// Cells by nextpnr.
    cells: BTreeMap<&'a str, Usage>,
    critical_path: Option<&'a CriticalPath>,
    /// Arrays that were tried before and didn't fit or were too slow.
    refused: &'a [String],
    bitstream: String,
    bytes: usize,
    check: Option<&'a Check>,
    yosys: &'a str,
    nextpnr: &'a str,
    seconds: f64,
    files: Vec<String>,
}

/// Engines to try, the largest first, each with its estimate: one, if its sides are given.
fn candidates(
    board: &Board,
    config: BoardConfig,
    arguments: &EngineArguments,
) -> anyhow::Result<Vec<(BoardConfig, Option<Size>)>> {
    if arguments.rows.is_some() || arguments.cols.is_some() {
        return Ok(vec![(config.validate()?, None)]);
    }
    let model = Model::of(board.family)?;
    let found = largest(board, &config, &model)?;
    Ok(found
        .into_iter()
        .map(|(config, size)| (config, Some(size)))
        .collect())
}

/// Runs the command.
pub fn run(arguments: &BoardBuild, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let board = fpga::board(&arguments.board)?;
    let folder = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(board.name));
    let (config, baud) = arguments.engine.engine(board)?;
    let candidates = candidates(board, config, &arguments.engine)?;
    flow::tools(board)?;
    check_folder(&folder)?;
    let effort = Effort {
        first_seed: u32::try_from(seed).context("--seed: a placer's seed has 32 bits")?,
        seeds: arguments.seeds,
    };
    let mut refused: Vec<String> = Vec::new();
    let (config, estimate, text, built) = 'found: {
        for (config, estimate) in &candidates {
            let (rows, cols) = (config.array.rows, config.array.cols);
            let text = emit_board(*config)?.concatenated();
            match attempt(board, &text, effort, output) {
                Ok(built) => break 'found (*config, *estimate, text, built),
                // A smaller array is easier to place and to route; one that was asked for is not replaced.
                Err(
                    error @ (FlowError::Route(RouteError::TooLarge { .. })
                    | FlowError::TooSlow { .. }),
                ) if estimate.is_some() => {
                    note(&format!("{rows} x {cols}: {error}"));
                    refused.push(format!("{rows} x {cols}: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no array fits {}: {}", board.name, refused.join("; "));
    };
    let check = if arguments.check {
        note("reading the bitstream back");
        Some(flow::check(board, &built.bitstream, &built.placed)?)
    } else {
        None
    };
    let stem = format!("fgmp_{}", board.name.replace('-', "_"));
    let extension = board.family.bitstream_extension();
    let name = format!("{stem}.{extension}");
    let mut files: Vec<(String, Vec<u8>)> = vec![
        (name.clone(), built.bitstream.clone()),
        (
            format!("{stem}.{}", board.family.constraints_extension()),
            built.constraints.clone().into_bytes(),
        ),
        (
            format!("{}.v", built.top.name),
            built.top.verilog.clone().into_bytes(),
        ),
        (format!("{}.v", fpga::ENGINE), text.into_bytes()),
    ];
    if board.flash.tool == fpga::Programmer::DfuUtil {
        let usb = board.usb;
        files.push((
            format!("{stem}.dfu"),
            bitstream::with_dfu_suffix(&built.bitstream, usb.vendor, usb.product),
        ));
    }
    let mut names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    names.push("report.json".to_owned());
    let routed = &built.routed;
    let cells: BTreeMap<&str, Usage> = routed
        .used
        .iter()
        .map(|(kind, &used)| {
            let available = routed.available.get(kind).copied().unwrap_or(0);
            (kind.as_str(), Usage { used, available })
        })
        .collect();
    let report = Report {
        kind: KIND,
        board: board.name,
        part: board.part,
        engine: config,
        baud,
        clock_hz: board.system_hz(),
        mhz: routed.mhz,
        icetime_mhz: routed.icetime_mhz,
        seed: routed.seed,
        attempts: &built.attempts,
        estimate,
        cells,
        critical_path: routed.critical_path.as_ref(),
        refused: &refused,
        bitstream: name.clone(),
        bytes: built.bitstream.len(),
        check: check.as_ref(),
        yosys: &built.cells.tool,
        nextpnr: &routed.tool,
        seconds: start.elapsed().as_secs_f64(),
        files: names,
    };
    let mut json = serde_json::to_string_pretty(&report).context("the report")?;
    json.push('\n');
    files.push(("report.json".to_owned(), json.into_bytes()));
    write_folder(&folder, &files)?;
    show(board, &report, &built, &folder, output);
    output.json(&report)?;
    Ok(Outcome::Done)
}

/// A line on standard error.
fn note(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("fgmp: {text}\n").as_bytes());
}

/// Maps, places and packs one engine.
fn attempt(board: &Board, text: &str, effort: Effort, output: &Output) -> Result<Built, FlowError> {
    let spinner = output.spinner("");
    let step = |step: Step| match step {
        Step::Synthesis => note("yosys maps the engine"),
        Step::Placing { seed } => note(&format!("nextpnr places and routes it, seed {seed}")),
        Step::Placed { seed, mhz } => note(&format!(
            "seed {seed}: {mhz:.2} MHz, needed {:.2}",
            f64::from(board.system_hz()) / 1e6
        )),
        Step::Unroutable { seed } => note(&format!(
            "seed {seed}: the wires find no way from this placing"
        )),
        Step::Packing => note("the bitstream is packed"),
    };
    step(Step::Synthesis);
    let result = synthesize(board, text, board.family.hierarchy())
        .and_then(|netlist| implement(board, netlist, effort, step));
    spinner.finish_and_clear();
    result
}

fn show(board: &Board, report: &Report<'_>, built: &Built, folder: &Path, output: &Output) {
    let array = report.engine.array;
    output.line(format!(
        "{}: {} x {} array of {} lanes and {} stages on {}, {} baud ({} cycles a bit)",
        board.title,
        array.rows,
        array.cols,
        array.lanes,
        array.pipeline,
        board.part,
        count(report.baud.into()),
        report.engine.clocks_per_bit,
    ));
    let rows: Vec<Vec<String>> = report
        .cells
        .iter()
        .map(|(kind, usage)| {
            vec![
                (*kind).to_owned(),
                count(usage.used),
                count(usage.available),
                format!(
                    "{:.1} %",
                    usage.used as f64 / usage.available.max(1) as f64 * 100.0
                ),
            ]
        })
        .collect();
    output.table(&["cells", "used", "there", "share"], &rows);
    let second = report
        .icetime_mhz
        .map(|mhz| format!(", {mhz:.2} by icetime"))
        .unwrap_or_default();
    output.line(format!(
        "clock {:.2} MHz, met with {:.2} MHz{second} (seed {}, {} placed)",
        f64::from(report.clock_hz) / 1e6,
        report.mhz,
        report.seed,
        built.attempts.len()
    ));
    if let Some(size) = report.estimate {
        output.line(format!(
            "chosen by the estimate of {:.0} logic cells",
            size.logic
        ));
    }
    if let Some(check) = report.check {
        output.line(format!(
            "{}: the same {} bytes",
            check.method,
            count(check.bytes as u64)
        ));
    }
    output.line(format!(
        "wrote {}: {} bytes in {:.1} s; `fgmp board flash {} {}` writes it to the board",
        folder.join(&report.bitstream).display(),
        count(report.bytes as u64),
        report.seconds,
        board.name,
        folder.display()
    ));
}

/// Whether a folder may be written: it isn't there, is empty, or holds an earlier build.
fn check_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() && !folder.is_dir() {
        bail!("{}: a file of this name exists", folder.display());
    }
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        let earlier = fs::read_to_string(folder.join("report.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .is_some_and(|report| report["kind"] == KIND);
        if !earlier {
            bail!(
                "{}: exists and holds no earlier build (no report.json of one); name a new or empty folder",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Writes a folder whole or not at all: beside its place, then renamed into it.
fn write_folder(folder: &Path, files: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
    check_folder(folder)?;
    let failed = || format!("{}: can't be written", folder.display());
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(failed)?;
    let draft = tempfile::Builder::new()
        .prefix(".fgmp-board-")
        .tempdir_in(parent)
        .with_context(failed)?;
    for (name, bytes) in files {
        fs::write(draft.path().join(name), bytes).with_context(failed)?;
    }
    // A temporary folder is private; this one has the permissions that new folders have.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))
            .with_context(failed)?;
    }
    let old = tempfile::Builder::new()
        .prefix(".fgmp-old-")
        .tempdir_in(parent)
        .with_context(failed)?;
    if folder.exists() {
        fs::rename(folder, old.path().join("build")).with_context(failed)?;
    }
    let draft = draft.keep();
    fs::rename(&draft, folder).with_context(failed)
}

/// `fgmp board measure`.
pub fn measure(arguments: &BoardMeasure, output: &Output) -> anyhow::Result<Outcome> {
    let board = fpga::board(&arguments.board)?;
    let mut failed = None;
    let samples = fpga::sizing::measure(board, &engines_to_measure(board.family), |sample| {
        match serde_json::to_string(sample) {
            Ok(line) => output.line(line),
            Err(error) => failed = Some(error),
        }
    })?;
    if let Some(error) = failed {
        return Err(error).context("a measurement");
    }
    output.json(&samples)?;
    Ok(Outcome::Done)
}
