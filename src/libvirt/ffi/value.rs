//! Typed parameters, as which libvirt returns figures.

use std::ffi::{CStr, c_int, c_uint};

use virt::sys;

/// A value of the statistics. The integer types vary between versions of libvirt, so they are one here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// int, uint, llong, ullong and boolean.
    Integer(i128),
    /// double.
    Float(f64),
    /// string.
    Text(&'a str),
}

/// # Safety
/// libvirt has set `param`.
pub(super) unsafe fn typed(param: &sys::virTypedParameter) -> Option<(&[u8], Value<'_>)> {
    // SAFETY: the caller's promise: `type_` names the union's member, `field` ends in NUL.
    unsafe {
        let key = CStr::from_ptr(param.field.as_ptr()).to_bytes();
        let value = &param.value;
        let value = match param.type_ as c_uint {
            sys::VIR_TYPED_PARAM_INT => Value::Integer(value.i.into()),
            sys::VIR_TYPED_PARAM_UINT => Value::Integer(value.ui.into()),
            sys::VIR_TYPED_PARAM_LLONG => Value::Integer(value.l.into()),
            sys::VIR_TYPED_PARAM_ULLONG => Value::Integer(value.ul.into()),
            sys::VIR_TYPED_PARAM_BOOLEAN => Value::Integer((value.b != 0).into()),
            sys::VIR_TYPED_PARAM_DOUBLE => Value::Float(value.d),
            sys::VIR_TYPED_PARAM_STRING if !value.s.is_null() => {
                Value::Text(CStr::from_ptr(value.s).to_str().ok()?)
            }
            _ => return None,
        };
        Some((key, value))
    }
}

/// Key and value of each of `count` parameters; strings that are not UTF-8 are skipped.
///
/// # Safety
/// `params` is null, or libvirt has set `count` parameters there, which live for `'a`.
pub(super) unsafe fn all_typed<'a>(
    params: sys::virTypedParameterPtr,
    count: c_int,
) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + Clone {
    let params = if params.is_null() {
        &[][..]
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(params, count.max(0) as usize) }
    };
    // SAFETY: libvirt has set these: a key that ends in NUL, and the union's member of `type_`.
    params.iter().filter_map(|param| unsafe { typed(param) })
}

#[cfg(test)]
mod tests;
