//! The two settings of a profile of the AWS tools that are no credentials: its region and its
//! endpoint.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use crate::store::options::RemoteOptions;

/// Longest configuration file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
}

impl Profile {
    /// Reads the profile that `AWS_PROFILE` names, `default` without it, from the file that
    /// `AWS_CONFIG_FILE` names, `~/.aws/config` without it. A file that is absent or cannot be
    /// read says nothing.
    pub(super) fn read(options: &RemoteOptions) -> Self {
        let named = options.first(&["AWS_CONFIG_FILE"]).map(PathBuf::from);
        let usual = || options.first(&["HOME"]).map(|home| PathBuf::from(home).join(".aws/config"));
        let Some(file) = named.or_else(usual).and_then(|path| fs::File::open(path).ok()) else {
            return Self::default();
        };
        let mut text = Vec::new();
        if file.take(FILE_BYTES_MAX).read_to_end(&mut text).is_err() {
            return Self::default();
        }
        let name = options.first(&["AWS_PROFILE"]).unwrap_or("default");
        Self::parse(&String::from_utf8_lossy(&text), name)
    }

    fn parse(text: &str, name: &str) -> Self {
        let mut profile = Self::default();
        let mut inside = false;
        for line in text.lines() {
            if let Some(section) = line.trim().strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default().trim();
                let section = section.strip_prefix("profile ").unwrap_or(section).trim();
                inside = section == name;
            } else if inside
                // Indented lines belong to a setting with parts of its own.
                && !line.starts_with([' ', '\t', '#', ';'])
                && let Some((key, value)) = line.split_once('=')
            {
                let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                match key.trim() {
                    "region" => profile.region = value,
                    "endpoint_url" => profile.endpoint_url = value,
                    _ => {}
                }
            }
        }
        profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[default]\nregion = eu-west-1\n# region = x\n\n[profile backup]\n\
        region=eu-central-1\ns3 =\n  endpoint_url = http://nested\nendpoint_url = http://h:1\n\
        [sso-session backup2]\nregion = nowhere\n";

    #[test]
    fn profiles_are_told_apart() {
        let default = Profile::parse(FILE, "default");
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        assert_eq!(default.endpoint_url, None);
        let backup = Profile::parse(FILE, "backup");
        assert_eq!(backup.region.as_deref(), Some("eu-central-1"));
        assert_eq!(backup.endpoint_url.as_deref(), Some("http://h:1"));
        assert_eq!(Profile::parse(FILE, "other"), Profile::default());
    }

    #[test]
    fn the_file_is_found_and_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".aws")).unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let options = |profile: &str| {
            let (home, profile) = (home.clone(), profile.to_owned());
            RemoteOptions::new(move |name| match name {
                "HOME" => Some(home.clone()),
                "AWS_PROFILE" => Some(profile.clone()),
                _ => None,
            })
        };
        assert_eq!(Profile::read(&options("")), Profile::default());
        fs::write(folder.path().join(".aws/config"), FILE).unwrap();
        assert_eq!(Profile::read(&options("")).region.as_deref(), Some("eu-west-1"));
        assert_eq!(Profile::read(&options("backup")).region.as_deref(), Some("eu-central-1"));
    }
}
