-- What Stripe has told: subscriptions, the events themselves, and the billing periods that they ended.

-- As of the last event about each.
CREATE TABLE {schema}.subscriptions (
    business_id        text NOT NULL,
    subscription_id    text NOT NULL,
    stripe_customer_id text NOT NULL,
    standing           text NOT NULL,        -- 'running' | 'over' | 'undecided'
    created_at         timestamptz NOT NULL,
    ends_at            timestamptz,          -- when it will end, or has ended; none: not decided
    said_at            timestamptz NOT NULL, -- when the event happened that says so
    is_simulated       boolean NOT NULL,     -- true: its time is that of a test clock
    items              jsonb NOT NULL,       -- array of {price_id, period_start, period_end}
    PRIMARY KEY (business_id, subscription_id)
);

-- Nothing is ever changed here; rows that are too old for you may be deleted. One that was received in the last 30 days is
-- not read again when it comes again.
CREATE TABLE {schema}.stripe_events (
    business_id text NOT NULL,
    event_id    text NOT NULL,
    event_type  text NOT NULL,        -- 'invoice.created', ...
    created_at  timestamptz NOT NULL, -- when it happened
    received_at timestamptz NOT NULL,
    applied     boolean NOT NULL,     -- true: it changed something, or confirmed what was known
    reason      text NOT NULL,        -- what it did, or why nothing
    PRIMARY KEY (business_id, event_id)
);

-- The last boundary of each live series at which an event has ended its billing period. Periods that end by themselves,
-- because a subscription says when, are not here.
CREATE TABLE {schema}.billing_periods_ended (
    series_id bigint PRIMARY KEY,
    boundary  timestamptz NOT NULL
);
