-- Origins that the customer keys of a business may reach by the proxy.

ALTER TABLE {schema}.businesses ADD COLUMN proxy_targets jsonb; -- array of texts; none: they are not bound
