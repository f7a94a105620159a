//! Credentials of AWS, where its own tools look for them, and signatures of requests made with them.
//!
//! The order is that of AWS: environment variables, the profile (keys, a process, single sign-on, a role to assume), a
//! web identity token, the container, the machine. Credentials that expire are renewed some minutes before.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use feast_core::{Error, ErrorCode, Result};
use tokio::sync::{Mutex, OnceCell};

/// How long before they expire credentials are renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Signs requests to one service in one region.
pub struct AwsSigner {
    region: String,
    service: &'static str,
    /// Where credentials come from; found at the first request.
    chain: OnceCell<SharedCredentialsProvider>,
    current: RwLock<Option<Credentials>>,
    /// Held by whoever asks for new credentials, so that one asks for all.
    renewing: Mutex<()>,
}

/// A key of AWS, for clients that sign themselves.
#[derive(Clone)]
pub struct AwsKey {
    /// Its name.
    pub id: String,
    /// What only its owner knows.
    pub secret: String,
    /// Goes with keys that expire.
    pub session_token: Option<String>,
}

/// The secret is shown to nobody.
impl fmt::Debug for AwsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKey").finish_non_exhaustive()
    }
}

/// The region that the chosen profile of `~/.aws/config` names, or of the files that replace it.
pub async fn aws_profile_region() -> Option<String> {
    ProvideRegion::region(&ProfileFileRegionProvider::new()).await.map(|region| region.to_string())
}

impl fmt::Debug for AwsSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSigner")
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl AwsSigner {
    /// A signer whose credentials are looked for at the first request.
    pub fn new(region: &str, service: &'static str) -> Self {
        Self {
            region: region.to_owned(),
            service,
            chain: OnceCell::new(),
            current: RwLock::new(None),
            renewing: Mutex::new(()),
        }
    }

    /// A signer with a key that never expires.
    pub fn with_key(region: &str, service: &'static str, key: &str, secret: &str) -> Self {
        let credentials = Credentials::new(key, secret, None, None, "given");
        Self { current: RwLock::new(Some(credentials)), ..Self::new(region, service) }
    }

    /// Adds the headers that prove who asks.
    ///
    /// # Errors
    /// `InvalidConfiguration` where there are no credentials, `Unavailable` where they cannot be had now.
    pub async fn sign<B: AsRef<[u8]>>(&self, request: &mut http::Request<B>) -> Result<()> {
        let credentials = self.credentials().await?;
        sign_at(request, credentials, &self.region, self.service, SystemTime::now())
    }

    /// The key to sign with, which may be another one the next time.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub async fn key(&self) -> Result<AwsKey> {
        let credentials = self.credentials().await?;
        Ok(AwsKey {
            id: credentials.access_key_id().to_owned(),
            secret: credentials.secret_access_key().to_owned(),
            session_token: credentials.session_token().map(ToOwned::to_owned),
        })
    }

    /// Drops credentials that a server no longer takes.
    pub fn forget(&self) {
        // Without a chain they were given, and there are no others.
        if self.chain.initialized() {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn current(&self) -> Option<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn credentials(&self) -> Result<Credentials> {
        let left = |credentials: &Credentials| {
            credentials.expiry().map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default())
        };
        let good = |credentials: &Credentials| left(credentials).is_none_or(|left| left > RENEW_BEFORE);
        let valid = |credentials: &Credentials| left(credentials).is_none_or(|left| !left.is_zero());
        let current = self.current();
        if let Some(credentials) = current.clone().filter(good) {
            return Ok(credentials);
        }
        // While the old ones are valid, only one caller waits for new ones.
        let valid = current.filter(valid);
        let _renewing = match (self.renewing.try_lock(), &valid) {
            (Ok(renewing), _) => renewing,
            (Err(_), Some(credentials)) => return Ok(credentials.clone()),
            (Err(_), None) => self.renewing.lock().await,
        };
        if let Some(credentials) = self.current().filter(good) {
            return Ok(credentials);
        }
        match (self.ask().await, valid) {
            (Ok(credentials), _) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials.clone());
                Ok(credentials)
            }
            (Err(error), Some(credentials)) => {
                tracing::warn!(%error, "AWS credentials could not be renewed, those of before are still valid");
                Ok(credentials)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Asks whoever has credentials.
    async fn ask(&self) -> Result<Credentials> {
        let chain = self.chain.get_or_try_init(|| async {
            let client = aws_smithy_http_client::Builder::new();
            let config = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(self.region.clone()))
                .http_client(client.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https());
            config.load().await.credentials_provider().ok_or_else(|| Error::internal("AWS has no credentials provider"))
        });
        chain.await?.provide_credentials().await.map_err(|error| match error {
            CredentialsError::CredentialsNotLoaded(_) => Error::invalid_configuration("there are no AWS credentials")
                .with_hint(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with AWS_PROFILE, or give this \
                     machine a role",
                ),
            CredentialsError::InvalidConfiguration(_) => {
                Error::invalid_configuration("the AWS credentials are not configured correctly")
                    .with_source(causes(&error))
                    .with_hint("see ~/.aws/config and ~/.aws/credentials, or the files that replace them")
            }
            error => Error::new(ErrorCode::Unavailable, "AWS credentials could not be obtained")
                .with_source(causes(&error))
                .with_hint("see whether the service that gives them can be reached, or sign in again"),
        })
    }
}

/// An error and what it came from, as one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn sign_at<B: AsRef<[u8]>>(
    request: &mut http::Request<B>,
    credentials: Credentials,
    region: &str,
    service: &str,
    time: SystemTime,
) -> Result<()> {
    let failed = |error: String| Error::internal("a request to AWS could not be signed").with_source(error);
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(error.to_string()))?
        .into();
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.uri().to_string(),
        headers,
        SignableBody::Bytes(request.body().as_ref()),
    );
    let signed = signable.and_then(|signable| sign(signable, &params)).map_err(|error| failed(error.to_string()))?;
    signed.into_parts().0.apply_to_request_http1x(request);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn signatures_are_those_of_awss_own_client() {
        let mut request = http::Request::post("http://localhost:8000/")
            .header("host", "localhost:8000")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", "DynamoDB_20120810.ListTables")
            .body(b"{\"Limit\":1}")
            .unwrap();
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "given");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_176_000);
        sign_at(&mut request, credentials, "us-west-2", "dynamodb", time).unwrap();
        // Made by botocore 1.44 for the same request and time.
        let signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/us-west-2/dynamodb/aws4_request, \
                         SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=48a381c8658271b018450f984c834efaebdbb0d96097ad2a1a80058289631a62";
        assert_eq!(request.headers()["authorization"], signature);
        assert_eq!(request.headers()["x-amz-date"], "20261120T120000Z");
    }

    #[tokio::test]
    async fn credentials_that_were_given_stay() {
        let signer = AwsSigner::with_key("eu-west-1", "dynamodb", "key", "top-secret");
        signer.forget();
        let mut request = http::Request::post("https://localhost/").body(Vec::new()).unwrap();
        signer.sign(&mut request).await.unwrap();
        assert!(request.headers().contains_key("authorization"));
        assert!(!format!("{signer:?}").contains("top-secret"));
    }
}
