//! Reads the store as its users do: `history.db` or PostgreSQL, table `metrics`, from another process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dataflows::types::{Amount, Tally};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::postgres::Cluster;

/// (customer id or nothing, metric name).
pub type Name = (Option<String>, String);

/// What the store has of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The tallies of all rows together.
    pub tally: Tally,
    /// `value` of the newest row.
    pub newest_value: Amount,
    /// How many rows there are.
    pub rows: usize,
}

/// Where the store of a server is.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// `history.db` of a data directory.
    Embedded(&'a Path),
    /// Schema `tracktags` of a PostgreSQL.
    Postgres(&'a Cluster),
}

/// All series of the demo business that have rows. The error is one of the store or of its content.
pub fn read(place: Place<'_>) -> Result<BTreeMap<Name, Stored>, String> {
    let rows = match place {
        Place::Embedded(data_dir) => embedded_rows(data_dir).map_err(|why| format!("history.db: {why}"))?,
        Place::Postgres(cluster) => postgres_rows(cluster).map_err(|why| format!("PostgreSQL: {why}"))?,
    };
    let mut series = BTreeMap::new();
    for [scope, customer_id, metric_name, sum, count, min, max, value] in rows {
        let amount =
            |text: &str| text.parse::<Amount>().map_err(|why| format!("{metric_name}: {text}: {why}"));
        let count = count.parse().map_err(|why| format!("{metric_name}: {count}: {why}"))?;
        let tally = Tally { sum: amount(&sum)?, count, min: amount(&min)?, max: amount(&max)? };
        let newest_value = amount(&value)?;
        let stored = series
            .entry(((scope == "customer").then_some(customer_id), metric_name))
            .or_insert(Stored { tally: Tally::EMPTY, newest_value, rows: 0 });
        *stored = Stored { tally: stored.tally.merge(tally), newest_value, rows: stored.rows + 1 };
    }
    Ok(series)
}

/// Scope, customer, name, sum, count, min, max, value; oldest row of each series first.
type Columns = [String; 8];

const ROWS: &str = "
    SELECT scope, COALESCE(customer_id, ''), metric_name, CAST(sum AS TEXT), CAST(count AS TEXT), CAST(min AS TEXT),
        CAST(max AS TEXT), CAST(value AS TEXT)
    FROM metrics WHERE business_id = 'biz_demo' ORDER BY series_id, window_start";

fn postgres_rows(cluster: &Cluster) -> Result<Vec<Columns>, ::postgres::Error> {
    let mut client = cluster.try_connect()?;
    client.batch_execute("SET search_path = tracktags")?;
    let rows = client.query(ROWS, &[])?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::default();
            for (index, column) in columns.iter_mut().enumerate() {
                *column = row.try_get(index)?;
            }
            Ok(columns)
        })
        .collect()
}

fn open(data_dir: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: whoever reads a WAL database must be able to make its shared memory.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(data_dir.join("history.db"), flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// How many series are defined, of all businesses.
pub fn series(data_dir: &Path) -> Result<u32, String> {
    let sql = "SELECT COUNT(*) FROM series";
    let read = |connection: Connection| connection.query_row(sql, [], |row| row.get(0));
    open(data_dir).and_then(read).map_err(|why| format!("history.db: {why}"))
}

/// `number|customer|metric` of each series of a customer of the demo business.
pub fn numbers(place: Place<'_>) -> Result<Vec<String>, String> {
    let sql = "SELECT CAST(series_id AS TEXT) || '|' || customer_id || '|' || metric_name FROM series
        WHERE business_id = 'biz_demo' AND customer_id IS NOT NULL ORDER BY series_id";
    match place {
        Place::Embedded(data_dir) => {
            let read = |connection: Connection| {
                connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
            };
            open(data_dir).and_then(read).map_err(|why| format!("history.db: {why}"))
        }
        Place::Postgres(cluster) => {
            let sql = sql.replace("FROM series", "FROM tracktags.series");
            let rows = cluster.try_connect().and_then(|mut client| client.query(&sql, &[]));
            let rows = rows.map_err(|why| format!("PostgreSQL: {why}"))?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        }
    }
}

/// The encrypted credentials of the demo business for Stripe of that name: secret key and webhook secret, as base64.
pub fn stripe_key(data_dir: &Path, key_name: &str) -> Result<Option<(String, String)>, String> {
    let sql =
        "SELECT secret_key, webhook_secret FROM stripe_keys WHERE business_id = 'biz_demo' AND key_name = ?1";
    pair(data_dir, sql, key_name)
}

/// Name and description of a customer of the demo business; none if it has no row.
pub fn customer(data_dir: &Path, customer_id: &str) -> Result<Option<(String, Option<String>)>, String> {
    let sql = "SELECT customer_name, description FROM customers WHERE business_id = 'biz_demo' AND customer_id = ?1";
    pair(data_dir, sql, customer_id)
}

/// The two columns of the row that a query finds for a name.
fn pair<T: FromSql>(data_dir: &Path, sql: &str, name: &str) -> Result<Option<(String, T)>, String> {
    let read = |connection: Connection| {
        connection.query_row(sql, [name], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    };
    open(data_dir).and_then(read).map_err(|why| format!("history.db: {why}"))
}

fn embedded_rows(data_dir: &Path) -> rusqlite::Result<Vec<Columns>> {
    let connection = open(data_dir)?;
    let mut statement = connection.prepare(ROWS)?;
    let rows = statement.query_map([], |row| {
        let mut columns = Columns::default();
        for (index, column) in columns.iter_mut().enumerate() {
            *column = row.get(index)?;
        }
        Ok(columns)
    });
    rows?.collect()
}
