//! One call: who makes it, whether it may, what a fault does to it, whether its key has an answer already. In: a request. Out:
//! a reply, or a connection that closes.

use std::thread::sleep;

use super::account::{Account, Form, Saved, error};
use super::http::{Reply, Request};
use super::{Call, Fault, REMEMBERED_SECS, Shared, State};

pub fn answer(shared: &Shared, request: Request) -> Option<Reply> {
    let now = (shared.clock)();
    let text = if request.method == "POST" { &request.body } else { request.query.as_bytes() };
    let form: Form = url::form_urlencoded::parse(text).into_owned().collect();
    let secret_key = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let mut call = Call {
        at: now,
        secret_key: secret_key.unwrap_or_default().to_owned(),
        method: request.method.clone(),
        path: request.path.clone(),
        form,
        idempotency_key: request.header("idempotency-key").map(str::to_owned),
        status: None,
        is_replayed: false,
    };
    // Not within the `match`, which would keep the lock.
    let admitted = admitted(&mut shared.state(), &request, &call);
    let reply = match admitted {
        Err(reply) => Some(reply),
        Ok(()) => met(shared, &mut call),
    };
    call.status = reply.as_ref().map(|reply| reply.status);
    shared.state().calls.push(call);
    reply
}

/// Whether the caller may ask at all.
fn admitted(state: &mut State, request: &Request, call: &Call) -> Result<(), Reply> {
    let rate_max = state.rate_max;
    let Some(account) = state.accounts.get_mut(&call.secret_key) else {
        let message = format!("Invalid API Key provided: {}", call.secret_key);
        return Err(Reply::new(401, error("api_key_invalid", &message)));
    };
    if request.header("stripe-version").is_none_or(str::is_empty) {
        return Err(Reply::new(400, error("version_missing", "Stripe-Version is required here")));
    }
    if call.method == "POST" && call.idempotency_key.is_none() {
        return Err(Reply::new(400, error("key_missing", "Idempotency-Key is required here")));
    }
    account.rate = if account.rate.0 == call.at { (call.at, account.rate.1 + 1) } else { (call.at, 1) };
    if rate_max.is_some_and(|max| account.rate.1 > max) {
        return Err(Reply::new(429, error("rate_limit", "Too many requests")));
    }
    Ok(())
}

/// What becomes of the call, with the fault that it meets.
fn met(shared: &Shared, call: &mut Call) -> Option<Reply> {
    let mut state = shared.state();
    let place = state.faults.iter().position(|(on, _)| call.path.contains(on));
    let place = place.filter(|_| state.outage.is_none());
    let queued = place.and_then(|place| state.faults.remove(place)).map(|(_, fault)| fault);
    let fault = state.outage.clone().or(queued);
    match fault {
        Some(Fault::DropBefore) => return None,
        Some(Fault::Says(status, headers, body)) => return Some(Reply { status, headers, body }),
        _ => (),
    }
    if let Some(reply) = known(account(&mut state, call), call) {
        return Some(reply);
    }
    // One call at a time for a customer's meter.
    let customer = account(&mut state, call).customer_of(&call.form);
    let event_name = call.form.get("event_name").cloned().unwrap_or_default();
    let busy = (call.secret_key.clone(), event_name, customer);
    let takes_turns = call.path.ends_with("/meter_events");
    if takes_turns && !state.busy.insert(busy.clone()) {
        return Some(Reply::new(
            429,
            error("lock_timeout", "Another call for this customer and meter is under way"),
        ));
    }
    if let Some(key) = &call.idempotency_key {
        account(&mut state, call).running.insert(key.clone());
    }
    if let Some(Fault::Delay(time)) = &fault {
        drop(state);
        sleep(*time);
        state = shared.state();
    }
    if takes_turns {
        state.busy.remove(&busy);
    }
    let account = account(&mut state, call);
    let reply = applied(account, call, fault.as_ref());
    if let Some(key) = &call.idempotency_key {
        account.running.remove(key);
        // What fails before it is carried out is not remembered.
        if !(400..500).contains(&reply.status) {
            let (path, form) = (call.path.clone(), call.form.clone());
            account.saved.insert(key.clone(), Saved { at: call.at, path, form, reply: reply.clone() });
        }
    }
    (!matches!(fault, Some(Fault::LoseAnswer))).then_some(reply)
}

fn account<'a>(state: &'a mut State, call: &Call) -> &'a mut Account {
    state.accounts.get_mut(&call.secret_key).expect("it was admitted")
}

/// The answer that a key has already.
fn known(account: &Account, call: &mut Call) -> Option<Reply> {
    let key = call.idempotency_key.as_ref().filter(|_| call.method == "POST")?;
    if account.running.contains(key) {
        return Some(Reply::new(409, error("idempotency_key_in_use", "There is another request under way")));
    }
    let saved = account.saved.get(key).filter(|saved| call.at - saved.at < REMEMBERED_SECS)?;
    if (&saved.path, &saved.form) != (&call.path, &call.form) {
        let body =
            r#"{"error":{"type":"idempotency_error","message":"The key was used with other parameters"}}"#;
        return Some(Reply::new(400, body));
    }
    call.is_replayed = true;
    let mut reply = saved.reply.clone();
    reply.headers.push(("idempotent-replayed", "true".to_owned()));
    Some(reply)
}

fn applied(account: &mut Account, call: &Call, fault: Option<&Fault>) -> Reply {
    let failure = |status: u16| {
        let headers = vec![("stripe-should-retry", "false".to_owned())];
        Reply { headers, ..Reply::new(status, r#"{"error":{"type":"api_error","message":"Sorry"}}"#) }
    };
    if let Some(Fault::FailBefore(status)) = fault {
        return failure(*status);
    }
    let before = account.events.len();
    let reply = account.answer(call.at, call);
    match fault {
        Some(Fault::FailAfter(status)) => failure(*status),
        Some(Fault::Swallow) => {
            account.events[before..].iter_mut().for_each(|event| event.is_counted = false);
            reply
        }
        _ => reply,
    }
}
