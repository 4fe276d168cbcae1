-- What customers' series are made of at their first event.

CREATE TABLE {schema}.templates (
    business_id      text NOT NULL,
    metric_name      text NOT NULL,
    create_customers boolean NOT NULL, -- true: a customer that is not known is made along
    definition       jsonb NOT NULL,   -- the columns of series that describe one, amounts as texts
    custom           json NOT NULL,    -- as the client gave it
    created_at       timestamptz NOT NULL,
    PRIMARY KEY (business_id, metric_name)
);
