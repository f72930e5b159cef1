//! Revocations, case by case, and against a list that is searched from end to end.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::terms::clock::Entropy;
use crate::terms::user::User;

const NOW: u64 = 1_800_000_000;

/// A revocation for an hour. `number` makes its name, and the order of names.
fn revocation(number: u64, target: RevocationTarget) -> Revocation {
    let millis = NOW * 1000 + number;
    let id = RevocationId::new(millis, Entropy::Fixed(number)).unwrap();
    Revocation::new(id, target, NOW, NOW + 3600)
}

fn subject(name: &str) -> RevocationTarget {
    RevocationTarget::Subject(name.into())
}

fn asks<'a>(subject: &'a str, channel: &'a str, uid: u32) -> RevocationQuestion<'a> {
    RevocationQuestion {
        subject: Some(subject),
        channel: Some(channel),
        user: Some(User::Uid(uid)),
    }
}

#[test]
fn each_target_refuses_what_it_names_and_nothing_else() {
    let both = RevocationTarget::SubjectInChannel {
        subject: "ann".into(),
        channel: "a".into(),
    };
    let user = RevocationTarget::UserInChannel {
        channel: "a".into(),
        user: User::Uid(7),
    };
    let questions = [
        asks("ann", "a", 7),
        asks("ann", "a", 8),
        asks("ann", "b", 7),
        asks("bob", "a", 7),
        asks("bob", "a", 8),
        asks("bob", "b", 7),
    ];
    let refused = |target: &RevocationTarget| {
        let table = Revocations::default();
        table.add(revocation(1, target.clone())).unwrap();
        questions.map(|question| table.find(question, NOW).is_some())
    };
    assert_eq!(
        refused(&subject("ann")),
        [true, true, true, false, false, false]
    );
    let channel = RevocationTarget::Channel("a".into());
    assert_eq!(refused(&channel), [true, true, false, true, true, false]);
    assert_eq!(refused(&both), [true, true, false, false, false, false]);
    assert_eq!(refused(&user), [true, false, false, true, false, false]);
}

#[test]
fn a_holder_of_a_revoked_user_is_refused_in_that_channel_under_every_user() {
    let table = Revocations::default();
    let target = RevocationTarget::UserInChannel {
        channel: "a".into(),
        user: User::Uid(7),
    };
    let revocation = Revocation {
        holders: vec!["ann".into()],
        ..revocation(1, target)
    };
    let id = revocation.id;
    table.add(revocation).unwrap();
    assert!(table.find(asks("ann", "a", 8), NOW).is_some());
    assert!(table.find(asks("bob", "a", 7), NOW).is_some());
    assert!(table.find(asks("bob", "a", 8), NOW).is_none());
    assert!(table.find(asks("ann", "b", 7), NOW).is_none());
    table.lift(id).unwrap();
    assert!(table.find(asks("ann", "a", 7), NOW).is_none());
    assert!(table.is_empty());
}

#[test]
fn an_anonymous_question_is_answered_by_what_is_known() {
    let table = Revocations::default();
    table.add(revocation(1, subject("ann"))).unwrap();
    let channel = RevocationTarget::Channel("a".into());
    table.add(revocation(2, channel)).unwrap();
    let question = |channel| RevocationQuestion {
        channel: Some(channel),
        ..RevocationQuestion::default()
    };
    assert!(table.find(question("a"), NOW).is_some());
    assert!(table.find(question("b"), NOW).is_none());
    assert!(table.find(RevocationQuestion::default(), NOW).is_none());
}

#[test]
fn a_revocation_is_over_at_its_end_and_a_later_sweep_forgets_it() {
    let table = Revocations::default();
    table.add(revocation(1, subject("ann"))).unwrap();
    assert!(table.find(asks("ann", "a", 7), NOW + 3599).is_some());
    assert!(table.find(asks("ann", "a", 7), NOW + 3600).is_none());
    assert_eq!(table.sweep(NOW + 3599), 0);
    assert_eq!(table.sweep(NOW + 3600), 1);
    assert!(table.is_empty());
    assert_eq!(table.len(), 0);
}

#[test]
fn one_that_is_lifted_leaves_the_others_of_the_same_target_in_force() {
    let table = Revocations::default();
    let [first, second] = [1, 2].map(|number| {
        let revocation = revocation(number, subject("ann"));
        table.add(revocation.clone()).unwrap();
        revocation.id
    });
    assert_eq!(table.lift(first).unwrap().id, first);
    assert_eq!(table.lift(first), None);
    assert_eq!(table.find(asks("ann", "a", 7), NOW).unwrap().id, second);
    assert_eq!(table.lift(second).unwrap().id, second);
    assert_eq!(table.find(asks("ann", "a", 7), NOW), None);
}

#[test]
fn one_that_is_added_twice_counts_once() {
    let table = Revocations::default();
    table.add(revocation(1, subject("ann"))).unwrap();
    table.add(revocation(1, subject("ann"))).unwrap();
    assert_eq!(table.len(), 1);
    table.lift(revocation(1, subject("ann")).id).unwrap();
    assert!(table.is_empty());
}

