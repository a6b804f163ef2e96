//! From options to the engine's terms: surroundings, keys, the open repository.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use cairn_engine::context::{Context, Remark, SystemClock};
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::repo::Repository;
use cairn_engine::repo::places::Places;
use cairn_engine::seal::{Identity, Lock, OsRandom, SecretBytes, Unlock};
use cairn_engine::store::location::{Location, Scheme};
use cairn_engine::store::options::RemoteOptions;
use cairn_engine::store::{Store, StoreError};
use cairn_engine::timings::Timings;

use cairn_format::slot::Argon2Costs;

use crate::commands::App;
use crate::exit_code::ExitCode;
use crate::places::Reach;
use crate::secrets::{self, Credential, Prompt};
use crate::settings;
use crate::ui::errors::{CliError, Failure};
use crate::ui::progress::{Progress, Shown};

/// An open repository, and the progress of what is done with it.
pub struct Session {
    /// The repository.
    pub repository: Repository,
    /// Shows progress until the session ends.
    pub shown: Shown,
}

/// Whether a command shows its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// It may take long, and prints little on its way.
    Progress,
    /// The same, and at the end where its time went.
    Timings,
    /// It is quick, or its output is itself the progress.
    Nothing,
}

impl Show {
    /// Progress, and timings if they are asked for.
    #[must_use]
    pub fn progress(timings: bool) -> Self {
        if timings { Self::Timings } else { Self::Progress }
    }
}

/// Opens the repository that the options name.
///
/// # Errors
/// When it is not there, or the key does not open it.
pub fn open(app: &App, show: Show) -> Result<Session, Failure> {
    open_as(app, show, settings::host())
}

/// Like [`open`], recording another host's name.
///
/// # Errors
/// As [`open`].
pub fn open_as(app: &App, show: Show, host: String) -> Result<Session, Failure> {
    let choice = secrets::choose(&app.global, &app.environment)?;
    let progress = progress(app, show);
    let mut context = context(app, &progress, host)?;
    if show == Show::Timings {
        context.timings = Timings::on();
    }
    app.printer.detail(&format!("cache in {}", context.cache_dir.display()));
    // Before the passphrase is asked for: nobody likes to type one for nothing.
    let location = location(app)?;
    let store = open_store(app, &location, &context)?;
    app.opened(&store);
    let unlock = unlock(choice.read(Prompt::Open)?)?;
    app.interrupt.watch()?;
    let shown = progress.show();
    let repository = Repository::open(store, &unlock, &context)?;
    check_place(&location, &repository)?;
    Ok(Session { repository, shown })
}

/// What a location is reached with: that of the process, unless the configuration file says otherwise.
///
/// # Errors
/// When a setting cannot be used, or a second host would be told the password of another.
pub fn reach(app: &App, location: &Location) -> Result<Reach, Failure> {
    let usual = settings::remote(&app.global, &app.environment)?;
    // A folder needs nothing of the file, and is to be had also where that is broken.
    let places = match location {
        Location::Remote { .. } => app.config()?.places.as_slice(),
        Location::Local(_) | Location::Memory => &[],
    };
    let tells = usual.first(&["WEBDAV_PASSWORD", "WEBDAV_TOKEN"]).is_some();
    let reach = Reach::new(location, usual, places, &app.environment);
    if let Location::Remote { scheme: scheme @ (Scheme::Webdav | Scheme::WebdavHttp), rest } =
        location
        && tells
        && !reach.is_configured()
    {
        let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
        let host = format!("{}://{host}", scheme.name());
        let told = app.webdav_host.get_or_init(|| host.clone());
        if *told != host {
            return Err(CliError::Usage {
                problem: format!("what WEBDAV_… holds for {told} would be sent to {host} too"),
                hint: "say in the configuration file what each host is to be told: [[place]], see \
                       `cairn replicate --help`",
            }
            .into());
        }
    }
    Ok(reach)
}

/// Opens a place that holds a repository. One that held a repository before and holds none now is
/// told from one that never did.
fn open_store(
    app: &App,
    location: &Location,
    context: &Context,
) -> Result<Arc<dyn Store>, Failure> {
    let opened = location.open(&reach(app, location)?.options()?);
    if let Err(StoreError::NoRepository { .. }) = opened {
        require_unknown(location, context)?;
    }
    opened.map_err(engine)
}

/// Refuses a place that is empty and in which this host has known a repository.
///
/// # Errors
/// When one was there.
pub fn refuse_emptied(
    location: &Location,
    remote: &RemoteOptions,
    context: &Context,
) -> Result<(), Failure> {
    let known = require_unknown(location, context);
    // Only then is it worth a request.
    if known.is_err() && matches!(location.open(remote), Err(StoreError::NoRepository { .. })) {
        return known;
    }
    Ok(())
}

/// Refuses a place in which this host has known a repository.
fn require_unknown(location: &Location, context: &Context) -> Result<(), Failure> {
    match (Places::new(&context.cache_dir), place(location)) {
        (Some(places), Some(place)) => Ok(places.require_unknown(&place)?),
        _ => Ok(()),
    }
}

/// Compares what is in a place with what this host knows of it.
fn check_place(location: &Location, repository: &Repository) -> Result<(), Failure> {
    match (Places::new(&repository.context.cache_dir), place(location)) {
        (Some(places), Some(place)) => Ok(places.check(&place, repository)?),
        _ => Ok(()),
    }
}

