//! The promises of online stores, kept by `remote` before a feature server of ours whose own store is SQLite: tables are
//! made there, as by `feast apply`, and rows go over HTTP.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use feast::{ApplyOptions, Definitions, FeatureStore, RepoConfig};
use feast_core::{
    BatchFeatures, DataSource, Entity, ErrorCode, FeatureView, FeatureViewKind, ObjectKind, ObjectRef, OnlineRead,
    OnlineRows, OnlineStore, OnlineTable, OnlineWrite, ProjectContents, RegistryObject, Result, TableChange,
};
use feast_server::{ServeOptions, serve};
use feast_testing::online_suite::{Limit, StartedStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Mutex, oneshot};

/// What the protocol between feature servers cannot say.
const LIMITS: &[Limit] = &[Limit::JsonValues];

/// The servers of the projects that were asked for, and stores before them.
#[derive(Default)]
struct Served(Mutex<HashMap<String, Arc<Server>>>);

/// The server of one project.
struct Server {
    feast: FeatureStore,
    remote: Arc<dyn OnlineStore>,
    _stop: oneshot::Sender<()>,
    _folder: TempDir,
}

impl Server {
    async fn start(project: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text =
            format!("project: {project}\nregistry: registry.db\nonline_store: {{type: sqlite, path: online.db}}\n");
        let feast = FeatureStore::open(RepoConfig::parse(&text, folder.path()).unwrap()).unwrap();
        let definitions = Definitions::default();
        feast.apply(&definitions, &ApplyOptions::default()).await.unwrap();
        let (tell, ready) = oneshot::channel::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions { port: 0, ..ServeOptions::default() };
        tokio::spawn(serve(feast.clone(), options, |address| tell.send(address).unwrap(), stopped));
        let path = format!("http://{}", ready.await.unwrap());
        let remote = feast_online::connect("remote", &json!({"path": path}), Path::new("/")).unwrap();
        Self { feast, remote, _stop: stop, _folder: folder }
    }

    /// As `feast apply` of a definition that makes such a table.
    async fn define(&self, table: &OnlineTable) -> Result<()> {
        let mut source = DataSource::file(format!("{}_source", table.view), "none.parquet", "event_timestamp");
        source.created_timestamp_column = "created".to_owned();
        let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
        let mut view = FeatureView::new(&table.view, FeatureViewKind::Batch(batch));
        view.entity_columns.clone_from(&table.join_keys);
        view.features.clone_from(&table.columns);
        let mut contents = ProjectContents::default();
        contents.put(RegistryObject::DataSource(Arc::new(source)));
        for key in &table.join_keys {
            view.entities.push(key.name.clone());
            contents.put(RegistryObject::Entity(Arc::new(Entity::new(&key.name, &key.name, key.value_type))));
        }
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        let definitions = Definitions { contents, ..Definitions::default() };
        let options = ApplyOptions {
            skip_source_validation: true,
            skip_feature_view_validation: true,
            ..ApplyOptions::default()
        };
        self.feast.apply(&definitions, &options).await.map(drop)
    }

    async fn remove(&self, view: &str) -> Result<()> {
        let reference = ObjectRef::new(ObjectKind::FeatureView, view);
        match self.feast.delete(&reference).await {
            Err(error) if error.code() == ErrorCode::FeatureViewNotFound => Ok(()),
            deleted => deleted,
        }
    }
}

impl Served {
    async fn server(&self, project: &str) -> Arc<Server> {
        let mut servers = self.0.lock().await;
        if !servers.contains_key(project) {
            servers.insert(project.to_owned(), Arc::new(Server::start(project).await));
        }
        Arc::clone(&servers[project])
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("remote before a server of each project")
    }
}

#[async_trait]
impl OnlineStore for Served {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        // The suite reads one project at a time.
        let project = reads.first().map_or("shop", |read| read.wanted.table.project.as_str());
        self.server(project).await.remote.read(reads).await
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        self.server(&write.table.project).await.remote.write(write).await
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        for change in changes {
            match change {
                TableChange::Ensure(table) => self.server(&table.project).await.define(table).await?,
                TableChange::Drop(table) => self.server(&table.project).await.remove(&table.view).await?,
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.server("shop").await.remote.check().await
    }

    fn preferred_batch_rows(&self) -> usize {
        1_000
    }
}

async fn start() -> StartedStore {
    StartedStore::new(Arc::new(Served::default())).limited(LIMITS)
}

feast_testing::online_store_conformance!(super::start);
