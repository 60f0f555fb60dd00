//! Verilator as a library: compiles a [`Design`] once into a shared object, keeps it by content, and runs it.
//!
//! The object's cache key is a SHA-256 over everything that decides it: the Verilog, the generated C++, the flags, the
//! tool's version and path, and the processor that `-march=native` means. Builds happen in a temporary folder beside the cache
//! and are renamed into place under a file lock, so any number of processes can ask for the same model at once.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::cache::digest;
use crate::design::{Design, Direction, Port, PortId};
use crate::ffi::{Frame, Model, SerialCall, SerialLine, SerialStop};
use crate::simulator::{SimError, Simulator};
use crate::stream::{RunStats, StreamJob};
use crate::tool;

/// The C++ side that every model shares.
const ENGINE: &str = include_str!("verilator/engine.inc");

/// What a model can record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waveform {
    /// Nothing; fastest.
    None,
    /// GTKWave's compressed format, about a tenth of a VCD.
    Fst,
    /// Value change dump: plain text, read by everything.
    Vcd,
}

impl Waveform {
    /// The format that a file name's ending asks for: `.vcd` is VCD, all else FST.
    pub fn of_file(file: &Path) -> Self {
        match file.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("vcd") => Self::Vcd,
            _ => Self::Fst,
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Fst => &["--trace-fst"],
            Self::Vcd => &["--trace"],
        }
    }
}

/// The installed Verilator, and where its models are kept.
#[derive(Debug, Clone)]
pub struct Verilator {
    program: PathBuf,
    version: String,
    cache: PathBuf,
    short_runs: bool,
}

/// A model on disk, ready to be loaded.
#[derive(Debug, Clone)]
pub struct CompiledModel {
    /// The shared object.
    pub object: PathBuf,
    /// Whether it was built before.
    pub from_cache: bool,
    ports: Vec<Port>,
    simulator: String,
}

/// A running model.
pub struct VerilatorSim {
    model: Model,
    name: String,
}

impl Verilator {
    /// The Verilator of `$VERILATOR`, else of `PATH`, else of the project's tool folder; models are kept in
    /// `$FGMP_CACHE/verilator`, else in `fgmp/verilator` of the user's cache folder.
    ///
    /// # Errors
    /// [`SimError::ToolMissing`] when Verilator, make or the C++ compiler is missing.
    pub fn find() -> Result<Self, SimError> {
        let program = tool::VERILATOR.find()?;
        tool::MAKE.find()?;
        tool::CXX.find()?;
        let version = version(&program)?;
        Ok(Self {
            program,
            version,
            cache: crate::cache::folder("verilator"),
            short_runs: false,
        })
    }

    /// The same for designs that run only briefly: the C++ compiler doesn't optimise and reads all files as one, which takes a
    /// tenth of its time; the models run several times slower.
    #[must_use]
    pub const fn for_short_runs(mut self) -> Self {
        self.short_runs = true;
        self
    }

