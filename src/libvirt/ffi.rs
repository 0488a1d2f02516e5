//! All `unsafe` of this program: libvirt's C API behind types that free what they own.
//!
//! The `virt` crate's own wrappers leak statistics records, have no `virDomainListGetStats` and no
//! domain events, and panic where an operator's typing reaches them, hence `virt::sys` directly.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use uuid::Uuid;
use virt::sys;

use super::Error;
use super::calls::{Call, count};

/// Keepalive: seconds between probes and how many may be missed. A shorter one declared healthy
/// but busy daemons dead.
const KEEPALIVE: (c_int, c_uint) = (5, 5);

/// libvirt prints errors to stderr unless told otherwise; ours come back as [`Error`].
unsafe extern "C" fn silent(_: *mut c_void, _: sys::virErrorPtr) {}

/// Sets the library up. Call once, before any connection is opened and any thread is started.
///
/// # Errors
/// Whatever `virInitialize` or `virEventRegisterDefaultImpl` says.
pub fn initialize() -> Result<(), Error> {
    // SAFETY: both calls take no arguments and are documented as the first ones to make; the
    // error function has the signature asked for and touches nothing.
    unsafe {
        check(sys::virInitialize())?;
        sys::virSetErrorFunc(ptr::null_mut(), Some(silent));
        check(sys::virEventRegisterDefaultImpl())?;
    }
    Ok(())
}

