//! Services that have no scheme of their own here: whatever else of opendal this program was built
//! with.
//!
//! Their settings, credentials among them, come from `OPENDAL_<NAME>_<SETTING>`, under the names that
//! opendal documents; the location tells bucket, host and path as opendal's own URIs do. Nothing is
//! known of such a service but what opendal says of it, so the least is taken for granted.

use opendal::{Capability, OperatorRegistry, OperatorUri};

use super::{Deleted, Service, Speaks, from_opendal};
use crate::store::error::{Place, StoreError};
use crate::store::location::ServiceName;
use crate::store::options::RemoteOptions;

/// Those that forget everything when the process ends.
const VOLATILE: [&str; 5] = ["dashmap", "foyer", "memory", "mini-moka", "moka"];

/// Those that lie in a folder, which cairn writes itself, with what makes it durable.
const FOLDERS: [&str; 4] = ["compfs", "file", "fs", "monoiofs"];

pub(super) fn service(
    name: &ServiceName,
    rest: &str,
    options: &RemoteOptions,
) -> Result<Service, StoreError> {
    let location = format!("opendal+{}://{rest}", name.as_str());
    let unfit = |why| StoreError::Unfit { location: location.clone(), why };
    if VOLATILE.contains(&name.as_str()) {
        return Err(unfit("it keeps nothing once this program has ended"));
    }
    if FOLDERS.contains(&name.as_str()) {
        return Err(unfit("it does not make files durable: give the folder as a path"));
    }
    // opendal reads URIs as browsers do, and would leave these out.
    if rest.contains(|char: char| char == '#' || char.is_control()) {
        let why = "there is a `#` or a control character in it";
        return Err(StoreError::BadLocation { location, why });
    }
    opendal::init_default_registry();
    let mut known = OperatorRegistry::get().schemes().into_iter().collect::<Vec<_>>();
    if !known.iter().any(|known| known == name.as_str()) {
        known.retain(|known| {
            ![&VOLATILE[..], &FOLDERS].iter().any(|unfit| unfit.contains(&known.as_str()))
        });
        known.sort();
        return Err(StoreError::Unsupported {
            scheme: format!("opendal+{}", name.as_str()),
            known: known
                .iter()
                .map(|known| format!("opendal+{known}"))
                .collect::<Vec<_>>()
                .join(", "),
        });
    }
    let mut settings = options.of_service(name.as_str());
    if options.surroundings().is_closed() {
        // Else these two look around the process; others have no such setting.
        let closed: &[&str] = match name.as_str() {
            "s3" => &["disable_config_load", "disable_ec2_metadata"],
            "gcs" => &["disable_config_load", "disable_vm_metadata"],
            _ => &[],
        };
        settings.extend(closed.iter().map(|setting| ((*setting).to_owned(), "true".to_owned())));
    }
    let opened = OperatorUri::new(&format!("{}://{rest}", name.as_str()), settings)
        .and_then(opendal::Operator::from_uri);
    let operator = opened.map_err(|error| from_opendal("open", Place::root(&location), &error))?;
    let capability = operator.info().capability();
    if let Some(why) = what_it_lacks(&capability) {
        return Err(unfit(why));
    }
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        // Where objects can be renamed they are files, and seldom whole before they are closed.
        writes_in_place: capability.rename,
        deleted: match capability.list_with_versions && capability.delete_with_version {
            true => Deleted::Versions,
            false => Deleted::Hidden,
        },
        rights: None,
        beyond: None,
        speaks: Speaks::Either,
    })
}

/// What no repository can do without.
const fn what_it_lacks(capability: &Capability) -> Option<&'static str> {
    Some(match capability {
        Capability { read: false, .. } => "its objects cannot be read",
        Capability { write: false, .. } => "it does not take objects",
        Capability { stat: false, .. } => "it does not tell the sizes of objects",
        Capability { list: false, .. } => "it does not list objects",
        Capability { delete: false, .. } => "its objects cannot be deleted",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::error::{Class, Explain};
    use crate::store::location::Location;

    fn refused(location: &str) -> StoreError {
        let location = Location::parse(OsStr::new(location)).unwrap();
        location.open(&RemoteOptions::default()).unwrap_err()
    }

    #[test]
    fn what_would_not_keep_a_repository_is_refused() {
        for volatile in ["opendal+memory://", "opendal+fs:///backup"] {
            assert!(matches!(refused(volatile), StoreError::Unfit { .. }), "{volatile}");
        }
        let partly = refused("opendal+webdav://host/path#x");
        assert!(matches!(partly, StoreError::BadLocation { .. }), "{partly:?}");
    }

    #[test]
    fn services_that_were_not_built_in_are_told_from_those_that_were() {
        let error = refused("opendal+gopher://hole");
        assert!(error.to_string().contains("opendal+gopher"), "{error}");
        assert_eq!(error.class(), Class::Usage);
        let hint = error.hint().unwrap();
        assert!(hint.contains("opendal+webdav") && !hint.contains("memory"), "{hint}");
    }

    #[test]
    fn what_is_missing_is_told() {
        let error = refused("opendal+s3:///prefix");
        assert_eq!(error.class(), Class::Usage, "{error:?}");
    }

    #[test]
    fn a_service_that_only_reads_holds_no_repository() {
        let all = Capability {
            read: true,
            write: true,
            stat: true,
            list: true,
            delete: true,
            ..Capability::default()
        };
        assert_eq!(what_it_lacks(&all), None);
        for lacking in [
            Capability { read: false, ..all },
            Capability { write: false, ..all },
            Capability { stat: false, ..all },
            Capability { list: false, ..all },
            Capability { delete: false, ..all },
        ] {
            assert!(what_it_lacks(&lacking).is_some(), "{lacking:?}");
        }
    }
}
