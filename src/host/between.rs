//! Whether a figure of libvirt's is of the counter that we read.

/// Whether each of libvirt's figures lies between our readings of it before and after. Counters only
/// grow, so it does if both read the same one.
pub(crate) fn lie_between<const N: usize>(
    before: &[u64; N],
    libvirt: &[u64; N],
    after: &[u64; N],
) -> bool {
    let mut figures = before.iter().zip(libvirt).zip(after);
    figures.all(|((before, libvirt), after)| before <= libvirt && libvirt <= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_to_lie_between() {
        assert!(lie_between(&[1, 5], &[1, 6], &[1, 6]));
        for outside in [[0, 6], [2, 6], [1, 4], [1, 7]] {
            assert!(!lie_between(&[1, 5], &outside, &[1, 6]), "{outside:?}");
        }
        // The counters were reset in between.
        assert!(!lie_between(&[5], &[3], &[1]));
    }
}
