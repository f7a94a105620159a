//! The bytes of a registry file, as they lie on a disk or in a bucket: opened, listed, described, committed to, and
//! opened again. Damage is named; nothing that can be read is lost by a commit.

use std::cell::RefCell;
use std::time::SystemTime;

use feast_core::{Entity, ErrorCode, RegistryChange, RegistryChanges, RegistryObject, RegistryStore, ValueType};
use feast_registry::FileRegistry;
use tempfile::TempDir;

use super::{describe, run};

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let path = FOLDER.with_borrow_mut(|folder| {
        folder.get_or_insert_with(|| tempfile::tempdir().expect("there is a temporary folder")).path().join("r.db")
    });
    std::fs::write(&path, bytes).expect("the folder is ours");
    // What was written just now might be half written, and would be read again.
    let file = std::fs::File::options().write(true).open(&path).expect("the folder is ours");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("the folder is ours");
    let registry = FileRegistry::new(&path);
    let before = match run(registry.load()) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}");
            assert!(error.hint().is_some(), "{error}");
            return;
        }
    };
    before.projects.values().flat_map(|contents| contents.objects()).for_each(|object| describe(&object));
    let entity = RegistryObject::Entity(Entity::new("fuzz", "fuzz", ValueType::Int64).into());
    let changes = RegistryChanges::new("fuzz", vec![RegistryChange::Put(entity)]);
    run(registry.commit(before.version.as_ref(), &changes)).expect("nobody else changes the file");
    let after = run(FileRegistry::new(&path).load()).expect("what was read and changed can be read");
    for (name, contents) in before.projects.iter().filter(|(name, _)| *name != "fuzz") {
        let after = after.projects.get(name).expect("projects stay");
        assert!(after.objects().eq(contents.objects()), "project `{name}` was not touched");
    }
}
