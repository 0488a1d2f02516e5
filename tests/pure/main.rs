//! What the library computes, without a process and without a hypervisor. One test reads our lines with a
//! real Telegraf.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod description;
mod domstats;
mod line_protocol;
#[allow(dead_code)]
#[path = "../support/lines.rs"]
mod lines;
mod metadata;
mod readme;
mod scheduler;
#[path = "../support/turn.rs"]
mod turn;
mod turns;
