-- How usage is billed: live periods of which something is in slices, and the slices, sent or not.

CREATE TABLE billing_periods (
    series_id    INTEGER NOT NULL,
    period_start TEXT NOT NULL, -- '-infinity': since the series began
    period_end   TEXT,          -- none while it is open
    usage        TEXT NOT NULL, -- without initial_value, when it was looked at last
    updates      TEXT NOT NULL, -- how many
    cleaned      TEXT NOT NULL, -- billable usage from before a cleanup
    free         TEXT,          -- what is not billed of the value; none: usage is billed
    billable     TEXT NOT NULL,
    carried_in   TEXT NOT NULL, -- from earlier periods
    carried_out  TEXT NOT NULL, -- into a later period
    units        TEXT NOT NULL, -- in slices
    scale        TEXT NOT NULL, -- what a unit stands for
    next_number  INTEGER NOT NULL,
    billed_at    TEXT NOT NULL,
    PRIMARY KEY (series_id, period_start)
) STRICT;

CREATE TABLE slices (
    identifier         TEXT PRIMARY KEY, -- its name at Stripe
    series_id          INTEGER NOT NULL,
    business_id        TEXT NOT NULL,
    customer_id        TEXT NOT NULL,
    metric_name        TEXT NOT NULL,
    stripe_customer_id TEXT NOT NULL,
    price_id           TEXT NOT NULL,
    period_start       TEXT NOT NULL, -- '-infinity': since the series began
    number             INTEGER NOT NULL, -- within the period
    quantity           INTEGER NOT NULL, -- whole units
    scale              TEXT NOT NULL, -- what a unit stands for
    remainder          TEXT NOT NULL, -- what of the period is in no slice, behind this one
    dated_at           TEXT NOT NULL, -- when Stripe counts it
    cut_at             TEXT NOT NULL,
    state              TEXT NOT NULL, -- 'new' | 'sending' | 'acked' | 'unknown' | 'dead'
    state_at           TEXT NOT NULL,
    sent_at            TEXT,          -- since when it may have arrived
    reason             TEXT
) STRICT;
CREATE INDEX slices_by_customer ON slices (business_id, customer_id, dated_at);
CREATE INDEX slices_waiting ON slices (cut_at) WHERE state <> 'acked';
