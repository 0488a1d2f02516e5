use std::ffi::c_char;

use super::*;

/// A parameter of that type; `set` fills the union's member.
fn param(type_: c_uint, set: impl FnOnce(&mut sys::virTypedParameter)) -> sys::virTypedParameter {
    // SAFETY: an all-zero parameter is a valid one.
    let mut param: sys::virTypedParameter = unsafe { std::mem::zeroed() };
    for (to, from) in param.field.iter_mut().zip(b"cpu.time") {
        *to = *from as c_char;
    }
    param.type_ = type_ as _;
    set(&mut param);
    param
}

#[test]
fn a_number_is_the_same_in_every_type_that_libvirt_has() {
    let negative = -7;
    for (param, value) in [
        (
            param(sys::VIR_TYPED_PARAM_INT, |p| p.value.i = negative),
            -7,
        ),
        (
            param(sys::VIR_TYPED_PARAM_UINT, |p| p.value.ui = u32::MAX),
            u32::MAX.into(),
        ),
        (
            param(sys::VIR_TYPED_PARAM_LLONG, |p| p.value.l = i64::MIN),
            i64::MIN.into(),
        ),
        (
            param(sys::VIR_TYPED_PARAM_ULLONG, |p| p.value.ul = u64::MAX),
            u64::MAX.into(),
        ),
        (param(sys::VIR_TYPED_PARAM_BOOLEAN, |p| p.value.b = 1), 1),
    ] {
        // SAFETY: filled in above, by its type.
        let found = unsafe { typed(&param) };
        assert_eq!(found, Some((&b"cpu.time"[..], Value::Integer(value))));
    }
}

#[test]
fn doubles_and_strings_are_told_apart_and_the_unreadable_is_passed_over() {
    let double = param(sys::VIR_TYPED_PARAM_DOUBLE, |p| p.value.d = 1.5);
    let mut name = *b"vn\xc3\xa9t\0";
    let string = param(sys::VIR_TYPED_PARAM_STRING, |p| {
        p.value.s = name.as_mut_ptr().cast()
    });
    let null = param(sys::VIR_TYPED_PARAM_STRING, |_| {});
    let mut latin = *b"\xe9\0";
    let no_utf8 = param(sys::VIR_TYPED_PARAM_STRING, |p| {
        p.value.s = latin.as_mut_ptr().cast()
    });
    let unknown = param(99, |p| p.value.i = 1);
    // SAFETY: filled in above, by their types; the strings live on.
    unsafe {
        assert_eq!(typed(&double), Some((&b"cpu.time"[..], Value::Float(1.5))));
        assert_eq!(
            typed(&string),
            Some((&b"cpu.time"[..], Value::Text("vnét")))
        );
        assert_eq!(typed(&null), None);
        assert_eq!(typed(&no_utf8), None);
        assert_eq!(typed(&unknown), None);
    }
}
