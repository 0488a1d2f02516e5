use super::*;

fn words(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(OsString::from)).map_err(|e| e.to_string())
}

#[test]
fn flags_arrive() {
    assert_eq!(words(""), Ok(Command::Run(Flags::default())));
    let flags = Flags {
        config: Some("a.toml".into()),
        uri: Some("test:///default".into()),
        once: false,
        interval: Some(Duration::from_millis(90_500)),
        json: false,
    };
    assert_eq!(
        words("--config a.toml --uri=test:///default --interval 1m30s500ms"),
        Ok(Command::Run(flags.clone()))
    );
    let once = Flags {
        once: true,
        interval: None,
        ..flags
    };
    assert_eq!(
        words("--once --config a.toml --uri test:///default --check"),
        Ok(Command::Check(once))
    );
    for help in ["-h", "--help", "--once --help"] {
        assert_eq!(words(help), Ok(Command::Help));
    }
    assert_eq!(words("-V"), Ok(Command::Version));
    assert_eq!(words("--sample-config"), Ok(Command::SampleConfig));
}

#[test]
fn wrong_arguments_say_what_would_be_right() {
    for (line, expected) in [
        (
            "--chek",
            r#"unknown flag "--chek"; did you mean "--check"?"#,
        ),
        (
            "-config x",
            r#"unknown flag "-config"; did you mean "--config"?"#,
        ),
        (
            "--sample_config",
            r#"unknown flag "--sample_config"; did you mean "--sample-config"?"#,
        ),
        (
            "-x",
            r#"unknown flag "-x"; "telegraf-kvm --help" lists the flags"#,
        ),
        (
            "once",
            r#"unexpected argument "once"; did you mean "--once"?"#,
        ),
        ("--config", "--config FILE: the value is missing"),
        ("--config=", "--config FILE: the name is empty"),
        ("--uri --once", "--uri URI: the value is missing"),
        (
            "--once=yes",
            r#"--once takes no value, but was given "yes""#,
        ),
        (
            "--once --interval 5s",
            "--once and --interval exclude each other: leave one of them out",
        ),
        (
            "--interval 10",
            r#"--interval: "10" has no unit; write "10s" for seconds"#,
        ),
        (
            "--interval 0",
            r#"--interval: "0" is out of range; from 100ms to 1day is allowed"#,
        ),
        (
            "--interval 0s",
            r#"--interval: "0s" is out of range; from 100ms to 1day is allowed"#,
        ),
        (
            "--interval 2days",
            r#"--interval: "2days" is out of range; from 100ms to 1day is allowed"#,
        ),
        (
            "--interval soon",
            r#"--interval: "soon" is not a duration; write for example "8s", "500ms" or "1m30s""#,
        ),
    ] {
        assert_eq!(words(line), Err(expected.to_owned()), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error_in_a_uri_only() {
    use std::os::unix::ffi::OsStringExt;
    let raw = OsString::from_vec(b"a\xff".to_vec());
    let config = parse(["--config".into(), raw.clone()]).unwrap();
    assert_eq!(
        config,
        Command::Run(Flags {
            config: Some(raw.clone().into()),
            ..Flags::default()
        })
    );
    let uri = |raw| parse(["--uri".into(), raw]).unwrap_err().to_string();
    let secret = OsString::from_vec(b"a://user:sec ret\xff@host".to_vec());
    let secret = uri(secret);
    assert_eq!(
        secret,
        r#"--uri URI: "a://user:***@host" is not valid UTF-8"#
    );
    let uri = uri(raw);
    assert_eq!(uri, r#"--uri URI: "a\xFF" is not valid UTF-8"#);
}

#[test]
fn help_names_every_flag() {
    for flag in FLAGS {
        assert!(HELP.contains(flag), "{flag}");
    }
}
