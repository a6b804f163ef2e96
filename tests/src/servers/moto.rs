//! Amazon S3 as the project `moto` plays it.

use std::process::Command;

use super::http::{exchange, request};
use super::proxy::{Fault, Proxy};
use super::{Server, Target, free_port};
use crate::reader::source_root;

/// Name of the bucket that every server has.
pub const BUCKET: &str = "bucket";

/// A server with a bucket.
pub struct Moto {
    /// Before a server that checks signatures.
    proxy: Option<Proxy>,
    server: Server,
    folder: tempfile::TempDir,
    key: (String, String),
}

/// What a bucket keeps.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    /// Objects that are there.
    pub current: Vec<String>,
    /// Older versions.
    pub former: Vec<String>,
    /// Marks of deletion.
    pub marks: Vec<String>,
}

/// Deletes what is below a prefix: signed requests are what the ecosystem's own library is for.
const LOSE: &str = r#"
import boto3, sys
endpoint, key, secret, bucket, prefix = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                  aws_access_key_id=key, aws_secret_access_key=secret)
keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
for key in keys:
    s3.delete_object(Bucket=bucket, Key=key)
print(len(keys))
"#;

/// Requests that are answered without looking who asks, where anybody looks: a user, its policy,
/// its key, the bucket.
const UNCHECKED: usize = 4;
/// Those of them that each further user takes.
const UNCHECKED_OF_USER: usize = 3;
/// The policy of who may do everything.
const ALL: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"#;

