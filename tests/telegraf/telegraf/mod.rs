//! telegraf-kvm under a real Telegraf, and on into a real InfluxDB.

mod ends;
mod influxdb;
mod levels;
mod names;
mod node;
mod once;
mod signals;
