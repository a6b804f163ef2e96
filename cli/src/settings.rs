//! Configuration: what options leave open comes from the environment, then from defaults. The
//! environment is read once, at the start; nothing else in the program looks at it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use cairn_engine::context::INDEX_MEMORY_BYTES_DEFAULT;
use cairn_engine::store::options::{self, RemoteOptions};

use crate::arguments::{Color, Global, Within};
use crate::config::{self, Config};
use crate::replicas::Home;
use crate::ui::errors::CliError;
use crate::ui::format::parse_bytes;

/// The repository, like `--repo`.
pub const REPO: &str = "CAIRN_REPO";
/// The passphrase itself. Removed from what child processes inherit.
pub const PASSWORD: &str = "CAIRN_PASSWORD";
/// Like `--password-file`.
pub const PASSWORD_FILE: &str = "CAIRN_PASSWORD_FILE";
/// Like `--password-command`.
pub const PASSWORD_COMMAND: &str = "CAIRN_PASSWORD_COMMAND";
/// Like `--key-file`.
pub const KEY_FILE: &str = "CAIRN_KEY_FILE";
/// Like `--key-command`.
pub const KEY_COMMAND: &str = "CAIRN_KEY_COMMAND";
/// Like `--identity-file`.
pub const IDENTITY_FILE: &str = "CAIRN_IDENTITY_FILE";
/// Like `--cache-dir`.
pub const CACHE_DIR: &str = "CAIRN_CACHE_DIR";
/// Like `--config`.
pub const CONFIG: &str = "CAIRN_CONFIG";
/// Like `--index-memory`.
pub const INDEX_MEMORY: &str = "CAIRN_INDEX_MEMORY";
/// Like `--job` of `backup`.
pub const JOB: &str = "CAIRN_JOB";
/// Set to anything: no colour (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
/// `dumb`: no colour and no moving progress.
pub const TERM: &str = "TERM";
const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// The home folder.
pub const HOME: &str = "HOME";
const USER: &str = "USER";
const LOGNAME: &str = "LOGNAME";
const USERS: &str = "/etc/passwd";

/// Every variable a person may set, with its meaning, for help and manual.
pub const VARIABLES: [(&str, &str); 13] = [
    (REPO, "the repository, like --repo"),
    (PASSWORD, "the passphrase; not handed on to commands"),
    (PASSWORD_FILE, "like --password-file"),
    (PASSWORD_COMMAND, "like --password-command"),
    (KEY_FILE, "like --key-file"),
    (KEY_COMMAND, "like --key-command"),
    (IDENTITY_FILE, "like --identity-file"),
    (CACHE_DIR, "like --cache-dir [default: $XDG_CACHE_HOME/cairn, else ~/.cache/cairn]"),
    (
        CONFIG,
        "like --config [default: $XDG_CONFIG_HOME/cairn/config.toml, else ~/.config/cairn/config.toml]",
    ),
    (INDEX_MEMORY, "like --index-memory [default: 48 MiB]"),
    (JOB, "like backup --job"),
    (NO_COLOR, "if set, no colour"),
    (TERM, "if `dumb`, no colour and no moving progress"),
];

/// Where what remote storage needs is looked for, by kind, for help and manual.
pub const STORAGE_VARIABLES: [(&str, &str); 7] = [
    (
        "s3",
        "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE; credentials as the AWS \
         tools find them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, a web identity, a \
         container's or an instance's",
    ),
    (
        "azblob",
        "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, \
         AZURE_STORAGE_SAS_TOKEN or an identity; AZURE_STORAGE_ENDPOINT",
    ),
    ("gcs", "GOOGLE_APPLICATION_CREDENTIALS, what gcloud keeps, or the machine's identity"),
    ("sftp", "what ssh is configured to use; SFTP_IDENTITY_FILE. Unknown hosts are refused"),
    ("webdav", "WEBDAV_USERNAME and WEBDAV_PASSWORD, or WEBDAV_TOKEN; over TLS"),
    ("webdav+http", "the same in the clear"),
    ("opendal+…", "OPENDAL_<NAME>_<SETTING>, as opendal calls the settings of the service NAME"),
];

/// How long expired data may stay unless somebody says otherwise.
pub const ERASE_WITHIN_DEFAULT: Within = Within::Milliseconds(72 * 60 * 60 * 1_000);

/// Smallest memory for the local index, bytes: below it, look-ups would thrash.
pub const INDEX_MEMORY_BYTES_MIN: u64 = 8 << 20;

