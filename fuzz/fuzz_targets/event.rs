//! Event records, entity rows and input tags; what is read is applied, and written again to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::catalog::{Catalog, Entity};
use mlrs_db::format::event::EntityKind;
use mlrs_db::format::event_record::{Record, decode_event, encode_event};
use mlrs_db::format::input_tags::{decode_input_tags, encode_input_tags};

fuzz_target!(|input: &[u8]| {
    if let Ok(Record::Event(event)) = decode_event(input) {
        let mut bytes = Vec::new();
        if encode_event(&event, &mut bytes).is_ok() {
            assert_eq!(decode_event(&bytes), Ok(Record::Event(event.clone())));
        }
        let mut catalog = Catalog::new();
        if catalog.apply(&event).is_ok() {
            for experiment in catalog.of_kind(EntityKind::EXPERIMENT) {
                let _ = catalog.render_experiment(experiment);
            }
            for run in catalog.of_kind(EntityKind::RUN) {
                let _ = catalog.render_run(run);
            }
            for entity in catalog.entries() {
                let mut row = Vec::new();
                entity.encode(&mut row);
                assert!(Entity::decode(&row).is_ok(), "a row that was just written");
            }
        }
    }
    if let Ok(entity) = Entity::decode(input) {
        let mut row = Vec::new();
        entity.encode(&mut row);
        let again = Entity::decode(&row).expect("a row that was just written");
        let mut twice = Vec::new();
        again.encode(&mut twice);
        assert_eq!(row, twice);
    }
    if let Ok(tags) = decode_input_tags(input) {
        assert_eq!(decode_input_tags(&encode_input_tags(&tags)), Ok(tags));
    }
});
