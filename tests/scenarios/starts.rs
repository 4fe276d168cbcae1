//! Options, and starts that must fail: one sentence on stderr that says what to do, and an exit code.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::api::{self, Client};
use super::support::server::{Ended, Launch, Server, binary};
use super::support::until;

/// A start that must fail is not allowed to think for long.
const FAIL_LIMIT: Duration = Duration::from_secs(10);
/// A user without rights (`nobody`), as which a start is tried when the test runs as root.
const NOBODY: u32 = 65_534;

/// Starts it and demands that it gives up by itself.
pub fn fails(launch: &Launch) -> Ended {
    let ended = launch.spawn().ended_within(FAIL_LIMIT);
    assert!(!ended.status.success(), "started: {}", ended.output);
    ended
}

/// One sentence, which names what is at fault.
pub fn says_in_one_sentence(errors: &str, named: &[&str]) {
    for word in named {
        assert!(errors.contains(word), "does not name {word}: {errors}");
    }
    // The command line parser adds where help is.
    let lines =
        errors.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("For more information"));
    assert_eq!(lines.count(), 1, "more or less than one sentence: {errors}");
    for noise in ["panicked", "backtrace", "Caused by", "Os {"] {
        assert!(!errors.contains(noise), "{noise}: {errors}");
    }
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder of a test is writable");
}

#[test]
fn a_second_process_on_a_data_directory_leaves_at_once() {
    let folder = temporary();
    let first = Launch::dev(folder.path().join("data")).start();
    let second = fails(&Launch::dev(folder.path().join("data")));
    says_in_one_sentence(&second.errors, &["data"]);
    let client = Client::new(&first.base());
    client.get("/api/v1/metrics").body();
    first.stop();
}

#[test]
fn a_file_instead_of_a_directory_stops_the_start() {
    let folder = temporary();
    write(&folder.path().join("data"), "");
    says_in_one_sentence(&fails(&Launch::dev(folder.path().join("data"))).errors, &["data"]);
}

#[test]
fn a_directory_without_access_stops_the_start() {
    let folder = temporary();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).expect("a folder");
    let own = fs::metadata(&data_dir).expect("it is there");
    for path in [folder.path(), data_dir.as_path()] {
        let mode = if path == data_dir { 0o000 } else { 0o755 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the folder is ours");
    }
    let mut command = Launch::dev(&data_dir).command();
    if own.uid() == 0 {
        // Root may enter everywhere, so somebody else tries; the binary is put where he can read it.
        let copy = folder.path().join("tracktags");
        fs::copy(binary(), &copy).expect("a copy of the binary");
        let mut other = Command::new(copy);
        other.args(command.get_args()).uid(NOBODY).gid(NOBODY);
        other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command = other;
    }
    let ended = Server::run(command, &data_dir).ended_within(FAIL_LIMIT);
    assert!(!ended.status.success(), "started: {}", ended.output);
    says_in_one_sentence(&ended.errors, &["data"]);
}

#[test]
fn a_wrong_option_stops_the_start() {
    for (option, value) in [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1"),
        ("--workers", "0"),
        ("--workers", "many"),
        ("--workers", "-1"),
        ("--durability", "perhaps"),
        ("--segment-bytes", "1KiB"),
        ("--segment-bytes", "a lot"),
        ("--snapshot-interval", "soon"),
        ("--dev-key", "short"),
    ] {
        let folder = temporary();
        let launch = Launch::bare(folder.path().join("data")).with(&["--dev", &format!("{option}={value}")]);
        says_in_one_sentence(&fails(&launch).errors, &[option.trim_start_matches('-')]);
        assert!(!folder.path().join("data").exists(), "{option} {value}: the data directory was touched");
    }
}

#[test]
fn a_wrong_variable_or_configuration_file_stops_the_start() {
    let folder = temporary();
    let data_dir = folder.path().join("data");
    let variable = Launch::bare(&data_dir).environment("TRACKTAGS_WORKERS", "many");
    assert!(fails(&variable).errors.to_lowercase().contains("workers"));

    let file = folder.path().join("tracktags.toml");
    let launch = Launch::bare(&data_dir).with(&["--config", &file.to_string_lossy()]);
    says_in_one_sentence(&fails(&launch).errors, &["tracktags.toml"]);
    for (text, named) in
        [("wrokers = 2\n", "wrokers"), ("workers = \"two\"\n", "workers"), ("workers 2", "tracktags.toml")]
    {
        write(&file, text);
        let errors = fails(&launch).errors;
        assert!(errors.contains(named) && !errors.contains("panicked"), "{text}: {errors}");
    }
    assert!(!data_dir.exists(), "the data directory was touched");
}

#[test]
fn an_address_in_use_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = temporary();
    let launch = Launch::bare(folder.path().join("data")).with(&["--listen", &address]);
    says_in_one_sentence(&fails(&launch).errors, &[&address]);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let folder = temporary();
    let file = folder.path().join("tracktags.toml");
    // All three name a data directory; which one is made says who won.
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    write(&file, &format!("data-dir = \"{}\"\nlisten = \"127.0.0.1:0\"\ndev = true\n", path("from-file")));
    let base = |arguments: &[&str], variable: Option<&str>| {
        let mut command = Command::new(binary());
        command.arg("serve").args(["--config", &file.to_string_lossy()]).args(arguments);
        command.envs(variable.map(|value| ("TRACKTAGS_DATA_DIR", value)));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let variable = path("from-variable");
    let flag = path("from-flag");
    let cases = [
        (base(&[], None), "from-file"),
        (base(&[], Some(&variable)), "from-variable"),
        (base(&["--data-dir", &flag], Some(&variable)), "from-flag"),
    ];
    for (mut command, made) in cases {
        let mut child = command.spawn().expect("the binary can be run");
        let key = folder.path().join(made).join("dev-key");
        let there = until(Duration::from_secs(20), || key.exists().then_some(()).ok_or(()));
        let _ = child.kill();
        let _ = child.wait();
        assert!(there.is_ok(), "{made} was not made");
    }
}

#[test]
fn a_dev_start_prints_the_address_its_key_and_three_calls_to_try() {
    let folder = temporary();
    let launch = Launch::bare(folder.path().join("data")).with(&["--dev"]);
    let server = launch.start();
    let key_file = folder.path().join("data/dev-key");
    let key = fs::read_to_string(&key_file).expect("the key is kept").trim().to_owned();
    assert!(key.starts_with("tk_live_") && key.len() > 40, "{} characters", key.len());
    for secret in ["dev-key", "admin-key"] {
        let mode = fs::metadata(folder.path().join("data").join(secret)).expect("it is kept").mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let first_url = server.base();
    let ended = server.stop();
    assert_eq!(ended.output.lines().next(), Some(format!("listening on {first_url}").as_str()));
    assert!(
        ended.output.lines().filter(|line| line.trim_start().starts_with("curl ")).count() >= 3,
        "{}",
        ended.output
    );
    assert!(ended.output.contains(&key));

    let again = launch.start().stop();
    assert!(again.output.contains(&key), "the next start prints the same key");
}

#[test]
fn without_dev_there_is_no_business_and_no_key_works() {
    let folder = temporary();
    let server = Launch::bare(folder.path().join("data")).start();
    let client = Client::new(&server.base());
    let refused = client.get("/api/v1/metrics");
    assert!(matches!(&refused, api::Outcome::Rejected(401, _)), "{refused:?}");
    assert!(!folder.path().join("data/dev-key").exists());
    server.stop();
}
