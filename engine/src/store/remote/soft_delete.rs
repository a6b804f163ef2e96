//! How long Google and Azure keep what is deleted: asked for where the setting is, because neither
//! shows by an object that is gone whether it is.

use http::{Method, Request};
use opendal::HttpTransporter;
use reqsign_azure_storage as azure;
use reqsign_core::{ProvideCredential, ProvideCredentialChain};
use reqsign_google as google;
use serde::Deserialize;

use super::ask::{Asker, element};
use super::credentials::Within;
use crate::store::lock::KeptFor;
use crate::store::object::{Answer, Beyond};
use crate::store::options::RemoteOptions;

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// Where Google's service is.
const GOOGLE: &str = "https://storage.googleapis.com";
/// What the signer asks for.
pub(super) const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// The version of Azure's interface that is spoken.
const AZURE_VERSION: &str = "2021-08-06";

/// A bucket of Google's.
#[derive(Debug)]
pub(super) struct GoogleBucket {
    asker: Asker<google::Credential>,
    uri: String,
}

impl GoogleBucket {
    /// At `emulator`, which lets everybody in, if there is one.
    pub(super) fn new(
        name: &str,
        emulator: Option<&str>,
        credentials: impl ProvideCredential<Credential = google::Credential>,
        transport: HttpTransporter,
    ) -> Self {
        let asker = match emulator {
            Some(_) => Asker::unsigned(transport),
            None => Asker::new(
                transport,
                credentials,
                google::RequestSigner::new("storage").with_scope(GOOGLE_SCOPE),
            ),
        };
        let endpoint = emulator.unwrap_or(GOOGLE).trim_end_matches('/');
        let uri = format!("{endpoint}/storage/v1/b/{name}?fields=softDeletePolicy,versioning");
        Self { asker, uri }
    }
}

/// What a bucket says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BucketSettings {
    soft_delete_policy: Option<SoftDelete>,
    versioning: Option<Versioning>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SoftDelete {
    retention_duration_seconds: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Versioning {
    enabled: bool,
}

/// What the settings of a bucket mean. A service that says nothing of soft deletion is not known to do
/// without.
fn google_keeps(text: &str) -> KeptFor {
    let Ok(settings) = serde_json::from_str::<BucketSettings>(text) else {
        return KeptFor::Unknown;
    };
    if settings.versioning.is_some_and(|versioning| versioning.enabled) {
        return KeptFor::Versions;
    }
    let seconds = settings.soft_delete_policy.and_then(|policy| policy.retention_duration_seconds);
    match seconds.and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => KeptFor::Nothing,
        Some(seconds) => KeptFor::Milliseconds(seconds.saturating_mul(SECOND_MS)),
        None => KeptFor::Unknown,
    }
}

impl Beyond for GoogleBucket {
    fn kept_for(&self) -> Option<Answer<'_, KeptFor>> {
        Some(Box::pin(async move {
            let request = Request::builder().method(Method::GET).uri(&self.uri);
            Ok(google_keeps(&self.asker.text(request).await?))
        }))
    }
}

/// Who asks Azure.
#[derive(Clone, Default)]
pub(super) struct AzureIdentity {
    /// Where the account is served, with its scheme.
    pub(super) endpoint: String,
    pub(super) container: String,
    pub(super) account: String,
    pub(super) key: Option<String>,
    pub(super) sas_token: Option<String>,
}

impl AzureIdentity {
    /// Takes over what a connection string says.
    pub(super) fn connect(&mut self, text: &str) {
        let (mut scheme, mut suffix) = ("https", "core.windows.net");
        let mut endpoint = None;
        for (name, value) in text.split(';').filter_map(|part| part.trim().split_once('=')) {
            match name {
                "AccountName" => self.account = value.to_owned(),
                "AccountKey" => self.key = Some(value.to_owned()),
                "SharedAccessSignature" => self.sas_token = Some(value.to_owned()),
                "BlobEndpoint" => endpoint = Some(value.to_owned()),
                "DefaultEndpointsProtocol" => scheme = value,
                "EndpointSuffix" => suffix = value,
                _ => {}
            }
        }
        let account = &self.account;
        self.endpoint = endpoint.unwrap_or_else(|| format!("{scheme}://{account}.blob.{suffix}"));
    }
}

impl AzureIdentity {
    /// Finds credentials: those that are given, else what the signer finds.
    pub(super) fn credentials(
        &self,
        options: &RemoteOptions,
    ) -> ProvideCredentialChain<azure::Credential> {
        let mut found = azure::DefaultCredentialProvider::builder();
        if options.surroundings().is_closed() {
            found = found.no_azure_cli().no_imds();
        }
        let found = Within::new(options.surroundings().clone(), found.build());
        let mut credentials = ProvideCredentialChain::new().push(found);
        if let Some(key) = &self.key {
            let given = azure::StaticCredentialProvider::new_shared_key(&self.account, key);
            credentials = credentials.push_front(given);
        }
        if let Some(token) = &self.sas_token {
            let given = azure::StaticCredentialProvider::new_sas_token(token);
            credentials = credentials.push_front(given);
        }
        credentials
    }
}

