//! The real binary: started on a free port, watched, killed. A `Server` that is dropped is killed.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::Place;
use super::{KEY, until};

/// How long a start may take. Generous: a debug build replays a journal while other tests run.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a graceful stop may take: the promise of the service.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tracktags"))
}

/// `tracktags serve` with what differs between tests.
#[derive(Clone, Debug)]
pub struct Launch {
    data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// A `--dev` server with the key `KEY` on a free port.
    pub fn dev(data_dir: impl Into<PathBuf>) -> Launch {
        Launch::bare(data_dir).with(&["--dev", "--dev-key", KEY])
    }

    /// A server on a free port.
    pub fn bare(data_dir: impl Into<PathBuf>) -> Launch {
        Launch { data_dir: data_dir.into(), arguments: Vec::new(), environment: Vec::new() }
            .with(&["--listen", "127.0.0.1:0"])
    }

    /// More arguments.
    pub fn with(mut self, arguments: &[&str]) -> Launch {
        self.arguments.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }

    /// The number of workers.
    pub fn workers(self, workers: usize) -> Launch {
        self.with(&["--workers", &workers.to_string()])
    }

    /// A variable.
    pub fn environment(mut self, name: &str, value: &str) -> Launch {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, nothing inherited but the path.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data-dir").arg(&self.data_dir).args(&self.arguments);
        let inherited = std::env::vars().filter(|(name, _)| name.starts_with("TRACKTAGS_"));
        inherited.for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.env_remove("DATABASE_URL");
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts and waits until `/readyz` says 200. The error is what the process said.
    pub fn try_start(&self) -> Result<Server, String> {
        let server = self.spawn();
        let ready = until(START_LIMIT, || match server.has_ended() {
            true => Ok(false),
            false => server.is_ready().then_some(true).ok_or(()),
        });
        match ready {
            Ok(true) => Ok(server),
            Ok(false) => Err(format!("the process ended: {}", server.everything_said())),
            Err(()) => Err(format!("not ready after {START_LIMIT:?}: {}", server.everything_said())),
        }
    }

    /// As `try_start`; panics with what the process said.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|why| panic!("the server does not start: {why}"))
    }

    /// Starts and does not wait.
    pub fn spawn(&self) -> Server {
        Server::run(self.command(), &self.data_dir)
    }
}

impl Server {
    /// Runs a command of `Launch::command`, perhaps changed.
    pub fn run(mut command: Command, data_dir: &Path) -> Server {
        let mut child = command.spawn().expect("the binary can be run");
        let (output, errors) = (Said::default(), Said::default());
        let readers = [
            child.stdout.take().map(|pipe| output.collect(pipe)),
            child.stderr.take().map(|pipe| errors.collect(pipe)),
        ];
        let readers = readers.into_iter().flatten().collect();
        Server { child: Mutex::new(child), output, errors, readers, data_dir: data_dir.to_owned() }
    }
}

/// What a process has printed so far on one of its pipes.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn collect(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let said = self.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let mut text = said.0.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running process.
pub struct Server {
    child: Mutex<Child>,
    output: Said,
    errors: Said,
    readers: Vec<JoinHandle<()>>,
    data_dir: PathBuf,
}

impl Server {
    /// `http://127.0.0.1:PORT`, once it is known.
    pub fn url(&self) -> Option<String> {
        let output = self.output.text();
        let line = output.lines().find(|line| line.starts_with("listening on http://"))?;
        line.strip_prefix("listening on ").map(|url| url.trim().to_owned())
    }

    /// `http://127.0.0.1:PORT` of a started server.
    pub fn base(&self) -> String {
        self.url().expect("a started server has said where it listens")
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.locked().id()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where its embedded store is.
    pub fn place(&self) -> Place<'_> {
        Place::Embedded(&self.data_dir)
    }

    /// Standard output so far.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Standard error so far.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    fn everything_said(&self) -> String {
        // The readers may be a moment behind the end of the process.
        std::thread::sleep(Duration::from_millis(50));
        format!("\nstdout:\n{}\nstderr:\n{}", self.output(), self.errors())
    }

    fn is_ready(&self) -> bool {
        let Some(url) = self.url() else { return false };
        ureq::get(format!("{url}/readyz")).call().is_ok_and(|answer| answer.status() == 200)
    }

    fn has_ended(&self) -> bool {
        self.try_ended().is_some()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&self) {
        let mut child = self.locked();
        // An error means that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        let id = self.locked().id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -TERM {id}");
    }

    /// Its exit status, once it has ended.
    pub fn try_ended(&self) -> Option<ExitStatus> {
        self.locked().try_wait().ok().flatten()
    }

    /// Waits for the end; panics with what the process said if it has not come by `limit`.
    pub fn ended_within(mut self, limit: Duration) -> Ended {
        let start = Instant::now();
        let status = until(limit, || self.try_ended().ok_or(()));
        let status =
            status.unwrap_or_else(|()| panic!("still there after {limit:?}{}", self.everything_said()));
        let took = start.elapsed();
        // The pipes are closed now: everything has been said.
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader only reads"));
        Ended { status, took, output: self.output(), errors: self.errors() }
    }

    /// SIGTERM; panics unless it exits with 0 in time.
    pub fn stop(self) -> Ended {
        self.terminate();
        let ended = self.ended_within(STOP_LIMIT);
        assert!(ended.status.success(), "{:?} {:?}\n{}", ended.status, ended.status.signal(), ended.errors);
        ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended.
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// How long the wait for it was.
    pub took: Duration,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}
