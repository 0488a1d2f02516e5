//! telegraf-kvm: see the library's page for the way of the data.
fn main() {}
