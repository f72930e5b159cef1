//! Questions on a clock that the tests move, to a source whose answers they give.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::telemetry::line_writer::DropCounter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traffic_labels;

type Reply = oneshot::Sender<Result<u32, NoAnswerReason>>;

/// A source whose questions the test answers.
struct Scripted {
    questions: mpsc::UnboundedSender<(String, Reply)>,
    asked: Arc<AtomicUsize>,
}

impl LookupSource<u32> for Scripted {
    fn ask(self: Arc<Self>, key: Box<str>) -> LookupQuestion<u32> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (reply, answer) = oneshot::channel();
        self.questions.send((key.into(), reply)).unwrap();
        Box::pin(async move { answer.await.unwrap() })
    }
}

struct Fixture {
    lookups: Arc<Lookups<u32>>,
    questions: mpsc::UnboundedReceiver<(String, Reply)>,
    asked: Arc<AtomicUsize>,
    clock: Clock,
}

const TTL: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

fn fixture() -> Fixture {
    let clock = Clock::manual(1_800_000_000);
    let (sender, questions) = mpsc::unbounded_channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Scripted {
        questions: sender,
        asked: Arc::clone(&asked),
    };
    let terms = LookupTerms {
        name: "streams",
        deadline: Duration::from_secs(20),
        ttl: TTL,
    };
    let metrics = Metrics::new(&clock, DropCounter::default());
    let lookups = Lookups::new(
        &terms,
        Arc::new(source),
        Handle::current(),
        clock.clone(),
        metrics.source(traffic_labels::SourceLabel::Streams),
    );
    Fixture {
        lookups: Arc::new(lookups),
        questions,
        asked,
        clock,
    }
}

impl Fixture {
    fn get(
        &self,
        since: Option<Duration>,
    ) -> tokio::task::JoinHandle<Result<LookupAnswer<u32>, NoAnswer>> {
        let lookups = Arc::clone(&self.lookups);
        tokio::spawn(async move { lookups.get("show", since, LONG).await })
    }

