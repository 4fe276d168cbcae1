-- Who changed what is defined. Nothing is ever changed here; rows that are too old for you may be deleted.

CREATE TABLE {schema}.audit_log (
    epoch          bigint NOT NULL, -- journal epoch of the definitions that the entry is about
    entry          bigint NOT NULL, -- its place in that epoch
    at             timestamptz NOT NULL,
    actor_type     text NOT NULL,    -- 'server' | 'admin' | 'business' | 'customer_api'
    actor_key      text,             -- name of the key, with the last two
    actor_customer text,             -- customer of the key, with the last
    action         text NOT NULL,    -- 'series.create', ...
    business_id    text NOT NULL,
    subject        text NOT NULL,    -- name of the thing that was changed
    request_id     text,
    PRIMARY KEY (epoch, entry)
);
CREATE INDEX audit_log_by_business ON {schema}.audit_log (business_id, epoch, entry);
