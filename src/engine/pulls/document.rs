//! A short document that the daemon itself needs, fetched as models are: by a worker of its own, which systemd starts
//! where the service has no network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use url::Url;

use super::Pulls;
use super::hops::Memory;
use super::leg::{self, End};
use super::way::Way;
use crate::engine::Engine;

/// Bytes of a document.
const LARGEST: u64 = 256 << 10;
/// How long fetching one may take.
const TIME: Duration = Duration::from_secs(10);

impl Engine {
    /// What is at an `https` address, 256 KiB at most. Redirects are not followed. `first`: the address that the
    /// configuration names, and that has led to this one; what it names elsewhere must be within `redirect-to`.
    ///
    /// # Errors
    /// Continues "… cannot be fetched: ".
    pub async fn document(&self, url: &str, first: &str) -> Result<Vec<u8>, String> {
        let parse = |text: &str| {
            let url = Url::parse(text).ok();
            let url = url.filter(|url| url.scheme() == "https");
            url.ok_or_else(|| "it is no https address".to_owned())
        };
        let (url, first) = (parse(url)?, parse(first)?);
        let way = self.pulls.way()?;
        let stop = Stop(Arc::default());
        let stopped = stop.0.clone();
        let fetching = tokio::task::spawn_blocking(move || get(&way, &url, &first, &stopped));
        match tokio::time::timeout(TIME, fetching).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it does not come within {} s", TIME.as_secs())),
        }
    }
}

/// Ends what nobody waits for any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pulls {
    pub(super) fn way(&self) -> Result<Way, String> {
        let settings = self.settings();
        let (worker, socket) = (self.0.worker.clone(), self.0.socket.clone());
        Way::new(worker, socket, settings.pull)
    }
}

fn get(way: &Way, url: &Url, first: &Url, stop: &AtomicBool) -> Result<Vec<u8>, String> {
    let mut request = way.request(url, 0, LARGEST);
    request.networks = way.networks(first, url);
    // It is the hub's, and this is nothing of the hub's.
    request.token = None;
    let mut memory = Memory::new();
    match leg::run(way, &request, &mut memory, stop) {
        Ok(End::Ended) if memory.head.total.is_some_and(|total| total > LARGEST) => {
            Err(format!("it is longer than {LARGEST} bytes"))
        }
        Ok(End::Ended) => Ok(memory.bytes),
        Ok(End::Refused { status, .. }) => Err(format!("its server answers {status}")),
        Ok(End::Redirected { .. }) => {
            Err("its server sends those who ask to another address".into())
        }
        Ok(End::Broken { reason, .. }) => Err(super::plan::without_network(way, reason)),
        Ok(End::FromStart | End::Stopped) => Err("it was given up".into()),
        Err(failure) => Err(failure.to_string()),
    }
}
