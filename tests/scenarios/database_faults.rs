//! PostgreSQL failing under load in every way it can: no client notices, and in the end every row is right, and there once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::kills::settle_and_audit;
use super::support::audit::{Fleet, Habits};
use super::support::history::Place;
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::{Random, rounds, until};

const HABITS: Habits = Habits { audits: true, batches: &["1s", "1s", "5s"] };

/// A server on a database, clients, and what is done to the database while they work.
struct Trial {
    cluster: Cluster,
    _folder: tempfile::TempDir,
    launch: Launch,
    server: Server,
    fleet: Fleet,
}

impl Trial {
    /// `route`: what the URL of the database is, given the direct one.
    fn begin(name: &str, route: impl FnOnce(&Cluster) -> String) -> Trial {
        let mut random = Random::seeded(name);
        let cluster = Cluster::start();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let launch = Launch::dev(folder.path().join("data")).with(&["--database-url", &route(&cluster)]);
        let server = launch.start();
        let fleet = Fleet::new(8, HABITS, &mut random);
        Trial { cluster, _folder: folder, launch, server, fleet }
    }

    /// The clients work while `harm` is done, and a little before and after; none may see an error.
    fn under_load(&mut self, harm: impl FnOnce(&Cluster)) {
        let cluster = &self.cluster;
        self.fleet.load(&self.server.base(), || {
            sleep(Duration::from_millis(2_500));
            harm(cluster);
            sleep(Duration::from_millis(1_000));
        });
        self.fleet.demand_nothing_wrong("under load");
        assert_eq!(self.fleet.unknown(), 0, "clients saw errors");
    }

    fn everything_is_right(&mut self, when: &str) {
        settle_and_audit(&mut self.fleet, &self.server, Place::Postgres(&self.cluster), when);
        println!("{when}: {} updates", self.fleet.acknowledged());
    }

    fn readiness(&self) -> String {
        let url = format!("{}/readyz", self.server.base());
        let mut answer = ureq::get(url).call().expect("it is ready, degraded or not");
        answer.body_mut().read_to_string().expect("text")
    }
}

#[test]
fn stopped_for_twenty_seconds_and_started_again() {
    let mut trial = Trial::begin("database stopped", Cluster::url);
    let base = trial.server.base();
    trial.under_load(|cluster| {
        cluster.stop_immediately();
        sleep(Duration::from_secs(rounds(8, 20) as u64));
        let url = format!("{base}/readyz");
        let body = ureq::get(url).call().expect("still ready").body_mut().read_to_string().expect("text");
        assert!(body.contains("degraded") && body.contains("store"), "{body}");
        cluster.start_again().expect("it starts");
    });
    trial.everything_is_right("after 20 s without a database");
    let ok =
        until(
            Duration::from_secs(40),
            || if trial.readiness().contains("degraded") { Err(()) } else { Ok(()) },
        );
    assert!(ok.is_ok(), "{}", trial.readiness());
}

