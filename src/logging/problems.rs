//! Logs a problem once and then counts it.

use std::borrow::Cow;

use log::Level;

use crate::maps::HashMap;

/// How many problems are distinguished. A host has a few kinds of problems and some hundred VMs.
const MOST: usize = 1024;

/// The problems that were logged and are not over yet.
///
/// A key stands for one problem of one thing: `"libvirt"`, or the UUID of a VM. It must be cleared when the
/// problem is over or the thing is gone.
#[derive(Debug, Default)]
pub struct Problems {
    /// How often each problem was reported.
    counts: HashMap<Cow<'static, str>, u64>,
    /// Whether more than [`MOST`] problems came together, which is logged once.
    overflowed: bool,
}

impl Problems {
    /// Reports one occurrence: logs it at `level` the first time, and at debug with its count afterwards.
    ///
    /// While 1024 problems are known, new ones are logged at debug only, after one warning. If older ones were
    /// forgotten instead, all of them would be logged again in every gather.
    pub fn report(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        level: Level,
        message: impl FnOnce() -> String,
    ) {
        let overflowed = self.overflowed;
        let count = self.count(key.into());
        if self.overflowed && !overflowed {
            log::warn!(
                "more than {MOST} different problems; further ones are logged at debug only"
            );
        }
        match count {
            Some(1) => log::log!(level, "{}", message()),
            Some(count) => log::debug!("{} (seen {count} times)", message()),
            None => log::debug!("{}", message()),
        }
    }

    /// Forgets a problem that is over, and returns how often it was reported. The caller logs that it is over.
    pub fn clear(&mut self, key: &str) -> Option<u64> {
        let count = self.counts.remove(key);
        if self.counts.is_empty() {
            self.overflowed = false;
        }
        count
    }

    /// Counts one occurrence; `None` if there is no room for a new problem.
    fn count(&mut self, key: Cow<'static, str>) -> Option<u64> {
        if self.counts.len() >= MOST && !self.counts.contains_key(&key) {
            self.overflowed = true;
            return None;
        }
        let count = self.counts.entry(key).or_default();
        *count += 1;
        Some(*count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_counted_until_cleared() {
        let mut problems = Problems::default();
        assert_eq!(problems.count("a".into()), Some(1));
        assert_eq!(problems.count("a".into()), Some(2));
        assert_eq!(problems.count("b".into()), Some(1));
        assert_eq!(problems.clear("a"), Some(2));
        assert_eq!(problems.clear("a"), None);
        assert_eq!(problems.count("a".into()), Some(1));
        assert_eq!(problems.clear("b"), Some(1));
    }

    #[test]
    fn it_does_not_grow_without_bounds() {
        let mut problems = Problems::default();
        for i in 0..10 * MOST {
            problems.report(format!("vm {i}"), Level::Warn, String::new);
        }
        assert_eq!(problems.counts.len(), MOST);
        assert!(problems.overflowed);
        assert_eq!(problems.count("new".into()), None);
        assert_eq!(problems.count("vm 0".into()), Some(2));
        for i in 0..MOST {
            assert!(problems.clear(&format!("vm {i}")).is_some());
        }
        assert!(!problems.overflowed);
        assert_eq!(problems.count("new".into()), Some(1));
    }
}