    /// The same with another cache folder.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = folder.into();
        self
    }

    /// Name and version for reports, for example `Verilator 5.006`.
    pub fn name(&self) -> String {
        let number = self
            .version
            .split_whitespace()
            .nth(1)
            .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        match number {
            Some(number) => format!("Verilator {number}"),
            None => format!(
                "Verilator {}",
                self.version.trim_start_matches("Verilator").trim()
            ),
        }
    }

    /// Whether this is a build that doesn't know its version, as the Python wheel's: its makefile lacks three settings.
    fn is_unversioned(&self) -> bool {
        self.version.contains("UNKNOWN")
    }

    /// Compiles a design, or finds the model of an earlier time.
    ///
    /// # Errors
    /// [`SimError::Build`] with Verilator's message when it refuses the text; [`SimError::PortName`];
    /// [`SimError::File`] when the cache can't be written.
    pub fn compile(&self, design: &Design, waveform: Waveform) -> Result<CompiledModel, SimError> {
        let shim = shim(design, waveform)?;
        let flags = self.flags(waveform);
        let model = |object, from_cache| CompiledModel {
            object,
            from_cache,
            ports: design.ports.clone(),
            simulator: self.name(),
        };
        let key = digest(
            [
                "model 1",
                &self.version,
                &self.program.to_string_lossy(),
                processor(),
                &design.top,
                &shim,
            ]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .chain(
                design
                    .sources
                    .iter()
                    .flat_map(|f| [f.name.as_str(), f.text.as_str()]),
            ),
        );
        let folder = self.cache.join(&key);
        let object = folder.join("model.so");
        if object.is_file() {
            return Ok(model(object, true));
        }
        fs::create_dir_all(&self.cache).map_err(SimError::file(&self.cache))?;
        let lock_path = self.cache.join(format!("{key}.lock"));
        let lock = fs::File::create(&lock_path).map_err(SimError::file(&lock_path))?;
        lock.lock().map_err(SimError::file(&lock_path))?;
        if object.is_file() {
            return Ok(model(object, true));
        }
        self.build(design, &shim, &flags, &folder)?;
        // A failure to remove it only leaves an empty file behind.
        let _ = fs::remove_file(&lock_path);
        Ok(model(object, false))
    }

    /// Compiles a design and starts one model of it, without waveforms.
    ///
    /// # Errors
    /// As [`Verilator::compile`] and [`CompiledModel::start`].
    pub fn simulate(&self, design: &Design) -> Result<VerilatorSim, SimError> {
        self.compile(design, Waveform::None)?.start(1)
    }

    /// Runs a job on a fresh model and writes its waveform to `file` (format by [`Waveform::of_file`]), also when the job fails.
    ///
    /// # Errors
    /// As [`Verilator::compile`] and [`Simulator::run`].
    pub fn run_traced(
        &self,
        design: &Design,
        job: &mut StreamJob,
        file: &Path,
    ) -> Result<RunStats, SimError> {
        let mut model = self.compile(design, Waveform::of_file(file))?.start(1)?;
        model.start_trace(file)?;
        let result = model.run(job);
        model.stop_trace();
        result
    }

    /// Runs Verilator's lint with all warnings over the design.
    ///
    /// # Errors
    /// [`SimError::Build`] with the warnings when there are any.
    pub fn lint(&self, design: &Design) -> Result<(), SimError> {
        let folder =
            tempfile::tempdir().map_err(SimError::file(Path::new("a temporary folder")))?;
        let names = write_sources(design, folder.path())?;
        let output = Command::new(&self.program)
            .current_dir(folder.path())
            .args(["--lint-only", "-Wall", "--top-module", &design.top])
            .args(&names)
            .stdin(Stdio::null())
            .output()
            .map_err(SimError::file(&self.program))?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.refusal(design, &output))
    }

    fn flags(&self, waveform: Waveform) -> Vec<String> {
        let mut flags: Vec<String> = [
            "--cc", "--exe", "--build", "-O3", "--x-assign", "unique", "--x-initial", "unique",
            "-MAKEFLAGS", if self.short_runs { "OPT_FAST=-O0 OPT_GLOBAL=-O2 VM_PARALLEL_BUILDS=0" } else { "OPT_FAST=-O3 OPT_GLOBAL=-O2" },
            "-CFLAGS", "-fPIC -fvisibility=hidden -march=native -DVL_USER_FATAL -DVL_USER_FINISH -DVL_USER_STOP",
            "-LDFLAGS", "-shared",
        ]
        .map(str::to_owned)
        .into();
        flags.extend(waveform.flags().iter().map(|flag| (*flag).to_owned()));
        if self.is_unversioned() {
            for setting in [
                "CFG_CXXFLAGS_PCH_I=-include",
                "CFG_CXXFLAGS_STD=-std=gnu++20",
                "CFG_LDLIBS_THREADS=-pthread",
            ] {
                flags.extend(["-MAKEFLAGS".to_owned(), setting.to_owned()]);
            }
        }
        flags
    }

    /// Builds into a temporary folder and renames it to `folder`. The caller holds the key's lock.
    fn build(
        &self,
        design: &Design,
        shim: &str,
        flags: &[String],
        folder: &Path,
    ) -> Result<(), SimError> {
        let work = tempfile::Builder::new()
            .prefix("building-")
            .tempdir_in(&self.cache)
            .map_err(SimError::file(&self.cache))?;
        let at = work.path();
        let names = write_sources(design, at)?;
        let shim_path = at.join("shim.cpp");
        fs::write(&shim_path, shim).map_err(SimError::file(&shim_path))?;
        let objects = at.join("obj");
        fs::create_dir(&objects).map_err(SimError::file(&objects))?;
        let run_time = self.run_time_folder(flags);
        reuse_run_time(&run_time, &objects);
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let output = Command::new(&self.program)
            .current_dir(at)
            .args(flags)
            .args(["-j", &jobs.to_string(), "--top-module", &design.top])
            .args(["--Mdir", "obj", "-o", "../model.so"])
            .args(&names)
            .arg("shim.cpp")
            .stdin(Stdio::null())
            .output()
            .map_err(SimError::file(&self.program))?;
        if !output.status.success() || !at.join("model.so").is_file() {
            return Err(self.refusal(design, &output));
        }
        keep_run_time(&objects, &run_time);
        // Only the sources and the object are worth keeping.
        let _ = fs::remove_dir_all(&objects);
        let built = work.keep();
        fs::rename(&built, folder).or_else(|error| {
            let _ = fs::remove_dir_all(&built);
            // Without working locks somebody else may have been first: theirs is the same model.
            if folder.join("model.so").is_file() {
                Ok(())
            } else {
                Err(SimError::file(folder)(error))
            }
        })
    }

    /// Where Verilator's own compiled run time is kept between builds; it takes longer to compile than most designs.
    fn run_time_folder(&self, flags: &[String]) -> PathBuf {
        let key = digest(
            [
                "run time 1",
                &self.version,
                &self.program.to_string_lossy(),
                processor(),
            ]
            .into_iter()
            .chain(flags.iter().map(String::as_str)),
        );
        self.cache.join(format!("runtime-{key}"))
    }

    fn refusal(&self, design: &Design, output: &std::process::Output) -> SimError {
        let text = String::from_utf8_lossy(&output.stderr);
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with("make"))
            .collect();
        if lines.is_empty() {
            lines.push("it failed without a message");
        }
        lines.truncate(60);
        SimError::Build {
            tool: self.name(),
            top: design.top.clone(),
            diagnostic: lines.join("\n"),
        }
    }
}

