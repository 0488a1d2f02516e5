//! Where in a domain's XML a wanted value stands.

use quick_xml::events::BytesStart;
use quick_xml::name::{NamespaceResolver, ResolveResult};
use smol_str::SmolStr;

/// A value that the configuration wants, and the name of the tag that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedValue {
    /// The tag's name: ASCII that needs no escape.
    pub tag: SmolStr,
    /// Where the value stands.
    pub place: Place,
}

/// The place of a value: the text of an element, or one of its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path to the element, below `<domain>`.
    pub steps: Vec<Step>,
    /// The attribute, which has no namespace; `None`: the element's own text.
    pub attribute: Option<String>,
    /// The part of the value that is wanted; `None`: all of it.
    pub part: Option<NamePart>,
}

/// One element on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The element's name, without a prefix.
    pub name: String,
    /// Its namespace is one of these. Empty: it has none.
    pub namespaces: Vec<String>,
    /// Whether the element may have no namespace, too: in metadata that was written by hand, the inner elements
    /// often lack the prefix.
    pub or_none: bool,
}

/// What a platform puts into the domain's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePart {
    /// KubeVirt's `NAMESPACE_NAME`: the namespace. (`VMINamespaceKeyFunc` in KubeVirt's `pkg/virt-launcher`; neither
    /// part can have an underscore.)
    KubevirtNamespace,
    /// The name in it.
    KubevirtName,
    /// CloudStack's `i-ACCOUNT-VM-SUFFIX` (`VirtualMachineName.getVmName`): the number of the account.
    CloudstackAccount,
    /// The number of the VM in it.
    CloudstackVm,
    /// OpenNebula's `one-VM`: the number of the VM.
    OpennebulaVm,
}

impl Step {
    /// An element of libvirt's own.
    pub fn of_libvirt(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespaces: Vec::new(),
            or_none: false,
        }
    }

    /// Whether this is the element. Prefixes do not count: each document may choose its own.
    pub(super) fn is(&self, element: &BytesStart, resolver: &NamespaceResolver) -> bool {
        // Resolving looks at each namespace in scope, so it is done only if the name fits.
        element.local_name().into_inner() == self.name
            && match resolver.resolve_element(element.name()).0 {
                ResolveResult::Bound(namespace) => {
                    let namespace = namespace.into_inner();
                    self.namespaces.iter().any(|known| known == namespace)
                }
                ResolveResult::Unbound => self.namespaces.is_empty() || self.or_none,
                ResolveResult::Unknown(_) => false,
            }
    }
}

impl NamePart {
    /// The part of a domain's name; `None`: the name has another form, so the platform did not give it.
    pub(super) fn of(self, name: &str) -> Option<&str> {
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // What may stand in the names of Kubernetes' objects (RFC 1123).
        let is_label = |text: &&str| {
            let allowed =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
            !text.is_empty() && text.bytes().all(allowed)
        };
        let kubevirt = || {
            let (namespace, own) = name.split_once('_')?;
            (is_label(&namespace) && is_label(&own)).then_some((namespace, own))
        };
        let cloudstack = || {
            let (account, rest) = name.strip_prefix("i-")?.split_once('-')?;
            let (vm, suffix) = rest.split_once('-')?;
            (is_number(&account) && is_number(&vm) && !suffix.is_empty()).then_some((account, vm))
        };
        match self {
            Self::KubevirtNamespace => kubevirt().map(|(namespace, _)| namespace),
            Self::KubevirtName => kubevirt().map(|(_, own)| own),
            Self::CloudstackAccount => cloudstack().map(|(account, _)| account),
            Self::CloudstackVm => cloudstack().map(|(_, vm)| vm),
            Self::OpennebulaVm => name.strip_prefix("one-").filter(is_number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_taken_of_the_platforms_names_alone() {
        for (part, name, expected) in [
            (NamePart::KubevirtNamespace, "shop_web-1", Some("shop")),
            (NamePart::KubevirtName, "shop_web-1.a", Some("web-1.a")),
            (NamePart::KubevirtName, "Shop_web", None),
            (NamePart::KubevirtName, "a_b_c", None),
            (NamePart::KubevirtNamespace, "web", None),
            (NamePart::KubevirtNamespace, "_web", None),
            (NamePart::CloudstackAccount, "i-2-27-VM", Some("2")),
            (NamePart::CloudstackVm, "i-2-27-VM", Some("27")),
            (NamePart::CloudstackVm, "i-2-27-my-cloud", Some("27")),
            (NamePart::CloudstackVm, "r-3-VM", None),
            (NamePart::CloudstackVm, "i-2-27", None),
            (NamePart::CloudstackAccount, "i-a-27-VM", None),
            (NamePart::OpennebulaVm, "one-42", Some("42")),
            (NamePart::OpennebulaVm, "one-42b", None),
            (NamePart::OpennebulaVm, "one-", None),
        ] {
            assert_eq!(part.of(name), expected, "{part:?} of {name}");
        }
    }
}
