use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::core::report::{ComponentUsage, Message, MessageKind};

/// A message of one key: `value` is its content.
fn usage(key: &str, value: u32) -> Message {
    Message::ComponentUsage(ComponentUsage {
        source: source(),
        allocation: key.to_owned(),
        month: "2026-11".into(),
        date: Epoch(1000),
        amounts: [("cpu".to_owned(), format!("{value}.00"))].into(),
        users: BTreeMap::new(),
    })
}

fn acquire(store: &mut Store, now: i64) -> Vec<Delivery> {
    store.acquire(MessageKind::ComponentUsage, Epoch(now), 100).unwrap()
}

fn acquire_one(store: &mut Store, now: i64) -> Delivery {
    let mut all = acquire(store, now);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn deliver(store: &mut Store, now: i64) -> Message {
    let delivery = acquire_one(store, now);
    store.delivered(&delivery, Epoch(now)).unwrap();
    delivery.message
}

fn counts(store: &Store) -> Vec<(MessageState, usize)> {
    store.outbox_counts().unwrap().into_iter().map(|row| (row.state, row.count)).collect()
}

const QUEUED: Enqueued = Enqueued { queued: 1, replaced: 0, unchanged: 0 };
const REPLACED: Enqueued = Enqueued { queued: 0, replaced: 1, unchanged: 0 };
const UNCHANGED: Enqueued = Enqueued { queued: 0, replaced: 0, unchanged: 1 };

#[test]
fn a_newer_message_takes_the_place_and_the_turn_of_a_waiting_one_of_its_key() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(1)).unwrap(), QUEUED);
    assert_eq!(store.enqueue(&usage("b", 1), Epoch(2)).unwrap(), QUEUED);
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(3)).unwrap(), UNCHANGED);
    assert_eq!(store.enqueue(&usage("a", 2), Epoch(4)).unwrap(), REPLACED);
    let told: Vec<Message> = acquire(&mut store, 5).into_iter().map(|d| d.message).collect();
    assert_eq!(told, [usage("a", 2), usage("b", 1)]);
}

#[test]
fn what_was_delivered_is_not_enqueued_again_until_it_differs() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    assert_eq!(store.last_delivered(&usage("a", 1).key()).unwrap(), None);
    assert_eq!(deliver(&mut store, 2), usage("a", 1));
    assert_eq!(store.last_delivered(&usage("a", 1).key()).unwrap(), Some(usage("a", 1)));
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(3)).unwrap(), UNCHANGED);
    assert_eq!(acquire(&mut store, 4), []);
    assert_eq!(store.enqueue(&usage("a", 2), Epoch(5)).unwrap(), QUEUED);
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(6)).unwrap(), UNCHANGED, "back to what is in effect");
    assert_eq!(acquire(&mut store, 7), [], "the one in between is not told any more");
    assert_eq!(store.enqueue(&usage("a", 3), Epoch(8)).unwrap(), QUEUED);
    assert_eq!(deliver(&mut store, 9), usage("a", 3));
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(10)).unwrap(), QUEUED);
}

#[test]
fn a_message_that_may_have_been_told_is_followed_by_the_old_content_again() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    deliver(&mut store, 1);
    store.enqueue(&usage("a", 2), Epoch(2)).unwrap();
    let lost = acquire_one(&mut store, 3);
    store.failed(&lost, "time limit", Some(Epoch(100))).unwrap();
    // The server may have 2 in spite of the failure; 1 must be told again, though it was the last delivered.
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(4)).unwrap(), REPLACED);
    assert_eq!(acquire(&mut store, 99), []);
    assert_eq!(deliver(&mut store, 100), usage("a", 1));
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(101)).unwrap(), UNCHANGED);
}

#[test]
fn two_messages_of_one_key_are_never_on_their_way_together() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    let first = acquire_one(&mut store, 2);
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(3)).unwrap(), UNCHANGED, "it is on its way");
    assert_eq!(store.enqueue(&usage("a", 2), Epoch(3)).unwrap(), QUEUED);
    assert_eq!(acquire(&mut store, 4), []);
    store.delivered(&first, Epoch(5)).unwrap();
    assert_eq!(deliver(&mut store, 6), usage("a", 2));
    assert_eq!(counts(&store), []);
}

