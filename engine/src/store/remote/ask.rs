//! Requests that opendal does not know, sent and counted like all others. They are signed by the signer
//! that opendal uses, with credentials from the same places.

use std::fmt;

use http::request::Builder;
use http::{Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpTransporter};
use reqsign_core::{Context, ProvideCredential, SignRequest, Signer, SigningCredential};
use reqsign_file_read_tokio::TokioFileRead;

/// Longest answer that is looked into, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Asks one service.
pub(super) struct Asker<K: SigningCredential> {
    transport: HttpTransporter,
    /// `None` for emulators that let everybody in.
    signer: Option<Signer<K>>,
}

impl<K: SigningCredential> fmt::Debug for Asker<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl<K: SigningCredential> Asker<K> {
    /// Signs by these credentials.
    pub(super) fn new(
        transport: HttpTransporter,
        credentials: impl ProvideCredential<Credential = K>,
        signer: impl SignRequest<Credential = K>,
    ) -> Self {
        // What is to be seen of the environment, the credentials bring with them.
        let context =
            Context::new().with_file_read(TokioFileRead).with_http_send(transport.clone());
        Self { signer: Some(Signer::new(context, credentials, signer)), transport }
    }

    /// Signs nothing.
    pub(super) const fn unsigned(transport: HttpTransporter) -> Self {
        Self { transport, signer: None }
    }

    /// Sends a request.
    pub(super) async fn send(
        &self,
        request: Builder,
        body: String,
    ) -> opendal::Result<Response<Buffer>> {
        let request = request.header(http::header::CONTENT_LENGTH, body.len());
        let request = request.body(Buffer::from(body.into_bytes())).map_err(|error| {
            Error::new(ErrorKind::ConfigInvalid, "no request can be made").set_source(error)
        })?;
        let (mut parts, body) = request.into_parts();
        if let Some(signer) = &self.signer {
            signer.sign(&mut parts, None).await.map_err(|error| {
                Error::new(ErrorKind::Unexpected, "signing http request").set_source(error)
            })?;
        }
        // The client sets it.
        parts.headers.remove(http::header::HOST);
        self.transport.send(Request::from_parts(parts, body)).await
    }

    /// Sends a request without a body; the text of the answer.
    pub(super) async fn text(&self, request: Builder) -> opendal::Result<String> {
        let response = self.send(request, String::new()).await?;
        match response.status() {
            status if status.is_success() => Ok(text(response)),
            _ => Err(refused(response)),
        }
    }
}

/// The beginning of an answer.
fn text(response: Response<Buffer>) -> String {
    let body = response.into_body().to_bytes();
    let body = body.get(..body.len().min(ANSWER_BYTES_MAX)).unwrap_or_default();
    String::from_utf8_lossy(body).into_owned()
}

/// The text between two tags of XML, as far as it is plain.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| value)
}

/// What an answer means that is no success, in the words that [`crate::store::object`] sorts by.
pub(super) fn refused(response: Response<Buffer>) -> Error {
    let status = response.status();
    let text = text(response);
    let said = |name| element(&text, name).unwrap_or_default();
    let (code, message) = (said("Code"), said("Message"));
    let kind = match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ErrorKind::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited,
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => ErrorKind::Unsupported,
        // What S3 says of a bucket without locks.
        StatusCode::BAD_REQUEST if message.contains("Lock") => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    };
    let error = Error::new(kind, format!("{{ code: {code:?}, message: {message:?} }} ({status})"));
    if status.is_server_error() { error.set_temporary() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let refusal = |status: StatusCode, code: &str, message: &str| {
            let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            let response = Response::builder().status(status).body(Buffer::from(text)).unwrap();
            refused(response)
        };
        let denied = refusal(StatusCode::FORBIDDEN, "AccessDenied", "no");
        assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
        assert!(denied.message().contains("code: \"AccessDenied\""), "{denied}");
        let missing = "Bucket is missing ObjectLockConfiguration";
        let missing = refusal(StatusCode::BAD_REQUEST, "InvalidRequest", missing);
        assert_eq!(missing.kind(), ErrorKind::Unsupported);
        let other = refusal(StatusCode::BAD_REQUEST, "InvalidRequest", "the date is in the past");
        assert_eq!(other.kind(), ErrorKind::Unexpected);
        let unknown = refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "");
        assert_eq!(unknown.kind(), ErrorKind::Unsupported);
        assert!(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "").is_temporary());
    }
}
