use super::*;

fn tag(value: &str) -> String {
    Tags::new().with("t", value).as_str()[",t=".len()..].to_owned()
}

#[test]
fn tag_values_carry_the_name_as_it_is() {
    for (name, written) in [
        ("test", "test"),
        ("a b", r"a\ b"),
        ("a,b=c", r"a\,b\=c"),
        (" leading and trailing ", r"\ leading\ and\ trailing\ "),
        ("é漢🦀\u{202e}", "é漢🦀\u{202e}"),
        (r#""quoted""#, r#""quoted""#),
        (r"in\side", r"in\side"),
        (r"in\\side", r"in\\side"),
        (r#"back\"quote"#, r#"back\"quote"#),
        ("\u{2028}\u{2029}", "\u{2028}\u{2029}"),
    ] {
        assert_eq!(tag(name), written, "{name:?}");
    }
}

#[test]
fn what_cannot_be_carried_is_changed_as_little_as_possible() {
    for (name, written) in [
        ("", "-"),
        (r"\", "-"),
        (r"\\\", "-"),
        ("a\tb\nc\rd\u{b}e\u{c}f", r"a\ b\ c\ d\ e\ f"),
        ("\u{1}\u{7f}\u{85}\u{9f}", r"\ \ \ \ "),
        (r"end\", "end"),
        (r"end\\", "end"),
        (r"a\,b", r"a\,b"),
        (r"a\\=b", r"a\=b"),
        (r"a\ ", r"a\ "),
        ("a\\\tb", r"a\ b"),
        (r#"b \"q"#, r#"b\ "q"#),
        (r#"odd, name=x "q" \b é\"#, r#"odd\,\ name\=x\ "q"\ \b\ é"#),
    ] {
        assert_eq!(tag(name), written, "{name:?}");
    }
}

#[test]
fn a_name_that_is_carried_as_it_is_is_told_from_one_that_is_not() {
    for name in ["a", "a b", "a,b=c", r"in\side", r#""q""#, "é"] {
        assert!(is_carried(name), "{name:?}");
    }
    for name in ["", r"a\", r"a\,b", "a\tb", r#"b \"q"#, r"a\ b"] {
        assert!(!is_carried(name), "{name:?}");
    }
}

#[test]
fn a_name_of_which_nothing_is_left_falls_back() {
    let name = |name, uuid| Tags::new().with_or("name", name, uuid).as_str().to_owned();
    assert_eq!(name("vm", "6695-eb"), ",name=vm");
    assert_eq!(name(r"\", "6695-eb"), ",name=6695-eb");
    assert_eq!(name("", ""), ",name=-");
}

#[test]
fn a_line_is_measurement_tags_fields_time() {
    let mut buffer = String::new();
    let vm = Tags::new().with("VMID", "1").with("name", "test");
    let device = Tags::new().with("device", "tap,odd=1");
    let mut line = Line::begin_with(&mut buffer, "vm_devices", &vm, &device);
    line.int("rxbytes", Some(5));
    line.int("rxdrops", None);
    line.signed("level", Some(-5));
    line.float("rate", Some(0.1));
    line.string("state", Some("a \"b\" \\ \n c"));
    line.string("empty", Some(""));
    line.string("none", None);
    line.end(17);
    Line::begin(&mut buffer, "vm_totals", &Tags::new()).end(17);
    let mut line = Line::begin(&mut buffer, "vm_totals", &vm);
    line.int("state", Some(1));
    line.end(-1);
    assert_eq!(
        buffer,
        concat!(
            r#"vm_devices,VMID=1,name=test,device=tap\,odd\=1 rxbytes=5i,level=-5i,rate=0.1,"#,
            r#"state="a \"b\" \\   c",empty="" 17"#,
            "\nvm_totals,VMID=1,name=test state=1i -1\n"
        )
    );
}

#[test]
fn numbers_are_clamped_and_never_take_an_exponent() {
    let written = |add: &dyn Fn(&mut Line)| {
        let mut buffer = String::new();
        let mut line = Line::begin(&mut buffer, "m", &Tags::new());
        add(&mut line);
        line.end(0);
        buffer
    };
    assert_eq!(
        written(&|l| l.int("v", Some(u64::MAX))),
        "m v=9223372036854775807i 0\n"
    );
    assert_eq!(
        written(&|l| l.signed("v", Some(i64::MIN))),
        "m v=-9223372036854775808i 0\n"
    );
    assert_eq!(written(&|l| l.float("v", Some(2.0))), "m v=2 0\n");
    assert_eq!(written(&|l| l.float("v", Some(-0.0))), "m v=-0 0\n");
    for x in [
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        1e21,
        1e-7,
    ] {
        let text = written(&|l| l.float("v", Some(x)));
        assert!(!text.contains(['e', 'E']), "{text}");
        let digits = text.trim_start_matches("m v=").trim_end_matches(" 0\n");
        assert_eq!(digits.parse::<f64>().unwrap().to_bits(), x.to_bits());
    }
    for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(written(&|l| l.float("v", Some(x))), "");
    }
}

#[test]
fn a_line_without_a_field_or_an_end_leaves_the_buffer_as_it_was() {
    let mut buffer = String::from("before 1\n");
    let mut line = Line::begin(&mut buffer, "m", &Tags::new());
    line.int("v", None);
    line.float("w", Some(f64::NAN));
    line.end(1);
    assert_eq!(buffer, "before 1\n");
    let mut line = Line::begin(&mut buffer, "m", &Tags::new());
    line.int("v", Some(1));
    drop(line);
    assert_eq!(buffer, "before 1\n");
}
