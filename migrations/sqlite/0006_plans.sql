-- Plans, the limits that come with them, and who is on which.

CREATE TABLE plans (
    business_id     TEXT NOT NULL,
    plan_id         TEXT NOT NULL,
    plan_name       TEXT NOT NULL,
    stripe_price_id TEXT,          -- none: the free plan
    created_at      TEXT NOT NULL,
    PRIMARY KEY (business_id, plan_id)
) STRICT, WITHOUT ROWID;

-- A limit for a metric of customers: of those on a plan, or of all that have no more specific one.
CREATE TABLE plan_limits (
    business_id    TEXT NOT NULL,
    limit_id       TEXT NOT NULL,
    plan_id        TEXT,          -- none: the default of the business
    metric_name    TEXT NOT NULL,
    limit_value    TEXT NOT NULL,
    limit_operator TEXT NOT NULL,
    breach_action  TEXT NOT NULL,
    notify_at      TEXT NOT NULL, -- JSON array of percentages
    webhook_url    TEXT,
    limit_period   TEXT NOT NULL, -- '1m' | '1h' | '1d' | '1w' | '1mo' | 'billing' | 'lifetime'
    metric_type    TEXT,          -- of the series that it creates; none: as the period says
    operation      TEXT NOT NULL, -- of the series that it creates
    created_at     TEXT NOT NULL,
    PRIMARY KEY (business_id, limit_id)
) STRICT, WITHOUT ROWID;

-- None: on no plan by name.
ALTER TABLE customers ADD COLUMN plan_id TEXT;
