//! One state from any order, repetition, grouping and merge of the same events.
//!
//! The model is a naive reading of the rules over plain maps, written without looking at how registers are stored.

use std::collections::{BTreeMap, BTreeSet};

use mlrs_db::catalog::{CANDIDATES_MAX, Catalog, Entity};
use mlrs_db::format::event::{EntityKind, Event, Field, Operation, Value, ValueRef};
use mlrs_db::format::event_record::{Record, encode_event, read_event};
use mlrs_db::id::{Stamp, Uid, WriterId};
use proptest::prelude::*;
use proptest::sample::select;

const KINDS: [EntityKind; 9] = [
    EntityKind::EXPERIMENT,
    EntityKind::RUN,
    EntityKind::TREE,
    EntityKind::DATASET,
    EntityKind::REGISTERED_MODEL,
    EntityKind::MODEL_VERSION,
    EntityKind::LOGGED_MODEL,
    EntityKind::TRACE,
    EntityKind(900),
];

const FIELDS: [Field; 13] = [
    Field::NAME,
    Field::NUMERIC_ID,
    Field::LIFECYCLE,
    Field::TAG,
    Field::PARAM,
    Field::EXPERIMENT,
    Field::RUN_ID_TEXT,
    Field::MODEL,
    Field::VERSION,
    Field::STAGE,
    Field::ALIAS,
    Field::MODEL_OUTPUT,
    Field(60_000),
];

const KEYS: [&str; 12] = ["", "a", "b", "c", "d", "e", "f", "g", "h", "k", "k/2", "\u{e9}"];

fn uid(n: u8) -> Uid {
    Uid::from_bytes([n; 16])
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Absent),
        1 => any::<bool>().prop_map(Value::Flag),
        2 => (0i64..3).prop_map(Value::Integer),
        1 => select(vec![f64::NAN, -0.0, 0.0, 1.5]).prop_map(Value::Real),
        6 => select(vec!["a", "b", "mnist", "7", "\u{e9}", ""]).prop_map(Value::from),
        1 => (100usize..300).prop_map(|n| Value::Text("long ".repeat(n / 5))),
        1 => proptest::collection::vec(0u8..3, 0..3).prop_map(Value::Bytes),
        2 => (0u8..4).prop_map(|n| Value::Uid(uid(n))),
        1 => (200u8..202, proptest::collection::vec(0u8..3, 0..3))
            .prop_map(|(tag, bytes)| Value::Unknown { tag, bytes }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let field = prop_oneof![
        12 => select(FIELDS.to_vec()),
        1 => Just(Field::PURGED),
    ];
    (select(KINDS.to_vec()), 0u8..4, field, select(KEYS.to_vec()), value()).prop_map(
        |(kind, n, field, key, value)| {
            let keyed =
                [Field::TAG, Field::PARAM, Field::ALIAS, Field::MODEL_OUTPUT, Field(60_000)].contains(&field);
            let key = if keyed { key } else { "" };
            // Mostly real purges; other values of that register must do nothing.
            let value = match value {
                Value::Text(_) | Value::Uid(_) if field == Field::PURGED => Value::Flag(true),
                value => value,
            };
            Operation { kind, uid: uid(n), field, key: key.to_owned(), value }
        },
    )
}

/// Stamps repeat over events and writers now and then: a copied or hostile log may do that. Some events spread over
/// many entities, some change many registers of one, as imports do.
fn event() -> impl Strategy<Value = Event> {
    let stamp = (1u64..8, 0u32..2, 0u8..3);
    let operations = prop_oneof![
        2 => proptest::collection::vec(operation(), 0..24),
        1 => (proptest::collection::vec(operation(), 10..60), 0u8..2, select(KINDS.to_vec())).prop_map(
            |(mut operations, n, kind)| {
                operations.retain(|o| o.field != Field::PURGED);
                operations.iter_mut().for_each(|o| (o.kind, o.uid) = (kind, uid(n)));
                operations
            }
        ),
    ];
    (stamp, operations).prop_map(|((millis, counter, writer), operations)| Event {
        stamp: Stamp { millis, counter, writer: WriterId::from_bytes([writer; 16]) },
        operations,
        attributes: Vec::new(),
    })
}

