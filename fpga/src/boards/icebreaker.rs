//! iCEBreaker. Pins from the board project's own constraint file.

use crate::{Active, Board, BoardPin, Family, Pin};

pub(super) const BOARD: Board = Board {
    name: "icebreaker",
    title: "iCEBreaker",
    vendor: "1BitSquared",
    family: Family::Ice40,
    device: "up5k",
    package: "sg48",
    logic_cells: 5280,
    multipliers: 8,
    clock_hz: 12_000_000,
    pins: &[
        pin(Pin::Clock, "35", Active::High, "CLK"),
        pin(Pin::UartRx, "6", Active::High, "RX"),
        pin(Pin::UartTx, "9", Active::High, "TX"),
        pin(Pin::Button(0), "10", Active::Low, "BTN_N"),
        pin(Pin::Led(0), "11", Active::Low, "LEDR_N"),
        pin(Pin::Led(1), "37", Active::Low, "LEDG_N"),
        pin(Pin::Led(2), "39", Active::Low, "LED_RED_N"),
        pin(Pin::Led(3), "40", Active::Low, "LED_GRN_N"),
        pin(Pin::Led(4), "41", Active::Low, "LED_BLU_N"),
    ],
    programmer: &["iceprog"],
    notes: "led2 to led4 are the three colours of one light, on pins that can only pull down. \
            The programmer command writes the flash.",
};

const fn pin(role: Pin, site: &'static str, active: Active, label: &'static str) -> BoardPin {
    BoardPin {
        role,
        site,
        active,
        label,
    }
}
