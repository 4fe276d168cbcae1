//! Schema versions: which migrations a database still needs, decided without touching it.
//!
//! A dialect has a list of migrations, numbered from 1 without gaps; the same number means the same tables in every
//! dialect. A database records (version, checksum of the text) of what was applied. The dialect reads that record and applies
//! what `missing` answers, both inside one exclusive transaction, so that two starts at once do not collide.

use super::StoreError;

/// One step of the schema. Never edited once released: the checksum would no longer fit.
pub(super) struct Migration {
    /// Number, from 1.
    pub version: u32,
    /// What it brings, in a word.
    pub name: &'static str,
    /// Statements of its dialect.
    pub sql: &'static str,
}

/// The migrations of the embedded store.
pub(super) const SQLITE: &[Migration] = &[
    Migration { version: 1, name: "history", sql: include_str!("../../migrations/sqlite/0001_history.sql") },
    Migration {
        version: 2,
        name: "customers",
        sql: include_str!("../../migrations/sqlite/0002_customers.sql"),
    },
    Migration { version: 3, name: "keys", sql: include_str!("../../migrations/sqlite/0003_keys.sql") },
    Migration { version: 4, name: "secrets", sql: include_str!("../../migrations/sqlite/0004_secrets.sql") },
    Migration { version: 5, name: "audit", sql: include_str!("../../migrations/sqlite/0005_audit.sql") },
    Migration { version: 6, name: "plans", sql: include_str!("../../migrations/sqlite/0006_plans.sql") },
    Migration {
        version: 7,
        name: "messages",
        sql: include_str!("../../migrations/sqlite/0007_messages.sql"),
    },
    Migration {
        version: 8,
        name: "proxy_targets",
        sql: include_str!("../../migrations/sqlite/0008_proxy_targets.sql"),
    },
    Migration { version: 9, name: "stripe", sql: include_str!("../../migrations/sqlite/0009_stripe.sql") },
    Migration { version: 10, name: "slices", sql: include_str!("../../migrations/sqlite/0010_slices.sql") },
    Migration {
        version: 11,
        name: "finality",
        sql: include_str!("../../migrations/sqlite/0011_finality.sql"),
    },
    Migration {
        version: 12,
        name: "templates",
        sql: include_str!("../../migrations/sqlite/0012_templates.sql"),
    },
];

/// The migrations of PostgreSQL.
pub(super) const POSTGRES: &[Migration] = &[
    Migration {
        version: 1,
        name: "history",
        sql: include_str!("../../migrations/postgres/0001_history.sql"),
    },
    Migration {
        version: 2,
        name: "customers",
        sql: include_str!("../../migrations/postgres/0002_customers.sql"),
    },
    Migration { version: 3, name: "keys", sql: include_str!("../../migrations/postgres/0003_keys.sql") },
    Migration {
        version: 4,
        name: "secrets",
        sql: include_str!("../../migrations/postgres/0004_secrets.sql"),
    },
    Migration { version: 5, name: "audit", sql: include_str!("../../migrations/postgres/0005_audit.sql") },
    Migration { version: 6, name: "plans", sql: include_str!("../../migrations/postgres/0006_plans.sql") },
    Migration {
        version: 7,
        name: "messages",
        sql: include_str!("../../migrations/postgres/0007_messages.sql"),
    },
    Migration {
        version: 8,
        name: "proxy_targets",
        sql: include_str!("../../migrations/postgres/0008_proxy_targets.sql"),
    },
    Migration { version: 9, name: "stripe", sql: include_str!("../../migrations/postgres/0009_stripe.sql") },
    Migration { version: 10, name: "slices", sql: include_str!("../../migrations/postgres/0010_slices.sql") },
    Migration {
        version: 11,
        name: "finality",
        sql: include_str!("../../migrations/postgres/0011_finality.sql"),
    },
    Migration {
        version: 12,
        name: "templates",
        sql: include_str!("../../migrations/postgres/0012_templates.sql"),
    },
];

impl Migration {
    /// BLAKE3 of the text, in hex.
    pub fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}

/// What is still to be applied, given the record (version, checksum), rising. Fatal when the database is newer than
/// this program, or was made by other texts.
pub(super) fn missing<'a>(
    known: &'a [Migration],
    applied: &[(u32, String)],
) -> Result<&'a [Migration], StoreError> {
    if applied.len() > known.len() {
        return Err(StoreError::Fatal(format!(
            "the database has schema version {} and this program knows versions up to {}: start the program version \
             that last wrote it, or a newer one",
            applied.len(),
            known.len()
        )));
    }
    for (migration, (version, checksum)) in known.iter().zip(applied) {
        if migration.version != *version || migration.checksum() != *checksum {
            return Err(StoreError::Fatal(format!(
                "schema version {version} of the database was not made by this program's migration {} ({}): start the \
                 program version that made it, or move the database away to begin a new one",
                migration.version, migration.name
            )));
        }
    }
    Ok(&known[applied.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { version: 1, name: "one", sql: "CREATE TABLE one (a)" },
        Migration { version: 2, name: "two", sql: "CREATE TABLE two (a)" },
    ];

    fn record(count: usize) -> Vec<(u32, String)> {
        KNOWN[..count].iter().map(|migration| (migration.version, migration.checksum())).collect()
    }

    #[test]
    fn numbers_rise_from_one_without_gaps() {
        for dialect in [SQLITE, POSTGRES] {
            for (index, migration) in dialect.iter().enumerate() {
                assert_eq!(migration.version as usize, index + 1);
                assert_eq!(migration.name, SQLITE[index].name, "the same number means the same tables");
            }
            assert_eq!(dialect.len(), SQLITE.len());
        }
    }

    #[test]
    fn only_what_is_missing_is_applied() {
        for done in 0..=2 {
            let versions: Vec<u32> = missing(KNOWN, &record(done))
                .expect("a known record")
                .iter()
                .map(|step| step.version)
                .collect();
            assert_eq!(versions, (done as u32 + 1..=2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_newer_schema_is_refused_with_advice() {
        let mut newer = record(2);
        newer.push((3, "from the future".into()));
        let error = missing(KNOWN, &newer).err().expect("refused").to_string();
        assert!(error.contains("schema version 3") && error.contains("a newer one"), "{error}");
    }

    #[test]
    fn another_text_under_a_known_number_is_refused() {
        let mut other = record(2);
        other[1].1 = KNOWN[0].checksum();
        let error = missing(KNOWN, &other).err().expect("refused").to_string();
        assert!(error.contains("schema version 2"), "{error}");
    }
}
