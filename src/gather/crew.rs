//! The crew: the workers' threads, who of them is free, and who hangs.
//!
//! A call that hangs is a resource of the host: libvirtd has 20 workers for everybody. So calls in
//! hand are capped over any number of gathers, and a worker whose call outlived its gather is set
//! aside until that call returns.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::worker::{self, Brief, Job, Reply};

/// The most calls of ours that may be in libvirt at once, hanging ones included.
const CAP: usize = 8;

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// The workers.
pub struct Crew {
    brief: Arc<Brief>,
    sink: Sink,
    /// How many work at once.
    size: usize,
    members: Vec<Member>,
    next_ticket: u64,
}

struct Member {
    jobs: Sender<(u64, Job)>,
    busy: Option<Busy>,
}

#[derive(Clone, Copy)]
struct Busy {
    ticket: u64,
    listing: bool,
    aside: bool,
}

impl Crew {
    /// A crew of `size` workers; their threads and connections come when they are first needed.
    pub fn new(brief: Brief, size: usize, sink: Sink) -> Self {
        Self {
            brief: Arc::new(brief),
            sink,
            size,
            members: Vec::new(),
            next_ticket: 0,
        }
    }

    /// Whether a list call hangs: none is sent again then.
    pub fn list_hangs(&self) -> bool {
        let mut busy = self.members.iter().filter_map(|m| m.busy);
        busy.any(|busy| busy.listing)
    }

    /// How many calls outlived their gather.
    pub fn hanging(&self) -> usize {
        let busy = self.members.iter().filter_map(|m| m.busy);
        busy.filter(|busy| busy.aside).count()
    }

    /// The gather is over: whoever has not answered is set aside, and a fresh worker takes the
    /// place when one is needed.
    pub fn set_aside(&mut self) {
        for busy in self.members.iter_mut().filter_map(|m| m.busy.as_mut()) {
            busy.aside = true;
        }
    }

    /// Whether somebody is free, or may be taken on.
    pub fn has_free(&mut self) -> bool {
        self.free_member().is_some()
    }

    /// Gives the job to a free worker and returns its ticket; `None` when nobody is free and
    /// nobody may be taken on.
    pub fn assign(&mut self, job: Job) -> Option<u64> {
        let index = self.free_member()?;
        let member = self.members.get_mut(index)?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let listing = matches!(job, Job::List);
        if member.jobs.send((ticket, job)).is_err() {
            // Its thread is gone, which only a defect of ours brings about: go on without it.
            self.members.swap_remove(index);
            return None;
        }
        member.busy = Some(Busy {
            ticket,
            listing,
            aside: false,
        });
        Some(ticket)
    }

    /// A reply came: its worker is free again; one that had been set aside ends, unless its place
    /// is still empty.
    pub fn returned(&mut self, ticket: u64) {
        let at_work = self.at_work();
        self.members.retain_mut(|member| match member.busy {
            Some(busy) if busy.ticket == ticket => {
                member.busy = None;
                !busy.aside || at_work < self.size
            }
            _ => true,
        });
    }

    /// Free, or busy with this gather.
    fn at_work(&self) -> usize {
        self.members.len() - self.hanging()
    }

    fn free_member(&mut self) -> Option<usize> {
        if let Some(free) = self.members.iter().position(|m| m.busy.is_none()) {
            return Some(free);
        }
        if self.at_work() >= self.size || self.members.len() >= CAP.max(self.size) {
            return None;
        }
        let (jobs, inbox) = channel();
        let brief = Arc::clone(&self.brief);
        let sink = Arc::clone(&self.sink);
        let thread = thread::Builder::new()
            .name("worker".into())
            .spawn(move || worker::run(&brief, &inbox, &*sink));
        match thread {
            Ok(_) => {
                self.members.push(Member { jobs, busy: None });
                Some(self.members.len() - 1)
            }
            Err(error) => {
                log::warn!("cannot start a thread: {error}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    use super::*;
    use crate::config::Measurements;
    use crate::gather::examples::{Frozen, LIMIT, inbox, settings};
    use crate::libvirt::bulk::Groups;
    use crate::sample::Wanted;

    fn crew(uri: &str, size: usize) -> (Crew, Receiver<Reply>) {
        let settings = settings(uri);
        let brief = Brief {
            uri: uri.to_owned(),
            groups: Groups::needed(&Measurements {
                metrics: true,
                features: false,
                devices: false,
                totals: false,
            }),
            wanted: Wanted::new(&settings),
        };
        let (sink, replies) = inbox();
        (Crew::new(brief, size, sink), replies)
    }

    fn nobody() -> Job {
        Job::Chunk {
            targets: Vec::new(),
            active: 0,
        }
    }

    #[test]
    fn a_worker_is_taken_on_when_it_is_needed_and_kept() {
        let (mut crew, replies) = crew("test:///default", 4);
        assert!(crew.members.is_empty());
        for ticket in 0..3 {
            assert_eq!(crew.assign(Job::List), Some(ticket));
            assert!(crew.list_hangs());
            let reply = replies.recv_timeout(LIMIT).unwrap();
            assert_eq!(reply.ticket, ticket);
            crew.returned(ticket);
            assert!(!crew.list_hangs());
            assert_eq!(crew.members.len(), 1);
        }
    }

    #[test]
    fn no_more_work_at_once_than_the_crew_is_large() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 2);
        assert!(crew.assign(nobody()).is_some());
        assert!(crew.has_free());
        assert!(crew.assign(nobody()).is_some());
        assert!(!crew.has_free());
        assert_eq!(crew.assign(nobody()), None);
        assert_eq!(crew.hanging(), 0, "this gather's calls do not hang yet");
    }

    #[test]
    fn a_job_goes_to_nobody_whose_call_hangs() {
        let frozen = Frozen::start();
        let (mut crew, replies) = crew(&frozen.uri(), 1);
        let first = crew.assign(nobody()).unwrap();
        assert!(!crew.has_free());
        crew.set_aside();
        assert_eq!(crew.hanging(), 1);
        let second = crew.assign(nobody()).unwrap();
        assert_ne!(first, second);
        assert_eq!(crew.members.len(), 2, "a fresh worker took the place");
        assert!(replies.recv_timeout(Duration::from_millis(200)).is_err());
        // The place is taken, so who comes back late goes.
        crew.returned(first);
        assert_eq!((crew.members.len(), crew.hanging()), (1, 0));
        crew.returned(second);
        assert_eq!(crew.members.len(), 1);
        assert!(crew.has_free());
    }

    #[test]
    fn who_comes_back_to_an_empty_place_stays() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        let first = crew.assign(nobody()).unwrap();
        crew.set_aside();
        crew.returned(first);
        assert_eq!((crew.members.len(), crew.hanging()), (1, 0));
    }

    #[test]
    fn calls_are_capped_and_a_large_crew_has_its_own_cap() {
        let frozen = Frozen::start();
        for (size, cap) in [(3, CAP), (10, 10)] {
            let (mut crew, _replies) = crew(&frozen.uri(), size);
            for _ in 0..10 {
                while crew.assign(nobody()).is_some() {}
                crew.set_aside();
            }
            assert_eq!(crew.members.len(), cap);
            assert_eq!(crew.hanging(), cap);
        }
    }

    #[test]
    fn a_ticket_of_nobody_changes_nothing() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        crew.assign(nobody()).unwrap();
        crew.returned(99);
        assert!(!crew.has_free());
    }
}
