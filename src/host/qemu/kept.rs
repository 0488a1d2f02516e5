//! Files that stay open for each VM from one gather to the next.

use uuid::Uuid;

use crate::maps::HashMap;

/// What is kept open of the VMs that were read last.
#[derive(Debug)]
pub(super) struct Kept<T>(HashMap<Uuid, (u32, T)>);

impl<T> Kept<T> {
    /// Nothing is open yet.
    pub(super) fn new() -> Self {
        Self(HashMap::default())
    }

    /// Of how many VMs something is open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Opens and reads what belongs to each of `vms`, given with the number of its QEMU process, and closes what
    /// belongs to others. At most `most` VMs keep theirs open. A VM of which nothing can be opened or read is missing from
    /// the result.
    pub(super) fn read<V, R>(
        &mut self,
        vms: impl IntoIterator<Item = (Uuid, u32, V)>,
        most: usize,
        open: impl Fn(u32) -> Option<T>,
        read: impl Fn(&T, V) -> Option<R>,
    ) -> HashMap<Uuid, R> {
        let mut before = std::mem::take(&mut self.0);
        let mut all = HashMap::default();
        for (uuid, process, vm) in vms {
            let known = before.remove(&uuid).filter(|(of, _)| *of == process);
            // A QEMU that has just started is not in its group yet, so an attempt that failed is repeated.
            let Some(kept) = known.map(|(_, kept)| kept).or_else(|| open(process)) else {
                continue;
            };
            // What belongs to a group that was removed can no longer be read, and is opened anew next time.
            if let Some(figures) = read(&kept, vm) {
                all.insert(uuid, figures);
                if self.0.len() < most {
                    self.0.insert(uuid, (process, kept));
                }
            }
        }
        all
    }
}
