//! Tang Nano 9K and 20K. Pins from the maker's examples (`uart` and `led`), levels of the banks from Project Apicula's constraint
//! files of the boards, which agree on the pins. The 9K's serial chip has been seen to work at up to 3 Mbaud; 1 Mbaud leaves room.
//!
//! The loop makes 18 MHz of 27: rates of 1, 2 and 3 Mbaud all divide it.

use crate::bitstream::Device;
use crate::{
    Board, BoardPin, EngineShape, Family, Pin, Pll, Programmer, Programming, Pull, StatusLights,
    Uart, UsbIds, Verification,
};

pub(super) const TANG_NANO_9K: Board = Board {
    name: "tang-nano-9k",
    title: "Tang Nano 9K",
    vendor: "Sipeed",
    family: Family::Gowin,
    device: "gw1nr-9",
    package: "QN88P",
    part: "GW1NR-LV9QN88PC6/I5",
    configuration: Device::Gowin {
        idcode: 0x1100_481B,
    },
    yosys: &["-family", "gw1n", "-nodsp", "-nowidelut"],
    nextpnr: &[
        "--device",
        "GW1NR-LV9QN88PC6/I5",
        "--vopt",
        "family=GW1N-9C",
    ],
    pack: &["-d", "GW1N-9C"],
    logic_cells: 8640,
    block_memories: 26,
    multipliers: 20,
    clock_hz: 27_000_000,
    engine: EngineShape::small(16, 7, 512),
    pll: Some(Pll::Gowin {
        input_hz: 27_000_000,
        idiv_sel: 2,
        fbdiv_sel: 1,
        odiv_sel: 32,
        device: "GW1NR-9C",
        vco_mhz: (400, 1200),
    }),
    pins: &[
        BoardPin::new(Pin::Clock, "52", "27 MHz"),
        BoardPin::new(Pin::UartRx, "18", "UART RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "17", "UART TX"),
        BoardPin::new(Pin::Button(0), "4", "S2")
            .low()
            .pulled(Pull::Up)
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(0), "10", "LED0")
            .low()
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(1), "11", "LED1")
            .low()
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(2), "13", "LED2")
            .low()
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(3), "14", "LED3")
            .low()
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(4), "15", "LED4")
            .low()
            .at("LVCMOS18"),
        BoardPin::new(Pin::Led(5), "16", "LED5")
            .low()
            .at("LVCMOS18"),
    ],
    status: STATUS,
    uart: Uart {
        bridge: "BL702",
        on_board: true,
        interface: 1,
        baud: 1_000_000,
        max_baud: 3_000_000,
    },
    usb: USB,
    sram: Some(Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "tangnano9k"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "tangnano9k", "--write-flash"],
        // The flash is inside the device; the program compares the device's checksum.
        verification: Verification::Device,
    },
    notes: "The button S2 resets. --baud 3000000 is worth a try: the serial chip has been seen to work at it.",
};

pub(super) const TANG_NANO_20K: Board = Board {
    name: "tang-nano-20k",
    engine: EngineShape {
        rows: 3,
        ..EngineShape::small(16, 7, 512)
    },
    title: "Tang Nano 20K",
    device: "gw2ar-18",
    package: "QN88",
    part: "GW2AR-LV18QN88C8/I7",
    configuration: Device::Gowin {
        idcode: 0x0000_081B,
    },
    yosys: &["-family", "gw2a", "-nodsp", "-nowidelut"],
    nextpnr: &[
        "--device",
        "GW2AR-LV18QN88C8/I7",
        "--vopt",
        "family=GW2A-18C",
    ],
    pack: &["-d", "GW2A-18C"],
    logic_cells: 20_736,
    block_memories: 46,
    multipliers: 48,
    pll: Some(Pll::Gowin {
        input_hz: 27_000_000,
        idiv_sel: 2,
        fbdiv_sel: 1,
        odiv_sel: 32,
        device: "GW2AR-18C",
        vco_mhz: (500, 1250),
    }),
    pins: &[
        BoardPin::new(Pin::Clock, "4", "27 MHz"),
        BoardPin::new(Pin::UartRx, "70", "UART RX").pulled(Pull::Up),
        BoardPin::new(Pin::UartTx, "69", "UART TX"),
        BoardPin::new(Pin::Button(0), "88", "S1").pulled(Pull::Down),
        BoardPin::new(Pin::Led(0), "15", "LED0").low(),
        BoardPin::new(Pin::Led(1), "16", "LED1").low(),
        BoardPin::new(Pin::Led(2), "17", "LED2").low(),
        BoardPin::new(Pin::Led(3), "18", "LED3").low(),
        BoardPin::new(Pin::Led(4), "19", "LED4").low(),
        BoardPin::new(Pin::Led(5), "20", "LED5").low(),
    ],
    uart: Uart {
        bridge: "BL616",
        ..TANG_NANO_9K.uart
    },
    sram: Some(Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "tangnano20k"],
        verification: Verification::Device,
    }),
    flash: Programming {
        tool: Programmer::OpenFpgaLoader,
        arguments: &["-b", "tangnano20k", "--write-flash"],
        verification: Verification::Asked(&["--verify"]),
    },
    notes: "The button S1 resets. openFPGALoader must be 0.11 or later; Debian 12's doesn't know the board.",
    ..TANG_NANO_9K
};

const STATUS: StatusLights = StatusLights {
    ok: Some(Pin::Led(0)),
    busy: Some(Pin::Led(1)),
    fault: Some(Pin::Led(2)),
};

const USB: UsbIds = UsbIds {
    vendor: 0x0403,
    product: 0x6010,
    names: &["sipeed"],
    not: &[],
};
