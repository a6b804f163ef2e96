//! `cairn backup`

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use cairn_engine::ops::backup::{BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::replicate::back_up;
use cairn_engine::source::filter::FileSourceOptions;
use cairn_engine::source::profile::Profile;
use cairn_engine::source::stream::widen;
use serde_json::Value;

use super::{App, Finished, replicate};
use crate::arguments::{self, Backup};
use crate::exit_code::ExitCode;
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::{CliError, Failure};
use crate::ui::{format, json, timings};

/// Longest list of paths that `--files-from` reads, bytes.
const LIST_BYTES_MAX: u64 = 1 << 30;

pub(super) fn run(app: &App, arguments: &Backup) -> Result<Finished, Failure> {
    let host = arguments.host.clone().unwrap_or_else(settings::host);
    let options = options(app, arguments, &host)?;
    let job = options.job.clone();
    let session = session::open_as(app, Show::progress(arguments.timings), host)?;
    let also = replicate::also(app, arguments, &session.repository)?;
    // Its snapshot is acknowledged: whatever happens elsewhere, the backup is done.
    let (report, copies) = back_up(&session.repository, options, &also)?;
    drop(session.shown);
    timings::show(&app.printer, &session.repository.context.timings)?;
    let finished = show(app, &report, &job)?;
    match copies {
        Some(copies) => replicate::add(app, &arguments.also, copies, finished),
        None => Ok(finished),
    }
}

fn options(app: &App, arguments: &Backup, host: &str) -> Result<BackupOptions, Failure> {
    let job = settings::job(arguments.job.as_deref(), &app.environment, host)?;
    let mut options = BackupOptions::new(&job, sources(arguments)?);
    options.tags = arguments.tags.clone();
    options.files = FileSourceOptions {
        excludes: arguments.excludes.clone(),
        exclude_files: arguments.exclude_files.clone(),
        exclude_caches: arguments.exclude_caches,
        exclude_larger_than: arguments.exclude_larger_than,
        one_file_system: arguments.one_file_system,
        ..FileSourceOptions::default()
    };
    options.profile = arguments.profile.map(|profile| match profile {
        arguments::Profile::Cdc => Profile::Cdc,
        arguments::Profile::Aligned => Profile::Aligned,
        arguments::Profile::Fixed => Profile::Fixed,
    });
    options.reread = arguments.reread;
    options.compression_level = arguments.compression_level.unwrap_or(options.compression_level);
    options.deltas = !arguments.no_delta;
    options.dry_run = arguments.dry_run;
    Ok(options)
}

fn sources(arguments: &Backup) -> Result<Vec<BackupSource>, CliError> {
    let mut paths = arguments.paths.clone();
    let lists = arguments.files_from.iter().map(|list| (list, b'\n'));
    let mut standard_input = arguments.stdin;
    for (list, separator) in lists.chain(arguments.files_from0.iter().map(|list| (list, 0))) {
        if list.as_os_str() == "-" && std::mem::replace(&mut standard_input, true) {
            return Err(CliError::Usage {
                problem: "standard input is asked for twice".to_owned(),
                hint: "give it to one of --stdin, --files-from and --files-from0",
            });
        }
        paths.extend(split_list(&read_list(list)?, separator));
    }
    let mut sources: Vec<BackupSource> = paths.into_iter().map(BackupSource::Path).collect();
    if arguments.stdin {
        let name = arguments.stdin_name.clone().unwrap_or_else(|| "stdin".to_owned());
        widen(std::io::stdin());
        sources.push(BackupSource::Stream { name, reader: Box::new(std::io::stdin()) });
    }
    if arguments.command {
        sources.push(command(arguments)?);
    }
    for stream in &arguments.streams {
        sources.push(shell_stream(stream)?);
    }
    if sources.is_empty() {
        return Err(CliError::Usage {
            problem: "there is nothing to back up".to_owned(),
            hint: "name a PATH, --stdin, or --command -- CMD",
        });
    }
    Ok(sources)
}

/// The command; its stream has the program's name unless another is given.
fn command(arguments: &Backup) -> Result<BackupSource, CliError> {
    let program = arguments.argv.first().and_then(|program| Path::new(program).file_name());
    let Some(program) = program.map(OsStr::to_string_lossy) else {
        return Err(CliError::Usage {
            problem: "--command names no command".to_owned(),
            hint: "put it last: cairn backup --command -- pg_dump mydb",
        });
    };
    let name = arguments.stdin_name.clone().unwrap_or_else(|| program.into_owned());
    Ok(BackupSource::Command { name, argv: arguments.argv.clone() })
}

/// `NAME=COMMAND`: the output of the command line under that name.
fn shell_stream(text: &str) -> Result<BackupSource, CliError> {
    let Some((name, command)) = text.split_once('=').filter(|(_, command)| !command.is_empty())
    else {
        return Err(CliError::Usage {
            problem: format!("--stream {text:?} is not NAME=COMMAND"),
            hint: "for example --stream 'globals.sql=pg_dumpall --globals-only'",
        });
    };
    let argv = ["/bin/sh", "-c", command].map(OsString::from).to_vec();
    Ok(BackupSource::Command { name: name.to_owned(), argv })
}

fn read_list(list: &Path) -> Result<Vec<u8>, CliError> {
    let action = "read the list of paths";
    let failed = |source| CliError::File { action, path: list.to_owned(), source };
    let reader: Box<dyn Read> = if list.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(list).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    let length = reader.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if length as u64 > LIST_BYTES_MAX {
        return Err(failed(std::io::Error::other("it is longer than 1 GiB")));
    }
    Ok(bytes)
}

fn split_list(list: &[u8], separator: u8) -> impl Iterator<Item = PathBuf> {
    list.split(move |byte| *byte == separator)
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsString::from_vec(path.to_vec())))
}

