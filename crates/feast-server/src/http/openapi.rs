//! `GET /openapi.json` and `GET /docs`: the routes described for programs and for people, from one description.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::TIMEOUT_HEADER;
use super::get_online_features::ARROW_STREAM;
use super::not_yet;
use crate::error::json_response;

static DESCRIPTION: LazyLock<Value> = LazyLock::new(describe);
static PAGE: LazyLock<String> = LazyLock::new(|| page(&DESCRIPTION));

/// The description in OpenAPI 3.1.
pub(crate) async fn openapi() -> Response<Body> {
    json_response(StatusCode::OK, &DESCRIPTION)
}

/// The description as a page that loads nothing from elsewhere.
pub(crate) async fn docs() -> Response<Body> {
    let mut response = Response::new(Body::from(PAGE.as_str()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn describe() -> Value {
    let mut paths = json!({
        "/get-online-features": {"post": with_body(
            "Newest values of features",
            "Reads the newest values of features for one or more entities. The answer has one entry per column, in the \
             order of `metadata.feature_names`: the entity columns first, then the features view by view. With \
             `Accept: application/vnd.apache.arrow.stream` the columns come as Arrow; each names the columns with its \
             statuses and times in its metadata.",
            "GetOnlineFeaturesRequest",
            json!({"features": ["driver_stats:conv_rate"], "entities": {"driver_id": [1001, 1002]}}),
            ("200", "The values", Some("GetOnlineFeaturesResponse")),
        )},
        "/push": {"post": with_body(
            "Push fresh rows",
            "Writes rows to every feature view that the push source feeds: online, offline or both. All rows are \
             checked before the first is written.",
            "PushFeaturesRequest",
            json!({"push_source_name": "driver_push", "to": "online",
                   "df": {"driver_id": [1001], "event_timestamp": ["2026-11-23T12:00:00Z"], "conv_rate": [0.7]}}),
            ("200", "Written; no body", None),
        )},
        "/write-to-online-store": {"post": with_body(
            "Write rows of one view",
            "Writes rows of one feature view to the online store. The newest event time wins.",
            "WriteToFeatureStoreRequest",
            json!({"feature_view_name": "driver_stats",
                   "df": {"driver_id": [1001], "event_timestamp": ["2026-11-23T12:00:00Z"], "conv_rate": [0.7]}}),
            ("200", "Written; `null`", None),
        )},
        "/materialize": {"post": with_body(
            "Materialize a span of time",
            "Loads the newest row of each entity between two times from the offline into the online store.",
            "MaterializeRequest",
            json!({"start_ts": "2026-11-01", "end_ts": "2026-11-23T12:00:00Z", "feature_views": ["driver_stats"]}),
            ("200", "Done; `null`", None),
        )},
        "/materialize-incremental": {"post": with_body(
            "Materialize what is new",
            "Loads what is new since the last materialization, up to a time.",
            "MaterializeIncrementalRequest",
            json!({"end_ts": "2026-11-23T12:00:00Z"}),
            ("200", "Done; `null`", None),
        )},
        "/health": {"get": without_body("Whether the server lives", "200 while there is a registry snapshot, 503 otherwise. No body.", &["200", "503"])},
        "/ready": {"get": without_body("Whether the server is ready", "Says whether the registry and the online store can be reached, and how old the registry snapshot is.", &["200", "503"])},
        "/metrics": {"get": without_body("Metrics", "Counters and histograms in the text format of Prometheus.", &["200"])},
        "/openapi.json": {"get": without_body("This description", "OpenAPI 3.1.", &["200"])},
        "/docs": {"get": without_body("This description as a page", "HTML.", &["200"])},
    });
    for path in ["/materialize", "/materialize-incremental"] {
        let operation = &mut paths[path]["post"];
        // The time for a materialization is not limited.
        operation["parameters"] = json!([
            flag_parameter("async", "Answers 202 at once and works in the background."),
            flag_parameter("force", "Starts even where a materialization is under way."),
        ]);
        operation["responses"]["202"] = response("Accepted", Some("MaterializeAccepted"));
        operation["responses"]["409"] = response("A view is being materialized already", Some("MaterializeConflict"));
    }
    paths["/push"]["post"]["responses"]["202"] =
        response("Accepted: rows for the offline store wait for others, as configured; no body", None);
    paths["/get-online-features"]["post"]["responses"]["200"]["content"][ARROW_STREAM] =
        json!({"schema": {"type": "string", "format": "binary"}});
    for path in not_yet::PATHS.iter().filter(|path| **path != "/ws/chat") {
        let method = if path.ends_with("stores") || path.ends_with('}') { "get" } else { "post" };
        let mut operation = without_body("Not served yet", "Part of Feast's server; answers 501.", &["501"]);
        if path.contains("{vector_store_id}") {
            operation["parameters"] =
                json!([{"name": "vector_store_id", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        paths[path] = json!({ method: operation });
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "feast-rs feature server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Online features over HTTP, with the routes, bodies and errors of Feast's feature server.",
        },
        "paths": paths,
        "components": {"schemas": schemas()},
    })
}

fn schemas() -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let texts = |about: &str| json!({"type": "array", "items": {"type": "string"}, "description": about});
    let flag = |default: bool, about: &str| json!({"type": "boolean", "default": default, "description": about});
    let columns = |about: &str| json!({"type": "object", "additionalProperties": {"type": "array", "items": {}}, "description": about});
    let views = texts("Names of feature views; all that are served online when absent.");
    json!({
        "GetOnlineFeaturesRequest": {
            "type": "object",
            "required": ["entities"],
            "properties": {
                "entities": columns("One list of values per join key; the lists have the same length."),
                "features": texts("Feature references, `<feature_view>:<feature>`."),
                "feature_service": text("Name of a feature service; wins over `features`."),
                "full_feature_names": flag(false, "Names columns `<feature_view>__<feature>`."),
                "include_feature_view_version_metadata": flag(false, "Adds `metadata.feature_view_metadata`."),
            },
        },
        "GetOnlineFeaturesResponse": {
            "type": "object",
            "required": ["results", "metadata"],
            "properties": {
                "results": {"type": "array", "items": {"$ref": "#/components/schemas/FeatureVector"}},
                "metadata": {
                    "type": "object",
                    "required": ["feature_names"],
                    "properties": {
                        "feature_names": texts("Names of the columns, in the order of `results`."),
                        "feature_view_metadata": {"type": "array", "items": {"type": "object", "properties": {
                            "name": text("Name of a feature view."),
                            "version": {"type": "integer", "description": "Number of its definition; absent when 0."},
                        }}},
                    },
                },
            },
        },
        "FeatureVector": {
            "type": "object",
            "required": ["values", "statuses", "event_timestamps"],
            "properties": {
                "values": {"type": "array", "items": {}, "description": "One value per entity row."},
                "statuses": {"type": "array", "items": {"type": "string", "enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]}},
                "event_timestamps": {"type": "array", "items": {"type": "string", "format": "date-time"}},
            },
        },
        "PushFeaturesRequest": {
            "type": "object",
            "required": ["push_source_name", "df"],
            "properties": {
                "push_source_name": text("Name of the push source."),
                "df": columns("The rows, one list of values per column. Times as ISO 8601 texts, bytes as base64."),
                "to": {"type": "string", "enum": ["online", "offline", "online_and_offline"], "default": "online"},
                "allow_registry_cache": flag(true, "Accepted; the cached registry is used."),
                "transform_on_write": flag(true, "Accepted."),
            },
        },
        "WriteToFeatureStoreRequest": {
            "type": "object",
            "required": ["feature_view_name", "df"],
            "properties": {
                "feature_view_name": text("Name of the feature view."),
                "df": columns("The rows, one list of values per column. Times as ISO 8601 texts, bytes as base64."),
                "allow_registry_cache": flag(true, "Accepted; the cached registry is used."),
                "transform_on_write": flag(true, "Accepted."),
            },
        },
        "MaterializeRequest": {
            "type": "object",
            "properties": {
                "start_ts": text("First event time, ISO 8601; UTC without an offset."),
                "end_ts": text("Last event time."),
                "feature_views": views,
                "disable_event_timestamp": flag(false, "Takes every row, whatever its time; no times are needed then."),
                "full_feature_names": flag(false, "Accepted."),
                "version": text("Accepted when it is `latest`."),
            },
        },
        "MaterializeIncrementalRequest": {
            "type": "object",
            "required": ["end_ts"],
            "properties": {
                "end_ts": text("Last event time, ISO 8601; UTC without an offset."),
                "feature_views": views,
                "full_feature_names": flag(false, "Accepted."),
                "version": text("Accepted when it is `latest`."),
            },
        },
        "MaterializeAccepted": {
            "type": "object",
            "properties": {"status": text("`accepted`"), "feature_views": texts("The views that are loaded.")},
        },
        "MaterializeConflict": {
            "type": "object",
            "properties": {"error": text("What is wrong."), "feature_views": texts("The views that are busy.")},
        },
        "FeastError": {
            "type": "string",
            "description": "A text. For the exceptions of `feast.errors` it is itself JSON, with `module`, `class` and `message`.",
        },
        "HTTPValidationError": {
            "type": "object",
            "properties": {"detail": {"type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}},
        },
        "ValidationError": {
            "type": "object",
            "required": ["type", "loc", "msg"],
            "properties": {
                "type": text("What kind of problem it is."),
                "loc": {"type": "array", "items": {}, "description": "Where in the request it is."},
                "msg": text("What is wrong."),
                "input": {"description": "What was found, when it is short."},
            },
        },
    })
}

fn with_body(
    summary: &str,
    about: &str,
    schema: &str,
    example: Value,
    (status, outcome, answer): (&str, &str, Option<&str>),
) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({
        "summary": summary,
        "description": about,
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": {"$ref": reference}, "example": example}},
        },
        "responses": {
            status: response(outcome, answer),
            "400": response("The request cannot be answered as it is", Some("FeastError")),
            "404": response("A named object does not exist", Some("FeastError")),
            "413": response("The request or its answer is too large", None),
            "422": response("The body is not what the route takes", Some("HTTPValidationError")),
            "408": response("The body did not arrive in time", None),
            "503": response("Too many requests, or a store cannot be reached; see `Retry-After`", Some("FeastError")),
            "504": response("There was no answer in the time that the request had", None),
        },
        "parameters": [{
            "name": TIMEOUT_HEADER.as_str(), "in": "header", "schema": {"type": "integer", "minimum": 1},
            "description": "Milliseconds after which the client stops waiting; at most the server's own limit.",
        }],
    })
}

fn without_body(summary: &str, about: &str, statuses: &[&str]) -> Value {
    let outcome = |status: &str| match status {
        "200" => "Yes, or the text asked for",
        "503" => "No",
        _ => "Not served yet",
    };
    let responses: Map<String, Value> =
        statuses.iter().map(|status| ((*status).to_owned(), response(outcome(status), None))).collect();
    json!({"summary": summary, "description": about, "responses": responses})
}

fn response(about: &str, schema: Option<&str>) -> Value {
    let mut response = json!({"description": about});
    if let Some(schema) = schema {
        let reference = format!("#/components/schemas/{schema}");
        response["content"] = json!({"application/json": {"schema": {"$ref": reference}}});
    }
    response
}

fn flag_parameter(name: &str, about: &str) -> Value {
    json!({"name": name, "in": "query", "description": about, "schema": {"type": "boolean", "default": false}})
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h2{margin-top:2.5rem}code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f6;border-radius:4px}\
code{padding:.1em .3em}pre{padding:.8rem;overflow-x:auto}b.method{font:600 13px ui-monospace,monospace;color:#fff;\
background:#356;border-radius:4px;padding:.2em .5em;margin-right:.5em}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #ddd}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}code,pre{background:#24272d}td,th{border-color:#333}\
a{color:#8bf}}";

/// The description as HTML.
fn page(description: &Value) -> String {
    let mut html = String::new();
    let title = text_of(&description["info"]["title"]);
    // Writing to a text does not fail.
    let _written = write!(
        html,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>\
         <p>{} Version {}. <a href=\"openapi.json\">openapi.json</a></p>",
        text_of(&description["info"]["description"]),
        text_of(&description["info"]["version"]),
    );
    for (path, methods) in description["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            put_operation(&mut html, description, path, method, operation);
        }
    }
    html.push_str("</body></html>");
    html
}

fn put_operation(html: &mut String, description: &Value, path: &str, method: &str, operation: &Value) {
    let _written = write!(
        html,
        "<h2><b class=\"method\">{}</b>{}</h2><p><b>{}.</b> {}</p>",
        method.to_uppercase(),
        escape(path),
        text_of(&operation["summary"]),
        text_of(&operation["description"]),
    );
    let body = &operation["requestBody"]["content"]["application/json"];
    if let Some(schema) = body["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        let schema = &description["components"]["schemas"][schema];
        put_fields(html, schema);
        let example = serde_json::to_string(&body["example"]).unwrap_or_default();
        let _written = write!(
            html,
            "<pre>curl -s localhost:6566{} -H 'Content-Type: application/json' \\\n  -d '{}'</pre>",
            escape(path),
            escape(&example),
        );
    }
    html.push_str("<table><tr><th>Status</th><th>Meaning</th></tr>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _written =
            write!(html, "<tr><td><code>{status}</code></td><td>{}</td></tr>", text_of(&response["description"]));
    }
    html.push_str("</table>");
}

fn put_fields(html: &mut String, schema: &Value) {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    html.push_str("<table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let must = if required.contains(&Value::from(name.as_str())) { ", required" } else { "" };
        let default = field.get("default").map(|default| format!(" Default: {default}.")).unwrap_or_default();
        let _written = write!(
            html,
            "<tr><td><code>{}</code></td><td>{}{must}</td><td>{}{}</td></tr>",
            escape(name),
            text_of(&field["type"]),
            text_of(&field["description"]),
            escape(&default),
        );
    }
    html.push_str("</table>");
}

fn text_of(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let text = DESCRIPTION.to_string();
        for reference in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(DESCRIPTION["components"]["schemas"].get(reference).is_some(), "{reference}");
        }
        assert!(PAGE.contains("/get-online-features") && !PAGE.contains("<script"));
    }
}
