//! When a counter that we read on this host may take the place of libvirt's.
//!
//! We need not read what libvirt reads: libvirtd may see another network namespace or another control
//! group. So libvirt is queried until its figures have been seen to lie between our readings before
//! and after its reply. Then both are the same counter.

/// What libvirt reported (`R`) of counters that we read as well, and what the comparison with our
/// readings has proven (`P`).
#[derive(Debug, Clone)]
pub(super) struct Proof<R, P> {
    /// Reported since our last reading, so it is to be compared with the next one.
    reported: Option<R>,
    proven: Option<P>,
}

impl<R, P> Default for Proof<R, P> {
    fn default() -> Self {
        Self {
            reported: None,
            proven: None,
        }
    }
}

impl<R, P> Proof<R, P> {
    /// libvirt reported this, after our last reading.
    pub(super) fn report(&mut self, reported: R) {
        self.reported = Some(reported);
    }

    /// There is a new reading. What libvirt reported before it is compared once, and proves what
    /// `compare` returns; a comparison that proves nothing leaves what was proven before.
    pub(super) fn compare(&mut self, compare: impl FnOnce(R) -> Option<P>) {
        if let Some(proven) = self.reported.take().and_then(compare) {
            self.proven = Some(proven);
        }
    }

    /// What has been proven.
    pub(super) fn proven(&self) -> Option<&P> {
        self.proven.as_ref()
    }

    /// Whether there is nothing to compare and nothing proven.
    pub(super) fn is_empty(&self) -> bool {
        self.reported.is_none() && self.proven.is_none()
    }

    /// What was proven has to be proven again. What libvirt reported is still compared.
    pub(super) fn reopen(&mut self) {
        self.proven = None;
    }

    /// What was proven and what libvirt reported hold no more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_compared_once() {
        let mut proof = Proof::default();
        proof.compare(|_: u64| Some(()));
        assert!(proof.proven().is_none() && proof.is_empty());
        proof.report(1);
        assert!(proof.proven().is_none() && !proof.is_empty());
        proof.report(2);
        proof.compare(|reported| (reported == 1).then_some(()));
        assert!(proof.proven().is_none(), "the later report counts");
        proof.compare(|_| Some(()));
        assert!(proof.is_empty(), "it was compared before");
    }

    #[test]
    fn what_is_proven_stays_until_it_is_reopened() {
        let mut proof = Proof::default();
        let report = |proof: &mut Proof<u64, u64>, reported| {
            proof.report(reported);
            proof.compare(|reported| (reported > 0).then_some(reported));
        };
        report(&mut proof, 7);
        assert_eq!(proof.proven(), Some(&7));
        report(&mut proof, 0);
        assert_eq!(proof.proven(), Some(&7), "nothing else was proven");
        report(&mut proof, 8);
        assert_eq!(proof.proven(), Some(&8));
        proof.report(9);
        proof.reopen();
        assert_eq!(proof.proven(), None);
        proof.compare(Some);
        assert_eq!(proof.proven(), Some(&9));
        proof.report(10);
        proof.clear();
        proof.compare(Some);
        assert!(proof.is_empty());
    }
}
