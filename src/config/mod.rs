//! The configuration: the file as written (`file`) becomes validated [`Settings`] once, at the door.

mod error;
mod file;
mod filter;
mod load;
mod settings;
mod uri;
mod validate;

pub use error::ConfigError;
pub use filter::NameFilter;
pub use load::{Loaded, SYSTEM_FILE, Source, load};
pub use settings::{BlockStatistics, Measurements, Precision, Settings};
pub use uri::{Uri, UriOrigin};

/// The commented sample that the package installs and `--sample-config` prints.
pub const SAMPLE: &str = include_str!("../../telegraf/telegraf-kvm.toml");
