//! The `registry` part of `feature_store.yaml` for registry servers. Names and meanings are Feast's.

use std::fmt;
use std::path::{Path, PathBuf};

use feast_core::{Error, Result};
use feast_net::{TlsOptions, Verify};
use serde_json::{Map, Value};

/// Where a registry server is and how to reach it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RemoteOptions {
    /// `host:port`.
    pub(super) path: String,
    /// `None`: without TLS.
    pub(super) tls: Option<TlsOptions>,
    /// The name that the server is told to be asked for, and that its certificate is for; `None`: that of `path`.
    pub(super) authority: Option<String>,
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions")
            .field("path", &self.path)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl RemoteOptions {
    /// Reads `path` and the other keys below `registry`.
    ///
    /// # Errors
    /// `InvalidConfiguration` naming the key.
    pub(super) fn parse(path: &str, options: &Map<String, Value>, repo_path: &Path) -> Result<Self> {
        let plain = path.strip_prefix("grpc://").or_else(|| path.strip_prefix("http://")).unwrap_or(path);
        let place = plain.strip_prefix("grpcs://").or_else(|| plain.strip_prefix("https://")).unwrap_or(plain);
        let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
        if host.is_empty() || host.contains(['/', '@']) || port.parse::<u16>().is_err() {
            return Err(Error::invalid_configuration(format!(
                "`registry.path` is `{path}`, expected the host and the port of a registry server"
            ))
            .with_hint("write it as `path: registry.example.com:6570`"));
        }
        let text = |key: &str| match options.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(wrong(key, "a text")),
        };
        let file = |key: &str| Ok::<_, Error>(text(key)?.map(|path| repo_path.join(path)));
        let is_tls = match options.get("is_tls") {
            None | Some(Value::Null) => plain != place,
            Some(Value::Bool(is_tls)) => *is_tls || plain != place,
            Some(_) => return Err(wrong("is_tls", "true or false")),
        };
        let authorities: Option<PathBuf> = file("cert")?;
        let identity = match (file("client_cert")?, file("client_key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Error::invalid_configuration(
                    "one of `registry.client_cert` and `registry.client_key` is missing",
                )
                .with_hint("give both, or neither"));
            }
        };
        let is_tls = is_tls || authorities.is_some();
        if identity.is_some() && !is_tls {
            return Err(Error::invalid_configuration("`registry.client_cert` is given for a connection without TLS")
                .with_hint("set `is_tls: true`, or name the certificate of the server with `cert`"));
        }
        let tls = is_tls.then_some(TlsOptions { verify: Verify::Host, authorities, identity });
        Ok(Self { path: place.to_owned(), tls, authority: text("authority")? })
    }

    /// Host and port, the host without brackets.
    pub(super) fn target(&self) -> (&str, u16) {
        let (host, port) = self.path.rsplit_once(':').unwrap_or((&self.path, ""));
        (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or_default())
    }

    /// The name that the certificate of the server must have.
    pub(super) fn server_name(&self) -> &str {
        match &self.authority {
            Some(authority) => authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host),
            None => self.target().0,
        }
    }
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::invalid_configuration(format!("`registry.{key}` is not {expected}"))
        .with_hint(format!("write {expected}, or leave the key out"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn parsed(path: &str, options: Value) -> Result<RemoteOptions> {
        RemoteOptions::parse(path, options.as_object().unwrap(), Path::new("/repo"))
    }

    #[test]
    fn hosts_and_ports_are_read() {
        assert_eq!(parsed("localhost:6570", json!({})).unwrap().target(), ("localhost", 6570));
        assert_eq!(parsed("[::1]:1", json!({})).unwrap().target(), ("::1", 1));
        assert!(parsed("grpcs://a.b:1", json!({})).unwrap().tls.is_some());
        for path in ["", "localhost", "localhost:x", "http://a:1/b", ":1", "user@a:1", "a:70000"] {
            let error = parsed(path, json!({})).unwrap_err();
            assert!(error.to_string().contains("expected the host and the port"), "{path}: {error}");
        }
    }

    #[test]
    fn certificates_mean_tls() {
        let with = parsed("a:1", json!({"cert": "ca.pem", "authority": "b:2"})).unwrap();
        assert_eq!(with.tls.as_ref().unwrap().authorities, Some(PathBuf::from("/repo/ca.pem")));
        assert_eq!(with.server_name(), "b");
        assert_eq!(parsed("a:1", json!({"is_tls": false, "cert": ""})).unwrap().tls, None);
        for options in
            [json!({"is_tls": "yes"}), json!({"client_cert": "a"}), json!({"client_cert": "a", "client_key": "b"})]
        {
            assert!(parsed("a:1", options).is_err());
        }
    }
}
