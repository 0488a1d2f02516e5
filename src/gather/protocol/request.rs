//! The calls to libvirt that a gather is made of.

use std::slice;

/// Identifies one call for the life of the process: numbers are never used twice.
pub type CallId = u64;

/// One call to make. `D` names a domain. `T` names a domain whose figures are wanted, and may carry
/// what is known of it: the scheduler uses UUIDs for both, a worker needs more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<D, T = D> {
    /// Lists the active domains.
    List,
    /// Reads the XML of these domains one by one, and reports each at once. From libvirt 11.0 on,
    /// reading XML waits for the domain's job.
    Describe(Vec<D>),
    /// `virDomainGetInfo` of one domain: a cheap ordinary call, which shows whether libvirtd has an
    /// ordinary worker for it.
    Canary(D),
    /// Reads the statistics of these domains by one bulk call.
    Statistics {
        /// The domains.
        of: Vec<T>,
        /// Which groups of statistics.
        scope: Scope,
        /// How many domains are active in all: a worker that holds handles of many more drops them.
        active: usize,
    },
    /// Reads the disks of one domain by calls of their own.
    Disks(T),
    /// Asks these domains, which have answered in full, for what only some configurations want.
    Extra(Vec<D>),
    /// A call that concerns no domain (`virConnectGetLibVersion`), which shows that the daemon
    /// answers; then `virDomainGetControlInfo` of these domains, one by one, each reported at once.
    Probe(Vec<D>),
    /// Reads state and network of these domains by calls that libvirtd's priority workers serve, and
    /// reports each domain at once.
    Priority(Vec<T>),
}

/// How much a call for statistics asks of its domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All groups.
    Full,
    /// All but the block group, which would touch storage that may be dead.
    NoBlock,
    /// Only what libvirt knows without QEMU's monitor.
    NoMonitor,
}

impl Scope {
    /// All scopes, in the order in which they are asked for.
    pub const ALL: [Self; 3] = [Self::Full, Self::NoBlock, Self::NoMonitor];
}

/// What a request does, without its domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// The active domains, which the other calls of the gather are about.
    List,
    /// XML, from which the kinds of a domain's devices and the files of its disks are read.
    Describe,
    /// A test whether libvirtd has a free ordinary worker.
    Canary,
    /// The figures of many domains in one call.
    Statistics(Scope),
    /// The disks of a domain, one by one, where its statistics leave out the block group.
    Disks,
    /// What only some configurations want, of domains that have answered in full.
    Extra,
    /// A test whether the daemon answers, and how long the monitors of domains have been in use.
    Probe,
    /// State and network of domains for which libvirtd has no free ordinary worker.
    Priority,
}

/// What may happen to a call that is to be sent, from the safest to the most dangerous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Risk {
    /// libvirtd's priority workers serve it, also when all ordinary workers are taken.
    Priority,
    /// It hangs only if libvirtd has no ordinary worker to spare.
    Ordinary,
    /// It concerns a domain that may make it hang.
    Risky,
}

impl RequestKind {
    /// Whether the call uses the domain's QEMU monitor: such a call hangs when QEMU does.
    pub fn needs_monitor(self) -> bool {
        matches!(
            self,
            Self::Statistics(Scope::Full | Scope::NoBlock) | Self::Disks | Self::Extra
        )
    }

    /// Whether libvirtd's priority workers serve the call.
    pub fn is_priority(self) -> bool {
        matches!(self, Self::List | Self::Probe | Self::Priority)
    }

    /// What may happen to the call. `trusted`: nothing is known of its domains, or for a list of the
    /// daemon, that would make it hang.
    pub fn risk(self, trusted: bool) -> Risk {
        match trusted {
            true if self.is_priority() => Risk::Priority,
            false if self.is_priority() || self.needs_monitor() => Risk::Risky,
            _ => Risk::Ordinary,
        }
    }
}

impl<D, T> Request<D, T> {
    /// What the request does.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::List => RequestKind::List,
            Self::Describe(_) => RequestKind::Describe,
            Self::Canary(_) => RequestKind::Canary,
            Self::Statistics { scope, .. } => RequestKind::Statistics(*scope),
            Self::Disks(_) => RequestKind::Disks,
            Self::Extra(_) => RequestKind::Extra,
            Self::Probe(_) => RequestKind::Probe,
            Self::Priority(_) => RequestKind::Priority,
        }
    }

    /// The same request with its domains named otherwise. Domains for which there is no other name
    /// are left out; `None` where a request for one domain would be left without it.
    pub fn map<E, U>(
        self,
        domain: impl FnMut(D) -> Option<E>,
        target: impl FnMut(T) -> Option<U>,
    ) -> Option<Request<E, U>> {
        let (mut domain, mut target) = (domain, target);
        Some(match self {
            Self::List => Request::List,
            Self::Describe(domains) => {
                Request::Describe(domains.into_iter().filter_map(domain).collect())
            }
            Self::Canary(one) => Request::Canary(domain(one)?),
            Self::Statistics { of, scope, active } => Request::Statistics {
                of: of.into_iter().filter_map(target).collect(),
                scope,
                active,
            },
            Self::Disks(one) => Request::Disks(target(one)?),
            Self::Extra(domains) => {
                Request::Extra(domains.into_iter().filter_map(domain).collect())
            }
            Self::Probe(domains) => {
                Request::Probe(domains.into_iter().filter_map(domain).collect())
            }
            Self::Priority(targets) => {
                Request::Priority(targets.into_iter().filter_map(target).collect())
            }
        })
    }
}

impl<D> Request<D> {
    /// The domains that it concerns.
    pub fn domains(&self) -> &[D] {
        match self {
            Self::List => &[],
            Self::Canary(one) | Self::Disks(one) => slice::from_ref(one),
            Self::Statistics { of, .. } => of,
            Self::Describe(some) | Self::Extra(some) | Self::Probe(some) | Self::Priority(some) => {
                some
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_other_names_leaves_out_the_domains_that_have_none() {
        let name = |n: u8| (n != 2).then(|| n.to_string());
        let mapped = |request: Request<u8>| request.map(name, name);
        assert_eq!(mapped(Request::List), Some(Request::List));
        let some = ["1", "3"].map(str::to_owned).to_vec();
        let probe = mapped(Request::Probe(vec![1, 2, 3]));
        assert_eq!(probe, Some(Request::Probe(some)));
        assert_eq!(mapped(Request::Disks(2)), None);
    }

    #[test]
    fn what_needs_the_monitor_of_a_domain_that_is_not_trusted_is_risky() {
        let risks = |kind: RequestKind| [kind.risk(true), kind.risk(false)];
        for scope in [Scope::Full, Scope::NoBlock] {
            let kind = RequestKind::Statistics(scope);
            assert_eq!(risks(kind), [Risk::Ordinary, Risk::Risky]);
        }
        for kind in [
            RequestKind::Statistics(Scope::NoMonitor),
            RequestKind::Canary,
            RequestKind::Describe,
        ] {
            assert_eq!(risks(kind), [Risk::Ordinary; 2]);
        }
        assert_eq!(risks(RequestKind::Probe), [Risk::Priority, Risk::Risky]);
    }
}
