//! What a program tells a store that is reached over a network. The engine does not look into the
//! environment: what the variables of each ecosystem say is handed in here.
//!
//! One environment serves one account in one region. A place of its own has variables of its own
//! instead ([`RemoteOptions::alone`], [`RemoteOptions::instead`]), which the signers see as they
//! otherwise see the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::pace::Paces;
use super::retry::Policy;

/// The variables that the engine wants to know of, by their names in the environment. Some are
/// secret. Other credentials are not read by cairn: the signer of each ecosystem finds them in
/// its own variables and files.
pub const VARIABLES: [&str; 17] = [
    "HOME",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "STORAGE_EMULATOR_HOST",
    "SFTP_IDENTITY_FILE",
    "WEBDAV_PASSWORD",
    "WEBDAV_TOKEN",
    "WEBDAV_USERNAME",
];

/// What the names of variables begin with that set up services without a scheme of their own:
/// `OPENDAL_<NAME>_<SETTING>`, with the name and the setting that opendal has, `-` written as `_`.
pub const SERVICE_VARIABLES: &str = "OPENDAL_";

/// What the names of variables begin with that set up this service.
pub(super) fn variables_of_service(service: &str) -> String {
    format!("{SERVICE_VARIABLES}{}_", service.to_ascii_uppercase().replace('-', "_"))
}

/// Variables that say where a place is, and not who asks.
const WHERE: [&str; 7] = [
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ENDPOINT",
    "STORAGE_EMULATOR_HOST",
];

/// Variables that say who asks, and give nothing away: names, and files with secrets.
const WHO: [&str; 15] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "SFTP_IDENTITY_FILE",
    "WEBDAV_USERNAME",
];

/// Variables that hold a secret.
const SECRET: [&str; 8] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "WEBDAV_PASSWORD",
    "WEBDAV_TOKEN",
];

/// How settings of services end that say where a place is.
const SERVICE_WHERE: [&str; 7] =
    ["_BUCKET", "_BUCKET_ID", "_CONTAINER", "_ENDPOINT", "_FILESYSTEM", "_REGION", "_ROOT"];

/// How settings of services end that say who asks, and give nothing away.
const SERVICE_WHO: [&str; 4] =
    ["_ACCESS_KEY_ID", "_ACCOUNT_NAME", "_APPLICATION_KEY_ID", "_USERNAME"];

/// Variables of which one says what another says: who names one of them means none of the others.
/// Signers call those of an Azure account by further names.
const TOGETHER: [&[&str]; 3] = [
    &["AWS_REGION", "AWS_DEFAULT_REGION"],
    &["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"],
    &[
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_BEARER_TOKEN",
        "AZBLOB_ACCOUNT_NAME",
        "AZBLOB_ACCOUNT_KEY",
    ],
];

/// What a variable says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Where it is.
    Where,
    /// Who asks; no secret.
    Who,
    /// A secret, or what may hold one.
    Secret,
}

impl Says {
    /// What the variable of this name says; `None` for one that nobody here looks at.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        match name {
            _ if WHERE.contains(&name) => Some(Self::Where),
            _ if WHO.contains(&name) => Some(Self::Who),
            _ if SECRET.contains(&name) => Some(Self::Secret),
            _ if !name.starts_with(SERVICE_VARIABLES) => None,
            _ if ends(&SERVICE_WHERE) => Some(Self::Where),
            _ if ends(&SERVICE_WHO) => Some(Self::Who),
            _ => Some(Self::Secret),
        }
    }

    /// Those that begin so, for messages.
    #[must_use]
    pub fn names(before: &str) -> String {
        let known = [&WHERE[..], &WHO, &SECRET].concat();
        let mut known =
            known.into_iter().filter(|name| name.starts_with(before)).collect::<Vec<_>>();
        known.sort_unstable();
        known.join(", ")
    }
}

/// What the signers see of the world around the program.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Instead of the process's variables of these names; those that are empty are not set.
    named: Arc<BTreeMap<String, String>>,
    /// Whether there is nothing else: no variable of the process, no home, no machine to ask.
    is_closed: bool,
}

impl Surroundings {
    /// Whether there is nothing but what is named.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// What is named, by the names of variables; empty where one is not to be set.
    #[must_use]
    pub fn named(&self) -> &BTreeMap<String, String> {
        &self.named
    }
}

/// Without the values, which may be secret.
impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("named", &self.named.keys())
            .field("is_closed", &self.is_closed)
            .finish()
    }
}

/// How long a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Allowed to every request, in milliseconds.
    pub answer_ms: u64,
    /// Slowest transfer that is waited for, in bytes a second: adds to the limit of requests
    /// that move data.
    pub bytes_per_s_min: u64,
}

