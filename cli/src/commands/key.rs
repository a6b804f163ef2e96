//! `cairn key …`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use cairn_engine::repo::NewKey;
use cairn_engine::repo::keys;
use cairn_engine::seal::{Identity, Lock, OsRandom, Recipient, Role};
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{self, Key, KeyAdd, KeyNewRecipient, KeyRemove};
use crate::exit_code::ExitCode;
use crate::secrets;
use crate::session::{self, Show};
use crate::ui::errors::{CliError, Failure};
use crate::ui::table::{Align, Table};
use crate::ui::{format, json as objects};

pub(super) fn run(app: &App, command: &Key) -> Result<Finished, Failure> {
    match command {
        Key::List => list(app),
        Key::Add(arguments) => add(app, arguments),
        Key::Remove(arguments) => remove(app, arguments),
        Key::NewRecipient(arguments) => new_recipient(app, arguments),
    }
}

fn list(app: &App) -> Result<Finished, Failure> {
    let location = session::location(app)?;
    let remote = session::reach(app, &location)?.options()?;
    let store = location.open(&remote).map_err(session::engine)?;
    app.opened(&store);
    let slots = keys::list(store.as_ref())?;
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("ROLE", Align::Left),
        ("METHOD", Align::Left),
        ("CREATED", Align::Left),
        ("LABEL", Align::Left),
    ]);
    for slot in &slots {
        app.printer.event(&objects::Key::from(slot))?;
        table.row(match &slot.head {
            Some(head) => vec![
                slot.id.short(),
                head.role.name().to_owned(),
                head.method.name().to_owned(),
                format::local_time(head.created_ms),
                format::name(head.label.as_bytes()),
            ],
            None => vec![slot.id.short(), "(damaged)".to_owned()],
        });
    }
    for line in table.lines() {
        app.printer.line(&line)?;
    }
    let damaged = slots.iter().filter(|slot| slot.head.is_none()).count() as u64;
    let finished = Finished::with(json!({ "keys": slots.len(), "damaged": damaged }));
    if damaged == 0 {
        return Ok(finished);
    }
    let fact = format!("{} damaged", format::plural(damaged, "key slot is", "key slots are"));
    Ok(finished.but(ExitCode::Damage, "key.damaged", fact))
}

fn add(app: &App, arguments: &KeyAdd) -> Result<Finished, Failure> {
    // Read before the repository is opened, so that a signal still ends a prompt.
    let lock = match &arguments.recipient {
        Some(public) => Lock::Recipient(Recipient::parse(public).map_err(session::engine)?),
        None => session::lock(secrets::new_credential(arguments)?)?,
    };
    let session = session::open(app, Show::Nothing)?;
    let role = match arguments.role {
        arguments::Role::Owner => Role::Owner,
        arguments::Role::Maintainer => Role::Maintainer,
        arguments::Role::Reader => Role::Reader,
        arguments::Role::Writer => Role::Writer,
    };
    let key = NewKey { label: arguments.label.clone(), role, lock };
    let role = role.name();
    if arguments.dry_run {
        keys::plan_add(&session.repository, &key)?;
        app.printer.summary(&format!("would add {role} key {}", arguments.label))?;
        return Ok(Finished::with(json!({ "slot": null, "role": role, "dry_run": true })));
    }
    let slot = keys::add(&session.repository, &key)?;
    app.printer.summary(&format!("added {role} key {}", slot.short()))?;
    Ok(Finished::with(json!({ "slot": slot.to_hex(), "role": role, "dry_run": false })))
}

fn remove(app: &App, arguments: &KeyRemove) -> Result<Finished, Failure> {
    let session = session::open(app, Show::Nothing)?;
    let slot = keys::remove(&session.repository, &arguments.slot, arguments.dry_run)?;
    let verb = if arguments.dry_run { "would remove" } else { "removed" };
    let what = match &slot.head {
        Some(head) => format!("{} key {}", head.role.name(), format::name(head.label.as_bytes())),
        None => "damaged key".to_owned(),
    };
    app.printer.summary(&format!("{verb} {}: {what}", slot.id.short()))?;
    Ok(Finished::with(json!({ "slot": slot.id.to_hex(), "dry_run": arguments.dry_run })))
}

fn new_recipient(app: &App, arguments: &KeyNewRecipient) -> Result<Finished, Failure> {
    let random = OsRandom::new().map_err(session::engine)?;
    let identity = Identity::generate(&random).map_err(session::engine)?;
    let public = identity.recipient().to_string();
    let failed = |source| {
        let path = arguments.file.clone();
        Failure::from(CliError::File { action: "make the identity file", path, source })
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&arguments.file)
        .map_err(failed)?;
    file.write_all(identity.to_text().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    app.printer.line(&public)?;
    app.printer.note(
        "The file is the secret half: keep it apart from the hosts that back up. Give the line \
         above to `cairn key add --recipient`.",
    );
    Ok(Finished::with(json!({ "recipient": public })))
}