impl CompiledModel {
    /// Loads the object and makes a model. Registers that the Verilog gives no initial value start with random bits drawn
    /// from `seed`, so a design that relies on them shows.
    ///
    /// # Errors
    /// [`SimError::Load`].
    pub fn start(&self, seed: u32) -> Result<VerilatorSim, SimError> {
        Ok(VerilatorSim {
            model: Model::load(&self.object, self.ports.clone(), seed)?,
            name: self.simulator.clone(),
        })
    }
}

impl VerilatorSim {
    /// Records into `file` from now on; the model must have been compiled with a [`Waveform`].
    ///
    /// # Errors
    /// [`SimError::Fatal`] when the model can't record or the file can't be written.
    pub fn start_trace(&mut self, file: &Path) -> Result<(), SimError> {
        self.model.trace_open(file)
    }

    /// Ends the recording and completes its file.
    pub fn stop_trace(&mut self) {
        self.model.trace_close();
    }

    /// See [`Model::serial_run`].
    pub(crate) fn serial_run(
        &mut self,
        line: &mut SerialLine,
        call: &SerialCall<'_>,
        frames: &mut Vec<Frame>,
    ) -> Result<(SerialStop, usize), SimError> {
        self.model.serial_run(line, call, frames)
    }
}

impl Simulator for VerilatorSim {
    fn name(&self) -> &str {
        &self.name
    }

    fn ports(&self) -> &[Port] {
        self.model.ports()
    }

    fn poke(&mut self, port: PortId, words: &[u64]) {
        self.model.poke(port, words);
    }

