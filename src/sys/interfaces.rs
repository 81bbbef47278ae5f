//! The networks that this machine is in.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Every address of this machine's interfaces, with the network that the address is in
/// (getifaddrs(3)). An address without a netmask, as at one end of a tunnel, is a network of its
/// own; so is the other end.
///
/// # Errors
///
/// The kernel does not list them, for example because netlink sockets are forbidden.
pub fn networks() -> io::Result<Vec<IpNet>> {
    let mut networks = vec![];
    for interface in getifaddrs()? {
        if let Some(address) = interface.address.as_ref().and_then(ip) {
            let prefix = interface.netmask.as_ref().and_then(ip).and_then(|mask| {
                ipnet::ip_mask_to_prefix(mask)
                    .ok()
                    .filter(|prefix| *prefix > 0)
            });
            let whole = IpNet::from(address);
            let network = prefix.and_then(|prefix| IpNet::new(address, prefix).ok());
            networks.push(network.unwrap_or(whole));
        }
        networks.extend(interface.destination.as_ref().and_then(ip).map(IpNet::from));
    }
    Ok(networks)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_network_is_among_them() {
        let networks = networks().unwrap();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(
            networks.iter().any(|network| network.contains(&loopback)),
            "{networks:?}"
        );
        assert!(networks.iter().all(|network| network.prefix_len() > 0));
    }
}
