//! The built program on libvirt's test driver, which needs no daemon and no root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod doctor;
mod exit_codes;
mod filters;
mod hosts;
mod inventory;
mod max_lines;
mod rates;
mod starting;
mod stdin;
mod stdout;
#[path = "../support/mod.rs"]
mod support;
mod test_driver;
mod triggers;
mod whole_lines;
mod words;
