//! iCEBreaker. Pins from the board project's own constraint file (`icebreaker.pcf` of its examples).

use crate::bitstream::Device;
use crate::{
    Board, BoardPin, EngineShape, Family, Pin, Programmer, Programming, Pull, StatusLights, Uart,
    UsbIds, Verification,
};

pub(super) const BOARD: Board = Board {
    name: "icebreaker",
    title: "iCEBreaker",
    vendor: "1BitSquared",
    family: Family::Ice40,
    device: "up5k",
    package: "sg48",
    part: "iCE40UP5K-SG48",
    configuration: Device::Ice40 {
        width: 692,
        height: 336,
    },
    yosys: &[],
    nextpnr: &["--up5k", "--package", "sg48"],
    pack: &[],
    logic_cells: 5280,
    block_memories: 30,
    multipliers: 8,
    clock_hz: 12_000_000,
    engine: EngineShape::small(8, 5, 256),
    pll: None,
    pins: &[
        BoardPin::new(Pin::Clock, "35", "CLK"),
        BoardPin::new(Pin::UartRx, "6", "RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "9", "TX"),
        BoardPin::new(Pin::Button(0), "10", "BTN_N")
            .low()
            .pulled(Pull::Up),
        BoardPin::new(Pin::Led(0), "11", "LEDR_N").low(),
        BoardPin::new(Pin::Led(1), "37", "LEDG_N").low(),
        BoardPin::new(Pin::Led(2), "39", "LED_RED_N").low(),
        BoardPin::new(Pin::Led(3), "40", "LED_GRN_N").low(),
        BoardPin::new(Pin::Led(4), "41", "LED_BLU_N").low(),
    ],
    status: StatusLights {
        ok: Some(Pin::Led(1)),
        busy: Some(Pin::Led(4)),
        fault: Some(Pin::Led(0)),
    },
    uart: Uart {
        bridge: "FT2232H, channel B",
        on_board: true,
        interface: 1,
        baud: 3_000_000,
        max_baud: 12_000_000,
    },
    usb: UsbIds {
        vendor: 0x0403,
        product: 0x6010,
        names: &["icebreaker"],
        not: &[],
    },
    sram: Some(Programming {
        tool: Programmer::Iceprog,
        arguments: &["-S"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::Iceprog,
        arguments: &[],
        verification: Verification::Always,
    },
    notes: "led2 to led4 are the three colours of one light, on pins that can only pull down. \
            The device's own memory can only be written after the jumpers of the flash have been turned.",
};
