//! What libvirt reports of domains by itself.

use uuid::Uuid;

use crate::sample::JobStats;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainEvent {
    /// The domain runs, with this id and name: it was started, restored or migrated in.
    Started(Uuid, u32, String),
    /// The QEMU of the domain's run with this id has arrived: its start or restore is over, or it was resumed. It may be
    /// paused.
    Arrived(Uuid, u32),
    /// The domain does not run any more: it was shut down, destroyed, saved or migrated away, or it crashed.
    Stopped(Stop),
    /// The kernel of the guest panicked (a pvpanic device reported it). What becomes of the domain depends on its
    /// `<on_crash>`.
    Panicked(Uuid),
    /// A device was added to the domain.
    DeviceAdded(Uuid),
    /// The device with this alias (`<alias name='net0'/>`) was removed from the domain.
    DeviceRemoved(Uuid, String),
    /// The image of a disk may have changed: a tray moved, so a medium may have been changed, a block job that copies to
    /// another image is in step with its source or has ended, or the domain is in the state of a snapshot.
    ImageChanged(Uuid),
    /// The title, the description or the metadata of the domain changed.
    MetadataChanged(Uuid),
    /// The domain's configuration was stored or deleted, so the domain may have become persistent or transient.
    DefinitionChanged(Uuid),
    /// Something in `<cputune>`, or a limit of a disk, was changed (`virsh schedinfo`).
    TunableChanged(Uuid),
    /// The size of the domain's balloon, or of a memory device that changes its size, changed (`balloon.current`).
    MemoryChanged(Uuid),
    /// The domain's guest was reset, by itself or by the host, in the same run: its drivers are started anew.
    Reset(Uuid),
    /// A request of the guest to a disk failed.
    IoError(IoError),
    /// A job of the domain is over.
    JobCompleted(CompletedJob),
}

/// A stop of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The domain.
    pub uuid: Uuid,
    /// The id of the run that ended. Mostly libvirt has dropped it before it makes the event.
    pub id: Option<u32>,
    /// Why (virDomainShutoffReason).
    pub reason: i32,
}

/// An I/O error of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoError {
    /// The domain.
    pub uuid: Uuid,
    /// The id of the run in which it happened.
    pub id: u32,
    /// The disk (`<alias name='virtio-disk0'/>`).
    pub alias: String,
    /// libvirt's word for the cause: `enospc`, or empty if it knows none; that of the first one if there are more.
    pub reason: String,
    /// How many there were: one a event, and more where events have waited.
    pub count: u64,
}

impl IoError {
    /// Whether both are errors of the same disk in the same run.
    pub fn is_of_same_disk(&self, other: &Self) -> bool {
        (self.uuid, self.id, &self.alias) == (other.uuid, other.id, &other.alias)
    }
}

/// The end of a job of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedJob {
    /// The domain.
    pub uuid: Uuid,
    /// The id of the domain's run. libvirt has dropped it if the run ended with the job, as with a migration.
    pub id: Option<u32>,
    /// The final figures.
    pub stats: JobStats,
}

/// Kinds of events that a driver may lack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptionalKinds {
    /// [`DomainEvent::IoError`].
    pub io_errors: bool,
    /// [`DomainEvent::MetadataChanged`].
    pub metadata: bool,
    /// [`DomainEvent::JobCompleted`].
    pub jobs: bool,
    /// [`DomainEvent::MemoryChanged`] and [`DomainEvent::Reset`].
    pub memory: bool,
}
