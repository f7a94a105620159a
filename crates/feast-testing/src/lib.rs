//! feast-testing