#[test]
fn a_waiting_message_goes_when_the_one_on_its_way_says_the_same_again() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    let first = acquire_one(&mut store, 2);
    store.enqueue(&usage("a", 2), Epoch(3)).unwrap();
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(4)).unwrap(), UNCHANGED);
    store.failed(&first, "503", Some(Epoch(5))).unwrap();
    assert_eq!(deliver(&mut store, 6), usage("a", 1));
    assert_eq!(counts(&store), []);
}

#[test]
fn a_failed_message_gives_way_to_a_newer_one_that_waits() {
    let place = Place::new();
    let mut store = place.open();
    for (retry_at, now) in [(Some(Epoch(1000)), 10), (None, 20)] {
        store.enqueue(&usage("a", 1), Epoch(now)).unwrap();
        let first = acquire_one(&mut store, now + 1);
        store.enqueue(&usage("a", 2), Epoch(now + 2)).unwrap();
        store.failed(&first, "500", retry_at).unwrap();
        assert_eq!(counts(&store), [(MessageState::Waiting, 1)]);
        let next = acquire_one(&mut store, now + 3);
        assert_eq!((next.message.clone(), next.attempts), (usage("a", 2), 1));
        store.delivered(&next, Epoch(now + 4)).unwrap();
    }
}

#[test]
fn a_failed_message_waits_for_its_time_and_counts_its_attempts() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    for attempt in 1..=3 {
        let now = i64::from(attempt) * 100;
        let delivery = acquire_one(&mut store, now);
        assert_eq!(delivery.attempts, attempt);
        store.failed(&delivery, "503", Some(Epoch(now + 100))).unwrap();
        assert_eq!(acquire(&mut store, now + 99), []);
    }
}

#[test]
fn a_dead_letter_stays_until_something_else_is_to_be_told_or_somebody_asks_for_it() {
    let place = Place::new();
    let mut store = place.open();
    for key in ["a", "b"] {
        store.enqueue(&usage(key, 1), Epoch(1)).unwrap();
    }
    for delivery in acquire(&mut store, 2) {
        store.failed(&delivery, "400 no such resource", None).unwrap();
    }
    let dead = store.dead_letters().unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!(
        dead[0],
        DeadLetter {
            message: usage("a", 1),
            attempts: 1,
            tried: Some(Epoch(2)),
            error: "400 no such resource".into()
        }
    );
    assert_eq!(store.enqueue(&usage("a", 1), Epoch(3)).unwrap(), UNCHANGED);
    assert_eq!(acquire(&mut store, 4), []);
    assert_eq!(store.enqueue(&usage("a", 2), Epoch(5)).unwrap(), REPLACED);
    assert_eq!(deliver(&mut store, 6), usage("a", 2));
    assert_eq!(store.retry_dead_letters(Epoch(7)).unwrap(), 1);
    assert_eq!(deliver(&mut store, 7), usage("b", 1));
    assert_eq!(store.dead_letters().unwrap(), []);
}

#[test]
fn a_lease_that_has_run_out_is_handed_out_again_and_the_old_holder_cannot_tell_results() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    let old = acquire_one(&mut store, 10);
    assert_eq!(old.lease.until(), Epoch(10 + LEASE_S));
    assert_eq!(acquire(&mut store, 10 + LEASE_S - 1), []);
    let new = acquire_one(&mut store, 10 + LEASE_S);
    assert_eq!(new.attempts, 2);
    for error in
        [store.delivered(&old, Epoch(2000)).unwrap_err(), store.failed(&old, "late", None).unwrap_err()]
    {
        assert!(matches!(error, StoreError::LeaseLost { .. }), "{error}");
    }
    assert_eq!(store.last_delivered(&old.key).unwrap(), None);
    store.delivered(&new, Epoch(2001)).unwrap();
    let error = store.delivered(&new, Epoch(2002)).unwrap_err();
    assert_eq!(error.class(), Class::Refused, "a result is told once");
}

#[test]
fn an_old_lease_does_not_fit_a_later_message_of_the_same_key() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    let old = acquire_one(&mut store, 10);
    let mut store = {
        drop(store);
        place.open()
    };
    store.enqueue(&usage("a", 2), Epoch(11)).unwrap();
    let new = acquire_one(&mut store, 12);
    assert_eq!((new.message.clone(), new.attempts), (usage("a", 2), 1));
    assert!(store.delivered(&old, Epoch(13)).is_err());
    store.delivered(&new, Epoch(13)).unwrap();
    assert_eq!(store.last_delivered(&new.key).unwrap(), Some(usage("a", 2)));
}

