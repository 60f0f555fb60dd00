//! Attached USB devices, from a made-up folder of the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use fpga::{UsbDevice, UsbName, board};

/// A device's folder as the kernel shows it.
fn device(sysfs: &Path, folder: &str, files: &[(&str, &str)], inside: &[&str]) {
    let folder = sysfs.join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    for (name, text) in files {
        fs::write(folder.join(name), format!("{text}\n")).expect("a file");
    }
    for path in inside {
        fs::create_dir_all(folder.join(path)).expect("a folder");
    }
}

fn ftdi(sysfs: &Path, folder: &str, address: &str, maker: &str, name: &str) {
    device(
        sysfs,
        folder,
        &[
            ("idVendor", "0403"),
            ("idProduct", "6010"),
            ("busnum", "1"),
            ("devnum", address),
            ("manufacturer", maker),
            ("product", name),
            ("serial", "ib123"),
        ],
        &[&format!("{folder}:1.0"), &format!("{folder}:1.1/ttyUSB1")],
    );
}

#[test]
fn devices_are_read_with_their_serial_ports() {
    let sysfs = tempfile::tempdir().expect("a folder");
    ftdi(sysfs.path(), "1-2", "7", "1BitSquared", "iCEBreaker V1.0e");
    device(
        sysfs.path(),
        "1-3",
        &[
            ("idVendor", "0d28"),
            ("idProduct", "0204"),
            ("busnum", "1"),
            ("devnum", "8"),
            ("product", "DAPLink CMSIS-DAP"),
        ],
        &["1-3:1.1/tty/ttyACM0", "1-3:1.2"],
    );
    // A hub's interface and nonsense are no devices.
    device(sysfs.path(), "1-0:1.0", &[("bInterfaceNumber", "00")], &[]);
    device(sysfs.path(), "1-9", &[("idVendor", "zz")], &[]);
    let devices = UsbDevice::listed_in(sysfs.path()).expect("the folder is there");
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0].ports, [(1, "ttyUSB1".to_owned())]);
    assert_eq!(devices[1].ports, [(1, "ttyACM0".to_owned())]);
    assert_eq!(
        (devices[0].vendor, devices[0].product, devices[0].address),
        (0x0403, 0x6010, 7)
    );
    assert_eq!(devices[1].manufacturer, "");
    assert!(devices[1].has_ids_of(board("colorlight-i9").expect("it is listed")));
    assert_eq!(UsbDevice::listed_in(&sysfs.path().join("nothing")), None);
}

#[test]
fn boards_with_one_chip_are_told_apart_by_name() {
    let sysfs = tempfile::tempdir().expect("a folder");
    ftdi(sysfs.path(), "1-1", "1", "1BitSquared", "iCEBreaker V1.0e");
    ftdi(sysfs.path(), "1-2", "2", "SIPEED", "USB Debugger");
    ftdi(sysfs.path(), "1-3", "3", "FTDI", "Dual RS232-HS");
    let devices = UsbDevice::listed_in(sysfs.path()).expect("the folder is there");
    let names = |name: &str| {
        let board = board(name).expect("it is listed");
        devices.iter().map(|it| it.names(board)).collect::<Vec<_>>()
    };
    let other = |board| UsbName::Other { board };
    assert_eq!(
        names("icebreaker"),
        [UsbName::Same, other("tang-nano-9k"), UsbName::Unknown]
    );
    assert_eq!(
        names("hx8k-breakout"),
        [other("icebreaker"), other("tang-nano-9k"), UsbName::Unknown]
    );
    assert_eq!(
        names("tang-nano-20k"),
        [other("icebreaker"), UsbName::Same, UsbName::Unknown]
    );
}

#[test]
fn the_two_ulx3s_are_told_apart_by_name() {
    let sysfs = tempfile::tempdir().expect("a folder");
    for (folder, name) in [
        ("1-1", "ULX3S FPGA 85K v3.0.8"),
        ("1-2", "ULX3S FPGA 25K v3.0.8"),
        ("1-3", "ULX3S FPGA v1.7"),
    ] {
        device(
            sysfs.path(),
            folder,
            &[
                ("idVendor", "0403"),
                ("idProduct", "6015"),
                ("busnum", "1"),
                ("devnum", "2"),
                ("product", name),
            ],
            &[],
        );
    }
    let devices = UsbDevice::listed_in(sysfs.path()).expect("the folder is there");
    let names = |name: &str| {
        let board = board(name).expect("it is listed");
        devices.iter().map(|it| it.names(board)).collect::<Vec<_>>()
    };
    let other = |board| UsbName::Other { board };
    assert_eq!(
        names("ulx3s-85f"),
        [UsbName::Same, other("ulx3s-25f"), UsbName::Same]
    );
    assert_eq!(
        names("ulx3s-25f"),
        [other("ulx3s-85f"), UsbName::Same, UsbName::Same]
    );
}
