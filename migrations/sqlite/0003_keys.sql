-- A customer may name its keys as another does: what tells keys apart is the hash.

CREATE TABLE api_keys_by_hash (
    business_id TEXT NOT NULL,
    key_name    TEXT NOT NULL,
    key_type    TEXT NOT NULL, -- 'business' | 'customer_api'
    customer_id TEXT,          -- of a customer key
    key_hash    TEXT NOT NULL, -- BLAKE3 of the key, in hex; the key itself is nowhere
    scopes      TEXT NOT NULL, -- words of 'read ingest manage'
    expires_at  TEXT,
    created_at  TEXT NOT NULL,
    PRIMARY KEY (key_hash)
) STRICT, WITHOUT ROWID;

INSERT INTO api_keys_by_hash SELECT * FROM api_keys;
DROP TABLE api_keys;
ALTER TABLE api_keys_by_hash RENAME TO api_keys;
