//! Bodies of requests: read within limits, then taken apart field by field, with FastAPI's words for what is wrong.
//!
//! Fields are found without building a tree: a member of the body is a slice of it until somebody asks for its type.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use feast_online::EntityValue;
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Answer, Rejection};
use crate::options::ServeOptions;
use crate::state::Server;

/// Header with the number of milliseconds after which the client stops waiting.
pub(super) static TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// Nobody waits longer than a day.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Longer values are not echoed in problems.
const MOST_ECHOED_BYTES: usize = 1024;

/// More problems are not told one by one.
const MOST_PROBLEMS: usize = 20;

/// Values are named columns, in order.
pub(crate) type Columns = Vec<(String, Vec<EntityValue>)>;

/// A request whose body has arrived: within the limits of size, of memory for all bodies together, and of time.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    /// When the client stops waiting.
    pub(crate) deadline: Instant,
    body: Bytes,
    /// Memory for bodies that is given back with this.
    _memory: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<Server>> for Received {
    type Rejection = Rejection;

    async fn from_request(request: Request, server: &Arc<Server>) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        Self::read(parts.headers, body, server).await
    }
}

impl Received {
    /// Reads the body that belongs to these headers.
    pub(super) async fn read<B>(headers: HeaderMap, body: B, server: &Server) -> Answer<Self>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let deadline = deadline(&headers, server.options.request_timeout)?;
        let reading = read(body, server);
        let (body, memory) = tokio::time::timeout_at(deadline.into(), reading).await.map_err(|_| {
            Rejection::Refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned())
        })??;
        Ok(Self { headers, deadline, body, _memory: memory })
    }

    /// The body, when it is JSON in UTF-8 and not empty.
    pub(crate) fn json_text(&self) -> Answer<&str> {
        if !is_json(&self.headers) {
            let message = "Input should be JSON, sent with the header `Content-Type: application/json`";
            let problem = problem("model_attributes_type", &["body".into()], message, Value::Null);
            return Err(Rejection::Invalid(vec![problem]));
        }
        let text = std::str::from_utf8(&self.body).map_err(|_| {
            Rejection::Refused(StatusCode::BAD_REQUEST, "There was an error parsing the body".to_owned())
        })?;
        if text.trim_ascii_start().is_empty() {
            return Err(Rejection::Invalid(vec![problem("missing", &["body".into()], "Field required", Value::Null)]));
        }
        Ok(text)
    }

    /// Hands the members of the body to `take`, which asks for them in the order in which problems are to be told.
    /// Members that nobody asks for are ignored.
    pub(crate) fn json<T>(&self, options: &ServeOptions, take: impl Fn(&mut Members<'_>) -> T) -> Answer<T> {
        let text = self.json_text()?;
        match decode(text, options, &take) {
            // Python writes numbers that JSON does not have as bare words.
            Err(Rejection::Invalid(_)) if text.contains("NaN") || text.contains("Infinity") => {
                decode(&quote_bare_words(text), options, &take)
            }
            decoded => decoded,
        }
    }
}

/// The time that the server gives to a request, or less if the client asks for less.
fn deadline(headers: &HeaderMap, longest: Duration) -> Answer<Instant> {
    let (now, longest) = (Instant::now(), longest.min(LONGEST_TIMEOUT));
    let Some(value) = headers.get(&TIMEOUT_HEADER) else { return Ok(now + longest) };
    let wanted = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|wanted| *wanted > 0);
    let wanted = wanted.ok_or_else(|| {
        let sentence = format!("the header `{TIMEOUT_HEADER}` is not a positive whole number of milliseconds");
        Rejection::Refused(StatusCode::BAD_REQUEST, sentence)
    })?;
    Ok(now + longest.min(Duration::from_millis(wanted)))
}

