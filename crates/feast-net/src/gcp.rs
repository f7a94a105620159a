//! Tokens of Google Cloud, from where its own tools look for them: a key file, the user's login, the machine.

use std::fmt;
use std::sync::Arc;

use feast_core::{Error, Result};
use gcp_auth::TokenProvider;
use tokio::sync::OnceCell;

/// Gives tokens for some scopes; the provider is found at the first request.
pub struct GcpTokens {
    scopes: &'static [&'static str],
    provider: OnceCell<Arc<dyn TokenProvider>>,
}

impl fmt::Debug for GcpTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcpTokens").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl GcpTokens {
    /// Tokens for these scopes.
    pub fn new(scopes: &'static [&'static str]) -> Self {
        Self { scopes, provider: OnceCell::new() }
    }

    /// A token that is valid now.
    ///
    /// # Errors
    /// `InvalidConfiguration` where nobody gives tokens, `Unavailable` where none can be had now.
    pub async fn token(&self) -> Result<String> {
        let token = self.provider().await?.token(self.scopes).await.map_err(unavailable)?;
        Ok(token.as_str().to_owned())
    }

    /// The project that the credentials belong to.
    ///
    /// # Errors
    /// The same.
    pub async fn project(&self) -> Result<String> {
        Ok(self.provider().await?.project_id().await.map_err(unavailable)?.to_string())
    }

    async fn provider(&self) -> Result<&Arc<dyn TokenProvider>> {
        let found = self.provider.get_or_try_init(gcp_auth::provider).await;
        found.map_err(|error| {
            Error::invalid_configuration("there are no credentials of Google Cloud").with_source(error).with_hint(
                "run `gcloud auth application-default login`, or name a key file with GOOGLE_APPLICATION_CREDENTIALS",
            )
        })
    }
}

fn unavailable(error: gcp_auth::Error) -> Error {
    Error::unavailable("Google Cloud gives no token")
        .with_source(error)
        .with_hint("sign in again, or see whether the service that gives tokens can be reached")
}
