//! Azure Blob Storage.
//!
//! Account and endpoint come from the variables of the Azure tools, and so do an account's key, a
//! SAS token or a connection string where they are set. Without them the signer (reqsign) looks
//! where those tools do: a service principal, workload identity, a managed identity. For a place with
//! variables of its own it looks at those alone.

use opendal::services;

use super::soft_delete::{AzureContainer, AzureIdentity};
use super::{Deleted, Service, Speaks, build, shown, split};
use crate::store::error::StoreError;
use crate::store::object::Rights;
use crate::store::options::RemoteOptions;

/// Where accounts are served.
const SUFFIX: &str = "blob.core.windows.net";

/// Data actions of roles, below `Microsoft.Storage/storageAccounts/blobServices/containers/`, and
/// permissions of SAS tokens.
const RIGHTS: Rights = Rights {
    read: "blobs/read, or `r` in a SAS token",
    write: "blobs/write, or `c` and `w` in a SAS token",
    list: "blobs/read, or `l` in a SAS token",
    delete: "blobs/delete, or `d` in a SAS token",
};

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (container, prefix) = split(rest);
    let mut location = format!("azblob://{rest}");
    let misconfigured = |why: &'static str| StoreError::Misconfigured {
        location: format!("azblob://{rest}"),
        source: why.into(),
    };
    let mut identity =
        AzureIdentity { container: container.to_owned(), ..AzureIdentity::default() };
    let mut builder = match options.first(&["AZURE_STORAGE_CONNECTION_STRING"]) {
        Some(text) => {
            identity.connect(text);
            services::Azblob::from_connection_string(text).map_err(|_| {
                misconfigured("AZURE_STORAGE_CONNECTION_STRING is no connection string")
            })?
        }
        None => {
            let account = options
                .first(&["AZURE_STORAGE_ACCOUNT"])
                .ok_or_else(|| misconfigured("AZURE_STORAGE_ACCOUNT is not set"))?;
            identity.account = account.to_owned();
            identity.endpoint = format!("https://{account}.{SUFFIX}");
            services::Azblob::default().account_name(account).endpoint(&identity.endpoint)
        }
    };
    if let Some(endpoint) = options.first(&["AZURE_STORAGE_ENDPOINT"]) {
        location = format!("{location} ({})", shown(endpoint));
        builder = builder.endpoint(endpoint);
        identity.endpoint = endpoint.to_owned();
    }
    if let Some(key) = options.first(&["AZURE_STORAGE_KEY"]) {
        builder = builder.account_key(key);
        identity.key = Some(key.to_owned());
    }
    if let Some(token) = options.first(&["AZURE_STORAGE_SAS_TOKEN"]) {
        let token = token.trim_start_matches('?');
        builder = builder.sas_token(token);
        identity.sas_token = Some(token.to_owned());
    }
    let surroundings = options.surroundings();
    if surroundings.is_closed() || !surroundings.named().is_empty() {
        builder = builder.credential_provider_chain(identity.credentials(options));
    }
    let credentials = identity.credentials(options);
    let operator = build(&location, builder.container(container).root(prefix))?;
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        writes_in_place: false,
        deleted: Deleted::Hidden,
        rights: Some(RIGHTS),
        beyond: Some(Box::new(move |transport| {
            Box::new(AzureContainer::new(&identity, credentials, transport))
        })),
        speaks: Speaks::Http,
    })
}