/// Reads a body. What is kept of all bodies together is bounded, so that many large or slow ones cannot fill the memory.
async fn read<B>(mut body: B, server: &Server) -> Answer<(Bytes, Option<OwnedSemaphorePermit>)>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let limit = server.options.request_limit_bytes;
    // A body that came in one piece is not copied.
    let mut whole = Bytes::new();
    let mut pieces: Vec<u8> = Vec::new();
    let mut memory: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let cut = |_| Rejection::Refused(StatusCode::BAD_REQUEST, "the body ended before it was complete".to_owned());
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        let before = whole.len() + pieces.len();
        let after = before + data.len();
        if after > limit {
            let sentence = format!("the body is larger than {limit} bytes; send fewer rows per request");
            return Err(Rejection::Refused(StatusCode::PAYLOAD_TOO_LARGE, sentence));
        }
        let kib = u32::try_from(after / 1024 - before / 1024).unwrap_or(u32::MAX);
        if kib > 0 {
            let more = Arc::clone(&server.body_memory).try_acquire_many_owned(kib).map_err(|_| Rejection::Busy)?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
        }
        if before == 0 {
            whole = data;
        } else {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
            pieces.extend_from_slice(&data);
        }
    }
    Ok((if pieces.is_empty() { whole } else { pieces.into() }, memory))
}

fn decode<T>(text: &str, options: &ServeOptions, take: &impl Fn(&mut Members<'_>) -> T) -> Answer<T> {
    let mut members = Members::parse(text, options)?;
    let taken = take(&mut members);
    members.finish()?;
    Ok(taken)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// A problem with a part of the request, as FastAPI tells it.
pub(crate) fn problem(kind: &str, location: &[Value], message: &str, input: Value) -> Value {
    json!({"type": kind, "loc": location, "msg": message, "input": input})
}

/// The members of a JSON object, each a slice of the body.
pub(crate) struct Members<'a> {
    body: &'a RawValue,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    problems: Vec<Value>,
    values_left: Cell<usize>,
    values_limit: usize,
    too_many: Option<Rejection>,
}

impl<'a> Members<'a> {
    fn parse(text: &'a str, options: &ServeOptions) -> Answer<Self> {
        let body: &RawValue = serde_json::from_str(text).map_err(|error| invalid_json(text, &error))?;
        if !body.get().starts_with('{') {
            let message = "Input should be a valid dictionary or object to extract fields from";
            let input = echo(body);
            return Err(Rejection::Invalid(vec![problem("model_attributes_type", &["body".into()], message, input)]));
        }
        let members = members_of(body).map_err(|error| invalid_json(text, &error))?;
        let mut problems = Vec::new();
        repeated(&members, &["body".into()], &mut problems);
        Ok(Self {
            body,
            members,
            problems,
            values_left: Cell::new(options.request_limit_values),
            values_limit: options.request_limit_values,
            too_many: None,
        })
    }

    fn finish(self) -> Answer<()> {
        match self.too_many {
            Some(rejection) => Err(rejection),
            None if self.problems.is_empty() => Ok(()),
            None => Err(Rejection::Invalid(self.problems)),
        }
    }

    fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn wrong(&mut self, kind: &str, path: &[Value], message: &str, value: &RawValue) {
        self.tell(problem(kind, &located(path), message, echo(value)));
    }

    fn tell(&mut self, problem: Value) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn missing(&mut self, name: &str) {
        let input = echo(self.body);
        self.tell(problem("missing", &located(&[name.into()]), "Field required", input));
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, name: &str) -> String {
        match self.find(name) {
            None => {
                self.missing(name);
                String::new()
            }
            Some(value) => self.as_text(&[name.into()], value).unwrap_or_default(),
        }
    }

    /// A text that may be absent or null.
    pub(crate) fn optional_text(&mut self, name: &str) -> Option<String> {
        let value = self.find(name).filter(|value| value.get() != "null")?;
        self.as_text(&[name.into()], value)
    }

    /// A text with a default, never null.
    pub(crate) fn text_or(&mut self, name: &str, default: &str) -> String {
        match self.find(name) {
            None => default.to_owned(),
            Some(value) => self.as_text(&[name.into()], value).unwrap_or_default(),
        }
    }

    /// `true` or `false`, in any of the spellings that Feast's server takes.
    pub(crate) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.find(name) else { return default };
        let parsed = match serde_json::from_str::<Value>(value.get()) {
            Ok(Value::Bool(flag)) => Some(flag),
            Ok(Value::Number(number)) => match number.as_f64() {
                Some(0.0) => Some(false),
                Some(1.0) => Some(true),
                _ => None,
            },
            Ok(Value::String(text)) => parse_flag(&text),
            _ => None,
        };
        parsed.unwrap_or_else(|| {
            let message = "Input should be a valid boolean, unable to interpret input";
            self.wrong("bool_parsing", &[name.into()], message, value);
            default
        })
    }

    /// A list of texts; `None` when absent, or null where that is allowed.
    pub(crate) fn texts(&mut self, name: &str, null_allowed: bool) -> Option<Vec<String>> {
        let value = self.find(name)?;
        if null_allowed && value.get() == "null" {
            return None;
        }
        let Some(items) = items_of(value) else {
            self.wrong("list_type", &[name.into()], "Input should be a valid list", value);
            return None;
        };
        let texts = items.into_iter().enumerate();
        Some(texts.filter_map(|(at, item)| self.as_text(&[name.into(), at.into()], item)).collect())
    }

    /// An object of lists, one per column, that must be there.
    pub(crate) fn columns(&mut self, name: &str) -> Columns {
        let Some(object) = self.find(name) else {
            self.missing(name);
            return Columns::new();
        };
        let members = match object.get().starts_with('{').then(|| members_of(object)) {
            Some(Ok(members)) => members,
            Some(Err(error)) => {
                self.tell(json_problem(&located(&[name.into()]), &error));
                return Columns::new();
            }
            None => {
                self.wrong("dict_type", &[name.into()], "Input should be a valid dictionary", object);
                return Columns::new();
            }
        };
        repeated(&members, &located(&[name.into()]), &mut self.problems);
        let mut columns = Columns::with_capacity(members.len());
        for (column, list) in members {
            if !list.get().starts_with('[') {
                let path = [name.into(), column.as_ref().into()];
                self.wrong("list_type", &path, "Input should be a valid list", list);
                continue;
            }
            let seed = Budgeted { left: &self.values_left };
            let mut deserializer = serde_json::Deserializer::from_str(list.get());
            match seed.deserialize(&mut deserializer) {
                Ok(values) => columns.push((column.into_owned(), values)),
                Err(_) if self.values_left.get() == 0 => {
                    let sentence =
                        format!("the request has more than {} values; send fewer rows at a time", self.values_limit);
                    self.too_many = Some(Rejection::Refused(StatusCode::PAYLOAD_TOO_LARGE, sentence));
                    return Columns::new();
                }
                Err(error) => {
                    let path = located(&[name.into(), column.as_ref().into()]);
                    self.tell(json_problem(&path, &error));
                }
            }
        }
        columns
    }

    fn as_text(&mut self, path: &[Value], value: &RawValue) -> Option<String> {
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) => Some(text),
            Err(_) => {
                self.wrong("string_type", path, "Input should be a valid string", value);
                None
            }
        }
    }
}

