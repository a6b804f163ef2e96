//! Azure Blob Storage.
//!
//! Account and endpoint come from the variables of the Azure tools, and so do an account's key, a
//! SAS token or a connection string where they are set. Without them the signer (reqsign) looks
//! where those tools do: a service principal, workload identity, a managed identity.

use opendal::services;

use super::{Deleted, Service, build, shown, split};
use crate::store::error::StoreError;
use crate::store::options::RemoteOptions;

/// Where accounts are served.
const SUFFIX: &str = "blob.core.windows.net";

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (container, prefix) = split(rest);
    let mut location = format!("azblob://{rest}");
    let misconfigured = |why: &'static str| StoreError::Misconfigured {
        location: format!("azblob://{rest}"),
        source: why.into(),
    };
    let mut builder = match options.first(&["AZURE_STORAGE_CONNECTION_STRING"]) {
        Some(text) => services::Azblob::from_connection_string(text).map_err(|_| {
            misconfigured("AZURE_STORAGE_CONNECTION_STRING is no connection string")
        })?,
        None => {
            let account = options
                .first(&["AZURE_STORAGE_ACCOUNT"])
                .ok_or_else(|| misconfigured("AZURE_STORAGE_ACCOUNT is not set"))?;
            services::Azblob::default()
                .account_name(account)
                .endpoint(&format!("https://{account}.{SUFFIX}"))
        }
    };
    if let Some(endpoint) = options.first(&["AZURE_STORAGE_ENDPOINT"]) {
        location = format!("{location} ({})", shown(endpoint));
        builder = builder.endpoint(endpoint);
    }
    if let Some(key) = options.first(&["AZURE_STORAGE_KEY"]) {
        builder = builder.account_key(key);
    }
    if let Some(token) = options.first(&["AZURE_STORAGE_SAS_TOKEN"]) {
        builder = builder.sas_token(token.trim_start_matches('?'));
    }
    let operator = build(&location, builder.container(container).root(prefix))?;
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        writes_in_place: false,
        deleted: Deleted::Hidden,
        is_http: true,
    })
}
