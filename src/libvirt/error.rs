//! Errors of libvirt, and what an operator can do about them.

use std::fmt;

use virt::sys;

/// One libvirt error (`virGetLastError`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// libvirt's message.
    pub message: String,
}

impl Error {
    /// An error that this program found itself, such as a NUL in a name.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: sys::VIR_ERR_INVALID_ARG,
            domain: 0,
            message: message.into(),
        }
    }

    /// Whether the domain has stopped or is stopping, which is not a problem.
    pub fn is_vanished(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_NO_DOMAIN | sys::VIR_ERR_OPERATION_INVALID
        )
    }

    /// Whether there is no such storage pool any more.
    pub fn is_no_pool(&self) -> bool {
        self.code == sys::VIR_ERR_NO_STORAGE_POOL
    }

    /// Whether the driver does not have this call.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_NO_SUPPORT
                | sys::VIR_ERR_CONFIG_UNSUPPORTED
                | sys::VIR_ERR_OPERATION_UNSUPPORTED
                | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
        )
    }

    /// Whether the driver may have refused a flag (vz and test refuse NOWAIT with one of these errors).
    pub fn is_refused_flag(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_INVALID_ARG | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
        )
    }

    /// Whether the connection was lost. Such an error is a `VIR_ERR_INTERNAL_ERROR` of the RPC domain, so the code
    /// alone does not show it. `VIR_ERR_RPC` is no lost connection: with it the daemon says that the protocol
    /// cannot carry one reply (a description of more than 4 MiB).
    pub fn is_transport(&self) -> bool {
        matches!(self.domain, sys::VIR_FROM_RPC | sys::VIR_FROM_REMOTE)
            && !matches!(self.code, sys::VIR_ERR_NO_SUPPORT | sys::VIR_ERR_RPC)
    }

    /// What an operator can do if a connection to `uri` cannot be opened.
    pub fn remedy(&self, uri: &str) -> &'static str {
        let text = self.message.as_str();
        let (scheme, rest) = uri.split_once("://").unwrap_or((uri, ""));
        if scheme == "test" {
            "the test driver reads its node from the file that the URI names: check its path and content"
        } else if self.is_unsupported() || text.contains("no connection driver") {
            "this libvirt has no driver for that URI: check the URI and the installed \
             libvirt-daemon-driver packages"
        } else if text.contains("system bus connection") {
            "the daemon asks polkit, which needs a system bus: start dbus and polkit on its host, or \
             set auth_unix_ro = \"none\" (for the read-only socket) in libvirtd.conf (virtqemud.conf \
             with modular daemons)"
        } else if !rest.is_empty() && !rest.starts_with('/') {
            "check that the host can be reached and lets the user of this program in, with: virsh -r -c URI list"
        } else if text.contains("Permission denied") || text.contains("authentication") {
            "by default every user may use the read-only socket: check unix_sock_ro_perms and \
             auth_unix_ro in libvirtd.conf (virtqemud.conf with modular daemons)"
        } else if text.contains("No such file") || text.contains("Connection refused") {
            "the daemon is not running; start it with: systemctl start libvirtd.socket (virtqemud.socket with \
             modular daemons)"
        } else {
            "check with: virsh -r -c URI list"
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::Connection;
    use crate::libvirt::testing::initialize;

    const LOCAL: &str = "qemu:///system";

    fn error(code: u32, domain: u32, message: &str) -> Error {
        Error {
            code,
            domain,
            message: message.to_owned(),
        }
    }

    /// The error of libvirt itself for this socket.
    fn opened(socket: &std::path::Path) -> Error {
        initialize();
        let uri = format!("test+unix:///default?socket={}", socket.display());
        Connection::open(&uri).unwrap_err()
    }

    #[test]
    fn a_missing_socket_and_one_that_nobody_serves_say_that_the_daemon_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let missing = opened(&socket);
        assert!(missing.message.contains("No such file"), "{missing}");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let refused = opened(&socket);
        assert!(refused.message.contains("Connection refused"), "{refused}");
        for error in [missing, refused] {
            let remedy = error.remedy(LOCAL);
            assert!(
                remedy.starts_with("the daemon is not running; start it with: systemctl start")
            );
            assert!(remedy.contains("virtqemud.socket"), "modular daemons");
        }
    }

    #[test]
    fn a_closed_socket_and_a_refused_login_name_the_settings_of_the_daemon() {
        for message in [
            "Failed to connect socket to '/run/libvirt/libvirt-sock-ro': Permission denied",
            "authentication unavailable: no polkit agent available",
            "authentication failed: access denied by policy",
        ] {
            let remedy = error(sys::VIR_ERR_SYSTEM_ERROR, sys::VIR_FROM_RPC, message).remedy(LOCAL);
            assert!(remedy.contains("unix_sock_ro_perms"), "{message}: {remedy}");
            assert!(remedy.contains("auth_unix_ro"), "{message}: {remedy}");
        }
    }

    #[test]
    fn a_daemon_without_a_system_bus_is_running() {
        let message =
            "internal error: Unable to get system bus connection: Could not connect: No such file";
        let remedy = error(sys::VIR_ERR_INTERNAL_ERROR, 0, message).remedy(LOCAL);
        assert!(remedy.contains("auth_unix_ro = \"none\""), "{remedy}");
        assert!(!remedy.contains("not running"), "{remedy}");
    }

    #[test]
    fn a_uri_without_a_driver_says_so() {
        for (code, message) in [
            (sys::VIR_ERR_NO_SUPPORT, "this function is not supported"),
            (
                sys::VIR_ERR_NO_CONNECT,
                "no connection driver available for nosuch:///",
            ),
        ] {
            let error = error(code, sys::VIR_FROM_NONE, message);
            assert!(
                error.remedy(LOCAL).contains("no driver for that URI"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_unknown_names_the_command_to_look_with() {
        let error = error(sys::VIR_ERR_INTERNAL_ERROR, sys::VIR_FROM_QEMU, "odd");
        assert_eq!(error.remedy(LOCAL), "check with: virsh -r -c URI list");
    }

    #[test]
    fn a_remote_daemon_is_not_sought_on_this_host() {
        for message in [
            "Cannot recv data: Permission denied, please try again.",
            "unable to connect to server at 'kvm01:16509': Connection refused",
        ] {
            let error = error(sys::VIR_ERR_SYSTEM_ERROR, sys::VIR_FROM_RPC, message);
            for uri in ["qemu+ssh://kvm01/system", "qemu+tcp://kvm01/system"] {
                let remedy = error.remedy(uri);
                assert!(
                    remedy.starts_with("check that the host can be reached"),
                    "{remedy}"
                );
            }
            assert!(!error.remedy(LOCAL).contains("the host can be reached"));
        }
    }

    #[test]
    fn the_test_drivers_node_is_a_file_not_a_daemon() {
        initialize();
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("test://{}/none.xml", dir.path().display());
        let error = Connection::open(&uri).unwrap_err();
        assert!(error.message.contains("none.xml"), "{error}");
        assert!(error.remedy(&uri).contains("reads its node from the file"));
    }

    #[test]
    fn errors_are_sorted_by_what_to_do_about_them() {
        let of = |code| error(code, sys::VIR_FROM_QEMU, "");
        for (code, vanished, unsupported, flag) in [
            (sys::VIR_ERR_NO_DOMAIN, true, false, false),
            (sys::VIR_ERR_OPERATION_INVALID, true, false, false),
            (sys::VIR_ERR_NO_SUPPORT, false, true, false),
            (sys::VIR_ERR_INVALID_ARG, false, false, true),
            (sys::VIR_ERR_ARGUMENT_UNSUPPORTED, false, true, true),
            (sys::VIR_ERR_INTERNAL_ERROR, false, false, false),
        ] {
            let error = of(code);
            let found = (
                error.is_vanished(),
                error.is_unsupported(),
                error.is_refused_flag(),
            );
            assert_eq!(found, (vanished, unsupported, flag), "{code}");
            assert!(!error.is_transport());
        }
    }

    #[test]
    fn a_lost_connection_is_told_by_the_part_of_libvirt_that_says_it() {
        for domain in [sys::VIR_FROM_RPC, sys::VIR_FROM_REMOTE] {
            assert!(error(sys::VIR_ERR_INTERNAL_ERROR, domain, "").is_transport());
            // A daemon too old for a call says so by its transport; the connection stands.
            assert!(!error(sys::VIR_ERR_NO_SUPPORT, domain, "").is_transport());
        }
    }
}
