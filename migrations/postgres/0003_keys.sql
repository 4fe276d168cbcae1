-- A customer may name its keys as another does: what tells keys apart is the hash.

ALTER TABLE {schema}.api_keys DROP CONSTRAINT api_keys_pkey, ADD PRIMARY KEY (key_hash);
CREATE INDEX api_keys_by_business ON {schema}.api_keys (business_id, customer_id);
