//! From a name to its addresses. In: a host name. Out: every address that the operating system knows of it, in its order.
//!
//! `Resolve` is a seam: tests give a resolver that changes its answer. What this does not do: judge addresses, keep answers, or
//! bound its own time; the connector waits so long and no longer.

use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Look-ups that occupy a thread at the same time. One that nobody waits for any more counts until the system gives it up.
const LOOKUPS_MAX: usize = 128;

/// Addresses that are being found.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Finds addresses of names.
pub trait Resolve: Send + Sync {
    /// All addresses of `name`, IPv4 and IPv6. An error, or none of them, if it has no address.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// The operating system's resolver (`getaddrinfo`): `/etc/hosts`, DNS, whatever it is told to use.
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let place = self.0.clone().acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let lookup = tokio::task::spawn_blocking(move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                // `tokio::net::lookup_host` would give the place back when its future is dropped, with the thread still busy.
                drop(place);
                Ok(found?.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = SystemResolver::default().resolve("localhost").await.expect("every machine has it");
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(SystemResolver::default().resolve("").await.map_or(0, |found| found.len()) == 0);
    }
}
