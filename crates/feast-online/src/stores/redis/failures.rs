//! What is told about failures: what happened, with what, and what helps.

use feast_core::{Error, ErrorCode};

use super::client::Client;
use super::connection::Failure;

impl Client {
    /// What is told about a failure.
    pub(super) fn error(&self, failure: Failure) -> Error {
        let (code, hint) = match &failure {
            Failure::Unreachable(_) => (
                ErrorCode::Unavailable,
                "check that Redis runs, and that `online_store.connection_string` names its host and port",
            ),
            Failure::Lost(_) => (
                ErrorCode::Unavailable,
                "Redis may be restarting; where it expects encrypted connections, add `ssl=true` to \
                 `online_store.connection_string`",
            ),
            Failure::Tls(_) => (
                ErrorCode::Unavailable,
                "name the authority with `ssl_ca_certs` in `online_store.connection_string`; without `ssl=true` \
                 connections are not encrypted",
            ),
            Failure::Refused(_) => (
                ErrorCode::PermissionDenied,
                "correct `username`, `password` and `db` in `online_store.connection_string`",
            ),
            Failure::Busy => (ErrorCode::Unavailable, "send fewer requests at the same time, or give Redis more nodes"),
            Failure::Timeout => (
                ErrorCode::Timeout,
                "Redis is busy or stopped; `socket_timeout` in `online_store.connection_string` says how long to wait",
            ),
            Failure::Malformed => {
                (ErrorCode::Unavailable, "check that the port in `online_store.connection_string` is that of Redis")
            }
            Failure::TooLong => (ErrorCode::Unavailable, "look for hashes of very many fields in Redis"),
            Failure::Unable(line) => return self.server_error(line),
        };
        Error::new(code, "could not use the online store")
            .with_context("online store", self)
            .with_source(failure)
            .with_hint(hint)
    }

    /// What is told about an error that a server answered.
    pub(super) fn server_error(&self, line: &str) -> Error {
        let (code, hint) = match line.split(' ').next().unwrap_or_default() {
            "NOPERM" => (
                ErrorCode::PermissionDenied,
                "the user needs `+@read +@write +@scripting +scan +ping` and the keys `~*`; with `skip_dedup: true` writing \
                 needs no scripts",
            ),
            "NOAUTH" | "WRONGPASS" => {
                (ErrorCode::PermissionDenied, "correct `username` and `password` in `online_store.connection_string`")
            }
            "OOM" | "MISCONF" => (ErrorCode::Unavailable, "look at the memory and the disk of Redis"),
            "READONLY" => {
                (ErrorCode::Unavailable, "name the master, not a replica, or use `redis_type: redis_sentinel`")
            }
            "WRONGTYPE" => {
                (ErrorCode::Unavailable, "another program uses the same keys: give the store a database of its own")
            }
            _ if line.contains("cluster support disabled") => {
                (ErrorCode::InvalidConfiguration, "the server is no cluster: use `redis_type: redis`")
            }
            _ => (ErrorCode::Unavailable, "look into the log of Redis, then try again"),
        };
        Error::new(code, format!("the online store answered `{line}`"))
            .with_context("online store", self)
            .with_hint(hint)
    }
}
