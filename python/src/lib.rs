//! The native module `feast._feast`.
