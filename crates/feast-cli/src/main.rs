//! The `feast` command.
fn main() {}
