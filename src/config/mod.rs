//! Options: flags, `TRACKTAGS_*` variables and the keys of a TOML file, in that order of precedence.
//!
//! One struct is all three: clap fills it from flags and variables, serde from the file, `Options::resolve` lays the first
//! over the second, fills in the defaults and checks everything once. What comes out (`Config`) is valid.

mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use thiserror::Error;

use values::MIB;
pub use values::{Bytes, Durability, Late, Network, Period, Secret, SecretKey};

/// A setting that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A value is out of its range.
    #[error("{option} is {value}: {rule}")]
    Invalid {
        /// The flag.
        option: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration {path} is wrong: {why}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, on one line.
        why: String,
    },
}

/// What `serve` can be told.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// A TOML file with these options as keys, without the dashes
    #[arg(long, env = "TRACKTAGS_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one, which the first line of output names [default: 127.0.0.1:8080]
    #[arg(long, env = "TRACKTAGS_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Journal, snapshots, history.db and generated keys [default: ./data]
    #[arg(long, env = "TRACKTAGS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Dataflow threads, 1 to 256; may change at any start [default: half the cores]
    #[arg(long, env = "TRACKTAGS_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// When an update counts as durable [default: fsync]
    #[arg(long, env = "TRACKTAGS_DURABILITY", value_name = "fsync|os")]
    pub durability: Option<Durability>,
    /// Key of the admin routes, at least 16 characters [default: generated into the data directory]
    #[arg(long, env = "TRACKTAGS_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    pub admin_key: Option<Secret>,
    /// PostgreSQL for history and definitions, postgres://user:password@host:port/database [default: SQLite in the data
    /// directory]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// Schema of the tables in it [default: tracktags]
    #[arg(long, env = "TRACKTAGS_DATABASE_SCHEMA", value_name = "NAME")]
    pub database_schema: Option<String>,
    /// Take the schema over from another TrackTags that is still active; that one then writes no more
    #[arg(long, env = "TRACKTAGS_TAKE_OVER", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub take_over: Option<bool>,
    /// What credentials and webhook secrets are encrypted with: 32 random bytes as 64 hexadecimal digits or base64
    /// [default: none, such secrets are refused]
    #[arg(long, env = "TRACKTAGS_SECRET_KEY", value_name = "KEY", hide_env_values = true)]
    pub secret_key: Option<Secret>,
    /// A demo business with a customer and a key, printed at each start
    #[arg(long, env = "TRACKTAGS_DEV", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub dev: Option<bool>,
    /// The demo business's key, at least 16 characters [default: generated into the data directory]
    #[arg(long, env = "TRACKTAGS_DEV_KEY", value_name = "KEY", hide_env_values = true)]
    pub dev_key: Option<Secret>,
    /// Size of a journal segment, at least 1MiB [default: 64MiB]
    #[arg(long, env = "TRACKTAGS_SEGMENT_BYTES", value_name = "BYTES")]
    pub segment_bytes: Option<Bytes>,
    /// How long journal segments are kept that nobody needs [default: 72h]
    #[arg(long, env = "TRACKTAGS_JOURNAL_RETAIN", value_name = "DURATION")]
    pub journal_retain: Option<Period>,
    /// Bytes of segments above which the retention no longer holds [default: 64GiB]
    #[arg(long, env = "TRACKTAGS_JOURNAL_QUOTA_BYTES", value_name = "BYTES")]
    pub journal_quota_bytes: Option<Bytes>,
    /// Longest time between snapshots while updates come [default: 5m]
    #[arg(long, env = "TRACKTAGS_SNAPSHOT_INTERVAL", value_name = "DURATION")]
    pub snapshot_interval: Option<Period>,
    /// How old an event may be, where a metric does not say; at most dedup-horizon less 5m [default: 24h]
    #[arg(long, env = "TRACKTAGS_MAX_EVENT_AGE", value_name = "DURATION")]
    pub max_event_age: Option<Period>,
    /// How long event ids and idempotency keys are remembered, at most 30d [default: 72h]
    #[arg(long, env = "TRACKTAGS_DEDUP_HORIZON", value_name = "DURATION")]
    pub dedup_horizon: Option<Period>,
    /// Event ids that a business may have remembered [default: 10000000]
    #[arg(long, env = "TRACKTAGS_DEDUP_MAX_IDS", value_name = "COUNT")]
    pub dedup_max_ids: Option<u64>,
    /// Windows in memory beyond which updates wait for the store [default: 20000000]
    #[arg(long, env = "TRACKTAGS_RESIDENT_WINDOWS_MAX", value_name = "COUNT")]
    pub resident_windows_max: Option<u64>,
    /// Series that a business may have; beyond, new ones are refused [default: 1000000]
    #[arg(long, env = "TRACKTAGS_SERIES_MAX", value_name = "COUNT")]
    pub series_max: Option<usize>,
    /// Open connections [default: 10000]
    #[arg(long, env = "TRACKTAGS_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,
    /// Requests under way [default: 20000]
    #[arg(long, env = "TRACKTAGS_REQUESTS_MAX", value_name = "COUNT")]
    pub requests_max: Option<usize>,
    /// Bytes of request bodies under way [default: 256MiB]
    #[arg(long, env = "TRACKTAGS_REQUEST_BYTES_MAX", value_name = "BYTES")]
    pub request_bytes_max: Option<Bytes>,
    /// Bytes of request bodies under way for one business [default: 64MiB]
    #[arg(long, env = "TRACKTAGS_BUSINESS_BYTES_MAX", value_name = "BYTES")]
    pub business_bytes_max: Option<Bytes>,
    /// Networks that proxy and webhooks may reach although they are private, and there on any port; repeatable, or separated
    /// by commas [default: none]
    #[arg(long, env = "TRACKTAGS_PROXY_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub proxy_allow: Option<Vec<Network>>,
    /// Where Stripe's API is, or what speaks like it [default: https://api.stripe.com]
    #[arg(long, env = "TRACKTAGS_STRIPE_API_BASE", value_name = "URL")]
    pub stripe_api_base: Option<String>,
    /// How often usage is cut into slices and sent to Stripe, from 1s to 1d [default: 1h]
    #[arg(long, env = "TRACKTAGS_STRIPE_EXPORT_INTERVAL", value_name = "DURATION")]
    pub stripe_export_interval: Option<Period>,
    /// What happens to usage of a billing period whose invoice is final [default: next_period]
    #[arg(long, env = "TRACKTAGS_STRIPE_LATE", value_name = "next_period|hold")]
    pub stripe_late: Option<Late>,
}

