//! The configuration file: the rules of the home copy, and replicas by name ([`crate::replicas`]);
//! what places are reached with ([`crate::places`]), and what requests to them cost ([`crate::prices`]).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::places::{self, Place};
use crate::prices::{self, Prices};
use crate::replicas::{self, Home, Replica};
use crate::ui::errors::CliError;

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// As a replica, but for what only a replica has.
    retention: Option<toml::Table>,
    #[serde(default)]
    replica: Vec<replicas::Entry>,
    #[serde(default)]
    place: Vec<toml::Table>,
    #[serde(default)]
    price: Vec<prices::Entry>,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Rules of the home copy.
    pub home: Option<Home>,
    /// Replicas, in their order.
    pub replicas: Vec<Replica>,
    /// Places with settings of their own.
    pub places: Vec<Place>,
    /// What requests to places cost.
    pub prices: Vec<Prices>,
}

/// Reads a configuration file; it says nothing where it is `optional` and missing. No secret that it
/// names is read.
///
/// # Errors
/// When it cannot be read or understood. What stands there is not repeated: by mistake it may be a
/// secret.
pub fn read(path: &Path, optional: bool) -> Result<Config, CliError> {
    let failed = |source| CliError::File {
        action: "read the configuration file",
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if optional && error.kind() == ErrorKind::NotFound => {
            return Ok(Config::default());
        }
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(failed(std::io::Error::other("it is longer than 1 MiB")));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let invalid = |problem: String| CliError::Configuration { path: path.to_owned(), problem };
    let file = toml::from_str::<File>(&text).map_err(|error| {
        // As it shows itself, it would show the line.
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        invalid(format!("{line}{}", error.message()))
    })?;
    Ok(Config {
        home: file.retention.map(replicas::understand_home).transpose().map_err(&invalid)?,
        replicas: replicas::understand(file.replica).map_err(&invalid)?,
        places: places::understand(file.place).map_err(&invalid)?,
        prices: prices::understand(file.price).map_err(&invalid)?,
    })
}

/// Where the configuration file is unless it is named: below `$XDG_CONFIG_HOME`, else `~/.config`.
#[must_use]
pub fn default_path(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = xdg.filter(|base| base.is_absolute());
    base.or_else(|| home.map(|home| home.join(".config")))
        .map(|base| base.join("cairn/config.toml"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a file of this text says.
    pub(crate) fn parse(text: &str) -> Result<Config, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        read(&path, false)
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line_and_never_shown() {
        let text = "[[place]]\nurl = 's3://b'\nenv.AWS_SECRET_ACCESS_KEY = \"hunter2";
        let error = parse(text).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("line 3: ") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_file_may_be_missing_where_nobody_named_it() {
        assert!(read(Path::new("/nowhere/at/all"), true).unwrap().replicas.is_empty());
        assert!(read(Path::new("/nowhere/at/all"), false).is_err());
    }
}
