//! WebDAV as Apache serves it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, Target, free_port};

/// Where Debian puts the program and its modules.
const PROGRAM: &str = "/usr/sbin/apache2";
const MODULES: &str = "/usr/lib/apache2/modules";

/// User that a server lets in.
const USER: &str = "cairn";
/// The user's password unless a test wants another.
const PASSWORD: &str = "webdav-password";

/// A server with a folder.
#[derive(Debug)]
pub struct Webdav {
    server: Server,
    folder: tempfile::TempDir,
    password: String,
}

impl Webdav {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(PASSWORD)
    }

    /// Starts one that lets its user in by this password.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(password: &str) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: run tests/setup/setup.sh");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().display();
        // Started by root it serves as somebody else, who must get at the folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let path = |name: &str| folder.path().join(name);
        for name in ["data", "locks"] {
            fs::create_dir(path(name)).expect("a folder");
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o777)).expect("its mode");
        }
        fs::write(path("users"), format!("{USER}:{}\n", Self::crypt(password))).expect("a file");
        let port = free_port();
        let mut settings = String::new();
        for module in [
            "mpm_event",
            "authz_core",
            "authz_user",
            "authn_core",
            "authn_file",
            "auth_basic",
            "dav",
            "dav_fs",
        ] {
            settings.push_str(&format!("LoadModule {module}_module {MODULES}/mod_{module}.so\n"));
        }
        let user = if rustix::process::geteuid().is_root() {
            "User www-data\nGroup www-data\n"
        } else {
            ""
        };
        settings.push_str(&format!(
            "ServerRoot {root}\nServerName localhost\nListen 127.0.0.1:{port}\n\
             PidFile {root}/pid\nErrorLog {root}/error.log\nDefaultRuntimeDir {root}\n{user}\
             DocumentRoot {root}/data\nDavLockDB {root}/locks/db\nLimitXMLRequestBody 0\n\
             <Directory {root}/data>\nDav On\nAuthType Basic\nAuthName cairn\n\
             AuthBasicProvider file\nAuthUserFile {root}/users\nRequire valid-user\n</Directory>\n"
        ));
        fs::write(path("apache.conf"), settings).expect("a file");
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "FOREGROUND", "-f"]).arg(path("apache.conf"));
        let server = Server::start(&command, port, folder.path());
        Self { server, folder, password: password.to_owned() }
    }

    /// A password as the server compares it.
    fn crypt(password: &str) -> String {
        let made = Command::new("openssl").args(["passwd", "-apr1", password]).output();
        let made = made.expect("openssl starts");
        String::from_utf8_lossy(&made.stdout).trim().to_owned()
    }

    /// Where a repository can be made, and how it is reached.
    #[must_use]
    pub fn target(&self) -> Target {
        Self::target_at(self.server.port).with("WEBDAV_PASSWORD", self.password.clone())
    }

    /// The same at a port where there may be no server.
    #[must_use]
    pub fn target_at(port: u16) -> Target {
        Target {
            url: format!("webdav+http://127.0.0.1:{port}/some/folder"),
            environment: vec![
                ("WEBDAV_USERNAME", USER.into()),
                ("WEBDAV_PASSWORD", PASSWORD.into()),
            ],
            port,
        }
    }

    /// Where the repository's files are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data/some/folder")
    }
}
