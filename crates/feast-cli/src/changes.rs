//! How differences between definitions and registry are told: before (`plan`) and after (`apply`).

use std::fmt::Write as _;

use feast::{ApplyPlan, HeldBack, TableAction, TablePlan};
use feast_core::{Action, ChangeClass, DUMMY_ENTITY, FieldChange, ObjectChange};
use serde_json::Value;

use crate::terminal::{Style, Terminal};

/// What Feast says when there is nothing to do; scripts look for it.
const NO_CHANGES: &str = "No changes to registry";
const NO_TABLE_CHANGES: &str = "No changes to infrastructure";

/// Tells what an apply would do.
pub(crate) fn planned(plan: &ApplyPlan, store: &str, terminal: &Terminal) -> String {
    let mut text = String::new();
    for change in shown(plan) {
        let (sign, style) = match change.action {
            Action::Create => ("+", Style::Added),
            Action::Update => ("~", Style::Changed),
            Action::Delete => ("-", Style::Removed),
        };
        line(&mut text, &terminal.styled(style, format_args!("{sign} {} {}", change.object.kind, change.object.name)));
        fields(&mut text, &change.fields, "    ", terminal);
        meaning(&mut text, change, terminal);
    }
    if text.is_empty() {
        line(&mut text, NO_CHANGES);
    }
    for table in &plan.tables {
        let (sign, style) = match table.action {
            TableAction::Create => ("+", Style::Added),
            TableAction::Update => ("~", Style::Changed),
            TableAction::Drop => ("-", Style::Removed),
        };
        line(&mut text, &terminal.styled(style, format_args!("{sign} {store} table {}", table.table)));
    }
    if plan.is_empty() {
        line(&mut text, NO_TABLE_CHANGES);
    } else {
        let count = |action| shown(plan).filter(|change| change.action == action).count();
        let (created, updated, deleted) = (count(Action::Create), count(Action::Update), count(Action::Delete));
        let _written = write!(text, "\nPlan: {created} to create, {updated} to update, {deleted} to delete");
        line(&mut text, &tables_in_words(&plan.tables));
    }
    undefined(&mut text, plan);
    text.trim_end().to_owned()
}

/// Tells what an apply has done, in Feast's words.
pub(crate) fn applied(plan: &ApplyPlan, store: &str, terminal: &Terminal) -> String {
    let mut text = String::new();
    for change in shown(plan) {
        let (verb, style) = match change.action {
            Action::Create => ("Created", Style::Added),
            Action::Update => ("Updated", Style::Changed),
            Action::Delete => ("Deleted", Style::Removed),
        };
        let name = terminal.styled(Style::Strong, &change.object.name);
        line(&mut text, &format!("{} {} {name}", terminal.styled(style, verb), change.object.kind));
        fields(&mut text, &change.fields, "\t", terminal);
    }
    for HeldBack { name, version, current, .. } in &plan.held_back {
        let name = terminal.styled(Style::Strong, name);
        line(
            &mut text,
            &format!("Recorded version v{version} of feature view {name}; v{current} stays the current one"),
        );
    }
    let first = if text.is_empty() { NO_CHANGES } else { "" };
    line(&mut text, first);
    for table in &plan.tables {
        let (verb, style) = match table.action {
            TableAction::Create => ("Created", Style::Added),
            TableAction::Update => ("Updated", Style::Changed),
            TableAction::Drop => ("Deleted", Style::Removed),
        };
        let name = terminal.styled(Style::Strong, &table.table);
        line(&mut text, &format!("{} {store} table {name}", terminal.styled(style, verb)));
    }
    if plan.tables.is_empty() {
        line(&mut text, NO_TABLE_CHANGES);
    }
    undefined(&mut text, plan);
    text.trim_end().to_owned()
}

/// All changes but those of the entity that stands for "no entity".
fn shown(plan: &ApplyPlan) -> impl Iterator<Item = &ObjectChange> {
    plan.diff.changes.iter().filter(|change| change.object.name != DUMMY_ENTITY)
}

