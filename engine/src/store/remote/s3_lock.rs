//! Object Lock of S3.

use http::{HeaderValue, Method, Request};
use md5::{Digest as _, Md5};
use opendal::{Error, ErrorKind, HttpTransporter};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::ProvideCredential;

use super::ask::{Asker, refused};
use super::http::LOCKED_UNTIL;
use crate::store::lock::{LockMode, Locked};
use crate::store::object::{Answer, Beyond, base64};

/// Where the service is unless an endpoint is named.
const SERVICE: &str = "amazonaws.com";
/// The header that names the mode of a lock.
const LOCK_MODE: &str = "x-amz-object-lock-mode";

/// Where objects are.
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) region: String,
    /// With or without its scheme.
    pub(super) endpoint: Option<String>,
}

/// Asks for locks.
#[derive(Debug)]
pub(super) struct Locks {
    asker: Asker<Credential>,
    /// What comes before the path of an object, with a slash at its end.
    base: String,
}

/// The path with everything encoded that a URL could take for something else, as signatures want it.
fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

impl Bucket {
    fn base(&self) -> String {
        let Self { name, region, .. } = self;
        let bucket = match &self.endpoint {
            Some(endpoint) => {
                let scheme = if endpoint.contains("://") { "" } else { "https://" };
                format!("{scheme}{}/{name}", endpoint.trim_end_matches('/'))
            }
            None if name.contains('.') => format!("https://s3.{region}.{SERVICE}/{name}"),
            None => format!("https://{name}.s3.{region}.{SERVICE}"),
        };
        match self.prefix.as_str() {
            "" => format!("{bucket}/"),
            prefix => format!("{bucket}/{}/", encoded(prefix)),
        }
    }
}

impl Locks {
    pub(super) fn new(
        bucket: &Bucket,
        credentials: impl ProvideCredential<Credential = Credential>,
        transport: HttpTransporter,
    ) -> Self {
        let signer = RequestSigner::new("s3", &bucket.region);
        Self { asker: Asker::new(transport, credentials, signer), base: bucket.base() }
    }

    fn uri(&self, path: &str, query: &str) -> String {
        format!("{}{}{query}", self.base, encoded(path))
    }
}

impl Beyond for Locks {
    fn locked<'a>(&'a self, path: &'a str, version: Option<&'a str>) -> Option<Answer<'a, Locked>> {
        Some(Box::pin(async move {
            let query = version.map(|version| format!("?versionId={}", encoded(version)));
            let uri = self.uri(path, query.as_deref().unwrap_or_default());
            let request = Request::builder().method(Method::HEAD).uri(uri);
            let response = self.asker.send(request, String::new()).await?;
            if !response.status().is_success() {
                return Err(refused(response));
            }
            let headers = response.headers();
            let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            let until = text(LOCKED_UNTIL).filter(|_| text(LOCK_MODE).is_some());
            let until = until.and_then(|until| until.parse::<jiff::Timestamp>().ok());
            Ok(until.map_or(Locked::No, |until| Locked::Until(until.as_millisecond())))
        }))
    }

    fn lock<'a>(&'a self, path: &'a str, until_ms: i64, mode: LockMode) -> Option<Answer<'a, ()>> {
        Some(Box::pin(async move {
            let until = jiff::Timestamp::from_millisecond(until_ms).map_err(|error| {
                Error::new(ErrorKind::ConfigInvalid, "no calendar has that time").set_source(error)
            })?;
            let until = until.strftime("%Y-%m-%dT%H:%M:%SZ");
            let mode = mode.name();
            let body = format!(
                "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
                 <RetainUntilDate>{until}</RetainUntilDate></Retention>"
            );
            let request = Request::builder()
                .method(Method::PUT)
                .uri(self.uri(path, "?retention"))
                .header("content-md5", base64(&Md5::digest(body.as_bytes())));
            let response = self.asker.send(request, body).await?;
            if response.status().is_success() { Ok(()) } else { Err(refused(response)) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_where_opendal_finds_them() {
        let at = |name: &str, prefix: &str, endpoint: Option<&str>| {
            let (name, prefix) = (name.to_owned(), prefix.to_owned());
            let (region, endpoint) = ("eu-central-1".to_owned(), endpoint.map(str::to_owned));
            Bucket { name, prefix, region, endpoint }.base()
        };
        let own = "https://bucket.s3.eu-central-1.amazonaws.com";
        for (found, expected) in [
            (at("bucket", "", None), format!("{own}/")),
            (at("bucket", "some/p x", None), format!("{own}/some/p%20x/")),
            (at("a.b", "p", None), "https://s3.eu-central-1.amazonaws.com/a.b/p/".to_owned()),
            (at("b", "p", Some("http://127.0.0.1:9000/")), "http://127.0.0.1:9000/b/p/".to_owned()),
            (at("b", "p", Some("minio.local")), "https://minio.local/b/p/".to_owned()),
        ] {
            assert_eq!(found, expected);
        }
    }
}
