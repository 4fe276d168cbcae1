-- Who changed what is defined. Nothing is ever changed here; rows that are too old for you may be deleted.

CREATE TABLE audit_log (
    epoch          INTEGER NOT NULL, -- journal epoch of the definitions that the entry is about
    entry          INTEGER NOT NULL, -- its place in that epoch
    at             TEXT NOT NULL,
    actor_type     TEXT NOT NULL,    -- 'server' | 'admin' | 'business' | 'customer_api'
    actor_key      TEXT,             -- name of the key, with the last two
    actor_customer TEXT,             -- customer of the key, with the last
    action         TEXT NOT NULL,    -- 'series.create', ...
    business_id    TEXT NOT NULL,
    subject        TEXT NOT NULL,    -- name of the thing that was changed
    request_id     TEXT,
    PRIMARY KEY (epoch, entry)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_log_by_business ON audit_log (business_id, epoch, entry);
