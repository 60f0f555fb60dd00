//! Lattice iCE40-HX8K breakout board. Pins from the constraint file of Project IceStorm's example (clock, lights) and
//! from those of designs that use its serial port.

use crate::{Active, Board, BoardPin, Family, Pin};

pub(super) const BOARD: Board = Board {
    name: "hx8k-breakout",
    title: "iCE40-HX8K Breakout Board",
    vendor: "Lattice",
    family: Family::Ice40,
    device: "hx8k",
    package: "ct256",
    logic_cells: 7680,
    multipliers: 0,
    clock_hz: 12_000_000,
    pins: &[
        pin(Pin::Clock, "J3", "12 MHz"),
        pin(Pin::UartRx, "B10", "RS232 RX"),
        pin(Pin::UartTx, "B12", "RS232 TX"),
        pin(Pin::Led(0), "B5", "LED0"),
        pin(Pin::Led(1), "B4", "LED1"),
        pin(Pin::Led(2), "A2", "LED2"),
        pin(Pin::Led(3), "A1", "LED3"),
        pin(Pin::Led(4), "C5", "LED4"),
        pin(Pin::Led(5), "C4", "LED5"),
        pin(Pin::Led(6), "B3", "LED6"),
        pin(Pin::Led(7), "C3", "LED7"),
    ],
    programmer: &["iceprog"],
    notes: "No button and no hard multipliers. Jumpers choose between the flash and the device's own memory; \
            the programmer command writes the flash.",
};

const fn pin(role: Pin, site: &'static str, label: &'static str) -> BoardPin {
    BoardPin {
        role,
        site,
        active: Active::High,
        label,
    }
}
