//! Google Cloud Storage.
//!
//! Credentials are found by the signer (reqsign) where Google's tools look for them:
//! `GOOGLE_APPLICATION_CREDENTIALS`, the file that `gcloud` keeps, the identity of the machine.
//! `STORAGE_EMULATOR_HOST` names another server, which is asked without credentials, as by
//! Google's own clients. For a place with variables of its own it looks at those alone.

use opendal::services;
use reqsign_core::ProvideCredentialChain;
use reqsign_google::{DefaultCredentialProvider, EnvCredentialProvider};

use super::credentials::Within;
use super::soft_delete::{GOOGLE_SCOPE, GoogleBucket};
use super::{Deleted, Service, Speaks, build, shown, split};
use crate::store::error::StoreError;
use crate::store::object::Rights;
use crate::store::options::RemoteOptions;

/// Permissions of IAM.
const RIGHTS: Rights = Rights {
    read: "storage.objects.get",
    write: "storage.objects.create, and storage.objects.delete to replace",
    list: "storage.objects.list",
    delete: "storage.objects.delete",
};

/// Finds credentials.
fn credentials(options: &RemoteOptions) -> Within<DefaultCredentialProvider> {
    let mut chain = DefaultCredentialProvider::builder()
        .env(EnvCredentialProvider::new().with_scope(GOOGLE_SCOPE));
    if options.surroundings().is_closed() {
        chain = chain.no_vm_metadata();
    }
    Within::new(options.surroundings().clone(), chain.build())
}

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (bucket, prefix) = split(rest);
    let mut location = format!("gcs://{rest}");
    let mut builder = services::Gcs::default().bucket(bucket).root(prefix);
    if options.surroundings().is_closed() {
        builder = builder
            .disable_config_load()
            .disable_vm_metadata()
            .credential_provider_chain(ProvideCredentialChain::new().push(credentials(options)));
    }
    let credentials = credentials(options);
    let mut emulator = None;
    if let Some(host) = options.first(&["STORAGE_EMULATOR_HOST"]) {
        location = format!("{location} ({})", shown(host));
        let endpoint =
            if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        builder = builder.endpoint(&endpoint).skip_signature();
        emulator = Some(endpoint);
    }
    let operator = build(&location, builder)?;
    let bucket = bucket.to_owned();
    Ok(Service {
        operator,
        location,
        condition_is_dear: true,
        writes_in_place: false,
        deleted: Deleted::Hidden,
        rights: Some(RIGHTS),
        beyond: Some(Box::new(move |transport| {
            Box::new(GoogleBucket::new(&bucket, emulator.as_deref(), credentials, transport))
        })),
        speaks: Speaks::Http,
    })
}
