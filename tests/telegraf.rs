//! telegraf-kvm under a real Telegraf, and on into a real InfluxDB.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

// In a folder of the file's name, so that the one binary runs them side by side.
#[path = "telegraf/agent.rs"]
mod agent;
#[path = "telegraf/ends.rs"]
mod ends;
#[path = "telegraf/influxdb.rs"]
mod influxdb;
#[path = "telegraf/levels.rs"]
mod levels;
#[path = "telegraf/names.rs"]
mod names;
#[path = "telegraf/node.rs"]
mod node;
#[path = "telegraf/once.rs"]
mod once;
#[path = "telegraf/signals.rs"]
mod signals;
