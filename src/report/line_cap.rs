//! Which kinds of lines `max_lines` leaves out: once when that changes.

use log::Level;

use super::Reporter;
use crate::measurements::line_cap::{Capped, REMEDY};

impl Reporter {
    /// Logs it when a gather leaves out more or less than the one before.
    pub fn line_cap(&mut self, capped: &Capped) {
        if let Some((level, message)) = self.on_line_cap(capped) {
            log::log!(level, "{message}");
        }
    }

    fn on_line_cap(&mut self, capped: &Capped) -> Option<(Level, String)> {
        let before = std::mem::replace(&mut self.line_cap_step, capped.step());
        let told = match capped.step() {
            step if step == before => return None,
            0 => (
                Level::Info,
                format!(
                    "max_lines = {} leaves nothing out any more",
                    capped.max_lines
                ),
            ),
            step if step < before => (
                Level::Info,
                format!("less is left out than before: {}", capped.message()),
            ),
            _ => (Level::Warn, format!("{}; {REMEDY}", capped.message())),
        };
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::measurements::line_cap::LineCap;
    use crate::report::tests::reporter;

    #[test]
    fn a_change_is_told_once_and_what_lasts_is_not() {
        let mut wanted = Settings::default().measurements;
        (wanted.info, wanted.collector) = (true, false);
        let (devices, info) = ("vm_devices,n=1 a=1i 7\n", "vm_info,n=1 a=1i 7\n");
        let mut reporter = reporter();
        // So many gathers of these lines; what is told, and in which of them.
        let mut cap = LineCap::new(1);
        let mut gathers = |lines: &[&str], times: usize| {
            let mut told = Vec::new();
            for n in 1..=times {
                let capped = cap.apply(&mut lines.concat(), &wanted, true);
                told.extend(reporter.on_line_cap(&capped).map(|it| (n, it.0, it.1)));
            }
            told
        };
        let nothing = Vec::<(usize, Level, String)>::new();
        let told = |n, level, message: &str| vec![(n, level, message.to_owned())];
        let info_out = "2 lines a gather, and max_lines is 1; left out: vm_info";
        let both_out = "2 lines a gather, and max_lines is 1; left out: vm_info, vm_devices";
        assert_eq!(gathers(&[devices], 3), nothing);
        let warning = format!("{info_out}; {REMEDY}");
        assert_eq!(gathers(&[info, devices], 3), told(1, Level::Warn, &warning));
        let warning = format!("{both_out}; {REMEDY}");
        assert_eq!(
            gathers(&[devices, devices], 3),
            told(1, Level::Warn, &warning)
        );
        let less = format!("less is left out than before: {info_out}");
        assert_eq!(gathers(&[info, devices], 40), told(30, Level::Info, &less));
        let end = "max_lines = 1 leaves nothing out any more";
        assert_eq!(gathers(&[devices], 40), told(30, Level::Info, end));
    }
}
