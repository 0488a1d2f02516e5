//! A request on its way to a worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gather::protocol::WorkerRequest;

/// A request on its way to a worker that may still be opening its connection. The worker takes it
/// once it is connected; until then the pool can take it back.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Option<WorkerRequest>>>);

impl Slot {
    pub(super) fn new(request: WorkerRequest) -> Self {
        Self(Arc::new(Mutex::new(Some(request))))
    }

    /// The request, unless it was taken before.
    pub fn take(&self) -> Option<WorkerRequest> {
        self.request().take()
    }

    pub(super) fn is_taken(&self) -> bool {
        self.request().is_none()
    }

    fn request(&self) -> MutexGuard<'_, Option<WorkerRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
