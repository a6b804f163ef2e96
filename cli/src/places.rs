//! What places are reached with: the variables of the process, unless the configuration file says
//! otherwise of a place.
//!
//! ```toml
//! [[place]]
//! url = "s3://second-region"        # and all that lies below it
//! [place.env]
//! AWS_REGION = "eu-central-1"
//! AWS_ACCESS_KEY_ID = "AKIA…"
//! AWS_SECRET_ACCESS_KEY = { file = "/etc/cairn/second-region.key" }
//! ```
//!
//! Such a place gets nothing that is not named there: what is meant for one vendor never reaches
//! another. The file holds no secrets; it says where they are, and they are read when the place is
//! opened.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use cairn_engine::store::StoreError;
use cairn_engine::store::location::{Location, Scheme};
use cairn_engine::store::options::{RemoteOptions, Says};
use toml::{Table, Value};

use crate::secrets::{self, Keeper};
use crate::settings::{self, Environment};
use crate::ui::errors::CliError;

/// Variables of which neither is of use without the other.
const PAIRS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("WEBDAV_USERNAME", "WEBDAV_PASSWORD")];

/// Variables that name a file: none is found by `~` or from wherever a program was started.
const FILES: [&str; 7] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "SFTP_IDENTITY_FILE",
];

/// A place with settings of its own.
#[derive(Clone, Debug)]
pub struct Place {
    /// As it is written down.
    url: String,
    location: Location,
    /// Whether it is reached with the credentials of the process.
    inherits: bool,
    variables: BTreeMap<String, Given>,
}

/// The value of a variable.
#[derive(Clone, Debug)]
enum Given {
    /// As it stands in the file: no secret.
    Plain(String),
    /// Kept elsewhere.
    Kept(Keeper),
}

/// Takes the places of a configuration file.
///
/// # Errors
/// What is wrong with it; values are not repeated.
pub(crate) fn understand(entries: Vec<Table>) -> Result<Vec<Place>, String> {
    let mut places: Vec<Place> = Vec::new();
    for entry in entries {
        let place = Place::understand(entry)?;
        let is_same = |known: &&Place| {
            known.location.is_within(&place.location) && place.location.is_within(&known.location)
        };
        if let Some(known) = places.iter().find(is_same) {
            return Err(format!("two places have the url {}", known.url));
        }
        places.push(place);
    }
    Ok(places)
}

impl Place {
    fn understand(mut entry: Table) -> Result<Self, String> {
        let Some(Value::String(url)) = entry.remove("url") else {
            return Err("a place needs a url".to_owned());
        };
        let location = Location::parse(OsStr::new(&url)).map_err(|error| error.to_string())?;
        let Location::Remote { scheme, .. } = &location else {
            return Err(format!("the place {url} is not reached over a network"));
        };
        let problem = |problem: String| format!("the place {url}: {problem}");
        let inherits = match entry.remove("inherit-credentials") {
            None => false,
            Some(Value::Boolean(inherits)) => inherits,
            Some(_) => return Err(problem("inherit-credentials is true or false".to_owned())),
        };
        let variables = match entry.remove("env") {
            None => BTreeMap::new(),
            Some(Value::Table(table)) => variables(table, scheme, inherits).map_err(problem)?,
            Some(_) => return Err(problem("env is a table of variables".to_owned())),
        };
        if let Some(name) = entry.keys().next() {
            return Err(problem(format!(
                "{name:?} is not known; there are url, inherit-credentials and env"
            )));
        }
        Ok(Self { url, location, inherits, variables })
    }

    /// The variables, with what others keep. `home` is where profiles are looked for.
    fn read(&self, environment: &Environment) -> Result<BTreeMap<String, String>, CliError> {
        let mut named = BTreeMap::new();
        for (name, given) in &self.variables {
            let value = match given {
                Given::Plain(value) => value.clone(),
                Given::Kept(keeper) => {
                    secrets::kept(&format!("{name} of {}", self.url), keeper, environment)?
                }
            };
            named.insert(name.clone(), value);
        }
        // Who names a profile means that of the usual files; nobody else means those.
        if named.contains_key("AWS_PROFILE")
            && let Some(home) = environment.get(settings::HOME).and_then(OsStr::to_str)
        {
            named.insert(settings::HOME.to_owned(), home.to_owned());
        }
        Ok(named)
    }
}

