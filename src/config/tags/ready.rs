//! The values that are ready by name: libvirt's own, and what platforms write into the XML of their VMs.

use super::path;
use crate::description::{NamePart, Place, Step};
use crate::wording::{nearest, shortened};

/// Some of the names, for messages.
pub(super) const EXAMPLES: &str = "title, description, openstack:project, ovirt:cluster_version, kubevirt:namespace, opennebula:user, cloudstack:account_id";

/// A platform, and its values.
struct Platform {
    name: &'static str,
    /// The namespaces of its metadata.
    namespaces: &'static [&'static str],
    values: &'static [(&'static str, Source)],
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A path below `/domain/metadata`; each step has the platform's namespace.
    Metadata(&'static str),
    /// An element of libvirt's own, below `<domain>`.
    Own(&'static str),
    /// A part of the domain's name.
    Name(NamePart),
}
use Source::{Metadata, Name, Own};

/// The key of a platform's values that operators name themselves: `ovirt:custom/NAME`.
const CUSTOM: &str = "custom/";

const PLATFORMS: [Platform; 7] = [
    Platform {
        name: "",
        namespaces: &[],
        values: &[("title", Own("title")), ("description", Own("description"))],
    },
    // LibvirtConfigGuestMetaNovaInstance in nova/virt/libvirt/config.py. The namespace was 1.0 until ports were added
    // in the release Ussuri.
    Platform {
        name: "openstack",
        namespaces: &[
            "http://openstack.org/xmlns/libvirt/nova/1.0",
            "http://openstack.org/xmlns/libvirt/nova/1.1",
        ],
        values: &[
            ("name", Metadata("instance/name")),
            ("flavor", Metadata("instance/flavor@name")),
            ("project", Metadata("instance/owner/project")),
            ("project_id", Metadata("instance/owner/project@uuid")),
            ("user", Metadata("instance/owner/user")),
            ("user_id", Metadata("instance/owner/user@uuid")),
            ("image_id", Metadata("instance/root@uuid")),
            ("created", Metadata("instance/creationTime")),
            ("version", Metadata("instance/package@version")),
        ],
    },
    // LibvirtVmXmlBuilder.writeVmMetadata in ovirt-engine. There is no owner in it; custom properties are the place for
    // one.
    Platform {
        name: "ovirt",
        namespaces: &["http://ovirt.org/vm/1.0"],
        values: &[
            ("cluster_version", Metadata("vm/clusterVersion")),
            ("resume_behavior", Metadata("vm/resumeBehavior")),
        ],
    },
    // Metadata and KubeVirtMetadata in pkg/virt-launcher/virtwrap/api/schema.go of KubeVirt.
    Platform {
        name: "kubevirt",
        namespaces: &["http://kubevirt.io"],
        values: &[
            ("namespace", Name(NamePart::KubevirtNamespace)),
            ("name", Name(NamePart::KubevirtName)),
            ("uid", Metadata("kubevirt/uid")),
        ],
    },
    // deployment_description_kvm in src/vmm/LibVirtDriverKVM.cc of OpenNebula.
    Platform {
        name: "opennebula",
        namespaces: &["http://opennebula.org/xmlns/libvirt/1.0"],
        values: &[
            ("name", Metadata("vm/name")),
            ("user", Metadata("vm/uname")),
            ("user_id", Metadata("vm/uid")),
            ("group", Metadata("vm/gname")),
            ("group_id", Metadata("vm/gid")),
            ("vm_id", Name(NamePart::OpennebulaVm)),
            ("version", Metadata("vm/opennebula_version")),
        ],
    },
    // LibvirtVMDef in CloudStack's KVM plugin. Its metadata has no owner: that is in the domain's name.
    Platform {
        name: "cloudstack",
        namespaces: &[],
        values: &[
            ("account_id", Name(NamePart::CloudstackAccount)),
            ("vm_id", Name(NamePart::CloudstackVm)),
            ("guest_os", Own("description")),
        ],
    },
    // What virt-manager, virt-install and Cockpit write.
    Platform {
        name: "libosinfo",
        namespaces: &["http://libosinfo.org/xmlns/libvirt/domain/1.0"],
        values: &[("os", Metadata("libosinfo/os@id"))],
    },
];

/// Whether the text begins with a platform's name and a colon.
pub(super) fn is_of_platform(text: &str) -> bool {
    let platform = text.split_once(':').map_or("", |(platform, _)| platform);
    !platform.is_empty() && PLATFORMS.iter().any(|known| known.name == platform)
}

/// The place of the value of this name; `None`: the text is not like such a name.
pub(super) fn place(text: &str) -> Option<Result<Place, String>> {
    if text.contains('{') && !is_of_platform(text) {
        return None;
    }
    let (platform, value) = text.split_once(':').unwrap_or(("", text));
    if platform.is_empty() && (value.contains(['/', '@']) || value.trim().is_empty()) {
        return None;
    }
    let found = PLATFORMS.iter().find(|known| known.name == platform);
    let source = found.and_then(|known| {
        let source = known.values.iter().find(|(name, _)| *name == value);
        Some((known, source?.1))
    });
    if let Some((known, source)) = source {
        return Some(known.place(source, text));
    }
    if let Some(name) = value.strip_prefix(CUSTOM).filter(|_| platform == "ovirt") {
        let namespaces = PLATFORMS.iter().find(|known| known.name == "ovirt");
        let namespaces = namespaces.map_or(&[][..], |known| known.namespaces);
        let shown = super::shown(text);
        // The element has the namespace of the others.
        if name.contains(['{', '}'])
            && let Err(error) = path::check_name(&shown, name)
        {
            return Some(Err(error));
        }
        return Some(metadata(&format!("vm/custom/{name}"), &shown, namespaces));
    }
    Some(Err(unknown(text, found)))
}

/// The message for a name that is none.
fn unknown(text: &str, platform: Option<&Platform>) -> String {
    // A text like `user:password` would be shown without its second part, which is the one that is wrong here.
    let shown = match text.split_once(':') {
        Some((platform, value)) if !value.contains([':', '/', '@']) => {
            format!("{}:{}", shortened(platform), shortened(value))
        }
        _ => super::shown(text),
    };
    let of_platform = platform.filter(|platform| !platform.name.is_empty());
    let near = match (of_platform, text.split_once(':')) {
        (Some(platform), Some((_, value))) => {
            let values: Vec<&str> = platform.values.iter().map(|(name, _)| *name).collect();
            nearest(value, &values).map(|near| format!("{}:{near}", platform.name))
        }
        _ => {
            let names: Vec<String> = PLATFORMS.iter().flat_map(Platform::names).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            nearest(text, &names).map(str::to_owned)
        }
    };
    if let Some(near) = near {
        return format!("{shown:?} is not known; did you mean \"{near}\"?");
    }
    match of_platform {
        Some(platform) => {
            let mut names: Vec<String> = platform.names().collect();
            if platform.name == "ovirt" {
                names.push("ovirt:custom/NAME".to_owned());
            }
            format!("{shown:?} is not known; use one of {}", names.join(", "))
        }
        None => format!(
            "{shown:?} is not known; write one of those that are ready ({EXAMPLES}), or namespace and path, such as \"{{http://example.org/ns}}vm/owner\""
        ),
    }
}

impl Platform {
    /// The names of its values as the configuration has them.
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.values.iter().map(|(value, _)| match self.name {
            "" => (*value).to_owned(),
            platform => format!("{platform}:{value}"),
        })
    }

    fn place(&self, source: Source, text: &str) -> Result<Place, String> {
        let own = |name, part| Place {
            steps: vec![Step::of_libvirt(name)],
            attribute: None,
            part,
        };
        match source {
            Metadata(path) => metadata(path, text, self.namespaces),
            Own(name) => Ok(own(name, None)),
            Name(part) => Ok(own("name", Some(part))),
        }
    }
}

/// The place of a path whose steps all have these namespaces. Messages quote `shown`.
fn metadata(path: &str, shown: &str, namespaces: &[&str]) -> Result<Place, String> {
    let (inner, attribute) = path::steps(path, shown, namespaces)?;
    let mut steps = vec![Step::of_libvirt("metadata")];
    steps.extend(inner);
    Ok(Place {
        steps,
        attribute,
        part: None,
    })
}
