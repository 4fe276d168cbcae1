-- Secrets that the service can recover, encrypted under its secret key: base64 of version, key id, nonce, ciphertext. They are
-- here so that another machine can start from this database; without that key nobody reads them.

-- Credentials of a tenant for Stripe.
CREATE TABLE {schema}.stripe_keys (
    business_id    text NOT NULL,
    key_name       text NOT NULL,
    secret_key     text NOT NULL, -- encrypted
    webhook_secret text NOT NULL, -- encrypted
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (business_id, key_name)
);

-- Where a tenant's messages go and what they are signed with.
CREATE TABLE {schema}.webhooks (
    business_id text PRIMARY KEY,
    url         text NOT NULL,
    secret      text NOT NULL,        -- encrypted
    created_at  timestamptz NOT NULL, -- of the secret
    retired     jsonb NOT NULL        -- array of {"secret", "ends_at"}, newest first: encrypted, sign along until then
);
