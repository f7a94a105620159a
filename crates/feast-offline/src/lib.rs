//! feast-offline
