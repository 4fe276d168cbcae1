//! Reads the embedded store as its users do: `history.db`, table `metrics`, from another process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dataflows::types::{Amount, Tally};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

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

/// All series of the demo business that have rows. The error is one of the store or of its content.
pub fn read(data_dir: &Path) -> Result<BTreeMap<Name, Stored>, String> {
    read_rows(data_dir).map_err(|why| format!("history.db: {why}"))
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

fn read_rows(data_dir: &Path) -> rusqlite::Result<BTreeMap<Name, Stored>> {
    let connection = open(data_dir)?;
    let mut statement = connection.prepare(
        "SELECT scope, customer_id, metric_name, sum, count, min, max, value FROM metrics
         WHERE business_id = 'biz_demo' ORDER BY series_id, window_start",
    )?;
    let mut rows = statement.query([])?;
    let mut series = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let customer = match row.get::<_, String>(0)?.as_str() {
            "customer" => Some(row.get(1)?),
            _ => None,
        };
        let tally = Tally {
            sum: amount(row, 3)?,
            count: row.get::<_, i64>(4)? as u64,
            min: amount(row, 5)?,
            max: amount(row, 6)?,
        };
        let newest_value = amount(row, 7)?;
        let stored = series.entry((customer, row.get(2)?)).or_insert(Stored {
            tally: Tally::EMPTY,
            newest_value,
            rows: 0,
        });
        *stored = Stored { tally: stored.tally.merge(tally), newest_value, rows: stored.rows + 1 };
    }
    Ok(series)
}

/// Amounts are decimal text, never floats.
fn amount(row: &Row, column: usize) -> rusqlite::Result<Amount> {
    let text: String = row.get(column)?;
    text.parse().map_err(|why| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(why))
    })
}
