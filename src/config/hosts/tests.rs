use super::*;
use crate::config::file::File;
use crate::times::DEADLINE;

fn read(text: &str) -> Result<Vec<Settings>, String> {
    let document = Document {
        path: "f".into(),
        text: text.to_owned(),
    };
    let read = File::parse(&document).and_then(|file| Settings::from_file(file, &document));
    read.map(|(_, hosts)| hosts)
        .map_err(|error| error.to_string())
}

/// Name, URI and seconds of the deadline of each.
fn told(text: &str) -> Vec<(String, String, u64)> {
    let told = |settings: Settings| {
        let (name, uri) = (settings.host.unwrap(), settings.uri.value);
        (name, uri, settings.deadline.as_secs())
    };
    read(text).unwrap().into_iter().map(told).collect()
}

#[test]
fn each_has_its_uri_name_and_deadline_and_the_rest_is_common() {
    let text = "workers = 2\n[tags]\nowner = 'title'\n\
                [[host]]\nuri = 'qemu+tls://kvm01.example.org/system'\n\
                [[host]]\nname = 'b'\ndeadline = '3s'\nuri = 'qemu+ssh://root@kvm02/system?no_tty=1'\n";
    let default = DEADLINE.as_secs();
    let expected = [
        (
            "kvm01.example.org",
            "qemu+tls://kvm01.example.org/system",
            default,
        ),
        ("b", "qemu+ssh://root@kvm02/system?no_tty=1", 3),
    ];
    let expected = expected.map(|(name, uri, s)| (name.to_owned(), uri.to_owned(), s));
    assert_eq!(told(text), expected);
    for settings in read(text).unwrap() {
        assert_eq!((settings.workers, settings.tags.len()), (2, 1));
        assert!(settings.uri.to_string().ends_with("(from f)"));
    }
    let common = format!("deadline = '5s'\n{text}");
    let deadlines: Vec<u64> = told(&common).into_iter().map(|it| it.2).collect();
    assert_eq!(deadlines, [5, 3]);
}

#[test]
fn one_of_this_machine_has_its_name() {
    let machine = this_machine().unwrap();
    for uri in [
        "qemu:///system",
        "qemu+unix:///system?socket=/run/x",
        "test:///default",
    ] {
        assert_eq!(told(&format!("[[host]]\nuri = '{uri}'"))[0].0, machine);
    }
    // A URI with an empty host name, and a machine of that name.
    let twice = "[[host]]\nuri = 'qemu:///system'\n[[host]]\nuri = 'qemu:///session'\n";
    let error = read(twice).unwrap_err();
    assert!(
        error.starts_with(&format!("f:3:1: [[host]]: two have the name {machine:?}")),
        "{error}"
    );
}

#[test]
fn without_tables_there_are_none() {
    assert_eq!(read("uri = 'test:///default'"), Ok(vec![]));
}

#[test]
fn a_password_is_in_no_message() {
    for table in [
        "uri = 'qemu+ssh://user:secret@kvm01/system'\n[[host]]\nuri = 'qemu+ssh://user:secret@kvm01/system'",
        "uri = 'a:///'\nname = 'qemu+ssh://user:secret@kvm01/\tsystem'",
        "uri = 'a:///'\ndeadline = 'qemu+ssh://user:secret@kvm01/system'",
        "'qemu+ssh://user:secret@kvm01/system' = 'a'",
    ] {
        let error = read(&format!("[[host]]\n{table}")).unwrap_err();
        assert!(
            error.contains("user:***@kvm01") && !error.contains("secret"),
            "{error}"
        );
    }
}
