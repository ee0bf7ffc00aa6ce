//! Migration of a stream to another region: `steps` is its steps as a value, `run` takes them in the stores of both
//! regions and in the directory, and `schedule` decides when: an operator requests it, or a node died half way.

mod run;
mod schedule;
mod steps;

pub use run::Migration;
pub(super) use schedule::Busy;
pub use steps::{End, Step};