fn show(app: &App, report: &BackupReport, job: &str) -> Result<Finished, Failure> {
    let statistics = &report.statistics;
    let snapshot = report.snapshot.as_ref();
    // The clock may have been set back meanwhile.
    let elapsed_ms = report.elapsed_ms.max(0).cast_unsigned();
    let name = format::name(job.as_bytes());
    let id = snapshot.map_or_else(|| "the snapshot".to_owned(), |snapshot| snapshot.id.short());
    app.printer.summary(&match snapshot {
        Some(_) => format!(
            "backup {name} {id}: {} in {}: {} read, {} new, {} stored, {}",
            format::bytes(statistics.bytes_total),
            format::plural(statistics.files, "file", "files"),
            format::bytes(statistics.bytes_read),
            format::bytes(statistics.bytes_new),
            format::bytes(statistics.bytes_stored),
            format::duration(elapsed_ms),
        ),
        None => format!(
            "backup {name} (dry run): {} in {} and {}",
            format::bytes(statistics.bytes_total),
            format::plural(statistics.files, "file", "files"),
            format::plural(statistics.directories, "directory", "directories"),
        ),
    })?;
    if report.packs_resumed > 0 {
        app.printer.note(&format!(
            "{} of an interrupted backup were used",
            format::plural(report.packs_resumed, "pack", "packs")
        ));
    }
    if let Some(snapshot) = snapshot {
        app.printer.event(&json::Snapshot::from(snapshot))?;
    }
    let finished = Finished::with(serde_json::json!({
        "snapshot": snapshot.map_or(Value::Null, |snapshot| snapshot.id.to_hex().into()),
        "dry_run": snapshot.is_none(),
        "files": statistics.files,
        "directories": statistics.directories,
        "others": statistics.others,
        "bytes_total": statistics.bytes_total,
        "bytes_read": statistics.bytes_read,
        "bytes_new": statistics.bytes_new,
        "bytes_stored": statistics.bytes_stored,
        "unread": report.unread_count,
        "resumed_packs": report.packs_resumed,
        "delta_chunks": report.deltas.chunks,
        "delta_bytes": report.deltas.bytes,
        "delta_bytes_stored": report.deltas.bytes_stored,
        "repaired_chunks": report.chunks_repaired,
        "repeats": report.repeats,
        "elapsed_ms": elapsed_ms,
    }));
    if report.unread_count == 0 {
        return Ok(finished);
    }
    let what = format::plural(report.unread_count, "entry", "entries");
    let verb = if report.unread_count == 1 { "is" } else { "are" };
    let fact = format!("{what} could not be read and {verb} missing from {id}");
    Ok(finished.but(ExitCode::Unread, "source.unread", fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_by_their_separator_only() {
        let lines: Vec<PathBuf> = split_list(b"/a b\n\n/c\\d\n", b'\n').collect();
        assert_eq!(lines, [PathBuf::from("/a b"), PathBuf::from("/c\\d")]);
        let names: Vec<PathBuf> = split_list(b"/a\nb\0/c\0", 0).collect();
        assert_eq!(names, [PathBuf::from("/a\nb"), PathBuf::from("/c")]);
    }
}
