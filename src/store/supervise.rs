//! Keeps the store connected, on the control plane.
//!
//! Keeps true: one attempt at a time; the pauses between failed ones grow to a second; an idle connection is shown to
//! work every few seconds, so that the store's standing is known without a request.
//! Must not know: what the connection is used for.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Store;
use super::link::Link;
use crate::config::model::UpstreamScheme;
use crate::io::tls::Trust;

/// The pause after the first failed attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a connection is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until the runtime ends.
pub(crate) async fn supervise(store: Arc<Store>) {
    let trust = match &store.config.server.scheme {
        UpstreamScheme::Https => trust().await,
        UpstreamScheme::Http | UpstreamScheme::Unix(_) => None,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match Link::open(&store.config, trust.as_ref()).await {
            Ok((link, driver)) => {
                pause = FIRST_PAUSE;
                let link = Arc::new(link);
                store.took_up(Arc::clone(&link));
                look_after(&store, &link, driver).await;
                store.give_up(&link, "the connection broke");
            }
            Err(error) => {
                store.could_not_connect(&error);
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Returns when the connection has ended, whoever ended it.
async fn look_after(store: &Store, link: &Arc<Link>, mut driver: JoinHandle<()>) {
    loop {
        tokio::select! {
            _ended = &mut driver => return,
            () = sleep(LOOK) => {
                let prefix = store.config.prefix.as_str();
                // A failure counts as one of any request's.
                let _ = store.within_timeout(async |link| link.probe(prefix).await).await;
            }
        }
        if !store.uses(link) {
            return;
        }
    }
}

/// The system's authorities.
async fn trust() -> Option<Trust> {
    // Reading them blocks.
    let reading = tokio::task::spawn_blocking(Trust::of_the_system);
    match reading.await {
        Ok(Ok(trust)) => Some(trust.without_protocol()),
        Ok(Err(error)) => {
            tracing::error!(%error, "no TLS to the shared store");
            None
        }
        Err(_cancelled) => None,
    }
}
