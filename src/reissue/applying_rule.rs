//! The terms of the rules for one request: for each of its readings the first rule that applies, and the strictest
//! terms of these.
//!
//! Keeps true: the backend routes a request by one of its readings, and whichever that is, the terms of its rule are
//! met; a plainly spelled target has one reading, and so the terms of one rule.
//! Must not know: tokens, answers.

use std::time::Duration;

use http::{Method, Request};

use crate::config::model::{PublisherForOthers, ReissueRule, UnknownChannel, Withheld};
use crate::http::readings::Readings;

/// The terms on which one answer's tokens are issued anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReissueTerms {
    /// The first of the rules that they come from, which counts the tokens.
    pub position: usize,
    /// Whether tokens are withheld without a verifying JWT: if any rule says so.
    pub require_auth: bool,
    /// The shortest lifetime of any rule.
    pub lifetime: Duration,
    /// Whether a named caller is enough for a publisher's token while a source gives no answer: if all rules say so.
    pub trust_publisher: bool,
    /// The token that other callers get for a publisher's: none, if any rule says so.
    pub publisher_for_others: PublisherForOthers,
    /// The replacement of a withheld token: the first of the rules says it.
    pub withheld: Withheld,
    /// The fate of a socket's tokens for channels that are no stream: withheld, if any rule says so. `None` for an
    /// answer to a request, whose own route decides about calls.
    pub unknown_channel: Option<UnknownChannel>,
}

/// The terms of the rules for a request whose target isn't plainly spelled, kept with the request: finding the readings
/// of a hostile target takes long, and the service has already found them to choose the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted(pub(super) Option<ReissueTerms>);

impl Noted {
    /// The terms that were kept with a request, or else those of its readings.
    pub(super) fn of<B>(
        request: &Request<B>,
        otherwise: impl FnOnce(&Readings<'_>) -> Option<ReissueTerms>,
    ) -> Option<ReissueTerms> {
        match request.extensions().get() {
            Some(Self(terms)) => *terms,
            None => otherwise(&Readings::of(request.uri().path())),
        }
    }
}

impl ReissueTerms {
    /// The terms for a request with these readings; `None` where no rule applies, or all that apply except it.
    /// `lifetime` is that of rules without one. `overridden` says whether the backend may take the request for
    /// another method.
    pub(crate) fn of(
        rules: &[ReissueRule],
        lifetime: Duration,
        method: &Method,
        readings: &Readings<'_>,
        overridden: impl Fn() -> bool,
    ) -> Option<Self> {
        let mut terms: Option<Self> = None;
        for reading in readings.iter() {
            let means = |rule: &ReissueRule| rule.target.means(reading, method, &overridden);
            let Some(position) = rules.iter().position(means) else {
                continue;
            };
            let Some(rule) = rules.get(position).filter(|rule| !rule.excepts(reading)) else {
                continue;
            };
            let these = Self {
                position,
                require_auth: rule.require_auth,
                lifetime: rule.lifetime.unwrap_or(lifetime),
                trust_publisher: rule.trust_publisher,
                publisher_for_others: rule.publisher_for_others,
                withheld: rule.withheld,
                unknown_channel: None,
            };
            terms = Some(terms.map_or(these, |terms| terms.and(these)));
        }
        terms
    }

