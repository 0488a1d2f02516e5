//! A proxy with a socket of its own in front of libvirtd's: it delays replies, cuts them in the middle, or
//! closes connections at random. It sees which calls had no reply when their connection ended.

use super::lab::Lab;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The faults that the proxy adds to replies from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplyFaults {
    /// The delay of every reply.
    pub delay: Duration,
    /// One in this many replies, chosen at random, is broken; 0: none.
    pub one_in: u64,
    /// Whether a broken reply is cut in the middle or lost completely. The connection is then closed.
    pub cut: bool,
}

/// A listening proxy, which ends with its process; its socket is in the lab's folder.
pub struct Proxy {
    socket: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

/// What passed through one connection. The numbers are those of libvirt's `virnetprotocol.x` and `remote_protocol.x`.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// The procedures that were called, by number.
    pub called: Vec<u32>,
    /// The kinds of events that were registered, by number.
    pub events: Vec<u32>,
    /// The number of replies, broken ones included.
    pub replies: usize,
    /// How many calls had no reply yet when the connection ended, if it has.
    pub under_way_at_end: Option<usize>,
}

impl Passed {
    /// `REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY`.
    const REGISTER: u32 = 316;
    /// `REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY`.
    const DEREGISTER: u32 = 317;
    /// `VIR_DOMAIN_EVENT_ID_REBOOT`, the last kind that the program registers.
    const LAST_KIND: u32 = 1;

    /// Whether the client waits for all events that it wants.
    pub fn waits_for_events(&self) -> bool {
        self.events.contains(&Self::LAST_KIND) && self.called.len() == self.replies
    }

    /// How many registrations were removed, or began to be.
    pub fn removed(&self) -> usize {
        let removes = |procedure: &&u32| **procedure == Self::DEREGISTER;
        self.called.iter().filter(removes).count()
    }
}

struct Shared {
    passed: Vec<Passed>,
    faults: ReplyFaults,
    /// The state of an xorshift generator, so that a run can be repeated.
    random: u64,
    /// The number of replies under the current faults, and which of the next `one_in` replies will be broken.
    place: u64,
    broken_place: u64,
    replies: u64,
    broken: u64,
}

impl Proxy {
    /// Starts a proxy in front of the lab's read-only socket; the same `seed` gives the same random choices.
    pub fn start(lab: &Lab, seed: u64) -> Proxy {
        let socket = lab.dir().join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
        let behind = lab.inside(&lab.read_only_socket());
        let shared = Arc::new(Mutex::new(Shared {
            passed: Vec::new(),
            faults: ReplyFaults::default(),
            random: seed | 1,
            place: 0,
            broken_place: 0,
            replies: 0,
            broken: 0,
        }));
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                // libvirtd may be away: its client then gets a closed connection.
                if let (Ok(client), Ok(server)) = (client, UnixStream::connect(&behind)) {
                    serve(client, server, &ours);
                }
            }
        });
        Proxy { socket, shared }
    }

    /// The URI that the plugin connects to.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket.display())
    }

    /// Changes the faults.
    pub fn set(&self, faults: ReplyFaults) {
        let mut shared = self.shared.lock().unwrap();
        (shared.faults, shared.place) = (faults, 0);
    }

    /// Delays every reply by this time, and breaks none.
    pub fn delay(&self, delay: Duration) {
        self.set(ReplyFaults {
            delay,
            ..ReplyFaults::default()
        });
    }

    /// The number of replies that were passed on complete, and of those that were cut or lost.
    pub fn counts(&self) -> (u64, u64) {
        let shared = self.shared.lock().unwrap();
        (shared.replies, shared.broken)
    }

    /// What passed so far, by connection.
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.lock().unwrap().passed.clone()
    }
}

/// How the proxy handles one reply.
enum ReplyAction {
    Whole,
    Cut,
    Lost,
}

