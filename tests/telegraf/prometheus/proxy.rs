//! A proxy between clients and libvirtd whose answers can be slow.

use crate::agent::LIMIT;
use crate::support::lab::Lab;
use crate::support::wait_for;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A running proxy, which ends with its handle.
pub struct Proxy {
    socket: PathBuf,
    slow: PathBuf,
    child: Child,
}

/// Arguments: the socket, that of libvirtd, and the file by whose presence each answer takes 3 s.
const PROXY: &str = "import os,socket,sys,threading,time
path, libvirtd, slow = sys.argv[1:]
def copy(source, target, is_answer):
    while data := source.recv(1 << 20):
        if is_answer and os.path.exists(slow):
            time.sleep(3)
        target.sendall(data)
    target.shutdown(socket.SHUT_RDWR)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(100)
while True:
    client = listener.accept()[0]
    server = socket.socket(socket.AF_UNIX)
    server.connect(libvirtd)
    for ends in (client, server, False), (server, client, True):
        threading.Thread(target=copy, args=ends, daemon=True).start()";

impl Proxy {
    pub fn start(lab: &Lab) -> Proxy {
        let (socket, slow) = (lab.dir().join("proxy"), lab.dir().join("slow"));
        let mut command = lab.command("python3");
        command.args(["-c", PROXY]).arg(&socket);
        command.arg(lab.read_only_socket()).arg(&slow);
        // Its stderr has a message for each connection that was reset.
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for("the proxy", LIMIT, || socket.exists().then_some(()));
        Proxy {
            socket,
            slow,
            child,
        }
    }

    /// The URI of the hypervisor behind it.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket.display())
    }

    /// From now on a gather, which asks for the list and then for the figures, takes more than 6 s.
    pub fn slow_down(&self) {
        std::fs::write(&self.slow, "").unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
