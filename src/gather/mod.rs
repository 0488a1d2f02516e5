//! One gather: the list, the chunks, the workers, and what came back in time.

pub mod crew;
pub mod engine;
mod gatherer;
pub mod ledger;
mod session;
pub mod worker;

pub use gatherer::{Gathered, Gatherer, Trouble};
