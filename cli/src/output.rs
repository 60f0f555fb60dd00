//! What a command prints: text, tables, progress, JSON; and files that are whole or absent.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How a command ended that had good input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// A check failed.
    CheckFailed,
    /// The user stopped it at a point where it can go on.
    Interrupted,
}

impl Outcome {
    /// Done if the check holds.
    pub fn of_check(passed: bool) -> Self {
        if passed {
            Self::Done
        } else {
            Self::CheckFailed
        }
    }
}

/// Where text and JSON go.
pub struct Output {
    json: Option<PathBuf>,
    text: bool,
}

impl Output {
    /// Text to standard output; with JSON to standard output, no text.
    pub fn new(json: Option<&Path>) -> anyhow::Result<Self> {
        let to_stdout = json == Some(Path::new("-"));
        if let Some(path) = json.filter(|_| !to_stdout) {
            check_writable(path)?;
        }
        Ok(Self {
            json: json.map(Path::to_owned),
            text: !to_stdout,
        })
    }

    /// A line of text.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.text {
            print(&format!("{}\n", text.as_ref()));
        }
    }

    /// Text as it comes, without an end of line.
    pub fn piece(&self, text: &str) {
        if self.text {
            print(text);
        }
    }

    /// A table; columns of numbers are right-aligned.
    pub fn table(&self, header: &[&str], rows: &[Vec<String>]) {
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header)
            .add_rows(rows);
        let numeric = |index: usize| {
            rows.iter().all(|row| {
                row.get(index).is_some_and(|cell| {
                    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit())
                })
            })
        };
        for (index, column) in table.column_iter_mut().enumerate() {
            if numeric(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.line(table.to_string());
    }

    /// The figures for machines.
    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let mut text =
            serde_json::to_string_pretty(value).context("the figures do not serialize")?;
        text.push('\n');
        if path == Path::new("-") {
            print(&text);
            return Ok(());
        }
        golden::tensors::write_atomically(path, text.as_bytes())
            .with_context(|| format!("{}: can't be written", path.display()))
    }

    /// A progress bar on standard error, if that is a terminal.
    pub fn progress(&self, what: &str, steps: u64) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len} {elapsed} ETA {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(steps)
            .with_style(style)
            .with_message(what.to_owned())
    }

    /// A spinner on standard error, if that is a terminal, for work of unknown length.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        spinner.enable_steady_tick(std::time::Duration::from_millis(120));
        spinner
    }
}

/// Prints to standard output. A reader that has gone ends the program quietly, as is usual in pipes.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

static OUTPUTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Checks that a file can be written before the work for it is done, and notes it for clean-up.
pub fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!(
            "{}: is a folder, expected the name of a file",
            path.display()
        );
    }
    if path.file_name().is_none() {
        bail!("{}: names no file", path.display());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::NamedTempFile::new_in(folder).with_context(|| {
        format!(
            "{}: can't be written: its folder {} takes no file",
            path.display(),
            folder.display()
        )
    })?;
    if path
        .metadata()
        .is_ok_and(|metadata| metadata.permissions().readonly())
    {
        bail!(
            "{}: can't be written: the file is read-only",
            path.display()
        );
    }
    if let Ok(mut outputs) = OUTPUTS.lock() {
        outputs.push(path.to_owned());
    }
    Ok(())
}

/// Whether the command at hand stops by itself when it is asked to, and whether it was asked.
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C as a question instead of an end, while this lives.
pub struct Interrupt(());

impl Interrupt {
    /// The command will look at [`Interrupt::asked`] every few seconds. A second Ctrl-C ends it at once.
    pub fn graceful() -> Self {
        GRACEFUL.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn asked(&self) -> bool {
        ASKED.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        GRACEFUL.store(false, Ordering::SeqCst);
    }
}

/// On Ctrl-C, removes what a write in progress has left beside its target, and ends with status 130; a command
/// that can go on later is asked to stop first.
pub fn remove_partial_files_on_interrupt() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if GRACEFUL.load(Ordering::SeqCst) && !ASKED.swap(true, Ordering::SeqCst) {
            // A closed standard error leaves nobody to tell.
            let _ = std::io::stderr().write_all(
                b"\nfgmp: stopping where it can go on later; Ctrl-C again ends it at once\n",
            );
            return;
        }
        if let Ok(outputs) = OUTPUTS.lock() {
            for path in outputs.iter() {
                if let Some(name) = path.file_name() {
                    let partial =
                        format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
                    // It exists only while a write is in progress.
                    let _ = std::fs::remove_file(path.with_file_name(partial));
                }
            }
        }
        std::process::exit(130);
    })
    .context("the interrupt handler can't be set")
}

/// A count with thousands separated, for text.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as percent with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
