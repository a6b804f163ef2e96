//! The client under every service that speaks HTTP: limits the time of connecting, counts what
//! is sent and received, notes what time the service has, and says plainly what some answers mean.

use std::time::Duration;

use http::header::{AGE, DATE};
use http::{HeaderName, Method, Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::store::object::{ClockSeen, LockSeen, note_sent_sum};
use crate::store::traffic::{Meter, RequestKind};

/// Longest wait for a connection, handshakes included, in milliseconds.
const CONNECT_MS: u64 = 10_000;
/// How long a connection without a request is kept, in milliseconds: below what servers and the
/// devices on the way commonly allow, so that requests seldom meet a closed one.
const IDLE_MS: u64 = 20_000;

/// The header by which S3 says until when an object is locked.
pub(super) const LOCKED_UNTIL: &str = "x-amz-object-lock-retain-until-date";

/// The header with the MD5 sum of a body.
const SUM: &str = "content-md5";

/// Sends requests, and counts them.
pub(super) struct Transport {
    inner: ReqwestTransport,
    meter: Meter,
    lock_seen: LockSeen,
    clock_seen: ClockSeen,
}

impl Transport {
    /// A client of its own, so that nothing of one repository's connections is another's.
    pub(super) fn new(
        meter: Meter,
        lock_seen: LockSeen,
        clock_seen: ClockSeen,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS))
            .pool_idle_timeout(Duration::from_millis(IDLE_MS))
            .build()?;
        Ok(Self { inner: ReqwestTransport::new(client), meter, lock_seen, clock_seen })
    }
}

/// What a request asks for.
fn kind_of<B>(request: &Request<B>) -> RequestKind {
    let query = request.uri().query().unwrap_or_default();
    let asks = |name: &str| query.split('&').any(|part| part == name || part.starts_with(name));
    match *request.method() {
        Method::GET
            if asks("list-type=") || asks("comp=list") || request.uri().path().ends_with("/o") =>
        {
            RequestKind::List
        }
        // Google tells of an object without `alt=media`.
        Method::GET if request.uri().path().starts_with("/storage/v1/b/") && !asks("alt=media") => {
            RequestKind::Look
        }
        Method::GET => RequestKind::Read,
        Method::PUT => RequestKind::Write,
        Method::HEAD => RequestKind::Look,
        Method::DELETE => RequestKind::Delete,
        Method::POST if asks("uploadType=") || request.uri().path().starts_with("/upload/") => {
            RequestKind::Write
        }
        ref other if other.as_str() == "PROPFIND" => RequestKind::List,
        _ => RequestKind::Other,
    }
}

/// What an answer means that services do not sort by themselves.
fn meaning(response: &Response<HttpBody>) -> Option<Error> {
    match response.status() {
        StatusCode::UNAUTHORIZED => {
            Some(Error::new(ErrorKind::PermissionDenied, "the server answers 401 Unauthorized"))
        }
        StatusCode::MOVED_PERMANENTLY => {
            let region = response.headers().get("x-amz-bucket-region")?.to_str().ok()?;
            let text = format!("the bucket is in the region {region:?}: set AWS_REGION to it");
            Some(Error::new(ErrorKind::ConfigInvalid, text))
        }
        StatusCode::INSUFFICIENT_STORAGE => Some(
            Error::new(ErrorKind::Unexpected, "the server answers 507 Insufficient Storage")
                .set_source(std::io::Error::from(rustix::io::Errno::NOSPC)),
        ),
        _ => None,
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let kind = kind_of(&request);
        self.meter.sent(kind, request.body().len() as u64);
        if let Some(sum) = request.headers().get(SUM).and_then(|sum| sum.to_str().ok()) {
            note_sent_sum(sum);
        }
        let response = match self.inner.fetch(request).await {
            Ok(response) => response,
            Err(error) => {
                self.meter.failed(kind);
                return Err(error);
            }
        };
        if !response.status().is_success() {
            self.meter.failed(kind);
        }
        let headers = response.headers();
        if let Some(until) = headers.get(LOCKED_UNTIL).and_then(|until| until.to_str().ok()) {
            self.lock_seen.note(until);
        }
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(date) = text(DATE) {
            self.clock_seen.note(date, text(AGE));
        }
        if let Some(error) = meaning(&response) {
            return Err(error);
        }
        let meter = self.meter.clone();
        Ok(response.map(|body| body.map_inner(|stream| Box::new(Counted { stream, meter, kind }))))
    }
}

type Pieces = Box<dyn futures_core::Stream<Item = opendal::Result<Buffer>> + Send + Sync + Unpin>;

/// Counts the bytes of an answer as they come.
struct Counted {
    stream: Pieces,
    meter: Meter,
    kind: RequestKind,
}

impl futures_core::Stream for Counted {
    type Item = opendal::Result<Buffer>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let polled = std::pin::Pin::new(&mut self.stream).poll_next(context);
        if let std::task::Poll::Ready(Some(Ok(piece))) = &polled {
            self.meter.received(self.kind, piece.len() as u64);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_method_and_query() {
        for (method, uri, kind) in [
            ("GET", "http://h/b?list-type=2&prefix=keys/", RequestKind::List),
            ("GET", "http://h/c?restype=container&comp=list", RequestKind::List),
            ("GET", "http://h/storage/v1/b/x/o?prefix=p", RequestKind::List),
            ("GET", "http://h/storage/v1/b/x/o/packs%2Faa", RequestKind::Look),
            ("GET", "http://h/storage/v1/b/x/o/packs%2Faa?alt=media", RequestKind::Read),
            ("PROPFIND", "http://h/dav/keys/", RequestKind::List),
            ("GET", "http://h/b/packs/aa", RequestKind::Read),
            ("GET", "http://h/b/packs/comp", RequestKind::Read),
            ("PUT", "http://h/b/packs/aa", RequestKind::Write),
            ("POST", "http://h/upload/storage/v1/b/x/o?uploadType=media", RequestKind::Write),
            ("HEAD", "http://h/b/packs/aa", RequestKind::Look),
            ("DELETE", "http://h/b/packs/aa", RequestKind::Delete),
            ("POST", "http://sts/?Action=AssumeRole", RequestKind::Other),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert_eq!(kind_of(&request), kind, "{method} {uri}");
        }
    }
}
