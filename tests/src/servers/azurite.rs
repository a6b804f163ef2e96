//! Azure Blob Storage as Microsoft's emulator, Azurite, plays it.

use std::path::Path;
use std::process::Command;

use super::{Server, Target, free_port};
use crate::reader::source_root;

/// Name of an account of this server, and its key, which is no secret: 64 times the same byte.
const ACCOUNT: &str = "cairntests";
const KEY: &str =
    "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ==";

/// A server with a container.
#[derive(Debug)]
pub struct Azurite {
    server: Server,
    folder: tempfile::TempDir,
}

/// Sends a request with a body: signed requests are what the emulator's own library is for.
const PUT: &str = r#"
const crypto = require("crypto"), http = require("http");
const [port, account, key, name, query, body] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-08-06";
const asked = query.split("&").sort().map((part) => part.replace("=", ":"));
const text = ["PUT", "", "", body.length || "", "", "", "", "", "", "", "", "",
  "x-ms-date:" + date, "x-ms-version:" + version,
  "/" + account + "/" + account + "/" + name, ...asked].join("\n");
const sum = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8");
const request = http.request({ host: "127.0.0.1", port, method: "PUT",
  path: "/" + account + "/" + name + "?" + query,
  headers: { "x-ms-date": date, "x-ms-version": version, "content-length": body.length,
    authorization: "SharedKey " + account + ":" + sum.digest("base64") } }, (answer) => {
  answer.on("data", (data) => process.stderr.write(data));
  answer.on("end", () => process.exit(answer.statusCode < 300 ? 0 : 1));
});
request.end(body);
"#;

impl Azurite {
    /// Starts one, with the container `container`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program =
            source_root().join(".work/azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(program.exists(), "{} is missing: run tests/setup/setup.sh", program.display());
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(program).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location"]);
        command.arg(folder.path());
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
        let server = Server::start(&command, port, folder.path());
        let azurite = Self { server, folder };
        azurite.put("container", "restype=container", "");
        azurite
    }

    fn put(&self, name: &str, query: &str, body: &str) {
        let port = self.server.port.to_string();
        let done = Command::new("node")
            .args(["-e", PUT, &port, ACCOUNT, KEY, name, query, body])
            .output()
            .expect("node starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Says for how many days the account keeps what is deleted. It only says so: this server keeps
    /// nothing.
    ///
    /// # Panics
    /// When that fails.
    pub fn set_soft_delete(&self, days: Option<u32>) {
        let days = days.map(|days| format!("<Days>{days}</Days>")).unwrap_or_default();
        let enabled = !days.is_empty();
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties>\
             <DeleteRetentionPolicy><Enabled>{enabled}</Enabled>{days}</DeleteRetentionPolicy>\
             </StorageServiceProperties>"
        );
        self.put("", "restype=service&comp=properties", &xml);
    }

    /// Where a repository can be made, and how it is reached.
    #[must_use]
    pub fn target(&self) -> Target {
        Self::target_at(self.server.port)
    }

    /// The same at a port where there may be no server.
    #[must_use]
    pub fn target_at(port: u16) -> Target {
        Target {
            url: "azblob://container/some/prefix".to_owned(),
            environment: vec![
                ("AZURE_STORAGE_ACCOUNT", ACCOUNT.into()),
                ("AZURE_STORAGE_KEY", KEY.into()),
                ("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{port}/{ACCOUNT}").into()),
            ],
            port,
        }
    }

    /// A connection string that says the same.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let port = self.server.port;
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};\
             BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )
    }

    /// The folder with its data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
