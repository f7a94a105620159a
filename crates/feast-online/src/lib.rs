//! feast-online
