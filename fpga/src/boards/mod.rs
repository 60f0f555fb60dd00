//! One file a board, or a board's variants.

mod colorlight;
mod hx8k_breakout;
mod icebreaker;
mod orangecrab;
mod tang_nano;
mod ulx3s;

use crate::Board;

/// Arguments of nextpnr for ECP5 devices above 25k cells: its second router, which took 68 rounds for an LFE5U-45F at 65 % and 43 for an LFE5U-85F at 61 %. The first router was tried at 91 and 89 % only,
/// and stopped unfinished.
const LARGE: [&str; 2] = ["--router", "router2"];

/// Every board, in the order of the listing.
pub(crate) static ALL: [Board; 9] = [
    icebreaker::BOARD,
    hx8k_breakout::BOARD,
    ulx3s::BOARD_85F,
    ulx3s::BOARD_25F,
    orangecrab::BOARD,
    colorlight::I5,
    colorlight::I9,
    tang_nano::TANG_NANO_9K,
    tang_nano::TANG_NANO_20K,
];