fn state(catalog: &Catalog) -> Vec<Vec<u8>> {
    let encode = |entity: &std::sync::Arc<Entity>| {
        let mut bytes = Vec::new();
        entity.encode(&mut bytes);
        bytes
    };
    catalog.entries().map(encode).collect()
}

/// What people see: who answers to which name and id, which runs an experiment has, what is in conflict.
fn answers(catalog: &Catalog) -> Vec<String> {
    let mut all = Vec::new();
    for text in ["a", "b", "mnist", "7", "\u{e9}", "", &uid(1).to_string()] {
        let uid = |e: Option<&std::sync::Arc<Entity>>| e.map(|e| e.uid());
        all.push(format!("{text}: {:?}", uid(catalog.experiment_by_name(text))));
        all.push(format!("{text}: {:?}", uid(catalog.experiment_by_id(text))));
        all.push(format!("{text}: {:?}", uid(catalog.run_by_id(text))));
        all.push(format!("{text}: {:?}", uid(catalog.tree_by_name(text))));
        all.push(format!("{text}: {:?}", uid(catalog.registered_model_by_name(text))));
        all.push(format!("{text}: {:?}", uid(catalog.logged_model_by_id(text))));
    }
    for experiment in catalog.experiments() {
        let uid = experiment.uid();
        all.push(format!("{:?}", catalog.render_experiment(experiment)));
        all.push(format!("{uid}: {:?}", catalog.runs_of(uid).map(|r| r.uid()).collect::<Vec<_>>()));
        all.push(format!("{uid}: {:?}", catalog.others_of(uid).map(|r| r.uid()).collect::<Vec<_>>()));
        assert_eq!(catalog.experiment_by_id(&catalog.experiment_id(uid)).map(|e| e.uid()), Some(uid));
    }
    for model in catalog.of_kind(EntityKind::LOGGED_MODEL) {
        all.push(format!("{:?}", catalog.render_logged_model(model)));
    }
    for model in catalog.of_kind(EntityKind::REGISTERED_MODEL) {
        all.push(format!("{:?}", catalog.render_registered_model(model)));
        all.push(format!("next: {}", catalog.next_version(model.uid())));
        for version in catalog.versions_of(model.uid()) {
            all.push(format!("{:?}", catalog.render_version(model, version)));
            // Whatever it claims, and whoever claims the same, it answers to exactly one number.
            let number = catalog.version_number(version);
            assert_eq!(catalog.version(model.uid(), number).map(|v| v.uid()), Some(version.uid()));
        }
    }
    all.extend(catalog.of_kind(EntityKind::RUN).map(|run| format!("{:?}", catalog.render_run(run))));
    all.extend(catalog.conflicts().iter().map(ToString::to_string));
    all
}

fn apply_all<'a>(events: impl IntoIterator<Item = &'a Event>) -> Catalog {
    let mut catalog = Catalog::new();
    events.into_iter().for_each(|event| catalog.apply(event).unwrap());
    catalog
}

type Register = (EntityKind, Uid, Field, String);

