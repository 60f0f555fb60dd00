//! The driver of a board: from tensors to bytes on the serial line, and back.
//!
//! A [`Transport`] moves bytes. A [`Session`] makes of them commands that are executed once and in order, whatever the line does to them. A [`Board`] knows the engine's
//! memories, cuts products of any size to their measure ([`plan`]), and starts anew where it stopped when the board was reset or its cable pulled. What goes over the line
//! is defined in [`hdl::board::protocol`].

mod board;
mod faults;
pub mod plan;
mod serial;
mod session;
mod transport;
mod twin;

pub use board::{
    Activations, Board, BoardError, Counters, Identity, Options, PairCounts, Product, WeightKey,
    Weights,
};
pub use faults::{FaultRates, FaultsDone, Faulty};
pub use serial::SerialTransport;
pub use session::{LinkError, LinkOptions, Seen, Session, Statistics};
pub use transport::{Resettable, Transport, TransportError};
pub use twin::TwinTransport;
