//! Rules of the repository as tests: the crates use each other as `ARCHITECTURE.md` draws it, its code map names the
//! files that exist, what must be absent is absent.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that must not be in what a crate of ours links; a name stands for its whole family (`datafusion-expr`).
const ABSENT: &[(&str, &[&str])] = &[
    ("feast-core", &["axum", "datafusion", "hyper", "object_store", "parquet", "prost", "pyo3", "rusqlite", "tokio"]),
    ("feast-proto", &["axum", "datafusion", "hyper", "object_store", "pyo3", "rusqlite", "tokio"]),
    ("feast-online", &["axum", "datafusion", "parquet", "pyo3"]),
    ("feast-offline", &["axum", "prost", "pyo3", "rusqlite"]),
    ("feast-server", &["pyo3"]),
    ("feast-cli", &["pyo3"]),
];

/// The only places below `crates/*/src` and `python/src` that may read the environment.
const READS_ENVIRONMENT: &[&str] = &[
    "crates/feast/src/config.rs",
    "crates/feast-cli/src/",
    "crates/feast-registry/src/stores/bucket/options.rs",
    "crates/feast-net/src/s3.rs",
    "crates/feast-net/src/tls.rs",
];

#[test]
fn crates_use_each_other_as_drawn() {
    let drawn = drawn_graph(&read("ARCHITECTURE.md"));
    let real = real_graph();
    for (name, uses) in &real {
        let expected = drawn.get(name).unwrap_or_else(|| panic!("`{name}` is missing in the graph of ARCHITECTURE.md"));
        assert_eq!(uses, expected, "`{name}`: Cargo.toml (left) and the graph in ARCHITECTURE.md (right) differ");
    }
    let unknown: Vec<_> = drawn.keys().filter(|name| !real.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "ARCHITECTURE.md draws crates that are not in the workspace: {unknown:?}");
}

#[test]
fn heavy_dependencies_stay_where_they_belong() {
    for (name, absent) in ABSENT {
        let linked = linked_crates(name);
        for forbidden in *absent {
            let family = format!("{forbidden}-");
            let found: Vec<_> =
                linked.iter().filter(|linked| *linked == forbidden || linked.starts_with(&family)).collect();
            assert!(found.is_empty(), "`{name}` must not link `{forbidden}`, but its dependencies contain {found:?}");
        }
    }
}

#[test]
fn the_code_map_names_every_file() {
    let map = code_map(&read("ARCHITECTURE.md"));
    for folder in source_folders() {
        let key = relative(&folder);
        let named = map.get(&key).unwrap_or_else(|| panic!("ARCHITECTURE.md has no section `{key}/`"));
        let existing: BTreeSet<String> = rust_files(&folder)
            .iter()
            .map(|file| file.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned())
            .filter(|file| !matches!(file.as_str(), "lib.rs" | "main.rs"))
            .collect();
        let covered =
            |file: &str| named.iter().any(|name| name == file || name.ends_with('/') && file.starts_with(name));
        let missing: Vec<_> = existing.iter().filter(|file| !covered(file)).collect();
        assert!(missing.is_empty(), "ARCHITECTURE.md, section `{key}/`, does not name {missing:?}");
        let gone: Vec<_> = named.iter().filter(|name| !folder.join(name).exists()).collect();
        assert!(gone.is_empty(), "ARCHITECTURE.md, section `{key}/`, names files that do not exist: {gone:?}");
    }
}

#[test]
fn documents_name_paths_that_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "DESIGN.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let roots = ["crates/", "python/", "protos/", "tests/", "examples/", "bench/", "scripts/"];
        for path in in_backticks(&text).filter(|text| roots.iter().any(|root| text.starts_with(root))) {
            let concrete = !path.contains(['*', '<', ' ', '{', '…']);
            assert!(!concrete || root().join(path).exists(), "{document} names `{path}`, which does not exist");
        }
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for folder in source_folders() {
        for file in rust_files(&folder) {
            let name = relative(&file);
            if READS_ENVIRONMENT.iter().any(|allowed| name.starts_with(allowed)) {
                continue;
            }
            let found = fs::read_to_string(&file).unwrap().lines().position(|line| line.contains("env::var"));
            assert_eq!(found, None, "{name} reads the environment; only {READS_ENVIRONMENT:?} may");
        }
    }
}

#[test]
fn every_member_inherits_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = fs::read_to_string(manifest).unwrap();
        assert!(text.contains("\n[lints]\nworkspace = true\n"), "{manifest} does not say `[lints] workspace = true`");
    }
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Put together here, so that this file does not contain them.
    let in_rust = [["#[", "ignore"].concat(), ["todo", "!("].concat(), ["unimplemented", "!("].concat()];
    let in_python = ["pytest.mark.skip", "pytest.mark.xfail", "pytest.skip(", "importorskip("].map(str::to_owned);
    for (ending, marks) in [("rs", &in_rust[..]), ("py", &in_python[..])] {
        for folder in ["crates", "python", "tests", "examples", "bench"] {
            for file in files_below(&root().join(folder), ending) {
                let text = fs::read_to_string(&file).unwrap();
                for mark in marks {
                    assert!(!text.contains(mark), "{} contains `{mark}`", relative(&file));
                }
            }
        }
    }
}

// The drawing ---------------------------------------------------------------------------------------------------------

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The block that starts with ```` ```text crates ````: one line `crate -> crates it uses` each.
fn drawn_graph(document: &str) -> Graph {
    let block = document.split("```text crates\n").nth(1).expect("ARCHITECTURE.md has a block ```text crates");
    let block = block.split("```").next().unwrap();
    let lines = block.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (name, uses) = line.split_once("->").unwrap_or_else(|| panic!("`{line}` is not `crate -> crates`"));
            (name.trim().to_owned(), uses.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

/// Files and folders by section: a heading that is a path, then the first backticks of each row of its table.
fn code_map(document: &str) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = None;
    for line in document.lines() {
        if line.starts_with('#') {
            section = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix("/`")).map(str::to_owned);
            if let Some(section) = &section {
                map.entry(section.clone()).or_default();
            }
        } else if let (Some(section), Some(cell)) = (&section, line.strip_prefix("| ")) {
            let cell = cell.split(" | ").next().unwrap();
            map.get_mut(section).unwrap().extend(in_backticks(cell).map(str::to_owned));
        }
    }
    map
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

// The workspace -------------------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO")).args(arguments).arg("--offline").current_dir(root()).output().unwrap();
    assert!(done.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn packages() -> Vec<Value> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What each crate uses of the others. A dependency of tests alone is written `crate(tests)`.
fn real_graph() -> Graph {
    let packages = packages();
    let members: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter(|dependency| members.contains(dependency["name"].as_str().unwrap()));
        ours.map(|dependency| {
            let name = dependency["name"].as_str().unwrap();
            if dependency["kind"] == "dev" { format!("{name}(tests)") } else { name.to_owned() }
        })
        .collect()
    };
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), uses(package))).collect()
}

/// Names of all crates that end up in what is linked with a crate.
fn linked_crates(name: &str) -> BTreeSet<String> {
    let tree = cargo(&["tree", "--package", name, "--edges", "normal,no-proc-macro", "--prefix", "none"]);
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn source_folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")).collect();
    folders.push(root().join("python/src"));
    folders.sort();
    folders
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files_below(folder, "rs")
}

fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.map(|entry| entry.unwrap()) {
        let path = entry.path();
        // Scratch of tools and examples.
        if entry.file_name().to_string_lossy().starts_with(['.', '_']) && path.is_dir() {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}
