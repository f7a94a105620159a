//! What `make fuzz` runs for hours, run once with what it starts from and with some damage to that: the programs keep
//! compiling, and say of good input that it is good.

use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/src/lib.rs"]
#[allow(dead_code, unreachable_pub, reason = "a package of its own")]
mod feast_fuzz;

use feast_fuzz::{configuration, connection, http_body, online_cell, registry_file, registry_message};

/// Each input of a program as it is, cut off, and with one byte changed.
fn fuzz(folder: &Path, program: &str, fuzz: fn(&[u8])) {
    let mut n_inputs = 0;
    for input in fs::read_dir(folder.join(program)).unwrap() {
        let bytes = fs::read(input.unwrap().path()).unwrap();
        fuzz(&bytes);
        fuzz(&bytes[..bytes.len() / 2]);
        for at in [0, 1, bytes.len() / 3, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            fuzz(&changed);
        }
        n_inputs += 1;
    }
    assert!(n_inputs > 1, "{program} starts from nothing");
}

#[test]
fn every_program_takes_what_it_starts_from() {
    let folder = tempfile::tempdir().unwrap();
    feast_fuzz::seeds::write(folder.path());
    fuzz(folder.path(), "configuration", configuration::fuzz);
    fuzz(folder.path(), "connection", connection::fuzz);
    fuzz(folder.path(), "http_body", http_body::fuzz);
    fuzz(folder.path(), "online_cell", online_cell::fuzz);
    fuzz(folder.path(), "registry_file", registry_file::fuzz);
    fuzz(folder.path(), "registry_message", registry_message::fuzz);
}
