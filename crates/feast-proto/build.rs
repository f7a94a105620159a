//! Compiles `protos/` into Rust messages and into the descriptor set that `reflection` reads.

#![expect(clippy::disallowed_methods, reason = "cargo tells build scripts their folders by environment variables")]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../protos").canonicalize()?;
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let compile = |source_info| -> Result<protox::Compiler, protox::Error> {
        let mut compiler = protox::Compiler::new([&root])?;
        compiler.include_imports(true).include_source_info(source_info).open_files(&files)?;
        Ok(compiler)
    };
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compile(false)?.encode_file_descriptor_set())?;
    prost_build::Config::new()
        .btree_map(["."])
        .bytes(["."])
        .out_dir(&out)
        .compile_fds(compile(true)?.file_descriptor_set())?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
