//! The configuration file: the rules of the home copy, and replicas by name, each with rules of its
//! own.
//!
//! ```toml
//! [retention]
//! keep-daily = 30
//! erase-within = "72h"
//!
//! [[replica]]
//! name = "offsite"
//! url = "s3://bucket/prefix"
//! keep-monthly = 12
//! erase-within = "72h"
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cairn_engine::ops::gc::MAX_DELETE_PERCENT_DEFAULT;
use cairn_engine::retention::Age;
use serde::Deserialize;

use crate::arguments::{Keep, Within, parse_within};
use crate::ui::errors::CliError;

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// As an [`Entry`], but for what only a replica has.
    retention: Option<toml::Table>,
    #[serde(default)]
    replica: Vec<Entry>,
}

/// Keys of [`Entry`] that mean nothing for the home copy.
const OF_REPLICAS: [&str; 3] = ["name", "url", "max-delete"];

/// A replica as it is written down. Rules are named as the options of `forget`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: String,
    url: String,
    repo: Option<String>,
    job: Option<String>,
    keep_last: Option<u32>,
    keep_hourly: Option<u32>,
    keep_daily: Option<u32>,
    keep_weekly: Option<u32>,
    keep_monthly: Option<u32>,
    keep_yearly: Option<u32>,
    keep_within: Option<String>,
    #[serde(default)]
    keep_tag: Vec<String>,
    time_zone: Option<String>,
    erase_within: Option<String>,
    max_delete: Option<f64>,
}

/// A replica that is to be updated.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The home copy it is of; without it, whichever is named.
    pub repo: Option<String>,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// How long expired data may stay there.
    pub erase_within: Option<Within>,
    /// Largest share of it that is freed at once, percent.
    pub max_delete: f64,
}

/// What the configuration file says of the home copy.
#[derive(Clone, Debug)]
pub struct Home {
    /// The home copy that it says it of; without it, whichever is named.
    pub repo: Option<String>,
    /// Only snapshots of this job are thinned out.
    pub job: Option<String>,
    /// Which snapshots it keeps.
    pub keep: Keep,
    /// How long expired data may stay there.
    pub erase_within: Option<Within>,
}

/// Reads what a configuration file says of the home copy; nothing where the file is `optional` and
/// missing.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_home(path: &Path, optional: bool) -> Result<Option<Home>, CliError> {
    let Some(mut table) = read_file(path, optional)?.retention else { return Ok(None) };
    let invalid = |problem: String| {
        let problem = format!("retention: {problem}");
        CliError::Configuration { path: path.to_owned(), problem }
    };
    if let Some(key) = OF_REPLICAS.iter().find(|key| table.contains_key(**key)) {
        return Err(invalid(format!("{key:?} is for replicas")));
    }
    for key in ["name", "url"] {
        table.insert(key.to_owned(), "home".into());
    }
    let entry = table.try_into::<Entry>().map_err(|error| invalid(error.to_string()))?;
    let Replica { repo, job, keep, erase_within, .. } = entry.replica().map_err(invalid)?;
    Ok(Some(Home { repo, job, keep, erase_within }))
}

/// Reads the replicas of a configuration file; none where the file is `optional` and missing.
///
/// # Errors
/// When it cannot be read or understood, or two replicas have one name.
pub fn read(path: &Path, optional: bool) -> Result<Vec<Replica>, CliError> {
    let file = read_file(path, optional)?;
    let invalid = |problem: String| CliError::Configuration { path: path.to_owned(), problem };
    let mut replicas: Vec<Replica> = Vec::new();
    for entry in file.replica {
        let name = entry.name.clone();
        if replicas.iter().any(|known| known.name == name) {
            return Err(invalid(format!("two replicas have the name {name:?}")));
        }
        let replica = entry.replica().map_err(|problem| invalid(format!("{name}: {problem}")))?;
        replicas.push(replica);
    }
    Ok(replicas)
}

