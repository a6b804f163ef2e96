//! What can go wrong between the engine and the place that keeps the objects.

use std::fmt;
use std::io;
use std::time::Duration;

use cairn_format::names::{Folder, ObjectName};
use rustix::io::Errno;

use crate::error::{Class, Explain};

/// The thing an error is about, inside its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// One object.
    Object(ObjectName),
    /// A folder of objects.
    Folder(Folder),
    /// The folder of unfinished files of a local store.
    Temporary,
    /// The repository's own folder or prefix.
    Root,
}

/// Which thing, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store, without credentials.
    pub location: String,
    /// What in it; boxed, so that an error stays small.
    pub thing: Box<Thing>,
}

impl Place {
    /// An object at a location.
    #[must_use]
    pub fn object(location: impl Into<String>, name: &ObjectName) -> Self {
        Self { location: location.into(), thing: Box::new(Thing::Object(*name)) }
    }

    /// A folder at a location.
    #[must_use]
    pub fn folder(location: impl Into<String>, folder: Folder) -> Self {
        Self { location: location.into(), thing: Box::new(Thing::Folder(folder)) }
    }

    /// The location as a whole.
    #[must_use]
    pub fn root(location: impl Into<String>) -> Self {
        Self { location: location.into(), thing: Box::new(Thing::Root) }
    }

    /// Whether it is the object every repository begins with.
    fn is_format(&self) -> bool {
        *self.thing == Thing::Object(ObjectName::Format)
    }

