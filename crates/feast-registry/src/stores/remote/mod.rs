//! A registry behind a server.
//!
//! Behind `feast serve_registry` of ours, a commit is one call on top of a version, as with every other store, and the
//! history is that of the store behind the server. Feast's own server knows objects only: versions are digests of its
//! registry, and a commit is compared with one and then sent object by object, so that others can come in between and
//! a commit that fails halfway leaves what it has done. Which of the two it is, the first call finds out.

mod connection;
mod feast;
mod options;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use feast_core::{
    CommitRecord, Error, ErrorCode, ErrorKind, RegistryChanges, RegistryHistory, RegistrySnapshot, RegistryStore,
    RegistryVersion, Result,
};
use feast_proto::registry_store::{
    Commit, History, HistoryRequest, LoadRequest, Loaded, REGISTRY_STORE_SERVICE, Version, commit_message,
    history_from_message,
};
use feast_proto::snapshot_from_loaded;

use self::connection::{Connection, Repeat};
use self::options::RemoteOptions;
use super::RegistrySettings;

/// A registry behind a server.
#[derive(Debug)]
pub struct RemoteRegistry {
    connection: Connection,
    server: AtomicU8,
    author: String,
}

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Server {
    Unknown = 0,
    Ours = 1,
    Feasts = 2,
}

/// Connects from a configuration; nothing is asked yet.
pub(super) fn connect(settings: &RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>> {
    let options = RemoteOptions::parse(settings.path, settings.options, settings.repo_path)?;
    Ok(Arc::new(RemoteRegistry {
        connection: Connection::new(options),
        server: AtomicU8::new(Server::Unknown as u8),
        author: settings.author.to_owned(),
    }))
}

impl RemoteRegistry {
    /// Whose server this is, and the version when that was asked to find out.
    async fn server(&self) -> Result<(Server, Option<Version>)> {
        match self.server.load(Ordering::Relaxed) {
            known if known == Server::Ours as u8 => return Ok((Server::Ours, None)),
            known if known == Server::Feasts as u8 => return Ok((Server::Feasts, None)),
            _ => {}
        }
        let (server, version) = match self.ask("Version", &(), Repeat::Yes).await {
            Ok(version) => (Server::Ours, Some(version)),
            Err(error) if error.code() == ErrorCode::Unsupported => (Server::Feasts, None),
            Err(error) => return Err(error),
        };
        self.server.store(server as u8, Ordering::Relaxed);
        Ok((server, version))
    }

    /// Calls a method of our service.
    async fn ask<Q, A>(&self, method: &str, request: &Q, repeat: Repeat) -> Result<A>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let answer = self.connection.call(REGISTRY_STORE_SERVICE, method, request, repeat).await;
        if answer.as_ref().is_err_and(|error: &Error| error.code() == ErrorCode::Unsupported) {
            // The server may have been replaced by another.
            self.server.store(Server::Unknown as u8, Ordering::Relaxed);
        }
        answer
    }

    async fn our_version(&self) -> Result<Option<RegistryVersion>> {
        let version: Version = self.ask("Version", &(), Repeat::Yes).await?;
        Ok(version.version.map(RegistryVersion))
    }

    /// The state behind our server, of which only what differs from `known` is sent; `None` when that is still it.
    async fn load_from_ours(&self, known: Option<&RegistrySnapshot>) -> Result<Option<RegistrySnapshot>> {
        let version = known.and_then(|known| known.version.as_ref()).map(ToString::to_string);
        let loaded: Loaded = self.ask("Load", &LoadRequest { known: version }, Repeat::Yes).await?;
        snapshot_from_loaded(known, loaded)
            .map_err(|error| error.with_context("registry server", self.connection.path()))
    }

    /// A commit whose answer is lost is sent again when the registry is still the one it is based on: at most one of
    /// the two can succeed.
    async fn commit_to_ours(&self, commit: &Commit) -> Result<RegistryVersion> {
        let lost = |error: &Error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
        let committed: Result<Version> = self.ask("Commit", commit, Repeat::No).await;
        let version = match committed {
            Err(error) if lost(&error) => {
                let now = self.our_version().await.map_err(|_| error)?;
                if now.as_ref().map(|version| &version.0) != commit.base.as_ref() {
                    return Err(Error::unavailable(format!(
                        "the answer to a commit was lost, and {self} has changed since: the commit may have been made"
                    ))
                    .with_hint("see whether it was, with `feast registry log`, and try again if not"));
                }
                self.ask::<_, Version>("Commit", commit, Repeat::No).await?
            }
            committed => committed?,
        };
        let version = version.version.ok_or_else(|| Error::unavailable(format!("{self} gave a commit no version")))?;
        Ok(RegistryVersion(version))
    }
}

impl fmt::Display for RemoteRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry server `{}`", self.connection.path())
    }
}

#[async_trait]
impl RegistryStore for RemoteRegistry {
    async fn load(&self) -> Result<RegistrySnapshot> {
        if self.server().await?.0 == Server::Feasts {
            return feast::load(&self.connection).await;
        }
        Ok(self.load_from_ours(None).await?.unwrap_or_default())
    }

    async fn load_newer(&self, known: &RegistrySnapshot) -> Result<Option<RegistrySnapshot>> {
        match self.server().await?.0 {
            Server::Feasts if self.version().await? == known.version => Ok(None),
            Server::Feasts => self.load().await.map(Some),
            _ => self.load_from_ours(Some(known)).await,
        }
    }

    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        match self.server().await?.0 {
            Server::Feasts => feast::commit(&self.connection, base, changes).await,
            _ => self.commit_to_ours(&commit_message(base, changes, &self.author)).await,
        }
    }

    async fn version(&self) -> Result<Option<RegistryVersion>> {
        match self.server().await? {
            (Server::Feasts, _) => feast::version(&self.connection).await,
            (_, Some(version)) => Ok(version.version.map(RegistryVersion)),
            (_, None) => self.our_version().await,
        }
    }

    async fn teardown(&self) -> Result<()> {
        match self.server().await?.0 {
            Server::Feasts => feast::teardown(&self.connection).await,
            _ => self.ask("Teardown", &(), Repeat::Yes).await,
        }
    }

    fn history(&self) -> Option<&dyn RegistryHistory> {
        Some(self)
    }
}

#[async_trait]
impl RegistryHistory for RemoteRegistry {
    async fn commits(&self, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
        if self.server().await?.0 == Server::Feasts {
            return Err(Error::unsupported(format!("{self} is Feast's, which keeps no history")));
        }
        let asked = HistoryRequest { project: project.to_owned(), after, most: most as u64 };
        let history: History = self.ask("History", &asked, Repeat::Yes).await?;
        history_from_message(history)
    }
}
