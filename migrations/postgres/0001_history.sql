-- The history database: what users read. The journal is the source of truth, every table here is a projection of it:
-- editing one by hand changes nothing in the service. "{schema}" is the schema that the service was told to use.

-- Which journal feeds this schema, and which start of its service may write: each start raises the fence.
CREATE TABLE {schema}.writer (
    one          integer PRIMARY KEY CHECK (one = 1),
    journal_id   text NOT NULL,
    fence        bigint NOT NULL,
    heartbeat_at timestamptz NOT NULL
);

-- How far the projection has come. "class" is a batch interval ('15s'), or 'definitions', whose through_series means nothing.
CREATE TABLE {schema}.sink_progress (
    class          text PRIMARY KEY,
    upper          bigint NOT NULL, -- journal epoch of the last batch (or definition) that is in
    through_series bigint NOT NULL, -- greatest series of that batch that is in; 4294967295: all
    whole_upper    bigint NOT NULL  -- journal epoch of the last batch that is in whole
);

CREATE TABLE {schema}.businesses (
    business_id   text PRIMARY KEY,
    business_name text NOT NULL,
    email         text NOT NULL,
    created_at    timestamptz NOT NULL
);

CREATE TABLE {schema}.api_keys (
    business_id text NOT NULL,
    key_name    text NOT NULL,
    key_type    text NOT NULL, -- 'business' | 'customer_api'
    customer_id text,          -- of a customer key
    key_hash    text NOT NULL, -- BLAKE3 of the key, in hex; the key itself is nowhere
    scopes      text NOT NULL, -- words of 'read ingest manage'
    expires_at  timestamptz,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (business_id, key_name)
);

CREATE TABLE {schema}.customers (
    business_id   text NOT NULL,
    customer_id   text NOT NULL,
    customer_name text NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (business_id, customer_id)
);

-- Live series: names and descriptions. A deleted series is not here; its history rows stay.
CREATE TABLE {schema}.series (
    series_id          bigint PRIMARY KEY,
    business_id        text NOT NULL,
    scope              text NOT NULL,    -- 'business' | 'customer'
    customer_id        text,             -- of a customer series
    metric_name        text NOT NULL,
    metric_type        text NOT NULL,
    operation          text NOT NULL,
    flush_interval     text NOT NULL,
    reset_interval     text,             -- of a reset series
    batch_interval     text NOT NULL,
    initial_value      numeric NOT NULL,
    max_event_age_secs bigint,           -- none: the server's default
    cleanup_after_days integer,          -- none: never
    tags               jsonb NOT NULL,
    limit_value        numeric,
    limit_operator     text,
    breach_action      text,
    notify_at          jsonb NOT NULL,   -- percentages
    webhook_url        text,
    stored             boolean NOT NULL, -- false: its rows are kept out of this database
    restore_on_startup boolean NOT NULL,
    stripe             jsonb,
    custom             json NOT NULL,    -- as the client gave it
    created_at         timestamptz NOT NULL
);
CREATE INDEX series_by_name ON {schema}.series (business_id, metric_name, customer_id);

-- History: one row for every flush window with an update. Room is left in the pages for the windows that are still open,
-- whose rows each batch brings again.
CREATE TABLE {schema}.metrics (
    series_id    bigint NOT NULL,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL, -- exclusive; in the future while the window is open
    business_id  text NOT NULL,
    scope        text NOT NULL,
    customer_id  text,
    metric_name  text NOT NULL,
    metric_type  text NOT NULL,
    operation    text NOT NULL,
    value        numeric NOT NULL,     -- the reading of the live period that contains the window
    sum          numeric NOT NULL,     -- sum, count, min, max, avg: of the window itself
    count        bigint NOT NULL,
    min          numeric,              -- min, max, avg: none without updates
    max          numeric,
    avg          numeric,
    tags         jsonb NOT NULL,
    flushed_at   timestamptz NOT NULL, -- the batch that wrote the row last; rises with window_start within a batch
    PRIMARY KEY (series_id, window_start)
) WITH (fillfactor = 85);

-- The newest live period of each series, as of its last batch.
CREATE TABLE {schema}.series_state (
    series_id    bigint PRIMARY KEY,
    period_start timestamptz,          -- none: since creation
    value        numeric NOT NULL,
    sum          numeric NOT NULL,
    count        bigint NOT NULL,
    min          numeric,
    max          numeric,
    updated_at   timestamptz NOT NULL  -- the batch
) WITH (fillfactor = 70);

-- When the live period of a reset series ends: the end of the reset window that contains its start. Weeks start on Monday,
-- months on the 1st, the others are aligned to the Unix epoch.
CREATE VIEW {schema}.reset_periods AS
SELECT series_id, period_start,
    CASE WHEN reset_interval = '1mo'
        THEN (date_trunc('month', period_start AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
        ELSE to_timestamp((floor((extract(epoch FROM period_start) - shift_secs) / length_secs) + 1) * length_secs
            + shift_secs)
    END AS period_end
FROM (
    SELECT series_id, reset_interval, period_start,
        CASE reset_interval WHEN '1w' THEN 345600 ELSE 0 END AS shift_secs,
        CASE WHEN reset_interval = '1mo' THEN 1 ELSE substring(reset_interval FROM '^[0-9]+')::bigint END
            * CASE right(reset_interval, 1)
                WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END AS length_secs
    FROM {schema}.series JOIN {schema}.series_state USING (series_id)
    WHERE reset_interval IS NOT NULL AND period_start IS NOT NULL
) AS live;

-- What every stored series reads now, at most one batch behind. A reset series whose period has ended reads its initial
-- value. (An event up to five minutes ahead of the clock may have opened the next period already: then that one is shown.)
CREATE VIEW {schema}.usage_current AS
SELECT s.series_id, s.business_id, s.scope, s.customer_id, s.metric_name, s.metric_type, s.operation,
    CASE WHEN t.series_id IS NULL OR p.period_end <= now() THEN s.initial_value ELSE t.value END AS current_value,
    CASE WHEN t.series_id IS NULL OR p.period_end <= now() THEN 0 ELSE t.count END AS count,
    t.period_start, p.period_end, s.limit_value, s.tags, t.updated_at
FROM {schema}.series s
LEFT JOIN {schema}.series_state t USING (series_id)
LEFT JOIN {schema}.reset_periods p USING (series_id)
WHERE s.stored;

-- Where these roles exist (Supabase), tables of a new schema may be open to them by default: these are not.
DO $$
DECLARE
    role name;
BEGIN
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM %I', role);
        EXECUTE format('REVOKE ALL ON SCHEMA {schema} FROM %I', role);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} REVOKE ALL ON TABLES FROM %I', role);
    END LOOP;
END
$$;
