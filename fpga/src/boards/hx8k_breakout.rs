//! Lattice iCE40-HX8K breakout board. Pins from the constraint file of Project IceStorm's example (clock, lights) and
//! from those of designs that use its serial port. What its USB device calls itself from programs that look for it.

use crate::bitstream::Device;
use crate::{
    Board, BoardPin, EngineShape, Family, Pin, Pll, Programmer, Programming, Pull, StatusLights,
    Uart, UsbIds, Verification,
};

pub(super) const BOARD: Board = Board {
    name: "hx8k-breakout",
    title: "iCE40-HX8K Breakout Board",
    vendor: "Lattice",
    family: Family::Ice40,
    device: "hx8k",
    package: "ct256",
    part: "iCE40HX8K-CT256",
    configuration: Device::Ice40 {
        width: 872,
        height: 272,
    },
    yosys: &[],
    nextpnr: &["--hx8k", "--package", "ct256"],
    pack: &[],
    logic_cells: 7680,
    block_memories: 32,
    multipliers: 0,
    clock_hz: 12_000_000,
    engine: EngineShape {
        rows: 2,
        ..EngineShape::small(8, 7, 128)
    },
    pll: Some(Pll::Ice40 {
        input_hz: 12_000_000,
        divr: 0,
        divf: 63,
        divq: 5,
        filter_range: 1,
    }),
    pins: &[
        BoardPin::new(Pin::Clock, "J3", "12 MHz"),
        BoardPin::new(Pin::UartRx, "B10", "RS232 RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "B12", "RS232 TX"),
        BoardPin::new(Pin::Led(0), "B5", "LED0"),
        BoardPin::new(Pin::Led(1), "B4", "LED1"),
        BoardPin::new(Pin::Led(2), "A2", "LED2"),
        BoardPin::new(Pin::Led(3), "A1", "LED3"),
        BoardPin::new(Pin::Led(4), "C5", "LED4"),
        BoardPin::new(Pin::Led(5), "C4", "LED5"),
        BoardPin::new(Pin::Led(6), "B3", "LED6"),
        BoardPin::new(Pin::Led(7), "C3", "LED7"),
    ],
    status: StatusLights {
        ok: Some(Pin::Led(0)),
        busy: Some(Pin::Led(1)),
        fault: Some(Pin::Led(2)),
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
        names: &["lattice ftusb"],
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
    notes: "No button and no hard multipliers. Jumpers J6 choose between the flash and the device's own memory.",
};
