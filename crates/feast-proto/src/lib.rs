//! feast-proto
