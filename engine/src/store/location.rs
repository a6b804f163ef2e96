//! Where a repository is, as the user writes it: a path or a URL without credentials.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::error::StoreError;
use super::local::LocalStore;
use super::memory::MemoryStore;

/// A place to keep a repository. Holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder: a plain path or `file://`.
    Local(PathBuf),
    /// `memory://`: a store that is empty when opened and gone when closed, for trials.
    Memory,
    /// A remote service.
    Remote {
        /// Which one.
        scheme: Scheme,
        /// What follows `://`: bucket, container or host, and the prefix.
        rest: String,
    },
}

/// The remote services that have a scheme of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://bucket/prefix`
    S3,
    /// `azblob://container/prefix`
    Azblob,
    /// `gcs://bucket/prefix`
    Gcs,
    /// `sftp://user@host/path`
    Sftp,
    /// `webdav://host/path`
    Webdav,
}

impl Scheme {
    const ALL: [Self; 5] = [Self::S3, Self::Azblob, Self::Gcs, Self::Sftp, Self::Webdav];

    /// As written before `://`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azblob => "azblob",
            Self::Gcs => "gcs",
            Self::Sftp => "sftp",
            Self::Webdav => "webdav",
        }
    }

    /// Where its credentials belong instead of the URL.
    const fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile by AWS_PROFILE",
            Self::Azblob => "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Sftp => "an SSH key through the agent (SSH_AUTH_SOCK) or ~/.ssh/config",
            Self::Webdav => "WEBDAV_USERNAME and WEBDAV_PASSWORD",
        }
    }

    /// A user's name alone is no secret where keys prove who somebody is.
    const fn allows_user(self) -> bool {
        matches!(self, Self::Sftp)
    }
}

/// Longest scheme that is taken for one, bytes.
const SCHEME_BYTES_MAX: usize = 16;

/// Splits `scheme://rest`; `None` for a path.
fn split_scheme(text: &[u8]) -> Option<(String, &[u8])> {
    let end = text.windows(3).position(|window| window == b"://")?;
    let (scheme, rest) = text.split_at_checked(end)?;
    let is_scheme = (1..=SCHEME_BYTES_MAX).contains(&scheme.len())
        && scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let name = is_scheme.then(|| String::from_utf8_lossy(scheme).to_ascii_lowercase())?;
    Some((name, rest.get(3..)?))
}

fn bad(location: impl Into<String>, why: &'static str) -> StoreError {
    StoreError::BadLocation { location: location.into(), why }
}

impl Location {
    /// Understands a location as given with `--repo`. Anything without `scheme://` is a path,
    /// which need not be UTF-8.
    ///
    /// # Errors
    /// [`StoreError::CredentialsInLocation`], which does not repeat them;
    /// [`StoreError::Unsupported`] for an unknown scheme; [`StoreError::BadLocation`].
    pub fn parse(given: &OsStr) -> Result<Self, StoreError> {
        if given.is_empty() {
            return Err(bad("", "it is empty"));
        }
        if given.as_bytes().contains(&0) {
            return Err(bad(given.to_string_lossy(), "it contains a NUL byte"));
        }
        let Some((name, rest)) = split_scheme(given.as_bytes()) else {
            return Ok(Self::Local(given.into()));
        };
        match name.as_str() {
            "file" => parse_file(rest),
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => Err(bad("memory://", "nothing may follow the scheme")),
            name => match Scheme::ALL.into_iter().find(|scheme| scheme.name() == name) {
                Some(scheme) => parse_remote(scheme, rest),
                None => Err(StoreError::Unsupported { scheme: name.to_owned() }),
            },
        }
    }

    /// Opens a repository that is there.
    ///
    /// # Errors
    /// [`StoreError::NoRepository`] when a folder holds none (a remote place is asked only when
    /// its `format` object is read); [`StoreError::Unsupported`] when this build cannot reach
    /// such a place; and the failures of the place itself.
    pub fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Local(path) => Ok(Arc::new(LocalStore::open(path)?)),
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            Self::Remote { scheme, .. } => {
                Err(StoreError::Unsupported { scheme: scheme.name().to_owned() })
            }
        }
    }

    /// Opens a place for a new repository, and creates the folder where there is none.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] when a folder holds other files; otherwise as
    /// [`Location::open`].
    pub fn create(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Local(path) => Ok(Arc::new(LocalStore::create(path)?)),
            Self::Memory | Self::Remote { .. } => self.open(),
        }
    }
}

fn parse_file(rest: &[u8]) -> Result<Location, StoreError> {
    let shown = || format!("file://{}", String::from_utf8_lossy(rest));
    let path = rest.strip_prefix(b"localhost").filter(|path| path.starts_with(b"/"));
    let path = path.unwrap_or(rest);
    if path.contains(&b'?') || path.contains(&b'#') {
        return Err(bad(shown(), "`?` and `#` in a file URL are written %3F and %23"));
    }
    if !path.starts_with(b"/") {
        return Err(bad(shown(), "a file URL has three slashes and an absolute path"));
    }
    let decoded = percent_decode(path).ok_or_else(|| bad(shown(), "`%` begins no byte"))?;
    Ok(Location::Local(OsString::from_vec(decoded).into()))
}

/// Undoes percent encoding; `None` where `%` is not followed by two hexadecimal digits, or
/// stands for a NUL byte.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
            decoded.push(Some(value).filter(|value| *value != 0)?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn parse_remote(scheme: Scheme, rest: &[u8]) -> Result<Location, StoreError> {
    // Nothing of `rest` is repeated before it is known to hold no secret.
    let shown = || format!("{}://", scheme.name());
    let credentials =
        StoreError::CredentialsInLocation { scheme: scheme.name(), variables: scheme.variables() };
    let Ok(rest) = str::from_utf8(rest) else {
        return Err(bad(shown(), "it is not UTF-8"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && (!scheme.allows_user() || user.contains(':'))
    {
        return Err(credentials);
    }
    if let Some((_, query)) = rest.split_once('?') {
        // A password may contain `?` and an `@` after it; a signature sits in the query.
        let secret = ["key", "secret", "token", "sig", "pass", "cred", "auth", "@"];
        let query = query.to_ascii_lowercase();
        return Err(if secret.iter().any(|word| query.contains(word)) {
            credentials
        } else {
            bad(shown(), "settings after `?` belong into the configuration")
        });
    }
    if authority.is_empty() {
        return Err(bad(shown(), "the bucket or host is missing"));
    }
    if rest.split('/').any(|part| part == "..") {
        return Err(bad(shown(), "`..` leads out of the prefix"));
    }
    Ok(Location::Remote { scheme, rest: rest.trim_end_matches('/').to_owned() })
}
