//! Which build this is.

/// The release, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that a release was built from, abbreviated, with `-modified` behind it if files differed; `unknown` in
/// other builds (`build.rs`).
pub const COMMIT: &str = env!("RENEWD_COMMIT");

/// Both, as `renewd --version` prints them.
pub const VERSION_AND_COMMIT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("RENEWD_COMMIT"),
    ")"
);