    /// The stricter of each of the terms.
    pub(super) fn and(self, other: Self) -> Self {
        let (first, second) = if self.position <= other.position {
            (self, other)
        } else {
            (other, self)
        };
        Self {
            position: first.position,
            require_auth: first.require_auth || second.require_auth,
            lifetime: first.lifetime.min(second.lifetime),
            trust_publisher: first.trust_publisher && second.trust_publisher,
            publisher_for_others: match first.publisher_for_others {
                PublisherForOthers::Withhold => PublisherForOthers::Withhold,
                PublisherForOthers::Subscriber => second.publisher_for_others,
            },
            withheld: first.withheld,
            unknown_channel: match first.unknown_channel {
                Some(UnknownChannel::Withhold) => first.unknown_channel,
                _ => second.unknown_channel,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pattern::{Breadth, Pattern, Target};

    const HOUR: Duration = Duration::from_hours(1);

    fn rule(path: &str) -> ReissueRule {
        ReissueRule {
            route: path.to_owned(),
            target: Target::new(path, vec![Method::GET]),
            except: Vec::new(),
            lifetime: None,
            require_auth: false,
            trust_publisher: true,
            publisher_for_others: PublisherForOthers::Subscriber,
            withheld: Withheld::Empty,
        }
    }

    /// The current app's, the second stricter.
    fn rules() -> [ReissueRule; 2] {
        let stricter = ReissueRule {
            except: vec![Pattern::new("/api/live/streams", Breadth::One)],
            lifetime: Some(Duration::from_mins(10)),
            require_auth: true,
            trust_publisher: false,
            publisher_for_others: PublisherForOthers::Withhold,
            withheld: Withheld::Null,
            ..rule("/api/live/{id}")
        };
        [rule("/api/live/active"), stricter]
    }

    fn terms(path: &str) -> Option<ReissueTerms> {
        ReissueTerms::of(&rules(), HOUR, &Method::GET, &Readings::of(path), || false)
    }

    const OWN: ReissueTerms = ReissueTerms {
        position: 0,
        require_auth: false,
        lifetime: HOUR,
        trust_publisher: true,
        publisher_for_others: PublisherForOthers::Subscriber,
        withheld: Withheld::Empty,
        unknown_channel: None,
    };

    const STRICTER: ReissueTerms = ReissueTerms {
        position: 1,
        require_auth: true,
        lifetime: Duration::from_mins(10),
        trust_publisher: false,
        publisher_for_others: PublisherForOthers::Withhold,
        withheld: Withheld::Null,
        unknown_channel: None,
    };

    #[test]
    fn a_plain_target_has_the_terms_of_the_first_rule_that_means_it() {
        for path in ["/api/live/active", "/API/Live/ACTIVE/"] {
            assert_eq!(terms(path), Some(OWN), "{path}");
        }
        assert_eq!(terms("/api/live/65f"), Some(STRICTER));
        assert_eq!(terms("/api/live"), None);
    }

    #[test]
    fn where_readings_lead_to_different_rules_the_strictest_terms_hold() {
        let both = Some(ReissueTerms {
            position: 0,
            withheld: OWN.withheld,
            ..STRICTER
        });
        for path in [
            "/api/live/12%2F..%2Factive",
            "/api/live/12%5C..%2F..%2Factive",
            // Express compares a path as it is written: to Express this is an id.
            "/api/live/%61ctive",
        ] {
            assert_eq!(terms(path), both, "{path}");
        }
        // Express's routers don't take a doubled slash for one either.
        assert_eq!(terms("/api/live//active"), Some(OWN));
    }

    #[test]
    fn what_is_kept_with_a_request_is_not_found_again() {
        let mut request = Request::get("/api/live/x%2f..%2factive").body(()).unwrap();
        let find = |readings: &Readings<'_>| {
            ReissueTerms::of(&rules(), HOUR, &Method::GET, readings, || false)
        };
        let terms = Noted::of(&request, find);
        assert!(terms.is_some());
        for kept in [terms, None] {
            request.extensions_mut().insert(Noted(kept));
            let again = Noted::of(&request, |_| panic!("found again"));
            assert_eq!(again, kept);
        }
    }

    #[test]
    fn dots_are_ids_too() {
        for path in ["/api/live/..", "/api/live/.", "/api/live/%2e%2E"] {
            let terms = terms(path).map(|terms| terms.position);
            assert_eq!(terms, Some(1), "{path}");
        }
    }

    #[test]
    fn a_request_is_excepted_only_where_all_its_readings_are() {
        assert_eq!(terms("/api/live/streams"), None);
        assert_eq!(terms("/api/live/STREAMS/"), None);
        assert_eq!(terms("/api//live/streams"), None);
        for path in ["/api/live/%73treams", "/api/live/x%2f..%2fstreams"] {
            assert!(terms(path).is_some(), "{path}");
        }
    }

    #[test]
    fn an_overridden_method_fits_every_rule() {
        let readings = Readings::of("/api/live/active");
        let terms = |overridden: bool| {
            ReissueTerms::of(&rules(), HOUR, &Method::POST, &readings, || overridden)
        };
        assert_eq!(terms(false), None);
        assert_eq!(terms(true), Some(OWN));
    }
}