/// A container of Azure's.
#[derive(Debug)]
pub(super) struct AzureContainer {
    asker: Asker<azure::Credential>,
    settings: String,
    versions: String,
}

impl AzureContainer {
    pub(super) fn new(
        identity: &AzureIdentity,
        credentials: ProvideCredentialChain<azure::Credential>,
        transport: HttpTransporter,
    ) -> Self {
        let endpoint = identity.endpoint.trim_end_matches('/');
        Self {
            asker: Asker::new(transport, credentials, azure::RequestSigner::new()),
            settings: format!("{endpoint}/?restype=service&comp=properties"),
            versions: format!(
                "{endpoint}/{}?restype=container&comp=list&include=versions&maxresults=1",
                identity.container
            ),
        }
    }

    async fn text(&self, uri: &str) -> opendal::Result<String> {
        let request =
            Request::builder().method(Method::GET).uri(uri).header("x-ms-version", AZURE_VERSION);
        self.asker.text(request).await
    }
}

/// What the settings of an account mean, and an entry of a listing with versions.
fn azure_keeps(settings: &str, entry: &str) -> KeptFor {
    let Some((_, policy)) = settings.split_once("<DeleteRetentionPolicy>") else {
        return KeptFor::Unknown;
    };
    let policy = policy.split("</DeleteRetentionPolicy>").next().unwrap_or_default();
    if element(entry, "VersionId").is_some() {
        return KeptFor::Versions;
    }
    let days = element(policy, "Days").and_then(|days| days.parse::<u64>().ok());
    match (element(policy, "Enabled"), days) {
        (Some("true"), Some(days)) => KeptFor::Milliseconds(days.saturating_mul(DAY_MS)),
        (Some("false"), _) => KeptFor::Nothing,
        _ => KeptFor::Unknown,
    }
}

impl Beyond for AzureContainer {
    fn kept_for(&self) -> Option<Answer<'_, KeptFor>> {
        Some(Box::pin(async move {
            let settings = self.text(&self.settings).await?;
            Ok(azure_keeps(&settings, &self.text(&self.versions).await?))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_google_are_understood_and_silence_is_no_promise() {
        for (text, expected) in [
            (
                r#"{"softDeletePolicy":{"retentionDurationSeconds":"604800"}}"#,
                KeptFor::Milliseconds(7 * DAY_MS),
            ),
            (r#"{"softDeletePolicy":{"retentionDurationSeconds":"0"}}"#, KeptFor::Nothing),
            (
                r#"{"softDeletePolicy":{"retentionDurationSeconds":"0"},"versioning":{"enabled":true}}"#,
                KeptFor::Versions,
            ),
            (r#"{"versioning":{"enabled":false}}"#, KeptFor::Unknown),
            (r#"{"softDeletePolicy":{"retentionDurationSeconds":"soon"}}"#, KeptFor::Unknown),
            ("{}", KeptFor::Unknown),
            ("<html>", KeptFor::Unknown),
        ] {
            assert_eq!(google_keeps(text), expected, "{text}");
        }
    }

    #[test]
    fn connection_strings_are_taken_apart() {
        let of = |text: &str| {
            let mut identity = AzureIdentity::default();
            identity.connect(text);
            identity
        };
        let given = of(
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5==;EndpointSuffix=core.windows.net",
        );
        assert_eq!(given.endpoint, "https://a.blob.core.windows.net");
        assert_eq!(given.key.as_deref(), Some("a2V5=="));
        let given = of("BlobEndpoint=http://127.0.0.1:10000/a;SharedAccessSignature=sv=1&sig=x");
        assert_eq!(given.endpoint, "http://127.0.0.1:10000/a");
        assert_eq!(given.sas_token.as_deref(), Some("sv=1&sig=x"));
    }

    #[test]
    fn settings_of_azure_are_understood_and_silence_is_no_promise() {
        let settings = |policy: &str| {
            format!(
                "<StorageServiceProperties><Logging><Enabled>true</Enabled></Logging><DeleteRetentionPolicy>{policy}</DeleteRetentionPolicy><StaticWebsite><Enabled>true</Enabled></StaticWebsite></StorageServiceProperties>"
            )
        };
        let versions = "<Blob><Name>x</Name><VersionId>2026</VersionId></Blob>";
        for (policy, entry, expected) in [
            ("<Enabled>true</Enabled><Days>14</Days>", "", KeptFor::Milliseconds(14 * DAY_MS)),
            ("<Enabled>false</Enabled>", "", KeptFor::Nothing),
            ("<Enabled>false</Enabled>", versions, KeptFor::Versions),
            ("<Enabled>true</Enabled>", "", KeptFor::Unknown),
            ("", "", KeptFor::Unknown),
        ] {
            assert_eq!(azure_keeps(&settings(policy), entry), expected, "{policy}");
        }
        assert_eq!(azure_keeps("<x/>", ""), KeptFor::Unknown);
    }
}