/// Says who is concerned, where somebody is.
fn meaning(text: &mut String, change: &ObjectChange, terminal: &Terminal) {
    let users = change.affects.iter().map(|user| format!("{} {}", user.kind, user.name)).collect::<Vec<_>>().join(", ");
    match (change.class, users.is_empty()) {
        (ChangeClass::Breaking, true) => {
            line(text, &format!("    {}", terminal.styled(Style::Removed, "breaking")));
        }
        (ChangeClass::Breaking, false) => {
            let breaking = terminal.styled(Style::Removed, "breaking");
            line(text, &format!("    {breaking}, used by {users}"));
        }
        (_, false) => line(text, &format!("    used by {users}")),
        (_, true) => {}
    }
}

fn tables_in_words(tables: &[TablePlan]) -> String {
    let mut words = String::new();
    for (action, word) in
        [(TableAction::Create, "create"), (TableAction::Update, "update"), (TableAction::Drop, "drop")]
    {
        let count = tables.iter().filter(|table| table.action == action).count();
        if count > 0 {
            let noun = if count == 1 { "table" } else { "tables" };
            let _written = write!(words, "; {count} {noun} to {word}");
        }
    }
    words
}

/// Of what only the registry has, so many are named: where a repository defines a small part of a large project, nobody
/// reads the rest.
const MOST_UNDEFINED: usize = 20;

/// Names what only the registry has: it may be another team's, or left over.
fn undefined(text: &mut String, plan: &ApplyPlan) {
    if plan.diff.undefined.is_empty() {
        return;
    }
    line(text, "");
    for object in plan.diff.undefined.iter().take(MOST_UNDEFINED) {
        line(text, &format!("Not defined here, stays in the registry: {} {}", object.kind, object.name));
    }
    let more = plan.diff.undefined.len().saturating_sub(MOST_UNDEFINED);
    if more > 0 {
        line(text, &format!("and {more} more, which `feast plan --output json` names."));
    }
    line(text, "Use `feast apply --prune` to delete what is not defined.");
}

pub(crate) fn fields(text: &mut String, changes: &[FieldChange], indent: &str, terminal: &Terminal) {
    for change in changes {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        if is_multiline(before) || is_multiline(after) {
            line(text, &format!("{indent}{}:", change.field));
            lines_of(text, before, after, indent, terminal);
        } else {
            line(text, &format!("{indent}{}: {} -> {}", change.field, show(before), show(after)));
        }
    }
}

pub(crate) fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn is_multiline(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| text.trim_end().contains('\n'))
}

/// Shows texts of several lines, such as functions, by the lines in which they differ.
fn lines_of(text: &mut String, before: Option<&Value>, after: Option<&Value>, indent: &str, terminal: &Terminal) {
    let split = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_str).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    let (before, after) = (split(before), split(after));
    let most = before.len().min(after.len());
    let same_start = (0..most).take_while(|at| before[*at] == after[*at]).count();
    let same_end =
        (0..most - same_start).take_while(|at| before[before.len() - 1 - at] == after[after.len() - 1 - at]).count();
    for removed in &before[same_start..before.len() - same_end] {
        line(text, &terminal.styled(Style::Removed, format_args!("{indent}  - {removed}")));
    }
    for added in &after[same_start..after.len() - same_end] {
        line(text, &terminal.styled(Style::Added, format_args!("{indent}  + {added}")));
    }
}

/// A value on one line, without the members that say nothing.
fn show(value: Option<&Value>) -> String {
    match value {
        None => "(none)".to_owned(),
        Some(Value::Null) => "(none)".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "(empty)".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            format!("[{}]", items.iter().map(|item| show(Some(item))).collect::<Vec<_>>().join(", "))
        }
        Some(Value::Object(map)) => {
            let says = |value: &Value| match value {
                Value::Null => false,
                Value::Bool(flag) => *flag,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(map) => !map.is_empty(),
            };
            let members = map.iter().filter(|(_, value)| says(value));
            let shown: Vec<String> = members.map(|(name, value)| format!("{name}: {}", show(Some(value)))).collect();
            format!("{{{}}}", shown.join(", "))
        }
        Some(other) => other.to_string(),
    }
}