/// Starts the thread that runs libvirt's event loop: keepalive and domain events need it.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start_event_loop() -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("events".into())
        .spawn(|| {
            loop {
                // SAFETY: no arguments; the default implementation was registered in
                // `initialize`, and this thread alone runs it.
                if unsafe { sys::virEventRunDefaultImpl() } < 0 {
                    log::debug!("libvirt's event loop: {}", last_error());
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        })
        .map(drop)
}

/// Closes all files but stdin, stdout and stderr, for a process that this program has started of
/// itself: libvirt opens its sockets without O_CLOEXEC and marks them a moment later, so what
/// starts in that moment has them. Call first thing in `main`. Before Linux 5.9 it does nothing.
pub fn close_inherited() {
    let last = c_uint::MAX;
    // SAFETY: nothing was opened yet, so that nobody owns what is closed; by number, for the C
    // library has no such function before glibc 2.34.
    unsafe { libc::syscall(libc::SYS_close_range, 3, last, 0) };
}

/// All threads take memory from one place: what one has freed serves the next. With glibc's usual
/// arena per thread a gather of 10,000 VMs kept 54 MB more, and took more processor time for it.
pub fn share_memory() {
    // SAFETY: sets a limit of the allocator's; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn last_error() -> Error {
    // SAFETY: the error is this thread's own and stays valid until the next libvirt call; the
    // message is copied before that.
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

/// Copies a C string; what is no UTF-8 is replaced.
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

fn c_string(value: &str) -> Result<CString, Error> {
    CString::new(value).map_err(|_| Error::invalid(format!("{value:?} holds a NUL byte")))
}

/// A read-only connection, owned by the thread that opened it.
#[derive(Debug)]
pub struct Connection {
    raw: NonNull<sys::virConnect>,
    /// What was registered for events: each keeps the connection in memory until it is taken back.
    registered: RefCell<Vec<c_int>>,
}

/// libxml2 writes to stderr by itself about a node file of the test driver that is not there.
fn check_node_file(uri: &str) -> Result<(), Error> {
    let path = uri
        .strip_prefix("test://")
        .and_then(|rest| rest.split('?').next());
    match path.filter(|path| *path != "/default") {
        Some(path) => std::fs::metadata(path)
            .map(|_| ())
            .map_err(|error| Error::invalid(format!("{path}: {error}"))),
        None => Ok(()),
    }
}

impl Connection {
    /// Opens `uri` read-only (`virConnectOpenReadOnly`) with keepalive on where the transport has
    /// one. May block for as long as a frozen daemon stays frozen.
    ///
    /// # Errors
    /// Whatever libvirt says; [`Error::remedy`] knows what to do about the common ones.
    pub fn open(uri: &str) -> Result<Self, Error> {
        check_node_file(uri)?;
        count(Call::Open);
        let uri = c_string(uri)?;
        // SAFETY: `uri` is NUL-terminated and lives through the call.
        let raw = unsafe { sys::virConnectOpenReadOnly(uri.as_ptr()) };
        let connection = NonNull::new(raw)
            .map(|raw| Self {
                raw,
                registered: RefCell::default(),
            })
            .ok_or_else(last_error)?;
        // SAFETY: the connection is open. Drivers in our own process have no keepalive and say so;
        // nothing is lost then.
        unsafe { sys::virConnectSetKeepAlive(raw, KEEPALIVE.0, KEEPALIVE.1) };
        Ok(connection)
    }

    /// Whether the transport still stands, as far as this end knows (no call to the daemon).
    pub fn is_alive(&self) -> bool {
        // SAFETY: the connection is open for as long as `self` is.
        unsafe { sys::virConnectIsAlive(self.raw.as_ptr()) == 1 }
    }

    /// The driver's name (`virConnectGetType`): QEMU, TEST, LXC, ...
    pub fn driver(&self) -> Option<String> {
        // SAFETY: the name belongs to the connection and is copied; NULL says that it failed.
        unsafe {
            let raw = sys::virConnectGetType(self.raw.as_ptr());
            (!raw.is_null()).then(|| text(raw))
        }
    }

    /// A round trip to the daemon that concerns no domain (`virConnectGetLibVersion`).
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn ping(&self) -> Result<(), Error> {
        let mut version = 0;
        // SAFETY: the number lives through the call.
        check(unsafe { sys::virConnectGetLibVersion(self.raw.as_ptr(), &mut version) })?;
        Ok(())
    }

    /// Handles of all active domains (`virConnectListAllDomains`), names, UUIDs and ids in them.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn active_domains(&self) -> Result<Vec<Domain>, Error> {
        count(Call::List);
        let mut list: *mut sys::virDomainPtr = ptr::null_mut();
        // SAFETY: libvirt allocates the array, whose handles become ours one by one; only the
        // array itself is left to free.
        unsafe {
            let count = check(sys::virConnectListAllDomains(
                self.raw.as_ptr(),
                &mut list,
                sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE,
            ))?;
            let domains = (0..count as usize)
                .filter_map(|i| NonNull::new(*list.add(i)))
                .map(|raw| Domain { raw })
                .collect();
            libc::free(list.cast());
            Ok(domains)
        }
    }

    /// A handle by UUID (`virDomainLookupByUUID`): answers even while another domain is locked.
    ///
    /// # Errors
    /// `VIR_ERR_NO_DOMAIN` where there is none; else whatever libvirt says.
    pub fn lookup(&self, uuid: Uuid) -> Result<Domain, Error> {
        count(Call::Lookup);
        // SAFETY: the UUID's 16 bytes live through the call.
        let raw =
            unsafe { sys::virDomainLookupByUUID(self.raw.as_ptr(), uuid.as_bytes().as_ptr()) };
        NonNull::new(raw)
            .map(|raw| Domain { raw })
            .ok_or_else(last_error)
    }

    /// Calls `on_event` whenever a domain starts or stops, or a device is added to one or removed
    /// (`virConnectDomainEventRegisterAny`), from the event loop's thread, for as long as the
    /// connection stands.
    ///
    /// # Errors
    /// Drivers without events say `VIR_ERR_NO_SUPPORT`.
    pub fn on_event(
        &self,
        on_event: impl Fn(Occurrence) + Clone + Send + Sync + 'static,
    ) -> Result<(), Error> {
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);
        type Device =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
        // SAFETY: libvirt keeps each callback under the generic type by design, and calls it with
        // the arguments that its event has: these.
        let (lifecycle, device) = unsafe {
            (
                std::mem::transmute::<Lifecycle, Generic>(started_or_stopped),
                std::mem::transmute::<Device, Generic>(device_changed),
            )
        };
        for (id, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
        ] {
            let sink: Box<EventSink> = Box::new(Box::new(on_event.clone()));
            let opaque = Box::into_raw(sink).cast::<c_void>();
            // SAFETY: `opaque` is owned by the registration and freed by `free_sink`, or below
            // where that failed.
            unsafe {
                let registered = sys::virConnectDomainEventRegisterAny(
                    self.raw.as_ptr(),
                    ptr::null_mut(),
                    id as c_int,
                    Some(callback),
                    opaque,
                    Some(free_sink),
                );
                if registered < 0 {
                    let error = last_error();
                    free_sink(opaque);
                    return Err(error);
                }
                self.registered.borrow_mut().push(registered);
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for id in self.registered.take() {
            // SAFETY: the connection is open, if only at this end: the registration goes there
            // first, and with it its reference of the connection.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.raw.as_ptr(), id) };
        }
        // SAFETY: our one reference goes; handles still alive keep the connection themselves.
        unsafe { sys::virConnectClose(self.raw.as_ptr()) };
    }
}

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occurrence {
    /// The domain runs, under this id and name: started, restored or migrated in.
    Started(Uuid, u32, String),
    /// It runs no more: shut down, destroyed, saved, crashed or migrated away.
    Stopped(Uuid),
    /// A device of it came or went.
    DeviceChanged(Uuid),
}

type EventSink = Box<dyn Fn(Occurrence) + Send + Sync>;

unsafe extern "C" fn started_or_stopped(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_changed`; the name is copied. None of the three calls the daemon.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        let uuid = uuid_of(domain);
        let id = sys::virDomainGetID(domain);
        if event == sys::VIR_DOMAIN_EVENT_STOPPED as c_int {
            sink(Occurrence::Stopped(uuid));
        } else if event == sys::VIR_DOMAIN_EVENT_STARTED as c_int && id != c_uint::MAX {
            sink(Occurrence::Started(
                uuid,
                id,
                text(sys::virDomainGetName(domain)),
            ));
        }
    }
}

unsafe extern "C" fn device_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the sink that was registered, alive until `free_sink`; the domain lives
    // through the call.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(Occurrence::DeviceChanged(uuid_of(domain)));
    }
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` in `on_event` and is freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}

/// # Safety
/// `domain` is a valid handle.
unsafe fn uuid_of(domain: sys::virDomainPtr) -> Uuid {
    let mut bytes = [0_u8; 16];
    // SAFETY: libvirt writes VIR_UUID_BUFLEN (16) bytes, or none.
    unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    Uuid::from_bytes(bytes)
}

/// A handle of one domain. It names the domain (by UUID) and keeps its connection open.
#[derive(Debug)]
pub struct Domain {
    raw: NonNull<sys::virDomain>,
}

impl Domain {
    /// The domain's UUID; no call to the daemon.
    pub fn uuid(&self) -> Uuid {
        // SAFETY: the handle is valid for as long as `self` is.
        unsafe { uuid_of(self.raw.as_ptr()) }
    }

    /// The id of the run that the handle was made of; `None` for an inactive domain.
    pub fn id(&self) -> Option<u32> {
        // SAFETY: as above; libvirt's "no id" is (unsigned) -1.
        let id = unsafe { sys::virDomainGetID(self.raw.as_ptr()) };
        (id != c_uint::MAX).then_some(id)
    }

    /// The domain's name when the handle was made.
    pub fn name(&self) -> String {
        // SAFETY: the name belongs to the handle and is copied.
        unsafe { text(sys::virDomainGetName(self.raw.as_ptr())) }
    }

    /// `virDomainGetInfo`: needs no QEMU monitor.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn info(&self) -> Result<sys::virDomainInfo, Error> {
        count(Call::Info);
        let mut info = sys::virDomainInfo {
            state: 0,
            maxMem: 0,
            memory: 0,
            nrVirtCpu: 0,
            cpuTime: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virDomainGetInfo(self.raw.as_ptr(), &mut info) })?;
        Ok(info)
    }

    /// `virDomainGetState`: state and reason, libvirt's numbers.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn state(&self) -> Result<(i32, i32), Error> {
        count(Call::State);
        let (mut state, mut reason) = (0, 0);
        // SAFETY: both numbers live through the call.
        check(unsafe { sys::virDomainGetState(self.raw.as_ptr(), &mut state, &mut reason, 0) })?;
        Ok((state, reason))
    }

    /// How long a command has been in the domain's monitor (`virDomainGetControlInfo`: takes no job
    /// and is served by libvirtd's priority workers); `None`: the monitor is free.
    ///
    /// # Errors
    /// Whatever libvirt says; other drivers than QEMU's do not have it.
    pub fn occupied(&self) -> Result<Option<Duration>, Error> {
        count(Call::Control);
        let mut info = sys::virDomainControlInfo {
            state: 0,
            details: 0,
            stateTime: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virDomainGetControlInfo(self.raw.as_ptr(), &mut info, 0) })?;
        let occupied = info.state == sys::VIR_DOMAIN_CONTROL_OCCUPIED;
        Ok(occupied.then(|| Duration::from_millis(info.stateTime)))
    }

    /// `virDomainGetCPUStats`, the total over all CPUs: calls `each` with key and value. `known` is
    /// how many parameters the driver has, asked for where it is 0.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn cpu_totals(
        &self,
        known: &mut u32,
        mut each: impl FnMut(&str, Value<'_>),
    ) -> Result<(), Error> {
        const ROOM: usize = 16;
        // SAFETY: an all-zero parameter is a valid one (an empty name, no type).
        let mut params: [sys::virTypedParameter; ROOM] = unsafe { std::mem::zeroed() };
        // SAFETY: start_cpu -1 with one CPU is libvirt's form for the total; at most `ROOM`
        // parameters are written, and what strings they own is freed by `virTypedParamsClear`.
        unsafe {
            let domain = self.raw.as_ptr();
            if *known == 0 {
                count(Call::Cpu);
                let nothing = ptr::null_mut();
                *known = check(sys::virDomainGetCPUStats(domain, nothing, 0, -1, 1, 0))? as u32;
            }
            count(Call::Cpu);
            let room = (*known as usize).min(ROOM) as c_uint;
            let buffer = params.as_mut_ptr();
            let count = check(sys::virDomainGetCPUStats(domain, buffer, room, -1, 1, 0))?;
            let count = (count as usize).min(ROOM);
            for param in &params[..count] {
                if let Some((key, value)) = typed(param) {
                    each(key, value);
                }
            }
            sys::virTypedParamsClear(params.as_mut_ptr(), count as c_int);
        }
        Ok(())
    }

    /// `virDomainMemoryStats`: calls `each` with tag (`VIR_DOMAIN_MEMORY_STAT_*`) and value.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn memory_stats(&self, mut each: impl FnMut(u32, u64)) -> Result<(), Error> {
        count(Call::Memory);
        const ROOM: usize = 32;
        let mut stats = [sys::virDomainMemoryStatStruct { tag: 0, val: 0 }; ROOM];
        // SAFETY: at most `ROOM` entries are written.
        let count = check(unsafe {
            sys::virDomainMemoryStats(self.raw.as_ptr(), stats.as_mut_ptr(), ROOM as c_uint, 0)
        })?;
        for stat in stats.iter().take(count as usize) {
            each(stat.tag as u32, stat.val);
        }
        Ok(())
    }

    /// `virDomainInterfaceStats` of the NIC with this name on the host; -1 = not counted.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn interface_stats(
        &self,
        target: &str,
    ) -> Result<sys::virDomainInterfaceStatsStruct, Error> {
        count(Call::Interface);
        let target = c_string(target)?;
        // SAFETY: all-zero is a valid value of this struct of integers; libvirt is told its size
        // and writes no more; the name lives through the call.
        unsafe {
            let mut stats: sys::virDomainInterfaceStatsStruct = std::mem::zeroed();
            check(sys::virDomainInterfaceStats(
                self.raw.as_ptr(),
                target.as_ptr(),
                &mut stats,
                size_of_val(&stats),
            ))?;
            Ok(stats)
        }
    }

    /// `virDomainBlockStats` of the disk with this target; -1 = not counted.
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn block_stats(&self, target: &str) -> Result<sys::virDomainBlockStatsStruct, Error> {
        count(Call::Block);
        let target = c_string(target)?;
        // SAFETY: as for `interface_stats`.
        unsafe {
            let mut stats: sys::virDomainBlockStatsStruct = std::mem::zeroed();
            check(sys::virDomainBlockStats(
                self.raw.as_ptr(),
                target.as_ptr(),
                &mut stats,
                size_of_val(&stats),
            ))?;
            Ok(stats)
        }
    }

    /// The live XML (`virDomainGetXMLDesc`).
    ///
    /// # Errors
    /// Whatever libvirt says.
    pub fn xml(&self) -> Result<String, Error> {
        count(Call::Xml);
        // SAFETY: the text is ours to free once it is copied.
        unsafe {
            let raw = sys::virDomainGetXMLDesc(self.raw.as_ptr(), 0);
            if raw.is_null() {
                return Err(last_error());
            }
            let xml = text(raw);
            libc::free(raw.cast());
            Ok(xml)
        }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: our one reference goes.
        unsafe { sys::virDomainFree(self.raw.as_ptr()) };
    }
}

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

