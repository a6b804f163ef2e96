//! `cairn cache …`

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cairn_engine::index::local::CopyId;
use cairn_engine::repo::places::Places;
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Cache, CacheClear};
use crate::session;
use crate::settings;
use crate::ui::errors::{CliError, Failure};
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

/// The local cache of one copy of a repository.
struct CacheFolder {
    copy: CopyId,
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
        Cache::ForgetPlace => return forget_place(app, &folder),
        Cache::Show => ("show", false),
        Cache::Clear(CacheClear { repository, dry_run }) => {
            if let Some(prefix) = repository {
                select(&mut caches, prefix)?;
            }
            ("clear", !dry_run)
        }
    };
    if let (Cache::Clear(clear), true, Some(places)) = (command, deletes, Places::new(&folder)) {
        let prefix = clear.repository.as_deref().unwrap_or_default();
        places.forget_repository(prefix).map_err(failed("forget places in", &folder))?;
    }
    let mut table = Table::new(&COLUMNS);
    for cache in &caches {
        if deletes {
            delete(&cache.path).map_err(failed("delete the cache", &cache.path))?;
        }
        app.printer.event(&objects::Cache::new(cache.copy, cache.bytes))?;
        table.row(vec![
            cache.copy.repository.to_hex(),
            cache.copy.replica.map(|replica| replica.short()).unwrap_or_default(),
            format::bytes(cache.bytes),
        ]);
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

const COLUMNS: [(&str, Align); 3] =
    [("REPOSITORY", Align::Left), ("COPY", Align::Left), ("SIZE", Align::Right)];

/// Forgets which copy was at the place that the options name.
fn forget_place(app: &App, folder: &Path) -> Result<Finished, Failure> {
    let location = session::location(app)?;
    let known =
        match (Places::new(folder), session::place(&location)) {
            (Some(places), Some(place)) => places.forget(&place).map_err(|source| {
                CliError::File { action: "forget a place in", path: folder.to_owned(), source }
            })?,
            _ => false,
        };
    app.printer.summary(match known {
        true => "forgot which copy was there",
        false => "nothing was known of that place",
    })?;
    Ok(Finished::with(json!({
        "action": "forget-place",
        "caches": 0,
        "bytes": 0,
        "deleted": known,
    })))
}

/// Folders named like a copy of a repository; everything else there is not ours.
fn find(folder: &Path) -> io::Result<Vec<CacheFolder>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut caches = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let copy = name.to_str().and_then(CopyId::of_folder);
        if let (Some(copy), true) = (copy, entry.file_type()?.is_dir()) {
            caches.push(CacheFolder { copy, bytes: size(&entry.path())?, path: entry.path() });
        }
    }
    caches.sort_by_key(|cache| (cache.copy.repository, cache.copy.replica));
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
    caches.retain(|cache| cache.copy.repository.to_hex().starts_with(prefix));
    let repositories = caches.iter().map(|cache| cache.copy.repository).collect::<BTreeSet<_>>();
    let (problem, hint) = match repositories.len() {
        1 => return Ok(()),
        0 => (format!("no cache belongs to a repository {prefix}"), "see `cairn cache show`"),
        _ => {
            let names: Vec<String> = repositories.iter().map(|id| id.to_hex()).collect();
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