    pub(crate) fn temporary(location: impl Into<String>) -> Self {
        Self { location: location.into(), thing: Box::new(Thing::Temporary) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.thing {
            Thing::Object(name) => write!(f, "{name} in {}", self.location),
            Thing::Folder(folder) => write!(f, "{} in {}", folder.path(), self.location),
            Thing::Temporary => write!(f, "tmp/ in {}", self.location),
            Thing::Root => f.write_str(&self.location),
        }
    }
}

/// Why a place failed, in its own words.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The object is not there.
    #[error("{place} is not there")]
    NotFound {
        /// What was asked for.
        place: Place,
    },
    /// The location holds no repository.
    #[error("no repository at {location}: {why}")]
    NoRepository {
        /// The location.
        location: String,
        /// What was found instead.
        why: &'static str,
    },
    /// The folder cannot become a repository.
    #[error("{location} holds other files, such as {found:?}")]
    Occupied {
        /// The location.
        location: String,
        /// One entry that belongs to no repository.
        found: String,
    },
    /// The place does not answer. May pass.
    #[error("{place} cannot be reached")]
    Unreachable {
        /// What was asked for.
        place: Place,
        /// Why.
        source: Cause,
    },
    /// The place asks for fewer requests. Passes.
    #[error("{place} is limited by the storage's request rate")]
    Throttled {
        /// What was asked for.
        place: Place,
        /// In the storage's words.
        source: Cause,
    },
    /// The place did not answer in time. May pass; the request may have been carried out.
    #[error("{place} gave no answer within {} ms", after.as_millis())]
    Timeout {
        /// What was asked for.
        place: Place,
        /// How long was waited.
        after: Duration,
    },
    /// Nothing, or next to nothing, came of the place for too long: see [`super::patient`].
    #[error("{location} got nowhere for {} s, and was given up", after.as_secs_f64())]
    GivenUp {
        /// The place.
        location: String,
        /// How long it may get nowhere.
        after: Duration,
    },
    /// The place does not allow it.
    #[error("access to {place} is denied")]
    Denied {
        /// What was asked for.
        place: Place,
        /// Why.
        source: Cause,
    },
    /// No room, or a quota is used up.
    #[error("no space left for {place}")]
    Full {
        /// What was being written.
        place: Place,
        /// Why.
        source: Cause,
    },
    /// The object ends before the bytes asked for do.
    #[error("{place} has {available} of the {wanted} bytes asked for at offset {offset}")]
    Short {
        /// The object.
        place: Place,
        /// Where reading began.
        offset: u64,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes there are from the offset on.
        available: u64,
    },
    /// The object is larger than such an object may be.
    #[error("{place} has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge {
        /// The object.
        place: Place,
        /// Its size, or what was seen of it.
        bytes: u64,
        /// The most that was asked for.
        bytes_max: u64,
    },
    /// `format` is there already, with other bytes.
    #[error("{place} exists already")]
    Exists {
        /// The object.
        place: Place,
    },
    /// The bytes offered do not have the hash they are named by, and others are there.
    #[error("the bytes offered for {place} do not match its name")]
    WrongName {
        /// The object.
        place: Place,
    },
    /// The medium does not give the object or part of it: a bad sector, or a checksum of the file
    /// system that fails. Other parts of it may be had.
    #[error("{place} cannot be read from its medium")]
    Unreadable {
        /// The object.
        place: Place,
        /// Why.
        source: Cause,
    },
    /// What was stored is not what was sent.
    #[error("{place} has {found} bytes after {sent} bytes were written")]
    BadWrite {
        /// The object.
        place: Place,
        /// Bytes sent.
        sent: u64,
        /// Bytes found afterwards.
        found: u64,
    },
    /// What was stored has the size of what was sent, and is something else.
    #[error("{place} is not what was written there")]
    Altered {
        /// The object.
        place: Place,
    },
    /// The bucket or container is not there.
    #[error("there is no bucket or container for {location}")]
    NoContainer {
        /// The location.
        location: String,
        /// In the service's words.
        source: Cause,
    },
    /// The place locks what is written for longer than data may stay that expired.
    #[error(
        "{location} locks what is written for {locked_hours} hours, longer than the {within_hours} \
         hours after which what expired must be gone"
    )]
    Locked {
        /// The place.
        location: String,
        /// How long what is written is locked, hours.
        locked_hours: u64,
        /// How soon what expired must be gone, hours.
        within_hours: u64,
    },
    /// The place does not know what it was asked for.
    #[error("what was asked for {place} is not offered there")]
    NotOffered {
        /// What was asked about.
        place: Place,
        /// In its words.
        source: Cause,
    },
    /// The place keeps no locks on objects, or they are not switched on.
    #[error("{location} keeps no locks on objects")]
    NoLocks {
        /// The place.
        location: String,
    },
    /// The place does not do what every repository needs.
    #[error("{location} cannot keep a repository: {why}")]
    Unfit {
        /// The location.
        location: String,
        /// What it does not do.
        why: &'static str,
    },
    /// What is set for the place cannot be used.
    #[error("{location} cannot be used as it is configured")]
    Misconfigured {
        /// The location.
        location: String,
        /// Why.
        source: Cause,
    },
    /// Something else than a plain file or folder has the name.
    #[error("{place} is {found}")]
    NotAnObject {
        /// The name.
        place: Place,
        /// What it is.
        found: &'static str,
    },
    /// Data could not be made durable. Never retried: the kernel may report the next attempt as
    /// a success although the data is lost.
    #[error("{place} could not be made durable (fsync failed)")]
    FsyncFailed {
        /// What was being written, now or by the call that failed first.
        place: Place,
        /// Why.
        source: Cause,
    },
    /// The location cannot be understood.
    #[error("{location:?} is not a location: {why}")]
    BadLocation {
        /// The location as given (or its part that holds no secrets).
        location: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The location carries credentials. They are not repeated here.
    #[error("the {scheme} location contains credentials")]
    CredentialsInLocation {
        /// The scheme.
        scheme: String,
        /// Where credentials belong.
        variables: &'static str,
    },
    /// The kind of storage is unknown, or not part of this build.
    #[error("storage of the kind {scheme:?} is not supported by this build")]
    Unsupported {
        /// The scheme.
        scheme: String,
        /// Those that are, separated by commas; empty if there are none.
        known: String,
    },
    /// The one who asked for a listing ended it.
    #[error("the listing of {place} was stopped")]
    Stopped {
        /// The folder.
        place: Place,
    },
    /// The simulated process is dead (test kit only).
    #[error("simulated crash: call {call} on {place} came after the end")]
    Crashed {
        /// What was asked for.
        place: Place,
        /// Number of the call.
        call: u64,
    },
    /// Any other failure of the place.
    #[error("cannot {action} {place}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        place: Place,
        /// Why.
        source: Cause,
    },
}

