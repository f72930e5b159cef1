//! One answer on its way: found tokens are judged and replaced, every other byte stays.
//!
//! Keeps true: at most one chunk of the backend's is held, and what stands around a token that can't be judged yet;
//! bytes leave in order; while observing, they leave at once and unchanged. After a number of tokens, the worker
//! serves others before the next.
//! Must not know: HTTP, but for trailers.

mod decide;
mod noting;
mod search;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use self::search::Search;
use super::body_fields;
use super::judge::{Asking, ChannelQuestion, Judge, SourceFindings};
use super::ledger::TokenLedger;
use super::names::{Before, NEARBY, candidates};
use super::run::Spelling;
use super::scan::{ScannedPiece, Scanner};
use super::unseen::Beginning;
use crate::agora::reissue::{Nameless, Project, Recognised, VerifiedToken};
use crate::exchange::rewrite::Rewrite;

/// The most strings read as tokens in one turn: each may cost the inflating of 64 KiB, and a worker serves other
/// connections too.
const READ_PER_TURN: usize = 64;

/// The most channels asked about at once: later tokens of the answer don't wait for earlier ones.
const ASKED_AT_ONCE: usize = 32;

/// The most questions of one observed answer at once; further tokens count as granted.
const MOST_OBSERVED: usize = 64;

/// Jitter shortens no token below this, in seconds: the SDK announces an expiry 30 s before it.
const SHORTEST: u64 = 60;

/// How many bytes after a string are searched for the `:` that makes it a member's name: some answers are indented.
const LOOKED_AHEAD: usize = 256;

/// Pieces shorter than this are joined: each frame has a cost.
const JOINED: usize = 16 * 1024;

/// The parts that a rewriter works with.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The project's keys: they recognise its tokens, and issue them anew.
    pub project: Arc<Project>,
    /// The lifetime of new tokens in seconds.
    pub lifetime: u32,
    /// Whether a withheld token that is a value becomes `null`: the answer is JSON, and the rule allows it.
    pub nulls: bool,
    /// `token.jitter` in seconds, at most half the lifetime.
    pub jitter: u32,
    /// Decides who may have a token.
    pub judge: Arc<Judge>,
    /// Records the tokens.
    pub ledger: Arc<TokenLedger>,
    /// The request's target, which may name the channel.
    pub target: Box<str>,
}

/// One answer.
pub(crate) struct Rewriter {
    parts: Parts,
    beginning: Beginning,
    scanner: Scanner,
    scanned: VecDeque<ScannedPiece>,
    items: VecDeque<QueuedItem>,
    before: Before,
    /// How many bytes must follow a nameless token before its names are looked for again.
    look_again: usize,
    known: SourceFindings,
    asking: Option<Asking>,
    /// Each question of [`Rewriter::observe`] holds a clone, so that they can be counted.
    observed: Arc<()>,
    output: VecDeque<Bytes>,
    ended: bool,
}

/// A part of the answer that waits to leave.
enum QueuedItem {
    Text(Bytes),
    Search(Search),
    /// A token without its names, and how many tokens before it in its run can't be replaced.
    Nameless(FoundToken<Nameless>, u8),
    Token(FoundToken<VerifiedToken>),
}

/// A token in the answer.
struct FoundToken<T> {
    /// The bytes as they came, with their quotes where they are all of a string.
    written: Bytes,
    spelling: Spelling,
    token: T,
    /// When it was found, on the clock's monotonic scale.
    at: Duration,
}

/// The decision on a token.
enum Decided {
    /// The token stays as it is.
    Stays,
    /// The token is issued anew; these bytes replace it.
    Becomes(Bytes),
    /// The token is withheld; these bytes replace it.
    Withheld(Bytes),
    /// The bytes that follow it must be seen first.
    Behind,
    /// The sources must be asked first.
    Open,
}

/// How far the queue was worked off.
enum RewriteProgress {
    /// The queue is empty, or its first part needs the bytes that follow.
    WantsMore,
    /// The queue waits for a source, or for the next turn.
    Waits,
}

impl QueuedItem {
    fn written(&self) -> &Bytes {
        match self {
            Self::Text(written)
            | Self::Nameless(FoundToken { written, .. }, _)
            | Self::Token(FoundToken { written, .. }) => written,
            Self::Search(search) => search.written(),
        }
    }
}