#[test]
fn a_delivery_that_a_dead_process_never_finished_is_due_at_the_next_open() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    store.enqueue(&usage("b", 1), Epoch(1)).unwrap();
    assert_eq!(acquire(&mut store, 2).len(), 2);
    store.enqueue(&usage("b", 2), Epoch(2)).unwrap();
    drop(store);
    let mut store = place.open();
    let due = acquire(&mut store, 3);
    let told: Vec<(Message, u32)> = due.into_iter().map(|d| (d.message, d.attempts)).collect();
    assert_eq!(told, [(usage("a", 1), 2), (usage("b", 2), 1)]);
}

#[test]
fn messages_and_the_cursor_they_came_from_are_stored_together() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.get_cursor("amie").unwrap(), None);
    let messages = [usage("a", 1), usage("b", 1), usage("a", 2)];
    let enqueued = store.enqueue_all(&messages, Some(("amie", u64::MAX)), Epoch(1)).unwrap();
    assert_eq!(enqueued, Enqueued { queued: 2, replaced: 1, unchanged: 0 });
    assert_eq!(store.get_cursor("amie").unwrap(), Some(u64::MAX));
    store.put_cursor("amie", 3).unwrap();
    assert_eq!(store.get_cursor("amie").unwrap(), Some(3));
    let row = store.outbox_counts().unwrap();
    assert_eq!(
        row,
        [OutboxCount {
            kind: MessageKind::ComponentUsage,
            state: MessageState::Waiting,
            count: 2,
            oldest: Epoch(1)
        }]
    );
}

#[test]
fn only_the_kind_that_is_asked_for_is_handed_out() {
    let place = Place::new();
    let mut store = place.open();
    store.enqueue(&usage("a", 1), Epoch(1)).unwrap();
    assert_eq!(store.acquire(MessageKind::CommandResult, Epoch(2), 9).unwrap(), []);
    assert_eq!(store.acquire(MessageKind::ComponentUsage, Epoch(2), 0).unwrap(), []);
    assert_eq!(acquire(&mut store, 2).len(), 1);
}

/// What may happen to a message on its way. The server has it or not, whatever is heard of it.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Told,
    /// It failed (and the server has it all the same).
    Retry {
        has: bool,
    },
    Dead,
    /// Nothing is heard for longer than the lease.
    Silent {
        has: bool,
    },
    /// The process dies.
    Crash {
        has: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Enqueue { key: u8, value: u32 },
    Acquire { limit: usize },
    End { which: prop::sample::Index, fate: Fate },
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        4 => Just(Fate::Told),
        2 => any::<bool>().prop_map(|has| Fate::Retry { has }),
        1 => Just(Fate::Dead),
        1 => any::<bool>().prop_map(|has| Fate::Silent { has }),
        1 => any::<bool>().prop_map(|has| Fate::Crash { has }),
    ];
    prop_oneof![
        3 => (0u8..3, 0u32..3).prop_map(|(key, value)| Step::Enqueue { key, value }),
        2 => (0usize..3).prop_map(|limit| Step::Acquire { limit }),
        3 => (any::<prop::sample::Index>(), fate).prop_map(|(which, fate)| Step::End { which, fate }),
    ]
}

/// The agent's side (the store) and the server's.
struct World {
    place: Place,
    store: Option<Store>,
    server: BTreeMap<String, Message>,
    wanted: BTreeMap<String, Message>,
    on_their_way: Vec<Delivery>,
    now: i64,
}

impl World {
    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn arrives(&mut self, delivery: &Delivery, has: bool) {
        if has {
            self.server.insert(delivery.key.clone(), delivery.message.clone());
        }
    }

