//! The streams file: `[[stream]]` entries, for `streams.source = "file"`. Pure.
//!
//! Keeps true: a file that is empty or half written is invalid, never "no streams" (that is `stream = []`).
//! Must not know: what the streams are used for, or when the file is read again.

use std::path::Path;

use super::diagnostic::ConfigErrors;
use super::raw::{self, ConfigReader, KnownKeys, RawItem, RawTable};

const EMPTY_HINT: &str =
    "an empty file isn't \"no streams\": it may be half written. For none, write stream = []";
/// A channel name's length at Agora, in bytes.
const LONGEST_CHANNEL: usize = 64;

/// One `[[stream]]`. Of several for one channel the last live one counts, as the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// 1 to 64 bytes.
    pub channel: String,
    /// The subject who may publish; `None` matches no subject.
    pub owner: Option<String>,
    /// Whether it runs now; true unless written.
    pub live: bool,
    /// Whether the whole stream is banned.
    pub banned: bool,
    /// Subjects who may publish besides the owner.
    pub cohosts: Vec<String>,
    /// Subjects who may not watch.
    pub banned_viewers: Vec<String>,
}

/// Reads the file's text, in its order; every error at once. `origin` names the file in them.
pub fn parse(text: &str, origin: &Path) -> Result<Vec<StreamEntry>, ConfigErrors> {
    let known = KnownKeys::asked_for(|root| drop(streams(root)));
    let tree = raw::parse(text, origin, EMPTY_HINT, &known)?;
    let reader = ConfigReader::new(text, origin, &tree);
    reader.survey(&known);
    let streams = streams(&reader.root());
    reader.finish()?;
    Ok(streams)
}

fn streams(root: &RawTable<'_>) -> Vec<StreamEntry> {
    root.tables("stream").iter().map(stream).collect()
}

fn stream(table: &RawTable<'_>) -> StreamEntry {
    let channel = table.required("channel", "channel = \"...\"");
    let channel = channel.and_then(|item| name(&item)).unwrap_or_default();
    if channel.len() > LONGEST_CHANNEL
        && let Some(item) = table.item("channel")
    {
        item.error(
            "longer than Agora allows",
            "a channel name has at most 64 bytes",
        );
    }
    StreamEntry {
        channel,
        owner: table.item("owner").and_then(|item| name(&item)),
        live: table.boolean("live", true),
        banned: table.boolean("banned", false),
        cohosts: names(table, "cohosts"),
        banned_viewers: names(table, "banned_viewers"),
    }
}

fn names(table: &RawTable<'_>, key: &str) -> Vec<String> {
    table.list(key).iter().filter_map(name).collect()
}

fn name(item: &RawItem<'_>) -> Option<String> {
    let text = item.text()?;
    if text.is_empty() {
        item.error("empty", "write a name, or leave the key out");
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<StreamEntry>, String> {
        parse(text, Path::new("streams.toml")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn only_the_channel_must_be_there() {
        let streams = read("[[stream]]\nchannel = \"a\"\n").unwrap();
        let expected = StreamEntry {
            channel: "a".into(),
            owner: None,
            live: true,
            banned: false,
            cohosts: Vec::new(),
            banned_viewers: Vec::new(),
        };
        assert_eq!(streams, [expected]);
    }

    #[test]
    fn entries_keep_their_order_and_values() {
        let streams = read(
            "[[stream]]\nchannel = \"a\"\nlive = false\n\n[[stream]]\nchannel = \"a\"\nowner = \"o\"\nbanned = true\ncohosts = [\"c\"]\nbanned_viewers = [\"v\", \"w\"]\n",
        )
        .unwrap();
        assert!(!streams[0].live);
        assert_eq!(streams[1].owner.as_deref(), Some("o"));
        assert!(streams[1].banned && streams[1].live);
        assert_eq!(streams[1].cohosts, ["c"]);
        assert_eq!(streams[1].banned_viewers, ["v", "w"]);
    }

    #[test]
    fn no_streams_must_be_written_out() {
        assert_eq!(read("# none today\nstream = []\n").unwrap(), []);
        for empty in ["", " \n\t\n", "# stream = []\n"] {
            assert!(
                read(empty).unwrap_err().contains("stream = []"),
                "{empty:?}"
            );
        }
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let text = "other = 1\n[[stream]]\nowner = 5\nlive = \"yes\"\nchanel = \"a\"\n[[stream]]\nchannel = \"\"\ncohosts = [\"\", 1]\n";
        let errors = read(text).unwrap_err();
        for expected in [
            "`other`: unknown key",
            "`stream[0].channel`: missing",
            "`stream[0].chanel`: unknown key",
            "`stream[0].owner`: expected a string, found an integer",
            "`stream[0].live`: expected a boolean",
            "`stream[1].channel`: empty",
            "`stream[1].cohosts[0]`: empty",
            "`stream[1].cohosts[1]`: expected a string",
            "streams.toml:3:9",
        ] {
            assert!(errors.contains(expected), "{expected} in\n{errors}");
        }
    }
}
