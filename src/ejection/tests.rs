//! Ejections, case by case: order, attempts, lifting, ends, what is written down.

use super::*;
use crate::terms::clock::Entropy;

const NOW: u64 = 1_800_000_000;
const START: Duration = Duration::ZERO;

fn revocation(number: u64) -> RevocationId {
    RevocationId::new(NOW * 1000 + number, Entropy::Fixed(number)).unwrap()
}

fn target(uid: u32, role: Role) -> EjectionTarget {
    EjectionTarget {
        channel: "live_show".into(),
        subject: format!("subject-{uid}").into(),
        uid,
        role,
        expires: NOW + 3600,
    }
}

fn viewers(uids: std::ops::Range<u32>) -> Vec<EjectionTarget> {
    uids.map(|uid| target(uid, Role::Subscriber)).collect()
}

fn add(table: &Ejections, number: u64, targets: Vec<EjectionTarget>) -> Vec<EjectionRecord> {
    table.add(revocation(number), NOW + 7200, "app", targets, 0)
}

/// Takes the next one, which must be there.
fn take(table: &Ejections) -> Ejection {
    table.take(START).expect("an ejection").ejection
}

fn later(due: Duration) -> EjectionResult {
    EjectionResult::Later {
        error: "why".to_owned(),
        due,
        counts: true,
    }
}

/// pending, done, failed, not possible, dropped.
fn counts(table: &Ejections, number: u64) -> [u64; 5] {
    let tally = table.tally(revocation(number)).expect("a tally");
    [
        tally.pending,
        tally.done,
        tally.failed,
        tally.not_possible,
        tally.dropped,
    ]
}

/// A table that was restored from these records.
fn restored(records: Vec<EjectionRecord>, now: u64, in_force: bool) -> Ejections {
    let table = Ejections::default();
    table.restore(records, now, |_| in_force);
    table
}

#[test]
fn publishers_come_before_rules_to_delete_and_those_before_viewers() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..2));
    let made = take(&table).id;
    table.finish(made, EjectionResult::Made(5));
    add(&table, 2, viewers(2..4));
    table.lift(revocation(1));
    add(
        &table,
        3,
        [viewers(4..5), vec![target(5, Role::Publisher)]].concat(),
    );
    let order: Vec<_> = std::iter::from_fn(|| table.take(START))
        .map(|taken| (taken.ejection.uid, taken.ejection.stage))
        .collect();
    let waiting = |uid| (uid, EjectionStage::Waiting);
    let deletion = (1, EjectionStage::Lifting { rule: 5 });
    assert_eq!(
        order,
        [waiting(5), deletion, waiting(2), waiting(3), waiting(4)]
    );
    assert_eq!(table.due(START), None);
}

#[test]
fn a_rule_ends_with_the_token_or_with_the_revocation_whichever_is_first() {
    let table = Ejections::default();
    table.add(revocation(1), NOW + 60, "app", viewers(1..2), 0);
    assert_eq!(take(&table).until, NOW + 60);
    add(&table, 2, viewers(1..2));
    assert_eq!(take(&table).until, NOW + 3600);
}

#[test]
fn a_failed_attempt_is_repeated_when_it_is_due_and_counts() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..2));
    let id = take(&table).id;
    let due = Duration::from_secs(3);
    assert_eq!(table.finish(id, later(due)), None);
    assert_eq!(table.due(START), Some(due));
    assert_eq!(table.take(START), None);
    assert_eq!(counts(&table, 1), [1, 0, 0, 0, 0]);
    let error = table.tally(revocation(1)).unwrap().error;
    assert_eq!(error.as_deref(), Some("why"));
    let taken = table.take(due).unwrap();
    assert_eq!((taken.ejection.id, taken.failures), (id, 1));
    table.finish(id, EjectionResult::Made(5));
    assert_eq!(counts(&table, 1), [0, 1, 0, 0, 0]);
    assert_eq!(table.tally(revocation(1)).unwrap().error, None);
}