impl Shared {
    fn next_action(&mut self) -> (ReplyAction, Duration) {
        let ReplyFaults { delay, one_in, cut } = self.faults;
        if self.place == 0 && one_in > 0 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.broken_place = self.random % one_in;
        }
        let action = match (one_in > 0 && self.place == self.broken_place, cut) {
            (false, _) => ReplyAction::Whole,
            (true, true) => ReplyAction::Cut,
            (true, false) => ReplyAction::Lost,
        };
        self.place = (self.place + 1) % one_in.max(1);
        match action {
            ReplyAction::Whole => self.replies += 1,
            ReplyAction::Cut | ReplyAction::Lost => self.broken += 1,
        }
        (action, delay)
    }
}

fn serve(client: UnixStream, server: UnixStream, shared: &Arc<Mutex<Shared>>) {
    let number = {
        let passed = &mut shared.lock().unwrap().passed;
        passed.push(Passed::default());
        passed.len() - 1
    };
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ours = Connection {
        number,
        shared: Arc::clone(shared),
    };
    let calls = ours.clone();
    thread::spawn(move || {
        let _ = calls.pass_calls(&from_client, &to_server);
        calls.passed(|passed| {
            passed.under_way_at_end = Some(passed.called.len() - passed.replies);
        });
        let _ = to_server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = ours.pass_replies(&server, &client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// One connection of the proxy.
#[derive(Clone)]
struct Connection {
    number: usize,
    shared: Arc<Mutex<Shared>>,
}

impl Connection {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn passed(&self, change: impl FnOnce(&mut Passed)) {
        change(&mut self.shared().passed[self.number]);
    }

    fn pass_calls(&self, client: &UnixStream, mut server: &UnixStream) -> std::io::Result<()> {
        loop {
            let message = Message::read(client)?;
            if message.kind() == Some(Message::CALL) {
                self.passed(|passed| {
                    passed.called.push(message.procedure());
                    if message.procedure() == Passed::REGISTER {
                        passed.events.push(message.number(Message::HEAD));
                    }
                });
            }
            server.write_all(&message.0)?;
        }
    }

    fn pass_replies(&self, server: &UnixStream, mut client: &UnixStream) -> std::io::Result<()> {
        loop {
            let message = Message::read(server)?;
            let (action, delay) = self.shared().next_action();
            thread::sleep(delay);
            if message.kind() == Some(Message::REPLY) {
                self.passed(|passed| passed.replies += 1);
            }
            match action {
                ReplyAction::Whole => client.write_all(&message.0)?,
                ReplyAction::Cut => return client.write_all(&message.0[..message.0.len() / 2]),
                ReplyAction::Lost => return Ok(()),
            }
        }
    }
}

/// A message of libvirt's protocol, as it is sent: seven numbers of four bytes, and what they announce. They are its length
/// with these four bytes, program, version, procedure, kind, serial and status (`virnetprotocol.x`).
struct Message(Vec<u8>);

impl Message {
    const CALL: u32 = 0;
    const REPLY: u32 = 1;
    /// The program of all calls but keepalive and those for one hypervisor alone (`remote_protocol.x`).
    const REMOTE: u32 = 0x2000_8086;
    /// How many numbers come before what they announce.
    const HEAD: usize = 7;

    fn read(mut from: &UnixStream) -> std::io::Result<Self> {
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
        let mut message = vec![0; length.max(4)];
        message[..4].copy_from_slice(&head);
        from.read_exact(&mut message[4..])?;
        Ok(Self(message))
    }

    fn number(&self, place: usize) -> u32 {
        let bytes = self.0.get(4 * place..4 * place + 4);
        bytes.map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
    }

    fn procedure(&self) -> u32 {
        self.number(3)
    }

    /// Which kind of message it is; `None` for one of another program.
    fn kind(&self) -> Option<u32> {
        (self.number(1) == Self::REMOTE).then(|| self.number(4))
    }
}
