//! `streams.channel_pattern`: which channels are streams whatever the source knows of them.
//!
//! Keeps true: comparing takes time in proportion to the name.

use std::sync::Arc;

use crate::agora::charset;

/// Channel names with `*` for any characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern(Arc<str>);

impl ChannelPattern {
    /// `None` where no channel of Agora's could fit: the text is empty, or has a character that no channel may have.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let literal = text.replace('*', "");
        let fits = literal.is_empty() || charset::channel_name(&literal).is_ok();
        (!text.is_empty() && fits).then(|| Self(text.into()))
    }

    /// Whether a channel fits.
    pub(crate) fn matches(&self, channel: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *channel;
        };
        let Some(mut left) = channel.strip_prefix(first) else {
            return false;
        };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return left.ends_with(part);
            }
            // The earliest place leaves most to the parts behind it.
            let Some(at) = left.find(part) else {
                return false;
            };
            left = left.get(at + part.len()..).unwrap_or_default();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_also_for_none() {
        for (pattern, channel, fits) in [
            ("live_*", "live_65f0", true),
            ("live_*", "live_", true),
            ("live_*", "Live_65f0", false),
            ("live_*", "my_live_1", false),
            ("*_live", "a_live", true),
            ("*_live", "a_live_", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "abcb", false),
            ("a*b*c", "acb", false),
            ("aa*aa", "aaa", false),
            ("*", "", true),
            ("**", "x", true),
            ("room", "room", true),
            ("room", "rooms", false),
        ] {
            let read = ChannelPattern::new(pattern).unwrap();
            assert_eq!(read.matches(channel), fits, "{pattern} {channel}");
        }
    }

    #[test]
    fn a_pattern_that_no_channel_could_fit_is_none() {
        for text in ["", "live/*", "l\u{e9}ve_*", "a\n*"] {
            assert_eq!(ChannelPattern::new(text), None, "{text:?}");
        }
    }
}
