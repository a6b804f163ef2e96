//! Google Cloud Storage.
//!
//! Credentials are found by the signer (reqsign) where Google's tools look for them:
//! `GOOGLE_APPLICATION_CREDENTIALS`, the file that `gcloud` keeps, the identity of the machine.
//! `STORAGE_EMULATOR_HOST` names another server, which is asked without credentials, as by
//! Google's own clients.

use opendal::services;

use super::{Deleted, Service, build, shown, split};
use crate::store::error::StoreError;
use crate::store::options::RemoteOptions;

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (bucket, prefix) = split(rest);
    let mut location = format!("gcs://{rest}");
    let mut builder = services::Gcs::default().bucket(bucket).root(prefix);
    if let Some(host) = options.first(&["STORAGE_EMULATOR_HOST"]) {
        location = format!("{location} ({})", shown(host));
        let endpoint =
            if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        builder = builder.endpoint(&endpoint).skip_signature();
    }
    let operator = build(&location, builder)?;
    Ok(Service {
        operator,
        location,
        condition_is_dear: true,
        writes_in_place: false,
        deleted: Deleted::Hidden,
        is_http: true,
    })
}
