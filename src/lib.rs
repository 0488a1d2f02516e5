//! telegraf-kvm: per-VM and per-device statistics of a libvirt host, as line protocol for Telegraf.
//!
//! The way of the data:
//!
//! ```text
//! stdin newline / signal / --interval        trigger
//!   -> Gather                                agent: one at a time
//!   -> list of active domains                gather: one call
//!   -> look at the host                      host: stuck QEMUs, dead mounts, taps, control groups
//!   -> chunks of domains -> workers          gather: bulk statistics in parallel, a connection each
//!   -> Sample per VM                         sample: plain figures, every one an Option
//!      + Description per VM                  vms: from cached XML
//!   -> Totals, Features                      history: sums, and rates since the last one of the same run
//!   -> line protocol                         measurements: one buffer; output: whole lines
//! ```
//!
//! A [`sample::Sample`] knows nothing of line protocol, and the writer knows nothing of libvirt.
//! All `unsafe` stands in `libvirt::ffi`.

pub mod cli;
pub mod config;
pub mod description;
pub mod features;
pub mod gather;
pub mod history;
pub mod host;
pub mod input;
pub mod libvirt;
pub mod line_protocol;
pub mod logging;
pub mod main_loop;
pub mod maps;
pub mod measurements;
pub mod output;
pub mod report;
pub mod sample;
pub mod service;
pub mod threads;
pub mod times;
pub mod timestamp;
pub mod totals;
pub mod trigger;
pub mod uri;
pub(crate) mod vms;
mod wording;