fn read_file(path: &Path, optional: bool) -> Result<File, CliError> {
    let failed = |source| CliError::File {
        action: "read the configuration file",
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if optional && error.kind() == ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(failed(std::io::Error::other("it is longer than 1 MiB")));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let invalid = |problem: String| CliError::Configuration { path: path.to_owned(), problem };
    toml::from_str::<File>(&text).map_err(|error| invalid(error.to_string()))
}

impl Entry {
    fn replica(self) -> Result<Replica, String> {
        if self.name.is_empty() || self.url.is_empty() {
            return Err("a replica needs a name and a url".to_owned());
        }
        let max_delete = self.max_delete.unwrap_or(MAX_DELETE_PERCENT_DEFAULT);
        if !(0.0..=100.0).contains(&max_delete) {
            return Err(format!("max-delete {max_delete} is not between 0 and 100"));
        }
        let age = |text: String| text.parse::<Age>().map_err(|error| error.to_string());
        Ok(Replica {
            name: self.name,
            url: self.url,
            repo: self.repo,
            job: self.job,
            keep: Keep {
                keep_last: self.keep_last,
                keep_hourly: self.keep_hourly,
                keep_daily: self.keep_daily,
                keep_weekly: self.keep_weekly,
                keep_monthly: self.keep_monthly,
                keep_yearly: self.keep_yearly,
                keep_within: self.keep_within.map(age).transpose()?,
                keep_tags: self.keep_tag,
                time_zone: self.time_zone,
                ..Keep::default()
            },
            erase_within: self.erase_within.as_deref().map(parse_within).transpose()?,
            max_delete,
        })
    }
}

/// Where the configuration file is unless it is named: below `$XDG_CONFIG_HOME`, else `~/.config`.
#[must_use]
pub fn default_path(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = xdg.filter(|base| base.is_absolute());
    base.or_else(|| home.map(|home| home.join(".config")))
        .map(|base| base.join("cairn/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Replica>, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        read(&path, false)
    }

    #[test]
    fn replicas_have_rules_of_their_own() {
        let replicas = parse(
            "[[replica]]\nname = 'a'\nurl = '/a'\n\
             [[replica]]\nname = 'b'\nurl = 's3://b/x'\nkeep-monthly = 12\nkeep-within = '30d'\n\
             keep-tag = ['pin']\nerase-within = 'never'\njob = 'db'\nmax-delete = 80.0\n",
        )
        .unwrap();
        assert_eq!(replicas.len(), 2);
        assert_eq!(replicas[0].erase_within, None);
        assert_eq!((replicas[1].keep.keep_monthly, replicas[1].max_delete), (Some(12), 80.0));
        assert_eq!(replicas[1].erase_within, Some(Within::Never));
        assert!(replicas[1].keep.keep_within.is_some());
    }

    #[test]
    fn home_has_rules_under_the_same_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let home = |text: &str| {
            fs::write(&path, text).unwrap();
            read_home(&path, false)
        };
        let text = "[retention]\nkeep-daily = 30\nkeep-within = '36h'\nkeep-tag = ['audit']\n\
                    erase-within = '7d'\njob = 'db'\nrepo = '/backup'\n\
                    [[replica]]\nname = 'a'\nurl = '/a'\n";
        let found = home(text).unwrap().unwrap();
        assert_eq!((found.keep.keep_daily, found.keep.keep_tags.len()), (Some(30), 1));
        assert_eq!((found.job.as_deref(), found.repo.as_deref()), (Some("db"), Some("/backup")));
        assert_eq!(found.erase_within, parse_within("7d").ok());
        assert_eq!(read(&path, false).unwrap().len(), 1);
        assert!(home("[[replica]]\nname = 'a'\nurl = '/a'\n").unwrap().is_none());
        assert!(home("[retention]\n").unwrap().unwrap().keep.is_empty());
        assert!(read_home(Path::new("/nowhere/at/all"), true).unwrap().is_none());
        for text in [
            "[retention]\nkeep-dayly = 3\n",
            "[retention]\nkeep-within = 'long'\n",
            "[retention]\nname = 'a'\n",
            "[retention]\nmax-delete = 3.0\n",
            "[[retention]]\nkeep-daily = 3\n",
        ] {
            let error = home(text).unwrap_err();
            assert!(matches!(error, CliError::Configuration { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        for text in [
            "[[replica]]\nname = 'a'\n",
            "[[replica]]\nname = 'a'\nurl = ''\n",
            "[[replica]]\nname = 'a'\nurl = '/a'\nkeep-mothly = 2\n",
            "[[replica]]\nname = 'a'\nurl = '/a'\nmax-delete = 101.0\n",
            "[[replica]]\nname = 'a'\nurl = '/a'\nkeep-within = 'long'\n",
            "[[replica]]\nname = 'a'\nurl = '/a'\n[[replica]]\nname = 'a'\nurl = '/b'\n",
            "nonsense",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, CliError::Configuration { .. }), "{text}: {error}");
        }
        assert!(read(Path::new("/nowhere/at/all"), true).unwrap().is_empty());
        assert!(read(Path::new("/nowhere/at/all"), false).is_err());
    }
}
