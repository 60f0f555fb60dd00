//! ULX3S with an ECP5-85F or -25F: the same board with another device. Pins from the board project's own constraint file
//! (`ulx3s_v20.lpf`), which fits boards of version 2.0 to 3.1. The serial chip's rate from the project's page.

use super::LARGE;
use crate::bitstream::Device;
use crate::{
    Active, Board, BoardPin, EngineShape, Family, LVCMOS33, Pin, Pll, Programmer, Programming,
    Pull, StatusLights, Uart, UsbIds, Verification,
};

pub(super) const BOARD_85F: Board = Board {
    name: "ulx3s-85f",
    title: "ULX3S 85F",
    device: "85k",
    part: "LFE5U-85F-6BG381C",
    configuration: Device::Ecp5 {
        idcode: 0x4111_3043,
    },
    nextpnr: &[
        "--85k",
        "--package",
        "CABGA381",
        "--speed",
        "6",
        LARGE[0],
        LARGE[1],
    ],
    engine: EngineShape::whole(5, 3, 7, 512),
    logic_cells: 83_640,
    block_memories: 208,
    multipliers: 156,
    usb: UsbIds {
        not: &["12k", "25k", "45k"],
        ..BOARD_25F.usb
    },
    ..BOARD_25F
};

pub(super) const BOARD_25F: Board = Board {
    name: "ulx3s-25f",
    title: "ULX3S 25F",
    vendor: "Radiona",
    family: Family::Ecp5,
    device: "25k",
    package: "CABGA381",
    part: "LFE5U-25F-6BG381C",
    configuration: Device::Ecp5 {
        idcode: 0x4111_1043,
    },
    yosys: &[],
    nextpnr: &["--25k", "--package", "CABGA381", "--speed", "6"],
    pack: &["--compress", "--freq", "62.0"],
    logic_cells: 24_288,
    block_memories: 56,
    multipliers: 28,
    clock_hz: 25_000_000,
    engine: EngineShape::whole(2, 2, 7, 512),
    pll: Some(Pll::Ecp5 {
        input_hz: 25_000_000,
        clki_div: 1,
        clkfb_div: 1,
        clkop_div: 24,
        clkos_div: Some(25),
    }),
    pins: &[
        BoardPin::new(Pin::Clock, "G2", "clk_25mhz"),
        BoardPin::new(Pin::UartRx, "M1", "ftdi_txd").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "L4", "ftdi_rxd").pulled(Pull::Up),
        BoardPin::new(Pin::Button(0), "R1", "FIRE1").pulled(Pull::Down),
        BoardPin::new(Pin::Led(0), "B2", "led[0]"),
        BoardPin::new(Pin::Led(1), "C2", "led[1]"),
        BoardPin::new(Pin::Led(2), "C1", "led[2]"),
        BoardPin::new(Pin::Led(3), "D2", "led[3]"),
        BoardPin::new(Pin::Led(4), "D1", "led[4]"),
        BoardPin::new(Pin::Led(5), "E2", "led[5]"),
        BoardPin::new(Pin::Led(6), "E1", "led[6]"),
        BoardPin::new(Pin::Led(7), "H3", "led[7]"),
        // Low, it lets the board's other processor boot into its loader and take the board over.
        BoardPin {
            role: Pin::Hold(0),
            site: "L2",
            active: Active::High,
            label: "wifi_gpio0",
            standard: LVCMOS33,
            pull: Pull::Up,
        },
    ],
    status: StatusLights {
        ok: Some(Pin::Led(0)),
        busy: Some(Pin::Led(1)),
        fault: Some(Pin::Led(2)),
    },
    uart: Uart {
        bridge: "FT231X",
        on_board: true,
        interface: 0,
        baud: 3_000_000,
        max_baud: 3_000_000,
    },
    usb: UsbIds {
        vendor: 0x0403,
        product: 0x6015,
        names: &["ulx3s"],
        not: &["12k", "45k", "85k"],
    },
    sram: Some(Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "ulx3s"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "ulx3s", "--write-flash", "--unprotect-flash"],
        verification: Verification::Asked(&["--verify"]),
    },
    notes: "Connect the socket US1. Its serial chip also programs the board, at 500 kbit/s: the flash takes a minute or more.",
};