/// The spellings of true and false that Feast's server takes.
pub(crate) fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
        _ => None,
    }
}

fn located(path: &[Value]) -> Vec<Value> {
    std::iter::once(Value::from("body")).chain(path.iter().cloned()).collect()
}

/// The value itself when it is short.
fn echo(value: &RawValue) -> Value {
    match value.get().len() {
        0..=MOST_ECHOED_BYTES => serde_json::from_str(value.get()).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn repeated(members: &[(Cow<'_, str>, &RawValue)], location: &[Value], problems: &mut Vec<Value>) {
    let mut seen = std::collections::HashSet::with_capacity(members.len());
    for (name, _) in members {
        if !seen.insert(name.as_ref()) && problems.len() < MOST_PROBLEMS {
            let location: Vec<Value> = location.iter().cloned().chain([Value::from(name.as_ref())]).collect();
            problems.push(problem("duplicate_key", &location, "Key is given twice", Value::Null));
        }
    }
}

fn invalid_json(text: &str, error: &serde_json::Error) -> Rejection {
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = if error.is_eof() { text.len() } else { line_start + error.column().saturating_sub(1) };
    Rejection::Invalid(vec![json_problem(&located(&[offset.into()]), error)])
}

fn json_problem(location: &[Value], error: &serde_json::Error) -> Value {
    let mut problem = problem("json_invalid", location, "JSON decode error", json!({}));
    problem["ctx"] = json!({"error": error.to_string()});
    problem
}

/// A text that borrows from the body unless it holds escapes.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The members of an object. Names borrow from the text unless they hold escapes.
fn members_of(object: &RawValue) -> serde_json::Result<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key_seed(Text)? {
                members.push((name, map.next_value()?));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Pairs)
}

fn items_of(list: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list.get()).ok()
}

/// Decodes a list of values; each takes one from what is left for the whole request, so that a small body of many
/// small values cannot take much memory.
struct Budgeted<'b> {
    left: &'b Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Budgeted<'_> {
    type Value = Vec<EntityValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Budgeted<'_> {
    type Value = Vec<EntityValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(item) = items.next_element::<&RawValue>()? {
            let Some(left) = self.left.get().checked_sub(most_values(item.get())) else {
                self.left.set(0);
                return Err(A::Error::custom("too many values"));
            };
            self.left.set(left);
            values.push(serde_json::from_str(item.get()).map_err(A::Error::custom)?);
        }
        Ok(values)
    }
}

/// How many values there are at most in the text of one.
fn most_values(text: &str) -> usize {
    match text.as_bytes().first() {
        Some(b'[' | b'{') => 2 + text.bytes().filter(|byte| *byte == b',').count(),
        _ => 1,
    }
}

/// Puts `NaN`, `Infinity` and `-Infinity` outside of texts into quotes, which is how answers spell them.
fn quote_bare_words(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_text = false;
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !in_text && rest.starts_with(word));
        let length = match (word, c) {
            (Some(word), _) => {
                quoted.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') if in_text => rest.chars().take(2).map(char::len_utf8).sum(),
            (None, '"') => {
                in_text = !in_text;
                1
            }
            (None, c) => c.len_utf8(),
        };
        quoted.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn problems(text: &str) -> Vec<Value> {
        let options = ServeOptions { request_limit_values: 3, ..ServeOptions::default() };
        let take = |members: &mut Members<'_>| {
            members.columns("entities");
            members.texts("features", false);
            members.flag("full_feature_names", false);
        };
        match decode(text, &options, &take) {
            Err(Rejection::Invalid(problems)) => problems,
            Err(Rejection::Refused(status, _)) => vec![json!(status.as_u16())],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn problems_are_told_as_fastapi_does() {
        assert_eq!(
            problems("{}"),
            [json!({"type": "missing", "loc": ["body", "entities"], "msg": "Field required", "input": {}})]
        );
        assert_eq!(problems(r#"{"entities": {"a": 5, "b": 6}, "features": [1]}"#).len(), 3);
        let cases = [
            (r#"{"entities": 5}"#, json!(["body", "entities"]), "dict_type"),
            (r#"{"entities": {"a": 5}}"#, json!(["body", "entities", "a"]), "list_type"),
            (r#"{"entities": {}, "features": [1]}"#, json!(["body", "features", 0]), "string_type"),
            (r#"{"entities": {}, "features": null}"#, json!(["body", "features"]), "list_type"),
            (
                r#"{"entities": {}, "full_feature_names": "zebra"}"#,
                json!(["body", "full_feature_names"]),
                "bool_parsing",
            ),
            (r#"{"entities": {"a": [], "a": []}}"#, json!(["body", "entities", "a"]), "duplicate_key"),
            (r#"{"entities": {"a": ["\ud800"]}}"#, json!(["body", "entities", "a"]), "json_invalid"),
            ("{\n\"a\" 5}", json!(["body", 6]), "json_invalid"),
        ];
        for (text, location, kind) in cases {
            let problems = problems(text);
            assert_eq!((&problems[0]["loc"], problems[0]["type"].as_str().unwrap()), (&location, kind), "{text}");
        }
    }

    #[test]
    fn values_are_counted() {
        assert_eq!(problems(r#"{"entities": {"a": [1, 2], "b": [3, 4]}}"#), [json!(413)]);
        assert_eq!(problems(r#"{"entities": {"a": [[1, 2, 3, 4]]}}"#), [json!(413)]);
    }

    #[test]
    fn bare_words_of_python_are_quoted() {
        let text = r#"{"NaN \" NaN": [NaN, -Infinity, Infinity, "NaN"]}"#;
        assert_eq!(quote_bare_words(text), r#"{"NaN \" NaN": ["NaN", "-Infinity", "Infinity", "NaN"]}"#);
    }
}
