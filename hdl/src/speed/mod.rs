//! SPEED: speculative pipelined decoding of models that run one group of layers several times.
//!
//! [`SpeedPipeline`] knows which tokens are in flight, [`PassPlayer`] has the accelerator run the group of layers on all of them with one fetch of the weights, and
//! [`SpeedAccelerator`] puts both around the accelerator. What lies between the linear layers, and the classifier, is the host's.

pub mod bus;
pub mod config;
pub mod counters;
pub mod pipeline;
pub mod player;
pub mod program;
pub mod registers;
pub mod top;

pub use config::{SpeedConfig, SpeedConfigError};
pub use pipeline::SpeedPipeline;
pub use player::PassPlayer;
pub use top::SpeedAccelerator;