// === impl Rewriter ===

impl Rewriter {
    /// A rewriter for one answer.
    pub(crate) fn new(parts: Parts) -> Self {
        Self::after(parts, Before::default())
    }

    /// A rewriter for the rest of a text of which `before` was passed on.
    pub(crate) fn after(parts: Parts, before: Before) -> Self {
        Self {
            parts,
            beginning: Beginning::default(),
            scanner: Scanner::after(before.last() == Some(b'\\')),
            scanned: VecDeque::new(),
            items: VecDeque::new(),
            before,
            look_again: 0,
            known: SourceFindings::default(),
            asking: None,
            observed: Arc::default(),
            output: VecDeque::new(),
            ended: false,
        }
    }

    fn observing(&self) -> bool {
        self.parts.ledger.observing
    }

    fn line_up(&mut self) {
        let pieces = self.scanned.drain(..);
        self.items.extend(pieces.map(|piece| match piece {
            ScannedPiece::Text(text) => QueuedItem::Text(text),
            ScannedPiece::Suspect(suspect) => QueuedItem::Search(Search::new(suspect)),
        }));
    }

    fn go_on(&mut self, context: &mut Context<'_>) -> RewriteProgress {
        let mut turn = READ_PER_TURN;
        loop {
            if let Some(asking) = &mut self.asking {
                let Poll::Ready(answers) = asking.as_mut().poll(context) else {
                    return RewriteProgress::Waits;
                };
                self.known.learn(answers);
                self.asking = None;
            }
            let Some(item) = self.items.pop_front() else {
                return RewriteProgress::WantsMore;
            };
            match item {
                QueuedItem::Text(text) => self.pass(text),
                QueuedItem::Search(search) => {
                    if let Err(search) = self.search(search, &mut turn) {
                        self.items.push_front(QueuedItem::Search(search));
                        context.waker().wake_by_ref();
                        return RewriteProgress::Waits;
                    }
                }
                QueuedItem::Nameless(found, alike) => {
                    if let Err(found) = self.name(found, alike) {
                        self.items.push_front(QueuedItem::Nameless(found, alike));
                        return RewriteProgress::WantsMore;
                    }
                }
                QueuedItem::Token(found) => match self.decide(&found) {
                    Decided::Stays => self.pass(found.written),
                    Decided::Withheld(_) if self.observing() => self.pass(found.written),
                    Decided::Becomes(replacement) | Decided::Withheld(replacement) => {
                        self.pass(replacement);
                    }
                    Decided::Behind => {
                        self.items.push_front(QueuedItem::Token(found));
                        return RewriteProgress::WantsMore;
                    }
                    Decided::Open => {
                        self.items.push_front(QueuedItem::Token(found));
                        self.ask(&mut turn);
                    }
                },
            }
        }
    }

    /// Passes bytes on.
    fn pass(&mut self, bytes: Bytes) {
        self.before.push(&bytes);
        if !self.observing() && !bytes.is_empty() {
            self.output.push_back(bytes);
        }
    }

    /// Replaces a nameless token by the one with its names, or by its text; returns it as long as more of the answer
    /// may give the names.
    fn name(&mut self, found: FoundToken<Nameless>, alike: u8) -> Result<(), FoundToken<Nameless>> {
        let behind: usize = self.items.iter().map(|item| item.written().len()).sum();
        let last = self.ended || behind >= NEARBY;
        if !last && behind < self.look_again {
            return Err(found);
        }
        let following = self.items.iter().map(QueuedItem::written);
        let names = candidates(&self.before, following, &self.parts.target);
        let names = || names.iter().map(String::as_str);
        let users = names().chain(self.parts.judge.subject());
        let named = self.parts.project.name(&found.token, names(), users);
        match named {
            Some(Recognised::Ours(token)) => {
                self.look_again = 0;
                self.items.push_front(QueuedItem::Token(FoundToken {
                    written: found.written,
                    spelling: found.spelling,
                    token,
                    at: found.at,
                }));
                Ok(())
            }
            _ if !last => {
                // The distance is doubled, so that looking costs no more than passing on.
                self.look_again = (2 * behind).max(512);
                Err(found)
            }
            named => {
                self.look_again = 0;
                self.parts.ledger.unreadable(match named {
                    None => {
                        "a 006 token doesn't say its channel, and nothing near it does: its signature can't be checked"
                    }
                    Some(_) => "no configured certificate signed this 006 token of this project's App ID",
                });
                self.look_inside(found.written, found.spelling, alike);
                Ok(())
            }
        }
    }