/// The records of one bulk call, freed together.
#[derive(Debug)]
pub struct Records {
    raw: *mut sys::virDomainStatsRecordPtr,
    count: usize,
}

impl Records {
    /// `virDomainListGetStats`: the groups asked for, of the domains asked for. Domains that are
    /// gone are left out by libvirt.
    ///
    /// # Errors
    /// Whatever libvirt says. All handles must be of one connection, or libvirt refuses them.
    pub fn get(domains: &[&Domain], groups: u32, flags: u32) -> Result<Self, Error> {
        count(Call::Bulk);
        let mut handles: Vec<sys::virDomainPtr> = domains
            .iter()
            .map(|domain| domain.raw.as_ptr())
            .chain([ptr::null_mut()])
            .collect();
        let mut raw: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // SAFETY: the list of handles ends in NULL as the API asks; the records become ours.
        let count = check(unsafe {
            sys::virDomainListGetStats(handles.as_mut_ptr(), groups, &mut raw, flags)
        })?;
        Ok(Self {
            raw,
            count: count as usize,
        })
    }

    /// The records, in libvirt's order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        // SAFETY: `raw` holds `count` records until `self` is dropped.
        (0..self.count).map(|i| Record {
            raw: unsafe { *self.raw.add(i) },
            owner: PhantomData,
        })
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; NULL is allowed.
        unsafe { sys::virDomainStatsRecordListFree(self.raw) };
    }
}

