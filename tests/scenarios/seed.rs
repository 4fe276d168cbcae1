//! The user's own guide: every bash example of it, taken from the file at test time, with only key and base URL
//! replaced. The guide is not part of the repository: where it is absent, the test says that it was skipped.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataflows::types::Amount;

use super::support::documents::Document;
use super::support::history::{self, Place, Stored};
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::{KEY, api, root, until};

const TOTAL: (Option<String>, &str) = (None, "total_api_calls");

/// The guide's files, in order; empty where the folder is absent.
fn guide() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("../shared/seed"));
    let mut files: Vec<_> = folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

fn document(server: &Server, files: &[PathBuf]) -> Document {
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("the guide is UTF-8"));
    let replacements = vec![
        ("http://localhost:8080".to_owned(), server.base()),
        ("tk_live_your_key".to_owned(), KEY.to_owned()),
    ];
    Document { text: texts.collect(), folder: server.data_dir().to_owned(), replacements }
}

/// What the answers say the value of a metric is, last one first.
fn last_reading(answers: &[String], metric_name: &str) -> Option<Amount> {
    let of_metric = |body: &&String| api::text(body, "metric_name").as_deref() == Some(metric_name);
    let readings = answers.iter().rev().filter(of_metric).filter(|body| api::text(body, "scope").is_some());
    readings.filter_map(|body| api::amount(body, "current_value")).next()
}

fn stored(place: Place<'_>, customer: Option<&str>, metric_name: &str) -> Option<Stored> {
    let name = (customer.map(str::to_owned), metric_name.to_owned());
    history::read(place).ok()?.remove(&name)
}

#[test]
fn the_guide_runs_unchanged_and_its_promises_hold() {
    the_guide_runs(None);
}

#[test]
fn the_guide_runs_unchanged_on_postgresql_and_its_promises_hold() {
    the_guide_runs(Some(&Cluster::start()));
}

fn the_guide_runs(cluster: Option<&Cluster>) {
    let files = guide();
    if files.is_empty() {
        println!("skipped: ../shared/seed is absent");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut launch = Launch::dev(folder.path().join("data"));
    if let Some(cluster) = cluster {
        launch = launch.with(&["--database-url", &cluster.url()]);
    }
    let server = launch.start();
    let data_dir = server.data_dir().to_owned();
    let place = cluster.map_or(Place::Embedded(&data_dir), Place::Postgres);
    let guide = document(&server, &files);
    assert!(guide.blocks().len() >= 4, "the guide has examples");

    let answers = guide.run();
    let updated = Instant::now();
    assert_eq!(last_reading(&answers, TOTAL.1), Some(Amount::from_units(100)), "{answers:#?}");
    assert_eq!(last_reading(&answers, "api_usage"), Some(Amount::from_units(50)), "{answers:#?}");
    rows_come_with_the_batch(place, updated);

    // Creating what exists changes nothing; updates add up.
    let answers = guide.run();
    assert_eq!(last_reading(&answers, TOTAL.1), Some(Amount::from_units(200)), "{answers:#?}");
    assert_eq!(last_reading(&answers, "api_usage"), Some(Amount::from_units(100)), "{answers:#?}");
    server.stop();
    let rows = history::read(place).expect("the last batch is in the store");
    let total = rows.get(&(None, TOTAL.1.to_owned())).expect("a row");
    assert_eq!((total.newest_value, total.tally.count), (Amount::from_units(200), 2));
}

/// In the store a batch interval and a second after the update, with the right scope and value. Two seconds are the
/// test's own: for a busy machine and its polling.
fn rows_come_with_the_batch(place: Place<'_>, updated: Instant) {
    let expected = [(None, TOTAL.1, 100, 15), (Some("cust_123"), "api_usage", 50, 30)];
    for (customer, metric_name, value, batch_seconds) in expected {
        let limit = Duration::from_secs(batch_seconds + 3).saturating_sub(updated.elapsed());
        let row = until(limit, || stored(place, customer, metric_name).ok_or(()));
        let row = row
            .unwrap_or_else(|()| panic!("no row of {metric_name} {:?} after its update", updated.elapsed()));
        assert_eq!((row.newest_value, row.tally.sum), (Amount::from_units(value), Amount::from_units(value)));
        assert_eq!((row.tally.count, row.rows), (1, 1), "{metric_name}");
        let other = if customer.is_some() { None } else { Some("cust_123") };
        assert_eq!(stored(place, other, metric_name), None, "{metric_name} is in the other scope too");
    }
}
