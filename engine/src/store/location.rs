//! Where a repository is, as the user writes it: a path or a URL without credentials.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::error::StoreError;
use super::local::LocalStore;
use super::memory::MemoryStore;
use super::options::{RemoteOptions, variables_of_service};

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

/// The remote services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://bucket/prefix`
    S3,
    /// `azblob://container/prefix`
    Azblob,
    /// `gcs://bucket/prefix`
    Gcs,
    /// `sftp://user@host/path`
    Sftp,
    /// `webdav://host/path`, over TLS
    Webdav,
    /// `webdav+http://host/path`, in the clear
    WebdavHttp,
    /// `opendal+NAME://…`: a service by the name that opendal has for it
    Opendal(ServiceName),
}

/// What comes before the name of a service that has no scheme of its own.
const OPENDAL: &str = "opendal+";

/// A service by the name that opendal has for it: ASCII letters and digits in lower case, `-`
/// between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// With [`OPENDAL`] before it.
    scheme: String,
}

impl ServiceName {
    /// Understands a scheme, given in lower case.
    fn of_scheme(scheme: &str) -> Option<Self> {
        let name = scheme.strip_prefix(OPENDAL)?;
        let plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        name.split('-').all(plain).then(|| Self { scheme: scheme.to_owned() })
    }

    /// As opendal has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.scheme.get(OPENDAL.len()..).unwrap_or_default()
    }
}

impl Scheme {
    const ALL: [Self; 6] =
        [Self::S3, Self::Azblob, Self::Gcs, Self::Sftp, Self::Webdav, Self::WebdavHttp];

    /// As written before `://`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::S3 => "s3",
            Self::Azblob => "azblob",
            Self::Gcs => "gcs",
            Self::Sftp => "sftp",
            Self::Webdav => "webdav",
            Self::WebdavHttp => "webdav+http",
            Self::Opendal(service) => &service.scheme,
        }
    }

    /// The scheme of this name, given in lower case.
    fn of_name(name: &str) -> Option<Self> {
        let own = Self::ALL.into_iter().find(|scheme| scheme.name() == name);
        own.or_else(|| ServiceName::of_scheme(name).map(Self::Opendal))
    }

    /// All names, for messages.
    fn names() -> String {
        let names = Self::ALL.iter().map(Self::name).chain(["opendal+NAME"]);
        names.collect::<Vec<_>>().join(", ")
    }

    /// Where its credentials belong instead of the URL.
    const fn variables(&self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile by AWS_PROFILE",
            Self::Azblob => "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Sftp => "an SSH key through the agent (SSH_AUTH_SOCK) or ~/.ssh/config",
            Self::Webdav | Self::WebdavHttp => "WEBDAV_USERNAME and WEBDAV_PASSWORD",
            Self::Opendal(_) => "the service's settings as OPENDAL_<NAME>_<SETTING>",
        }
    }

    /// What the names of variables begin with that say how such a place is reached.
    #[must_use]
    pub fn variables_before(&self) -> Vec<String> {
        match self {
            Self::S3 => vec!["AWS_".to_owned()],
            Self::Azblob => vec!["AZURE_".to_owned()],
            Self::Gcs => vec!["GOOGLE_".to_owned(), "STORAGE_".to_owned()],
            Self::Sftp => vec!["SFTP_".to_owned()],
            Self::Webdav | Self::WebdavHttp => vec!["WEBDAV_".to_owned()],
            Self::Opendal(service) => vec![variables_of_service(service.as_str())],
        }
    }

    /// A user's name alone is no secret where keys prove who somebody is.
    const fn allows_user(&self) -> bool {
        matches!(self, Self::Sftp)
    }

    /// Whether a host follows `://`, whose name is the same in capitals.
    const fn begins_with_host(&self) -> bool {
        matches!(self, Self::Sftp | Self::Webdav | Self::WebdavHttp)
    }

    /// Whether there may be nothing between `://` and the next slash: all of it may be set elsewhere.
    const fn allows_nobody(&self) -> bool {
        matches!(self, Self::Opendal(_))
    }
}

