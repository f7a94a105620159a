//! Writes what the fuzzers start from, `seeds FOLDER`.

use std::path::Path;

use libfuzzer_sys as _; // Our crates are compiled to call it.

fn main() {
    let folder = std::env::args().nth(1).expect("seeds FOLDER");
    feast_fuzz::seeds::write(Path::new(&folder));
}
