//! OrangeCrab r0.2.1 with an ECP5-25F. Pins from the board project's examples (`orangecrab_r0.2.1.pcf`), serial pins as LiteX-Boards
//! has them: the header's pins 0 and 1. Programming as the examples do it, through the bootloader.

use crate::bitstream::Device;
use crate::{
    Board, BoardPin, EngineShape, Family, Pin, Pll, Programmer, Programming, Pull, StatusLights,
    Uart, UsbIds, Verification,
};

pub(super) const BOARD: Board = Board {
    name: "orangecrab",
    title: "OrangeCrab r0.2.1",
    vendor: "Good Stuff Department",
    family: Family::Ecp5,
    device: "25k",
    package: "CSFBGA285",
    part: "LFE5U-25F-8MG285C",
    configuration: Device::Ecp5 {
        idcode: 0x4111_1043,
    },
    yosys: &[],
    nextpnr: &["--25k", "--package", "CSFBGA285", "--speed", "8"],
    pack: &["--compress", "--freq", "38.8"],
    logic_cells: 24_288,
    block_memories: 56,
    multipliers: 28,
    clock_hz: 48_000_000,
    engine: EngineShape::whole(2, 2, 7, 512),
    pll: Some(Pll::Ecp5 {
        input_hz: 48_000_000,
        clki_div: 2,
        clkfb_div: 1,
        clkop_div: 25,
        clkos_div: None,
    }),
    pins: &[
        BoardPin::new(Pin::Clock, "A9", "clk48"),
        BoardPin::new(Pin::UartRx, "N17", "gpio_0").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "M18", "gpio_1"),
        BoardPin::new(Pin::Button(0), "J17", "usr_btn")
            .low()
            .at("SSTL135_I"),
        BoardPin::new(Pin::Led(0), "K4", "rgb_led0_r").low(),
        BoardPin::new(Pin::Led(1), "M3", "rgb_led0_g").low(),
        BoardPin::new(Pin::Led(2), "J3", "rgb_led0_b").low(),
    ],
    status: StatusLights {
        ok: Some(Pin::Led(1)),
        busy: Some(Pin::Led(2)),
        fault: Some(Pin::Led(0)),
    },
    uart: Uart {
        bridge: "adapter for 3.3 V",
        on_board: false,
        interface: 0,
        baud: 1_000_000,
        max_baud: 6_000_000,
    },
    usb: UsbIds {
        vendor: 0x1209,
        product: 0x5af0,
        names: &["orangecrab"],
        not: &[],
    },
    sram: None,
    flash: Programming {
        tool: Programmer::DfuUtil,
        arguments: &["-d", "1209:5af0", "-a", "0", "-D"],
        verification: Verification::Device,
    },
    notes: "Hold the button while plugging it in: it then waits as a USB device for a bitstream. Connect a serial adapter for 3.3 V: \
            its TX to pin 0, its RX to pin 1, and ground. Revision r0.2 has its lights on other pins.",
};
