//! Writing to boards: what is refused before anything is written, and what programs say when it fails. The real programs run here without a board; what they say
//! with one is played by shell scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fpga::bitstream::{Device, device, with_dfu_suffix};
use fpga::flash::{FlashError, Host, Memory, Plan, Request, plan, run};
use fpga::{Board, Programmer, board, boards};

fn listed(name: &str) -> &'static Board {
    board(name).expect("it is listed")
}

/// The beginning of a bitstream, which names the device.
fn head(device: Device) -> Vec<u8> {
    match device {
        Device::Ice40 { width, height } => {
            let mut bytes = vec![0xFF, 0x00, 0x00, 0xFF, 0x7E, 0xAA, 0x99, 0x7E, 0x62];
            bytes.extend((width as u16 - 1).to_be_bytes());
            bytes.push(0x72);
            bytes.extend((height as u16).to_be_bytes());
            bytes
        }
        Device::Ecp5 { idcode } => {
            let mut bytes =
                b"\xFF\x00Part: one\0\xFF\xFF\xFF\xBD\xB3\xFF\xFF\xFF\xFF\x3B\0\0\0\xE2\0\0\0"
                    .to_vec();
            bytes.extend(idcode.to_be_bytes());
            bytes
        }
        Device::Gowin { idcode } => {
            let bits = |byte: u8| format!("{byte:08b}");
            let command: String = [6, 0, 0, 0]
                .into_iter()
                .chain(idcode.to_be_bytes())
                .map(bits)
                .collect();
            format!("//Part: one\n1111111111111111\n{command}\n").into_bytes()
        }
    }
}

/// A folder with the beginning of a bitstream for a board, and a host that shows no USB.
struct Bench {
    folder: tempfile::TempDir,
    file: PathBuf,
    host: Host,
}

impl Bench {
    fn new(board: &Board) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder
            .path()
            .join(format!("design.{}", board.family.bitstream_extension()));
        fs::write(&file, head(board.configuration)).expect("a file");
        let host = Host {
            sysfs: folder.path().join("no-sysfs"),
            devices: folder.path().join("dev"),
        };
        Self { folder, file, host }
    }

    /// Attaches a USB device.
    fn attach(&mut self, address: u8, ids: (u16, u16), maker: &str, name: &str) {
        self.host.sysfs = self.folder.path().join("sysfs");
        let folder = self.host.sysfs.join(format!("1-{address}"));
        fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [
            ("idVendor", format!("{:04x}", ids.0)),
            ("idProduct", format!("{:04x}", ids.1)),
            ("busnum", "1".to_owned()),
            ("devnum", address.to_string()),
            ("manufacturer", maker.to_owned()),
            ("product", name.to_owned()),
        ] {
            fs::write(folder.join(file), text + "\n").expect("a file");
        }
    }

    fn request(&self, board: &'static Board) -> Request<'_> {
        Request {
            board,
            bitstream: &self.file,
            memory: Memory::Flash,
            verify: false,
        }
    }

    fn plan(&self, board: &'static Board) -> Result<Plan, FlashError> {
        plan(&self.request(board), &self.host, true)
    }

    /// The plan with a shell script in place of its program.
    fn played(&self, board: &'static Board, script: &str) -> Result<(), FlashError> {
        let program = self.folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut plan = self.plan(board).expect("all is there");
        plan.command[0] = program.display().to_string();
        run(board, &plan, std::io::sink())
    }
}

const FT2232: (u16, u16) = (0x0403, 0x6010);

#[test]
fn heads_of_bitstreams_name_their_devices() {
    for board in boards() {
        assert_eq!(
            device(&head(board.configuration)),
            Ok(board.configuration),
            "{}",
            board.name
        );
    }
}

/// iceprog, openFPGALoader and dfu-util as they are installed; there is no board here.
#[test]
fn the_real_programs_failures_without_a_board_are_explained() {
    for board in boards() {
        let bench = Bench::new(board);
        for memory in [Memory::Flash, Memory::Sram] {
            let Some(way) = board.programming(memory) else {
                continue;
            };
            let request = Request {
                memory,
                ..bench.request(board)
            };
            let plan = match plan(&request, &bench.host, true) {
                Ok(plan) => plan,
                // Debian's openFPGALoader is older than the board.
                Err(error @ FlashError::ToolTooOld { .. }) => {
                    assert_eq!(board.name, "tang-nano-20k");
                    assert!(error.to_string().contains("./setup --all"), "{error}");
                    continue;
                }
                Err(error) => panic!("{}: {error}", board.name),
            };
            let error = run(board, &plan, std::io::sink()).expect_err("there is no board");
            let text = error.to_string();
            match error {
                FlashError::NoBoard { .. } => assert!(
                    text.starts_with(&format!("no {} is attached", board.name)),
                    "{text}"
                ),
                // A build of openFPGALoader without CMSIS-DAP.
                FlashError::NoCable { .. } => {
                    assert!(board.name.starts_with("colorlight"), "{text}");
                }
                other => panic!("{} with {:?}: {other}", board.name, way.tool),
            }
            let hint = text.contains("hold its button");
            assert_eq!(hint, board.flash.tool == Programmer::DfuUtil, "{text}");
        }
    }
}

