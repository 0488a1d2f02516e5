//! The keys that bulk statistics have of a domain that is shut off: they come from its definition.

use super::{Value, choice, count};

/// What bulk statistics tell of a shut-off domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Defined {
    /// The state (virDomainState).
    pub state: Option<i32>,
    /// The reason for it.
    pub reason: Option<i32>,
    /// The memory that it can have, KiB.
    pub memory: Option<u64>,
    /// The vCPUs that it starts with.
    pub vcpus: Option<u64>,
}

impl Defined {
    /// Reads the parameters of a record.
    pub fn of<'a, K: AsRef<[u8]>>(params: impl Iterator<Item = (K, Value<'a>)>) -> Self {
        let mut defined = Self::default();
        for (key, value) in params {
            match key.as_ref() {
                b"state.state" => defined.state = choice(value),
                b"state.reason" => defined.reason = choice(value),
                b"balloon.maximum" => defined.memory = count(value),
                b"vcpu.current" => defined.vcpus = count(value),
                _ => {}
            }
        }
        defined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libvirt_9_says_of_a_vm_that_is_off() {
        let keys = [
            ("state.state", 5),
            ("state.reason", 1),
            ("balloon.current", 16384),
            ("balloon.maximum", 32768),
            ("vcpu.current", 2),
            ("vcpu.maximum", 4),
        ];
        let params = keys.map(|(key, number)| (key, Value::Integer(number)));
        let expected = Defined {
            state: Some(5),
            reason: Some(1),
            memory: Some(32768),
            vcpus: Some(2),
        };
        assert_eq!(Defined::of(params.into_iter()), expected);
    }
}
