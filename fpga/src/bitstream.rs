//! What a bitstream says of itself: the device that it is for.

use std::fmt;

use serde::Serialize;

/// A device, as bitstreams name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "family")]
pub enum Device {
    /// iCE40, by the size of one of the four banks of its configuration memory.
    Ice40 {
        /// Bits of a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// ECP5, by its JTAG identification.
    Ecp5 {
        /// The identification.
        idcode: u32,
    },
    /// Gowin, by its JTAG identification.
    Gowin {
        /// The identification.
        idcode: u32,
    },
}

/// Sizes of a bank and the devices that have it.
const ICE40: [((u32, u32), &str); 6] = [
    ((182, 80), "iCE40 384"),
    ((332, 144), "iCE40 HX1K or LP1K"),
    ((692, 176), "iCE40 U4K"),
    ((656, 176), "iCE40 LM4K"),
    ((692, 336), "iCE40 UP5K"),
    ((872, 272), "iCE40 HX8K, HX4K or LP8K"),
];

const ECP5: [(u32, &str); 9] = [
    (0x2111_1043, "LFE5U-12F"),
    (0x4111_1043, "LFE5U-25F"),
    (0x4111_2043, "LFE5U-45F"),
    (0x4111_3043, "LFE5U-85F"),
    (0x0111_1043, "LFE5UM-25F"),
    (0x0111_2043, "LFE5UM-45F"),
    (0x0111_3043, "LFE5UM-85F"),
    (0x8111_1043, "LFE5UM5G-25F"),
    (0x8111_3043, "LFE5UM5G-85F"),
];

const GOWIN: [(u32, &str); 5] = [
    (0x0900_281B, "GW1N-1"),
    (0x0100_381B, "GW1N-4"),
    (0x1100_581B, "GW1N-9"),
    (0x1100_481B, "GW1N-9C"),
    (0x0000_081B, "GW2A-18"),
];

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |table: &[(u32, &'static str)], code: &u32| {
            table
                .iter()
                .find(|(known, _)| known == code)
                .map(|(_, name)| *name)
        };
        match self {
            Self::Ice40 { width, height } => {
                match ICE40.iter().find(|(size, _)| *size == (*width, *height)) {
                    Some((_, name)) => f.write_str(name),
                    None => write!(f, "an iCE40 with banks of {width} x {height} bits"),
                }
            }
            Self::Ecp5 { idcode } => match named(&ECP5, idcode) {
                Some(name) => f.write_str(name),
                None => write!(f, "an ECP5 with IDCODE {idcode:08x}"),
            },
            Self::Gowin { idcode } => match named(&GOWIN, idcode) {
                Some(name) => f.write_str(name),
                None => write!(f, "a Gowin device with IDCODE {idcode:08x}"),
            },
        }
    }
}

/// A file is no bitstream that is known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no bitstream of an iCE40, an ECP5 or a Gowin device, or it is damaged: {0}")]
pub struct NoBitstream(&'static str);

/// The device that a bitstream is for.
///
/// # Errors
/// The bytes are no bitstream, or end before they name a device.
pub fn device(bytes: &[u8]) -> Result<Device, NoBitstream> {
    // Headers with comments come first; these marks end them.
    let after = |mark: &[u8]| {
        let head = &bytes[..bytes.len().min(4096)];
        head.windows(mark.len())
            .position(|window| window == mark)
            .map(|at| &bytes[at + mark.len()..])
    };
    if let Some(commands) = after(&[0x7E, 0xAA, 0x99, 0x7E]) {
        return ice40(commands);
    }
    if let Some(commands) = after(&[0xFF, 0xFF, 0xBD, 0xB3]) {
        return ecp5(commands);
    }
    if bytes.iter().take(4096).all(u8::is_ascii) && !bytes.is_empty() {
        return gowin(bytes);
    }
    Err(NoBitstream("none of their preambles is there"))
}

/// Commands of iCE40: a byte whose low half counts the bytes that follow. Width and height of a bank are set before its data.
fn ice40(mut commands: &[u8]) -> Result<Device, NoBitstream> {
    let (mut width, mut height) = (None, None);
    while let (None, _) | (_, None) = (width, height) {
        let Some((&command, rest)) = commands.split_first() else {
            break;
        };
        let Some((payload, rest)) = rest.split_at_checked(usize::from(command & 0x0F)) else {
            break;
        };
        let number = payload
            .iter()
            .fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
        match command >> 4 {
            // Data of the configuration memory without a size is nothing that this understands.
            0 if number == 1 => break,
            6 => width = Some(number + 1),
            7 => height = Some(number),
            _ => (),
        }
        commands = rest;
    }
    match (width, height) {
        (Some(width), Some(height)) => Ok(Device::Ice40 { width, height }),
        _ => Err(NoBitstream(
            "the size of the configuration memory is missing",
        )),
    }
}

/// Commands of ECP5: an operation, three bytes of operands, and data of a length that the operation has. The check of the device comes before any data.
fn ecp5(mut commands: &[u8]) -> Result<Device, NoBitstream> {
    let missing = NoBitstream("the check of the device's identification is missing");
    loop {
        match commands {
            [0xFF, rest @ ..] => commands = rest,
            // VERIFY_ID.
            [0xE2, _, _, _, a, b, c, d, ..] => {
                let idcode = u32::from_be_bytes([*a, *b, *c, *d]);
                return Ok(Device::Ecp5 { idcode });
            }
            // LSC_RESET_CRC; the control registers and the user code have a word each.
            [0x3B, _, _, _, rest @ ..] => commands = rest,
            [0x22 | 0xC2 | 0x02, _, _, _, _, _, _, _, rest @ ..] => commands = rest,
            // LSC_SPI_MODE and jumps: no data.
            [0x79 | 0x7E, _, _, _, rest @ ..] => commands = rest,
            _ => return Err(missing),
        }
    }
}

/// Gowin's text: lines of bits, eight of them a command's byte. The check of the device is command 6.
fn gowin(bytes: &[u8]) -> Result<Device, NoBitstream> {
    let head = &bytes[..bytes.len().min(1 << 16)];
    for line in head.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"//") || line.is_empty() {
            continue;
        }
        if !line.iter().all(|bit| matches!(bit, b'0' | b'1')) {
            return Err(NoBitstream("a line is neither bits nor a comment"));
        }
        let packed: Vec<u8> = line
            .chunks_exact(8)
            .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | (bit & 1)))
            .collect();
        if let [0x06, _, _, _, a, b, c, d] = packed[..] {
            let idcode = u32::from_be_bytes([a, b, c, d]);
            return Ok(Device::Gowin { idcode });
        }
        // Data begins with long lines.
        if packed.len() > 64 {
            break;
        }
    }
    Err(NoBitstream(
        "the check of the device's identification is missing",
    ))
}

