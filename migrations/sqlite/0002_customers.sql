-- What a tenant may say of a customer beside its name.

ALTER TABLE customers ADD COLUMN email TEXT;
ALTER TABLE customers ADD COLUMN description TEXT;
ALTER TABLE customers ADD COLUMN stripe_customer_id TEXT;
ALTER TABLE customers ADD COLUMN stripe_price_id TEXT;
ALTER TABLE customers ADD COLUMN subscription_ends_at TEXT;
