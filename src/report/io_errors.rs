//! The warning about the first I/O error of a disk.

use crate::vms::FirstIoError;

/// Logs one warning for each disk that has had its first I/O error in this run of its VM.
pub(super) fn report(errors: &[FirstIoError]) {
    for error in errors {
        log::warn!("{}", message(error));
    }
}

fn message(error: &FirstIoError) -> String {
    let name = &error.domain.name;
    let uuid = error.domain.run.uuid;
    let disk = &error.disk;
    // QEMU tells the reason only where the error stops the VM.
    let reason = match &*error.reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let further = match error.is_written {
        true => "only counted, in io_error_events",
        false => "not reported",
    };
    format!(
        "VM {name} ({uuid}): disk {disk} has an I/O error{reason}; see whether its storage is full or fails; \
         further errors of this disk are {further}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::testing::run;
    use crate::vms::DomainRef;

    #[test]
    fn it_names_the_vm_the_disk_and_the_reason() {
        let mut error = FirstIoError {
            domain: DomainRef {
                run: run(1),
                name: "web".into(),
            },
            disk: "vda".into(),
            reason: "enospc".into(),
            is_written: true,
        };
        let said = message(&error);
        assert!(said.starts_with("VM web (6695eb01-"), "{said}");
        assert!(
            said.contains("disk vda has an I/O error (enospc)"),
            "{said}"
        );
        error.reason = "".into();
        assert!(message(&error).contains("disk vda has an I/O error; "));
        assert!(message(&error).ends_with("only counted, in io_error_events"));
        error.is_written = false;
        assert!(message(&error).ends_with("further errors of this disk are not reported"));
    }
}