/// Length of a DFU suffix.
const SUFFIX: usize = 16;

/// A bitstream with the suffix that dfu-util wants: whose device it is for, and a checksum (USB DFU 1.1, appendix B).
#[must_use]
pub fn with_dfu_suffix(bitstream: &[u8], vendor: u16, product: u16) -> Vec<u8> {
    let mut bytes = bitstream.to_vec();
    // Any version of the device.
    bytes.extend([0xFF, 0xFF]);
    bytes.extend(product.to_le_bytes());
    bytes.extend(vendor.to_le_bytes());
    bytes.extend([0x00, 0x01]);
    bytes.extend(b"UFD");
    bytes.push(SUFFIX as u8);
    let mut crc = !0u32;
    for &byte in &bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0xEDB8_8320;
            }
        }
    }
    bytes.extend(crc.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, boards};

    #[test]
    fn every_board_has_a_device_of_its_own_family_with_a_name() {
        for board in boards() {
            let family = match board.configuration {
                Device::Ice40 { .. } => Family::Ice40,
                Device::Ecp5 { .. } => Family::Ecp5,
                Device::Gowin { .. } => Family::Gowin,
            };
            assert_eq!(family, board.family, "{}", board.name);
            // The part's number begins with the name, or has the name's letters and the digits behind.
            let name = board.configuration.to_string();
            let short = name
                .replace("iCE40 ", "")
                .replace("-9C", "")
                .replace("-18", "");
            let first = short.split(',').next().unwrap_or_default();
            assert!(board.part.contains(first), "{}: {first}", board.part);
        }
    }

    #[test]
    fn what_is_no_bitstream_is_refused() {
        for bytes in [
            &b""[..],
            b"a text file\n",
            b"01010101\n",
            &[0x7E, 0xAA, 0x99, 0x7E],
            &[0x7E, 0xAA, 0x99, 0x7E, 0x62, 0x02],
            &[0xFF, 0xFF, 0xBD, 0xB3, 0xE2, 0, 0],
            &[0xFF, 0xFF, 0xBD, 0xB3, 0x82],
            &[0x00, 0xFF, 0x80],
        ] {
            assert!(device(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn devices_are_read_from_the_first_commands() {
        let ice40 = [
            0xFF, 0x00, 0x00, 0xFF, 0x7E, 0xAA, 0x99, 0x7E, 0x51, 0x00, 0x01, 0x05, 0x92, 0x00,
            0x20, 0x62, 0x02, 0xB3, 0x82, 0x00, 0x00, 0x72, 0x01, 0x50,
        ];
        assert_eq!(
            device(&ice40),
            Ok(Device::Ice40 {
                width: 692,
                height: 336
            })
        );
        let gowin = b"//Part Number: GW1NR-LV9QN88PC6/I5\n1111111111111111\n1010010111000011\n\
                      0000011000000000000000000000000000010001000000000100100000011011\n";
        assert_eq!(
            device(gowin),
            Ok(Device::Gowin {
                idcode: 0x1100_481B
            })
        );
    }
}
