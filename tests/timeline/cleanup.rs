//! `cleanup_after: 1d`, with a restart in between: what a reader and the database see of it.

use dataflows::types::SeriesState;

use super::*;

async fn reading(rooms: &Rooms, handle: &SeriesHandle) -> (Amount, u64) {
    let standings = rooms.admission.read(std::slice::from_ref(handle)).await.expect("the engine answers");
    let standing = standings[0].expect("the series is there");
    (standing.value, standing.tally.count)
}

/// Until the reading is that: time entries come from another thread.
async fn reads(rooms: &Rooms, handle: &SeriesHandle, expected: (i64, u64)) {
    let began = Instant::now();
    while reading(rooms, handle).await != (Amount::from_units(expected.0), expected.1) {
        assert!(began.elapsed() < PATIENCE, "{expected:?} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two updates in the first seconds behind noon, their rows in the database, and the end of the service.
async fn first_updates(config: &Config, clock: &MockClock) {
    let (service, _, _) = start(config, clock);
    let rooms = service.rooms(config);
    let spec = SeriesSpec {
        flush_interval: Span::S5,
        initial_value: Amount::from_units(100),
        cleanup_after_days: Some(1),
        ..SeriesSpec::default()
    };
    let handle = define(&rooms, spec).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(send(&rooms, &handle, 3).await, Amount::from_units(103));
    clock.advance(Duration::from_secs(5));
    assert_eq!(send(&rooms, &handle, 4).await, Amount::from_units(107));
    clock.advance(Duration::from_secs(20));
    until("both rows", || rows_of(&rooms, &handle).len() == 2).await;
    stop(service, rooms).await;
}

fn started_again(config: &Config, clock: &MockClock) -> (Service, Rooms, SeriesHandle) {
    let (service, _, _) = start(config, clock);
    let rooms = service.rooms(config);
    let handle = rooms.control.resolve(&key()).expect("the series is there");
    (service, rooms, handle)
}

async fn stop(service: Service, rooms: Rooms) {
    drop(rooms);
    tokio::task::spawn_blocking(move || service.stop(false)).await.expect("the service stops");
}

/// What holds for a while, as no time entry is due.
async fn still_reads(rooms: &Rooms, handle: &SeriesHandle, expected: (i64, u64)) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(reading(rooms, handle).await, (Amount::from_units(expected.0), expected.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_that_is_quiet_for_a_day_begins_afresh_and_its_rows_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, clock) = (config(folder.path()), MockClock::at(NOON));
    first_updates(&config, &clock).await;

    let (service, rooms, handle) = started_again(&config, &clock);
    // A second short of a day behind the last update.
    clock.advance(Duration::from_secs(86_400 - 21));
    still_reads(&rooms, &handle, (107, 2)).await;
    clock.advance(Duration::from_secs(1));
    reads(&rooms, &handle, (100, 0)).await;
    clock.advance(Duration::from_secs(15));
    until("the row that had ended to go", || rows_of(&rooms, &handle).len() < 2).await;
    clock.advance(Duration::from_secs(20));
    until("the row of the last update to go", || rows_of(&rooms, &handle).is_empty()).await;

    assert_eq!(send(&rooms, &handle, 1).await, Amount::from_units(101));
    clock.advance(Duration::from_secs(20));
    until("the new row", || rows_of(&rooms, &handle).len() == 1).await;
    assert_eq!(rows_of(&rooms, &handle)[0].value, Amount::from_units(101));
    stop(service, rooms).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_an_earlier_version_counts_as_an_update() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, clock) = (config(folder.path()), MockClock::at(NOON));
    first_updates(&config, &clock).await;
    make_older(&folder.path().join("journal"));

    let (service, rooms, handle) = started_again(&config, &clock);
    // A day behind the last update, and not yet one behind the last time entry of the snapshot.
    clock.advance(Duration::from_secs(86_400 - 10));
    still_reads(&rooms, &handle, (107, 2)).await;
    clock.advance(Duration::from_secs(12));
    reads(&rooms, &handle, (100, 0)).await;
    stop(service, rooms).await;
}

/// Writes the series of every snapshot as they were before there was cleanup: section 4, without the fields that have
/// been added at the end of shape and state. `src/journal/snapshot.rs` has the layout of the file.
fn make_older(journal: &Path) {
    let files = std::fs::read_dir(journal).expect("the journal is there").flatten().map(|file| file.path());
    let is_snapshot = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snapshot-"))
    };
    let mut found = 0;
    for path in files.filter(is_snapshot) {
        let bytes = std::fs::read(&path).expect("readable");
        let (head, mut rest) = bytes.split_at(68);
        let mut crc = u32::from_le_bytes(head[64..].try_into().expect("four bytes"));
        let mut older = head.to_vec();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            let (section, behind) = rest.split_at(9 + length);
            let (kind, content) = match section[0] {
                7 => (4, without_cleanup(&section[9..], &mut found)),
                kind => (kind, section[9..].to_vec()),
            };
            let mut head = vec![kind];
            head.extend((content.len() as u32).to_le_bytes());
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &head), &content);
            head.extend(crc.to_le_bytes());
            older.extend(head.into_iter().chain(content));
            rest = behind;
        }
        std::fs::write(&path, older).expect("writable");
    }
    assert!(found > 0, "there is a snapshot with the series");
}

fn without_cleanup(mut series: &[u8], found: &mut usize) -> Vec<u8> {
    let mut older = Vec::new();
    while !series.is_empty() {
        let (state, rest) = postcard::take_from_bytes::<SeriesState>(series).expect("readable");
        let shape = &state.shape;
        let shape = (
            (shape.operation, shape.metric_type, shape.flush, shape.reset),
            (shape.initial_value, shape.batch, shape.stored, shape.limit, shape.max_event_age_secs),
        );
        let lists = (&state.windows, &state.periods, &state.cuts, &state.merges);
        let state = (state.series, shape, state.touched, lists, state.switching);
        older.extend(postcard::to_stdvec(&state).expect("written to memory"));
        (series, *found) = (rest, *found + 1);
    }
    older
}
