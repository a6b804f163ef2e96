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

use cairn_engine::ops::gc::MAX_DELETE_PERCENT_DEFAULT;
use cairn_engine::retention::Age;
use serde::Deserialize;

use crate::arguments::{GiveUp, Keep, Within, parse_give_up, parse_within};

/// Keys of [`Entry`] that mean nothing for the home copy.
const OF_REPLICAS: [&str; 5] = ["name", "url", "max-delete", "trust-clock", "give-up-after"];

/// A replica as it is written down. Rules are named as the options of `forget`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Entry {
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
    keep_within_hourly: Option<String>,
    keep_within_daily: Option<String>,
    keep_within_weekly: Option<String>,
    keep_within_monthly: Option<String>,
    keep_within_yearly: Option<String>,
    #[serde(default)]
    keep_tag: Vec<String>,
    time_zone: Option<String>,
    erase_within: Option<String>,
    max_delete: Option<f64>,
    #[serde(default)]
    trust_clock: bool,
    give_up_after: Option<String>,
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
    /// This host's clock is right: see `forget`.
    pub trust_clock: bool,
    /// How long its place may get nowhere.
    pub give_up_after: Option<GiveUp>,
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

/// Takes what a configuration file says of the home copy.
///
/// # Errors
/// When it cannot be understood.
pub(crate) fn understand_home(mut table: toml::Table) -> Result<Home, String> {
    let named = |problem: String| format!("retention: {problem}");
    if let Some(key) = OF_REPLICAS.iter().find(|key| table.contains_key(**key)) {
        return Err(named(format!("{key:?} is for replicas")));
    }
    for key in ["name", "url"] {
        table.insert(key.to_owned(), "home".into());
    }
    let entry = table.try_into::<Entry>().map_err(|error| named(error.message().to_owned()))?;
    let Replica { repo, job, keep, erase_within, .. } = entry.replica().map_err(named)?;
    Ok(Home { repo, job, keep, erase_within })
}

/// Takes the replicas of a configuration file.
///
/// # Errors
/// When one of them cannot be understood, or two have one name.
pub(crate) fn understand(entries: Vec<Entry>) -> Result<Vec<Replica>, String> {
    let mut replicas: Vec<Replica> = Vec::new();
    for entry in entries {
        let name = entry.name.clone();
        if replicas.iter().any(|known| known.name == name) {
            return Err(format!("two replicas have the name {name:?}"));
        }
        replicas.push(entry.replica().map_err(|problem| format!("{name}: {problem}"))?);
    }
    Ok(replicas)
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
        let age = |text: Option<String>| {
            text.map(|text| text.parse::<Age>()).transpose().map_err(|error| error.to_string())
        };
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
                keep_within: age(self.keep_within)?,
                keep_within_hourly: age(self.keep_within_hourly)?,
                keep_within_daily: age(self.keep_within_daily)?,
                keep_within_weekly: age(self.keep_within_weekly)?,
                keep_within_monthly: age(self.keep_within_monthly)?,
                keep_within_yearly: age(self.keep_within_yearly)?,
                keep_tags: self.keep_tag,
                time_zone: self.time_zone,
            },
            erase_within: self.erase_within.as_deref().map(parse_within).transpose()?,
            max_delete,
            trust_clock: self.trust_clock,
            give_up_after: self.give_up_after.as_deref().map(parse_give_up).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::ui::errors::CliError;

    fn parse(text: &str) -> Result<Vec<Replica>, CliError> {
        config::tests::parse(text).map(|config| config.replicas)
    }

    #[test]
    fn replicas_have_rules_of_their_own() {
        let replicas = parse(
            "[[replica]]\nname = 'a'\nurl = '/a'\n\
             [[replica]]\nname = 'b'\nurl = 's3://b/x'\nkeep-monthly = 12\nkeep-within = '30d'\n\
             keep-tag = ['pin']\nerase-within = 'never'\njob = 'db'\nmax-delete = 80.0\n\
             give-up-after = '2h'\n",
        )
        .unwrap();
        assert_eq!(replicas.len(), 2);
        assert_eq!(replicas[0].erase_within, None);
        assert_eq!((replicas[1].keep.keep_monthly, replicas[1].max_delete), (Some(12), 80.0));
        assert_eq!(replicas[1].erase_within, Some(Within::Never));
        let give_up = replicas.iter().map(|one| one.give_up_after).collect::<Vec<_>>();
        assert_eq!(give_up, [None, Some(GiveUp::AfterMs(2 * 60 * 60 * 1000))]);
        assert!(replicas[1].keep.keep_within.is_some());
    }

    #[test]
    fn home_has_rules_under_the_same_names() {
        let home = |text: &str| config::tests::parse(text).map(|config| config.home);
        let text = "[retention]\nkeep-daily = 30\nkeep-within = '36h'\nkeep-tag = ['audit']\n\
                    erase-within = '7d'\njob = 'db'\nrepo = '/backup'\n\
                    [[replica]]\nname = 'a'\nurl = '/a'\n";
        let found = home(text).unwrap().unwrap();
        assert_eq!((found.keep.keep_daily, found.keep.keep_tags.len()), (Some(30), 1));
        assert_eq!((found.job.as_deref(), found.repo.as_deref()), (Some("db"), Some("/backup")));
        assert_eq!(found.erase_within, parse_within("7d").ok());
        assert_eq!(parse(text).unwrap().len(), 1);
        assert!(home("[[replica]]\nname = 'a'\nurl = '/a'\n").unwrap().is_none());
        assert!(home("[retention]\n").unwrap().unwrap().keep.is_empty());
        for text in [
            "[retention]\nkeep-dayly = 3\n",
            "[retention]\nkeep-within = 'long'\n",
            "[retention]\nname = 'a'\n",
            "[retention]\nmax-delete = 3.0\n",
            "[retention]\ntrust-clock = true\n",
            "[[retention]]\nkeep-daily = 3\n",
        ] {
            let error = home(text).unwrap_err();
            assert!(matches!(error, CliError::Configuration { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn every_rule_of_forget_may_stand_there() {
        let rules = [
            "keep-last = 1",
            "keep-hourly = 1",
            "keep-daily = 1",
            "keep-weekly = 1",
            "keep-monthly = 1",
            "keep-yearly = 1",
            "keep-within = '1d'",
            "keep-within-hourly = '2d'",
            "keep-within-daily = '3w'",
            "keep-within-weekly = '4mo'",
            "keep-within-monthly = '5y'",
            "keep-within-yearly = '6y'",
            "keep-tag = ['pin']",
            "time-zone = 'local'",
            "trust-clock = true",
        ];
        let named = "[[replica]]\nname = 'a'\nurl = '/a'\n";
        let all = parse(&format!("{named}{}\n", rules.join("\n"))).unwrap().remove(0);
        assert!(all.trust_clock && !parse(named).unwrap().remove(0).trust_clock);
        let age = |text: &str| text.parse::<Age>().ok();
        assert_eq!(all.keep.keep_within_hourly, age("2d"));
        assert_eq!(all.keep.keep_within_yearly, age("6y"));
        for rule in &rules[..13] {
            let alone = parse(&format!("{named}{rule}\n")).unwrap().remove(0);
            assert!(!alone.keep.is_empty(), "{rule}");
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
            "[[replica]]\nname = 'a'\nurl = '/a'\nkeep-within-daily = 'long'\n",
            "[[replica]]\nname = 'a'\nurl = '/a'\n[[replica]]\nname = 'a'\nurl = '/b'\n",
            "nonsense",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, CliError::Configuration { .. }), "{text}: {error}");
        }
    }
}
