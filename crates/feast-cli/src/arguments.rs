//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use feast_core::ObjectKind;

use crate::commands::{
    apply, completion, configuration, delete, doctor, endpoint, explain, feature_views, features, freshness,
    get_historical_features, get_online_features, init, later, materialize, materialize_incremental, objects,
    online_store, permissions, plan, projects, registry, registry_dump, serve, serve_registry, serve_transformations,
    teardown, version,
};
use crate::exit::Outcome;
use crate::session::Session;
use crate::terminal::{Color, Format};

/// Define features once, train on their past, serve their present.
#[derive(Debug, Parser)]
#[command(name = "feast", bin_name = "feast", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalOptions {
    /// Work in this feature repository instead of the current directory
    /// [env: FEATURE_REPO_DIR_ENV_VAR]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,
    /// Read this configuration instead of the repository's `feature_store.yaml`; definitions and relative paths stay
    /// those of the repository
    /// [env: FEAST_FS_YAML_FILE_PATH]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) feature_store_yaml: Option<PathBuf>,
    /// Least important messages to log
    #[arg(long, global = true, value_name = "LEVEL", value_enum, ignore_case = true)]
    pub(crate) log_level: Option<LogLevel>,
    /// How to print data; the default depends on the command
    #[arg(long, global = true, value_name = "FORMAT", value_enum, env = "FEAST_OUTPUT", hide_env_values = true)]
    pub(crate) output: Option<Format>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl LogLevel {
    /// The filter of the log. Nothing is more important than an error.
    pub(crate) fn filter(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Materialize(materialize::Materialize),
    MaterializeIncremental(materialize_incremental::MaterializeIncremental),
    GetOnlineFeatures(get_online_features::GetOnlineFeatures),
    GetHistoricalFeatures(get_historical_features::GetHistoricalFeatures),
    Serve(serve::Serve),
    #[command(name = "serve_transformations", alias = "serve-transformations")]
    ServeTransformations(serve_transformations::ServeTransformations),
    #[command(name = "serve_registry", alias = "serve-registry")]
    ServeRegistry(serve_registry::ServeRegistry),
    /// Say how an answer comes about
    #[command(subcommand)]
    Explain(explain::Explain),
    Freshness(freshness::FreshnessCommand),
    Teardown(teardown::Teardown),
    /// Show projects
    #[command(subcommand)]
    Projects(projects::Projects),
    /// Show and delete entities
    #[command(subcommand)]
    Entities(objects::Objects),
    /// Show and delete data sources
    #[command(subcommand)]
    DataSources(objects::Objects),
    /// Show and change feature views of all kinds but label views
    #[command(subcommand)]
    FeatureViews(feature_views::FeatureViews),
    /// Show and delete on-demand feature views
    #[command(subcommand)]
    OnDemandFeatureViews(objects::Objects),
    /// Show and delete stream feature views
    #[command(subcommand)]
    StreamFeatureViews(objects::Objects),
    /// Show and delete label views
    #[command(subcommand)]
    LabelViews(objects::Objects),
    /// Show and delete feature services
    #[command(subcommand)]
    FeatureServices(objects::Objects),
    /// Show features
    #[command(subcommand)]
    Features(features::Features),
    /// Show and delete saved datasets
    #[command(subcommand)]
    SavedDatasets(objects::Objects),
    /// Show and delete validation references
    #[command(subcommand)]
    ValidationReferences(objects::Objects),
    /// Show and delete permissions
    #[command(subcommand)]
    Permissions(permissions::Permissions),
    /// Look after the online store
    #[command(subcommand)]
    OnlineStore(online_store::OnlineStoreCommand),
    Delete(delete::Delete),
    /// Look at the history of the registry, go back in it, create its tables
    #[command(subcommand)]
    Registry(registry::Registry),
    RegistryDump(registry_dump::RegistryDump),
    Doctor(doctor::Doctor),
    Configuration(configuration::Configuration),
    Endpoint(endpoint::Endpoint),
    Version(version::Version),
    Completion(completion::Completion),

    #[command(hide = true)]
    Ui(later::Later),
    #[command(hide = true, name = "serve_offline", alias = "serve-offline")]
    ServeOffline(later::Later),
    #[command(hide = true, name = "serve_lineage", alias = "serve-lineage")]
    ServeLineage(later::Later),
    #[command(hide = true)]
    Listen(later::Later),
    #[command(hide = true)]
    Monitor(later::Later),
    #[command(hide = true)]
    Dbt(later::Later),
    #[command(hide = true)]
    Mlflow(later::Later),
    #[command(hide = true)]
    Mcp(later::Later),
    #[command(hide = true)]
    Validate(later::Later),
    #[command(hide = true)]
    DemoNotebooks(later::Later),
}

impl Command {
    /// Whether the command serves until it is stopped.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::ServeTransformations(_) | Self::ServeRegistry(_))
    }

    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Init(command) => command.run(session),
            Self::Plan(command) => command.run(session),
            Self::Apply(command) => command.run(session),
            Self::Materialize(command) => command.run(session),
            Self::MaterializeIncremental(command) => command.run(session),
            Self::GetOnlineFeatures(command) => command.run(session),
            Self::GetHistoricalFeatures(command) => command.run(session),
            Self::Serve(command) => command.run(session),
            Self::Explain(command) => command.run(session),
            Self::Freshness(command) => command.run(session),
            Self::Teardown(command) => command.run(session),
            Self::Projects(command) => command.run(session),
            Self::Entities(command) => command.run(session, ObjectKind::Entity),
            Self::DataSources(command) => command.run(session, ObjectKind::DataSource),
            Self::FeatureViews(command) => command.run(session),
            Self::OnDemandFeatureViews(command) => command.run(session, ObjectKind::OnDemandFeatureView),
            Self::StreamFeatureViews(command) => command.run(session, ObjectKind::StreamFeatureView),
            Self::LabelViews(command) => command.run(session, ObjectKind::LabelView),
            Self::FeatureServices(command) => command.run(session, ObjectKind::FeatureService),
            Self::Features(command) => command.run(session),
            Self::SavedDatasets(command) => command.run(session, ObjectKind::SavedDataset),
            Self::ValidationReferences(command) => command.run(session, ObjectKind::ValidationReference),
            Self::Permissions(command) => command.run(session),
            Self::OnlineStore(command) => command.run(session),
            Self::Delete(command) => command.run(session),
            Self::Registry(command) => command.run(session),
            Self::RegistryDump(command) => command.run(session),
            Self::Doctor(command) => command.run(session),
            Self::Configuration(command) => command.run(session),
            Self::Endpoint(command) => command.run(session),
            Self::Version(command) => command.run(session),
            Self::Completion(command) => command.run(session),
            Self::Ui(command) => command.run("ui"),
            Self::ServeRegistry(command) => command.run(session),
            Self::ServeOffline(command) => command.run("serve_offline"),
            Self::ServeTransformations(command) => command.run(session),
            Self::ServeLineage(command) => command.run("serve_lineage"),
            Self::Listen(command) => command.run("listen"),
            Self::Monitor(command) => command.run("monitor"),
            Self::Dbt(command) => command.run("dbt"),
            Self::Mlflow(command) => command.run("mlflow"),
            Self::Mcp(command) => command.run("mcp"),
            Self::Validate(command) => command.run("validate"),
            Self::DemoNotebooks(command) => command.run("demo-notebooks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}
