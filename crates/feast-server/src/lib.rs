//! feast-server