#[test]
fn backends_killed_over_and_over() {
    let mut trial = Trial::begin("backends killed", Cluster::url);
    trial.under_load(|cluster| {
        for _ in 0..rounds(40, 200) {
            sleep(Duration::from_millis(97));
            let Ok(mut client) = cluster.try_connect() else { continue };
            let kill =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tracktags'";
            let _ = client.simple_query(kill);
        }
        // SIGKILL of one makes the postmaster end them all and recover.
        let mut client = cluster.connect();
        let rows = client.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'tracktags'", &[]);
        let pid: i32 = rows.expect("readable").first().map_or(0, |row| row.get(0));
        if pid > 0 {
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    trial.everything_is_right("after killed backends");
}

#[test]
fn a_locked_table_only_delays() {
    let mut trial = Trial::begin("locked table", Cluster::url);
    trial.under_load(|cluster| {
        let mut client = cluster.connect();
        let mut transaction = client.transaction().expect("a transaction");
        transaction.batch_execute("LOCK TABLE tracktags.metrics IN ACCESS EXCLUSIVE MODE").expect("locked");
        // Longer than the writer waits for a lock.
        sleep(Duration::from_secs(12));
        transaction.rollback().expect("unlocked");
    });
    trial.everything_is_right("after a locked table");
}

#[test]
fn a_frozen_server_only_delays() {
    let mut trial = Trial::begin("frozen server", Cluster::url);
    trial.under_load(|cluster| {
        cluster.signal_all("STOP");
        sleep(Duration::from_secs(5));
        cluster.signal_all("CONT");
    });
    trial.everything_is_right("after a frozen server");
    // A stop in front of a frozen database keeps its promise, and nothing is lost by it.
    trial.cluster.signal_all("STOP");
    let Trial { server, launch, cluster, mut fleet, _folder } = trial;
    fleet.load(&server.base(), || sleep(Duration::from_millis(1_500)));
    server.stop();
    cluster.signal_all("CONT");
    let server = launch.start();
    settle_and_audit(&mut fleet, &server, Place::Postgres(&cluster), "after a stop before a frozen server");
}

#[test]
fn down_at_the_start_it_takes_updates_and_catches_up() {
    let mut trial = Trial::begin("down at start", Cluster::url);
    trial.under_load(|_| ());
    for round in 0..rounds(2, 6) {
        // Killed and not stopped: batches are on their way.
        trial.fleet.load(&trial.server.base(), || {
            sleep(Duration::from_millis(1_300 + 170 * round as u64));
            trial.server.kill();
        });
        trial.cluster.stop_immediately();
        trial.server = trial.launch.start();
        trial.fleet.load(&trial.server.base(), || sleep(Duration::from_millis(1_500)));
        trial.fleet.demand_nothing_wrong("without a database");
        if round % 2 == 1 {
            // And once more without ever having seen the database.
            trial.server.kill();
            trial.server = trial.launch.start();
        }
        trial.cluster.start_again().expect("it starts");
        trial.everything_is_right(&format!("round {round}, after a start without a database"));
    }
}

#[test]
fn a_database_that_lost_commits_gets_current_values_again() {
    let mut trial = Trial::begin("failover", Cluster::url);
    trial.under_load(|_| ());
    trial.everything_is_right("before");
    // Its snapshot says that all windows are in the store.
    let Trial { cluster, launch, server, fleet, _folder } = trial;
    server.stop();
    // As an old copy would be: an hour of batches is not there, nor is what they say of progress.
    let lose = "DELETE FROM tracktags.series_state; DELETE FROM tracktags.metrics;
        UPDATE tracktags.sink_progress SET upper = 1, whole_upper = 1 WHERE class <> 'definitions'";
    cluster.connect().batch_execute(lose).expect("lost");
    let server = launch.start();
    assert!(server.errors().contains("has lost batches"), "{}", server.errors());
    let values = "SELECT count(*) FROM tracktags.usage_current WHERE updated_at IS NOT NULL";
    let all = fleet.series() as i64;
    let is_back = || match cluster.connect().query_one(values, &[]).expect("readable").get::<_, i64>(0) {
        count if count == all => Ok(()),
        count => Err(count),
    };
    assert_eq!(until(Duration::from_secs(20), is_back), Ok(()), "of {all} series");
}

/// Makes commits of these classes take longer than the shortest batch interval: the database waits inside COMMIT, which it
/// carries out even when nobody is there any more.
const SLOW_COMMITS: &str = "
    CREATE OR REPLACE FUNCTION tracktags.wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(1.4); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON tracktags.sink_progress
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (CLASSES) EXECUTE FUNCTION tracktags.wait()";
/// All: batches fall behind their interval, so that the next is of more than one. One: what is under way is the second batch
/// of its time entry, behind one that is in.
const SLOW_CLASSES: [&str; 2] = ["NEW.class <> 'definitions'", "NEW.class = '5s'"];

#[test]
fn down_at_the_start_behind_a_commit_that_nobody_waited_for() {
    let mut trial = Trial::begin("slow commits", Cluster::url);
    trial.under_load(|_| ());
    for round in 0..rounds(2, 8) {
        let trigger = SLOW_COMMITS.replace("CLASSES", SLOW_CLASSES[round % SLOW_CLASSES.len()]);
        trial.cluster.connect().batch_execute(&trigger).expect("a trigger");
        let (server, cluster) = (&trial.server, &trial.cluster);
        trial.fleet.load(&server.base(), || {
            sleep(Duration::from_millis(5_000 + 570 * round as u64));
            let mut client = cluster.connect();
            let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            let commits = until(Duration::from_secs(20), || match client.query(waits, &[]) {
                Ok(rows) if rows.len() == 1 => Ok(()),
                other => Err(other),
            });
            server.kill();
            assert!(commits.is_ok(), "no commit was under way");
        });
        // It comes through.
        sleep(Duration::from_millis(1_600));
        cluster.stop_immediately();
        trial.server = trial.launch.start();
        trial.fleet.load(&trial.server.base(), || sleep(Duration::from_millis(1_500)));
        trial.fleet.demand_nothing_wrong("without a database");
        trial.cluster.start_again().expect("it starts");
        let normal = "DROP TRIGGER IF EXISTS slow ON tracktags.sink_progress";
        trial.cluster.connect().batch_execute(normal).expect("as before");
        trial.everything_is_right(&format!("round {round}, behind a commit of unknown outcome"));
    }
}

/// A proxy that, while armed, passes COMMIT on and then swallows the answer with the connection.
struct Swallower {
    port: u16,
    armed: Arc<AtomicBool>,
    swallowed: Arc<AtomicUsize>,
}

impl Swallower {
    fn before(port: u16) -> Swallower {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own_port = listener.local_addr().expect("bound").port();
        let (armed, swallowed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_armed, count) = (armed.clone(), swallowed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (is_armed, count) = (is_armed.clone(), count.clone());
                std::thread::spawn(move || pass(client, server, &is_armed, &count));
            }
        });
        Swallower { port: own_port, armed, swallowed }
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, is_armed: &AtomicBool, count: &AtomicUsize) {
    let (mut answers, mut to_client) = match (server.try_clone(), client.try_clone()) {
        (Ok(answers), Ok(to_client)) => (answers, to_client),
        _ => return,
    };
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = silent.clone();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while let Ok(length @ 1..) = answers.read(&mut buffer) {
            if is_silent.load(Ordering::Acquire) || to_client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let said = &buffer[..length];
        if is_armed.load(Ordering::Acquire) && said.windows(6).any(|word| word == b"COMMIT") {
            silent.store(true, Ordering::Release);
            count.fetch_add(1, Ordering::Relaxed);
        }
        if server.write_all(said).is_err() {
            break;
        }
    }
    // What the server has been sent it carries out: its end of the connection closes last.
    let _ = answering.join();
}

#[test]
fn the_answer_to_commit_is_swallowed() {
    let mut proxy = None;
    let mut trial = Trial::begin("commit swallowed", |cluster| {
        let swallower = Swallower::before(cluster.port());
        let url = cluster.url().replace(&cluster.port().to_string(), &swallower.port.to_string());
        proxy = Some(swallower);
        url
    });
    let proxy = proxy.expect("made above");
    trial.under_load(|_| {
        for _ in 0..rounds(6, 40) {
            proxy.armed.store(true, Ordering::Release);
            // Batches come each second: the pauses must not keep step with them.
            sleep(Duration::from_millis(900));
            proxy.armed.store(false, Ordering::Release);
            sleep(Duration::from_millis(470));
        }
    });
    assert!(proxy.swallowed.load(Ordering::Relaxed) > 0, "no answer was swallowed");
    println!("{} answers swallowed", proxy.swallowed.load(Ordering::Relaxed));
    trial.everything_is_right("after swallowed answers");
}
