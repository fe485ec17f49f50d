//! What metadata costs in bytes; `--nocapture` in release also prints times.

use std::time::Instant;

use mlrs_db::catalog::changes::{self, NewRun, Resolution};
use mlrs_db::catalog::{Catalog, Entity};
use mlrs_db::format::event::{EntityKind, Event};
use mlrs_db::format::event_record::{Record, encode_event, read_event};
use mlrs_db::id::{Stamp, Uid};

const RUNS: usize = 1_000;
const PARAMS: usize = 20;
const TAGS: usize = 4;

fn median<T>(mut f: impl FnMut() -> T) -> (f64, T) {
    let mut runs: Vec<(f64, T)> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let result = f();
            (start.elapsed().as_secs_f64() * 1e3, result)
        })
        .collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs.swap_remove(4)
}

#[test]
fn a_run_costs_less_than_a_kibibyte_beside_its_text() {
    let mut catalog = Catalog::new();
    let Resolution::Create { uid: experiment, operations } =
        changes::get_or_create_experiment(&catalog, "e", 1).unwrap()
    else {
        panic!("it is new")
    };
    let stamp = |millis| Stamp { millis, ..Stamp::default() };
    catalog.apply(&Event { stamp: stamp(1), operations, attributes: Vec::new() }).unwrap();
    let start = catalog.clone();

    let params: Vec<(String, String)> =
        (0..PARAMS).map(|n| (format!("param_{n:02}"), format!("0.{n}"))).collect();
    let tags: Vec<(String, String)> = (0..TAGS).map(|n| (format!("tag_{n}"), format!("value {n}"))).collect();
    let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let new = |n: usize| NewRun {
        uid: Uid::derived("run", &[&n.to_le_bytes()]),
        experiment,
        name: "a run",
        user: "ada",
        start_ms: 5,
        params: &params,
        tags: &tags,
        ..NewRun::default()
    };

    let (make_ms, events) = median(|| -> Vec<Event> {
        (0..RUNS)
            .map(|n| Event {
                stamp: stamp(2 + n as u64),
                operations: changes::create_run(&start, &new(n)).unwrap(),
                attributes: Vec::new(),
            })
            .collect()
    });
    let (encode_ms, records) = median(|| {
        let encode = |event| {
            let mut bytes = Vec::new();
            encode_event(event, &mut bytes).unwrap();
            bytes
        };
        events.iter().map(encode).collect::<Vec<_>>()
    });
    let (decode_ms, decoded) =
        median(|| records.iter().map(|bytes| read_event(bytes).unwrap()).collect::<Vec<_>>());
    let (apply_ms, full) = median(|| {
        let mut catalog = start.clone();
        for record in &decoded {
            let Record::Event(event) = record else { panic!("an event") };
            catalog.apply_if(event, |_, _| true).unwrap();
        }
        catalog
    });
    let (rows_ms, rows) = median(|| {
        let encode = |run: &std::sync::Arc<Entity>| {
            let mut bytes = Vec::new();
            run.encode(&mut bytes);
            bytes
        };
        full.of_kind(EntityKind::RUN).map(encode).collect::<Vec<_>>()
    });
    let (load_ms, loaded) = median(|| {
        let mut catalog = start.clone();
        rows.iter().for_each(|row| catalog.insert(Entity::decode(row).unwrap()));
        catalog
    });
    let (render_ms, _) =
        median(|| full.runs_of(experiment).map(|run| full.render_run(run)).collect::<Vec<_>>());

    let operations = events[0].operations.len();
    let text: usize =
        events[0].operations.iter().map(|o| o.key.len() + o.value.borrow().with_bytes(<[u8]>::len)).sum();
    let memory =
        |catalog: &Catalog| catalog.of_kind(EntityKind::RUN).map(|run| run.memory()).sum::<usize>() / RUNS;
    println!("{RUNS} runs x {operations} registers ({text} B of keys and values a run)");
    println!("  make     {make_ms:7.3} ms");
    println!("  encode   {encode_ms:7.3} ms, {} B a record", records[0].len());
    println!("  decode   {decode_ms:7.3} ms");
    println!("  apply    {apply_ms:7.3} ms, {} B of memory a run", memory(&full));
    println!("  to rows  {rows_ms:7.3} ms, {} B a row", rows[0].len());
    println!("  of rows  {load_ms:7.3} ms, {} B of memory a run", memory(&loaded));
    println!("  render   {render_ms:7.3} ms");

    assert_eq!(operations, PARAMS + TAGS + 7);
    assert!(memory(&full) < 1024 + text, "{}", memory(&full));
    assert!(memory(&loaded) < 1024 + text, "{}", memory(&loaded));
    // The envelope, the stamp, one group, no attributes; then 11 bytes an operation.
    assert_eq!(records[0].len(), 8 + 28 + 4 + 22 + 4 + operations * 11 + text);
}
