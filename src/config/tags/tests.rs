use super::*;
use crate::config::Settings;
use crate::config::file::File;

fn read(text: &str) -> Result<Settings, String> {
    let document = Document {
        path: "f".into(),
        text: text.to_owned(),
    };
    let settings = File::parse(&document).and_then(|file| Settings::from_file(file, &document));
    settings
        .map(|(settings, _)| settings)
        .map_err(|error| error.to_string())
}

/// What is wrong with this value.
fn wrong(value: &str) -> String {
    let error = read(&format!("[tags]\na = {value}\n")).unwrap_err();
    error
        .strip_prefix("f:2:5: tags.a: ")
        .unwrap_or(&error)
        .to_owned()
}

#[test]
fn a_wrong_value_is_answered_with_the_remedy() {
    for (value, message) in [
        ("'openstak:project'", "did you mean \"openstack:project\"?"),
        ("'openstack:projekt'", "did you mean \"openstack:project\"?"),
        (
            "'openstack:tenant'",
            "use one of openstack:name, openstack:flavor",
        ),
        ("'ovirt:owner'", "ovirt:custom/NAME"),
        ("'titel'", "did you mean \"title\"?"),
        (
            "'zzz'",
            "write one of those that are ready (title, description",
        ),
        ("''", "the value is empty"),
        (
            "3",
            "found 3, expected a text such as \"openstack:project\"",
        ),
        ("['title']", "found a list, expected"),
        ("{ b = 'title' }", "found a table, expected"),
        ("'{http://e/ns'", "the brace is not closed"),
        ("'{}vm'", "the namespace is empty"),
        ("'{http://e/ns}'", "a name is missing"),
        ("'{http://e/ns}vm/'", "a name is missing"),
        ("'{http://e/ns}vm//owner'", "a name is missing"),
        ("'{http://e/ns}vm@'", "a name is missing"),
        ("'{http://e/ns}vm/user@id/name'", "\"@id\" must be the end"),
        ("'{http://e/ns}app:vm'", "in place of \"app:\""),
        (
            "'{http://e/ns}vm/text()'",
            "\"text()\" is no name of an element",
        ),
        (
            "'/domain/metadata/{http://e/ns}vm'",
            "leave out \"/domain/metadata/\"",
        ),
        (
            "'nova:instance/owner/project'",
            "write one of those that are ready",
        ),
        ("'metadata/vm'", "write one of those that are ready"),
        ("'ovirt:custom/a b'", "\"a b\" is no name"),
        (
            "'ovirt:custom/a b'",
            "\"ovirt:custom/a b\": \"a b\" is no name",
        ),
        ("'ovirt:custom/'", "\"ovirt:custom/\": a name is missing"),
        (
            "'ovirt:custom/{x}b'",
            "\"ovirt:custom/{x}b\": \"{x}b\" is no name",
        ),
        ("'openstack:{x}b'", "\"openstack:{x}b\" is not known"),
        ("'{urn:x:y}a b'", "\"{urn:x:y}a b\": \"a b\" is no name"),
        (
            "'{http://e:80/ns}a b/c@id'",
            "\"{http://e:80/ns}a b/c@id\": \"a b\"",
        ),
    ] {
        let found = wrong(value);
        assert!(found.contains(message), "{value}: {found}");
    }
}

#[test]
fn a_wrong_value_is_shown_and_a_password_is_not() {
    assert!(wrong("'openstack:tenant'").starts_with("\"openstack:tenant\" is not known"));
    for uri in [
        "qemu+ssh://user:secret@host/system",
        "user:secret@host",
        "{http://user:secret@host/ns",
        "{http://user:secret@host/ns}a b",
        "ovirt:custom/a://user:secret@host b",
    ] {
        assert!(!wrong(&format!("'{uri}'")).contains("secret"), "{uri}");
    }
}

#[test]
fn a_wrong_name_is_answered_with_the_remedy() {
    for (name, message) in [
        ("VMID", "the name VMID is taken"),
        ("vmid", "the name VMID is taken"),
        ("host", "choose another one, such as \"vm_host\""),
        ("type", "is taken"),
        // Of vm_stats.
        ("group", "the name group is taken"),
        ("index", "the name index is taken"),
        ("iothread", "the name iothread is taken"),
        ("state", "state is the name of a field"),
        ("State", "state is the name of a field"),
        ("\"\"", "cannot be the name of a tag"),
        ("\"a b\"", "cannot be the name of a tag"),
        ("\"größe\"", "cannot be the name of a tag"),
        ("_measurement", "cannot be the name of a tag"),
        ("log_level", "log_level stands below [tags]"),
        ("workers", "move it above the line \"[tags]\""),
        (&"a".repeat(65), "is longer than 64 characters"),
    ] {
        let error = read(&format!("[tags]\n{name} = 'title'\n")).unwrap_err();
        assert!(error.starts_with("f:2:1: "), "{error}");
        assert!(error.contains(message), "{name}: {error}");
    }
    let error = read("[tags]\ntitle = 'description'").unwrap_err();
    assert!(error.contains("choose another name"), "{error}");
    let error = read("[tags]\nTitle = 'description'").unwrap_err();
    assert!(error.contains("title"), "{error}");
    let error = read("[tags]\nowner = 'title'\nOwner = 'description'").unwrap_err();
    assert!(error.contains("Owner and owner"), "{error}");
    let many: String = (0..33).map(|n| format!("t{n:02} = 'title'\n")).collect();
    let error = read(&format!("[tags]\n{many}")).unwrap_err();
    assert_eq!(error, "f:34:1: [tags]: there are 33, 32 are allowed");
    let error = read("tags = 'title'").unwrap_err();
    assert!(
        error.contains("expected a table: a line \"[tags]\""),
        "{error}"
    );
    let error = read("[tag]\na = 'title'").unwrap_err();
    assert!(error.contains("did you mean \"tags\"?"), "{error}");
    let error = read("[tags]\na = 'title'\na = 'title'").unwrap_err();
    assert!(error.contains("key \"a\" is given twice"), "{error}");
}

/// A number that follows [tags] is answered as a text is, not by its type.
#[test]
fn a_key_of_any_type_below_the_table_is_known() {
    let error = read("[tags]\na = 'title'\n\nworkers = 4\n").unwrap_err();
    assert!(
        error.starts_with("f:4:1: workers stands below [tags]"),
        "{error}"
    );
}

#[test]
fn tags_come_in_the_order_of_their_names() {
    let settings =
        read("[tags]\nb = 'title'\na = 'openstack:project'\n\"c.d-e\" = '{u}v'").unwrap();
    let names: Vec<&str> = settings.tags.iter().map(|wanted| &*wanted.tag).collect();
    assert_eq!(names, ["a", "b", "c.d-e"]);
}