/// Valid options.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // Each field is the option of its name.
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub workers: usize,
    pub durability: Durability,
    pub admin_key: Option<Secret>,
    pub database_url: Option<Secret>,
    pub database_schema: String,
    pub take_over: bool,
    pub secret_key: Option<SecretKey>,
    pub dev: bool,
    pub dev_key: Option<Secret>,
    pub segment_bytes: u64,
    pub journal_retain: Duration,
    pub journal_quota_bytes: u64,
    pub snapshot_interval: Duration,
    pub max_event_age_secs: u32,
    pub dedup_horizon_secs: u32,
    pub dedup_max_ids: u64,
    pub resident_windows_max: u64,
    pub series_max: usize,
    pub connections_max: usize,
    pub requests_max: usize,
    pub request_bytes_max: usize,
    pub business_bytes_max: usize,
    pub proxy_allow: Vec<Network>,
    pub stripe_api_base: String,
    pub stripe_export_interval: Duration,
    pub stripe_late: Late,
}

/// Characters of a key that somebody gives.
const KEY_CHARS_MIN: usize = 16;
const WORKERS_MAX: usize = 256;
/// How much older than the oldest event the oldest remembered id must be.
const DEDUP_MARGIN_SECS: u32 = 300;
const DEDUP_HORIZON_SECS_MAX: u64 = 30 * 86_400;
/// The longest `--stripe-export-interval`: the workers keep a billing period two days longer than updates of it may come.
const EXPORT_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

