//! `cairn init`

use cairn_engine::parity;
use cairn_engine::repo::{self, InitOptions, NewKey};
use cairn_engine::seal::{Cipher, Role};
use serde_json::json;

use super::{App, Finished, target};
use crate::arguments::{self, Init};
use crate::secrets::{self, Prompt};
use crate::session::{self, Show};
use crate::settings;
use crate::ui::errors::{CliError, Failure};

pub(super) fn run(app: &App, arguments: &Init) -> Result<Finished, Failure> {
    let location = session::location(app)?;
    let progress = session::progress(app, Show::Nothing);
    let context = session::context(app, &progress, settings::host())?;
    let remote = session::reach(app, &location)?.options()?;
    let credential = secrets::choose(&app.global, &app.environment)?.read(Prompt::Create)?;
    let mut options = InitOptions::new(NewKey {
        label: arguments.label.clone(),
        role: Role::Owner,
        lock: session::lock(credential)?,
    });
    if let Some(cipher) = arguments.cipher {
        options.cipher = match cipher {
            arguments::Cipher::Aes256Gcm => Cipher::Aes256Gcm,
            arguments::Cipher::XChaCha20Poly1305 => Cipher::XChaCha20Poly1305,
        };
    }
    if let Some(bytes) = arguments.pack_size {
        options.pack_bytes = u32::try_from(bytes).map_err(|_| CliError::Usage {
            problem: format!("a pack of {bytes} bytes is too large"),
            hint: "packs may have 1 MiB to 256 MiB",
        })?;
    }
    options.parity = arguments.parity.map(|share| parity::per_mille(share.0));
    let parity_percent = options.parity.map(parity::percent);
    let cipher = cipher_name(options.cipher);
    if arguments.dry_run {
        if let Some(store) = location.check_create(&remote).map_err(session::engine)? {
            repo::refuse_existing(store.as_ref())?;
        }
        let parity = parity_percent.map(|share| format!(", parity {share} %")).unwrap_or_default();
        app.printer.summary(&format!("would make a repository, cipher {cipher}{parity}"))?;
        let report = json!({
            "repository": null,
            "slot": null,
            "cipher": cipher,
            "parity_percent": parity_percent,
            "storage": null,
            "dry_run": true,
        });
        return Ok(Finished::with(report));
    }
    session::refuse_emptied(&location, &remote, &context)?;
    app.interrupt.watch()?;
    let store = location.create(&remote).map_err(session::engine)?;
    app.opened(&store);
    repo::refuse_existing(store.as_ref())?;
    let profile = target::try_out(app, store.as_ref(), &location)?;
    if let Some(profile) = &profile {
        target::check_lock(store.as_ref(), profile, arguments.erase_within)?;
    }
    let report = repo::init(store.as_ref(), &options, &context)?;
    app.printer.summary(&format!("made repository {}", report.repository))?;
    if let Some(profile) = &profile {
        app.printer.note(&target::line(profile));
    }
    if let Some(share) = parity_percent {
        app.printer.note(&format!(
            "Every pack has {share} % of parity: damage of up to about as much of it is read around, and \
             healed by `cairn repair`. It is no second copy."
        ));
    }
    app.printer.note(
        "Whoever loses the key loses the data: keep it apart from the repository, and add a \
         second one with `cairn key add`.",
    );
    Ok(Finished::with(json!({
        "repository": report.repository.to_hex(),
        "slot": report.slot.to_hex(),
        "cipher": cipher,
        "parity_percent": parity_percent,
        "storage": target::report(profile.as_ref()),
        "dry_run": false,
    })))
}

fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256Gcm => "aes-256-gcm",
        Cipher::XChaCha20Poly1305 => "xchacha20-poly1305",
    }
}
