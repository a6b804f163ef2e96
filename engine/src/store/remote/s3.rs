//! Amazon S3 and what is compatible with it.
//!
//! Endpoint and region come from the variables of the AWS tools or from the profile in
//! `~/.aws/config`. Credentials are found by the signer (reqsign) where those tools look for
//! them: variables, shared files, SSO, web identity, a process, a container's or an instance's
//! identity. They pass through no other part of cairn. For a place with variables of its own it
//! looks at those alone.

use opendal::services;
use reqsign_aws_v4::DefaultCredentialProvider;
use reqsign_core::ProvideCredentialChain;

use super::credentials::Within;
use super::s3_lock::{Bucket, Locks};
use super::{Deleted, Service, Speaks, build, profile, shown, split};
use crate::store::error::StoreError;
use crate::store::object::Rights;
use crate::store::options::RemoteOptions;

/// The region that is signed for where none is set, as every other tool does.
const REGION_DEFAULT: &str = "us-east-1";

/// Actions of IAM.
const RIGHTS: Rights = Rights {
    read: "s3:GetObject, and s3:ListBucket to be told that there is none",
    write: "s3:PutObject",
    list: "s3:ListBucket",
    delete: "s3:DeleteObject, of versions s3:DeleteObjectVersion",
};

/// Finds credentials.
fn credentials(options: &RemoteOptions) -> Within<DefaultCredentialProvider> {
    let mut chain = DefaultCredentialProvider::builder();
    if let Some(name) = options.first(&["AWS_PROFILE"]) {
        chain = chain.with_profile(name);
    }
    if options.surroundings().is_closed() {
        chain = chain.no_imds();
    }
    Within::new(options.surroundings().clone(), chain.build())
}

pub(super) fn service(rest: &str, options: &RemoteOptions) -> Result<Service, StoreError> {
    let (bucket, prefix) = split(rest);
    let profile = profile::Profile::read(options);
    let endpoint = options
        .first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
        .map(str::to_owned)
        .or_else(|| profile.endpoint_url.clone());
    let region = options
        .first(&["AWS_REGION", "AWS_DEFAULT_REGION"])
        .map(str::to_owned)
        .or_else(|| profile.region.clone())
        .unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let mut location = format!("s3://{rest}");
    let mut builder = services::S3::default()
        .bucket(bucket)
        .root(prefix)
        .region(&region)
        // The server compares what it received: also required of writes to locked buckets.
        .checksum_algorithm("md5")
        .credential_provider_chain(ProvideCredentialChain::new().push(credentials(options)));
    if options.surroundings().is_closed() {
        // opendal has further names for an endpoint.
        builder = builder.disable_config_load();
    }
    match &endpoint {
        Some(endpoint) => {
            location = format!("{location} ({})", shown(endpoint));
            builder = builder.endpoint(endpoint);
        }
        // Names with dots do not fit the certificate of the service.
        None if !bucket.contains('.') => builder = builder.enable_virtual_host_style(),
        None => {}
    }
    let operator = build(&location, builder)?;
    let bucket = Bucket { name: bucket.to_owned(), prefix: prefix.to_owned(), region, endpoint };
    let credentials = credentials(options);
    Ok(Service {
        operator,
        location,
        condition_is_dear: false,
        writes_in_place: false,
        deleted: Deleted::Versions,
        rights: Some(RIGHTS),
        beyond: Some(Box::new(move |transport| {
            Box::new(Locks::new(&bucket, credentials, transport))
        })),
        speaks: Speaks::Http,
    })
}