    /// Asks about the channel of the first token, and about those of others in the queue.
    fn ask(&mut self, turn: &mut usize) {
        let mut questions: Vec<ChannelQuestion> = Vec::new();
        for at in 0..self.items.len() {
            if questions.len() == ASKED_AT_ONCE {
                break;
            }
            self.look_ahead(at, turn);
            if let Some(QueuedItem::Token(found)) = self.items.get(at)
                && let Some(question) = self.parts.judge.channel_to_look_up(&found.token)
                && self.known.lacks(&question)
                && !questions.contains(&question)
            {
                questions.push(question);
            }
        }
        self.asking = Some(self.parts.judge.ask(questions, &self.known));
    }
}

impl Rewrite for Rewriter {
    fn take(&mut self, data: Bytes) {
        if let Some(why) = self.beginning.take(&data) {
            self.parts.ledger.unreadable(why);
        }
        self.scanner.feed(&data, &mut self.scanned);
        self.line_up();
        if self.observing() {
            self.output.push_back(data);
        }
    }

    fn end(&mut self) {
        self.scanner.finish(&mut self.scanned);
        self.line_up();
        self.ended = true;
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let progress = self.go_on(context);
        if self.ended && self.items.is_empty() {
            self.parts.ledger.hand();
        }
        match (joined(&mut self.output), progress) {
            (Some(data), _) => Poll::Ready(Some(data)),
            (None, RewriteProgress::WantsMore) => Poll::Ready(None),
            (None, RewriteProgress::Waits) => Poll::Pending,
        }
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        if self.observing() {
            trailers
        } else {
            body_fields::trailers(trailers)
        }
    }

    fn keeps_length(&self) -> bool {
        self.observing()
    }
}

/// The next frame: short pieces are joined, long ones stay as they are, uncopied.
fn joined(output: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = output.pop_front()?;
    let is_short = |next: Option<&Bytes>| next.is_some_and(|next| next.len() < JOINED);
    if first.len() >= JOINED || !is_short(output.front()) {
        return Some(first);
    }
    let mut joined = BytesMut::from(&*first);
    while joined.len() < 4 * JOINED && is_short(output.front()) {
        joined.extend(output.pop_front());
    }
    Some(joined.freeze())
}

#[cfg(test)]
pub(in crate::reissue) mod tests {
    use std::sync::LazyLock;
    use std::task::Waker;

    use base64::Engine as _;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::agora::TokenFormat;
    use crate::agora::parse::{Parsed, parse};
    use crate::agora::{RtcGrant, Signer, User, rtc_token};
    use crate::config::model::{AuditSink, PublisherForOthers, Withheld};
    use crate::config::secret::Secret;
    use crate::logins::jwt::JwtClaims;
    use crate::reissue::applying_rule::ReissueTerms;
    use crate::reissue::judge::NamedCaller;
    use crate::sessions::{Rules, Sessions};
    use crate::sources::accounts::ConfiguredAccounts;
    use crate::sources::streams::{ConfiguredStreams, StreamSource, StreamState, StreamTable};
    use crate::telemetry::audit::Audit;
    use crate::telemetry::line_writer::DropCounter;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::traffic_labels::SourceLabel;
    use crate::terms::clock::{Clock, Entropy};
    use crate::terms::context::RequestId;
    use crate::terms::role::Role;

    use crate::reissue::scan::LONGEST_TOKEN;

    const NOW: u32 = 1_700_000_000;
    const APP_ID: &str = "970ca35de60c44645bbae8a215061b33";
    pub(in crate::reissue) const OURS: &str = "5cfd2fd1755d40ecb72977518be15d3b";
    const DECOY: &str = "00000000000000000000000000000002";
    const STRANGER: &str = "00000000000000000000000000000003";

