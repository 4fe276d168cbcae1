//! The rules of what a tenant has of its own: keys, credentials for Stripe, where its messages go, what its customers' keys may
//! reach. A part of `change`. Pure.

use std::collections::BTreeSet;

use dataflows::types::{ApiKey, Definition, KeyKind, Micros, RetiredSecret, Sealed, StripeKey, Webhook};

use super::key::is_active;
use super::{ControlError, Registry};

/// Active keys of one kind that a business, or a customer, may have: two, so that one can replace the other.
const KEYS_MAX: usize = 2;

pub(super) fn create_key(
    registry: &Registry,
    key: ApiKey,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&key.business_id).ok_or(ControlError::NoSuchBusiness)?;
    if let KeyKind::Customer { customer_id } = &key.kind {
        registry.customer(&key.business_id, customer_id).ok_or(ControlError::NoSuchCustomer)?;
    }
    // One of that name that has expired makes room.
    let known = registry.key(&key.business_id, &key.kind, &key.key_name);
    if known.is_some_and(|known| is_active(known, || now)) {
        return Err(ControlError::KeyExists);
    }
    if registry.keys(&key.business_id, now).filter(|known| known.kind == key.kind).count() >= KEYS_MAX {
        return Err(ControlError::KeyLimit);
    }
    let ended = known.map(|known| Definition::KeyEnded { hash: known.hash });
    Ok(ended.into_iter().chain([Definition::KeyPut(key)]).collect())
}

pub(super) fn create_stripe_key(
    registry: &Registry,
    key: StripeKey,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&key.business_id).ok_or(ControlError::NoSuchBusiness)?;
    if registry.secrets().stripe_key(&key.business_id, &key.key_name).is_some() {
        return Err(ControlError::KeyExists);
    }
    if registry.secrets().stripe_keys(&key.business_id).count() >= KEYS_MAX {
        return Err(ControlError::KeyLimit);
    }
    Ok(vec![Definition::StripeKeyPut(key)])
}

/// How long a webhook secret that was replaced signs along.
const SIGNS_ALONG_MICROS: i64 = 24 * 3_600 * Micros::PER_SECOND;
/// Secrets that sign along; beyond, the oldest stops early: a message carries a signature for each.
const RETIRED_MAX: usize = 4;

pub(super) fn put_webhook(
    registry: &Registry,
    business_id: String,
    url: String,
    secret: Sealed,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
    let known = registry.secrets().webhook(&business_id).into_iter();
    let retired = known.flat_map(|known| {
        let last =
            RetiredSecret { secret: known.secret.clone(), ends_at: Micros(now.0 + SIGNS_ALONG_MICROS) };
        let older = known.retired.iter().filter(|retired| now < retired.ends_at).cloned();
        std::iter::once(last).chain(older)
    });
    let retired = retired.take(RETIRED_MAX).collect();
    Ok(vec![Definition::WebhookPut(Webhook { business_id, url, secret, created_at: now, retired })])
}

pub(super) fn put_proxy_targets(
    registry: &Registry,
    business_id: String,
    origins: BTreeSet<String>,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
    let is_so = match registry.proxy_targets(&business_id) {
        Some(known) => *known == origins,
        None => origins.is_empty(),
    };
    Ok(if is_so { Vec::new() } else { vec![Definition::ProxyTargetsPut { business_id, origins }] })
}

#[cfg(test)]
mod tests {
    use dataflows::types::{Business, SeriesId};

    use super::super::{Change, decode, encode};
    use super::*;

    const HOUR: i64 = 3_600 * Micros::PER_SECOND;

    /// A registry with one business.
    fn registry() -> Registry {
        let mut registry = Registry::new(1, 0);
        registry.apply(&Definition::BusinessPut(Business {
            business_id: "biz_1".to_owned(),
            business_name: "B".to_owned(),
            email: "b".to_owned(),
            created_at: Micros(0),
        }));
        registry
    }

    /// Rotates the webhook secret at an hour; what signs along then, as (secret, hour of its end).
    fn rotate(registry: &mut Registry, secret: u8, hour: i64) -> Vec<(u8, i64)> {
        let change = Change::PutWebhook {
            business_id: "biz_1".to_owned(),
            url: "https://example.com".to_owned(),
            secret: Sealed(vec![secret]),
        };
        let decided = change.decide(registry, &mut SeriesId(1), Micros(hour * HOUR)).expect("decided");
        for definition in &decided {
            registry.apply(definition);
        }
        let webhook = registry.secrets().webhook("biz_1").expect("it is there");
        assert_eq!(webhook.secret, Sealed(vec![secret]));
        webhook.retired.iter().map(|retired| (retired.secret.0[0], retired.ends_at.0 / HOUR)).collect()
    }

    /// Binds the business's customer keys, through the journal's bytes; the definitions that it took.
    fn bind(registry: &mut Registry, origins: &[&str]) -> usize {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let change = Change::PutProxyTargets { business_id: "biz_1".to_owned(), origins };
        let decided = change.decide(registry, &mut SeriesId(1), Micros(0)).expect("decided");
        let journaled = decode(&encode(&decided)).expect("this version's own");
        assert_eq!(journaled, decided);
        for definition in &journaled {
            registry.apply(definition);
        }
        decided.len()
    }

    #[test]
    fn proxy_targets_are_what_was_put_last_and_go_with_the_business() {
        let registry = &mut registry();
        assert_eq!(bind(registry, &[]), 0, "nothing is set already");
        assert_eq!(bind(registry, &["https://a.example"]), 1);
        assert_eq!(bind(registry, &["https://b.example", "https://a.example"]), 1);
        assert_eq!(
            bind(registry, &["https://a.example", "https://b.example"]),
            0,
            "a repetition changes nothing"
        );
        let mut again = Registry::new(1, 0);
        for definition in registry.export() {
            again.apply(&definition);
        }
        assert_eq!(again.proxy_targets("biz_1"), registry.proxy_targets("biz_1"));
        assert_eq!(again.proxy_targets("biz_1").map(BTreeSet::len), Some(2));
        assert_eq!((again.proxy_targets("biz_2"), bind(registry, &[])), (None, 1));
        assert_eq!(registry.proxy_targets("biz_1"), None, "an empty list binds nobody");
        again.apply(&Definition::BusinessDeleted { business_id: "biz_1".to_owned() });
        assert_eq!(again.proxy_targets("biz_1"), None);
        let absent = Change::PutProxyTargets { business_id: "biz_1".to_owned(), origins: BTreeSet::new() };
        let decided = absent.decide(&again, &mut SeriesId(1), Micros(0));
        assert_eq!(decided, Err(ControlError::NoSuchBusiness));
    }

    #[test]
    fn a_replaced_webhook_secret_signs_along_for_a_day_and_not_too_many_do() {
        let registry = &mut registry();
        assert_eq!(rotate(registry, 1, 0), []);
        assert_eq!(rotate(registry, 2, 1), [(1, 25)]);
        assert_eq!(rotate(registry, 3, 24), [(2, 48), (1, 25)]);
        assert_eq!(rotate(registry, 4, 25), [(3, 49), (2, 48)], "the first has ended");
        assert_eq!(rotate(registry, 5, 26), [(4, 50), (3, 49), (2, 48)]);
        assert_eq!(rotate(registry, 6, 26), [(5, 50), (4, 50), (3, 49), (2, 48)]);
        assert_eq!(rotate(registry, 7, 27), [(6, 51), (5, 50), (4, 50), (3, 49)], "more than four");
    }
}
