//! One gather: the list, the chunks, the workers, and what came back in time.

pub mod crew;
#[cfg(test)]
pub(crate) mod examples;
mod gatherer;
mod session;
pub mod worker;

pub use gatherer::{Gathered, Gatherer, Trouble};