/// The environment as it was at the start.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Takes over the variables.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Those whose names begin so.
    fn texts(&self, before: &'static str) -> Result<Vec<(String, String)>, CliError> {
        let named = self.variables.iter().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| name.starts_with(before))?;
            Some(value.to_str().map(|value| (name.to_owned(), value.to_owned())))
        });
        named.collect::<Option<_>>().ok_or_else(|| CliError::Environment {
            name: before,
            problem: "a value is not UTF-8".to_owned(),
        })
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, CliError> {
        self.get(name)
            .map(|value| {
                value.to_str().map(str::to_owned).ok_or_else(|| CliError::Environment {
                    name,
                    problem: "the value is not UTF-8".to_owned(),
                })
            })
            .transpose()
    }
}

/// Where the repository is.
///
/// # Errors
/// When neither option nor variable names one.
pub fn repository<'a>(
    global: &'a Global,
    environment: &'a Environment,
) -> Result<&'a OsStr, CliError> {
    let named = global.repo.as_deref().filter(|repo| !repo.is_empty());
    named.or_else(|| environment.get(REPO)).ok_or(CliError::RepositoryNotNamed)
}

/// The folder for caches.
///
/// # Errors
/// When no option or variable tells one.
pub fn cache_dir(global: &Global, environment: &Environment) -> Result<PathBuf, CliError> {
    let named = global.cache_dir.clone().or_else(|| environment.get(CACHE_DIR).map(PathBuf::from));
    let xdg = || {
        // The specification says to ignore relative paths there.
        let base = environment.get(XDG_CACHE_HOME).map(PathBuf::from);
        base.filter(|base| base.is_absolute()).map(|base| base.join("cairn"))
    };
    let home = || environment.get(HOME).map(|home| PathBuf::from(home).join(".cache/cairn"));
    named.or_else(xdg).or_else(home).ok_or(CliError::CacheFolderUnknown)
}

/// The configuration file, and whether it may be missing: only where nobody named it.
#[must_use]
fn config_file(global: &Global, environment: &Environment) -> (Option<PathBuf>, bool) {
    let named = global.config.clone().or_else(|| environment.get(CONFIG).map(PathBuf::from));
    let path = |name| environment.get(name).map(PathBuf::from);
    match named {
        Some(named) => (Some(named), false),
        None => (config::default_path(path(XDG_CONFIG_HOME), path(HOME)), true),
    }
}

/// What the configuration file says of the repository that is named; nothing where it says nothing, or
/// speaks of another.
///
/// # Errors
/// When the file cannot be read or understood, or no repository is named.
pub fn home(global: &Global, environment: &Environment) -> Result<Option<Home>, CliError> {
    let Some(home) = config(global, environment)?.home else { return Ok(None) };
    let named = repository(global, environment)?;
    Ok(Some(home).filter(|home| home.repo.as_ref().is_none_or(|repo| OsStr::new(repo) == named)))
}

/// How long expired data may stay in the repository that is named: the option, else what the
/// configuration file says, else [`ERASE_WITHIN_DEFAULT`].
///
/// # Errors
/// As [`home`].
pub fn erase_within(
    option: Option<Within>,
    global: &Global,
    environment: &Environment,
) -> Result<Within, CliError> {
    match option {
        Some(within) => Ok(within),
        None => {
            let home = home(global, environment)?;
            Ok(home.and_then(|home| home.erase_within).unwrap_or(ERASE_WITHIN_DEFAULT))
        }
    }
}

/// What the configuration file says, if there is one.
///
/// # Errors
/// When it cannot be read or understood, or one that was named is missing.
pub fn config(global: &Global, environment: &Environment) -> Result<Config, CliError> {
    let (path, optional) = config_file(global, environment);
    path.map_or_else(|| Ok(Config::default()), |path| config::read(&path, optional))
}

/// Memory for the local index, bytes.
///
/// # Errors
/// When the value cannot be read or is below [`INDEX_MEMORY_BYTES_MIN`].
pub fn index_memory_bytes(global: &Global, environment: &Environment) -> Result<u64, CliError> {
    let problem = |problem| CliError::Environment { name: INDEX_MEMORY, problem };
    let bytes = match (global.index_memory, environment.text(INDEX_MEMORY)?) {
        (Some(bytes), _) => bytes,
        (None, Some(text)) => parse_bytes(&text).map_err(problem)?,
        (None, None) => return Ok(INDEX_MEMORY_BYTES_DEFAULT),
    };
    if bytes < INDEX_MEMORY_BYTES_MIN {
        return Err(CliError::Usage {
            problem: format!("an index memory of {bytes} bytes is too small"),
            hint: "give it at least 8 MiB",
        });
    }
    Ok(bytes)
}

