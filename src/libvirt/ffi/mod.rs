//! All `unsafe` code of this program: libvirt's C API behind types that free what they own.
//!
//! This uses `virt::sys` directly because the wrappers of the `virt` crate leak statistics records, have neither
//! `virDomainListGetStats` nor domain events, and panic at some input of operators.

mod connection;
mod crash;
mod domain;
mod domain_event;
mod node;
mod pool;
mod process;
mod records;
mod value;

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;

use virt::sys;

use super::Error;

pub use connection::Connection;
pub use crash::{forget_crash, pass_on_at_crash};
pub use domain::{Domain, Monitor};
pub use node::NodeInfo;
pub use pool::{PoolInfo, StoragePool};
pub use process::{
    client_version, close_inherited, connected_sockets, initialize, raise_file_limit, share_memory,
    start_event_loop, stdout_was_closed, while_signals_wait,
};
pub use records::{Record, Records};
pub use value::Value;

fn last_error() -> Error {
    // SAFETY: the error belongs to this thread and is valid until its next call to libvirt; the message is copied
    // before that.
    unsafe {
        let error = sys::virGetLastError();
        if error.is_null() {
            return Error::invalid("libvirt gave no reason");
        }
        Error {
            code: (*error).code as u32,
            domain: (*error).domain as u32,
            message: text((*error).message),
        }
    }
}

fn check(returned: c_int) -> Result<c_int, Error> {
    if returned < 0 {
        Err(last_error())
    } else {
        Ok(returned)
    }
}

/// Copies a C string; invalid UTF-8 is replaced.
///
/// # Safety
/// `raw` is null or a NUL-terminated string that lives through the call.
unsafe fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(raw) }
        .to_string_lossy()
        .into_owned()
}

/// Copies and frees a C string that libvirt allocated; null means that the call failed.
///
/// # Safety
/// `raw` is null or a NUL-terminated string that the caller owns and does not use afterwards.
unsafe fn owned_text(raw: *mut c_char) -> Result<String, Error> {
    if raw.is_null() {
        return Err(last_error());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let copy = text(raw);
        libc::free(raw.cast());
        Ok(copy)
    }
}

/// Takes the handles out of an array that libvirt allocated, and frees the array.
///
/// # Safety
/// `list` has `count` handles. The caller owns it and them, and does not use it afterwards.
unsafe fn owned_handles<T>(list: *mut *mut T, count: c_int) -> Vec<NonNull<T>> {
    // SAFETY: the caller's promise.
    unsafe {
        let handles = (0..count as usize).filter_map(|i| NonNull::new(*list.add(i)));
        let handles = handles.collect();
        libc::free(list.cast());
        handles
    }
}

fn c_string(value: &str) -> Result<CString, Error> {
    CString::new(value).map_err(|_| Error::invalid(format!("{value:?} contains a NUL byte")))
}