impl Options {
    /// Lays flags and variables over the file, if one is named.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => Options::default(),
        };
        self.over(file).check()
    }

    fn over(self, file: Options) -> Options {
        macro_rules! over {
            ($($field:ident),*) => { Options { config: self.config, $($field: self.$field.or(file.$field)),* } };
        }
        over!(
            listen,
            data_dir,
            workers,
            durability,
            admin_key,
            database_url,
            database_schema,
            take_over,
            secret_key,
            dev,
            dev_key,
            segment_bytes,
            journal_retain,
            journal_quota_bytes,
            snapshot_interval,
            max_event_age,
            dedup_horizon,
            dedup_max_ids,
            resident_windows_max,
            series_max,
            connections_max,
            requests_max,
            request_bytes_max,
            business_bytes_max,
            proxy_allow,
            stripe_api_base,
            stripe_export_interval,
            stripe_late
        )
    }

    fn check(self) -> Result<Config, ConfigError> {
        // HTTP and journal need the others: a worker is far from busy with what they bring.
        let half_the_cores =
            || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let hours = |hours: u64| Period(Duration::from_secs(hours * 3_600));
        let max_event_age = self.max_event_age.unwrap_or(hours(24));
        let dedup_horizon = self.dedup_horizon.unwrap_or(hours(72));
        let horizon_secs = dedup_horizon.0.as_secs();
        let horizon_fits = (600..=DEDUP_HORIZON_SECS_MAX).contains(&horizon_secs);
        require("--dedup-horizon", dedup_horizon, horizon_fits, "it must be from 10m to 30d")?;
        let age_max = horizon_secs as u32 - DEDUP_MARGIN_SECS;
        let age_fits = max_event_age.0.as_secs() <= u64::from(age_max);
        let age_rule = format!("it must be at most --dedup-horizon less 5m, {age_max} seconds");
        require("--max-event-age", max_event_age, age_fits, &age_rule)?;
        let config = Config {
            listen: self.listen.unwrap_or_else(|| ([127, 0, 0, 1], 8080).into()),
            data_dir: self.data_dir.unwrap_or_else(|| "data".into()),
            workers: self.workers.unwrap_or_else(half_the_cores),
            durability: self.durability.unwrap_or(Durability::Fsync),
            admin_key: self.admin_key,
            database_url: self.database_url.filter(|Secret(url)| !url.is_empty()),
            database_schema: self.database_schema.unwrap_or_else(|| "tracktags".into()),
            take_over: self.take_over.unwrap_or(false),
            secret_key: self.secret_key.map(|Secret(text)| secret_key(&text)).transpose()?,
            dev: self.dev.unwrap_or(false),
            dev_key: self.dev_key,
            segment_bytes: self.segment_bytes.map_or(64 * MIB, |bytes| bytes.0),
            journal_retain: self.journal_retain.unwrap_or(hours(72)).0,
            journal_quota_bytes: self.journal_quota_bytes.map_or(65_536 * MIB, |bytes| bytes.0),
            snapshot_interval: self.snapshot_interval.map_or(Duration::from_secs(300), |period| period.0),
            max_event_age_secs: max_event_age.0.as_secs() as u32,
            dedup_horizon_secs: horizon_secs as u32,
            dedup_max_ids: self.dedup_max_ids.unwrap_or(10_000_000),
            resident_windows_max: self.resident_windows_max.unwrap_or(20_000_000),
            series_max: self.series_max.unwrap_or(1_000_000),
            connections_max: self.connections_max.unwrap_or(10_000),
            requests_max: self.requests_max.unwrap_or(20_000),
            request_bytes_max: self.request_bytes_max.map_or(256 << 20, |bytes| bytes.0 as usize),
            business_bytes_max: self.business_bytes_max.map_or(64 << 20, |bytes| bytes.0 as usize),
            proxy_allow: self.proxy_allow.unwrap_or_default(),
            stripe_api_base: self.stripe_api_base.unwrap_or_else(|| "https://api.stripe.com".into()),
            stripe_export_interval: self.stripe_export_interval.unwrap_or(hours(1)).0,
            stripe_late: self.stripe_late.unwrap_or(Late::NextPeriod),
        };
        config.require_ranges()?;
        Ok(config)
    }
}

impl Config {
    /// The greatest `max_event_age` of a metric.
    pub fn max_event_age_secs_max(&self) -> u32 {
        self.dedup_horizon_secs - DEDUP_MARGIN_SECS
    }

    fn require_ranges(&self) -> Result<(), ConfigError> {
        let fits = (1..=WORKERS_MAX).contains(&self.workers);
        require("--workers", self.workers, fits, "it must be from 1 to 256")?;
        require(
            "--segment-bytes",
            self.segment_bytes,
            self.segment_bytes >= MIB,
            "it must be at least 1MiB",
        )?;
        for (option, interval) in [
            ("--snapshot-interval", self.snapshot_interval),
            ("--stripe-export-interval", self.stripe_export_interval),
        ] {
            require(option, Period(interval), interval >= Duration::from_secs(1), "it must be at least 1s")?;
        }
        let is_short = self.stripe_export_interval <= EXPORT_INTERVAL_MAX;
        require(
            "--stripe-export-interval",
            Period(self.stripe_export_interval),
            is_short,
            "it must be at most 1d",
        )?;
        for (option, key) in [("--admin-key", &self.admin_key), ("--dev-key", &self.dev_key)] {
            let Some(Secret(key)) = key else { continue };
            let fits = key.len() >= KEY_CHARS_MIN && key.bytes().all(|byte| byte.is_ascii_graphic());
            require(
                option,
                "not usable",
                fits,
                "it must be at least 16 printable ASCII characters, no spaces",
            )?;
        }
        for (option, count) in [
            ("--series-max", self.series_max),
            ("--connections-max", self.connections_max),
            ("--requests-max", self.requests_max),
        ] {
            require(option, count, count > 0, "it must be at least 1")?;
        }
        for (option, bytes) in [
            ("--request-bytes-max", self.request_bytes_max),
            ("--business-bytes-max", self.business_bytes_max),
        ] {
            require(option, bytes, bytes as u64 >= MIB, "it must be at least 1MiB")?;
        }
        Ok(())
    }
}