impl Default for TimeLimits {
    /// Thirty seconds, and as long as 64 KiB/s take.
    fn default() -> Self {
        Self { answer_ms: 30_000, bytes_per_s_min: 64 << 10 }
    }
}

impl TimeLimits {
    /// The limit of a request that moves this many bytes.
    #[must_use]
    pub const fn of(&self, bytes: u64) -> Duration {
        let rate = if self.bytes_per_s_min == 0 { 1 } else { self.bytes_per_s_min };
        let moving_ms = bytes.saturating_mul(1000) / rate;
        Duration::from_millis(self.answer_ms.saturating_add(moving_ms))
    }
}

/// How a remote place is reached.
#[derive(Clone, Default)]
pub struct RemoteOptions {
    variables: BTreeMap<&'static str, String>,
    /// Those that begin with [`SERVICE_VARIABLES`].
    services: BTreeMap<String, String>,
    surroundings: Surroundings,
    /// How long requests may take.
    pub limits: TimeLimits,
    /// How often requests are repeated, and how many there are at once.
    pub policy: Policy,
    /// Most bytes of objects sent in a second, in the mean.
    pub upload_bytes_per_s: Option<NonZeroU64>,
    /// Most bytes of objects received in a second, in the mean.
    pub download_bytes_per_s: Option<NonZeroU64>,
    /// What is opened with clones of these options keeps to these rates together.
    pub(super) paces: Arc<Paces>,
}

/// Without the values of variables, which may be secret.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions")
            .field("variables", &self.variables.keys())
            .field("services", &self.services.keys())
            .field("surroundings", &self.surroundings)
            .field("limits", &self.limits)
            .field("policy", &self.policy)
            .field("upload_bytes_per_s", &self.upload_bytes_per_s)
            .field("download_bytes_per_s", &self.download_bytes_per_s)
            .finish()
    }
}

impl RemoteOptions {
    /// Takes those of [`VARIABLES`] that `value` knows; empty values count as not set.
    #[must_use]
    pub fn new(value: impl Fn(&str) -> Option<String>) -> Self {
        let known = VARIABLES.into_iter().filter_map(|name| {
            value(name).filter(|value| !value.is_empty()).map(|value| (name, value))
        });
        Self { variables: known.collect(), ..Self::default() }
    }

    /// The same limits for a place that is reached with these variables and nothing else: no signer looks
    /// into the environment of the process, asks the machine who it is, or finds `HOME` unless it is
    /// named here. What is named reaches no other place.
    #[must_use]
    pub fn alone(mut self, named: BTreeMap<String, String>) -> Self {
        self.variables = Self::new(|name| named.get(name).cloned()).variables;
        self.services.clear();
        self.set_services(named.clone());
        self.surroundings = Surroundings { named: Arc::new(named), is_closed: true };
        self
    }

    /// The same credentials for another place: these variables instead of those of their names, and
    /// of what else says the same. Empty values count as not set.
    #[must_use]
    pub fn instead(mut self, mut named: BTreeMap<String, String>) -> Self {
        for group in TOGETHER {
            if group.iter().any(|name| named.contains_key(*name)) {
                for name in group {
                    named.entry((*name).to_owned()).or_default();
                }
            }
        }
        let others = Self::new(|name| named.get(name).cloned());
        self.variables.retain(|name, _| !named.contains_key(*name));
        self.variables.extend(others.variables);
        self.services.retain(|name, _| !named.contains_key(name));
        self.set_services(named.clone());
        self.surroundings.named = Arc::new(named);
        self
    }

    /// What signers see.
    #[must_use]
    pub const fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Takes those that begin with [`SERVICE_VARIABLES`]; empty values count as not set.
    pub fn set_services(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let known = variables
            .into_iter()
            .filter(|(name, value)| name.starts_with(SERVICE_VARIABLES) && !value.is_empty());
        self.services.extend(known);
    }

    /// What is set of this service, by opendal's names of the settings.
    #[must_use]
    pub fn of_service(&self, service: &str) -> BTreeMap<String, String> {
        let before = variables_of_service(service);
        let set = self.services.iter().filter_map(|(variable, value)| {
            let setting = variable.strip_prefix(&before)?;
            Some((setting.to_ascii_lowercase(), value.clone()))
        });
        set.collect()
    }

    /// The first of these variables that is set.
    #[must_use]
    pub fn first<'a>(&'a self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| self.variables.get(*name).map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_are_not_shown() {
        let options =
            RemoteOptions::new(|name| (name == "WEBDAV_PASSWORD").then(|| "hunter2".to_owned()));
        assert_eq!(options.first(&["WEBDAV_USERNAME", "WEBDAV_PASSWORD"]), Some("hunter2"));
        let shown = format!("{options:?}");
        assert!(shown.contains("WEBDAV_PASSWORD") && !shown.contains("hunter2"), "{shown}");
        let empty = RemoteOptions::new(|_| Some(String::new()));
        assert_eq!(empty.first(&VARIABLES), None);
    }

