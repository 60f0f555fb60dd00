//! Colorlight i5 v7.0 (ECP5-25F) and i9 v7.2 (ECP5-45F): modules of LED walls, on the extension board with its debugger. Pins from the
//! project that documents them (its constraint files and tables, where the i9 differs in its light only), serial pins from its
//! example and LiteX-Boards.

use super::LARGE;
use crate::bitstream::Device;
use crate::{
    Board, BoardPin, EngineShape, Family, Pin, Programmer, Programming, Pull, StatusLights, Uart,
    UsbIds, Verification,
};

pub(super) const I5: Board = Board {
    name: "colorlight-i5",
    title: "Colorlight i5 v7.0",
    vendor: "Colorlight",
    family: Family::Ecp5,
    device: "25k",
    package: "CABGA381",
    part: "LFE5U-25F-6BG381C",
    configuration: Device::Ecp5 {
        idcode: 0x4111_1043,
    },
    yosys: &[],
    nextpnr: &["--25k", "--package", "CABGA381", "--speed", "6"],
    pack: &["--compress", "--freq", "38.8"],
    logic_cells: 24_288,
    block_memories: 56,
    multipliers: 28,
    clock_hz: 25_000_000,
    engine: EngineShape::whole(2, 2, 7, 512),
    pll: None,
    pins: &[
        BoardPin::new(Pin::Clock, "P3", "25 MHz"),
        BoardPin::new(Pin::UartRx, "H18", "UART RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "J17", "UART TX"),
        BoardPin::new(Pin::Led(0), "U16", "D2").low(),
    ],
    status: StatusLights {
        ok: Some(Pin::Led(0)),
        busy: None,
        fault: None,
    },
    uart: Uart {
        bridge: "DAPLink debugger of the extension board",
        on_board: true,
        interface: 1,
        baud: 1_000_000,
        max_baud: 1_000_000,
    },
    usb: UsbIds {
        vendor: 0x0d28,
        product: 0x0204,
        names: &["daplink", "cmsis-dap"],
        not: &[],
    },
    sram: Some(Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "colorlight-i5"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "colorlight-i5", "--write-flash", "--unprotect-flash"],
        verification: Verification::Asked(&["--verify"]),
    },
    notes: "On the extension board. Debuggers differ in what rates they stand: if the link fails, build with --baud 115200.",
};

pub(super) const I9: Board = Board {
    name: "colorlight-i9",
    engine: EngineShape::whole(7, 1, 7, 512),
    title: "Colorlight i9 v7.2",
    device: "45k",
    part: "LFE5U-45F-6BG381C",
    configuration: Device::Ecp5 {
        idcode: 0x4111_2043,
    },
    nextpnr: &[
        "--45k",
        "--package",
        "CABGA381",
        "--speed",
        "6",
        LARGE[0],
        LARGE[1],
    ],
    logic_cells: 43_848,
    block_memories: 108,
    multipliers: 72,
    pins: &[
        BoardPin::new(Pin::Clock, "P3", "25 MHz"),
        BoardPin::new(Pin::UartRx, "H18", "UART RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "J17", "UART TX"),
        BoardPin::new(Pin::Led(0), "L2", "D2").low(),
    ],
    sram: Some(Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "colorlight-i9"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "colorlight-i9", "--write-flash", "--unprotect-flash"],
        verification: Verification::Asked(&["--verify"]),
    },
    ..I5
};
