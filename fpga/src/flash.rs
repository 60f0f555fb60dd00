//! Writing a bitstream to a board.
