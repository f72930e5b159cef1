//! The query of a list that is given page by page: sessions, revocations.
//!
//! Keeps true: a page is bounded; an unknown parameter is refused, because a misspelt filter would list everything.
//! Must not know: what is listed.

/// Entries on a page without `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Entries on a page at most: some 250 KB of JSON.
const MOST: usize = 1000;

/// Which entries are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Only this channel's.
    pub channel: Option<String>,
    /// Only this subject's.
    pub subject: Option<String>,
    /// The most entries on the page, 1 to 1000.
    pub limit: usize,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

impl ListQuery {
    /// The query of a request.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            channel: None,
            subject: None,
            limit: DEFAULT_LIMIT,
            cursor: None,
        };
        let mut limit = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "channel" => &mut parsed.channel,
                "subject" => &mut parsed.subject,
                "cursor" => &mut parsed.cursor,
                "limit" => &mut limit,
                _ => {
                    return Err(format!(
                        "{name}: unknown; the parameters are channel, subject, limit and cursor"
                    ));
                }
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(format!("{name}: given twice"));
            }
        }
        if let Some(limit) = limit {
            parsed.limit = limit
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| format!("limit: must be a number from 1 to {MOST}"))?;
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_list() {
        let nothing = ListQuery::parse("").unwrap();
        assert_eq!((nothing.limit, nothing.cursor), (100, None));
        let all =
            ListQuery::parse("channel=live_a%2Bb+c&subject=%C3%A9&limit=1000&cursor=0f").unwrap();
        assert_eq!(all.channel.as_deref(), Some("live_a+b c"));
        assert_eq!(all.subject.as_deref(), Some("é"));
        assert_eq!((all.limit, all.cursor.as_deref()), (1000, Some("0f")));
    }

    #[test]
    fn what_is_unknown_doubled_or_out_of_bounds_is_refused_by_name() {
        for (query, named) in [
            ("chanel=x", "chanel: unknown"),
            ("subject=a&subject=b", "subject: given twice"),
            ("limit=0", "limit: "),
            ("limit=1001", "limit: "),
            ("limit=-1", "limit: "),
            ("limit=", "limit: "),
        ] {
            let refused = ListQuery::parse(query).unwrap_err();
            assert!(refused.starts_with(named), "{query}: {refused}");
        }
    }
}
