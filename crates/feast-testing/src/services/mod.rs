//! Real servers for tests: each starts on a free port in a temporary directory and ends with the process of the tests.

pub mod google;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod s3;
