-- What Stripe has told: subscriptions, the events themselves, and the billing periods that they ended.

-- As of the last event about each.
CREATE TABLE subscriptions (
    business_id        TEXT NOT NULL,
    subscription_id    TEXT NOT NULL,
    stripe_customer_id TEXT NOT NULL,
    standing           TEXT NOT NULL,    -- 'running' | 'over' | 'undecided'
    created_at         TEXT NOT NULL,
    ends_at            TEXT,             -- when it will end, or has ended; none: not decided
    said_at            TEXT NOT NULL,    -- when the event happened that says so
    is_simulated       INTEGER NOT NULL, -- 1: its time is that of a test clock
    items              TEXT NOT NULL,    -- JSON array of {price_id, period_start, period_end}
    PRIMARY KEY (business_id, subscription_id)
) STRICT, WITHOUT ROWID;

-- Nothing is ever changed here; rows that are too old for you may be deleted. One that was received in the last 30 days is
-- not read again when it comes again.
CREATE TABLE stripe_events (
    business_id TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    event_type  TEXT NOT NULL,    -- 'invoice.created', ...
    created_at  TEXT NOT NULL,    -- when it happened
    received_at TEXT NOT NULL,
    applied     INTEGER NOT NULL, -- 1: it changed something, or confirmed what was known
    reason      TEXT NOT NULL,    -- what it did, or why nothing
    PRIMARY KEY (business_id, event_id)
) STRICT, WITHOUT ROWID;

-- The last boundary of each live series at which an event has ended its billing period. Periods that end by themselves,
-- because a subscription says when, are not here.
CREATE TABLE billing_periods_ended (
    series_id INTEGER PRIMARY KEY,
    boundary  TEXT NOT NULL
) STRICT;