    #[test]
    fn services_have_settings_of_their_own() {
        let mut options = RemoteOptions::default();
        let given = [
            ("OPENDAL_YANDEX_DISK_ACCESS_TOKEN", "hunter2"),
            ("OPENDAL_B2_BUCKET", "b"),
            ("OPENDAL_B2_ROOT", ""),
            ("PATH", "/bin"),
        ];
        options.set_services(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let of = |service| options.of_service(service).into_iter().collect::<Vec<_>>();
        assert_eq!(of("yandex-disk"), [("access_token".to_owned(), "hunter2".to_owned())]);
        assert_eq!(of("b2"), [("bucket".to_owned(), "b".to_owned())]);
        assert_eq!(of("s3"), []);
        let shown = format!("{options:?}");
        assert!(shown.contains("ACCESS_TOKEN") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("PATH"), "{shown}");
    }

    fn named(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_place_alone_knows_what_it_was_told_and_does_not_tell() {
        let told = [("AWS_REGION", "here"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
        let options = RemoteOptions::default().alone(named(&told));
        assert_eq!(options.first(&["AWS_REGION", "HOME"]), Some("here"));
        assert!(options.surroundings().is_closed());
        let shown = format!("{options:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hunter2"), "{shown}");
        let by_name = RemoteOptions::default().alone(named(&[("OPENDAL_B2_BUCKET", "b")]));
        assert_eq!(by_name.of_service("b2").len(), 1);
    }

    #[test]
    fn who_names_one_variable_means_none_that_says_the_same() {
        let process = [
            ("AWS_REGION", "home"),
            ("AWS_PROFILE", "backup"),
            ("AZURE_STORAGE_CONNECTION_STRING", "of-home"),
            ("AZURE_STORAGE_KEY", "of-home"),
            ("OPENDAL_B2_BUCKET", "home"),
            ("OPENDAL_B2_APPLICATION_KEY", "k"),
        ];
        let process = named(&process);
        let options = || {
            let mut options = RemoteOptions::new(|name| process.get(name).cloned());
            options.set_services(process.clone());
            options
        };
        let away = options().instead(named(&[("AWS_DEFAULT_REGION", "away")]));
        assert_eq!(away.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]), Some("away"));
        assert_eq!(away.first(&["AWS_PROFILE"]), Some("backup"));
        assert!(!away.surroundings().is_closed());
        let unset = &away.surroundings().named()["AWS_REGION"];
        assert_eq!(unset, "");
        let other = options().instead(named(&[("AZURE_STORAGE_ACCOUNT", "other")]));
        let of_home = ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY"];
        assert_eq!(other.first(&of_home), None);
        assert_eq!(other.surroundings().named()["AZURE_STORAGE_ACCOUNT_KEY"], "");
        let bucket = options().instead(named(&[("OPENDAL_B2_BUCKET", "away")])).of_service("b2");
        assert_eq!((bucket["bucket"].as_str(), bucket["application_key"].as_str()), ("away", "k"));
    }

    #[test]
    fn what_may_be_secret_is_told_from_what_is_not() {
        for (name, says) in [
            ("AWS_REGION", Some(Says::Where)),
            ("AWS_ACCESS_KEY_ID", Some(Says::Who)),
            ("AWS_SECRET_ACCESS_KEY", Some(Says::Secret)),
            ("OPENDAL_B2_BUCKET_ID", Some(Says::Where)),
            ("OPENDAL_B2_APPLICATION_KEY_ID", Some(Says::Who)),
            ("OPENDAL_B2_APPLICATION_KEY", Some(Says::Secret)),
            ("OPENDAL_YANDEX_DISK_ACCESS_TOKEN", Some(Says::Secret)),
            ("AWS_REGOIN", None),
            ("HOME", None),
            ("PATH", None),
        ] {
            assert_eq!(Says::of(name), says, "{name}");
        }
        for name in VARIABLES.into_iter().filter(|name| *name != "HOME") {
            assert!(Says::of(name).is_some(), "{name}");
        }
        assert!(Says::names("WEBDAV_").starts_with("WEBDAV_PASSWORD, "));
    }

    #[test]
    fn time_limits_grow_with_the_bytes_and_never_overflow() {
        let limits = TimeLimits { answer_ms: 1000, bytes_per_s_min: 1000 };
        assert_eq!(limits.of(0), Duration::from_secs(1));
        assert_eq!(limits.of(5000), Duration::from_secs(6));
        let none = TimeLimits { answer_ms: u64::MAX, bytes_per_s_min: 0 };
        assert_eq!(none.of(u64::MAX), Duration::from_millis(u64::MAX));
    }
}
