//! What the programs start from: one folder per program, from the files that tests use too.

use std::fs;
use std::path::{Path, PathBuf};

use feast_core::{ObjectKind, ValueType};
use feast_proto::registry_store::commit_message;
use feast_registry::FileRegistry;
use prost::Message;

use super::run;

/// The `tests` of the repository.
fn tests() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|folder| folder.join("tests/formats")).find(|formats| formats.exists());
    found.and_then(|formats| formats.parent().map(Path::to_path_buf)).expect("the repository has tests")
}

/// Writes them into a folder.
pub fn write(folder: &Path) {
    registries(folder);
    bodies(folder);
    cells(folder);
    texts(folder);
}

/// Writes one input; its name is its place in the row.
fn put(folder: &Path, program: &str, number: usize, bytes: &[u8]) {
    let folder = folder.join(program);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(format!("seed-{number:04}")), bytes).expect("the folder can be written to");
}

/// With the byte in front that says which kind of input it is.
fn marked(which: usize, bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(which).expect("there are few")], bytes].concat()
}

/// The registry that Feast wrote, whole, object by object, and as a commit.
fn registries(folder: &Path) {
    use feast_core::{RegistryChange, RegistryChanges, RegistryStore};
    let path = tests().join("formats/registry/feast-0.67.0.pb");
    let whole = fs::read(&path).expect("the file of the tests is there");
    put(folder, "registry_file", 0, &whole);
    put(folder, "registry_file", 1, b"\x1a\x011");
    let snapshot = run(FileRegistry::new(&path).load()).expect("Feast wrote it");
    let mut number = 0;
    let mut message = |bytes: &[u8]| {
        put(folder, "registry_message", number, bytes);
        number += 1;
    };
    for (project, contents) in &snapshot.projects {
        let mut changes = Vec::new();
        for object in contents.objects() {
            let which = ObjectKind::ALL.iter().position(|kind| *kind == object.kind()).expect("every kind is listed");
            message(&marked(which, &feast_proto::encode_object(&object, project)));
            changes.push(RegistryChange::Put(object));
        }
        let changes = RegistryChanges::new(project, changes);
        message(&marked(255, &commit_message(snapshot.version.as_ref(), &changes, "seed").encode_to_vec()));
    }
    message(&marked(255, &whole));
}

/// The bodies of the scenarios.
fn bodies(folder: &Path) {
    let mut number = 0;
    for file in ["online_features", "online_features_errors", "writes"] {
        let path = tests().join(format!("scenarios/{file}.yaml"));
        let text = fs::read_to_string(path).expect("the scenarios are there");
        for request in text.lines().filter_map(|line| line.trim().strip_prefix("request: ")) {
            let Some((head, body)) = request.trim_end_matches('}').split_once("json: ") else { continue };
            let which = match head {
                head if head.contains("get-online-features") => 0,
                head if head.contains("/push") => 1,
                _ => 2,
            };
            // The braces that were cut belong partly to the body.
            let open = body.matches('{').count() - body.matches('}').count();
            put(folder, "http_body", number, &marked(which, format!("{body}{}", "}".repeat(open)).as_bytes()));
            number += 1;
        }
    }
}

/// One cell of each type that Feast wrote.
fn cells(folder: &Path) {
    let text = fs::read_to_string(tests().join("formats/values/values.tsv")).expect("the values are there");
    let digits = |text: &str| {
        text.len().is_multiple_of(2) && text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    for (number, line) in text.lines().enumerate() {
        for column in line.split('\t').filter(|column| digits(column)) {
            let cell: Vec<u8> = (0..column.len() / 2)
                .filter_map(|at| u8::from_str_radix(&column[at * 2..at * 2 + 2], 16).ok())
                .collect();
            let which =
                ValueType::ALL.iter().position(|one| line.to_uppercase().starts_with(&one.name().to_uppercase()));
            put(folder, "online_cell", number, &marked(which.unwrap_or(number % ValueType::ALL.len()), &cell));
        }
    }
}

/// Configurations, and the places and names in them.
fn texts(folder: &Path) {
    let configurations = [
        "project: p\nregistry: data/registry.db\nprovider: local\n",
        "project: p\nregistry: {registry_type: sql, path: \"postgresql+psycopg://u:p@h:1/d\", read_path: null,\n  \
         cache_ttl_seconds: 60, cache_mode: thread, schema_mode: auto, sqlalchemy_config_kwargs: {pool_size: 2}}\n",
        "project: p\nregistry: {path: s3://b/r.db, s3_additional_kwargs: {ServerSideEncryption: AES256}}\n",
        "project: p\nregistry: {registry_type: remote, path: \"h:1\", is_tls: true, cert: c.pem}\n",
        "project: p\nregistry: r\nonline_store: {type: redis, connection_string: \"${A:-h:1},db=1\"}\n",
        "project: p\nregistry: r\nonline_store: {type: postgres, host: h, database: d, user: u, password: p}\n",
        "project: p\nregistry: r\nonline_store: {type: dynamodb, region: r}\noffline_store: {type: file}\n",
        "project: p\nregistry: r\nonline_store: {type: mysql, host: h}\nbatch_engine: {type: local}\n",
        "project: p\nregistry: r\nonline_serving: {timeout_ms: 5}\nmaterialization: {online_write_batch_size: 10}\n",
        "project: &a p\nregistry: *a\nauth: {type: no_auth}\nfeature_server: {type: local}\n",
    ];
    for (number, text) in configurations.iter().enumerate() {
        put(folder, "configuration", number, text.as_bytes());
    }
    let places: [(usize, &[&str]); 6] = [
        (0, &["localhost:6379", "h:1,username=u,password=p,ssl=true,db=2", "[::1]:6379,skip_full_coverage_check=true"]),
        (2, &["a:1,b:2,c:3,password=p"]),
        (
            3,
            &[
                "sqlite:///data/r.db",
                "postgresql+psycopg://u:p%40@h:5432/d?sslmode=require",
                "mysql+pymysql://r@[::1]/d",
            ],
        ),
        (4, &["data/registry.db", "s3://bucket/folder/registry.db", "gs://bucket/registry.db", "file:///r.db"]),
        (5, &["h:6570", "grpcs://h:6570"]),
        (9, &["driver_stats:trips", "driver_stats@v2:trips,other:f", "service"]),
    ];
    let all = places.iter().flat_map(|(which, texts)| texts.iter().map(|text| marked(*which, text.as_bytes())));
    for (number, bytes) in all.enumerate() {
        put(folder, "connection", number, &bytes);
    }
}
