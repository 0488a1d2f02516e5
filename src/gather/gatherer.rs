//! The gather's course: what has been asked, what is still to ask, what came.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::crew::{Crew, Sink};
use super::worker::{Answer, Brief, Failure, Found, Job, Measured, Reply, Target};
use crate::config::{NameFilter, Settings};
use crate::inventory::{Inventory, Watch};
use crate::libvirt::Error;
use crate::libvirt::bulk::Groups;
use crate::libvirt::events::Notice;
use crate::sample::{Run, Sample, Wanted};

/// Something to tell the operator about, once.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// No connection.
    Unreachable(Error),
    /// The list or a whole chunk was refused.
    Refused(Error),
    /// One domain's figures or description cannot be had.
    Domain(Found, String),
}

/// What a gather brought.
#[derive(Debug, Default)]
pub struct Gathered {
    /// One sample per domain that answered in time.
    pub samples: Vec<Sample>,
    /// What went wrong.
    pub troubles: Vec<Trouble>,
    /// Whether libvirt answered at all.
    pub reached: bool,
    /// Active domains, by the list of this gather; `None`: no list came.
    pub active: Option<HashSet<Run>>,
    /// Domains that were to be asked and did not answer in time.
    pub missing: usize,
    /// Calls that have not returned.
    pub hanging: usize,
}

/// Runs gathers, one at a time, without ever calling libvirt itself.
pub struct Gatherer {
    crew: Crew,
    inventory: Inventory,
    domains: NameFilter,
    chunk_size: usize,
    /// The domains of the last list, in case the next one hangs.
    listed: Vec<Found>,
    course: Course,
}

/// One gather under way.
#[derive(Default)]
struct Course {
    list: Option<u64>,
    queue: VecDeque<Vec<Found>>,
    asked: Vec<(u64, usize)>,
    gathered: Gathered,
}

impl Gatherer {
    /// `sink` brings workers' replies to whoever calls [`Gatherer::on_reply`].
    pub fn new(settings: &Settings, sink: Sink) -> Self {
        let in_process = settings.uri.in_process();
        let brief = Brief {
            uri: settings.uri.value.clone(),
            groups: Groups::needed(&settings.measurements),
            wanted: Wanted::new(settings),
        };
        // Each connection to a driver in our own process may be a node of its own: one serves alone.
        let size = if in_process { 1 } else { settings.workers };
        Self {
            crew: Crew::new(brief, size, sink),
            inventory: Inventory::new(settings.device_cache_ttl),
            domains: settings.domains.clone(),
            chunk_size: settings.chunk_size,
            listed: Vec::new(),
            course: Course::default(),
        }
    }

    /// Begins a gather: the list is asked for. While a list call of an earlier gather hangs, none
    /// is sent again and the domains last known serve.
    pub fn begin(&mut self) {
        self.inventory.begin();
        self.course = Course::default();
        if self.crew.list_hangs() {
            let known = self.listed.clone();
            self.queue(known);
        } else {
            self.course.list = self.crew.assign(Job::List);
        }
        self.hand_out();
    }

    /// A worker's reply: of this gather, or late and dropped.
    pub fn on_reply(&mut self, reply: Reply) {
        self.crew.returned(reply.ticket);
        let listing = self.course.list == Some(reply.ticket);
        let asked = self.course.asked.iter().position(|a| a.0 == reply.ticket);
        if !listing && asked.is_none() {
            log::debug!("a late answer was dropped");
        } else {
            self.course.list.take_if(|_| listing);
            let asked = asked.map(|asked| self.course.asked.swap_remove(asked));
            self.take(reply, asked.map_or(0, |(_, domains)| domains));
        }
        self.hand_out();
    }

    /// `domains` is how many the reply is about.
    fn take(&mut self, reply: Reply, domains: usize) {
        let gathered = &mut self.course.gathered;
        match reply.result {
            Ok(answer) => {
                gathered.reached = true;
                match answer {
                    Answer::Domains(found) => self.on_list(found),
                    Answer::Samples(measured, troubles) => self.on_samples(measured, troubles),
                }
            }
            Err(Failure::Unreachable(error)) => {
                // Whoever is still in the queue would meet the same.
                let queue = self.course.queue.drain(..);
                gathered.missing += domains + queue.map(|chunk| chunk.len()).sum::<usize>();
                gathered.troubles.push(Trouble::Unreachable(error));
            }
            Err(Failure::Refused(error)) => {
                gathered.reached = true;
                gathered.missing += domains;
                gathered.troubles.push(Trouble::Refused(error));
            }
        }
    }

    fn on_list(&mut self, mut found: Vec<Found>) {
        let active: HashSet<Run> = found.iter().map(|f| f.run).collect();
        self.inventory.keep(&active);
        self.course.gathered.active = Some(active);
        found.retain(|f| self.domains.matches(&f.name));
        self.listed.clone_from(&found);
        self.queue(found);
    }

    fn on_samples(&mut self, measured: Vec<Measured>, troubles: Vec<(Found, String)>) {
        let gathered = &mut self.course.gathered;
        for one in measured {
            let run = one.sample.run;
            if let Some(described) = one.described {
                self.inventory.learn(run, described);
            }
            if let Some(trouble) = one.trouble {
                let found = Found {
                    run,
                    name: one.sample.name.clone(),
                };
                gathered.troubles.push(Trouble::Domain(found, trouble));
            }
            gathered.samples.push(one.sample);
        }
        let troubles = troubles.into_iter();
        gathered
            .troubles
            .extend(troubles.map(|(found, trouble)| Trouble::Domain(found, trouble)));
    }

    fn queue(&mut self, found: Vec<Found>) {
        let chunks = found.chunks(self.chunk_size).map(<[Found]>::to_vec);
        self.course.queue.extend(chunks);
    }

    fn hand_out(&mut self) {
        let now = Instant::now();
        while self.crew.has_free()
            && let Some(chunk) = self.course.queue.pop_front()
        {
            let targets = chunk.iter().map(|found| Target {
                found: found.clone(),
                known: self.inventory.look_up(found.run, now),
            });
            let job = Job::Chunk {
                targets: targets.collect(),
                active: self.listed.len(),
            };
            let Some(ticket) = self.crew.assign(job) else {
                self.course.queue.push_front(chunk);
                return;
            };
            self.course.asked.push((ticket, chunk.len()));
        }
    }

    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        let course = &self.course;
        course.list.is_none() && course.asked.is_empty() && course.queue.is_empty()
    }

    /// Ends the gather with what there is; answers that come later are dropped.
    pub fn finish(&mut self) -> Gathered {
        self.crew.set_aside();
        let course = std::mem::take(&mut self.course);
        let mut gathered = course.gathered;
        gathered.missing += course.queue.iter().map(Vec::len).sum::<usize>()
            + course
                .asked
                .iter()
                .map(|(_, domains)| domains)
                .sum::<usize>();
        gathered.hanging = self.crew.hanging();
        gathered
    }

    /// What the watch has to tell.
    pub fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Watching(since) => self.inventory.watch(Watch::Since(since)),
            Notice::Blind => self.inventory.watch(Watch::Blind),
            Notice::DeviceChanged(uuid, at) => self.inventory.device_changed(uuid, at),
        }
    }
}

#[cfg(test)]
mod tests;
