//! Files that a conversation names by their addresses, and the networks from which they may come.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::Detail;

/// Bytes of an address.
pub const MAX_URL_BYTES: usize = 8 << 10;

/// A file on another machine. It is fetched, and replaced by what came, before a worker gets the
/// request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// `http` or `https`.
    pub url: String,
    pub what: RemoteKind,
}

/// What it is to be taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteKind {
    Picture(Detail),
    /// With the name that the client has for it, which may be empty.
    Document(String, Detail),
}

/// An address may say as much as a prompt.
impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Remote({} bytes, {:?})",
            self.url.len(),
            std::mem::discriminant(&self.what)
        )
    }
}

/// From where files may be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// From every address that anyone on the internet could reach as well, at the ports of the web.
    public: bool,
    listed: Vec<IpNet>,
}

/// Why a file is not fetched from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The address is in none of the networks.
    NotListed,
    /// Of the internet only the ports of the web are reached.
    Port,
    /// This machine's own address, or one of a network that it is in, is not the internet, however
    /// public it looks: what listens there often trusts its neighbours.
    Neighbour,
}

/// The ports of `http` and `https`.
const WEB_PORTS: [u16; 2] = [80, 443];
/// What stands for the internet.
const PUBLIC: &str = "public";

/// What is not the internet in IPv4: IANA's registry of special-purpose addresses, multicast, and
/// what is reserved.
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What is the internet in IPv6, …
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// … and what of that is not: IANA's registry again; Teredo, ORCHID and the like, documentation,
/// 6to4.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

impl Networks {
    /// The internet.
    pub fn public() -> Self {
        Self {
            public: true,
            listed: vec![],
        }
    }

    /// Nothing may be fetched.
    pub fn is_empty(&self) -> bool {
        !self.public && self.listed.is_empty()
    }

    /// Of `public`, addresses, and networks like `192.168.1.0/24`; `None` if anything else is among
    /// them.
    pub fn of(texts: &[impl AsRef<str>]) -> Option<Self> {
        let mut networks = Self::default();
        for text in texts.iter().map(AsRef::as_ref) {
            match text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            {
                Ok(network) => networks.listed.push(network),
                Err(_) if text == PUBLIC => networks.public = true,
                Err(_) => return None,
            }
        }
        Some(networks)
    }

    /// Whether a file may be fetched from an address. `own` are the networks that this machine is
    /// in.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn check(&self, address: SocketAddr, own: &[IpNet]) -> Result<(), Barred> {
        // IPv6 can spell an IPv4 address.
        let ip = address.ip().to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        if within(&self.listed) {
            return Ok(());
        }
        if !self.public || !is_public(ip) {
            return Err(Barred::NotListed);
        }
        if within(own) {
            return Err(Barred::Neighbour);
        }
        if !WEB_PORTS.contains(&address.port()) {
            return Err(Barred::Port);
        }
        Ok(())
    }
}

fn is_public(address: IpAddr) -> bool {
    let within_v4 =
        |address: &Ipv4Addr, (network, bits)| Ipv4Net::new_assert(network, bits).contains(address);
    let within_v6 =
        |address: &Ipv6Addr, (network, bits)| Ipv6Net::new_assert(network, bits).contains(address);
    match address {
        IpAddr::V4(address) => !SPECIAL_V4
            .into_iter()
            .any(|special| within_v4(&address, special)),
        IpAddr::V6(address) => {
            within_v6(&address, GLOBAL_V6)
                && !SPECIAL_V6
                    .into_iter()
                    .any(|special| within_v6(&address, special))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(address: &str) -> SocketAddr {
        (address.parse::<IpAddr>().unwrap(), 443).into()
    }

    fn allows(networks: &Networks, address: &str) -> bool {
        networks.check(web(address), &[]).is_ok()
    }

    #[test]
    fn the_internet_is_what_anyone_can_reach() {
        let public = Networks::of(&["public"]).unwrap();
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(allows(&public, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!allows(&public, address), "{address}");
        }
    }

    #[test]
    fn networks_are_listed_by_hand() {
        let home = Networks::of(&["192.168.1.0/24", "10.0.0.7", "fd00::/8"]).unwrap();
        for (address, allowed) in [
            ("192.168.1.20", true),
            ("192.168.2.20", false),
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("fd12::1", true),
            ("::ffff:192.168.1.20", true),
            ("1.1.1.1", false),
        ] {
            assert_eq!(allows(&home, address), allowed, "{address}");
        }
        assert!(!home.is_empty() && Networks::default().is_empty());
        assert!(!allows(&Networks::default(), "1.1.1.1"));
        for text in [
            "",
            "Public",
            "example.org",
            "192.168.1.0/33",
            "192.168.1",
            "1.1.1.1:80",
        ] {
            assert_eq!(Networks::of(&["public", text]), None, "{text}");
        }
    }

    #[test]
    fn neighbours_and_odd_ports_are_not_the_internet_unless_listed() {
        let own = ["93.184.216.0/24", "2a01:4f8::1/128"].map(|network| network.parse().unwrap());
        let check = |networks: &[&str], address: &str, port| {
            let address = (address.parse::<IpAddr>().unwrap(), port).into();
            Networks::of(networks).unwrap().check(address, &own)
        };
        for (address, port, outcome) in [
            ("1.1.1.1", 80, Ok(())),
            ("1.1.1.1", 443, Ok(())),
            ("1.1.1.1", 22, Err(Barred::Port)),
            ("93.184.216.34", 443, Err(Barred::Neighbour)),
            ("::ffff:93.184.216.34", 443, Err(Barred::Neighbour)),
            ("93.184.217.34", 443, Ok(())),
            ("2a01:4f8::1", 443, Err(Barred::Neighbour)),
            ("2a01:4f8::2", 443, Ok(())),
            ("10.0.0.1", 443, Err(Barred::NotListed)),
        ] {
            assert_eq!(check(&["public"], address, port), outcome, "{address}");
        }
        let listed = &["public", "93.184.216.34"];
        assert_eq!(check(listed, "93.184.216.34", 8080), Ok(()));
        assert_eq!(check(listed, "1.1.1.1", 8080), Err(Barred::Port));
    }

    #[test]
    fn addresses_are_not_printed() {
        let remote = Remote {
            url: "https://example.org/secret".into(),
            what: RemoteKind::Document("secret".into(), Detail::Auto),
        };
        assert!(!format!("{remote:?}").contains("secret"));
    }
}
