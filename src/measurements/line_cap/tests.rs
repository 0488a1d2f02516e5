use super::*;

const WANTED: Measurements = Measurements {
    metrics: true,
    features: true,
    devices: true,
    totals: true,
    collector: true,
    info: true,
    vcpus: true,
    pressure: true,
    stats: false,
    jobs: true,
    pools: true,
    host: true,
};

/// A gather of so many lines of each kind, mixed, with the names of other kinds in them.
fn gather(metrics: usize, info: usize, vcpus: usize, devices: usize) -> String {
    let mut buffer = String::new();
    for n in 0..metrics.max(info).max(vcpus).max(devices) {
        for (kind, lines) in [
            ("vm_metrics", metrics),
            ("vm_devices", devices),
            ("vm_vcpus", vcpus),
            ("vm_info", info),
        ] {
            if n < lines {
                buffer += &format!("{kind},name=vm_devices,n={n} a=\"vm_info, \" 7\n");
            }
        }
    }
    buffer
}

/// What is left out of this gather, and how many lines are left. No kind is left in part.
fn left_out(cap: &mut LineCap, gathered: &str) -> (Vec<&'static str>, usize) {
    let mut buffer = gathered.to_owned();
    let capped = cap.apply(&mut buffer, &WANTED, true);
    let is_kept = |line: &&str| {
        let kind = line.split_once(',').unwrap().0;
        !capped.kinds_left_out.contains(&kind)
    };
    let kept: Vec<&str> = gathered.lines().filter(is_kept).collect();
    assert_eq!(buffer.lines().collect::<Vec<_>>(), kept);
    let left = kept.len() + 1;
    assert_eq!(
        (capped.lines, capped.lines_dropped),
        (gathered.lines().count() + 1, capped.lines - left)
    );
    (capped.kinds_left_out, left)
}

#[test]
fn kinds_are_left_out_as_a_whole_and_in_order_until_the_rest_fits() {
    let lines = gather(10, 20, 30, 40);
    for (max, kinds, left) in [
        (1000, &[][..], 101),
        (101, &[], 101),
        (100, &["vm_info"], 81),
        (81, &["vm_info"], 81),
        (80, &["vm_info", "vm_vcpus"], 51),
        (
            50,
            &["vm_info", "vm_vcpus", "vm_pressure", "vm_devices"],
            11,
        ),
        (
            11,
            &["vm_info", "vm_vcpus", "vm_pressure", "vm_devices"],
            11,
        ),
        (1, &["vm_info", "vm_vcpus", "vm_pressure", "vm_devices"], 11),
    ] {
        let mut cap = LineCap::new(max);
        assert_eq!(left_out(&mut cap, &lines), (kinds.to_vec(), left), "{max}");
    }
}

#[test]
fn a_kind_without_lines_is_not_what_is_left_out_first() {
    let lines = gather(10, 0, 0, 40);
    let counts = LineCounts::of(&lines);
    assert_eq!(counts.step(50), 0);
    assert_eq!(counts.step(49), KINDS.len());
    assert_eq!(counts.step(9), KINDS.len() + 1);
    let devices = Measurements {
        info: false,
        vcpus: false,
        pressure: false,
        ..WANTED
    };
    assert_eq!(counts.capped(49, &devices).kinds_left_out, ["vm_devices"]);
}

#[test]
fn a_kind_returns_when_it_has_fitted_often_enough() {
    let mut cap = LineCap::new(50);
    let (large, fits) = (gather(10, 20, 0, 39), gather(10, 0, 0, 39));
    assert_eq!(left_out(&mut cap, &fits).0, [""; 0]);
    assert_eq!(left_out(&mut cap, &large).0, ["vm_info"]);
    for _ in 1..RETURNS_AFTER {
        assert_eq!(left_out(&mut cap, &fits).0, ["vm_info"]);
    }
    assert_eq!(left_out(&mut cap, &large).0, ["vm_info"], "from the start");
    for _ in 1..RETURNS_AFTER {
        assert_eq!(left_out(&mut cap, &fits).0, ["vm_info"]);
    }
    // A gather without libvirt is none in which it fits.
    cap.apply(&mut String::new(), &WANTED, false);
    assert_eq!(cap.step, 1);
    assert_eq!(left_out(&mut cap, &fits).0, [""; 0]);
    assert_eq!(left_out(&mut cap, &fits).0, [""; 0]);
}

#[test]
fn only_what_has_fitted_all_the_time_returns() {
    let mut cap = LineCap::new(50);
    let all = ["vm_info", "vm_vcpus", "vm_pressure", "vm_devices"];
    assert_eq!(left_out(&mut cap, &gather(51, 1, 1, 1)).0, all);
    for n in 1..RETURNS_AFTER {
        let info = if n == 5 { 20 } else { 0 };
        assert_eq!(left_out(&mut cap, &gather(10, info, 0, 39)).0, all);
    }
    assert_eq!(left_out(&mut cap, &gather(10, 0, 0, 39)).0, ["vm_info"]);
}

#[test]
fn the_message_has_the_lines_and_the_kinds() {
    let counts = LineCounts::of(&gather(10, 20, 30, 40));
    for (max, wanted, message) in [
        (
            80,
            WANTED,
            "100 lines a gather, and max_lines is 80; left out: vm_info",
        ),
        (
            9,
            WANTED,
            "100 lines a gather, and max_lines is 9; left out: vm_info, vm_vcpus, vm_pressure, vm_devices; the other 10 are \
             written all the same",
        ),
    ] {
        assert_eq!(counts.capped(max, &wanted).message(), message);
    }
    let metrics = Measurements {
        info: false,
        vcpus: false,
        pressure: false,
        devices: false,
        ..WANTED
    };
    assert_eq!(
        LineCounts::of(&gather(10, 0, 0, 0))
            .capped(9, &metrics)
            .message(),
        "10 lines a gather, and max_lines is 9; none of the configured measurements can be left out; the other 10 \
         are written all the same"
    );
}
