//! How connections to other people's servers are secured, and how clouds are told who asks: the same for registries,
//! online stores and warehouses.
//!
//! It knows neither protocols nor configuration files. Who connects says how much the server has to prove and which
//! files hold certificates, and hands what comes back to the client of its protocol:
//!
//! ```
//! use feast_net::{TlsOptions, Verify};
//!
//! let options = TlsOptions { verify: Verify::Nothing, authorities: None, identity: None };
//! assert!(options.client_config().is_ok());
//! ```

mod aws;
mod gcp;
mod s3;
mod tls;

pub use aws::{AwsKey, AwsSigner, aws_profile_region};
pub use gcp::GcpTokens;
pub use s3::{bucket_retries, s3_builder};
pub use tls::{TlsOptions, Verify, system_authorities};
