//! Opening a store by its address: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`,
//! `az://container/prefix`.
//!
//! Credentials come from the variables that each provider's own tools read, or from the machine's role.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use obyra_evidence::{Failure, text};
use secrecy::{ExposeSecret as _, SecretString};

use super::failure::{Doing, Refusal};
use super::folder::Folder;
use super::pace::Pace;
use super::{PATIENCE, Store};
use crate::Result;

/// One request, with its 16 MiB at the most: a line of 0.5 Mbit/s is fast enough.
const REQUEST: Duration = Duration::from_secs(300);
/// A connection is made within this, or it is tried again.
const CONNECT: Duration = Duration::from_secs(10);
/// Requests are tried again this often at once, before [`Store`] waits longer.
const RETRIES: usize = 3;

/// The variables of an environment, such as `AWS_ACCESS_KEY_ID`.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, SecretString>);

impl Variables {
    /// Those of this process.
    pub fn of_process() -> Variables {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.expose_secret()).filter(|value| !value.is_empty())
    }

    /// Those with a prefix, with their values.
    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (String, &str)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.expose_secret()))
    }

    /// The values that nobody may see.
    fn secrets(&self) -> Vec<SecretString> {
        let secret = |name: &str| ["SECRET", "TOKEN", "KEY", "SAS"].iter().any(|word| name.contains(word));
        let providers =
            |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
        let long = |value: &SecretString| value.expose_secret().len() >= 8;
        let found = self.0.iter().filter(|(name, value)| providers(name) && secret(name) && long(value));
        found.map(|(_, value)| value.clone()).collect()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Variables(pairs.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The encryption at rest that is asked of S3 with each object, besides our own. Google's and Azure's
/// stores encrypt with what their bucket or container is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSide {
    /// With keys that the store manages (SSE-S3, `AES256`).
    Aes256,
    /// With a key in the key management service (SSE-KMS, `aws:kms`): this one, or the bucket's.
    Kms(Option<String>),
}

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The address of an S3 that is not Amazon's: `https://s3.example.com`.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of an address rather than in its host name. Without it: yes
    /// with an endpoint, no without.
    pub path_style: Option<bool>,
    /// What encryption is asked for.
    pub server_side: Option<ServerSide>,
    /// The most that goes in and out, in bytes per second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// How long a request that fails for a passing reason is tried again; 90 s without it.
    pub patience: Option<Duration>,
    /// Where credentials are looked for.
    pub variables: Variables,
}

impl Store {
    /// Opens a store. Nothing is asked of a remote one yet.
    pub fn open(url: &str, options: &Options) -> Result<Store> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| not_a_store(url))?;
        if scheme == "file" {
            if !rest.starts_with('/') {
                return Err(not_a_store(url));
            }
            return Ok(Store { pace: pace(options), ..Store::folder(FilePath::new(rest))? });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) || prefix.contains(['?', '#']) {
            return Err(not_a_store(url));
        }
        let prefix = prefix.trim_matches('/');
        let objects = match scheme {
            "s3" => s3(bucket, options),
            "gs" => gcs(bucket, options),
            "az" => azure(bucket, options),
            _ => return Err(not_a_store(url)),
        };
        let shown = format!("{scheme}://{bucket}/{prefix}");
        let shown = shown.trim_end_matches('/').to_owned();
        let secrets = options.variables.secrets();
        let objects = objects.map_err(|error| {
            let what = text::backup::STORE_SETTINGS.with("store", &shown);
            Refusal::of(&error).failure(what, Doing::Read, &shown, &secrets)
        })?;
        let objects: Arc<dyn ObjectStore> =
            if prefix.is_empty() { objects } else { Arc::new(PrefixStore::new(objects, prefix)) };
        let patience = options.patience.unwrap_or(PATIENCE);
        let secrets = Arc::new(secrets);
        Ok(Store { objects, folder: None, url: shown, pace: pace(options), patience, secrets })
    }

    /// A folder, made if it is absent. What is written there is flushed to the disk.
    pub fn folder(folder: &FilePath) -> Result<Store> {
        let url = format!("file://{}", folder.display());
        let failed = |error: object_store::Error| {
            let what = text::backup::STORE_FOLDER.with("folder", folder.display());
            Refusal::of(&error).failure(what, Doing::Write, &url, &[])
        };
        let opened = Folder::open(folder).map_err(|e| failed(super::system("open", e)))?;
        let objects = LocalFileSystem::new_with_prefix(opened.root()).map_err(failed)?.with_fsync(true);
        let (objects, folder) = (Arc::new(objects), Some(Arc::new(opened)));
        Ok(Store { objects, folder, url, pace: None, patience: PATIENCE, secrets: Arc::default() })
    }

    /// A store of the `object_store` crate, below a prefix.
    pub fn of(objects: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Store {
        let objects = Arc::new(PrefixStore::new(objects, prefix));
        let url = url.to_owned();
        Store { objects, folder: None, url, pace: None, patience: PATIENCE, secrets: Arc::default() }
    }
}

