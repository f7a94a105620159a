//! The client of a bucket, from what the configuration and the environment say.
//!
//! Credentials, region and endpoint come from where the tools of the two clouds have them: the environment (`AWS_…`,
//! `GOOGLE_…`), the profile in `~/.aws`, the machine's role.

use std::sync::Arc;

use feast_core::{Error, Result, list_names};
use feast_net::{bucket_retries, s3_builder};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{Attribute, Attributes, ClientConfigKey, ObjectStore, StaticCredentialProvider, TagSet};
use serde_json::{Map, Value};

/// Of what Feast hands to boto's `put_object`, what is understood.
const S3_ARGUMENTS: &[&str] = &[
    "BucketKeyEnabled",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
    "SSEKMSKeyId",
    "ServerSideEncryption",
    "StorageClass",
    "Tagging",
];

/// A place in a bucket, and how to write there.
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) key: Key,
    pub(super) attributes: Attributes,
    pub(super) tags: TagSet,
}

/// Reads a URL and the other keys below `registry`.
pub(super) fn open(url: &str, options: &Map<String, Value>) -> Result<Object> {
    let invalid = || {
        Error::invalid_configuration(format!("`registry` is `{url}`, which does not name an object in a bucket"))
            .with_hint("write `s3://bucket/folder/registry.db` or `gs://bucket/folder/registry.db`")
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(invalid)?;
    let (bucket, key) = rest.split_once('/').ok_or_else(invalid)?;
    if bucket.is_empty() || bucket.contains(['@', ':']) || key.is_empty() || key.ends_with('/') {
        return Err(invalid());
    }
    let key = Key::parse(key).map_err(|error| invalid().with_source(error))?;
    let arguments = match options.get("s3_additional_kwargs") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) if scheme == "s3" => arguments.clone(),
        Some(_) => {
            return Err(Error::invalid_configuration(
                "`registry.s3_additional_kwargs` is a mapping, for registries in `s3://`",
            )
            .with_hint("write for example `s3_additional_kwargs: {ServerSideEncryption: AES256}`"));
        }
    };
    let (mut attributes, mut tags) = (Attributes::new(), TagSet::default());
    let store: std::result::Result<Arc<dyn ObjectStore>, _> = if scheme == "s3" {
        let mut builder = s3_builder(bucket, "");
        for (name, value) in &arguments {
            builder = argument(builder, &mut attributes, &mut tags, name, value)?;
        }
        builder.build().map(|store| Arc::new(store) as _)
    } else {
        let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(bucket_retries());
        if let Some(host) = set(&"STORAGE_EMULATOR_HOST") {
            let endpoint = if host.contains("://") { host } else { format!("http://{host}") };
            builder = builder
                .with_config(GoogleConfigKey::BaseUrl, endpoint)
                .with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true")
                .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                    bearer: "emulator".to_owned(),
                })));
        }
        builder.build().map(|store| Arc::new(store) as _)
    };
    let store = store.map_err(|error| {
        // The cause may repeat what the environment says about credentials.
        Error::invalid_configuration(format!("the client of `{scheme}://{bucket}` cannot be made"))
            .with_context("cause", error.to_string().lines().next().unwrap_or_default())
            .with_hint("check the variables of the environment that begin with `AWS_` or `GOOGLE_`")
    })?;
    Ok(Object { store, key, attributes, tags })
}

