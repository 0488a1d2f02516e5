//! telegraf-kvm under a real Telegraf, which writes to a real InfluxDB.

mod ends;
mod influxdb;
mod levels;
mod names;
mod node;
mod once;
mod signals;
