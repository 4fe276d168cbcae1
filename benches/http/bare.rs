//! The bare warp route beside which `benches/http/run` measures durable updates: it parses the same request and answers
//! the same bytes, and does nothing else. Nothing is stored, decided or synced.
//!
//! `http_bare THREADS ANSWER_FILE` listens on a free port of 127.0.0.1 and prints `listening on http://…`.

// The address is this program's output.
#![allow(clippy::print_stdout)]

use std::io::Write;

use anyhow::Context;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::value::RawValue;
use warp::Filter;
use warp::http::StatusCode;

/// The body of an update.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    timestamp: Option<&'a str>,
    id: Option<&'a str>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().context("THREADS is missing")?.parse()?;
    let answer = std::fs::read(arguments.next().context("ANSWER_FILE is missing")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(answer.into()))
}

async fn serve(answer: Bytes) -> anyhow::Result<()> {
    let route = warp::put()
        .and(warp::path!("api" / "v1" / "metrics" / String))
        .and(warp::header::<String>("authorization"))
        .and(warp::header::optional::<String>("idempotency-key"))
        .and(warp::body::bytes())
        .map(move |metric_name: String, key: String, _idempotency_key: Option<String>, body: Bytes| {
            let update: Result<Update, _> = serde_json::from_slice(&body);
            // As much as a bare route would look at.
            let accepted = update.is_ok_and(|update| {
                let amount = update.value.get().parse::<f64>();
                let described = update.timestamp.is_none_or(|at| at.len() < 40)
                    && update.id.is_none_or(|id| id.len() < 256);
                amount.is_ok() && described && metric_name.len() <= 100 && key.starts_with("Bearer ")
            });
            let status = if accepted { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            let reply = warp::reply::with_status(answer.to_vec(), status);
            warp::reply::with_header(reply, "content-type", "application/json")
        });
    let service = TowerToHyperService::new(warp::service(route));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        // A client that goes away is no error of the bench.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}