#[expect(clippy::disallowed_methods, reason = "Google's client reads the same variable")]
fn set(name: &&str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn argument(
    builder: AmazonS3Builder,
    attributes: &mut Attributes,
    tags: &mut TagSet,
    name: &str,
    value: &Value,
) -> Result<AmazonS3Builder> {
    let wrong = |expected: &str| {
        Error::invalid_configuration(format!("`registry.s3_additional_kwargs.{name}` is not {expected}"))
            .with_hint("it is an argument of boto's `put_object`")
    };
    let text = || value.as_str().map(ToOwned::to_owned).ok_or_else(|| wrong("a text"));
    let key = |key: &str| key.parse::<AmazonS3ConfigKey>().map_err(|error| wrong("known").with_source(error));
    let attribute = match name {
        "ServerSideEncryption" => {
            let encryption = text()?;
            if !["AES256", "aws:kms", "aws:kms:dsse"].contains(&encryption.as_str()) {
                return Err(wrong("one of `AES256`, `aws:kms`, `aws:kms:dsse`"));
            }
            return Ok(builder.with_config(key("aws_server_side_encryption")?, encryption));
        }
        "SSEKMSKeyId" => return Ok(builder.with_config(key("aws_sse_kms_key_id")?, text()?)),
        "BucketKeyEnabled" => {
            let enabled = value.as_bool().ok_or_else(|| wrong("`true` or `false`"))?;
            return Ok(builder.with_config(key("aws_sse_bucket_key_enabled")?, enabled.to_string()));
        }
        "Metadata" => {
            for (name, value) in value.as_object().ok_or_else(|| wrong("a mapping"))? {
                let value = value.as_str().ok_or_else(|| wrong("a mapping of texts"))?.to_owned();
                attributes.insert(Attribute::Metadata(name.clone().into()), value.into());
            }
            return Ok(builder);
        }
        "Tagging" => {
            for (name, value) in url::form_urlencoded::parse(text()?.as_bytes()) {
                tags.push(&name, &value);
            }
            return Ok(builder);
        }
        "CacheControl" => Attribute::CacheControl,
        "ContentDisposition" => Attribute::ContentDisposition,
        "ContentEncoding" => Attribute::ContentEncoding,
        "ContentLanguage" => Attribute::ContentLanguage,
        "ContentType" => Attribute::ContentType,
        "StorageClass" => Attribute::StorageClass,
        _ => {
            return Err(Error::unsupported(format!("`registry.s3_additional_kwargs.{name}` is not supported"))
                .with_hint(format!("supported are {}", list_names(S3_ARGUMENTS.iter().copied()))));
        }
    };
    attributes.insert(attribute, text()?.into());
    Ok(builder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use feast_core::ErrorCode;
    use serde_json::json;

    use super::*;

    fn opened(url: &str, arguments: Value) -> Result<Object> {
        open(url, json!({ "s3_additional_kwargs": arguments }).as_object().unwrap())
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for url in ["s3://bucket", "s3://bucket/", "s3:///registry.db", "s3://key:secret@bucket/r.db", "gs://b/folder/"]
        {
            assert_eq!(opened(url, Value::Null).err().unwrap().code(), ErrorCode::InvalidConfiguration, "{url}");
        }
        assert_eq!(opened("s3://bucket/a/registry.db", Value::Null).unwrap().key.as_ref(), "a/registry.db");
    }

    #[test]
    fn arguments_of_boto_are_understood_or_refused() {
        let known = json!({
            "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key", "BucketKeyEnabled": true, "StorageClass": "STANDARD",
            "Metadata": {"team": "rides"}, "Tagging": "a=1&b=2",
        });
        let object = opened("s3://bucket/registry.db", known).unwrap();
        assert_eq!(object.attributes.len(), 2);
        assert_eq!(object.tags.encoded(), "a=1&b=2");
        let code = |url, arguments| opened(url, arguments).err().unwrap().code();
        assert_eq!(code("s3://b/r.db", json!({"ACL": "private"})), ErrorCode::Unsupported);
        assert_eq!(code("s3://b/r.db", json!({"StorageClass": 1})), ErrorCode::InvalidConfiguration);
        assert_eq!(code("s3://b/r.db", json!([])), ErrorCode::InvalidConfiguration);
        assert_eq!(code("gs://b/r.db", json!({"StorageClass": "STANDARD"})), ErrorCode::InvalidConfiguration);
    }
}
