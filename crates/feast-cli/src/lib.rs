//! feast-cli
