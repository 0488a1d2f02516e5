//! The tags of a VM's devices, escaped once, no two the same.

use smol_str::SmolStr;

use crate::line_protocol::{self, Tags};
use crate::maps::HashSet;
use crate::sample::Devices;

/// The tag `kind`, and `device`, of each of these devices of one VM.
pub fn device_tags<'n>(
    kind: (&'static str, &str),
    names: impl Iterator<Item = &'n SmolStr>,
) -> Vec<Tags> {
    let tags = DeviceTags::of(kind, names).0.into_iter();
    tags.map(|(_, tags)| tags).collect()
}

/// The names and tags of a VM's NICs or of its disks, in the order in which the samples have them.
#[derive(Debug, Default)]
pub(super) struct DeviceTags(Vec<(SmolStr, Tags)>);

impl DeviceTags {
    /// Makes the tags anew where the sample has other devices, or has them in another order.
    pub(super) fn update<const N: usize>(&mut self, devtype: &'static str, devices: &Devices<N>) {
        let names = || devices.list.iter().filter_map(|d| d.name.as_ref());
        if !self.0.iter().map(|(name, _)| name).eq(names()) {
            *self = Self::of(("devtype", devtype), names());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tags> {
        self.0.iter().map(|(_, tags)| tags)
    }

    fn of<'n>((key, kind): (&'static str, &str), names: impl Iterator<Item = &'n SmolStr>) -> Self {
        let new = |name: &SmolStr| {
            let tags = Tags::new().with(key, kind).with("device", name);
            (name.clone(), tags)
        };
        let mut tags = Self(names.map(new).collect());
        tags.number_duplicates();
        tags
    }

    /// Names that differ only in characters which line protocol cannot carry would get the same tag. A
    /// name that it carries unchanged keeps its tag. Of the other names, each whose tag is taken gets
    /// the first of `-2`, `-3` and so on that is free.
    fn number_duplicates(&mut self) {
        let mut taken = HashSet::default();
        let (exact, changed): (Vec<usize>, Vec<usize>) =
            (0..self.0.len()).partition(|&i| line_protocol::is_carried(&self.0[i].0));
        for i in exact.into_iter().chain(changed) {
            let own = self.0[i].1.clone();
            let mut number = 1;
            while !taken.insert(self.0[i].1.as_str().to_owned()) {
                number += 1;
                self.0[i].1 = own.numbered(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::DISK_COUNTERS;
    use crate::sample::testing::{device, devices};

    #[test]
    fn devices_whose_names_become_the_same_are_told_apart() {
        for (names, expected) in [
            (&["a", "b"][..], &["a", "b"][..]),
            (&["a", r"a\"], &["a", "a-2"]),
            (&[r"a\", "a"], &["a-2", "a"]),
            (&[r"a\", r"a\\"], &["a", "a-2"]),
            (&[r"a\", r"a\\", "a-2", "a"], &["a-3", "a-4", "a-2", "a"]),
            (&[r"\", "\\\\"], &["-", "--2"]),
            (&["a b", "a\tb"], &[r"a\ b", r"a\ b-2"]),
            (&["a", "a"], &["a", "a-2"]),
        ] {
            let at = Instant::now();
            let named = |name: &&str| device(name, "disk", [Some(1); DISK_COUNTERS]);
            let mut tags = DeviceTags::default();
            tags.update("disk", &devices(at, names.iter().map(named).collect()));
            let found: Vec<&str> = tags
                .0
                .iter()
                .map(|(_, tags)| tags.as_str())
                .map(|tags| tags.strip_prefix(",devtype=disk,device=").unwrap())
                .collect();
            assert_eq!(found, expected, "{names:?}");
        }
    }
}
