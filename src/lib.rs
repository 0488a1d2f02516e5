//! telegraf-kvm: per-VM and per-device statistics of a libvirt host, as line protocol for Telegraf.
//!
//! The way of the data:
//!
//! ```text
//! stdin newline / signal / --interval        trigger
//!   -> Gather                                agent: one at a time
//!   -> list of active domains                gather: one call
//!   -> chunks of domains -> workers          gather: bulk statistics in parallel, a connection each
//!   -> Sample per VM                         sample: plain figures, every one an Option
//!      + Description per VM                  inventory: from cached XML
//!   -> Features                              features: this sample against the last of the same run
//!   -> line protocol                         measurements: one buffer, one write, one flush
//! ```
//!
//! A [`sample::Sample`] knows nothing of line protocol, and the writer knows nothing of libvirt.
//! All `unsafe` stands in `libvirt::ffi`.

pub mod cli;
pub mod config;
pub mod description;
pub mod line_protocol;
pub mod logging;