    fn peek(&self, port: PortId, words: &mut [u64]) {
        self.model.peek(port, words);
    }

    fn eval(&mut self) -> Result<(), SimError> {
        self.model.eval()
    }

    /// The whole job runs on the C++ side, in one call.
    fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError> {
        self.model.run(job)
    }
}

/// The generated part of the C++: the top's header and where each port lives, then the common engine.
fn shim(design: &Design, waveform: Waveform) -> Result<String, SimError> {
    let top = cpp_name(design, &design.top)?;
    let mut text = format!("#include \"V{top}.h\"\n#include \"verilated.h\"\n");
    match waveform {
        Waveform::None => {}
        Waveform::Fst => {
            text.push_str("#include \"verilated_fst_c.h\"\n#define FGMP_TRACE VerilatedFstC\n");
        }
        Waveform::Vcd => {
            text.push_str("#include \"verilated_vcd_c.h\"\n#define FGMP_TRACE VerilatedVcdC\n");
        }
    }
    let mut bindings = String::new();
    for (index, port) in design.ports.iter().enumerate() {
        let name = cpp_name(design, &port.name)?;
        // Writing to a String can't fail.
        let _ = writeln!(
            bindings,
            "    slots[{index}].at = static_cast<void*>(&top.{name}); slots[{index}].width = {};",
            port.width
        );
    }
    let memories = clock_memories(design, &mut text, &top)?;
    let _ = write!(
        text,
        "typedef V{top} Top;\n#define PORTS {}u\n\
         template <class Slot> static void bind_ports(Top& top, Slot* slots) {{\n{bindings}}}\n\
         static uint8_t* clock_memory(Top& top, uint32_t port) {{\n    (void)top;\n    switch (port) {{\n{memories}    default: return nullptr;\n    }}\n}}\n{ENGINE}",
        design.ports.len()
    );
    Ok(text)
}

/// The generated part that finds where a model remembers the level that a clock had, so that the next evaluation sees a rising
/// edge without a falling one before: helpers go to `text`, what is returned are the cases of a switch over port numbers.
///
/// A port has such a place only if the model as a whole waits for one single event, the rising edge of this port: then no
/// other logic can miss the falling one. It is a private part of Verilator's model, so everything is left out that isn't
/// found as version 5.006 writes it, and such a model is clocked in the usual way.
fn clock_memories(design: &Design, text: &mut String, top: &str) -> Result<String, SimError> {
    let mut cases = String::new();
    if design
        .sources
        .iter()
        .any(|file| file.text.contains("negedge"))
    {
        return Ok(cases);
    }
    let _ = writeln!(
        text,
        "#include <cstddef>\n#include <cstdint>\n#include \"V{top}___024root.h\"\n\
         template <template <std::size_t> class Triggers, std::size_t N> static bool is_lone(const Triggers<N>*) {{ return N == 1; }}\n\
         static inline bool is_lone(const void*) {{ return false; }}"
    );
    for (index, port) in design.ports.iter().enumerate() {
        if port.width != 1 || port.direction != Direction::Input {
            continue;
        }
        let memory = format!("root.__Vtrigrprev__TOP__{}", cpp_name(design, &port.name)?);
        let _ = writeln!(
            text,
            "template <class Root> static auto memory_of_{index}(Root& root, int) -> decltype(is_lone(&root.__VactTriggered), &{memory}) {{\n    \
             return is_lone(&root.__VactTriggered) ? &{memory} : nullptr;\n}}\n\
             template <class Root> static uint8_t* memory_of_{index}(Root&, long) {{ return nullptr; }}"
        );
        let _ = writeln!(
            cases,
            "    case {index}: return memory_of_{index}(*top.rootp, 0);"
        );
    }
    Ok(cases)
}

