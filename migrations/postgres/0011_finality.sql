-- When invoices take nothing more, and which events of Stripe name a report that is still to be had.

-- Up to where the billing periods of each live series are final, because an event said so. An hour behind its end every period
-- is, without a row here.
CREATE TABLE {schema}.billing_periods_final (
    series_id   bigint PRIMARY KEY,
    final_until timestamptz NOT NULL
);

-- true: the event only names its report, which is asked for. What the report said is written when it is there: the one change
-- of a row. Rows that were received more than 30 days before the last one go by themselves.
ALTER TABLE {schema}.stripe_events ADD COLUMN awaits_report boolean NOT NULL DEFAULT false;
CREATE INDEX stripe_events_by_age ON {schema}.stripe_events (received_at);
