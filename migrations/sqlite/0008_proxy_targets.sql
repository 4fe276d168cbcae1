-- Origins that the customer keys of a business may reach by the proxy.

ALTER TABLE businesses ADD COLUMN proxy_targets TEXT; -- JSON array of texts; none: they are not bound