/// 32 bytes in hexadecimal or in base64.
fn secret_key(text: &str) -> Result<SecretKey, ConfigError> {
    let hex = || -> Option<Vec<u8>> {
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        Some(
            digits?
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8))
                .collect(),
        )
    };
    let bytes = if text.len() == 64 { hex() } else { BASE64.decode(text).ok() };
    bytes.and_then(|bytes| bytes.try_into().ok()).map(SecretKey).ok_or_else(|| ConfigError::Invalid {
        option: "--secret-key",
        value: "not usable".to_owned(),
        rule: "it must be 32 bytes as 64 hexadecimal digits or as base64; `openssl rand -hex 32` makes one"
            .to_owned(),
    })
}

fn require(
    option: &'static str,
    value: impl fmt::Display,
    fits: bool,
    rule: &str,
) -> Result<(), ConfigError> {
    if fits {
        return Ok(());
    }
    Err(ConfigError::Invalid { option, value: value.to_string(), rule: rule.to_owned() })
}

fn read(path: &PathBuf) -> Result<Options, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        // The key alone: the value may be a secret.
        let begin = error
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].rfind('\n').map_or(0, |at| at + 1));
        let key = text[begin..].split(['=', '\n']).next().unwrap_or_default().trim();
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        ConfigError::Malformed { path: path.clone(), why: format!("at `{key}`: {message}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let file: Options = toml::from_str("workers = 3\nsegment-bytes = \"2MiB\"").expect("valid");
        let flags = Options { workers: Some(5), ..Options::default() };
        let config = flags.over(file).check().expect("valid");
        assert_eq!((config.workers, config.segment_bytes, config.requests_max), (5, 2 * MIB, 20_000));
    }

    #[test]
    fn a_secret_key_is_32_bytes_in_hexadecimal_or_base64() {
        let hex = "00ff".repeat(16);
        let key = SecretKey([[0x00, 0xff]; 16].concat().try_into().expect("32 bytes"));
        let base64 = BASE64.encode(key.0);
        for text in [hex.as_str(), &hex.to_uppercase(), &base64] {
            assert_eq!(secret_key(text).ok().as_ref(), Some(&key), "{text}");
        }
        let options: Options = toml::from_str(&format!("secret-key = \"{hex}\"")).expect("valid TOML");
        let shown = format!("{options:?} {:?}", options.clone().check().expect("valid"));
        assert!(!shown.contains("00ff") && !shown.contains("255"), "{shown}");
        for text in [
            "",
            &hex[1..],
            &hex[2..],
            &format!("{}g", &hex[1..]),
            &format!("{hex}00"),
            &base64[1..],
            &"é".repeat(32),
        ] {
            let error = secret_key(text).expect_err(text).to_string();
            assert!(error.contains("openssl rand -hex 32") && !error.contains("ff00"), "{error}");
        }
    }

    #[test]
    fn networks_are_repeated_or_separated_by_commas() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let networks = |line: &[&str]| -> Result<_, clap::Error> {
            let line = <Line as clap::Parser>::try_parse_from([&["serve"], line].concat())?;
            Ok(line.options.check().expect("valid").proxy_allow)
        };
        let text = "proxy-allow = [\"10.0.0.0/8\", \"fd00::1\"]";
        let file = toml::from_str::<Options>(text).expect("valid TOML").check().expect("valid").proxy_allow;
        assert_eq!(file.len(), 2);
        assert_eq!(networks(&["--proxy-allow", "10.0.0.0/8,fd00::1"]).expect("valid"), file);
        let repeated = ["--proxy-allow", "10.0.0.0/8", "--proxy-allow", "fd00::1"];
        assert_eq!(networks(&repeated).expect("valid"), file);
        assert_eq!(networks(&[]).expect("valid"), []);
        let error = networks(&["--proxy-allow", "10.1.0.0/8"]).expect_err("not a network").to_string();
        assert!(error.contains("--proxy-allow") && error.contains("write 10.0.0.0/8"), "{error}");
        assert!(toml::from_str::<Options>("proxy-allow = [\"10.1.0.0/8\"]").is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, option) in [
            ("workers = 0", "--workers"),
            ("series-max = 0", "--series-max"),
            ("segment-bytes = \"1KiB\"", "--segment-bytes"),
            ("dev-key = \"short\"", "--dev-key"),
            ("secret-key = \"short\"", "--secret-key"),
            ("dedup-horizon = \"1m\"", "--dedup-horizon"),
            ("stripe-export-interval = \"10ms\"", "--stripe-export-interval"),
            ("stripe-export-interval = \"25h\"", "--stripe-export-interval"),
            ("max-event-age = \"72h\"", "--max-event-age"),
        ] {
            let options: Options = toml::from_str(text).expect("valid TOML");
            let error = options.check().map(drop).expect_err(text).to_string();
            assert!(error.contains(option) && !error.contains("short"), "{error}");
        }
        assert!(toml::from_str::<Options>("worker = 1").is_err());
    }
}
