//! The calls of Google Cloud Storage's XML interface that a single object needs: getting, putting under a condition,
//! listing and deleting; with the faults that tests ask for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Content, generation and metadata.
type Object = (Vec<u8>, u64, Vec<(String, String)>);

#[derive(Debug, Default)]
struct Objects {
    objects: BTreeMap<String, Object>,
    generation: u64,
}

/// A server in this process. It lives as long as the process.
#[derive(Debug)]
pub struct GoogleServer {
    endpoint: String,
}

struct Request {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Answer = (&'static str, Vec<(String, String)>, Vec<u8>);

impl GoogleServer {
    /// Starts a server on a free port. All buckets exist. To objects whose keys begin with `read-only`, everything but
    /// getting is refused; the first answer to the second write of a key that begins with `lost` gets lost. Lists of
    /// keys that begin with `hidden` are refused, and those of keys that begin with `broken` fail.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
        let objects = Arc::new(Mutex::new(Objects::default()));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let objects = Arc::clone(&objects);
                thread::spawn(move || drop(serve(client, &objects)));
            }
        });
        Self { endpoint: format!("http://{address}") }
    }

    /// The URL of the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

fn serve(mut client: TcpStream, objects: &Mutex<Objects>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(request) = read(&mut reader)? {
        let (status, headers, body) = objects.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
        let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        client.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method != "HEAD" {
            client.write_all(&body)?;
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(ToOwned::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, target, headers, body }))
}

impl Objects {
    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let path = decoded(path.trim_start_matches('/'));
        let key = path.split_once('/').map_or("", |(_, key)| key);
        let nothing = |status| (status, Vec::new(), Vec::new());
        if key.starts_with("read-only") && request.method != "GET" && self.objects.contains_key(&path) {
            return nothing("403 Forbidden");
        }
        match request.method.as_str() {
            "GET" if query.contains("list-type=2") => {
                let parameter =
                    |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or("").to_owned();
                let prefix = decoded(&parameter("prefix="));
                if prefix.starts_with("hidden") {
                    return nothing("403 Forbidden");
                }
                if prefix.starts_with("broken") {
                    return nothing("400 Bad Request");
                }
                let keys = self.objects.keys().filter_map(|path| path.split_once('/').map(|(_, key)| key));
                let list: String = keys
                    .filter(|key| key.starts_with(&prefix))
                    .map(|key| {
                        format!(
                            "<Contents><Key>{key}</Key><LastModified>2026-11-24T10:00:00.000Z</LastModified>\
                             <ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
                        )
                    })
                    .collect();
                ("200 OK", Vec::new(), format!("<ListBucketResult>{list}</ListBucketResult>").into_bytes())
            }
            "PUT" => {
                let found = self.objects.get(&path).map_or(0, |object| object.1);
                let condition = request.headers.get("x-goog-if-generation-match").and_then(|of| of.parse().ok());
                if condition.is_some_and(|wanted: u64| wanted != found) {
                    return nothing("412 Precondition Failed");
                }
                self.generation += 1;
                let metadata = request.headers.iter().filter(|(name, _)| name.starts_with("x-goog-meta-"));
                let metadata = metadata.map(|(name, value)| (name.clone(), value.clone())).collect();
                self.objects.insert(path.clone(), (request.body.clone(), self.generation, metadata));
                if key.starts_with("lost") && found == 1 {
                    return nothing("503 Service Unavailable");
                }
                ("200 OK", tags(self.generation), Vec::new())
            }
            "DELETE" => match self.objects.remove(&path) {
                Some(_) => nothing("204 No Content"),
                None => nothing("404 Not Found"),
            },
            _ => match self.objects.get(&path) {
                None => nothing("404 Not Found"),
                Some((_, generation, _))
                    if request.headers.get("if-none-match") == Some(&format!("\"{generation}\"")) =>
                {
                    ("304 Not Modified", tags(*generation), Vec::new())
                }
                Some((bytes, generation, metadata)) => {
                    let mut headers = tags(*generation);
                    headers.push(("last-modified".to_owned(), "Tue, 24 Nov 2026 10:00:00 GMT".to_owned()));
                    headers.extend(metadata.iter().cloned());
                    ("200 OK", headers, bytes.clone())
                }
            },
        }
    }
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let byte = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        byte.map_or_else(|| format!("{text}%{part}"), |byte| format!("{text}{}{}", char::from(byte), &part[2..]))
    })
}

fn tags(generation: u64) -> Vec<(String, String)> {
    vec![("etag".to_owned(), format!("\"{generation}\"")), ("x-goog-generation".to_owned(), generation.to_string())]
}
