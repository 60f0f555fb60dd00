//! USB devices that are attached to this machine, as the Linux kernel tells of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Board, boards};

/// How a board's USB device is known. Boards with the same bridge chip have the same numbers; what they call themselves tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UsbIds {
    /// Vendor.
    pub vendor: u16,
    /// Product.
    pub product: u16,
    /// Words of which one stands in the maker's or the product's name, in lower case. None where boards come without.
    pub names: &'static [&'static str],
    /// Words that stand there on a sister board with another device, in lower case.
    pub not: &'static [&'static str],
}

/// Where the kernel lists devices, and where it shows their files.
pub(crate) const SYSFS: &str = "/sys/bus/usb/devices";

/// An attached USB device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UsbDevice {
    /// Vendor.
    pub vendor: u16,
    /// Product.
    pub product: u16,
    /// Bus that it is on.
    pub bus: u16,
    /// Address on the bus.
    pub address: u16,
    /// What it calls its maker; may be empty.
    pub manufacturer: String,
    /// What it calls itself; may be empty.
    pub name: String,
    /// Its serial number; may be empty.
    pub serial: String,
    /// Its serial ports: USB interface and name of the device file, `ttyUSB1`.
    pub ports: Vec<(u8, String)>,
}

/// How well a USB device's name fits a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum UsbName {
    /// It names the board.
    Same,
    /// It names none that is known.
    Unknown,
    /// It names another board.
    Other {
        /// That board.
        board: &'static str,
    },
}

impl UsbDevice {
    /// The devices that a folder such as `/sys/bus/usb/devices` lists; none where there is no such folder.
    #[must_use]
    pub fn listed_in(sysfs: &Path) -> Option<Vec<Self>> {
        let entries = fs::read_dir(sysfs).ok()?;
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        Some(folders.iter().filter_map(|it| Self::read(it)).collect())
    }

    /// The devices that are attached to this machine; none where the system isn't Linux or shows no USB.
    #[must_use]
    pub fn attached() -> Option<Vec<Self>> {
        Self::listed_in(Path::new(SYSFS))
    }

    /// A device's folder. Folders of interfaces and of hubs' ports have no vendor.
    fn read(folder: &Path) -> Option<Self> {
        let text =
            |name: &str| fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned());
        let hexadecimal = |name: &str| u16::from_str_radix(&text(name).ok()?, 16).ok();
        let decimal = |name: &str| text(name).ok()?.parse().ok();
        Some(Self {
            vendor: hexadecimal("idVendor")?,
            product: hexadecimal("idProduct")?,
            bus: decimal("busnum")?,
            address: decimal("devnum")?,
            manufacturer: text("manufacturer").unwrap_or_default(),
            name: text("product").unwrap_or_default(),
            serial: text("serial").unwrap_or_default(),
            ports: serial_ports(folder),
        })
    }

    /// How well its name fits a board. A board whose devices come without names fits any that names no other.
    #[must_use]
    pub fn names(&self, board: &Board) -> UsbName {
        let text = format!("{} {}", self.manufacturer, self.name).to_ascii_lowercase();
        let says = |ids: &UsbIds| {
            ids.names.iter().any(|word| text.contains(word))
                && !ids.not.iter().any(|word| text.contains(word))
        };
        if says(&board.usb) {
            return UsbName::Same;
        }
        let other = boards()
            .iter()
            .find(|other| other.name != board.name && self.has_ids_of(other) && says(&other.usb));
        other.map_or(UsbName::Unknown, |other| UsbName::Other {
            board: other.name,
        })
    }

    /// Whether it has the numbers of a board's device.
    #[must_use]
    pub fn has_ids_of(&self, board: &Board) -> bool {
        (self.vendor, self.product) == (board.usb.vendor, board.usb.product)
    }
}

/// Serial ports of a device: its interfaces' folders hold `ttyUSB0` or `tty/ttyACM0`.
fn serial_ports(folder: &Path) -> Vec<(u8, String)> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    let mut ports = Vec::new();
    for interface in names(folder) {
        // `1-2:1.0` is interface 0 of configuration 1.
        let number = interface
            .contains(':')
            .then(|| interface.rsplit_once('.'))
            .flatten()
            .and_then(|(_, number)| number.parse().ok());
        let Some(number) = number else { continue };
        let inside = folder.join(&interface);
        let found = names(&inside)
            .into_iter()
            .chain(names(&inside.join("tty")))
            .filter(|name| name.starts_with("tty") && name.len() > 3);
        ports.extend(found.map(|name| (number, name)));
    }
    ports.sort();
    ports
}

impl Board {
    /// The udev rule that lets users of the machine's console write to the board, without being root, on Linux.
    #[must_use]
    pub fn udev_rule(&self) -> String {
        format!(
            "SUBSYSTEM==\"usb|hidraw\", ATTRS{{idVendor}}==\"{:04x}\", ATTRS{{idProduct}}==\"{:04x}\", MODE=\"0660\", TAG+=\"uaccess\"",
            self.usb.vendor, self.usb.product
        )
    }
}