    fn signer(certificate: &str) -> Signer {
        Signer::new(APP_ID, &Secret::new(certificate.into())).unwrap()
    }

    /// A token that publishes, for uid 7.
    pub(in crate::reissue) fn token(
        format: TokenFormat,
        certificate: &str,
        channel: &str,
        lifetime: u32,
    ) -> String {
        let grant = RtcGrant {
            channel,
            user: User::Uid(7),
            role: Role::Publisher,
            lifetime,
            issued_at: NOW,
            salt: 5,
        };
        rtc_token(format, &signer(certificate), &grant).unwrap()
    }

    fn judge(clock: &Clock, streams: ConfiguredStreams, sessions: &Arc<Sessions>) -> Judge {
        Judge {
            accounts: Arc::new(ConfiguredAccounts::None),
            streams: Arc::new(streams),
            clock: clock.clone(),
            logins: Arc::default(),
            remembers: true,
            caller: Some(NamedCaller {
                claims: JwtClaims {
                    subject: "ann".into(),
                    session: None,
                    expires_at: None,
                    all: "{}".into(),
                },
                credentials: "".into(),
            }),
            terms: ReissueTerms {
                position: 0,
                require_auth: false,
                lifetime: Duration::from_hours(1),
                trust_publisher: false,
                publisher_for_others: PublisherForOthers::Withhold,
                withheld: Withheld::Null,
                unknown_channel: None,
            },
            channel_pattern: None,
            sessions: Arc::clone(sessions),
            revocations: Arc::default(),
            denies_all: false,
            patience: Duration::from_secs(1),
            since: Duration::ZERO,
        }
    }

    fn ledger(
        clock: &Clock,
        metrics: &Arc<Metrics>,
        sessions: &Arc<Sessions>,
        observing: bool,
    ) -> TokenLedger {
        TokenLedger {
            clock: clock.clone(),
            entropy: Entropy::Fixed(1000),
            metrics: metrics.clone(),
            route: metrics.reissue("/a"),
            sessions: Arc::clone(sessions),
            rules: Rules {
                bind_uid: true,
                max_streams_per_publisher: 0,
                max_session: Duration::ZERO,
                claimed: false,
            },
            claims: None,
            audit: Arc::new(
                Audit::open(&AuditSink::Off, clock.clone(), DropCounter::default()).unwrap(),
            ),
            request_id: RequestId::from_bits(1, 2),
            client: None,
            subject: Some("ann".into()),
            login: None,
            handing: Mutex::default(),
            observing,
            tally: Mutex::default(),
        }
    }

    /// A rewriter for `ann`, as [`parts_for_ann`] make it.
    fn rewriter(observing: bool, jitter: u32) -> (Rewriter, Arc<Metrics>) {
        let (parts, metrics) = parts_for_ann(observing, jitter);
        (Rewriter::new(parts), metrics)
    }

    /// For `ann`, a subject that is banned from `banned`; lifetimes are an hour, less `jitter`.
    pub(in crate::reissue) fn parts_for_ann(observing: bool, jitter: u32) -> (Parts, Arc<Metrics>) {
        let clock = Clock::manual(u64::from(NOW));
        let metrics = Metrics::new(&clock, DropCounter::default());
        let banned = StreamState {
            live: true,
            banned_viewers: vec!["ann".into()],
            ..StreamState::default()
        };
        let table = StreamTable::new([("banned".into(), banned)]);
        let streams = ConfiguredStreams::new(
            StreamSource::Table(table),
            metrics.source(SourceLabel::Streams),
        );
        let secret = |text: &str| Secret::new(text.into());
        let project = Project::new(
            Arc::new(signer(OURS)),
            &secret(OURS),
            None,
            Some(&secret(DECOY)),
        );
        let sessions = Arc::new(Sessions::new(10));
        let judge = judge(&clock, streams, &sessions);
        let ledger = ledger(&clock, &metrics, &sessions, observing);
        let parts = Parts {
            project: Arc::new(project),
            lifetime: 3600,
            nulls: false,
            jitter,
            judge: Arc::new(judge),
            ledger: Arc::new(ledger),
            target: "/a".into(),
        };
        (parts, metrics)
    }