fn pace(options: &Options) -> Option<Arc<Pace>> {
    options.bytes_per_second.map(|rate| Arc::new(Pace::new(rate)))
}

/// The address may hold what somebody should not have put there: only its scheme is repeated.
fn not_a_store(url: &str) -> Failure {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    Failure::usage(text::backup::STORE_ADDRESS.with("scheme", scheme))
        .mended_by(text::backup::STORE_ADDRESS_MEND)
}

type Opened = object_store::Result<Arc<dyn ObjectStore>>;

fn s3(bucket: &str, options: &Options) -> Opened {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in options.variables.with_prefix("AWS_") {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let given = variables.iter().find_map(|name| options.variables.get(name));
    let endpoint = options.endpoint.as_deref().or(given);
    let virtual_host = options.path_style.map(|path| !path).or_else(|| {
        options
            .variables
            .get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
            .map(|value| value.eq_ignore_ascii_case("true"))
    });
    // A dot in the bucket's name would not match the certificate of its host name.
    let virtual_host = virtual_host.unwrap_or(endpoint.is_none() && !bucket.contains('.'));
    let mut client = client(options)?;
    if let Some(endpoint) = endpoint {
        client = client.with_allow_http(endpoint.starts_with("http://"));
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if virtual_host => format!("{scheme}://{bucket}.{host}"),
            _ => endpoint.to_owned(),
        };
        // Of the two that a builder knows, the one that comes from us must win.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(virtual_host)
        .with_checksum_algorithm(Checksum::SHA256)
        // One request for each object is what every S3 understands.
        .with_disable_bulk_delete(true)
        .with_retry(retries(options))
        .with_client_options(client);
    builder = match &options.server_side {
        None => builder,
        Some(ServerSide::Aes256) => builder.with_config(encryption("aws_server_side_encryption")?, "AES256"),
        Some(ServerSide::Kms(None)) => {
            builder.with_config(encryption("aws_server_side_encryption")?, "aws:kms")
        }
        Some(ServerSide::Kms(Some(key))) => builder.with_sse_kms_encryption(key),
    };
    Ok(Arc::new(builder.build()?))
}

fn encryption(name: &str) -> object_store::Result<AmazonS3ConfigKey> {
    name.parse()
}

fn gcs(bucket: &str, options: &Options) -> Opened {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in options.variables.with_prefix("GOOGLE_") {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let client = client(options)?;
    let builder = builder.with_bucket_name(bucket).with_retry(retries(options)).with_client_options(client);
    Ok(Arc::new(builder.build()?))
}

fn azure(container: &str, options: &Options) -> Opened {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in options.variables.with_prefix("AZURE_") {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let mut client = client(options)?;
    if let Some(endpoint) = &options.endpoint {
        client = client.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(endpoint.clone());
    }
    let builder =
        builder.with_container_name(container).with_retry(retries(options)).with_client_options(client);
    Ok(Arc::new(builder.build()?))
}

fn retries(options: &Options) -> RetryConfig {
    let patience = options.patience.unwrap_or(PATIENCE);
    RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: patience }
}

fn client(options: &Options) -> object_store::Result<ClientOptions> {
    let mut client = ClientOptions::new().with_timeout(REQUEST).with_connect_timeout(CONNECT);
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let Some(file) = options.variables.get(name) else { continue };
        let pem = std::fs::read(file).map_err(|e| super::system(file, e))?;
        for certificate in Certificate::from_pem_bundle(&pem)? {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options { variables, ..Options::default() }
    }

    #[test]
    fn addresses_are_read_and_repeated_without_what_does_not_belong_there() {
        let keys = options(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "secret-secret")]);
        assert_eq!(Store::open("s3://bucket/a/b/", &keys).unwrap().url(), "s3://bucket/a/b");
        assert_eq!(Store::open("s3://bucket", &keys).unwrap().url(), "s3://bucket");
        assert!(!format!("{:?} {keys:?}", Store::open("s3://bucket", &keys)).contains("secret-secret"));
        for wrong in [
            "",
            "bucket",
            "s3:bucket",
            "s3://",
            "s3:///prefix",
            "s3://AKIA:secret@bucket/a",
            "s3://bucket/a?token=secret",
            "ftp://host/a",
            "file://relative",
        ] {
            let failure = Store::open(wrong, &keys).unwrap_err();
            assert_eq!(failure.what.code(), text::backup::STORE_ADDRESS, "{wrong}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_told_at_once() {
        let half = options(&[("AWS_ACCESS_KEY_ID", "AKIA")]);
        assert_eq!(Store::open("s3://b", &half).unwrap_err().what.code(), text::backup::STORE_SETTINGS);
        let azure = Store::open("az://container/p", &options(&[])).unwrap_err();
        assert_eq!(azure.what.code(), text::backup::STORE_SETTINGS, "no account");
        let account = [("AZURE_STORAGE_ACCOUNT_NAME", "name"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
        Store::open("az://container/p", &options(&account)).unwrap();
        let missing = options(&[("SSL_CERT_FILE", "/nowhere/ca.pem")]);
        assert!(Store::open("gs://b", &missing).unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }
}
