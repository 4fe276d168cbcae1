//! `cleanup_after: 1d`, with a restart in between: what a reader and the database see of it.

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_that_is_quiet_for_a_day_begins_afresh_and_its_rows_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path());
    let clock = MockClock::at(NOON);
    let spec = SeriesSpec {
        flush_interval: Span::S5,
        initial_value: Amount::from_units(100),
        cleanup_after_days: Some(1),
        ..SeriesSpec::default()
    };
    let (service, _) = start(&config, &clock);
    let rooms = service.rooms(&config);
    let handle = define(&rooms, spec).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(send(&rooms, &handle, 3).await, Amount::from_units(103));
    clock.advance(Duration::from_secs(5));
    assert_eq!(send(&rooms, &handle, 4).await, Amount::from_units(107));
    clock.advance(Duration::from_secs(20));
    until("both rows", || rows_of(&rooms, &handle).len() == 2).await;
    drop(rooms);
    tokio::task::spawn_blocking(move || service.stop(false)).await.expect("the service stops");

    let (service, _) = start(&config, &clock);
    let rooms = service.rooms(&config);
    let handle = rooms.control.resolve(&key()).expect("the series is there");
    // A second short of a day behind the last update.
    clock.advance(Duration::from_secs(86_400 - 21));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(reading(&rooms, &handle).await, (Amount::from_units(107), 2));
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
    drop(rooms);
    tokio::task::spawn_blocking(move || service.stop(false)).await.expect("the service stops");
}