/// What a place is remembered by; nothing for one that is gone when it is closed.
#[must_use]
pub fn place(location: &Location) -> Option<String> {
    match location {
        Location::Local(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Some(path.to_string_lossy().into_owned())
        }
        Location::Memory => None,
        Location::Remote { scheme, rest } => Some(format!("{}://{rest}", scheme.name())),
    }
}

/// Lets another copy stand in for what the repository turns out not to have. One that is not there now
/// is warned about and left out: the repository may well do without.
///
/// # Errors
/// When it cannot be what is meant: it is not understood, or no copy of this repository.
pub fn add_fallback(app: &App, session: &mut Session, url: &OsStr) -> Result<(), Failure> {
    match add_copy(app, session, url) {
        Err(failure) if may_be_done_without(failure.exit) => {
            session.repository.monitor().warn(Remark {
                code: failure.code,
                subject: "--fallback".to_owned(),
                message: format!("it cannot stand in, and is left out: {}", failure.message),
            });
            Ok(())
        }
        added => added,
    }
}

/// Whether what failed this way may be there again later, and is no mistake of whoever named it.
fn may_be_done_without(exit: ExitCode) -> bool {
    use ExitCode::{Damage, Failed, NoRepository, Unreachable};
    matches!(exit, Unreachable | NoRepository | Damage | Failed)
}

/// Lets another copy stand in, which has to be there.
///
/// # Errors
/// When it is not there, or no copy of this repository.
pub fn add_copy(app: &App, session: &mut Session, url: &OsStr) -> Result<(), Failure> {
    let location = Location::parse(url).map_err(engine)?;
    let context = session.repository.context.clone();
    let store = open_store(app, &location, &context)?;
    let copy = session.repository.open_copy(store, &context)?;
    check_place(&location, &copy)?;
    session.repository.add_fallback(copy);
    Ok(())
}

/// Where the repository is, or shall be.
///
/// # Errors
/// When nothing names it, or the name cannot be understood.
pub fn location(app: &App) -> Result<Location, Failure> {
    let named = settings::repository(&app.global, &app.environment)?;
    Location::parse(named).map_err(engine)
}

/// Progress of one operation.
#[must_use]
pub fn progress(app: &App, show: Show) -> Arc<Progress> {
    Progress::new(Arc::clone(&app.printer), show != Show::Nothing, app.interrupt.flag())
}

/// The surroundings of an operation.
///
/// # Errors
/// When a setting cannot be used, or the system has no randomness.
pub fn context(app: &App, progress: &Arc<Progress>, host: String) -> Result<Context, Failure> {
    Ok(Context {
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom::new().map_err(engine)?),
        monitor: Arc::clone(progress) as _,
        host,
        user: settings::user(&app.environment),
        program: concat!("cairn ", env!("CARGO_PKG_VERSION")).to_owned(),
        cache_dir: settings::cache_dir(&app.global, &app.environment)?,
        index_memory_bytes: settings::index_memory_bytes(&app.global, &app.environment)?,
        timings: Timings::default(),
    })
}

/// What opens the repository.
fn unlock(credential: Credential) -> Result<Unlock, Failure> {
    Ok(match credential {
        Credential::Passphrase(secret) => Unlock::Passphrase(bytes(secret)),
        Credential::KeyFile(secret) => Unlock::KeyFile(bytes(secret)),
        Credential::CommandOutput(secret) => Unlock::CommandOutput(bytes(secret)),
        Credential::Identity(secret) => Unlock::Recipient(identity(&secret)?),
    })
}

/// What a new key slot is made from.
///
/// # Errors
/// When an identity file is not one.
pub fn lock(credential: Credential) -> Result<Lock, Failure> {
    Ok(match credential {
        Credential::Passphrase(secret) => {
            Lock::Passphrase { passphrase: bytes(secret), costs: Argon2Costs::DEFAULT }
        }
        Credential::KeyFile(secret) => Lock::KeyFile(bytes(secret)),
        Credential::CommandOutput(secret) => Lock::CommandOutput(bytes(secret)),
        Credential::Identity(secret) => Lock::Recipient(identity(&secret)?.recipient()),
    })
}

fn identity(text: &secrets::Secret) -> Result<Identity, Failure> {
    let text = str::from_utf8(text).unwrap_or_default();
    Identity::parse(text.trim()).map_err(engine)
}

fn bytes(mut secret: secrets::Secret) -> SecretBytes {
    SecretBytes::new(std::mem::take(&mut *secret))
}

/// The one snapshot that a selector names.
///
/// # Errors
/// When it names none or several.
pub fn select(session: &Session, selector: &[u8]) -> Result<SnapshotInfo, Failure> {
    Ok(snapshots::select(&session.repository, &String::from_utf8_lossy(selector))?)
}

/// The snapshot and the path that an argument names.
///
/// # Errors
/// As [`select`].
pub fn select_path(
    session: &Session,
    argument: &OsStr,
) -> Result<(SnapshotInfo, Option<Vec<u8>>), Failure> {
    let (selector, path) = snapshots::split_selector(argument.as_bytes());
    Ok((select(session, &selector)?, path))
}

/// An error of one of the engine's modules.
pub fn engine(error: impl Into<cairn_engine::error::Error>) -> Failure {
    Failure::from(error.into())
}