#[test]
fn a_bitstream_for_another_device_is_refused() {
    let bench = Bench::new(listed("hx8k-breakout"));
    let error = bench.plan(listed("icebreaker")).expect_err("UP5K");
    let text = error.to_string();
    assert!(
        text.contains("it is for iCE40 HX8K, HX4K or LP8K, but icebreaker has iCE40 UP5K"),
        "{text}"
    );
    assert!(text.contains("it would fit hx8k-breakout"), "{text}");
    assert!(text.contains("nothing was written"), "{text}");
    let bench = Bench::new(listed("ulx3s-25f"));
    let error = bench.plan(listed("ulx3s-85f")).expect_err("the other size");
    assert!(error.to_string().contains("LFE5U-25F"), "{error}");
    fs::write(&bench.file, "no bitstream").expect("a file");
    let error = bench.plan(listed("ulx3s-25f")).expect_err("text");
    assert!(error.to_string().contains("it is no bitstream"), "{error}");
    fs::remove_file(&bench.file).expect("it was there");
    assert!(matches!(
        bench.plan(listed("ulx3s-25f")),
        Err(FlashError::File { .. })
    ));
}

#[test]
fn ways_that_a_board_has_not_got_are_refused() {
    let crab = listed("orangecrab");
    let bench = Bench::new(crab);
    let sram = Request {
        memory: Memory::Sram,
        ..bench.request(crab)
    };
    let error = plan(&sram, &bench.host, true).expect_err("through the bootloader only");
    assert!(error.to_string().contains("leave --sram away"), "{error}");
    let verified = Request {
        verify: true,
        ..bench.request(crab)
    };
    let error = plan(&verified, &bench.host, true).expect_err("it isn't read back");
    assert!(error.to_string().contains("can't be read back"), "{error}");
    let ulx3s = listed("ulx3s-85f");
    let bench = Bench::new(ulx3s);
    let verified = Request {
        verify: true,
        ..bench.request(ulx3s)
    };
    let plan = plan(&verified, &bench.host, true).expect("it is read back");
    assert!(plan.command.contains(&"--verify".to_owned()));
}

#[test]
fn the_board_is_found_among_others_with_the_same_chip() {
    let icebreaker = listed("icebreaker");
    let mut bench = Bench::new(icebreaker);
    bench.attach(4, FT2232, "SIPEED", "USB Debugger");
    let error = bench.plan(icebreaker).expect_err("another board");
    assert!(
        error.to_string().contains("\"SIPEED USB Debugger\"")
            && error.to_string().contains("tang-nano-9k")
            && error.to_string().contains("not icebreaker"),
        "{error}"
    );
    bench.attach(5, FT2232, "1BitSquared", "iCEBreaker V1.0e");
    let plan = bench.plan(icebreaker).expect("it is there");
    assert_eq!(plan.usb.as_ref().map(|usb| usb.address), Some(5));
    assert_eq!(plan.command[1..3], ["-d", "d:001/005"]);
    bench.attach(6, FT2232, "1BitSquared", "iCEBreaker V1.0e");
    let error = bench.plan(icebreaker).expect_err("two of them");
    assert!(error.to_string().contains("Unplug the others"), "{error}");

    let crab = listed("orangecrab");
    let mut bench = Bench::new(crab);
    bench.attach(5, FT2232, "1BitSquared", "iCEBreaker V1.0e");
    let error = bench.plan(crab).expect_err("there is another");
    let text = error.to_string();
    assert!(text.contains("1209:5af0"), "{text}");
    assert!(text.contains("there is: icebreaker"), "{text}");
    assert!(text.contains("hold its button"), "{text}");
}

