-- How usage is billed: live periods of which something is in slices, and the slices, sent or not.

CREATE TABLE {schema}.billing_periods (
    series_id    bigint NOT NULL,
    period_start timestamptz NOT NULL, -- '-infinity': since the series began
    period_end   timestamptz,          -- none while it is open
    usage        numeric NOT NULL, -- without initial_value, when it was looked at last
    updates      numeric NOT NULL, -- how many
    cleaned      numeric NOT NULL, -- billable usage from before a cleanup
    free         numeric,          -- what is not billed of the value; none: usage is billed
    billable     numeric NOT NULL,
    carried_in   numeric NOT NULL, -- from earlier periods
    carried_out  numeric NOT NULL, -- into a later period
    units        numeric NOT NULL, -- in slices
    scale        numeric NOT NULL, -- what a unit stands for
    next_number  bigint NOT NULL,
    billed_at    timestamptz NOT NULL,
    PRIMARY KEY (series_id, period_start)
);

CREATE TABLE {schema}.slices (
    identifier         text COLLATE "C" PRIMARY KEY, -- its name at Stripe
    series_id          bigint NOT NULL,
    business_id        text NOT NULL,
    customer_id        text NOT NULL,
    metric_name        text NOT NULL,
    stripe_customer_id text NOT NULL,
    price_id           text NOT NULL,
    period_start       timestamptz NOT NULL, -- '-infinity': since the series began
    number             bigint NOT NULL, -- within the period
    quantity           bigint NOT NULL, -- whole units
    scale              numeric NOT NULL, -- what a unit stands for
    remainder          numeric NOT NULL, -- what of the period is in no slice, behind this one
    dated_at           timestamptz NOT NULL, -- when Stripe counts it
    cut_at             timestamptz NOT NULL,
    state              text NOT NULL, -- 'new' | 'sending' | 'acked' | 'unknown' | 'dead'
    state_at           timestamptz NOT NULL,
    sent_at            timestamptz,          -- since when it may have arrived
    reason             text
);
CREATE INDEX slices_by_customer ON {schema}.slices (business_id, customer_id, dated_at);
CREATE INDEX slices_waiting ON {schema}.slices (cut_at) WHERE state <> 'acked';
