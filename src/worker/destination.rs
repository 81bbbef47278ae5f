//! The addresses that a worker on the network may connect to.
//!
//! The addresses that are looked at are those that are connected to, so a name cannot mean something
//! else the second time.

use std::net::SocketAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::chat::{Barred, Networks};
use crate::sys::interfaces;

/// Of the addresses that were found for a URL's host, those that are within the networks. `key`: the
/// key in gemmad.toml that lists the networks.
///
/// # Errors
/// Continues "… is not fetched: ".
pub fn permitted<'a>(
    networks: &Networks,
    url: &Url,
    found: &'a [SocketAddr],
    key: &str,
) -> Result<Vec<&'a SocketAddr>, String> {
    let own = interfaces::networks()
        .map_err(|error| format!("this machine's own addresses are not known: {error}"))?;
    within(networks, found, &own).map_err(|(address, barred)| {
        let host = url.host().map(|host| host.to_string()).unwrap_or_default();
        let address = match (url.host(), address) {
            (Some(Host::Domain(_)), Some(address)) => {
                format!("`{host}` is {}, which", address.ip())
            }
            _ => format!("`{host}`"),
        };
        let why = match barred {
            Barred::NotListed => format!("is not among the networks of `{key}` in gemmad.toml"),
            Barred::Port => format!(
                "is asked for at another port than 80 and 443; list it in `{key}` in gemmad.toml"
            ),
            Barred::Neighbour => format!(
                "is this machine or its neighbour, which `public` leaves out; list it in `{key}` in gemmad.toml"
            ),
        };
        format!("{address} {why}")
    })
}

/// Those of several addresses that may be connected to; if there are none, the first address and
/// why it is barred.
fn within<'a>(
    networks: &Networks,
    found: &'a [SocketAddr],
    own: &[IpNet],
) -> Result<Vec<&'a SocketAddr>, (Option<SocketAddr>, Barred)> {
    let (mut allowed, mut barred) = (vec![], (None, Barred::NotListed));
    for address in found {
        match networks.check(*address, own) {
            Ok(()) => allowed.push(address),
            Err(why) if barred.0.is_none() => barred = (Some(*address), why),
            Err(_) => {}
        }
    }
    if allowed.is_empty() {
        return Err(barred);
    }
    Ok(allowed)
}