fn variables(
    table: Table,
    scheme: &Scheme,
    inherits: bool,
) -> Result<BTreeMap<String, Given>, String> {
    let before = scheme.variables_before();
    let mut variables = BTreeMap::new();
    for (name, value) in table {
        let says = Says::of(&name).filter(|_| before.iter().any(|before| name.starts_with(before)));
        let Some(says) = says else {
            let known = before.iter().map(|before| match Says::names(before) {
                names if names.is_empty() => format!("{before}…"),
                names => names,
            });
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(format!("{name:?} sets nothing of such a place; there are {known}"));
        };
        if inherits && says != Says::Where {
            return Err(format!(
                "{name} says who asks, which inherit-credentials leaves to the process"
            ));
        }
        let given = match value {
            Value::String(_) if says == Says::Secret => {
                return Err(format!(
                    "{name} may be secret: say where it is kept, as {{ file = … }}, {{ env = … }} or \
                     {{ command = … }}"
                ));
            }
            Value::String(value) => Given::Plain(plain(&name, value, inherits)?),
            Value::Table(keeper) => Given::Kept(keeper_of(&name, keeper)?),
            _ => return Err(format!("{name} is no text, and does not say where one is kept")),
        };
        variables.insert(name, given);
    }
    for (one, other) in PAIRS {
        for (one, other) in [(one, other), (other, one)] {
            if variables.contains_key(one) && !variables.contains_key(other) {
                return Err(format!("{one} is of no use without {other}"));
            }
        }
    }
    Ok(variables)
}

fn plain(name: &str, value: String, inherits: bool) -> Result<String, String> {
    if value.is_empty() && !inherits {
        return Err(format!("{name} is empty"));
    }
    if FILES.contains(&name) && !value.starts_with('/') {
        return Err(format!("{name} is no absolute path"));
    }
    let (_, authority) = value.split_once("://").unwrap_or(("", &value));
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if name.contains("ENDPOINT") && authority.contains('@') {
        return Err(format!("{name} holds a user or a password"));
    }
    Ok(value)
}

fn keeper_of(name: &str, keeper: Table) -> Result<Keeper, String> {
    let mut said = keeper.into_iter();
    match (said.next(), said.next()) {
        (Some((how, Value::String(text))), None) if !text.is_empty() => match how.as_str() {
            "file" if !text.starts_with('/') => {
                Err(format!("{name}: the file is no absolute path"))
            }
            "file" => Ok(Keeper::File(PathBuf::from(text))),
            "env" => Ok(Keeper::Variable(text)),
            "command" => Ok(Keeper::Command(text)),
            _ => Err(format!("{name}: {how:?} is not known; there are file, env and command")),
        },
        _ => Err(format!("{name}: one of file, env and command says where it is kept")),
    }
}

/// How one location is reached.
#[derive(Clone)]
pub struct Reach {
    location: Location,
    /// With the variables of the process.
    usual: RemoteOptions,
    place: Option<Place>,
    environment: Environment,
}

impl Reach {
    /// Of several places the one counts that says most of where it is.
    pub(crate) fn new(
        location: &Location,
        usual: RemoteOptions,
        places: &[Place],
        environment: &Environment,
    ) -> Self {
        let around = places.iter().filter(|place| location.is_within(&place.location));
        // All of them lie within each other.
        let place = around.reduce(|one, other| match other.location.is_within(&one.location) {
            true => other,
            false => one,
        });
        let (location, place) = (location.clone(), place.cloned());
        Self { location, usual, place, environment: environment.clone() }
    }

