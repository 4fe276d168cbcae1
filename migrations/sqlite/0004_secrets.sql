-- Secrets that the service can recover, encrypted under its secret key: base64 of version, key id, nonce, ciphertext. They are
-- here so that another machine can start from this database; without that key nobody reads them.

-- Credentials of a tenant for Stripe.
CREATE TABLE stripe_keys (
    business_id    TEXT NOT NULL,
    key_name       TEXT NOT NULL,
    secret_key     TEXT NOT NULL, -- encrypted
    webhook_secret TEXT NOT NULL, -- encrypted
    created_at     TEXT NOT NULL,
    PRIMARY KEY (business_id, key_name)
) STRICT, WITHOUT ROWID;

-- Where a tenant's messages go and what they are signed with.
CREATE TABLE webhooks (
    business_id TEXT PRIMARY KEY,
    url         TEXT NOT NULL,
    secret      TEXT NOT NULL,    -- encrypted
    created_at  TEXT NOT NULL,    -- of the secret
    retired     TEXT NOT NULL     -- JSON array of {"secret", "ends_at"}, newest first: encrypted, sign along until then
) STRICT, WITHOUT ROWID;
