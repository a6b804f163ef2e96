//! `cairn cache …`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cairn_format::ids::RepositoryId;
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Cache, CacheClear};
use crate::settings;
use crate::ui::errors::{CliError, Failure};
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

/// The local cache of one repository.
struct CacheFolder {
    repository: RepositoryId,
    path: PathBuf,
    bytes: u64,
}

pub(super) fn run(app: &App, command: &Cache) -> Result<Finished, Failure> {
    let folder = settings::cache_dir(&app.global, &app.environment)?;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| CliError::File { action, path, source }
    };
    let mut caches = find(&folder).map_err(failed("read the cache folder", &folder))?;
    let (action, deletes) = match command {
        Cache::Show => ("show", false),
        Cache::Clear(CacheClear { repository, dry_run }) => {
            if let Some(prefix) = repository {
                select(&mut caches, prefix)?;
            }
            ("clear", !dry_run)
        }
    };
    let mut table = Table::new(&[("REPOSITORY", Align::Left), ("SIZE", Align::Right)]);
    for cache in &caches {
        if deletes {
            delete(&cache.path).map_err(failed("delete the cache", &cache.path))?;
        }
        app.printer.event(&objects::Cache::new(cache.repository, cache.bytes))?;
        table.row(vec![cache.repository.to_hex(), format::bytes(cache.bytes)]);
    }
    if !caches.is_empty() {
        for line in table.lines() {
            app.printer.line(&line)?;
        }
    }
    let bytes: u64 = caches.iter().map(|cache| cache.bytes).sum();
    let verb = if deletes { "deleted" } else { "in" };
    app.printer.note(&format!("{} {verb} {}", format::bytes(bytes), folder.display()));
    Ok(Finished::with(json!({
        "action": action,
        "caches": caches.len(),
        "bytes": bytes,
        "deleted": deletes,
    })))
}

/// Folders named like a repository; everything else there is not ours.
fn find(folder: &Path) -> io::Result<Vec<CacheFolder>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut caches = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let repository = name.to_str().and_then(|name| RepositoryId::from_hex(name).ok());
        if let (Some(repository), true) = (repository, entry.file_type()?.is_dir()) {
            caches.push(CacheFolder {
                repository,
                bytes: size(&entry.path())?,
                path: entry.path(),
            });
        }
    }
    caches.sort_by_key(|cache| cache.repository);
    Ok(caches)
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path())?,
            Ok(metadata) => metadata.len(),
            // Another process is at work there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

fn select(caches: &mut Vec<CacheFolder>, prefix: &str) -> Result<(), CliError> {
    caches.retain(|cache| cache.repository.to_hex().starts_with(prefix));
    let (problem, hint) = match caches.len() {
        1 => return Ok(()),
        0 => (format!("no cache belongs to a repository {prefix}"), "see `cairn cache show`"),
        _ => {
            let names: Vec<String> = caches.iter().map(|cache| cache.repository.to_hex()).collect();
            let problem = format!("several repositories begin with {prefix}: {}", names.join(", "));
            (problem, "give more digits")
        }
    };
    Err(CliError::Usage { problem, hint })
}

/// Takes the folder out of use before emptying it, so that nobody meets half of a cache.
fn delete(path: &Path) -> io::Result<()> {
    let aside = path.with_extension(format!("deleted-{}", std::process::id()));
    fs::rename(path, &aside)?;
    fs::remove_dir_all(&aside)
}
