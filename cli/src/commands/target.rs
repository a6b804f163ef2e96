//! What the storage of a repository can do, as people and scripts read it.

use cairn_engine::store::profile::Profile;
use serde_json::{Map, Value};

/// The properties by name, for a report; nothing for storage that needs no trying out.
pub fn report(profile: Option<&Profile>) -> Value {
    let Some(profile) = profile else { return Value::Null };
    let properties = profile.properties().into_iter();
    let found = properties.map(|(name, found)| (name.to_owned(), Value::from(found.name())));
    Value::Object(found.collect::<Map<String, Value>>())
}

/// One line.
pub fn line(profile: &Profile) -> String {
    let properties = profile.properties().into_iter();
    let found = properties.map(|(name, found)| format!("{} {found}", name.replace('_', " ")));
    format!("storage: {}", found.collect::<Vec<_>>().join(", "))
}