    async fn reply(&mut self, reply: Result<u32, NoAnswerReason>) {
        let (_, sender) = self.questions.recv().await.unwrap();
        sender.send(reply).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_at_once_cost_one_question() {
    let mut fixture = fixture();
    let all: Vec<_> = (0..10_000).map(|_| fixture.get(None)).collect();
    fixture.reply(Ok(7)).await;
    for one in all {
        assert_eq!(*one.await.unwrap().unwrap().value, 7);
    }
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_good_for_its_time_to_live() {
    let mut fixture = fixture();
    let first = fixture.get(None);
    fixture.reply(Ok(1)).await;
    assert_eq!(first.await.unwrap().unwrap().outcome, LookupOutcome::Miss);
    fixture.clock.advance(Duration::from_millis(1999));
    let second = fixture.get(None).await.unwrap().unwrap();
    assert_eq!((*second.value, second.outcome), (1, LookupOutcome::Hit));
    fixture.clock.advance(Duration::from_millis(1));
    let third = fixture.get(None);
    fixture.reply(Ok(3)).await;
    assert_eq!(*third.await.unwrap().unwrap().value, 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_needs_a_later_answer_waits_out_an_earlier_question_and_asks_again() {
    let mut fixture = fixture();
    let early = fixture.get(None);
    let (_, earlier) = fixture.questions.recv().await.unwrap();
    fixture.clock.advance(Duration::from_millis(10));
    let now = fixture.clock.elapsed();
    let late = fixture.get(Some(now));
    let as_late = fixture.get(Some(now));
    earlier.send(Ok(1)).unwrap();
    assert_eq!(*early.await.unwrap().unwrap().value, 1);
    fixture.reply(Ok(2)).await;
    assert_eq!(*late.await.unwrap().unwrap().value, 2);
    assert_eq!(*as_late.await.unwrap().unwrap().value, 2);
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_many_want_anew_one_after_the_other_is_asked_for_once() {
    let mut fixture = fixture();
    let first = fixture.get(None);
    fixture.reply(Ok(1)).await;
    first.await.unwrap().unwrap();
    let mut all = Vec::new();
    for _ in 0..50 {
        fixture.clock.advance(Duration::from_millis(1));
        all.push(fixture.get(Some(fixture.clock.elapsed())));
        tokio::task::yield_now().await;
    }
    fixture.reply(Ok(2)).await;
    for one in all {
        assert_eq!(*one.await.unwrap().unwrap().value, 2);
    }
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_changed_is_asked_for_again_even_while_a_question_is_in_flight() {
    let mut fixture = fixture();
    let first = fixture.get(None);
    let (_, in_flight) = fixture.questions.recv().await.unwrap();
    fixture.lookups.invalidate(Some("show"));
    in_flight.send(Ok(1)).unwrap();
    first.await.unwrap().unwrap();
    let second = fixture.get(None);
    fixture.reply(Ok(2)).await;
    assert_eq!(*second.await.unwrap().unwrap().value, 2);
    fixture.lookups.invalidate(None);
    let third = fixture.get(None);
    fixture.reply(Ok(3)).await;
    assert_eq!(*third.await.unwrap().unwrap().value, 3);
}

#[tokio::test(start_paused = true)]
async fn no_answer_counts_from_the_first_failure() {
    let mut fixture = fixture();
    fixture.clock.advance(Duration::from_secs(100));
    for second in 0..2_u64 {
        let asked = fixture.get(None);
        fixture
            .reply(Err(NoAnswerReason::Wrong("500".into())))
            .await;
        let since = asked.await.unwrap().unwrap_err().since;
        assert_eq!(since, Duration::from_secs(100), "after {second} s");
        fixture.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(fixture.lookups.error().as_deref(), Some("500"));
    let asked = fixture.get(None);
    fixture.reply(Ok(1)).await;
    assert!(asked.await.unwrap().is_ok());
    assert_eq!(fixture.lookups.error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_answers_wrongly_is_not_asked_by_everybody() {
    let mut fixture = fixture();
    let since = fixture.clock.elapsed();
    let mut questions = 0;
    for millisecond in 0..1000 {
        let asked = fixture.get(None);
        if millisecond % 100 == 0 {
            fixture
                .reply(Err(NoAnswerReason::Wrong("429".into())))
                .await;
            questions += 1;
        }
        assert_eq!(asked.await.unwrap().unwrap_err().since, since);
        assert_eq!(fixture.asked.load(Ordering::SeqCst), questions);
        fixture.clock.advance(Duration::from_millis(1));
    }
    let asked = fixture.get(None);
    fixture.reply(Ok(1)).await;
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_keeps_its_own_time_while_others_are_answered() {
    let mut fixture = fixture();
    let broken = fixture.get(None);
    fixture
        .reply(Err(NoAnswerReason::Wrong("500".into())))
        .await;
    assert_eq!(broken.await.unwrap().unwrap_err().since, Duration::ZERO);
    let lookups = Arc::clone(&fixture.lookups);
    let other = tokio::spawn(async move { lookups.get("other", None, LONG).await });
    fixture.reply(Ok(1)).await;
    assert!(other.await.unwrap().is_ok());
    fixture.clock.advance(Duration::from_mins(50));
    let broken = fixture.get(None);
    fixture
        .reply(Err(NoAnswerReason::Wrong("500".into())))
        .await;
    assert_eq!(broken.await.unwrap().unwrap_err().since, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_holds_up_its_first_askers_alone() {
    let mut fixture = fixture();
    for _ in 0..3 {
        let asked = fixture.get(None);
        // The reply never comes; the deadline does.
        let question = fixture.questions.recv().await.unwrap();
        assert!(asked.await.unwrap().is_err());
        drop(question);
    }
    let asked = fixture.asked.load(Ordering::SeqCst);
    assert!(fixture.get(None).await.unwrap().is_err());
    assert_eq!(fixture.asked.load(Ordering::SeqCst), asked, "not asked");
    // One question a second goes on, and no request waits for it.
    fixture.clock.advance(Duration::from_secs(1));
    assert!(fixture.get(None).await.unwrap().is_err());
    assert!(fixture.get(None).await.unwrap().is_err());
    assert_eq!(fixture.asked.load(Ordering::SeqCst), asked + 1);
    fixture.reply(Ok(1)).await;
    while fixture.lookups.error().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(fixture.get(None).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_is_found_to_be_back_without_a_caller() {
    let mut fixture = fixture();
    for _ in 0..3 {
        let asked = fixture.get(None);
        let question = fixture.questions.recv().await.unwrap();
        assert!(asked.await.unwrap().is_err());
        drop(question);
    }
    fixture.clock.advance(Duration::from_secs(1));
    fixture.reply(Ok(1)).await;
    while fixture.lookups.error().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*fixture.get(None).await.unwrap().unwrap().value, 1);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_panics_is_no_answer() {
    let mut fixture = fixture();
    let asked = fixture.get(None);
    let (_, reply) = fixture.questions.recv().await.unwrap();
    drop(reply);
    assert!(asked.await.unwrap().is_err());
    fixture.clock.advance(SPACING);
    let again = fixture.get(None);
    fixture.reply(Ok(1)).await;
    assert!(again.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn keys_are_forgotten_when_no_caller_asks_for_them() {
    let mut fixture = fixture();
    let asked = fixture.get(None);
    fixture.reply(Ok(1)).await;
    asked.await.unwrap().unwrap();
    let known = |fixture: &Fixture| -> usize {
        let shards = (0..SHARDS).filter_map(|index| fixture.lookups.locked(index));
        shards.map(|shard| shard.len()).sum()
    };
    assert_eq!(known(&fixture), 1);
    fixture.clock.advance(Duration::from_mins(5));
    for turn in 0..SHARDS {
        fixture.lookups.sweep(turn);
    }
    assert_eq!(known(&fixture), 0);
}
