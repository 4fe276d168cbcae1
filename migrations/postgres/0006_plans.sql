-- Plans, the limits that come with them, and who is on which.

CREATE TABLE {schema}.plans (
    business_id     text NOT NULL,
    plan_id         text NOT NULL,
    plan_name       text NOT NULL,
    stripe_price_id text,             -- none: the free plan
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (business_id, plan_id)
);

-- A limit for a metric of customers: of those on a plan, or of all that have no more specific one.
CREATE TABLE {schema}.plan_limits (
    business_id    text NOT NULL,
    limit_id       text NOT NULL,
    plan_id        text,           -- none: the default of the business
    metric_name    text NOT NULL,
    limit_value    numeric NOT NULL,
    limit_operator text NOT NULL,
    breach_action  text NOT NULL,
    notify_at      jsonb NOT NULL, -- percentages
    webhook_url    text,
    limit_period   text NOT NULL,  -- '1m' | '1h' | '1d' | '1w' | '1mo' | 'billing' | 'lifetime'
    metric_type    text,           -- of the series that it creates; none: as the period says
    operation      text NOT NULL,  -- of the series that it creates
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (business_id, limit_id)
);

-- None: on no plan by name.
ALTER TABLE {schema}.customers ADD COLUMN plan_id text;
