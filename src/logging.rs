//! The log on stderr, with Telegraf's level prefixes.
