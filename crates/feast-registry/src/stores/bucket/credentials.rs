//! The keys of AWS for a client of object stores: where AWS's own tools look for them, profiles and their roles included.

use std::sync::Arc;

use async_trait::async_trait;
use feast_net::AwsSigner;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// Asks AWS's chain of credentials whenever a request is signed.
#[derive(Debug)]
pub(super) struct AwsChain(pub(super) AwsSigner);

#[async_trait]
impl CredentialProvider for AwsChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let key =
            self.0.key().await.map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        Ok(Arc::new(AwsCredential { key_id: key.id, secret_key: key.secret, token: key.session_token }))
    }
}
