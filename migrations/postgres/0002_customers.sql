-- What a tenant may say of a customer beside its name.

ALTER TABLE {schema}.customers
    ADD COLUMN email text,
    ADD COLUMN description text,
    ADD COLUMN stripe_customer_id text,
    ADD COLUMN stripe_price_id text,
    ADD COLUMN subscription_ends_at timestamptz;
