//! Stores reached over a network: from a location and what is configured to a store that has
//! answered once.

mod ask;
mod azblob;
mod by_name;
mod credentials;
mod gcs;
mod http;
mod profile;
mod s3;
mod s3_lock;
mod sftp;
mod soft_delete;
mod webdav;

use std::sync::Arc;

use cairn_format::names::Folder;
use opendal::{HttpTransporter, OperationContext, Operator};

use super::Store;
use super::error::{Place, StoreError};
use super::location::Scheme;
use super::object::{Beyond, ClockSeen, Deleted, LockSeen, ObjectStore, Rights, from_opendal};
use super::options::RemoteOptions;
use super::retry::{Guarded, Policy};
use super::traffic::Meter;

/// How a place is asked for the first time: a person may be waiting who mistyped its name.
const FIRST_CONTACT: Policy =
    Policy { attempts_max: 3, pause_ms: 500, pause_ms_max: 1_000, calls_max: 1 };

/// Calls at once over SFTP: each takes a connection, and a server refuses some at random when more
/// than ten are being opened (`MaxStartups` of OpenSSH).
const SFTP_CALLS_MAX: usize = 8;

/// A service, configured, and how it is to be treated.
struct Service {
    operator: Operator,
    /// For messages; without credentials.
    location: String,
    /// Whether a write on a condition takes more requests than another.
    condition_is_dear: bool,
    /// Whether it shows objects while they are being written.
    writes_in_place: bool,
    /// What becomes of objects that are deleted.
    deleted: Deleted,
    /// What its rights are called.
    rights: Option<Rights>,
    /// Makes the requests that opendal does not know, where there are some.
    beyond: Option<MakeBeyond>,
    /// What it speaks.
    speaks: Speaks,
}

/// What a service speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// HTTP: requests are counted where they are sent.
    Http,
    /// HTTP or another protocol: calls are counted.
    Either,
    /// Another protocol: calls are counted.
    Other,
}

/// Makes such requests go the way of all others.
type MakeBeyond = Box<dyn FnOnce(HttpTransporter) -> Box<dyn Beyond>>;

/// Connects, and says whether there is a `format` object.
pub(super) fn connect(
    scheme: &Scheme,
    rest: &str,
    options: &RemoteOptions,
) -> Result<(Arc<dyn Store>, bool), StoreError> {
    let service = match scheme {
        Scheme::S3 => s3::service(rest, options)?,
        Scheme::Azblob => azblob::service(rest, options)?,
        Scheme::Gcs => gcs::service(rest, options)?,
        Scheme::Sftp => sftp::service(rest, options)?,
        Scheme::Webdav | Scheme::WebdavHttp => webdav::service(scheme, rest, options)?,
        Scheme::Opendal(name) => by_name::service(name, rest, options)?,
    };
    let store = Arc::new(object_store(service, options)?);
    let found = first_contact(&Guarded::new(Arc::clone(&store), FIRST_CONTACT))?;
    let mut policy = options.policy;
    if *scheme == Scheme::Sftp {
        policy.calls_max = policy.calls_max.min(SFTP_CALLS_MAX);
    }
    Ok((Arc::new(Guarded::new(store, policy)), found))
}

fn object_store(service: Service, options: &RemoteOptions) -> Result<ObjectStore, StoreError> {
    let (meter, lock_seen) = (Meter::default(), LockSeen::default());
    let clock_seen = ClockSeen::default();
    let mut operator = service.operator;
    let mut beyond = None;
    if service.speaks != Speaks::Other {
        let transport = http::Transport::new(meter.clone(), lock_seen.clone(), clock_seen.clone())
            .map_err(|error| {
                let location = service.location.clone();
                StoreError::Misconfigured { location, source: error.into() }
            })?;
        let transport = HttpTransporter::new(transport);
        beyond = service.beyond.map(|make| make(transport.clone()));
        let context = OperationContext::new().with_http_transport(transport);
        operator = operator.with_context(context);
    }
    let mut store = ObjectStore::new(operator, service.location.clone(), options.limits);
    if service.speaks == Speaks::Http {
        store.set_meter(meter);
        store.set_lock_seen(lock_seen);
    }
    store.set_clock_seen(clock_seen);
    if let Some(rights) = service.rights {
        store.set_rights(rights);
    }
    if let Some(beyond) = beyond {
        store.set_beyond(beyond);
    }
    let paces = &options.paces;
    store.set_rates(
        paces.upload(options.upload_bytes_per_s),
        paces.download(options.download_bytes_per_s),
    );
    store.set_deleted(service.deleted);
    if service.condition_is_dear {
        store.set_condition_is_dear();
    }
    if service.writes_in_place {
        store.set_writes_in_place();
    }
    Ok(store)
}

/// Whether there is a `format` object. Where there is none, a listing tells whether there is at
/// least a place to keep one: services answer alike to whoever asks for an absent object and for
/// an object of an absent bucket.
fn first_contact(store: &Guarded<Arc<ObjectStore>>) -> Result<bool, StoreError> {
    if store.ask(|store| store.meet())? {
        return Ok(true);
    }
    let place = || Place::folder(store.location(), Folder::Config);
    let stop = |_, _| Err(StoreError::Stopped { place: place() });
    match store.list(Folder::Config, &mut { stop }) {
        Ok(_) | Err(StoreError::Stopped { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An operator, or why there is none.
fn build(location: &str, builder: impl opendal::Builder) -> Result<Operator, StoreError> {
    Operator::new(builder).map_err(|error| from_opendal("open", Place::root(location), &error))
}

/// Splits what follows `://` into bucket, container or host, and the prefix without slashes at
/// its ends.
fn split(rest: &str) -> (&str, &str) {
    let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
    (head, tail.trim_matches('/'))
}

/// The part of an endpoint that may be shown: no user, no password, no query.
fn shown(endpoint: &str) -> &str {
    let (_, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
