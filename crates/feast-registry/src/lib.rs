//! feast-registry
