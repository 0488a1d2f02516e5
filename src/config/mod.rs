//! The configuration: the file as written (`file`) becomes validated [`Settings`] once, when it is loaded.

mod error;
mod file;
mod hosts;
mod load;
mod settings;
mod tags;
mod uri;
mod validate;

pub use error::ConfigError;
pub use load::{ConfigSource, Loaded, SYSTEM_FILE, load};
pub use settings::{BlockStatistics, Measurements, Precision, Settings, VcpuDelay};
pub use uri::{Uri, UriOrigin};

pub use crate::name_filter::NameFilter;

/// The commented sample that the package installs and `--sample-config` prints.
pub const SAMPLE: &str = include_str!("../../telegraf/telegraf-kvm.toml");
