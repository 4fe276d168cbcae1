//! SIGKILL at random moments under load, some of them during the recovery from the one before. Unknown answers are sent
//! again by their identity; then every update is counted exactly once, and engine = store = model.

use std::thread::sleep;
use std::time::Duration;

use super::support::audit::{Fleet, Habits};
use super::support::history::Place;
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::{Random, rounds};

const CLIENTS: usize = 16;
/// The longest batch interval of the load, the second it is rounded up by, and time for a busy machine.
const STORE_LIMIT: Duration = Duration::from_secs(20);
const HABITS: Habits = Habits { audits: true, batches: &["1s", "1s", "5s"] };

fn launch(folder: &tempfile::TempDir, url: Option<&str>, random: &mut Random) -> Launch {
    let launch = Launch::dev(folder.path().join("data")).workers(1 + random.below(3));
    url.into_iter().fold(launch, |launch, url| launch.environment("DATABASE_URL", url))
}

#[test]
fn killed_at_random_moments_it_counts_every_update_exactly_once() {
    kill_at_random_moments("kills", None);
}

#[test]
fn killed_at_random_moments_on_postgresql_it_counts_every_update_exactly_once() {
    kill_at_random_moments("kills on PostgreSQL", Some(&Cluster::start()));
}

fn kill_at_random_moments(name: &str, cluster: Option<&Cluster>) {
    let mut random = Random::seeded(name);
    let url = cluster.map(Cluster::url);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut fleet = Fleet::new(CLIENTS, HABITS, &mut random);
    let mut server = launch(&folder, url.as_deref(), &mut random).start();
    let rounds = rounds(5, 30);
    for round in 0..rounds {
        let moment = random.millis(50, 1_500);
        fleet.load(&server.base(), || {
            sleep(moment);
            server.kill();
        });
        for _ in 0..random.below(3) {
            killed_while_it_starts(&launch(&folder, url.as_deref(), &mut random), random.millis(0, 80));
        }
        server = launch(&folder, url.as_deref(), &mut random).start();
        let place = cluster.map_or(server.place(), Place::Postgres);
        settle_and_audit(&mut fleet, &server, place, &format!("round {round}, killed after {moment:?}"));
    }
    println!("{rounds} kills, {} updates, {} unknown answers", fleet.acknowledged(), fleet.unknown());
    assert!(fleet.unknown() > 0, "no kill hit a call: the load is too small to prove anything");
}

fn killed_while_it_starts(launch: &Launch, moment: Duration) {
    let starting = launch.spawn();
    sleep(moment);
    starting.kill();
}

/// Everything becomes definite, and is then equal everywhere.
pub fn settle_and_audit(fleet: &mut Fleet, server: &Server, place: Place<'_>, when: &str) {
    fleet.settle(&server.base());
    fleet.audit_engine(&server.base());
    fleet.demand_nothing_wrong(&format!("{when}, engine"));
    fleet.audit_store(place, STORE_LIMIT);
    fleet.demand_nothing_wrong(&format!("{when}, store"));
}
