//! Tables: made as Feast makes them, labelled, and dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use feast_core::{Error, ErrorCode, OnlineTable, Result, StoredTable};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::DynamoStore;
use super::client::Client;

/// How long a table may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pauses between two looks at a table.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LATER_LOOKS: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "Table")]
    table: Description,
}

#[derive(Deserialize)]
struct Description {
    #[serde(rename = "TableStatus")]
    status: String,
    #[serde(rename = "TableArn", default)]
    arn: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "TableNames", default)]
    names: Vec<String>,
    #[serde(rename = "LastEvaluatedTableName")]
    last: Option<String>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "Tags", default)]
    tags: Vec<Label>,
    #[serde(rename = "NextToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Label {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: String,
}

impl DynamoStore {
    /// Drops the table of a view, if it is there. The rows are gone at once, the name some seconds later.
    pub(super) async fn drop_table(&self, client: &Client, table: &OnlineTable) -> Result<()> {
        let name = self.config.table_name(table);
        let start = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            let deleted = client.call(self, "DeleteTable", json!({ "TableName": name }).to_string()).await?;
            match deleted {
                Ok(_) => return Ok(()),
                Err(refusal) if refusal.is_missing_table() => return Ok(()),
                // It is still being made, or goes already.
                Err(refusal) if refusal.kind == "ResourceInUseException" && start.elapsed() < PATIENCE => {
                    match self.describe(client, &name).await? {
                        Some(description) if description.status != "DELETING" => pauses.next().await,
                        _ => return Ok(()),
                    }
                }
                Err(refusal) => return Err(refusal.into_error(self).with_context("table", name)),
            }
        }
    }

    /// Makes the table of a view unless it is there; whether it was.
    pub(super) async fn make_table(&self, client: &Client, table: &OnlineTable) -> Result<bool> {
        let name = self.config.table_name(table);
        check_name(&name, table)?;
        // Describing first, so that whoever may not make tables can use those that somebody else made.
        match self.describe(client, &name).await? {
            Some(description) if description.status != "DELETING" => return Ok(true),
            Some(_) => self.wait(client, &name, |found| found.is_none()).await?,
            None => {}
        }
        let mut request = json!({
            "TableName": name,
            "KeySchema": [{"AttributeName": "entity_id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "entity_id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        });
        let labels = self.labels(table);
        // Without labels nobody needs the right to label.
        if !labels.is_empty() {
            request["Tags"] = labels.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        }
        match client.call(self, "CreateTable", request.to_string()).await? {
            Ok(_) => Ok(false),
            Err(refusal) if refusal.kind == "ResourceInUseException" => Ok(true),
            Err(refusal) => Err(refusal.into_error(self).with_context("table", name)),
        }
    }

    /// Waits until a table can be used.
    pub(super) async fn wait_for_table(&self, client: &Client, table: &OnlineTable) -> Result<()> {
        let usable = |found: Option<&Description>| {
            found.is_some_and(|found| matches!(found.status.as_str(), "ACTIVE" | "UPDATING"))
        };
        self.wait(client, &self.config.table_name(table), usable).await
    }

    /// Gives a table the labels of its view, as Feast does: others go, but for those of AWS itself.
    pub(super) async fn label_table(&self, client: &Client, table: &OnlineTable) -> Result<()> {
        let name = self.config.table_name(table);
        let Some(description) = self.describe(client, &name).await? else { return Ok(()) };
        let arn = description.arn;
        let wanted = self.labels(table);
        let mut found = BTreeMap::new();
        let mut next: Option<String> = None;
        loop {
            let mut request = json!({ "ResourceArn": arn });
            if let Some(next) = next.take() {
                request["NextToken"] = Value::from(next);
            }
            let Some(answer) = self.labelling(client, "ListTagsOfResource", &name, &request).await? else {
                return Ok(());
            };
            let labels: Labels = self.understand("ListTagsOfResource", &answer)?;
            found.extend(labels.tags.into_iter().map(|label| (label.key, label.value)));
            next = labels.next;
            if next.is_none() {
                break;
            }
        }
        let gone: Vec<&String> =
            found.keys().filter(|key| !wanted.contains_key(*key) && !key.starts_with("aws:")).collect();
        if !gone.is_empty() {
            let request = json!({"ResourceArn": arn, "TagKeys": gone});
            self.labelling(client, "UntagResource", &name, &request).await?;
        }
        let new: Vec<Value> = wanted
            .iter()
            .filter(|(key, value)| found.get(*key) != Some(value))
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        if !new.is_empty() {
            let request = json!({"ResourceArn": arn, "Tags": new});
            self.labelling(client, "TagResource", &name, &request).await?;
        }
        Ok(())
    }

    /// An operation on labels; nothing where they may not be touched, which is said in the log.
    async fn labelling(
        &self,
        client: &Client,
        operation: &'static str,
        table: &str,
        request: &Value,
    ) -> Result<Option<bytes::Bytes>> {
        match client.call(self, operation, request.to_string()).await? {
            Ok(answer) => Ok(Some(answer)),
            Err(refusal) if refusal.is_denied() => {
                tracing::warn!(
                    "table `{table}` keeps its tags: the AWS credentials do not allow `dynamodb:{operation}`"
                );
                Ok(None)
            }
            Err(refusal) => Err(refusal.into_error(self).with_context("table", table)),
        }
    }

    /// The labels of the configuration and of the view, which come first.
    fn labels(&self, table: &OnlineTable) -> BTreeMap<String, String> {
        let mut labels = self.config.tags.clone();
        for (key, value) in &table.tags {
            // An empty value of a view does not replace one of the configuration, as in Feast.
            if !value.is_empty() || !labels.contains_key(key) {
                labels.insert(key.clone(), value.clone());
            }
        }
        labels
    }

    /// The tables of a project, as far as the credentials allow to list them.
    pub(super) async fn list_tables(&self, client: &Client, project: &str) -> Result<Option<Vec<StoredTable>>> {
        let mut tables = Vec::new();
        let mut request = json!({});
        loop {
            let listed: Listed = match client.call(self, "ListTables", request.to_string()).await? {
                Ok(answer) => self.understand("ListTables", &answer)?,
                Err(refusal) if refusal.is_denied() => return Ok(None),
                Err(refusal) => return Err(refusal.into_error(self)),
            };
            let views = listed.names.iter().filter_map(|name| self.config.view_of(project, name));
            tables.extend(
                views.map(|view| StoredTable { name: format!("{project}_{view}"), missing_columns: Vec::new() }),
            );
            match listed.last {
                Some(last) => request = json!({ "ExclusiveStartTableName": last }),
                None => return Ok(Some(tables)),
            }
        }
    }

    /// Whether a table is there; unknown counts as there.
    pub(super) async fn has_table(&self, client: &Client, name: &str) -> Result<bool> {
        match client.call(self, "DescribeTable", json!({ "TableName": name }).to_string()).await? {
            Ok(_) => Ok(true),
            Err(refusal) => Ok(!refusal.is_missing_table()),
        }
    }

    async fn describe(&self, client: &Client, name: &str) -> Result<Option<Description>> {
        match client.call(self, "DescribeTable", json!({ "TableName": name }).to_string()).await? {
            Ok(answer) => self.understand::<Described>("DescribeTable", &answer).map(|described| Some(described.table)),
            Err(refusal) if refusal.is_missing_table() => Ok(None),
            Err(refusal) => Err(refusal.into_error(self).with_context("table", name)),
        }
    }

    async fn wait(&self, client: &Client, name: &str, done: impl Fn(Option<&Description>) -> bool) -> Result<()> {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            let found = self.describe(client, name).await?;
            if done(found.as_ref()) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let status = found.map_or("is not there".to_owned(), |found| format!("is {}", found.status));
                let message = format!("table `{name}` {status} after {} s", PATIENCE.as_secs());
                return Err(Error::new(ErrorCode::Timeout, message)
                    .with_context("online store", self)
                    .with_hint("see its state in AWS, and apply again"));
            }
            pauses.next().await;
        }
    }
}

#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn next(&mut self) -> impl Future<Output = ()> + use<> {
        let pause = (FIRST_LOOK * 2u32.pow(self.0.min(10))).min(LATER_LOOKS);
        self.0 += 1;
        sleep(pause)
    }
}

/// DynamoDB's rule for names.
fn check_name(name: &str, table: &OnlineTable) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (3..=255).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid_definition(format!("DynamoDB has no tables with names such as `{name}`"))
        .with_context("feature view", &table.view)
        .with_context("project", &table.project)
        .with_hint(
            "name the view and the project with 3 to 255 letters without accents, digits, `_`, `-` and `.`, or change \
             `online_store.table_name_template`",
        ))
}
