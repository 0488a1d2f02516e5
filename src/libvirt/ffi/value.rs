//! Typed parameters: how libvirt hands over a figure.

use std::ffi::{CStr, c_uint};

use virt::sys;

/// A statistics value, whatever integer type this libvirt gave it (they vary by version).
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
/// `param` was filled in by libvirt.
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

#[cfg(test)]
mod tests;
