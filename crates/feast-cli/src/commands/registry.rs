//! `feast registry`: the registry itself, and its history.

use clap::{Args, Subcommand};
use feast_core::{
    CommitRecord, DUMMY_ENTITY, Error, FieldChange, ObjectKind, ObjectRevision, RegistryObject, changed_fields,
    net_revisions,
};
use serde_json::{Value, json};

use super::plan::online_store_type;
use crate::changes::{self, line};
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::{Format, Style, Terminal};
use crate::timestamp::show_timestamp;

/// What can be done with the registry.
#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Create the tables of a SQL registry, where users of it may not
    CreateSchema,
    Log(Log),
    Diff(Diff),
    Rollback(Rollback),
}

/// Show what was committed to this project, newest first
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Show this many commits
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
}

/// Show what changed from one commit to another
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// After this commit
    from: u64,
    /// Up to this one; default is the last
    to: Option<u64>,
}

/// Bring the definitions back to what they were after a commit
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The commit, as `feast registry log` numbers it
    to: u64,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Registry {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self {
            Self::CreateSchema => {
                let store = session.store()?;
                session.wait(async { store.registry().store().create_schema().await })?;
                session.terminal().done(format_args!("{} is ready", store.registry().store()));
                Ok(Exit::Done)
            }
            Self::Log(command) => command.run(session),
            Self::Diff(command) => command.run(session),
            Self::Rollback(command) => command.run(session),
        }
    }
}

impl Log {
    fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let mut commits = session.wait(async { store.history(0, self.limit).await })?;
        commits.reverse();
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => {
                let told: Vec<String> = commits.iter().map(|commit| told(commit, terminal)).collect();
                terminal.print(if told.is_empty() { "no commits".to_owned() } else { told.join("\n") }.trim_end());
            }
            Some(format) => {
                let commits: Vec<Value> = commits
                    .iter()
                    .map(|commit| {
                        json!({
                            "number": commit.number,
                            "author": commit.author,
                            "time": show_timestamp(commit.time),
                            "changes": revisions(&commit.revisions),
                        })
                    })
                    .collect();
                terminal.print_value(&commits.into(), format);
            }
        }
        Ok(Exit::Done)
    }
}

impl Diff {
    fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let mut commits = session.wait(async { store.history(self.from, usize::MAX).await })?;
        let to = self.to.unwrap_or(u64::MAX);
        if to < self.from {
            return Err(Error::invalid_request(format!("commit {to} comes before commit {}", self.from))
                .with_hint("name the older one first")
                .into());
        }
        commits.retain(|commit| commit.number <= to);
        let net = net_revisions(&commits);
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => {
                let mut text = String::new();
                net.iter().for_each(|revision| tell(&mut text, revision, "", terminal));
                terminal.print(if text.is_empty() { "no changes" } else { text.trim_end() });
            }
            Some(format) => terminal.print_value(&revisions(&net), format),
        }
        Ok(Exit::Done)
    }
}

impl Rollback {
    fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let terminal = session.terminal();
        // Scripts are not asked, as with `teardown`.
        let question = format!("bring project `{}` back to commit {}?", store.project(), self.to);
        if !self.yes && terminal.can_ask() && !terminal.confirm(&question) {
            return Err(Error::invalid_request("nothing was changed").into());
        }
        let plan = session.wait(store.rollback(self.to))?;
        match terminal.format() {
            None | Some(Format::Table) => terminal.print(changes::applied(&plan, online_store_type(&store), terminal)),
            Some(format) => terminal.print_value(&super::to_value(&plan)?, format),
        }
        Ok(Exit::Done)
    }
}

fn told(commit: &CommitRecord, terminal: &Terminal) -> String {
    let mut text = String::new();
    let author = if commit.author.is_empty() { "somebody" } else { &commit.author };
    let head = format!("commit {}", commit.number);
    line(&mut text, &format!("{}  {}  {author}", terminal.styled(Style::Strong, head), show_timestamp(commit.time)));
    commit.revisions.iter().for_each(|revision| tell(&mut text, revision, "  ", terminal));
    text
}

fn tell(text: &mut String, revision: &ObjectRevision, indent: &str, terminal: &Terminal) {
    if revision.object.name == DUMMY_ENTITY {
        return;
    }
    let object = format!("{} {}", revision.object.kind, revision.object.name);
    match (&revision.before, &revision.after) {
        (None, None) => {}
        (None, Some(_)) => {
            line(text, &format!("{indent}{}", terminal.styled(Style::Added, format_args!("+ {object}"))));
        }
        (Some(_), None) => {
            line(text, &format!("{indent}{}", terminal.styled(Style::Removed, format_args!("- {object}"))));
        }
        (Some(before), Some(after)) => {
            let fields = differences(before, after);
            if fields.is_empty() && before == after {
                return;
            }
            line(text, &format!("{indent}{}", terminal.styled(Style::Changed, format_args!("~ {object}"))));
            changes::fields(text, &fields, &format!("{indent}    "), terminal);
        }
    }
}

/// What differs in the definitions, and in what is recorded about materializations.
fn differences(before: &RegistryObject, after: &RegistryObject) -> Vec<FieldChange> {
    let mut fields = changed_fields(before, after);
    if let (RegistryObject::FeatureView(before), RegistryObject::FeatureView(after)) = (before, after) {
        let intervals = |view: &feast_core::FeatureView| -> Value {
            let intervals = view.meta.materialization_intervals.iter();
            intervals
                .map(|interval| format!("{} to {}", show_timestamp(interval.start), show_timestamp(interval.end)))
                .collect()
        };
        let mut compare = |field: &str, before: Value, after: Value| {
            if before != after {
                fields.push(FieldChange { field: field.to_owned(), before: Some(before), after: Some(after) });
            }
        };
        compare("materialized", intervals(before), intervals(after));
        compare("state", before.meta.state.name().into(), after.meta.state.name().into());
    }
    fields
}

fn revisions(revisions: &[ObjectRevision]) -> Value {
    let told = |revision: &ObjectRevision| {
        let (action, fields) = match (&revision.before, &revision.after) {
            (None, None) => return None,
            (None, Some(_)) => ("create", Vec::new()),
            (Some(_), None) => ("delete", Vec::new()),
            (Some(before), Some(after)) => ("update", differences(before, after)),
        };
        let kind: ObjectKind = revision.object.kind;
        Some(json!({
            "action": action,
            "kind": kind.identifier(),
            "name": revision.object.name,
            "fields": serde_json::to_value(fields).unwrap_or_default(),
        }))
    };
    revisions.iter().filter(|revision| revision.object.name != DUMMY_ENTITY).filter_map(told).collect()
}
