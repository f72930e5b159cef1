//! How many connections to a server a worker needs: the pure part of keeping them.
//!
//! Keeps true: as many requests as were in flight at once during the last whole period find a connection.
//! Must not know: connections, clocks, how long a period is.

/// The requests that one worker has in flight at one server, and had lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerDemand {
    in_flight: usize,
    /// The most at once in this period.
    peak: usize,
    /// The most at once in the period before.
    before: usize,
}

impl ServerDemand {
    /// One request more.
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
    }

    /// One of them is over.
    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A period is over.
    pub(super) fn turn(&mut self) {
        self.before = self.peak;
        self.peak = self.in_flight;
    }

    /// How many idle connections are worth keeping: as many as the peak of this period and the one before would take,
    /// less those that are in use.
    pub(super) fn idle_wanted(self) -> usize {
        self.peak.max(self.before).saturating_sub(self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &str) -> ServerDemand {
        let mut demand = ServerDemand::default();
        for step in steps.chars() {
            match step {
                '+' => demand.begin(),
                '-' => demand.end(),
                _ => demand.turn(),
            }
        }
        demand
    }

    #[test]
    fn as_many_are_kept_as_were_lent_at_once_in_this_period_or_the_last() {
        // `+` a request, `-` its end, `|` a period's end.
        for (steps, wanted) in [
            ("", 0),
            ("+", 0),
            ("+-", 1),
            ("+-+-+-", 1),
            ("+++---", 3),
            ("+++--", 2),
            ("+++---|", 3),
            ("+++---|+-", 3),
            ("+++---|+-|", 1),
            ("+++---||", 0),
            ("+++|", 0),
            ("+++|---", 3),
            ("+++|---|", 3),
            ("+++|---||", 0),
            ("+|++--|+", 1),
            ("-+-", 1),
        ] {
            assert_eq!(after(steps).idle_wanted(), wanted, "{steps}");
        }
    }

    #[test]
    fn a_steady_load_of_any_size_never_loses_a_connection() {
        for size in [1, 255, 256, 257, 1024] {
            let mut demand = ServerDemand::default();
            for _ in 0..3 {
                (0..size).for_each(|_| demand.begin());
                for idle in 0..size {
                    demand.end();
                    assert!(demand.idle_wanted() > idle, "{size}");
                }
                demand.turn();
            }
        }
    }
}