/// How remote repositories are reached of which the configuration file says nothing.
///
/// # Errors
/// When a variable the engine asks for is not UTF-8.
pub fn remote(global: &Global, environment: &Environment) -> Result<RemoteOptions, CliError> {
    for name in options::VARIABLES {
        environment.text(name)?;
    }
    let mut options = RemoteOptions::new(|name| environment.get(name)?.to_str().map(str::to_owned));
    options.set_services(environment.texts(options::SERVICE_VARIABLES)?);
    options.upload_bytes_per_s = global.limit_upload;
    options.download_bytes_per_s = global.limit_download;
    if let Some(connections) = global.connections {
        options.policy.calls_max = connections.into();
    }
    Ok(options)
}

/// The job of a backup: option, variable, else the host's name. Hosts never share a job unaware,
/// because retention thins out each job as a whole.
///
/// # Errors
/// When the variable is not UTF-8.
pub fn job(
    option: Option<&str>,
    environment: &Environment,
    host: &str,
) -> Result<String, CliError> {
    match option {
        Some(job) => Ok(job.to_owned()),
        None => Ok(environment.text(JOB)?.unwrap_or_else(|| host.to_owned())),
    }
}

/// Name of this host.
#[must_use]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name of the user: from the environment, else from the system's list, else the number.
#[must_use]
pub fn user(environment: &Environment) -> String {
    let named = [USER, LOGNAME].iter().find_map(|name| environment.get(name));
    if let Some(name) = named {
        return name.to_string_lossy().into_owned();
    }
    // Services run without those variables.
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string(USERS).unwrap_or_default();
    user_in(&users, uid).unwrap_or_else(|| uid.to_string())
}

fn user_in(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Whether a stream is coloured.
#[must_use]
pub fn colored(choice: Color, environment: &Environment, is_terminal: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && environment.get(NO_COLOR).is_none() && !is_dumb(environment),
    }
}

/// Whether the terminal cannot move its cursor.
#[must_use]
pub fn is_dumb(environment: &Environment) -> bool {
    environment.get(TERM).is_none_or(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn options_win_over_variables() {
        let env = environment(&[(REPO, "/from-env"), (CACHE_DIR, "/cache"), (JOB, "nightly")]);
        let global = Global { repo: Some("/from-option".into()), ..Global::default() };
        assert_eq!(repository(&global, &env).unwrap(), "/from-option");
        assert_eq!(repository(&Global::default(), &env).unwrap(), "/from-env");
        assert_eq!(cache_dir(&Global::default(), &env).unwrap(), PathBuf::from("/cache"));
        assert_eq!(job(Some("a"), &env, "host").unwrap(), "a");
        assert_eq!(job(None, &env, "host").unwrap(), "nightly");
        assert_eq!(job(None, &environment(&[]), "host").unwrap(), "host");
    }

    #[test]
    fn the_cache_follows_the_platform() {
        let global = Global::default();
        let env = environment(&[(XDG_CACHE_HOME, "/xdg"), (HOME, "/home/u")]);
        assert_eq!(cache_dir(&global, &env).unwrap(), PathBuf::from("/xdg/cairn"));
        let env = environment(&[(XDG_CACHE_HOME, "relative"), (HOME, "/home/u")]);
        assert_eq!(cache_dir(&global, &env).unwrap(), PathBuf::from("/home/u/.cache/cairn"));
        assert!(matches!(cache_dir(&global, &environment(&[])), Err(CliError::CacheFolderUnknown)));
    }

    #[test]
    fn index_memory_is_bounded_below() {
        let global = Global::default();
        let memory = |text| index_memory_bytes(&global, &environment(&[(INDEX_MEMORY, text)]));
        assert_eq!(memory("64MiB").unwrap(), 64 << 20);
        assert!(matches!(memory("1KiB"), Err(CliError::Usage { .. })));
        assert!(matches!(memory("lots"), Err(CliError::Environment { .. })));
    }

    #[test]
    fn users_are_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\ndb:x:70:70::/var/db:/bin/false\n";
        assert_eq!(user_in(users, 70).as_deref(), Some("db"));
        assert_eq!(user_in(users, 7), None);
        assert_eq!(user(&environment(&[(LOGNAME, "tester")])), "tester");
    }

    #[test]
    fn colour_obeys_the_conventions() {
        let terminal = environment(&[(TERM, "xterm")]);
        assert!(colored(Color::Auto, &terminal, true));
        assert!(!colored(Color::Auto, &terminal, false));
        assert!(!colored(Color::Auto, &environment(&[(TERM, "xterm"), (NO_COLOR, "1")]), true));
        assert!(!colored(Color::Auto, &environment(&[(TERM, "dumb")]), true));
        assert!(colored(Color::Always, &environment(&[(NO_COLOR, "1")]), false));
    }
}
