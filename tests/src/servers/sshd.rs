//! OpenSSH's server, as an ordinary process with keys and settings of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, Target, free_port};

/// Where Debian puts the program.
const PROGRAM: &str = "/usr/sbin/sshd";
/// A folder that the server insists on when it runs as root.
const PRIVILEGE_FOLDER: &str = "/run/sshd";

/// A server that lets this user in by a key, and serves files only.
#[derive(Debug)]
pub struct Sshd {
    server: Server,
    folder: tempfile::TempDir,
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

impl Sshd {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: run tests/setup/setup.sh");
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all(PRIVILEGE_FOLDER).expect("a folder for sshd");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "client", "stranger"] {
            make_key(&path(name));
        }
        let public = fs::read_to_string(path("client.pub")).expect("the public half");
        write(&path("authorized"), &public, 0o600);
        let port = free_port();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\n\
             AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\n\
             Subsystem sftp internal-sftp\n",
            host = path("host").display(),
            authorized = path("authorized").display(),
        );
        write(&path("sshd_config"), &settings, 0o600);
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
        let server = Server::start(&command, port, folder.path());
        let sshd = Self { server, folder };
        sshd.write_client("client", "client-bin", true);
        sshd.write_client("stranger", "stranger-bin", true);
        sshd.write_client("client", "unknown-host-bin", false);
        sshd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An `ssh` with settings of this server's: the real one looks for its settings in the home
    /// folder that the system knows, which is not the tests' to change.
    fn write_client(&self, key: &str, folder: &str, host_is_known: bool) {
        let port = self.server.port;
        let host = fs::read_to_string(self.path("host.pub")).expect("the public half");
        let known =
            if host_is_known { format!("[127.0.0.1]:{port} {host}") } else { String::new() };
        let bin = self.path(folder);
        fs::create_dir(&bin).expect("a folder");
        write(&bin.join("known"), &known, 0o600);
        let settings = format!(
            "Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  \
             GlobalKnownHostsFile /dev/null\n  IdentityAgent none\n",
            key = self.path(key).display(),
            known = bin.join("known").display(),
        );
        write(&bin.join("config"), &settings, 0o600);
        let script =
            format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", bin.join("config").display());
        write(&bin.join("ssh"), &script, 0o700);
    }

    fn target_by(&self, client: &str) -> Target {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path(client).display());
        let port = self.server.port;
        let data = self.path("data/repository");
        Target {
            url: format!("sftp://127.0.0.1:{port}{}", data.display()),
            environment: vec![("PATH", path.into()), ("TMPDIR", self.folder.path().into())],
            port,
        }
    }

    /// Where a repository can be made, and how it is reached.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target_by("client-bin")
    }

    /// The same with a key that the server does not know.
    #[must_use]
    pub fn stranger(&self) -> Target {
        self.target_by("stranger-bin")
    }

    /// The same where the server's own key is not known.
    #[must_use]
    pub fn unknown_host(&self) -> Target {
        self.target_by("unknown-host-bin")
    }

    /// Where the repository's files are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path("data/repository")
    }
}
