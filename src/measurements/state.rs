//! The words for a domain's state and its reason.

/// virDomainState, in the old collector's words (libvirt's pmsuspended is "suspended").
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

/// virDomain*Reason by state, in libvirt's own words (the VIR_ENUM_IMPL tables of its
/// `domain_conf.c`, which are the words of its status XML), with a hyphen where it has a blank.
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

/// The state's word; `None` for a number that this program does not know.
pub(super) fn word(state: i32) -> Option<&'static str> {
    let index = usize::try_from(state).ok()?;
    STATES.get(index).copied()
}

/// The reason's word; one that a newer libvirt invented is "unknown".
pub(super) fn reason(state: i32, reason: i32) -> &'static str {
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