#[test]
fn a_board_that_may_not_be_written_to_is_told_with_the_rule() {
    let icebreaker = listed("icebreaker");
    let mut bench = Bench::new(icebreaker);
    bench.attach(5, FT2232, "1BitSquared", "iCEBreaker V1.0e");
    let file = bench.host.devices.join("001/005");
    fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
    fs::write(&file, "").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("its mode");
    // Root may write to everything.
    let root = fs::OpenOptions::new().write(true).open(&file).is_ok();
    match bench.plan(icebreaker) {
        Ok(_) => assert!(root),
        Err(error @ FlashError::Permission { .. }) => {
            assert!(!root);
            assert!(error.to_string().contains(&icebreaker.udev_rule()));
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the programs say with a board, from their sources and from reports of their users.
#[test]
fn failures_with_a_board_are_explained() {
    type Is = fn(&FlashError) -> bool;
    let cases: [(&str, &str, Is, &str); 13] = [
        (
            "ulx3s-85f",
            "echo \"Error: mismatch between target's idcode and bitstream idcode\"; exit 0",
            |it| matches!(it, FlashError::WrongBoard { .. }),
            "is no ulx3s-85f",
        ),
        (
            "ulx3s-85f",
            "echo 'unable to open ftdi device: -4 (usb_open() failed)' >&2; exit 1",
            |it| matches!(it, FlashError::Permission { .. }),
            "ATTRS{idVendor}==\"0403\", ATTRS{idProduct}==\"6015\"",
        ),
        (
            "ulx3s-85f",
            "echo 'unable to open ftdi device: -5 (unable to claim usb device. Make sure the default FTDI driver is not in use)' >&2; exit 1",
            |it| matches!(it, FlashError::Busy { .. }),
            "close serial terminals",
        ),
        (
            "ulx3s-85f",
            "echo 'Verifying write (May take time)'; echo 'Verify Failure'; exit 0",
            |it| matches!(it, FlashError::Differs { .. }),
            "what was read back differs",
        ),
        (
            "tang-nano-9k",
            "echo 'CRC check : FAIL'; exit 0",
            |it| matches!(it, FlashError::Differs { .. }),
            "CRC check",
        ),
        (
            "colorlight-i5",
            "echo \"Couldn't open device. Check permissions for /dev/hidraw0\" >&2; exit 1",
            |it| matches!(it, FlashError::Permission { .. }),
            "udevadm",
        ),
        (
            "colorlight-i5",
            "echo 'Jtag: support for cmsisdap was not enabled at compile time' >&2; exit 1",
            |it| matches!(it, FlashError::NoCable { .. }),
            "apt-get install -y openfpgaloader",
        ),
        (
            "tang-nano-9k",
            "echo \"Error: cannot find board 'tangnano9k'\" >&2; exit 1",
            |it| matches!(it, FlashError::ToolTooOld { .. }),
            "Install a newer one",
        ),
        (
            "icebreaker",
            "echo 'Found difference between flash and file!' >&2; exit 3",
            |it| matches!(it, FlashError::Differs { .. }),
            "Found difference",
        ),
        (
            "icebreaker",
            "echo 'flash ID: 0xFF 0xFF 0xFF 0xFF' >&2; exit 2",
            |it| matches!(it, FlashError::NoFlash { .. }),
            "jumpers",
        ),
        (
            "orangecrab",
            "echo 'dfu-util: Cannot open DFU device 1209:5af0 found on devnum 7 (LIBUSB_ERROR_ACCESS)' >&2; exit 74",
            |it| matches!(it, FlashError::Permission { .. }),
            "ATTRS{idProduct}==\"5af0\"",
        ),
        (
            "orangecrab",
            "echo 'dfu-util: Error: File ID 1209:5bf0 does not match device (1209:5af0)' >&2; exit 65",
            |it| matches!(it, FlashError::WrongBoard { .. }),
            "does not match device",
        ),
        (
            "icebreaker",
            "echo 'something else' >&2; exit 9",
            |it| matches!(it, FlashError::Failed { .. }),
            "exit status: 9",
        ),
    ];
    for (name, script, is, says) in cases {
        let board = listed(name);
        let error = Bench::new(board)
            .played(board, script)
            .expect_err("it fails");
        assert!(is(&error), "{name}, {script}: {error:?}");
        assert!(error.to_string().contains(says), "{script}: {error}");
    }
    let icebreaker = listed("icebreaker");
    let bench = Bench::new(icebreaker);
    bench
        .played(
            icebreaker,
            "[ -f \"$1\" ] && echo 'VERIFY OK' >&2 && echo 'cdone: high'",
        )
        .expect("it succeeds, with the file as its argument");
}

#[test]
fn dfu_util_accepts_the_suffix() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("design.dfu");
    fs::write(&file, with_dfu_suffix(b"any bytes", 0x1209, 0x5AF0)).expect("a file");
    let output = Command::new("dfu-suffix")
        .arg("-c")
        .arg(&file)
        .output()
        .expect("it comes with dfu-util");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for part in ["0x1209", "0x5AF0"] {
        assert!(text.to_uppercase().contains(&part.to_uppercase()), "{text}");
    }
    // One bit, and the checksum no longer holds.
    let mut bytes = fs::read(&file).expect("it was written");
    bytes[0] ^= 1;
    fs::write(&file, bytes).expect("a file");
    let check = |path: &Path| Command::new("dfu-suffix").arg("-c").arg(path).output();
    assert!(!check(&file).expect("it runs").status.success());
}
