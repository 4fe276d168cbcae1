//! A private PostgreSQL on a free port, and PgBouncer in transaction mode in front of it.
//!
//! `initdb` runs once a machine and user, into a template that every cluster is copied from. A cluster lives until it is
//! dropped or the test process ends, however it ends: a guard process waits for that, stops the server and removes
//! the files. PostgreSQL refuses to run as root: then it runs as `postgres`, the user of the Debian package.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::postgres::types::Type;
use ::postgres::{Client, NoTls, SimpleQueryMessage};

/// Asks `question` every few milliseconds until it answers `Ok`; after `limit` the last `Err` is the answer.
pub fn until<T, E>(limit: Duration, mut question: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match question() {
            Err(_) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

/// The superuser of every cluster; trusted without a password on loopback.
pub const USER: &str = "tester";
const START_LIMIT: Duration = Duration::from_secs(30);
/// Small, quiet, on loopback alone; everything that matters for durability is as it comes.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 40
shared_buffers = 64MB
timezone = 'UTC'
";
/// Waits for its input to end, then stops the server of a directory ($1) and removes it ($2).
const GUARD: &str = "cat >/dev/null; read -r pid <\"$1/postmaster.pid\" && kill -QUIT \"$pid\"; \
                     read -r pid <\"$2/bouncer.pid\" && kill -QUIT \"$pid\"; sleep 0.3; rm -rf \"$2\"";

/// A running server with one empty database, `postgres`.
pub struct Cluster {
    home: PathBuf,
    port: u16,
    bouncer_port: Option<u16>,
    children: Mutex<Vec<Child>>,
    /// Its end tells the guard.
    _guard: ChildStdin,
}

impl Cluster {
    /// Starts one.
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// Starts one with more lines in its configuration.
    pub fn start_with(settings: &str) -> Cluster {
        let home = tempfile::Builder::new().prefix("tracktags-pg-").tempdir().expect("a directory").keep();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("permissions");
        let data = home.join("data");
        done(Command::new("cp").arg("-a").arg(template()).arg(&data));
        let configuration = data.join("postgresql.conf");
        let mut text = fs::read_to_string(&configuration).expect("the template has a configuration");
        text.push_str(settings);
        fs::write(&configuration, text).expect("written");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .args([&data, &home])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let guard = guard.expect("a shell").stdin.expect("piped");
        let children = Mutex::default();
        let mut cluster = Cluster { home, port: 0, bouncer_port: None, children, _guard: guard };
        for _ in 0..3 {
            cluster.port = free_port();
            if cluster.start_again().is_ok() {
                return cluster;
            }
        }
        panic!("PostgreSQL does not start:\n{}", cluster.log());
    }

    /// Starts the server after a stop, on the same port.
    pub fn start_again(&self) -> Result<(), String> {
        let mut command = as_server(&program("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.home.join("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("postgres");
        self.children().push(child);
        until(START_LIMIT, || match self.try_connect() {
            Ok(_) => Ok(Ok(())),
            Err(_) if self.has_ended() => Ok(Err(self.log())),
            Err(error) => Err(error.to_string()),
        })?
    }

    /// A URL of the database, directly.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    /// A URL of the database through PgBouncer, which is started if it is not there.
    pub fn bounced_url(&mut self) -> String {
        let port = *self.bouncer_port.get_or_insert_with(free_port);
        if self.try_connect_to(port).is_err() {
            self.start_bouncer(port);
        }
        format!("postgres://{USER}@127.0.0.1:{port}/postgres?pgbouncer=true")
    }

    fn start_bouncer(&self, port: u16) {
        let file = self.home.join("bouncer.ini");
        let pid_file = self.home.join("bouncer.pid");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={USER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 8\nmax_client_conn = 100\nserver_login_retry = 1\n",
            self.port
        );
        fs::write(&file, text).expect("written");
        let command = &mut as_server(&program("pgbouncer"));
        let child = command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = child.stderr(Stdio::null()).spawn().expect("pgbouncer");
        fs::write(pid_file, format!("{}\n", child.id())).expect("written");
        self.children().push(child);
        let connected = until(START_LIMIT, || self.try_connect_to(port));
        assert!(connected.is_ok(), "PgBouncer does not start");
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.children().iter_mut().all(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    fn try_connect_to(&self, port: u16) -> Result<Client, ::postgres::Error> {
        ::postgres::Config::new()
            .host("127.0.0.1")
            .port(port)
            .user(USER)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
    }

    /// A connection of a user, if the server answers.
    pub fn try_connect(&self) -> Result<Client, ::postgres::Error> {
        self.try_connect_to(self.port)
    }

    /// A connection of a user.
    pub fn connect(&self) -> Client {
        self.try_connect().expect("the server answers")
    }

    /// Everything that is in the database, as `pg_dump` writes it.
    pub fn dump(&self) -> String {
        let output = Command::new(program("pg_dump")).args(["--inserts", "--dbname", &self.url()]).output();
        let output = output.expect("pg_dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends at once, as `pg_ctl stop -m immediate` does: no checkpoint, connections cut.
    pub fn stop_immediately(&self) {
        self.signal("QUIT");
        let ended = until(START_LIMIT, || if self.has_ended() { Ok(()) } else { Err(()) });
        assert!(ended.is_ok(), "the server does not end");
    }

    /// Sends a signal to the postmaster.
    pub fn signal(&self, signal: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        let pid = file.lines().next().expect("the first line is the process");
        done(Command::new("kill").args([&format!("-{signal}"), pid]));
    }

    /// Sends a signal to the postmaster and all of its children.
    pub fn signal_all(&self, signal: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        let pid = file.lines().next().expect("the first line is the process");
        // None may be there any more.
        let _ = Command::new("pkill").args([&format!("-{signal}"), "-P", pid]).status();
        self.signal(signal);
    }

    /// Appends lines to `pg_hba.conf`'s front and reloads: the first line that fits counts.
    pub fn admit_first(&self, lines: &str) {
        let file = self.data().join("pg_hba.conf");
        let old = fs::read_to_string(&file).expect("the template has one");
        fs::write(&file, format!("{lines}\n{old}")).expect("written");
        self.signal("HUP");
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Puts a file into the data directory, for the server alone to read.
    pub fn put_private(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        let mut file = fs::File::create(&path).expect("created");
        file.write_all(content.as_bytes()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        if is_root() {
            done(Command::new("chown").arg("postgres:postgres").arg(&path));
        }
    }
}

/// Every row of a query, columns joined by `|`, `-` for NULL; amounts, times and flags as the embedded store writes them.
pub fn lines(client: &mut Client, query: &str) -> Vec<String> {
    let statement = client.prepare(query).expect("the query is valid");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    let messages = client.simple_query(query).expect("the query runs");
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let cell = |text: Option<&str>, kind: &Type| {
        let Some(text) = text else { return "-".to_owned() };
        match *kind {
            Type::BOOL => if text == "t" { "1" } else { "0" }.to_owned(),
            Type::JSON | Type::JSONB => {
                let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
                value.to_string()
            }
            Type::TIMESTAMPTZ => {
                let at: jiff::Timestamp = text.replacen(' ', "T", 1).parse().expect("a time");
                format!("{at:.6}")
            }
            _ => text.to_owned(),
        }
    };
    rows.map(|row| {
        let cells = types.iter().enumerate().map(|(index, kind)| cell(row.get(index), kind));
        cells.collect::<Vec<_>>().join("|")
    })
    .collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The guard does the rest.
        self.children().iter_mut().for_each(|child| drop(child.kill()));
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Where a program of the packages is.
fn program(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    folders.push("/usr/sbin".into());
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    debian.sort();
    folders.extend(debian.into_iter().rev());
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: tests/run installs it"))
}

/// A command that runs as a user PostgreSQL accepts.
fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--inh-caps=-all"]).arg(program);
    command
}

/// The data directory that all are copied from.
fn template() -> PathBuf {
    let user = if is_root() { "root" } else { "user" };
    let path = std::env::temp_dir().join(format!("tracktags-pg-template-1-{user}"));
    if path.join("PG_VERSION").exists() {
        return path;
    }
    let made = tempfile::tempdir().expect("a directory");
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
    let data = made.path().join("data");
    let mut initdb = as_server(&program("initdb"));
    done(initdb.arg("-D").arg(&data).args([
        "--auth=trust",
        "--username",
        USER,
        "--encoding=UTF8",
        "--locale=C",
    ]));
    let configuration = data.join("postgresql.conf");
    let text = fs::read_to_string(&configuration).expect("initdb wrote it");
    fs::write(&configuration, text + SETTINGS).expect("written");
    // Another process may have been faster.
    if fs::rename(&data, &path).is_err() && !path.join("PG_VERSION").exists() {
        panic!("{} cannot be made", path.display());
    }
    path
}

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