impl Moto {
    /// A server that lets everybody in.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None, &[]).0
    }

    /// A server that checks signatures and policies. The target's key may use one bucket.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_strict() -> Self {
        Self::start_with(Some(UNCHECKED), &[]).0
    }

    /// The same, and targets for users with these policies.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_users(policies: &[(&str, &str)]) -> (Self, Vec<Target>) {
        let unchecked = UNCHECKED + policies.len() * UNCHECKED_OF_USER;
        let (moto, keys) = Self::start_with(Some(unchecked), policies);
        let targets = keys.into_iter().map(|(id, secret)| {
            let target = moto.target().with("AWS_ACCESS_KEY_ID", id);
            target.with("AWS_SECRET_ACCESS_KEY", secret)
        });
        let targets = targets.collect();
        (moto, targets)
    }

    fn start_with(
        unchecked: Option<usize>,
        policies: &[(&str, &str)],
    ) -> (Self, Vec<(String, String)>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = source_root().join(".venv/bin/moto_server");
        assert!(program.exists(), "{} is missing: run tests/setup/setup.sh", program.display());
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(unchecked) = unchecked {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", unchecked.to_string());
        }
        let server = Server::start(&command, port, folder.path());
        let key = ("AKIAIOSFODNN7EXAMPLE".to_owned(), "secret-of-a-test".to_owned());
        let mut moto = Self { proxy: None, server, folder, key };
        if unchecked.is_some() {
            moto.key = moto.make_user("cairn", ALL);
            moto.proxy = Some(Proxy::start(port, |_| Fault::None));
        }
        moto.make_bucket(BUCKET);
        let keys = policies.iter().map(|(name, policy)| moto.make_user(name, policy)).collect();
        (moto, keys)
    }

    /// Makes another bucket.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_bucket(&self, name: &str) {
        let request = request(&format!("PUT /{name}"), &[("Host", "127.0.0.1")], b"");
        let answer = exchange(self.server.port, &request).expect("moto answers");
        assert_eq!(answer.status(), Some(200), "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Sets something of the bucket, such as `versioning`.
    ///
    /// # Panics
    /// When that fails.
    pub fn set(&self, what: &str, xml: &str) {
        let line = format!("PUT /{BUCKET}?{what}");
        let request = request(&line, &[("Host", "127.0.0.1")], xml.as_bytes());
        let answer = exchange(self.server.port, &request).expect("moto answers");
        assert_eq!(answer.status(), Some(200), "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Makes a bucket in which objects can be locked, and are not unless somebody does.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_lockable_bucket(&self, name: &str) {
        let fields = [("Host", "127.0.0.1"), ("x-amz-bucket-object-lock-enabled", "true")];
        let answer = exchange(self.server.port, &request(&format!("PUT /{name}"), &fields, b""));
        assert_eq!(answer.expect("moto answers").status(), Some(200));
    }

    /// Sends a request as whoever has come by all credentials, and returns status, fields and body.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn ask(&self, line: &str) -> super::http::Message {
        // Whoever does not say who it is may not touch objects, whether they are locked or not.
        let who = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20200101/us-east-1/s3/aws4_request, \
                   SignedHeaders=host, Signature=x";
        let fields = [("Host", "127.0.0.1"), ("Authorization", who)];
        exchange(self.server.port, &request(line, &fields, b"")).expect("moto answers")
    }

    /// Makes a bucket that locks what is written for so many days.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_locked_bucket(&self, name: &str, days: u32) {
        let fields = [("Host", "127.0.0.1"), ("x-amz-bucket-object-lock-enabled", "true")];
        let rule = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
             <DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention>\
             </Rule></ObjectLockConfiguration>"
        );
        for (line, body) in
            [(format!("PUT /{name}"), ""), (format!("PUT /{name}?object-lock"), rule.as_str())]
        {
            let answer = exchange(self.server.port, &request(&line, &fields, body.as_bytes()));
            let answer = answer.expect("moto answers");
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status(), Some(200), "{line}: {text}");
        }
    }

    /// What the bucket keeps below a folder of the target's repository.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn versions(&self, folder: &str) -> Versions {
        let line = format!("GET /{BUCKET}?versions&max-keys=1000&prefix=some/prefix/{folder}");
        let answer = exchange(self.server.port, &request(&line, &[("Host", "127.0.0.1")], b""));
        let answer = answer.expect("moto answers");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("<IsTruncated>false"), "{text}");
        let field = |part: &str, name: &str| {
            let (_, rest) = part.split_once(&format!("<{name}>")).expect("a field");
            rest.split_once('<').expect("its end").0.to_owned()
        };
        let mut versions = Versions::default();
        for part in text.split("<Version>").skip(1) {
            let part = part.split("</Version>").next().unwrap_or_default();
            let list = match field(part, "IsLatest").as_str() {
                "true" => &mut versions.current,
                _ => &mut versions.former,
            };
            list.push(field(part, "Key"));
        }
        for part in text.split("<DeleteMarker>").skip(1) {
            versions.marks.push(field(part, "Key"));
        }
        versions
    }

    /// Loses what the bucket has below a prefix, as a storage does that cannot be trusted. Returns how
    /// many objects it was.
    ///
    /// # Panics
    /// When that fails.
    pub fn lose(&self, prefix: &str) -> usize {
        let endpoint = format!("http://127.0.0.1:{}", self.target().port);
        let done = Command::new(source_root().join(".venv/bin/python3"))
            .args(["-c", LOSE, &endpoint, &self.key.0, &self.key.1, BUCKET, prefix])
            .env_clear()
            .output()
            .expect("python starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().parse().expect("a number")
    }

    fn identity(&self, action: &str, user: &str, text: &str) -> String {
        let scope = "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request, \
                     SignedHeaders=host, Signature=x";
        let body = format!("Action={action}&Version=2010-05-08&UserName={user}{text}");
        let fields = [
            ("Host", "iam.amazonaws.com"),
            ("Authorization", scope),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let answer = exchange(self.server.port, &request("POST /", &fields, body.as_bytes()));
        let answer = answer.expect("moto answers");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status(), Some(200), "{action}: {text}");
        text
    }

    fn make_user(&self, name: &str, policy: &str) -> (String, String) {
        self.identity("CreateUser", name, "");
        let policy = policy.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let policy = format!("&PolicyName=all&PolicyDocument={policy}");
        self.identity("PutUserPolicy", name, &policy);
        let text = self.identity("CreateAccessKey", name, "");
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>")).expect("a field");
            rest.split_once('<').expect("its end").0.to_owned()
        };
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    /// Where a repository can be made, and how it is reached.
    #[must_use]
    pub fn target(&self) -> Target {
        let port = self.proxy.as_ref().map_or(self.server.port, |proxy| proxy.port);
        Target {
            url: format!("s3://{BUCKET}/some/prefix"),
            environment: vec![
                ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}").into()),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ACCESS_KEY_ID", self.key.0.clone().into()),
                ("AWS_SECRET_ACCESS_KEY", self.key.1.clone().into()),
                ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ],
            port,
        }
    }

    /// The folder with its data and log.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