/// The rules, over all writes at once.
fn model(events: &[Event]) -> BTreeMap<Register, Vec<(Stamp, Value)>> {
    let mut writes: BTreeMap<Register, Vec<(Stamp, Value)>> = BTreeMap::new();
    let mut purged: BTreeSet<(EntityKind, Uid)> = BTreeSet::new();
    for event in events {
        let mut in_event: BTreeMap<Register, Value> = BTreeMap::new();
        for o in &event.operations {
            let register = (o.kind, o.uid, o.field, o.key.clone());
            if o.field == Field::PURGED {
                if o.value == Value::Flag(true) {
                    purged.insert((o.kind, o.uid));
                    in_event.insert(register, o.value.clone());
                }
            } else if o.field == Field::PARAM {
                in_event.entry(register).or_insert_with(|| o.value.clone());
            } else {
                in_event.insert(register, o.value.clone());
            }
        }
        for (register, value) in in_event {
            writes.entry(register).or_default().push((event.stamp, value));
        }
    }
    writes.retain(|(kind, uid, field, _), _| *field == Field::PURGED || !purged.contains(&(*kind, *uid)));
    for ((_, _, field, _), writes) in &mut writes {
        writes.sort_by(|a, b| (a.0, a.1.borrow()).cmp(&(b.0, b.1.borrow())));
        if *field == Field::PARAM {
            let mut chosen: Vec<(Stamp, Value)> = Vec::new();
            for write in writes.iter() {
                if chosen.iter().all(|c| c.1 != write.1) {
                    chosen.push(write.clone());
                }
            }
            chosen.truncate(CANDIDATES_MAX);
            *writes = chosen;
        } else {
            *writes = writes.split_off(writes.len() - 1);
        }
    }
    writes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_state_is_what_the_rules_say(events in proptest::collection::vec(event(), 1..12)) {
        let catalog = apply_all(&events);
        let expected = model(&events);
        let mut seen = 0;
        for ((kind, uid, field, key), writes) in &expected {
            let entity = catalog.entry(*kind, *uid).expect("an entity that was written");
            let (stamp, value) = &writes[0];
            prop_assert_eq!(entity.get(*field, key), Some(value.borrow()));
            prop_assert_eq!(entity.stamp(*field, key), Some(*stamp));
            let lost: Vec<(Stamp, ValueRef<'_>)> = entity
                .conflicts()
                .filter(|l| l.field == *field && l.key == key)
                .map(|l| (l.lost_stamp, l.lost))
                .collect();
            prop_assert_eq!(lost, writes[1..].iter().map(|w| (w.0, w.1.borrow())).collect::<Vec<_>>());
            seen += 1;
        }
        let fields = || std::iter::once(Field::PURGED).chain(FIELDS);
        let held: usize =
            catalog.entries().map(|e| fields().map(|f| e.entries(f).count()).sum::<usize>()).sum();
        prop_assert_eq!(held, seen);
    }

    #[test]
    fn any_order_repetition_and_merge_gives_one_state(
        events in proptest::collection::vec(event(), 1..12),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..40),
        cut in any::<prop::sample::Index>(),
        held in any::<bool>(),
    ) {
        let straight = apply_all(&events);
        let (expected, answer) = (state(&straight), answers(&straight));

        // Some events several times and in any order, then all of them backwards; under readers or not.
        let mut shuffled = Catalog::new();
        let mut readers = Vec::new();
        for event in order.iter().map(|i| i.get(&events)).chain(events.iter().rev()) {
            shuffled.apply(event).unwrap();
            if held {
                readers.push(shuffled.clone());
            }
        }
        prop_assert_eq!(state(&shuffled), expected.clone());
        prop_assert_eq!(answers(&shuffled), answer.clone());

        // Two stores that saw overlapping parts, merged by rows of the index in either direction.
        let at = cut.index(events.len());
        let (left, right) = (apply_all(&events[..=at]), apply_all(&events[at..]));
        for (into, from) in [(&left, &right), (&right, &left)] {
            let mut merged = (*into).clone();
            for row in state(from) {
                merged.insert(Entity::decode(&row).unwrap());
            }
            prop_assert_eq!(state(&merged), expected.clone());
            prop_assert_eq!(answers(&merged), answer.clone());
        }

        // Through bytes, an entity at a time, as a store does that loads lazily.
        let mut lazy = Catalog::new();
        for event in &events {
            let mut bytes = Vec::new();
            encode_event(event, &mut bytes).unwrap();
            let Record::Event(event) = read_event(&bytes).unwrap() else { panic!("not an event") };
            for kind in KINDS.into_iter().rev() {
                lazy.apply_if(&event, |k, _| k == kind).unwrap();
            }
        }
        prop_assert_eq!(state(&lazy), expected);
        prop_assert_eq!(answers(&lazy), answer);
    }

    #[test]
    fn what_a_reader_holds_never_changes(events in proptest::collection::vec(event(), 2..8)) {
        let (first, rest) = events.split_first().unwrap();
        let mut catalog = apply_all([first]);
        let reader = catalog.clone();
        let before = (state(&reader), answers(&reader));
        rest.iter().for_each(|event| catalog.apply(event).unwrap());
        prop_assert_eq!((state(&reader), answers(&reader)), before);
    }

    #[test]
    fn evicting_and_loading_again_changes_nothing(events in proptest::collection::vec(event(), 1..8)) {
        let mut catalog = apply_all(&events);
        let (rows, answer) = (state(&catalog), answers(&catalog));
        let names: Vec<_> = catalog.entries().map(|e| (e.kind(), e.uid())).collect();
        names.iter().for_each(|(kind, uid)| catalog.evict(*kind, *uid));
        prop_assert_eq!(catalog.entries().len(), 0);
        prop_assert_eq!(catalog.conflicts(), Vec::new());
        rows.iter().rev().for_each(|row| catalog.insert(Entity::decode(row).unwrap()));
        prop_assert_eq!(state(&catalog), rows);
        prop_assert_eq!(answers(&catalog), answer);
    }

    #[test]
    fn hostile_rows_never_panic(
        events in proptest::collection::vec(event(), 1..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for row in state(&apply_all(&events)) {
            let mut hostile = row.clone();
            for (at, byte) in &changes {
                let at = at.index(hostile.len());
                hostile[at] = *byte;
            }
            if let Ok(entity) = Entity::decode(&hostile) {
                // What was read is a state like any other: it survives its own bytes.
                let mut bytes = Vec::new();
                entity.encode(&mut bytes);
                let mut again = Vec::new();
                Entity::decode(&bytes).unwrap().encode(&mut again);
                prop_assert_eq!(bytes, again);
            }
            let cut = cut.index(row.len());
            prop_assert!(Entity::decode(&row[..cut]).is_err());
        }
    }
}

#[test]
fn an_event_from_after_2200_is_reported_and_not_applied() {
    let operation = Operation {
        kind: EntityKind::RUN,
        uid: uid(1),
        field: Field::NAME,
        key: String::new(),
        value: Value::from("for ever"),
    };
    let stamp = Stamp { millis: u64::MAX, ..Stamp::default() };
    let mut catalog = Catalog::new();
    let damage =
        catalog.apply(&Event { stamp, operations: vec![operation], attributes: Vec::new() }).unwrap_err();
    assert_eq!(damage.found, u64::MAX);
    assert_eq!(catalog.entries().len(), 0);
}

/// Hundreds of values of one param: the smallest stamps stay, in any order.
#[test]
fn candidates_of_a_param_are_bounded_and_still_commute() {
    let write = |n: u64| Event {
        stamp: Stamp { millis: n, ..Stamp::default() },
        operations: vec![Operation {
            kind: EntityKind::RUN,
            uid: uid(1),
            field: Field::PARAM,
            key: "lr".into(),
            value: Value::Integer((n * 7 % 100) as i64),
        }],
        attributes: Vec::new(),
    };
    let events: Vec<Event> = (1..300).map(write).collect();
    let forwards = apply_all(&events);
    assert_eq!(state(&forwards), state(&apply_all(events.iter().rev())));
    assert_eq!(
        state(&forwards),
        state(&apply_all(events.iter().step_by(2).chain(events.iter().skip(1).step_by(2))))
    );
    assert_eq!(forwards.run(uid(1)).unwrap().conflicts().count(), CANDIDATES_MAX - 1);
}