#[test]
fn one_that_was_lifted_comes_back_in_no_order_of_records() {
    let table = Revocations::default();
    let ann = revocation(1, subject("ann"));
    assert_eq!(table.apply_lift(ann.id, ann.until), None);
    assert_eq!(table.add(ann.clone()), Ok(false));
    assert!(table.find(asks("ann", "a", 7), NOW).is_none());
    let bob = revocation(2, subject("bob"));
    table.add(bob.clone()).unwrap();
    table.lift(bob.id).unwrap();
    assert_eq!(table.add(bob.clone()), Ok(false));
    let lifted = |of: &Revocation| RevocationRecord::Lifted {
        id: of.id,
        until: of.until,
    };
    assert_eq!(table.records(NOW), [lifted(&ann), lifted(&bob)]);
    assert_eq!(table.records(ann.until), []);
    table.sweep(ann.until);
    assert_eq!(table.records(NOW), []);
}

#[test]
fn when_the_table_is_full_the_next_is_refused_until_one_ends() {
    let table = Revocations::default();
    for number in 0..MOST as u64 {
        let name = format!("subject-{number}");
        table.add(revocation(number, subject(&name))).unwrap();
    }
    let more = || table.add(revocation(MOST as u64, subject("ann")));
    assert_eq!(more(), Err(TooManyRevocations));
    table.lift(revocation(7, subject("subject-7")).id).unwrap();
    assert_eq!(more(), Ok(true));
    assert_eq!(table.len(), MOST);
}

#[test]
fn pages_list_the_latest_first_and_each_once() {
    let table = Revocations::default();
    for number in 0..25 {
        let target = match number % 2 {
            0 => subject("ann"),
            _ => RevocationTarget::Channel("a".into()),
        };
        table.add(revocation(number, target)).unwrap();
    }
    let over = Revocation {
        until: NOW,
        ..revocation(30, subject("ann"))
    };
    table.add(over).unwrap();
    let listed = |filter| {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = table.page(filter, after, 10, NOW);
            assert!(page.revocations.len() <= 10);
            names.extend(page.revocations.iter().map(|each| each.id));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    };
    let everything = listed(RevocationFilter::default());
    assert_eq!(everything.len(), 25);
    assert!(everything.is_sorted_by(|earlier, later| earlier > later));
    let of_ann = RevocationFilter {
        subject: Some("ann"),
        channel: None,
    };
    assert_eq!(listed(of_ann).len(), 13);
    let of_a = RevocationFilter {
        subject: None,
        channel: Some("a"),
    };
    assert_eq!(listed(of_a).len(), 12);
}

fn any_target() -> impl Strategy<Value = RevocationTarget> {
    let name = || prop::sample::select(vec!["a", "b", "c"]).prop_map(Box::<str>::from);
    let user = || {
        prop_oneof![
            (0..3_u32).prop_map(User::Uid),
            name().prop_map(User::Account)
        ]
    };
    prop_oneof![
        name().prop_map(RevocationTarget::Subject),
        name().prop_map(RevocationTarget::Channel),
        (name(), name())
            .prop_map(|(subject, channel)| RevocationTarget::SubjectInChannel { subject, channel }),
        (name(), user())
            .prop_map(|(channel, user)| RevocationTarget::UserInChannel { channel, user }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Add(RevocationTarget, Vec<Box<str>>, u64),
    Lift(prop::sample::Index),
    Wait(Duration),
    Sweep,
}

fn any_step() -> impl Strategy<Value = Step> {
    let holder = prop::sample::select(vec!["a", "b", "c"]).prop_map(Box::<str>::from);
    let holders = prop::collection::vec(holder, 0..2);
    prop_oneof![
        4 => (any_target(), holders, 1..20_u64).prop_map(|(target, holders, lasts)| {
            let holders = if target.user().is_some() { holders } else { Vec::new() };
            Step::Add(target, holders, lasts)
        }),
        1 => any::<prop::sample::Index>().prop_map(Step::Lift),
        2 => (0..5_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn the_table_answers_as_a_list_that_is_searched_from_end_to_end(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let table = Revocations::default();
        let mut list: Vec<Revocation> = Vec::new();
        let mut now = NOW;
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Add(target, holders, lasts) => {
                    let until = now + lasts;
                    let added = Revocation { holders, until, ..revocation(number, target) };
                    table.add(added.clone()).unwrap();
                    list.push(added);
                }
                Step::Lift(index) if !list.is_empty() => {
                    let lifted = list.remove(index.index(list.len()));
                    // One that is over may have been swept.
                    prop_assert!(table.lift(lifted.id).is_some() || lifted.until <= now);
                }
                Step::Lift(_) => {}
                Step::Wait(time) => now += time.as_secs(),
                Step::Sweep => {
                    table.sweep(now);
                }
            }
            let hasher = RandomState::new();
            for subject in ["a", "b"] {
                for channel in ["a", "b"] {
                    for uid in 0..2 {
                        let question = asks(subject, channel, uid);
                        let refuses = |each: &Revocation| {
                            let (target, mut keys) = (&each.target, question.keys(&hasher));
                            let held = target.channel() == Some(channel)
                                && each.holders.iter().any(|holder| **holder == *subject);
                            each.until > now && (held || keys.any(|(key, _)| key == target.key()))
                        };
                        let found = table.find(question, now);
                        prop_assert_eq!(found.is_some(), list.iter().any(refuses));
                        prop_assert!(found.is_none_or(|found| refuses(&found)));
                    }
                }
            }
        }
        table.sweep(now + 100);
        prop_assert!(table.is_empty());
        prop_assert_eq!(table.len(), 0);
    }
}
