//! What the storage of a repository can do, as people and scripts read it.

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::store::location::Location;
use cairn_engine::store::profile::Profile;
use cairn_engine::store::{Keeping, Store};
use cairn_format::names::Folder;
use serde_json::{Map, Value};

use super::App;
use crate::arguments::Within;
use crate::session;
use crate::settings;
use crate::tried::Tried;
use crate::ui::errors::Failure;

/// The properties by name, for a report; nothing for storage that needs no trying out.
pub fn report(profile: Option<&Profile>) -> Value {
    let Some(profile) = profile else { return Value::Null };
    let properties = profile.properties().into_iter();
    let found = properties.map(|(name, found)| (name.to_owned(), Value::from(found.name())));
    let locked = ("locked_ms".to_owned(), Value::from(profile.locked_ms));
    Value::Object(found.chain([locked]).collect::<Map<String, Value>>())
}

/// Tries out the storage at a place, and remembers on this host what was found.
pub fn try_out(
    app: &App,
    store: &dyn Store,
    location: &Location,
) -> Result<Option<Profile>, Failure> {
    let found = store.probe().map_err(session::engine)?;
    let folder = settings::cache_dir(&app.global, &app.environment).ok();
    if let (Some(profile), Some(folder), Some(place)) = (found, folder, session::place(location)) {
        let tried = Tried { location: place, at_ms: SystemClock.now_ms(), profile };
        if let Err(error) = tried.remember(&folder) {
            app.printer.detail(&format!("what the storage can do is not remembered: {error}"));
        }
    }
    Ok(found)
}

/// What was found when the storage at a place was tried out last.
pub fn recall(app: &App, location: &Location) -> Option<Tried> {
    let folder = settings::cache_dir(&app.global, &app.environment).ok()?;
    Tried::recall(&folder, &session::place(location)?)
}

/// Refuses storage that locks objects for longer than what expired may stay.
pub fn check_lock(store: &dyn Store, profile: &Profile, within: Within) -> Result<(), Failure> {
    match within {
        Within::Never => Ok(()),
        Within::Milliseconds(within_ms) => {
            profile.check_lock(&store.location(), within_ms).map_err(session::engine)
        }
    }
}

/// The same, for storage that is tried out only if it keeps versions.
pub fn try_lock(store: &dyn Store, within: Within) -> Result<(), Failure> {
    let keeping = store.kept(Folder::Config, &mut |_| {}).map_err(session::engine)?;
    if keeping != Keeping::Shown || within == Within::Never {
        return Ok(());
    }
    match store.probe().map_err(session::engine)? {
        Some(profile) => check_lock(store, &profile, within),
        None => Ok(()),
    }
}

/// One line.
pub fn line(profile: &Profile) -> String {
    let properties = profile.properties().into_iter();
    let found = properties.map(|(name, found)| format!("{} {found}", name.replace('_', " ")));
    format!("storage: {}", found.collect::<Vec<_>>().join(", "))
}
