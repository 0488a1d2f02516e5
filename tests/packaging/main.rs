//! The scripts that install and build, and the packages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod install_scripts;
mod packages;
mod packages_long;
mod release;
#[path = "../support/mod.rs"]
mod support;