    fn step(&mut self, step: Step) {
        self.now += 1;
        let now = Epoch(self.now);
        match step {
            Step::Enqueue { key, value } => {
                let message = usage(&key.to_string(), value);
                self.store().enqueue(&message, now).unwrap();
                self.wanted.insert(message.key(), message);
            }
            Step::Acquire { limit } => {
                let new = self.store().acquire(MessageKind::ComponentUsage, now, limit).unwrap();
                self.on_their_way.extend(new);
                let keys: BTreeSet<&String> = self.on_their_way.iter().map(|d| &d.key).collect();
                assert_eq!(keys.len(), self.on_their_way.len(), "two of one key on their way");
            }
            Step::End { which, fate } => {
                if !self.on_their_way.is_empty() {
                    let delivery = self.on_their_way.swap_remove(which.index(self.on_their_way.len()));
                    self.end(delivery, fate, now);
                }
            }
        }
    }

    fn end(&mut self, delivery: Delivery, fate: Fate, now: Epoch) {
        match fate {
            Fate::Told => {
                self.arrives(&delivery, true);
                self.store().delivered(&delivery, now).unwrap();
            }
            Fate::Retry { has } => {
                self.arrives(&delivery, has);
                self.store().failed(&delivery, "503", Some(now.plus(5))).unwrap();
            }
            Fate::Dead => self.store().failed(&delivery, "400", None).unwrap(),
            Fate::Silent { has } => {
                self.arrives(&delivery, has);
                // All others end in time.
                for other in std::mem::take(&mut self.on_their_way) {
                    self.end(other, Fate::Told, now);
                }
                self.now += LEASE_S;
            }
            Fate::Crash { has } => {
                self.arrives(&delivery, has);
                self.on_their_way.clear();
                self.store = None;
                self.store = Some(self.place.open());
            }
        }
    }

    /// Everything is told at last.
    fn drain(&mut self) -> usize {
        let mut told = 0;
        for delivery in std::mem::take(&mut self.on_their_way) {
            self.end(delivery, Fate::Told, Epoch(self.now));
        }
        loop {
            self.now += LEASE_S;
            let now = Epoch(self.now);
            self.store().retry_dead_letters(now).unwrap();
            let due = self.store().acquire(MessageKind::ComponentUsage, now, 10).unwrap();
            if due.is_empty() {
                return told;
            }
            told += due.len();
            for delivery in due {
                self.end(delivery, Fate::Told, now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_the_server_has_the_newest_message_of_each_key_and_nothing_is_told_again(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let place = Place::new();
        let store = Some(place.open());
        let mut world = World {
            place,
            store,
            server: BTreeMap::new(),
            wanted: BTreeMap::new(),
            on_their_way: Vec::new(),
            now: 0,
        };
        for step in steps {
            world.step(step);
        }
        world.drain();
        prop_assert_eq!(&world.server, &world.wanted);
        prop_assert_eq!(counts(world.store()), []);
        let wanted: Vec<Message> = world.wanted.values().cloned().collect();
        let now = Epoch(world.now);
        let again = world.store().enqueue_all(&wanted, None, now).unwrap();
        prop_assert_eq!(again.unchanged, wanted.len());
        prop_assert_eq!(world.drain(), 0);
    }
}

#[test]
fn failed_deliveries_are_listed_with_their_reason_until_they_are_told() {
    let place = Place::new();
    let mut store = place.open();
    for (key, error, retry_at) in [("a", "503", Some(Epoch(500))), ("b", "400 no such resource", None)] {
        store.enqueue(&usage(key, 1), Epoch(1)).unwrap();
        let delivery = acquire_one(&mut store, 10);
        store.failed(&delivery, error, retry_at).unwrap();
    }
    store.enqueue(&usage("c", 1), Epoch(20)).unwrap();
    let listed: Vec<(String, MessageState, String, u32)> = store
        .failed_deliveries(10)
        .unwrap()
        .into_iter()
        .map(|failed| (failed.message.key(), failed.state, failed.error, failed.attempts))
        .collect();
    let row = |key: &str, state, error: &str| (usage(key, 1).key(), state, error.to_owned(), 1);
    assert_eq!(
        listed,
        [row("b", MessageState::Dead, "400 no such resource"), row("a", MessageState::Waiting, "503")]
    );
    assert_eq!(store.failed_deliveries(1).unwrap().len(), 1);
    for delivery in acquire(&mut store, 600) {
        store.delivered(&delivery, Epoch(600)).unwrap();
    }
    let left: Vec<String> =
        store.failed_deliveries(10).unwrap().iter().map(|failed| failed.message.key()).collect();
    assert_eq!(left, [usage("b", 1).key()]);
}