    /// Whether the configuration file says what it is reached with.
    pub(crate) const fn is_configured(&self) -> bool {
        self.place.is_some()
    }

    /// What it is reached with, with the secrets.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn options(&self) -> Result<RemoteOptions, CliError> {
        let Some(place) = &self.place else { return Ok(self.usual.clone()) };
        let named = place.read(&self.environment)?;
        let usual = self.usual.clone();
        Ok(if place.inherits { usual.instead(named) } else { usual.alone(named) })
    }

    /// The same for whoever opens one location of several, and goes on without it.
    ///
    /// # Errors
    /// As [`Self::options`].
    pub fn options_of_copy(&self) -> Result<RemoteOptions, StoreError> {
        self.options().map_err(|error| StoreError::Misconfigured {
            location: self.location.to_string(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::parse;

    fn environment() -> Environment {
        let set = [
            ("AWS_ACCESS_KEY_ID", "AKIAHOME"),
            ("AWS_REGION", "home"),
            ("AWS_PROFILE", "home"),
            ("HOME", "/home/u"),
            ("SECOND_KEY", "of-the-second"),
        ];
        Environment::new(set.map(|(name, value)| (name.into(), value.into())))
    }

    fn reach(text: &str, url: &str) -> Reach {
        let environment = environment();
        let usual = RemoteOptions::new(|name| environment.get(name)?.to_str().map(str::to_owned));
        let places = parse(text).unwrap().places;
        Reach::new(&Location::parse(OsStr::new(url)).unwrap(), usual, &places, &environment)
    }

    #[test]
    fn the_place_that_says_most_counts() {
        let place = |url: &str, region: &str| {
            format!("[[place]]\nurl = '{url}'\nenv.AWS_REGION = '{region}'\n")
        };
        let text = [
            place("s3://bucket/crm/", "crm"),
            place("s3://bucket", "bucket"),
            place("s3://bucket/crm/db/", "db"),
        ];
        for (url, region) in [
            ("s3://bucket/crm/x", "crm"),
            ("s3://bucket/crm/db/x", "db"),
            ("s3://bucket/crm-two", "bucket"),
            ("s3://bucket", "bucket"),
            ("s3://bucket-two/crm", "home"),
            ("gcs://bucket/crm", "home"),
        ] {
            let reach = reach(&text.concat(), url);
            assert_eq!(reach.options().unwrap().first(&["AWS_REGION"]), Some(region), "{url}");
            assert_eq!(reach.is_configured(), region != "home", "{url}");
        }
    }

    #[test]
    fn a_place_has_what_is_named_and_nothing_of_the_process() {
        let alone = reach("[[place]]\nurl = 's3://b'\n", "s3://b/x").options().unwrap();
        assert_eq!(alone.first(&cairn_engine::store::options::VARIABLES), None);
        let profile = "[[place]]\nurl = 's3://b'\nenv.AWS_PROFILE = 'second'\n";
        let profile = reach(profile, "s3://b/x").options().unwrap();
        assert_eq!(profile.first(&["AWS_PROFILE"]), Some("second"));
        assert_eq!(
            (profile.first(&["HOME"]), profile.first(&["AWS_REGION"])),
            (Some("/home/u"), None)
        );
        let inherits =
            "[[place]]\nurl = 's3://b'\ninherit-credentials = true\nenv.AWS_REGION = 'b'\n";
        let inherits = reach(inherits, "s3://b/x").options().unwrap();
        assert_eq!(inherits.first(&["AWS_PROFILE"]), Some("home"));
        assert_eq!(inherits.first(&["AWS_REGION"]), Some("b"));
    }

    #[test]
    fn secrets_are_read_from_where_they_are_kept_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "hunter2\n").unwrap();
        let kept = |keeper: &str| {
            let text =
                format!("[[place]]\nurl = 'webdav://h'\nenv.WEBDAV_TOKEN = {{ {keeper} }}\n");
            reach(&text, "webdav://h/x")
        };
        for keeper in [format!("file = '{}'", file.display()), "command = 'echo hunter2'".into()] {
            let reach = kept(&keeper);
            let options = reach.options().unwrap();
            assert_eq!(options.first(&["WEBDAV_TOKEN"]), Some("hunter2"));
            let shown = format!("{options:?} {:?}", reach.place);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let variable = kept("env = 'SECOND_KEY'").options().unwrap();
        assert_eq!(variable.first(&["WEBDAV_TOKEN"]), Some("of-the-second"));
        for (keeper, told) in [
            ("env = 'NOT_SET'", "WEBDAV_TOKEN of webdav://h: the variable NOT_SET is not set"),
            ("file = '/nowhere/at/all'", "/nowhere/at/all"),
            ("command = 'echo hunter2; exit 3'", "WEBDAV_TOKEN of webdav://h"),
            ("command = 'printf \"a\\nhunter2\"'", "more than one line"),
            ("command = 'true'", "is empty"),
        ] {
            let reach = kept(keeper);
            let error = reach.options().unwrap_err();
            let copy = reach.options_of_copy().unwrap_err();
            let told_all = format!("{error} {error:?} {copy} {copy:?}");
            assert!(error.to_string().contains(told), "{keeper}: {error}");
            assert!(!told_all.contains("hunter2"), "{told_all}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_values() {
        let place = "[[place]]\nurl = 's3://b/'\n";
        for (text, told) in [
            ("[[place]]\nenv.AWS_REGION = 'a'\n".to_owned(), "needs a url"),
            ("[[place]]\nurl = '/folder'\n".to_owned(), "not reached over a network"),
            ("[[place]]\nurl = 's3://a:hunter2@b'\n".to_owned(), "s3"),
            (format!("{place}{place}"), "two places"),
            (format!("{place}[[place]]\nurl = 's3://b'\n"), "two places"),
            (format!("{place}AWS_SECRET_ACCESS_KEY = 'hunter2'\n"), "is not known"),
            (format!("{place}env = 'hunter2'\n"), "table of variables"),
            (format!("{place}inherit-credentials = 'hunter2'\n"), "true or false"),
            (format!("{place}env.AWS_SECRET_ACCESS_KEY = 'hunter2'\n"), "may be secret"),
            (format!("{place}env.AWS_SECRET_ACCESS_KEY = 2\n"), "no text"),
            (format!("{place}env.AWS_REGOIN = 'a'\n"), "AWS_REGION"),
            (format!("{place}env.WEBDAV_TOKEN = {{ env = 'X' }}\n"), "sets nothing"),
            (format!("{place}env.HOME = '/x'\n"), "sets nothing"),
            (format!("{place}env.AWS_REGION = ''\n"), "is empty"),
            (format!("{place}env.AWS_CONFIG_FILE = '~/x'\n"), "absolute"),
            (format!("{place}env.AWS_ENDPOINT_URL = 'https://u:hunter2@h/x'\n"), "password"),
            (format!("{place}env.AWS_ACCESS_KEY_ID = 'AKIA'\n"), "AWS_SECRET_ACCESS_KEY"),
            (format!("{place}env.AWS_SESSION_TOKEN = {{ file = 'x' }}\n"), "absolute"),
            (format!("{place}env.AWS_SESSION_TOKEN = {{ text = 'hunter2' }}\n"), "not known"),
            (format!("{place}env.AWS_SESSION_TOKEN = {{ file = '/a', env = 'B' }}\n"), "one of"),
            (
                format!("{place}inherit-credentials = true\nenv.AWS_PROFILE = 'x'\n"),
                "says who asks",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.to_string().contains(told), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
        }
        // Nothing is needed where everybody is let in, and an endpoint may be unset.
        parse(place).unwrap();
        let unset = "inherit-credentials = true\nenv.AWS_ENDPOINT_URL = ''\n";
        parse(&format!("{place}{unset}")).unwrap();
    }
}