    /// The output of a rewriter that waits for nothing but its next turn.
    fn rewritten(rewriter: &mut Rewriter, chunks: &[&[u8]]) -> Vec<u8> {
        let mut context = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        for chunk in chunks.iter().map(Some).chain([None]) {
            match chunk {
                Some(chunk) => rewriter.take(Bytes::copy_from_slice(chunk)),
                None => rewriter.end(),
            }
            loop {
                match rewriter.poll_data(&mut context) {
                    Poll::Ready(Some(data)) => out.extend_from_slice(&data),
                    Poll::Ready(None) => break,
                    Poll::Pending => {}
                }
            }
        }
        out
    }

    fn counted(metrics: &Metrics, outcome: &str) -> String {
        let series = format!("renewd_reissue_total{{route=\"/a\",outcome=\"{outcome}\"}} ");
        let page = metrics.render();
        let mut values = page.lines().filter_map(|line| line.strip_prefix(&series));
        values.next().unwrap().to_owned()
    }

    pub(in crate::reissue) const DAY: u32 = 86_400;

    fn quoted(token: &str) -> String {
        format!("\"{token}\"")
    }

    /// The string that replaces a token of a day.
    pub(in crate::reissue) fn anew(format: TokenFormat, channel: &str) -> String {
        let (project, fresh) = (rewriter(false, 0).0.parts.project, 1001);
        let token = quoted(&token(format, OURS, channel, DAY));
        let token = token.trim_matches('"');
        let channels = [channel].into_iter();
        let read = match project.recognise(token).0 {
            Recognised::Nameless(token) => {
                project.name(&token, channels, std::iter::empty()).unwrap()
            }
            read => read,
        };
        let Recognised::Ours(read) = read else {
            panic!("{read:?}");
        };
        let new = project.reissue(&read, u64::from(NOW), u64::from(NOW) + 3600, fresh);
        quoted(&new.unwrap().unwrap())
    }

    fn percent(token: &str, depth: &str) -> String {
        let encode = |text: String, character: char, code: &str| {
            text.replace(character, &format!("%{depth}{code}"))
        };
        let plus = encode(token.to_owned(), '+', "2B");
        encode(encode(plus, '/', "2F"), '=', "3D")
    }

    fn entities(token: &str) -> String {
        let plus = token.replace('+', "&#43;");
        plus.replace('/', "&#x2F;").replace('=', "&#x3D;")
    }

    /// Strings that are a token, and the replacement of each.
    fn whole_strings() -> [(String, String); 6] {
        let (v7, v6) = (TokenFormat::V007, TokenFormat::V006);
        let long = token(v7, OURS, "show", DAY);
        [
            (quoted(&long), anew(v7, "show")),
            (
                quoted(&long.replace('/', "\\/").replace('=', "\\u003d")),
                anew(v7, "show"),
            ),
            (quoted(&token(v6, OURS, "show", DAY)), anew(v6, "show")),
            (quoted(&token(v7, DECOY, "show", DAY)), anew(v7, "show")),
            (quoted(&token(v7, OURS, "banned", DAY)), "\"\"".to_owned()),
            (quoted(&token(v7, DECOY, "banned", 60)), "\"\"".to_owned()),
        ]
    }

    /// Text that stays as it is.
    fn unchanged() -> [String; 15] {
        let (v7, v6) = (TokenFormat::V007, TokenFormat::V006);
        let long = token(v7, OURS, "show", DAY);
        [
            quoted(&token(v7, OURS, "show", 3600)),
            quoted(&token(v6, OURS, "show", 3600)),
            quoted(&token(v7, STRANGER, "show", DAY)),
            quoted(&token(v6, STRANGER, "show", DAY)),
            "\"show\"".to_owned(),
            "\"007".to_owned(),
            "\\".to_owned(),
            "{\"a\":[1, 2.5e3],\"é\":null}".to_owned(),
            format!("\"https://a.example/join/{long}/live_a\""),
            format!("\"{long}x\""),
            format!("\"t={long}+live\""),
            format!("\"{{\\\"t\\\":\\\"{long}\\/a\\\"}}\""),
            format!("<a href=\"/join/{long}&#x2F;live_a\">"),
            format!("\"?t={}%2Flive+a\"", percent(&long, "")),
            format!("\"{}live\"", token(v6, OURS, "show", DAY)),
        ]
    }

