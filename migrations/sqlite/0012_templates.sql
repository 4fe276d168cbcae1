-- What customers' series are made of at their first event.

CREATE TABLE templates (
    business_id      TEXT NOT NULL,
    metric_name      TEXT NOT NULL,
    create_customers INTEGER NOT NULL, -- 1: a customer that is not known is made along
    definition       TEXT NOT NULL,    -- JSON object: the columns of series that describe one, amounts as texts
    custom           TEXT NOT NULL,    -- JSON, as the client gave it
    created_at       TEXT NOT NULL,
    PRIMARY KEY (business_id, metric_name)
) STRICT, WITHOUT ROWID;
