-- The embedded history database: what users read. The journal is the source of truth, every table here is a projection of
-- it: editing one by hand changes nothing in the service.
--
-- amounts  TEXT, plain decimals ('150.0'): SQLite's NUMERIC is a float. To calculate: CAST(value AS REAL).
-- times    TEXT, RFC 3339 in UTC, always 27 characters ('2026-11-24T06:00:00.000000Z'), so that order of text is order of
--          time and SQLite's date functions read them. Now: strftime('%Y-%m-%dT%H:%M:%fZ', 'now').
-- flags    INTEGER 0 or 1.

-- Which journal feeds this database; one row once the first transaction is in.
CREATE TABLE writer (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    journal_id TEXT NOT NULL
) STRICT;

-- How far the projection has come. `class` is a batch interval ('15s'), or 'definitions', whose through_series means nothing.
CREATE TABLE sink_progress (
    class          TEXT PRIMARY KEY,
    upper          INTEGER NOT NULL, -- journal epoch of the last batch (or definition) that is in
    through_series INTEGER NOT NULL, -- greatest series of that batch that is in; 4294967295: all
    whole_upper    INTEGER NOT NULL  -- journal epoch of the last batch that is in whole
) STRICT, WITHOUT ROWID;

CREATE TABLE businesses (
    business_id   TEXT PRIMARY KEY,
    business_name TEXT NOT NULL,
    email         TEXT NOT NULL,
    created_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    business_id TEXT NOT NULL,
    key_name    TEXT NOT NULL,
    key_type    TEXT NOT NULL, -- 'business' | 'customer_api'
    customer_id TEXT,          -- of a customer key
    key_hash    TEXT NOT NULL, -- BLAKE3 of the key, in hex; the key itself is nowhere
    scopes      TEXT NOT NULL, -- words of 'read ingest manage'
    expires_at  TEXT,
    created_at  TEXT NOT NULL,
    PRIMARY KEY (business_id, key_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE customers (
    business_id   TEXT NOT NULL,
    customer_id   TEXT NOT NULL,
    customer_name TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    PRIMARY KEY (business_id, customer_id)
) STRICT, WITHOUT ROWID;

-- Live series: names and descriptions. A deleted series is not here; its history rows stay.
CREATE TABLE series (
    series_id          INTEGER PRIMARY KEY,
    business_id        TEXT NOT NULL,
    scope              TEXT NOT NULL,    -- 'business' | 'customer'
    customer_id        TEXT,             -- of a customer series
    metric_name        TEXT NOT NULL,
    metric_type        TEXT NOT NULL,
    operation          TEXT NOT NULL,
    flush_interval     TEXT NOT NULL,
    reset_interval     TEXT,             -- of a reset series
    batch_interval     TEXT NOT NULL,
    initial_value      TEXT NOT NULL,
    max_event_age_secs INTEGER,          -- none: the server's default
    cleanup_after_days INTEGER,          -- none: never
    tags               TEXT NOT NULL,    -- JSON object
    limit_value        TEXT,
    limit_operator     TEXT,
    breach_action      TEXT,
    notify_at          TEXT NOT NULL,    -- JSON array of percentages
    webhook_url        TEXT,
    stored             INTEGER NOT NULL, -- 0: its rows are kept out of this database
    restore_on_startup INTEGER NOT NULL,
    stripe             TEXT,             -- JSON object
    custom             TEXT NOT NULL,    -- JSON, as the client gave it
    created_at         TEXT NOT NULL
) STRICT;
CREATE INDEX series_by_name ON series (business_id, metric_name, customer_id);

-- History: one row for every flush window with an update. Not WITHOUT ROWID: rows then lie in the order in which batches
-- brought them, and a batch that brings the open windows again writes a few neighbouring pages instead of one page a series.
CREATE TABLE metrics (
    series_id    INTEGER NOT NULL,
    window_start TEXT NOT NULL,
    window_end   TEXT NOT NULL,    -- exclusive; in the future while the window is open
    business_id  TEXT NOT NULL,
    scope        TEXT NOT NULL,
    customer_id  TEXT,
    metric_name  TEXT NOT NULL,
    metric_type  TEXT NOT NULL,
    operation    TEXT NOT NULL,
    value        TEXT NOT NULL,    -- the reading of the live period that contains the window
    sum          TEXT NOT NULL,    -- sum, count, min, max, avg: of the window itself
    count        INTEGER NOT NULL,
    min          TEXT,             -- min, max, avg: none without updates
    max          TEXT,
    avg          TEXT,
    tags         TEXT NOT NULL,
    flushed_at   TEXT NOT NULL,    -- the batch that wrote the row last; rises with window_start within a batch
    PRIMARY KEY (series_id, window_start)
) STRICT;

-- The newest live period of each series, as of its last batch.
CREATE TABLE series_state (
    series_id    INTEGER PRIMARY KEY,
    period_start TEXT,             -- none: since creation
    value        TEXT NOT NULL,
    sum          TEXT NOT NULL,
    count        INTEGER NOT NULL,
    min          TEXT,
    max          TEXT,
    updated_at   TEXT NOT NULL     -- the batch
) STRICT;

-- When the live period of a reset series ends: the end of the reset window that contains its start. Weeks start on Monday,
-- months on the 1st, the others are aligned to the Unix epoch. CAST('15s' AS INTEGER) is 15.
CREATE VIEW reset_periods AS
SELECT series_id, period_start,
    CASE reset_interval
        WHEN '1mo' THEN strftime('%Y-%m-%dT00:00:00.000000Z', period_start, 'start of month', '+1 month')
        ELSE strftime('%Y-%m-%dT%H:%M:%S.000000Z',
            start_secs - (start_secs - CASE reset_interval WHEN '1w' THEN 345600 ELSE 0 END) % length_secs + length_secs,
            'unixepoch')
    END AS period_end
FROM (
    SELECT series_id, reset_interval, period_start, unixepoch(period_start) AS start_secs,
        CAST(reset_interval AS INTEGER) * CASE substr(reset_interval, -1)
            WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END AS length_secs
    FROM series JOIN series_state USING (series_id)
    WHERE reset_interval IS NOT NULL AND period_start IS NOT NULL
);

-- What every stored series reads now, at most one batch behind. A reset series whose period has ended reads its initial
-- value. (An event up to five minutes ahead of the clock may have opened the next period already: then that one is shown.)
CREATE VIEW usage_current AS
SELECT s.series_id, s.business_id, s.scope, s.customer_id, s.metric_name, s.metric_type, s.operation,
    CASE WHEN t.series_id IS NULL OR p.period_end <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN s.initial_value
        ELSE t.value END AS current_value,
    CASE WHEN t.series_id IS NULL OR p.period_end <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN 0
        ELSE t.count END AS count,
    t.period_start, p.period_end, s.limit_value, s.tags, t.updated_at
FROM series s
LEFT JOIN series_state t USING (series_id)
LEFT JOIN reset_periods p USING (series_id)
WHERE s.stored = 1;
