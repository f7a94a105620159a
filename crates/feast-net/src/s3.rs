//! The client of a bucket of S3, with credentials, region and endpoint from where AWS's own tools have them: the same for
//! registries, sources and datasets.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::{BackoffConfig, CredentialProvider, RetryConfig};

use crate::{AwsSigner, aws_profile_region};

const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_RETRIES: usize = 5;

/// How often and how long a client of buckets tries again.
pub fn bucket_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: MOST_RETRIES, retry_timeout: RETRY_TIMEOUT }
}

/// The client of a bucket. Keys, region and the rest come from the environment (`AWS_…`), from the profile in `~/.aws`, or
/// from the machine's role. An empty endpoint is that of `FEAST_S3_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3` or
/// `AWS_ENDPOINT_URL`, or AWS itself; one that says `http://` is not encrypted. Nothing is requested yet.
pub fn s3_builder(bucket: &str, endpoint: &str) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(bucket_retries());
    let endpoint = Some(endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty()).or_else(|| {
        ["FEAST_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(environment)
    });
    if let Some(endpoint) = endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    if ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().all(|name| environment(name).is_none())
        && let Some(region) = futures::executor::block_on(aws_profile_region())
    {
        builder = builder.with_region(region);
    }
    // Keys in the environment come first, here as in AWS's own tools; so does the wish for none.
    let unsigned = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).is_some_and(|value| value == "true");
    if environment("AWS_ACCESS_KEY_ID").is_none() && !unsigned {
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        builder = builder.with_credentials(Arc::new(AwsChain(AwsSigner::new(&region, "s3"))));
    }
    builder
}

#[expect(clippy::disallowed_methods, reason = "boto reads the same variables")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Asks AWS's chain of credentials whenever a request is signed.
#[derive(Debug)]
struct AwsChain(AwsSigner);

#[async_trait]
impl CredentialProvider for AwsChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let key =
            self.0.key().await.map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        Ok(Arc::new(AwsCredential { key_id: key.id, secret_key: key.secret, token: key.session_token }))
    }
}
