//! Goal: a server that speaks SFTP holds repositories, reached as `ssh` is configured; a host or a
//! key that is not known is refused; nothing half written is ever under an object's name.
//! Method: OpenSSH's sshd on loopback.

use cairn_tests::process::files_below;
use cairn_tests::servers::Target;
use cairn_tests::servers::sshd::Sshd;

use crate::scenario::{self, cairn};

#[test]
fn every_command_works() {
    let server = Sshd::start();
    scenario::whole_course(&server.target());
    let left: Vec<_> = files_below(&server.data())
        .into_iter()
        .filter(|path| path.starts_with(server.data().join("tmp")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn hosts_and_keys_that_are_not_known_are_refused() {
    let server = Sshd::start();
    cairn(&server.target()).init();
    for target in [server.stranger(), server.unknown_host()] {
        let ran = cairn(&target).run(["snapshots"]).expect(13);
        assert!(ran.stderr.contains("denied") && ran.stderr.contains("hint:"), "{ran:#?}");
    }
}

#[test]
fn nobody_listens() {
    let server = Sshd::start();
    scenario::refused_port(|port| Target {
        url: format!("sftp://127.0.0.1:{port}/repository"),
        ..server.target()
    });
}
