//! The streams file changes in the same moment as the configuration file: neither change may be lost to the other.

use crate::support::renewd::{Renewd, STREAMS, Settings, login, private_file};

#[test]
fn a_change_of_streams_counts_although_the_configuration_turned_invalid_with_it() {
    let renewd = Renewd::start(&Settings::default());
    let streams = format!("{STREAMS}\n[[stream]]\nchannel = \"live_next\"\n");
    private_file(&renewd.file("streams.toml"), &streams);
    private_file(&renewd.file("config.toml"), "[server\n");
    renewd.eventually("the reload is refused", |renewd| {
        renewd.metric("renewd_config_last_reload_successful") == 0.0
    });
    let next = r#"{"channelName":"live_next","uid":77}"#;
    renewd.eventually("the new stream is known", |renewd| {
        renewd
            .post("/api/live/token", &login("viewer"), next)
            .status
            == 200
    });
}
