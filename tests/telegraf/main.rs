//! The program under a real Telegraf, which writes to real databases: InfluxDB, Prometheus, DataFusion.
//! Needs root.
//!
//! The modules run one after the other, except for tests that share their turn (`support::turn`); the tests of
//! one module may run in parallel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod dashboards;
mod fleets;
mod inputs_libvirt;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;
mod telegraf;