/// One domain's record.
#[derive(Debug)]
pub struct Record<'a> {
    raw: sys::virDomainStatsRecordPtr,
    owner: PhantomData<&'a Records>,
}

impl<'a> Record<'a> {
    /// The domain's id as of this very call; `None`: not active any more.
    pub fn id(&self) -> Option<u32> {
        // SAFETY: the record's handle is valid as long as the record.
        let id = unsafe { sys::virDomainGetID((*self.raw).dom) };
        (id != c_uint::MAX).then_some(id)
    }

    /// The domain, as of this very call.
    pub fn domain(&self) -> Option<Domain> {
        // SAFETY: the record's handle is valid as long as the record; virDomainRef makes the
        // borrowed handle a reference of its own for `Domain` to drop.
        unsafe {
            let raw = NonNull::new((*self.raw).dom)?;
            sys::virDomainRef(raw.as_ptr());
            Some(Domain { raw })
        }
    }

    /// Key and value of each parameter; keys or strings that are no UTF-8 are passed over.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        // SAFETY: the record holds `nparams` parameters and lives as long as its list.
        let params = unsafe {
            let record = &*self.raw;
            if record.params.is_null() {
                &[][..]
            } else {
                std::slice::from_raw_parts(record.params, record.nparams.max(0) as usize)
            }
        };
        // SAFETY: libvirt filled these in: a NUL-terminated key and the union's member of `type_`.
        params.iter().filter_map(|param| unsafe { typed(param) })
    }
}

/// # Safety
/// `param` was filled in by libvirt.
unsafe fn typed(param: &sys::virTypedParameter) -> Option<(&str, Value<'_>)> {
    // SAFETY: the caller's promise: `type_` names the union's member, `field` ends in NUL.
    unsafe {
        let key = CStr::from_ptr(param.field.as_ptr()).to_str().ok()?;
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
