//! WebDAV, over TLS, or in the clear where the location says `webdav+http://`.
//!
//! User and password, or a token, come from variables of their own: there is no usual place.

use opendal::services;

use super::{Deleted, Service, Speaks, build};
use crate::store::error::StoreError;
use crate::store::location::Scheme;
use crate::store::options::RemoteOptions;

pub(super) fn service(
    scheme: &Scheme,
    rest: &str,
    options: &RemoteOptions,
) -> Result<Service, StoreError> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let protocol = if *scheme == Scheme::WebdavHttp { "http" } else { "https" };
    let location = format!("{}://{rest}", scheme.name());
    let mut builder =
        services::Webdav::default().endpoint(&format!("{protocol}://{host}")).root(path);
    if let Some(user) = options.first(&["WEBDAV_USERNAME"]) {
        builder = builder.username(user);
        if let Some(password) = options.first(&["WEBDAV_PASSWORD"]) {
            builder = builder.password(password);
        }
    }
    if let Some(token) = options.first(&["WEBDAV_TOKEN"]) {
        builder = builder.token(token);
    }
    let operator = build(&location, builder)?;
    // Servers differ: many write where the name is.
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        writes_in_place: true,
        deleted: Deleted::Gone,
        rights: None,
        beyond: None,
        speaks: Speaks::Http,
    })
}
