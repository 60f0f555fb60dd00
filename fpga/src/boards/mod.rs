//! One file a board.

mod hx8k_breakout;
mod icebreaker;

use crate::Board;

/// Every board, in the order of the listing.
pub(crate) static ALL: [Board; 2] = [icebreaker::BOARD, hx8k_breakout::BOARD];
