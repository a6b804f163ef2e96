//! SFTP, by way of the system's `ssh`: keys, agents, jump hosts and known hosts are what its own
//! configuration says. A host that is not known is refused.

use opendal::services;

use super::{Deleted, Service, Speaks, build};
use crate::store::error::StoreError;
use crate::store::options::RemoteOptions;

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let location = format!("sftp://{rest}");
    let mut builder = services::Sftp::default()
        .endpoint(&format!("ssh://{authority}"))
        .root(&format!("/{path}"))
        .known_hosts_strategy("strict");
    if let Some(file) = options.first(&["SFTP_IDENTITY_FILE"]) {
        builder = builder.key(file);
    }
    let operator = build(&location, builder)?;
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        writes_in_place: true,
        deleted: Deleted::Gone,
        rights: None,
        beyond: None,
        speaks: Speaks::Other,
    })
}
