//! A proxy with a socket of its own in front of libvirtd's: it delays replies, cuts them in the middle, or
//! closes connections at random.

use super::lab::Lab;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
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

struct Shared {
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

    /// The number of replies that were passed on complete, and of those that were cut or lost.
    pub fn counts(&self) -> (u64, u64) {
        let shared = self.shared.lock().unwrap();
        (shared.replies, shared.broken)
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
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _ = replies(&server, &client, &shared);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// A message begins with its length in four bytes, which includes these four (libvirt's `virnetprotocol.x`).
fn replies(
    mut server: &UnixStream,
    mut client: &UnixStream,
    shared: &Mutex<Shared>,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 4];
        server.read_exact(&mut head)?;
        let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
        let mut message = vec![0; length.max(4)];
        message[..4].copy_from_slice(&head);
        server.read_exact(&mut message[4..])?;
        let (action, delay) = shared.lock().unwrap().next_action();
        thread::sleep(delay);
        match action {
            ReplyAction::Whole => client.write_all(&message)?,
            ReplyAction::Cut => return client.write_all(&message[..length / 2]),
            ReplyAction::Lost => return Ok(()),
        }
    }
}
