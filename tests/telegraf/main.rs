//! The program under a real Telegraf, and on into real databases: InfluxDB, Prometheus, DataFusion.
//! Needs root.
//!
//! The modules run one after the other (`support::turn`): the tests of one may run side by side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod dashboards;
mod fleets;
#[path = "../support/mod.rs"]
mod support;
mod telegraf;
