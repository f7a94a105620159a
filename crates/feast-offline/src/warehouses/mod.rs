//! Databases that hold feature rows and find those that belong together themselves.

pub(crate) mod postgres;
