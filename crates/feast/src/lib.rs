//! feast
