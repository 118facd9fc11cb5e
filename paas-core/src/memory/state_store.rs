//! Filled by its slice.
