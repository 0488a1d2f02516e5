//! The words for the state of a domain and its reason.

/// The words for virDomainState. They are those of the earlier collector, which has "suspended" for libvirt's
/// pmsuspended.
const STATES: [&str; 8] = [
    "no state",
    "running",
    "blocked",
    "paused",
    "shutdown",
    "shutoff",
    "crashed",
    "suspended",
];

/// The words for virDomain*Reason, by state. They are those of libvirt's status XML (the VIR_ENUM_IMPL tables in its
/// `domain_conf.c`), with a hyphen in place of a space.
const REASONS: [&[&str]; 8] = [
    &["unknown"],
    &[
        "unknown",
        "booted",
        "migrated",
        "restored",
        "from-snapshot",
        "unpaused",
        "migration-canceled",
        "save-canceled",
        "wakeup",
        "crashed",
        "post-copy",
        "post-copy-failed",
    ],
    &["unknown"],
    &[
        "unknown",
        "user",
        "migration",
        "save",
        "dump",
        "ioerror",
        "watchdog",
        "from-snapshot",
        "shutdown",
        "snapshot",
        "panicked",
        "starting-up",
        "post-copy",
        "post-copy-failed",
        "api-error",
    ],
    &["unknown", "user"],
    &[
        "unknown",
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "saved",
        "failed",
        "from-snapshot",
        "daemon",
    ],
    &["unknown", "panicked"],
    &["unknown"],
];

/// The word for a state; `None` for a number that this program does not know.
pub(super) fn word(state: i32) -> Option<&'static str> {
    let index = usize::try_from(state).ok()?;
    STATES.get(index).copied()
}

/// The word for a reason; "unknown" for a number that this program does not know.
pub(crate) fn reason(state: i32, reason: i32) -> &'static str {
    let word = || {
        let reasons = REASONS.get(usize::try_from(state).ok()?)?;
        reasons.get(usize::try_from(reason).ok()?).copied()
    };
    word().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(word(7), Some("suspended"));
        assert_eq!(word(8), None);
        assert_eq!(word(-1), None);
        assert_eq!(reason(1, 1), "booted");
        assert_eq!(reason(3, 5), "ioerror");
        assert_eq!(reason(3, 10), "panicked");
        assert_eq!(reason(3, 11), "starting-up");
        assert_eq!(reason(3, 99), "unknown");
        assert_eq!(reason(99, 0), "unknown");
    }
}
