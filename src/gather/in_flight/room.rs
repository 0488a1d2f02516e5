//! How many more calls may be sent.

use std::collections::BTreeMap;

use super::{Call, InFlight};
use crate::gather::protocol::{CallId, RequestKind, Risk};

/// By how many calls the orphaned ones may exceed the cap.
const ORPHANS_PAST_CAP: usize = 4;

/// Whether calls of this kind count towards the cap. [`RequestKind::Extra`] has a cap of its own.
pub(super) fn is_counted(kind: RequestKind) -> bool {
    kind != RequestKind::Extra
}

impl InFlight {
    /// How many calls may be in flight when one of this risk has been sent. A risky call leaves one
    /// place below the cap, so that there is always room for the domains that answer. A call that the
    /// priority workers serve may exceed the cap by one: it finds out what hangs, and is all that a
    /// libvirtd without free ordinary workers still answers.
    fn limit(&self, risk: Risk) -> usize {
        match risk {
            Risk::Priority => self.cap + 1,
            Risk::Ordinary => self.cap,
            Risk::Risky => self.cap - 1,
        }
    }

    /// Whether as many calls hang as may, and none is waited for: no ordinary call can be sent before one
    /// of those that hang returns.
    pub fn is_used_up(&self) -> bool {
        self.room(Risk::Ordinary) == 0 && !self.is_any_in_hand()
    }

    /// How many more calls of this risk may be sent. Orphaned calls do not take the last place of an
    /// ordinary one.
    pub fn room(&self, risk: Risk) -> usize {
        let out = self.out(is_counted);
        let last = risk == Risk::Ordinary
            && self.in_hand().next().is_none()
            && self.has_room_to_look(Risk::Ordinary);
        self.limit(risk).saturating_sub(out).max(usize::from(last))
    }

    /// Whether one more call may be sent to find out what became of the others. Only a reply shows that
    /// an orphaned call hangs no more, so a few of those may exceed the limit.
    pub fn has_room_to_look(&self, risk: Risk) -> bool {
        let counted = |calls: &BTreeMap<CallId, Call>| {
            let counted = calls.values().filter(|call| is_counted(call.kind));
            counted.count()
        };
        let (calls, orphaned) = (counted(&self.calls), counted(&self.orphaned));
        let limit = self.limit(risk);
        calls < limit && calls + orphaned < limit + orphaned.min(ORPHANS_PAST_CAP)
    }
}
