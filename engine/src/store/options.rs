//! What a program tells a store that is reached over a network. The engine does not look into the
//! environment: what the variables of each ecosystem say is handed in here.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

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
    /// How long requests may take.
    pub limits: TimeLimits,
    /// How often requests are repeated, and how many there are at once.
    pub policy: Policy,
    /// Most bytes of objects sent in a second, in the mean.
    pub upload_bytes_per_s: Option<NonZeroU64>,
    /// Most bytes of objects received in a second, in the mean.
    pub download_bytes_per_s: Option<NonZeroU64>,
}

/// Without the values of variables, which may be secret.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions")
            .field("variables", &self.variables.keys())
            .field("services", &self.services.keys())
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
        let name = service.to_ascii_uppercase().replace('-', "_");
        let before = format!("{SERVICE_VARIABLES}{name}_");
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

    #[test]
    fn time_limits_grow_with_the_bytes_and_never_overflow() {
        let limits = TimeLimits { answer_ms: 1000, bytes_per_s_min: 1000 };
        assert_eq!(limits.of(0), Duration::from_secs(1));
        assert_eq!(limits.of(5000), Duration::from_secs(6));
        let none = TimeLimits { answer_ms: u64::MAX, bytes_per_s_min: 0 };
        assert_eq!(none.of(u64::MAX), Duration::from_millis(u64::MAX));
    }
}
