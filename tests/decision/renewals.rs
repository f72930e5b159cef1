//! The holder of a token can renew it at the refresh path, and at the token path too.

use crate::support::renewd::{Renewd, Settings, login};

#[test]
fn a_holder_who_asks_the_token_path_again_counts_as_a_refresh() {
    let renewd = Renewd::start(&Settings::default());
    let viewer = login("viewer");
    let body = r#"{"channelName":"live_show","uid":77}"#;
    assert_eq!(renewd.post("/api/live/token", &viewer, body).status, 200);
    assert_eq!(renewd.post("/api/live/token", &viewer, body).status, 200);
    let counted = |endpoint| {
        renewd.metric(&format!(
            r#"renewd_token_requests_total{{endpoint="{endpoint}",role="subscriber",outcome="ok",class="ok"}}"#
        ))
    };
    assert_eq!((counted("token"), counted("refresh")), (1.0, 1.0));
}