impl StoreError {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::Timeout { .. } => true,
            Self::NotFound { .. }
            | Self::NoRepository { .. }
            | Self::Occupied { .. }
            | Self::GivenUp { .. }
            | Self::Denied { .. }
            | Self::Full { .. }
            | Self::Short { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::Exists { .. }
            | Self::WrongName { .. }
            | Self::BadWrite { .. }
            | Self::Altered { .. }
            | Self::NoContainer { .. }
            | Self::Misconfigured { .. }
            | Self::Unfit { .. }
            | Self::Locked { .. }
            | Self::NoLocks { .. }
            | Self::NotOffered { .. }
            | Self::NotAnObject { .. }
            | Self::FsyncFailed { .. }
            | Self::BadLocation { .. }
            | Self::CredentialsInLocation { .. }
            | Self::Unsupported { .. }
            | Self::Stopped { .. }
            | Self::Crashed { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Whether the place as a whole does not answer, or not to these credentials, after whatever was
    /// tried: what is asked for may be sound there, and be had from another copy.
    #[must_use]
    pub const fn is_out_of_reach(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Throttled { .. }
                | Self::Timeout { .. }
                | Self::GivenUp { .. }
                | Self::Denied { .. }
                | Self::NoContainer { .. }
        )
    }

    /// Sorts an operating system's error number.
    pub(crate) fn from_errno(action: &'static str, place: Place, errno: Errno) -> Self {
        let source: Cause = io::Error::from(errno).into();
        match errno {
            Errno::NOENT => Self::NotFound { place },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied { place, source },
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full { place, source },
            Errno::LOOP => Self::NotAnObject { place, found: "a symbolic link" },
            Errno::NOTDIR => Self::NotAnObject { place, found: "not in a folder of its own" },
            Errno::ISDIR => Self::NotAnObject { place, found: "a folder" },
            // What network file systems and FUSE answer while their other end is away.
            Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NOTCONN
            | Errno::CONNABORTED
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::STALE
            | Errno::NODEV
            | Errno::NXIO => Self::Unreachable { place, source },
            _ => Self::Io { action, place, source },
        }
    }

    /// The same where an object is read: what kernels and file systems answer for a medium error, or
    /// for a checksum that fails, concerns this object, and others can be read.
    pub(crate) fn from_read(action: &'static str, place: Place, errno: Errno) -> Self {
        match errno {
            Errno::IO | Errno::NODATA | Errno::UCLEAN | Errno::BADMSG => {
                Self::Unreadable { place, source: io::Error::from(errno).into() }
            }
            errno => Self::from_errno(action, place, errno),
        }
    }
}

const NO_REPOSITORY_HINT: &str = "check the location, and that its file system is mounted; \
                                  `cairn init` makes a new repository";

impl Explain for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "store.not_found",
            Self::NoRepository { .. } => "store.no_repository",
            Self::Occupied { .. } => "store.occupied",
            Self::Unreachable { .. } => "store.unreachable",
            Self::Throttled { .. } => "store.throttled",
            Self::Timeout { .. } => "store.timeout",
            Self::GivenUp { .. } => "store.given_up",
            Self::Denied { .. } => "store.denied",
            Self::Full { .. } => "store.full",
            Self::Short { .. } => "store.short",
            Self::TooLarge { .. } => "store.too_large",
            Self::Unreadable { .. } => "store.unreadable",
            Self::Exists { .. } => "store.exists",
            Self::WrongName { .. } => "store.wrong_name",
            Self::BadWrite { .. } => "store.bad_write",
            Self::Altered { .. } => "store.altered",
            Self::NoContainer { .. } => "store.no_container",
            Self::Misconfigured { .. } => "store.misconfigured",
            Self::Unfit { .. } => "store.unfit",
            Self::Locked { .. } => "store.locked",
            Self::NoLocks { .. } => "store.no_locks",
            Self::NotOffered { .. } => "store.not_offered",
            Self::NotAnObject { .. } => "store.not_an_object",
            Self::FsyncFailed { .. } => "store.fsync_failed",
            Self::BadLocation { .. } => "store.bad_location",
            Self::CredentialsInLocation { .. } => "store.credentials_in_location",
            Self::Unsupported { .. } => "store.unsupported",
            Self::Stopped { .. } => "store.stopped",
            Self::Crashed { .. } => "store.crashed",
            Self::Io { .. } => "store.io",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::NoRepository { .. } | Self::NoContainer { .. } => Class::NoRepository,
            Self::NotFound { place } if place.is_format() => Class::NoRepository,
            Self::NotFound { .. }
            | Self::Short { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::NotAnObject { .. } => Class::Damage,
            Self::Occupied { .. }
            | Self::Exists { .. }
            | Self::Unfit { .. }
            | Self::Locked { .. }
            | Self::NoLocks { .. } => Class::Refused,
            Self::Unreachable { .. }
            | Self::Throttled { .. }
            | Self::Timeout { .. }
            | Self::GivenUp { .. }
            | Self::Denied { .. } => Class::Unreachable,
            Self::BadLocation { .. }
            | Self::CredentialsInLocation { .. }
            | Self::Misconfigured { .. }
            | Self::Unsupported { .. } => Class::Usage,
            Self::Full { .. }
            | Self::WrongName { .. }
            | Self::BadWrite { .. }
            | Self::Altered { .. }
            | Self::FsyncFailed { .. }
            | Self::Stopped { .. }
            | Self::Crashed { .. }
            | Self::NotOffered { .. }
            | Self::Io { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRepository { .. } => NO_REPOSITORY_HINT.to_owned(),
            Self::NotFound { place } if place.is_format() => NO_REPOSITORY_HINT.to_owned(),
            Self::NotFound { .. } | Self::Short { .. } | Self::TooLarge { .. } => {
                "run `cairn verify` to learn what else is damaged".to_owned()
            }
            Self::Unreadable { .. } => {
                "check the disk and the kernel's log; `cairn verify --level full` names what else is \
                 damaged, `cairn repair` puts what can be healed elsewhere on the disk"
                    .to_owned()
            }
            Self::NotAnObject { .. } => {
                "a repository holds plain files and folders only; see who put this there".to_owned()
            }
            Self::Occupied { .. } => "choose an empty folder, or one that is not there yet".into(),
            Self::Exists { .. } => "use the repository that is there, or another location".into(),
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::Timeout { .. } => {
                "check the network and the storage, then run the same command again".to_owned()
            }
            Self::GivenUp { .. } => {
                "check the network and the storage; the next run brings what is missing. --give-up-after \
                 says how long is waited"
                    .to_owned()
            }
            Self::Denied { .. } => {
                "check owner and permissions, or the credentials, their policy and this host's clock"
                    .to_owned()
            }
            Self::Full { .. } => "make room, then run the same \
                 command again; nothing stored before is affected"
                .to_owned(),
            Self::FsyncFailed { .. } => {
                "check the disk and the kernel's log before running the same command again"
                    .to_owned()
            }
            Self::NoContainer { .. } => "check the name, the region and the endpoint; buckets and \
                 containers are made beforehand, not by cairn"
                .to_owned(),
            Self::Misconfigured { .. } => {
                "check the environment variables and files of this kind of storage, or the [[place]] of \
                 the configuration file: region, endpoint, account"
                    .to_owned()
            }
            Self::Locked { .. } => "shorten the retention of the bucket's object lock, or say with `--erase-within` that what expired may stay for so long".to_owned(),
            Self::NoLocks { .. } => "use S3 with Object Lock switched on for the bucket; on other storage set an immutability policy there".to_owned(),
            Self::Unfit { .. } => "use another storage, or ask who runs this one".to_owned(),
            Self::BadWrite { .. } | Self::Altered { .. } => "check the storage; what it answers cannot be trusted".into(),
            Self::CredentialsInLocation { variables, .. } => {
                format!("leave them out of the location and set {variables}")
            }
            Self::BadLocation { .. } => {
                "a location is a path, or a URL such as file:///backup or s3://bucket/prefix".into()
            }
            Self::Unsupported { known, .. } if !known.is_empty() => {
                format!("this build knows {known}; the README says how others are built in")
            }
            Self::Unsupported { .. }
            | Self::WrongName { .. }
            | Self::Stopped { .. }
            | Self::Crashed { .. }
            | Self::NotOffered { .. }
            | Self::Io { .. } => return None,
        })
    }
}