    /// Pieces of a body, each with its rewritten form.
    fn fragments() -> Vec<(String, String)> {
        let v7 = TokenFormat::V007;
        let long = token(v7, OURS, "show", DAY);
        let fresh = anew(v7, "show").trim_matches('"').to_owned();
        let inside = |before: &str, behind: &str| {
            let around = |token: &str| format!("{before}{token}{behind}");
            (around(&long), around(&fresh))
        };
        let banned = token(v7, OURS, "banned", DAY);
        let mut fragments = vec![
            inside("\"Bearer ", "\""),
            inside("\" ", " \""),
            inside("\"\\n", "\\n\""),
            inside("\"{\\\"agoraToken\\\":\\\"", "\\\"}\""),
            inside("\"{\\\\\\\"agoraToken\\\\\\\":\\\\\\\"", "\\\\\\\"}\""),
            inside("'", "'"),
            inside("\"x", "\""),
            inside("\"https://a.example/?token=", "&x\""),
            inside("\"https://a.example/?a=1\\u0026token=", "\\u0026x\""),
            (
                format!("\"?token={}&x\"", percent(&long, "")),
                format!("\"?token={}&x\"", percent(&fresh, "")),
            ),
            (
                format!("\"?to=%3Ftoken%3D{}%26x\"", percent(&long, "25")),
                format!("\"?to=%3Ftoken%3D{}%26x\"", percent(&fresh, "25")),
            ),
            (format!("\"{long} {long}\""), format!("\"{fresh} {fresh}\"")),
            // A token whose end isn't certain stays.
            (format!("\"{long}{long}\""), format!("\"{long}{fresh}\"")),
            inside("\"", "=\""),
            inside("\"", "_live\""),
            (
                format!("<a href={}>", entities(&long)),
                format!("<a href={fresh}>"),
            ),
            (format!("\"Bearer {banned}\""), "\"Bearer \"".to_owned()),
        ];
        fragments.extend(whole_strings());
        fragments.extend(unchanged().map(|stays| (stays.clone(), stays)));
        fragments
    }

