//! How many connections this process may have: what the system allows, less what everything else needs.

/// Descriptors kept for everything that isn't a client and its backend connection.
const SPARE: u64 = 512;

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files can't be raised");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}

/// Each client connection may need one to the backend.
pub fn connections_for(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(SPARE) / 2)
        .unwrap_or(usize::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_two_descriptors() {
        assert_eq!(connections_for(65_536), 32_512);
        assert_eq!(connections_for(100), 1);
    }
}
