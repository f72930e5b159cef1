//! Pure functions on HTTP types.