#[test]
fn lifting_gives_up_what_waits_and_deletes_what_is_made() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..5));
    let [made, waits, flying, refused] = [(); 4].map(|()| take(&table).id);
    table.finish(made, EjectionResult::Made(5));
    table.finish(waits, later(Duration::from_secs(1)));
    table.finish(refused, EjectionResult::Refused("no".to_owned()));
    add(&table, 2, viewers(9..10));
    table.lift(revocation(1));
    table.lift(revocation(1));
    assert_eq!(table.tally(revocation(1)), None);
    // One that was under way is made all the same.
    let record = table.finish(flying, EjectionResult::Made(6)).unwrap();
    let EjectionRecord::Ejection(ejection) = record else {
        panic!("{record:?}");
    };
    assert_eq!(ejection.stage, EjectionStage::Lifting { rule: 6 });
    let late = Duration::from_secs(2);
    let left: Vec<_> = std::iter::from_fn(|| table.take(late))
        .map(|taken| (taken.ejection.id, taken.ejection.stage))
        .collect();
    let other = EjectionId {
        revocation: revocation(2),
        number: 0,
    };
    assert_eq!(
        left,
        [
            (made, EjectionStage::Lifting { rule: 5 }),
            (flying, EjectionStage::Lifting { rule: 6 }),
            (other, EjectionStage::Waiting),
        ]
    );
    for id in [made, flying] {
        table.finish(id, EjectionResult::Deleted);
    }
    assert_eq!(table.records().len(), 2);
}

#[test]
fn what_ends_unfinished_was_dropped_or_has_failed() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..4));
    let id = take(&table).id;
    table.finish(id, later(Duration::from_secs(9)));
    table.finish(take(&table).id, EjectionResult::Made(5));
    assert_eq!(table.sweep(NOW + 3599), EndedEjections::default());
    let ended = EndedEjections {
        dropped: 1,
        failed: 1,
    };
    assert_eq!(table.sweep(NOW + 3600), ended);
    assert_eq!(counts(&table, 1), [0, 1, 1, 0, 1]);
    assert_eq!(table.take(START), None);
    // The numbers are shown as long as the revocation is in force.
    table.sweep(NOW + 7199);
    assert_eq!(counts(&table, 1), [0, 1, 1, 0, 1]);
    table.sweep(NOW + 7200);
    assert_eq!(table.tally(revocation(1)), None);
    assert_eq!(table.records(), []);
}

#[test]
fn there_is_room_for_so_many_and_the_publishers_get_it() {
    let table = Ejections::default();
    let most = u32::try_from(MOST).unwrap();
    let publisher = vec![target(most + 7, Role::Publisher)];
    add(&table, 1, [viewers(1..most + 2), publisher].concat());
    let most = u64::from(most);
    assert_eq!(counts(&table, 1), [most, 0, 2, 0, 0]);
    assert_eq!(take(&table).role, Role::Publisher);
    add(&table, 2, viewers(1..3));
    assert_eq!(counts(&table, 2), [0, 0, 2, 0, 0]);
    let error = table.tally(revocation(2)).unwrap().error.unwrap();
    assert!(error.contains("100000 ejections are under way"), "{error}");
}

#[test]
fn a_rule_that_would_keep_out_another_is_deleted_and_counts_as_dropped() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..4));
    let ids = [(); 3].map(|()| take(&table).id);
    for (id, rule) in ids.into_iter().zip(5..) {
        table.finish(id, EjectionResult::Made(rule));
    }
    assert_eq!(table.take_back(&ids[1..2]).len(), 1);
    assert_eq!(table.take_back(&ids[1..2]), []);
    let taken = take(&table);
    assert_eq!(taken.stage, EjectionStage::Lifting { rule: 6 });
    assert_eq!(counts(&table, 1), [0, 2, 0, 0, 0]);
    table.finish(taken.id, EjectionResult::Deleted);
    assert_eq!(counts(&table, 1), [0, 2, 0, 0, 1]);
    let again = restored(table.records(), NOW, true);
    assert_eq!(counts(&again, 1), [0, 2, 0, 0, 1]);
}

#[test]
fn rules_that_are_made_are_looked_at_in_parts() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..1502));
    let dropped = take(&table).id;
    table.finish(dropped, EjectionResult::Needless);
    while let Some(taken) = table.take(START) {
        table.finish(taken.ejection.id, EjectionResult::Made(5));
    }
    let first = table.made_after(None);
    let second = table.made_after(first.last().map(|made| made.id));
    assert_eq!((first.len(), second.len()), (1000, 500));
    assert_eq!((first[0].uid, second[499].uid), (2, 1501));
    assert_eq!(table.made_after(second.last().map(|made| made.id)), []);
}