    #[test]
    fn by_a_clock_that_is_not_set_no_token_of_ours_is_let_out_or_dated() {
        let token = |certificate| token(TokenFormat::V007, certificate, "show", 3600);
        let body = format!("[\"{}\",\"{}\"]", token(OURS), token(STRANGER));
        for time in [0, 1_577_836_799, 4_102_444_800, u64::from(u32::MAX) + 1] {
            for observing in [false, true] {
                let (mut rewriter, metrics) = rewriter(observing, 0);
                rewriter.parts.ledger.clock.set(time);
                let expected = if observing {
                    body.clone()
                } else {
                    format!("[\"\",\"{}\"]", token(STRANGER))
                };
                let out = rewritten(&mut rewriter, &[body.as_bytes()]);
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{time}");
                // A stranger's token of this App ID counts too.
                assert_eq!(counted(&metrics, "error"), "2", "{time}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_survives_unchanged_but_for_its_tokens_wherever_it_is_cut(
            choices in prop::collection::vec((any::<prop::sample::Index>(), ",[a-z0-9 :{}]{0,9},"), 0..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            static FRAGMENTS: LazyLock<Vec<(String, String)>> = LazyLock::new(fragments);
            // 006 tokens need their channel near them.
            let (mut body, mut expected) = ("{\"channel\":\"show\",".to_owned(), "{\"channel\":\"show\",".to_owned());
            for (choice, between) in &choices {
                let (written, becomes) = choice.get(&FRAGMENTS);
                body += written;
                expected += becomes;
                body += between;
                expected += between;
            }
            let body = body.into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            let out = rewritten(&mut rewriter(false, 0).0, &chunks);
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn whatever_begins_before_a_token_hides_it_not() {
        let long = token(TokenFormat::V007, OURS, "show", 86_400);
        let strangers = token(TokenFormat::V007, STRANGER, "show", 86_400);
        // The lengths make this a 006 token, whose message is all that follows.
        let lengths = [&[32, 0][..], &[7; 32], &[1; 8], &[120, 0]].concat();
        let swallowing = base64::engine::general_purpose::STANDARD.encode(lengths);
        let swallowing = format!("006{APP_ID}{}", swallowing.trim_end_matches('='));
        for (before, errors) in [
            ("007eJx".repeat(6), "0"),
            ("007eJx".repeat(2000), "0"),
            (format!("006{APP_ID}"), "1"),
            (strangers.clone(), "1"),
            (strangers.repeat(20), "20"),
            (swallowing, "1"),
        ] {
            for quote in ["\"", ""] {
                let (mut rewriter, metrics) = rewriter(false, 0);
                let body = format!("{quote}{before}{long}{quote}");
                let out = rewritten(&mut rewriter, &[body.as_bytes()]);
                let out = String::from_utf8(out).unwrap();
                let start = format!("{quote}{before}");
                let rest = out.strip_prefix(&start).unwrap_or_else(|| panic!("{out}"));
                let Ok(Parsed::V007(parsed)) = parse(rest.trim_end_matches('"')) else {
                    panic!("{out}");
                };
                assert_eq!(parsed.token.expire, 3600, "{before}");
                assert_eq!(counted(&metrics, "replaced"), "1", "{before}");
                assert_eq!(counted(&metrics, "error"), errors, "{before}");
            }
        }
    }

    #[test]
    fn base64_of_any_length_before_a_token_hides_it_not() {
        let long = token(TokenFormat::V007, OURS, "show", 86_400);
        for before in [
            0,
            40_000,
            LONGEST_TOKEN - 100,
            LONGEST_TOKEN - 8,
            LONGEST_TOKEN - 7,
        ] {
            let before = match before {
                0 => String::new(),
                length => format!("007eJx{}", "a".repeat(length)),
            };
            let behind = "?".repeat(2 * LONGEST_TOKEN);
            let body = format!("\"{before}{long}{behind}\"");
            for size in [1000, body.len()] {
                let (mut rewriter, metrics) = rewriter(false, 0);
                let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
                let out = rewritten(&mut rewriter, &chunks);
                let start = format!("\"{before}007");
                assert!(
                    out.starts_with(start.as_bytes())
                        && out.ends_with(format!("{behind}\"").as_bytes())
                );
                assert_eq!(counted(&metrics, "replaced"), "1", "{}", before.len());
            }
        }
    }

    #[test]
    fn a_token_that_more_base64_follows_stays_and_counts_as_an_error() {
        let endless = "a".repeat(2 * LONGEST_TOKEN);
        for format in [TokenFormat::V007, TokenFormat::V006] {
            let long = token(format, OURS, "show", 86_400);
            for long in [long.as_str(), long.trim_end_matches('=')] {
                for behind in [
                    "/path",
                    "7",
                    "+",
                    "live",
                    "\\/path",
                    "%2Fpath",
                    endless.as_str(),
                ] {
                    let body =
                        format!("{{\"channel\":\"show\",\"url\":\"https://a/{long}{behind}\"}}");
                    for size in [1, body.len()] {
                        let (mut rewriter, metrics) = rewriter(false, 0);
                        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
                        let out = String::from_utf8(rewritten(&mut rewriter, &chunks)).unwrap();
                        assert!(out == body, "{long}{}", behind.get(..9).unwrap_or(behind));
                        assert_eq!(counted(&metrics, "error"), "1");
                        assert_eq!(counted(&metrics, "replaced"), "0");
                    }
                }
            }
        }
    }

    #[test]
    fn of_two_tokens_in_one_string_only_one_whose_end_is_certain_is_replaced() {
        let long = token(TokenFormat::V007, OURS, "show", 86_400);
        for (between, replaced, errors) in [(" ", "2", "0"), ("", "1", "1"), ("&t=", "2", "0")] {
            let (mut rewriter, metrics) = rewriter(false, 0);
            let body = format!("\"{long}{between}{long}\"");
            rewritten(&mut rewriter, &[body.as_bytes()]);
            assert_eq!(counted(&metrics, "replaced"), replaced, "{between}");
            assert_eq!(counted(&metrics, "error"), errors, "{between}");
        }
    }

    #[test]
    fn a_decoys_token_is_signed_anew_until_its_own_end() {
        let body = format!("[\"{}\"]", token(TokenFormat::V007, DECOY, "show", 600));
        let out = rewritten(&mut rewriter(false, 0).0, &[body.as_bytes()]);
        let text = String::from_utf8(out).unwrap();
        let Ok(Parsed::V007(parsed)) = parse(text.trim_matches(['[', ']', '"'])) else {
            panic!("{text}");
        };
        assert!(parsed.verify(&Secret::new(OURS.into())));
        assert_eq!(parsed.token.expire, 600);
    }

    #[test]
    fn chance_ends_a_token_earlier_within_the_jitter() {
        for (lifetime, jitter, expire) in [(86_400, 600, 3600 - 1000 % 601), (86_400, 1000, 2600)] {
            let body = format!("\"{}\"", token(TokenFormat::V007, OURS, "show", lifetime));
            let out = rewritten(&mut rewriter(false, jitter).0, &[body.as_bytes()]);
            let text = String::from_utf8(out).unwrap();
            let Ok(Parsed::V007(parsed)) = parse(text.trim_matches('"')) else {
                panic!("{text}");
            };
            assert_eq!(parsed.token.expire, expire);
        }
    }

    #[test]
    fn many_strings_that_look_like_tokens_take_several_turns() {
        let body = "\"007eJxTYE\",".repeat(READ_PER_TURN * 3);
        let (mut rewriter, _) = rewriter(false, 0);
        let mut context = Context::from_waker(Waker::noop());
        rewriter.take(Bytes::from(body.clone()));
        let (mut turns, mut out) = (0, Vec::new());
        loop {
            match rewriter.poll_data(&mut context) {
                Poll::Ready(Some(data)) => out.extend_from_slice(&data),
                Poll::Ready(None) => break,
                Poll::Pending => {}
            }
            turns += 1;
        }
        assert_eq!(out, body.as_bytes());
        assert!(turns >= 3, "{turns}");
    }

    #[test]
    fn a_list_without_end_is_handed_over_a_part_at_a_time() {
        let (mut rewriter, _) = rewriter(false, 0);
        let sessions = Arc::clone(&rewriter.parts.ledger.sessions);
        let mut context = Context::from_waker(Waker::noop());
        for number in 0..1100 {
            let channel = format!("show{number}");
            let grant = RtcGrant {
                channel: &channel,
                user: User::Uid(7),
                role: Role::Subscriber,
                lifetime: 86_400,
                issued_at: NOW,
                salt: 5,
            };
            let token = rtc_token(TokenFormat::V007, &signer(OURS), &grant).unwrap();
            rewriter.take(Bytes::from(format!("\"{token}\",")));
            while rewriter.poll_data(&mut context) != Poll::Ready(None) {}
        }
        let was_handed = |channel| sessions.was_handed(channel, "ann", u64::from(NOW));
        assert!(was_handed("show0") && was_handed("show1023"));
        assert!(!was_handed("show1024"));
        rewriter.end();
        while rewriter.poll_data(&mut context) != Poll::Ready(None) {}
        assert!(was_handed("show0") && was_handed("show1099"));
    }

    #[test]
    fn observing_changes_nothing_and_counts_what_would_be_done() {
        let local = tokio::task::LocalSet::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let tokens =
            ["show", "banned"].map(|channel| token(TokenFormat::V007, OURS, channel, 86_400));
        let short = token(TokenFormat::V007, OURS, "show", 60);
        let body = format!("[\"{}\",\"{}\",\"{short}\"]", tokens[0], tokens[1]);
        let (metrics, _series) = local.block_on(&runtime, async {
            let (mut rewriter, metrics) = rewriter(true, 0);
            let series = Arc::clone(&rewriter.parts.ledger.route);
            let (first, second) = body.as_bytes().split_at(100);
            assert_eq!(rewritten(&mut rewriter, &[first, second]), body.as_bytes());
            (metrics, series)
        });
        runtime.block_on(local);
        for (outcome, count) in [
            ("replaced", "1"),
            ("withheld", "1"),
            ("short", "1"),
            ("error", "0"),
        ] {
            assert_eq!(counted(&metrics, outcome), count, "{outcome}");
        }
    }
}
