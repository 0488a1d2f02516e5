//! The program and its parts on a real libvirtd with real QEMUs, and on real mounts. Needs root.
//!
//! The modules run one after the other, except for tests that share their turn (`support::turn`); the tests of
//! one module may run in parallel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod balloon;
mod call_cost;
mod churn;
mod daemon;
mod daemon_outages;
mod doctor;
mod faults_daemon;
mod faults_files;
mod faults_first;
mod faults_frozen;
mod faults_neighbours;
mod faults_proxy;
mod faults_storage;
mod host;
mod host_counters;
mod hosts;
mod inventory;
mod io_errors;
mod jobs;
mod lab_smoke;
mod limits;
mod metadata;
mod mount_checkers;
mod nics;
mod pressure;
mod qemu_changes;
mod qemu_disks;
mod qemu_ends;
mod qemu_gone;
mod qemu_guest;
mod qemu_runs;
mod qemu_text;
mod qemu_values;
mod stats;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod vcpus;
