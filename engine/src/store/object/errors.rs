//! What services answer when they fail, in the store's terms.

use std::error::Error as _;
use std::io;

use opendal::ErrorKind;
use rustix::io::Errno;

use crate::store::error::{Cause, Place, StoreError};

/// Longest text of a service that is repeated, characters.
const TEXT_CHARS_MAX: usize = 300;

/// Codes of services that mean that whoever asks is not let in, whatever the status beside them.
const DENIED: [&str; 9] = [
    "AccessDenied",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];
/// Codes that mean that a quota is used up or a disk full.
const FULL: [&str; 4] =
    ["QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageQuotaExceeded"];
/// Codes that mean that the place objects are to lie in is not there.
const NO_CONTAINER: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];
/// Codes that mean that another region, or another endpoint, is to be asked.
const ELSEWHERE: [&str; 4] = [
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
];
/// What opendal calls a failure to find or use credentials.
const CREDENTIALS: [&str; 2] = ["signing http request", "loading credential"];

/// The value of a field in the text that Rust makes of a service's error.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{name}: \""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// What a service said, on one line and not too long.
fn plain(text: &str) -> String {
    let said = match (field(text, "code"), field(text, "message")) {
        (Some(code), Some(message)) if !code.is_empty() => format!("{code}: {message}"),
        _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    said.chars().take(TEXT_CHARS_MAX).collect()
}

/// Whether a service means that it knows no conditional writes.
pub(super) fn refuses_condition(error: &opendal::Error) -> bool {
    error.kind() == ErrorKind::Unsupported
        || field(error.message(), "code") == Some("NotImplemented")
}

/// Sorts opendal's errors. Their contexts are left out of messages: they hold URLs, whose
/// queries may be signed, and whole answers.
pub(in crate::store) fn from_opendal(
    action: &'static str,
    place: Place,
    error: &opendal::Error,
) -> StoreError {
    let said = error.message();
    let mut text = match error.kind() {
        ErrorKind::Unexpected | ErrorKind::ConfigInvalid => plain(said),
        kind => format!("{kind}: {}", plain(said)),
    };
    let mut full = false;
    let mut innermost = error.source();
    while let Some(inner) = innermost {
        full |= inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            .map(Errno::from_raw_os_error)
            .is_some_and(|errno| matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG));
        if inner.source().is_none() {
            text = format!("{text}: {}", plain(&inner.to_string()));
        }
        innermost = inner.source();
    }
    let source: Cause = text.clone().into();
    let code = field(said, "code").unwrap_or_default();
    match error.kind() {
        _ if full || FULL.contains(&code) => StoreError::Full { place, source },
        _ if DENIED.contains(&code) => StoreError::Denied { place, source },
        _ if NO_CONTAINER.contains(&code) || said.contains("bucket does not exist") => {
            StoreError::NoContainer { location: place.location, source }
        }
        _ if ELSEWHERE.contains(&code) => {
            StoreError::Misconfigured { location: place.location, source }
        }
        _ if CREDENTIALS.iter().any(|words| said.starts_with(words)) => {
            let source: Cause = format!("no usable credentials: {text}").into();
            StoreError::Denied { place, source }
        }
        // What `ssh` says when it does not connect.
        _ if said == "ssh error" => {
            let denied = ["Permission denied", "Host key verification failed"];
            if denied.iter().any(|words| text.contains(words)) {
                StoreError::Denied { place, source }
            } else {
                StoreError::Unreachable { place, source }
            }
        }
        ErrorKind::NotFound => StoreError::NotFound { place },
        ErrorKind::PermissionDenied => StoreError::Denied { place, source },
        ErrorKind::Unsupported => StoreError::NotOffered { place, source },
        ErrorKind::RateLimited => StoreError::Throttled { place, source },
        ErrorKind::IsADirectory => StoreError::NotAnObject { place, found: "a folder" },
        ErrorKind::ConfigInvalid => StoreError::Misconfigured { location: place.location, source },
        // Two writers met; the one who asks again finds the other's object.
        ErrorKind::Conflict => StoreError::Unreachable { place, source },
        _ if error.is_temporary() => StoreError::Unreachable { place, source },
        _ => StoreError::Io { action, place, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(error: opendal::Error) -> StoreError {
        from_opendal("write", Place::root("here"), &error)
    }

    #[test]
    fn errors_of_services_are_sorted() {
        let plain = |kind| sorted(opendal::Error::new(kind, "in its words"));
        assert!(matches!(plain(ErrorKind::NotFound), StoreError::NotFound { .. }));
        assert!(matches!(plain(ErrorKind::PermissionDenied), StoreError::Denied { .. }));
        assert!(matches!(plain(ErrorKind::RateLimited), StoreError::Throttled { .. }));
        assert!(matches!(plain(ErrorKind::Conflict), StoreError::Unreachable { .. }));
        assert!(matches!(plain(ErrorKind::ConfigInvalid), StoreError::Misconfigured { .. }));
        assert!(matches!(plain(ErrorKind::Unexpected), StoreError::Io { .. }));
        let temporary = opendal::Error::new(ErrorKind::Unexpected, "x").set_temporary();
        assert!(sorted(temporary).is_transient());
        // A full disk does not empty by asking again, whatever opendal says.
        let full = opendal::Error::new(ErrorKind::Unexpected, "x")
            .set_temporary()
            .set_source(io::Error::from(Errno::NOSPC));
        let full = sorted(full);
        assert!(matches!(full, StoreError::Full { .. }) && !full.is_transient(), "{full:?}");
    }

    #[test]
    fn codes_of_services_tell_more_than_their_status() {
        let coded = |code: &str| {
            let text = format!("S3Error {{ code: \"{code}\", message: \"its words\" }}");
            sorted(opendal::Error::new(ErrorKind::Unexpected, text))
        };
        assert!(matches!(coded("ExpiredToken"), StoreError::Denied { .. }));
        assert!(matches!(coded("PermanentRedirect"), StoreError::Misconfigured { .. }));
        assert!(matches!(coded("NoSuchBucket"), StoreError::NoContainer { .. }));
        assert!(matches!(coded("XMinioStorageFull"), StoreError::Full { .. }));
        let other = coded("Strange");
        assert!(matches!(other, StoreError::Io { .. }), "{other:?}");
        assert_eq!(std::error::Error::source(&other).unwrap().to_string(), "Strange: its words");
        let nobody = opendal::Error::new(ErrorKind::Unexpected, "signing http request");
        assert!(matches!(sorted(nobody), StoreError::Denied { .. }));
    }

    #[test]
    fn what_services_say_is_kept_short() {
        let page = format!("<html>\n{}</html>", "much\n".repeat(1_000));
        let error = sorted(opendal::Error::new(ErrorKind::Unexpected, page));
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.len() <= TEXT_CHARS_MAX && !said.contains('\n'), "{said}");
    }

    #[test]
    fn signed_urls_stay_out_of_messages() {
        let error = opendal::Error::new(ErrorKind::Unexpected, "send http request")
            .with_context("uri", "https://host/?sig=hunter2");
        let error = from_opendal("read", Place::root("azblob://c"), &error);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("send http request"), "{source}");
        assert!(!format!("{error} {error:?} {source}").contains("hunter2"));
    }
}