/// Longest scheme that is taken for one, bytes.
const SCHEME_BYTES_MAX: usize = 40;

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

/// As the user writes it; it holds no credentials.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("memory://"),
            Self::Remote { scheme, rest } => write!(f, "{}://{rest}", scheme.name()),
        }
    }
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
            name => match Scheme::of_name(name) {
                Some(scheme) => parse_remote(scheme, rest),
                None => {
                    Err(StoreError::Unsupported { scheme: name.to_owned(), known: Scheme::names() })
                }
            },
        }
    }

    /// Whether this is `other` or lies below it. Hosts count alike in capitals, and slashes at ends or
    /// doubled do not count.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let (
            Self::Remote { scheme, rest },
            Self::Remote { scheme: other_scheme, rest: other_rest },
        ) = (self, other)
        else {
            return self == other;
        };
        if scheme != other_scheme {
            return false;
        }
        let parts = |rest: &str| {
            let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
            let head =
                if scheme.begins_with_host() { head.to_ascii_lowercase() } else { head.into() };
            let tail = tail.split('/').filter(|part| !part.is_empty() && *part != ".");
            (head, tail.map(str::to_owned).collect::<Vec<_>>())
        };
        let ((head, tail), (other_head, other_tail)) = (parts(rest), parts(other_rest));
        other_rest.is_empty() || (head == other_head && tail.starts_with(&other_tail))
    }

    /// Opens a repository that is there. A remote place is asked for its `format` object, so that
    /// wrong credentials or a wrong name are told at once.
    ///
    /// # Errors
    /// [`StoreError::NoRepository`] when the place holds none; [`StoreError::Unsupported`] when
    /// this build cannot reach such a place; and the failures of the place itself.
    pub fn open(&self, options: &RemoteOptions) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Local(path) => Ok(Arc::new(LocalStore::open(path)?)),
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            Self::Remote { scheme, rest } => {
                let (store, found) = connect(scheme, rest, options)?;
                if !found {
                    let location = store.location();
                    let why = "it holds no object named `format`";
                    return Err(StoreError::NoRepository { location, why });
                }
                Ok(store)
            }
        }
    }

    /// Opens a place for a new repository, and creates the folder where there is none.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] when a folder holds other files; otherwise as
    /// [`Location::open`].
    pub fn create(&self, options: &RemoteOptions) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Local(path) => Ok(Arc::new(LocalStore::create(path)?)),
            Self::Memory => self.open(options),
            Self::Remote { scheme, rest } => Ok(connect(scheme, rest, options)?.0),
        }
    }

    /// Refuses a folder whose parent is not there: the path is misspelt, or a file system is not
    /// mounted, and what would be written there would lie somewhere else.
    ///
    /// # Errors
    /// [`StoreError::NoRepository`].
    pub fn require_parent(&self) -> Result<(), StoreError> {
        let Self::Local(path) = self else { return Ok(()) };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        match path.parent() {
            Some(parent) if !parent.is_dir() => Err(StoreError::NoRepository {
                location: self.to_string(),
                why: "the folder above it does not exist",
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// What [`Self::create`] would open, without creating anything; `None` where there is no
    /// folder yet.
    ///
    /// # Errors
    /// As [`Self::create`], as far as can be told.
    pub fn check_create(
        &self,
        options: &RemoteOptions,
    ) -> Result<Option<Arc<dyn Store>>, StoreError> {
        match self {
            Self::Local(path) if !path.exists() => Ok(None),
            Self::Local(path) => Ok(Some(Arc::new(LocalStore::open_new(path)?))),
            Self::Memory | Self::Remote { .. } => self.create(options).map(Some),
        }
    }
}

/// Connects to a remote place, and says whether it has a `format` object.
#[cfg(feature = "object-stores")]
fn connect(
    scheme: &Scheme,
    rest: &str,
    options: &RemoteOptions,
) -> Result<(Arc<dyn Store>, bool), StoreError> {
    super::remote::connect(scheme, rest, options)
}

#[cfg(not(feature = "object-stores"))]
fn connect(
    scheme: &Scheme,
    _: &str,
    _: &RemoteOptions,
) -> Result<(Arc<dyn Store>, bool), StoreError> {
    Err(StoreError::Unsupported { scheme: scheme.name().to_owned(), known: String::new() })
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
    let credentials = StoreError::CredentialsInLocation {
        scheme: scheme.name().to_owned(),
        variables: scheme.variables(),
    };
    let Ok(rest) = str::from_utf8(rest) else {
        return Err(bad(shown(), "it is not UTF-8"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') || (!user.is_empty() && !scheme.allows_user()) {
        return Err(credentials);
    }
    // A password with a slash in it ends the host early: what looks like a port must be one.
    if host.split_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit())) {
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
    if authority.is_empty() && !scheme.allows_nobody() {
        return Err(bad(shown(), "the bucket or host is missing"));
    }
    if rest.split('/').any(|part| part == "..") {
        return Err(bad(shown(), "`..` leads out of the prefix"));
    }
    Ok(Location::Remote { scheme, rest: rest.trim_end_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::{Class, Explain};

    fn parse(text: &str) -> Result<Location, StoreError> {
        Location::parse(OsStr::new(text))
    }

    #[test]
    fn paths_and_file_urls() {
        for (given, path) in [
            ("/backup", "/backup"),
            ("relative/dir", "relative/dir"),
            ("./a:b", "./a:b"),
            ("50%/backup?", "50%/backup?"),
            ("C://x/y", "C://x/y"),
            ("file:///backup", "/backup"),
            ("FILE://localhost/backup", "/backup"),
            ("file:///with%20space%25", "/with space%"),
        ] {
            let expected = match given {
                // One letter is a scheme like any other.
                "C://x/y" => None,
                _ => Some(Location::Local(path.into())),
            };
            assert_eq!(parse(given).ok(), expected, "{given}");
        }
        let raw = OsStr::from_bytes(b"/back\xffup");
        assert_eq!(Location::parse(raw).unwrap(), Location::Local(Path::new(raw).into()));
    }

    fn opendal(name: &str) -> Scheme {
        Scheme::Opendal(ServiceName::of_scheme(&format!("opendal+{name}")).unwrap())
    }

    #[test]
    fn remote_places() {
        for (given, scheme, rest) in [
            ("s3://bucket/some/prefix/", Scheme::S3, "bucket/some/prefix"),
            ("azblob://container", Scheme::Azblob, "container"),
            ("gcs://bucket/a@b:c", Scheme::Gcs, "bucket/a@b:c"),
            ("sftp://user@host:22/path", Scheme::Sftp, "user@host:22/path"),
            ("WebDAV://host/path", Scheme::Webdav, "host/path"),
            ("webdav+http://host:80/path", Scheme::WebdavHttp, "host:80/path"),
            ("opendal+b2://bucket/path/", opendal("b2"), "bucket/path"),
            ("Opendal+Yandex-Disk:///path", opendal("yandex-disk"), "/path"),
            ("opendal+vercel-artifacts://", opendal("vercel-artifacts"), ""),
        ] {
            let location = Location::Remote { scheme, rest: rest.to_owned() };
            assert_eq!(parse(given).unwrap(), location);
        }
        assert_eq!(parse("memory://").unwrap(), Location::Memory);
    }

    #[test]
    fn what_lies_below_a_place_is_told_from_what_only_begins_like_it() {
        let within =
            |given: &str, other: &str| parse(given).unwrap().is_within(&parse(other).unwrap());
        for (given, other) in [
            ("s3://bucket/crm", "s3://bucket"),
            ("s3://bucket/crm", "s3://bucket/crm/"),
            ("s3://bucket/crm/db", "S3://bucket/crm"),
            ("s3://bucket//crm/./db/", "s3://bucket/crm"),
            ("webdav://Host:80/x", "webdav://host:80/"),
            ("opendal+b2://bucket/x", "opendal+b2://"),
            ("opendal+yandex-disk:///x/y", "opendal+yandex-disk:///x"),
            ("/backup", "/backup"),
        ] {
            assert!(within(given, other), "{given} {other}");
        }
        for (given, other) in [
            ("s3://bucket-two/crm", "s3://bucket"),
            ("s3://bucket/crm-two", "s3://bucket/crm"),
            ("s3://bucket", "s3://bucket/crm"),
            ("s3://bucket/CRM", "s3://bucket/crm"),
            ("gcs://bucket/crm", "s3://bucket"),
            ("webdav+http://host/x", "webdav://host"),
            ("webdav://host.example/x", "webdav://host"),
            ("opendal+b2://two/x", "opendal+b2://bucket"),
            ("/backup/x", "/backup"),
        ] {
            assert!(!within(given, other), "{given} {other}");
        }
    }

    #[cfg(feature = "object-stores")]
    #[test]
    fn a_remote_place_that_does_not_answer_is_told_with_its_name() {
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = RemoteOptions::new(|name| match name {
            "AWS_ENDPOINT_URL" => Some(format!("http://user:hunter2@127.0.0.1:{port}")),
            _ => None,
        });
        let error = parse("s3://bucket/prefix").unwrap().open(&options).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("s3://bucket/prefix"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
        assert_eq!(error.class(), Class::Unreachable);
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for given in [
            "s3://AKIA:hunter2@bucket/prefix",
            "s3://hunter2@bucket",
            "sftp://user:hunter2@host/path",
            "webdav://user:hunter2@host",
            "webdav://user:pa?ss@hunter2/",
            "webdav://user:pa/hunter2@host/",
            "azblob://container/x?sig=hunter2&se=1",
            "s3://bucket?secret_access_key=hunter2",
            "opendal+b2://key:hunter2@bucket",
            "opendal+b2:///?application_key=hunter2",
        ] {
            let error = parse(given).unwrap_err();
            assert!(matches!(error, StoreError::CredentialsInLocation { .. }), "{given} {error:?}");
            assert_eq!(error.class(), Class::Usage);
            assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"));
        }
        let hint = parse("s3://a:b@c").unwrap_err().hint().unwrap();
        assert!(hint.contains("AWS_SECRET_ACCESS_KEY"), "{hint}");
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for given in [
            "",
            "a\0b",
            "file://",
            "file://host/path",
            "file://relative",
            "file:///a?b",
            "file:///a#b",
            "file:///a%2",
            "file:///a%zz",
            "file:///a%00b",
            "memory://x",
            "s3://",
            "s3:///prefix",
            "s3://bucket/../other",
            "s3://bucket?region=x",
        ] {
            let error = parse(given).unwrap_err();
            assert!(matches!(error, StoreError::BadLocation { .. }), "{given} {error:?}");
            assert_eq!(error.class(), Class::Usage);
        }
        for unknown in ["gopher://hole", "opendal+://x", "opendal+-b2://x", "opendal+b.2://x"] {
            let error = parse(unknown).unwrap_err();
            let (scheme, _) = unknown.split_once("://").unwrap();
            assert!(error.to_string().contains(scheme), "{error}");
            assert_eq!(error.class(), Class::Usage);
            assert!(error.hint().unwrap().contains("webdav+http"), "{:?}", error.hint());
        }
    }

    #[test]
    fn a_local_place_is_created_and_opened() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local(folder.path().join("new"));
        let options = RemoteOptions::default();
        assert_eq!(location.open(&options).unwrap_err().class(), Class::NoRepository);
        let store = location.create(&options).unwrap();
        let name = cairn_format::names::ObjectName::Format;
        store.put(&name, b"format").unwrap();
        assert_eq!(location.open(&options).unwrap().get(&name, 6).unwrap(), &b"format"[..]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes: Vec<u8>) {
            let _either = Location::parse(OsStr::from_bytes(&bytes));
        }

        #[test]
        fn a_password_is_never_repeated(
            scheme in "s3|azblob|gcs|sftp|webdav|opendal\\+b2|gopher",
            user in "[a-z]{1,8}",
            tail in "[a-z?#/@]{0,12}",
        ) {
            let given = format!("{scheme}://{user}:hunter2@{tail}");
            let error = parse(&given).unwrap_err();
            let told = format!("{error} {error:?}");
            proptest::prop_assert!(!told.contains("hunter2"));
        }
    }
}