/// A Verilog name as Verilator spells the C++ member, for the names where that is simple.
fn cpp_name(design: &Design, name: &str) -> Result<String, SimError> {
    const KEYWORDS: &[&str] = &[
        "alignas",
        "and",
        "asm",
        "auto",
        "bool",
        "catch",
        "char",
        "class",
        "const",
        "delete",
        "double",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "final",
        "float",
        "friend",
        "goto",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "not",
        "operator",
        "or",
        "private",
        "protected",
        "public",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "trace",
        "true",
        "try",
        "typedef",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "xor",
        "eval",
        "name",
        "clone",
    ];
    let refuse = |reason| {
        Err(SimError::PortName {
            top: design.top.clone(),
            name: name.to_owned(),
            reason,
        })
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
        return refuse("it must be letters, digits, _ and $, a letter first");
    }
    if name.contains("__") {
        return refuse("Verilator rewrites double underscores");
    }
    if KEYWORDS.contains(&name) {
        return refuse("it is a word of C++ or of Verilator's class");
    }
    Ok(name.replace('$', "__024"))
}

fn write_sources(design: &Design, folder: &Path) -> Result<Vec<String>, SimError> {
    let rtl = folder.join("rtl");
    fs::create_dir(&rtl).map_err(SimError::file(&rtl))?;
    design
        .sources
        .iter()
        .map(|file| {
            let path = rtl.join(&file.name);
            fs::write(&path, &file.text).map_err(SimError::file(&path))?;
            Ok(format!("rtl/{}", file.name))
        })
        .collect()
}

/// Copies run-time objects of an earlier build in; make takes them because they are newer than their sources.
fn reuse_run_time(kept: &Path, objects: &Path) {
    for path in run_time_objects(kept) {
        if let Some(name) = path.file_name() {
            // What can't be copied is compiled again.
            let _ = fs::copy(&path, objects.join(name));
        }
    }
}

/// Keeps the run-time objects of a build for later ones; a failure costs only time.
fn keep_run_time(objects: &Path, kept: &Path) {
    if kept.is_dir() {
        return;
    }
    let Some(Ok(work)) = kept.parent().map(tempfile::tempdir_in) else {
        return;
    };
    let copied = run_time_objects(objects).iter().all(|path| {
        path.file_name()
            .is_some_and(|name| fs::copy(path, work.path().join(name)).is_ok())
    });
    if copied {
        let folder = work.keep();
        if fs::rename(&folder, kept).is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn run_time_objects(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|ending| ending == "o")
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with("verilated"))
        })
        .collect()
}

fn version(program: &Path) -> Result<String, SimError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(SimError::file(program))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        return Ok(text);
    }
    Err(SimError::Build {
        tool: "Verilator".to_owned(),
        top: "--version".to_owned(),
        diagnostic: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// What `-march=native` stands for here: a cache folder may be shared between machines.
fn processor() -> &'static str {
    static PROCESSOR: OnceLock<String> = OnceLock::new();
    PROCESSOR.get_or_init(|| {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = |key: &str| {
            info.lines()
                .find(|line| line.starts_with(key))
                .unwrap_or("")
        };
        format!(
            "{} {} {}",
            std::env::consts::ARCH,
            line("model name"),
            line("flags")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_where_one_part_ends() {
        let key = |parts: &[&str]| digest(parts.iter().copied());
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&[]).len(), 64);
    }

    #[test]
    fn names_that_verilator_rewrites_are_refused_by_name() {
        let design = Design {
            top: "t".into(),
            sources: vec![],
            ports: vec![],
        };
        assert_eq!(
            cpp_name(&design, "a$0").expect("a dollar is simple"),
            "a__0240"
        );
        for bad in ["a__b", "class", "1x", "a.b", "", "\\odd"] {
            let error = cpp_name(&design, bad).expect_err(bad);
            assert!(matches!(error, SimError::PortName { .. }), "{error}");
        }
    }

    #[test]
    fn a_waveform_has_the_format_of_its_ending() {
        assert_eq!(Waveform::of_file(Path::new("a/b.VCD")), Waveform::Vcd);
        assert_eq!(Waveform::of_file(Path::new("a/b.fst")), Waveform::Fst);
        assert_eq!(Waveform::of_file(Path::new("b")), Waveform::Fst);
    }
}