#[test]
fn a_rule_of_two_ejections_is_deleted_with_the_second_that_is_lifted() {
    let table = Ejections::default();
    for number in [1, 2] {
        add(&table, number, viewers(1..2));
        let id = take(&table).id;
        table.finish(id, EjectionResult::Made(5));
    }
    table.lift(revocation(1));
    assert_eq!(table.take(START), None);
    table.lift(revocation(2));
    assert_eq!(take(&table).stage, EjectionStage::Lifting { rule: 5 });
    assert_eq!(table.take(START), None);
}

#[test]
fn tokens_that_become_known_late_are_taken_in_unless_a_rule_lasts_as_long() {
    let table = Ejections::default();
    add(&table, 1, viewers(1..3));
    let late = |targets| table.add_late(revocation(1), NOW + 7200, "app", targets);
    let made = take(&table).id;
    table.finish(made, EjectionResult::Made(5));
    assert_eq!(late(viewers(1..3)), []);
    let renewed = EjectionTarget {
        expires: NOW + 9000,
        ..target(1, Role::Subscriber)
    };
    assert_eq!(
        late([viewers(2..4), vec![renewed.clone()]].concat()).len(),
        2
    );
    assert_eq!(late(vec![renewed]), []);
    let taken = [(); 3].map(|()| take(&table));
    let planned = taken.map(|ejection| (ejection.id.number, ejection.uid, ejection.until));
    assert_eq!(
        planned,
        [(1, 2, NOW + 3600), (2, 3, NOW + 3600), (3, 1, NOW + 7200)]
    );
    assert_eq!(counts(&table, 1), [3, 1, 0, 0, 0]);
    table.lift(revocation(1));
    assert_eq!(late(viewers(8..9)), []);
}

/// A table, the steps that are done to it, and the records that are appended to its journal meanwhile.
fn history() -> (Ejections, Vec<EjectionRecord>) {
    let table = Ejections::default();
    let targets = viewers(1..6);
    let mut journal = table.add(revocation(1), NOW + 7200, "app", targets, 4);
    let ids = [(); 4].map(|()| take(&table).id);
    for (id, result) in ids.into_iter().zip([
        EjectionResult::Made(5),
        EjectionResult::Refused("no".to_owned()),
        EjectionResult::Needless,
        later(START),
    ]) {
        journal.extend(table.finish(id, result));
    }
    (table, journal)
}

#[test]
fn a_restart_knows_the_same_from_changes_and_from_the_whole() {
    let (table, journal) = history();
    for records in [journal, table.records()] {
        let again = restored(records, NOW, true);
        assert_eq!(counts(&again, 1), [2, 1, 1, 4, 1]);
        assert_eq!([take(&again).uid, take(&again).uid], [4, 5]);
        assert_eq!(again.take(START), None);
        let lifted = again.lift(revocation(1));
        let rules = lifted.iter().filter(|record| {
            matches!(record, EjectionRecord::Ejection(ejection)
                if ejection.stage == EjectionStage::Lifting { rule: 5 })
        });
        assert_eq!(rules.count(), 1);
    }
}

#[test]
fn a_restart_after_the_tokens_have_expired_goes_on_showing_the_numbers() {
    let (table, journal) = history();
    for records in [journal, table.records()] {
        let again = restored(records, NOW + 3600, true);
        assert_eq!(counts(&again, 1), [0, 1, 1, 4, 3]);
        assert_eq!(again.take(START), None);
        let third = restored(again.records(), NOW + 3601, true);
        assert_eq!(counts(&third, 1), [0, 1, 1, 4, 3]);
    }
}

#[test]
fn a_restart_lifts_what_belongs_to_no_revocation_in_force() {
    let (_, journal) = history();
    let again = restored(journal, NOW, false);
    assert_eq!(again.tally(revocation(1)), None);
    assert_eq!(take(&again).stage, EjectionStage::Lifting { rule: 5 });
    assert_eq!(again.take(START), None);
}
