//! A collector on another host, over TLS.

use super::spec;
use crate::agent::LIMIT;
use crate::support::lab::Lab;
use crate::support::lines::{Line, is_latency, is_of_host};
use crate::support::plugin::Plugin;
use crate::support::{succeed, turn, wait_for};

/// A certificate authority, and one certificate for both ends, in the layout of libvirt's `pkipath`.
const CERTIFICATES: &str = "
cd \"$0\"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab \\
    -keyout cakey.pem -out cacert.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=collector \\
    -keyout serverkey.pem -out request.pem
openssl x509 -req -in request.pem -CA cacert.pem -CAkey cakey.pem -days 2 -out servercert.pem \\
    -extfile <(echo subjectAltName=IP:127.0.0.1)
cp serverkey.pem clientkey.pem
cp servercert.pem clientcert.pem
";

#[test]
fn a_collector_elsewhere_gets_the_same_by_tls() {
    let _turn = turn::share();
    let lab = Lab::start();
    if lab.daemon() != "libvirtd" {
        // The modular daemons can only listen through systemd's sockets, and the lab has no systemd.
        return;
    }
    let vm = lab.create(&spec());
    let has_all = || {
        wait_for("the guest's memory", 2 * LIMIT, || {
            let stats = lab.domstats(vm.name());
            stats.contains_key("balloon.usable").then_some(())
        });
    };
    has_all();
    let pki = lab.dir().join("pki");
    std::fs::create_dir(&pki).unwrap();
    succeed(lab.command("bash").args(["-ec", CERTIFICATES]).arg(&pki));
    let pki = pki.display();
    lab.serve_hosts(&format!(
        "listen_tls = 1\nlisten_addr = \"127.0.0.1\"\nkey_file = \"{pki}/serverkey.pem\"\n\
         cert_file = \"{pki}/servercert.pem\"\nca_file = \"{pki}/cacert.pem\"\n"
    ));
    // A libvirtd that was restarted has the VM's figures once it is connected to QEMU again.
    has_all();

    let uri = format!("qemu+tls://127.0.0.1/system?pkipath={pki}");
    let far = Plugin::spawn(lab.plugin(&["--uri", &uri]));
    let near = Plugin::spawn(lab.plugin(&[]));
    let [far, near] = [far, near].map(|mut plugin| {
        plugin.gather();
        let lines = plugin.gather();
        assert_eq!(plugin.stderr(), "");
        lines
    });
    let shape = |lines: &[Line]| -> Vec<_> {
        let one = |line: &Line| {
            let fields = line
                .fields
                .keys()
                .filter(|field| !is_latency(field) && !is_of_host(field));
            let fields: Vec<_> = fields.cloned().collect();
            (line.measurement.clone(), line.tags.clone(), fields)
        };
        lines.iter().map(one).collect()
    };
    assert_eq!(shape(&far), shape(&near));
    assert_eq!(far.len(), 8);
}
