use super::*;

#[test]
fn a_password_is_masked_wherever_it_stands() {
    for (uri, shown) in [
        (
            "qemu+ssh://user:secret@host/system",
            "qemu+ssh://user:***@host/system",
        ),
        (
            "qemu+tcp://user:se%40cret@[::1]:16509/system",
            "qemu+tcp://user:***@[::1]:16509/system",
        ),
        (
            "qemu+ssh://user%3Asecret@host/system",
            "qemu+ssh://user:***@host/system",
        ),
        (
            "esx://:secret@host/?no_verify=1",
            "esx://:***@host/?no_verify=1",
        ),
        // The password is not encoded as it should be: libvirt cannot parse these URIs, and its error repeats them.
        (
            "qemu+ssh://user:a@b@host/system",
            "qemu+ssh://user:***@host/system",
        ),
        (
            "qemu+ssh://user:a/b@host/system",
            "qemu+ssh://user:***@host/system",
        ),
        (
            "qemu+ssh://user:a?b#c@host/system",
            "qemu+ssh://user:***@host/system",
        ),
        ("qemu://user:a b@host/system", "qemu://user:***@host/system"),
        ("user:secret@host", "user:***@host"),
        ("qemu+ssh://user:secret", "qemu+ssh://user:***"),
        ("qemu+ssh://user:secret/system", "qemu+ssh://user:***"),
        (
            "qemu+ssh://user:secret%40host/system",
            "qemu+ssh://user:***",
        ),
        ("qemu+ssh:/user:secret@host/x", "qemu+ssh:***@host/x"),
        ("//user:secret@host/x", "//user:***@host/x"),
        ("/user:secret@host/x", "/user:***@host/x"),
        ("qemu:///user:secret@host/x", "qemu:///user:***@host/x"),
        // A host and its port, as libvirt reads these.
        ("qemu+ssh://user:12/se@host/x", "qemu+ssh://user:***@host/x"),
        ("qemu+ssh://user:12?se@host/x", "qemu+ssh://user:***@host/x"),
        ("qemu+ssh://user:12#se@host/x", "qemu+ssh://user:***@host/x"),
        (
            "qemu+ssh://user:a@b/c@host/x?socket=/run/a@b",
            "qemu+ssh://user:***@host/x?socket=/run/a@b",
        ),
        // In the query.
        (
            "esx://host/?proxy=http://u:secret@p:80&x=1",
            "esx://host/?proxy=http://u:***@p:80&x=1",
        ),
        (
            "remote+tls://host/?name=esx%3A%2F%2Fu%3Asecret%40h%2F",
            "remote+tls://host/?name=esx://u:***@h/",
        ),
        ("a://h/?proxy=u:secret@p:80", "a://h/?proxy=u:***@p:80"),
        (
            "a://h/?Pass%77ord=secret;x=y#f",
            "a://h/?Pass%77ord=***;x=y#f",
        ),
    ] {
        let masked = Masked::new(uri);
        assert_eq!(masked.text, shown);
        assert_eq!(masked.mask_in(&format!("<{uri}>")), format!("<{shown}>"));
    }
}

#[test]
fn a_uri_without_a_password_stays_as_it_is() {
    for uri in [
        "qemu:///system",
        "qemu+ssh://user@host:22/system?keyfile=/home/a:b@c/key&socket=/run/x",
        "qemu+ssh://host:22/system?socket=/run/a@b",
        "qemu+tcp://[fe80::1]/system?x=a@b",
        "qemu+unix:///system?socket=/run/a:b@c",
        "qemu+ssh://user:@host/system",
        "qemu+tcp://host:16509?socket=/run/a@b",
        "qemu+ssh://host:/system",
        "test:///tmp/a:b@c.xml",
        "test:/tmp/a:b@c.xml",
        "test:///default?name=qemu%3A%2F%2F%2Fsystem",
        "test:///%zz?a=%zz&&=#x",
        "no uri",
        "",
    ] {
        let masked = Masked::new(uri);
        assert_eq!(masked.text, uri);
        assert_eq!(masked.mask_in(uri), uri);
    }
}

/// The error of ssh is `USER@HOST: Permission denied`, with the user as libvirt has decoded it.
#[test]
fn messages_repeat_no_password() {
    let masked = Masked::new("qemu+ssh://user:se%2Fcret@host/system?x_token=s3same");
    for (said, shown) in [
        (
            "user:se/cret@host: Permission denied",
            "user:***@host: Permission denied",
        ),
        ("no 's3same', se/cret or se%2Fcret", "no '***', *** or ***"),
        ("s3samen, unsecret", "s3samen, unsecret"),
        (
            "unknown flag \"-uri=esx://u:other@h/\"",
            "unknown flag \"-uri=esx://u:***@h/\"",
        ),
        (
            "unknown flag \"-uri=esx://u:oth ...\"",
            "unknown flag \"-uri=esx://u:*** ...\"",
        ),
        (
            "unknown flag \"-uri=esx://h/?password=other\"",
            "unknown flag \"-uri=esx://h/?password=***\"",
        ),
        (
            "b://u:pw@h/?token=other (from --uri)",
            "b://u:***@h/?token=*** (from --uri)",
        ),
        (
            "at a://h/ and b://u:pw@h/: no",
            "at a://h/ and b://u:***@h/: no",
        ),
        ("<test:///tmp/a:b@c.xml>", "<test:///tmp/a:b@c.xml>"),
    ] {
        assert_eq!(masked.mask_in(said), shown);
    }
    // In quotation marks for ssh's shell, and in bytes that are no text.
    let quoted = Masked::new("qemu+ssh://user:a'cret%FF@host/system");
    for said in [
        "-l 'user:a'\\''cret\u{fffd}' host",
        "user:a'cret\u{fffd}@host:",
    ] {
        assert!(!quoted.mask_in(said).contains("cret"), "{said}");
    }
    // One that could be a part of any word.
    let short = Masked::new("qemu+ssh://user:e@host/system");
    assert_eq!(short.mask_in("the user:e@host"), "the user:***@host");
}
