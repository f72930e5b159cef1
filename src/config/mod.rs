//! Configuration: `raw` (TOML as written) → `validate` (every error at once) → `model`.

pub mod model;
pub mod secret;
