//! Lines of the plugin's log appear in Telegraf's log, with the same level.

use super::node;
use crate::agent::{Config, Telegraf};
use rustix::process::Signal;

#[test]
fn warnings_recovery_and_debug_keep_their_levels() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.xml");
    let uri = format!("test://{}", file.display());
    std::fs::write(&file, "<no_node/>").unwrap();
    let settings = dir.path().join("plugin.toml");
    std::fs::write(&settings, "log_level = \"debug\"\n").unwrap();
    let mut config = Config::new(&["--uri", &uri, "--config", settings.to_str().unwrap()]);
    config.interval = "200ms";
    config.debug = true;
    let telegraf = Telegraf::start(dir.path(), &config);
    // A repeated error is logged at the debug level.
    telegraf.wait_for_log("(seen 3 times)");
    node::write(&file, &node::plain(2, 1, 1));
    telegraf.gathers(2);
    telegraf.wait_for_log("answers again");

    let log = telegraf.plugin_log();
    let of_level = |wanted| -> Vec<&String> {
        let lines = log.iter().filter(|(level, _)| *level == wanted);
        lines.map(|(_, message)| message).collect()
    };
    let warnings = of_level('W');
    assert_eq!(warnings.len(), 1, "{log:#?}");
    assert!(
        warnings[0].starts_with(&format!("cannot reach libvirt at {uri}")),
        "{log:#?}"
    );
    let infos = of_level('I');
    assert_eq!(infos.len(), 1, "{log:#?}");
    assert!(
        infos[0].starts_with("libvirt answers again, after "),
        "{log:#?}"
    );
    let debugs = of_level('D');
    assert!(
        debugs
            .iter()
            .any(|line| line.contains("cannot reach") && line.ends_with("(seen 2 times)"))
    );
    assert!(
        debugs.iter().any(|line| line.starts_with("2 VMs in ")),
        "{log:#?}"
    );
    assert_eq!(of_level('E'), [] as [&String; 0], "{log:#?}");
}

#[test]
fn a_wrong_configuration_is_an_error_in_telegrafs_log() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("plugin.toml");
    std::fs::write(&settings, "\nworker = 4\n").unwrap();
    let config = Config::new(&["--config", settings.to_str().unwrap()]);
    let telegraf = Telegraf::start(dir.path(), &config);
    telegraf.wait_for_log("exit status 2");
    let (level, message) = telegraf.plugin_log().swap_remove(0);
    assert_eq!(level, 'E');
    // The log has the message itself, with the position, and not Telegraf's quotation of a line without a
    // level.
    assert!(
        message.contains(&format!("{}:2:", settings.display())),
        "{message}"
    );
    assert!(!message.starts_with("stderr:"), "{message}");
}

#[test]
fn while_all_is_well_the_plugin_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let uri = node::write(&dir.path().join("node.xml"), &node::plain(10, 2, 2));
    let mut config = Config::new(&["--uri", &uri]);
    config.interval = "200ms";
    config.debug = true;
    let mut telegraf = Telegraf::start(dir.path(), &config);
    telegraf.gathers(10);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    assert_eq!(telegraf.plugin_log(), []);
    // But what it gathers from, once.
    let start = "I! [inputs.execd] libvirt ";
    let log = telegraf.log();
    let starts: Vec<&str> = log.lines().filter(|line| line.contains(start)).collect();
    assert!(
        matches!(starts[..], [line] if line.ends_with(&format!(" at {uri} (from --uri): 10 active VMs"))),
        "{starts:?}"
    );
}
