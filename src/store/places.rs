//! The requests to Agora that all replicas together may have under way: an account is allowed so many a second.
//!
//! Keeps true: a place has one owner; a place whose owner has died is free again after its lease. All keys have one
//! hash tag.
//! Must not know: what is sent, how many places there should be.

use std::time::Duration;

use redis::Value;

use super::link::Script;
use super::{NoStore, Store};

/// A place that was taken. Give it back by [`Store::leave_place`].
#[derive(Debug)]
pub(crate) struct Place(usize);

impl Store {
    /// Takes one of `places` for as long as `lease`; `None` where others have all of them.
    pub(crate) async fn take_place(
        &self,
        places: usize,
        lease: Duration,
    ) -> Result<Option<Place>, NoStore> {
        let answer = self.within_timeout(async |link| {
            let mut command = link.command(Script::Places, places);
            for position in 1..=places {
                command.arg(self.place_key(position));
            }
            link.run(command.arg(milliseconds(lease)), Script::Places)
                .await
        });
        let Value::Int(position) = answer.await? else {
            return Err(NoStore);
        };
        let position = usize::try_from(position).map_err(|_| NoStore)?;
        Ok((position > 0).then_some(Place(position)))
    }

    /// Leaves a place, which is free after this time. If the store doesn't learn of it, the lease ends.
    pub(crate) async fn leave_place(&self, place: Place, after: Duration) {
        let mut command = redis::cmd("PEXPIRE");
        command
            .arg(self.place_key(place.0))
            .arg(milliseconds(after));
        let _ = self
            .within_timeout(async |link| link.send(&command).await)
            .await;
    }

    fn place_key(&self, position: usize) -> String {
        format!(
            "{}{{shared}}:ejections:place:{position}",
            self.config.prefix
        )
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
