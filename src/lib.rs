//! telegraf-kvm: per-VM and per-device statistics of a libvirt host, as line protocol for Telegraf.
//!
//! How the data flow:
//!
//! ```text
//! stdin newline / signal / --interval        trigger
//!   -> one gather                            main_loop: one at a time
//!   -> list of active domains                gather: one call
//!   -> state of the host                     host: frozen QEMUs, dead mounts, network devices, control groups
//!   -> chunks of domains -> workers          gather: bulk statistics in parallel, each worker on its own connection
//!   -> Sample per VM                         sample: plain figures, each of them an Option
//!      + Description per VM                  vms: from cached XML
//!   -> Totals, Features                      derive: sums, and rates against the last sample of the same run
//!   -> line protocol                         measurements: one buffer; output: whole lines
//! ```
//!
//! A [`sample::Sample`] knows nothing of line protocol, and the writer knows nothing of libvirt. All `unsafe` code
//! is in `libvirt::ffi`.

mod blocking_io;
pub mod cli;
pub mod config;
pub mod derive;
pub mod description;
mod device_filter;
pub mod doctor;
mod duration;
pub mod gather;
pub mod host;
mod hypervisor;
mod inventory;
pub mod libvirt;
pub mod line_protocol;
pub mod logging;
mod main_loop;
mod maps;
pub mod measurements;
mod name_filter;
pub mod output;
mod report;
pub mod sample;
pub mod service;
mod threads;
mod times;
mod timestamp;
pub mod trigger;
pub mod uri;
mod vms;
mod wording;
