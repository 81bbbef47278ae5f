//! Which requests are passed on, by their heads alone. Pure.
//!
//! A web page can send requests to every address that its reader's machine can reach, also to this
//! one, under a name that was made to mean this machine. So a request names the gateway by a name that
//! is its own (`hosts`), and comes from no page but those that are named (`origins`).

use core::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode, Uri};

/// What clients may do. `OPTIONS` asks for a page, and is answered here.
const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];

/// Whom requests may name and come from.
#[derive(Debug)]
pub struct Rules {
    /// In small letters.
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on; its answer may be read by this page.
    Pass {
        origin: Option<String>,
    },
    /// A browser asks whether a page may ask. It may.
    Preflight {
        origin: String,
    },
    Refuse(Refusal),
}

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: &'static str,
}

const fn refusal(status: StatusCode, code: &'static str, message: &'static str) -> Refusal {
    Refusal {
        status,
        code,
        message,
    }
}

const TWO_HOSTS: Refusal = refusal(
    StatusCode::BAD_REQUEST,
    "invalid_host",
    "the request must name its host once",
);
const OTHER_HOST: Refusal = refusal(
    StatusCode::MISDIRECTED_REQUEST,
    "unknown_host",
    "the gateway is not known by this name; `hosts` in gateway.toml lists its names",
);
const OTHER_ORIGIN: Refusal = refusal(
    StatusCode::FORBIDDEN,
    "origin_not_allowed",
    "web pages of this origin may not ask; `origins` in gateway.toml lists those that may",
);
const METHOD: Refusal = refusal(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "the gateway takes GET, HEAD, POST and DELETE",
);

impl Rules {
    /// `local`: the address that the client has connected to.
    pub fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Verdict {
        let host = match host(uri, headers) {
            Some(host) => host,
            None => return Verdict::Refuse(TWO_HOSTS),
        };
        if !self.is_own(host, local) {
            return Verdict::Refuse(OTHER_HOST);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => None,
            (Some(origin), None) => {
                let known = origin.to_str().ok();
                match known.filter(|origin| self.may_ask(origin)) {
                    Some(origin) => Some(origin.to_owned()),
                    None => return Verdict::Refuse(OTHER_ORIGIN),
                }
            }
            (Some(_), Some(_)) => return Verdict::Refuse(OTHER_ORIGIN),
        };
        match (origin, method) {
            (Some(origin), &Method::OPTIONS) => Verdict::Preflight { origin },
            (_, method) if !METHODS.contains(method) => Verdict::Refuse(METHOD),
            (origin, _) => Verdict::Pass { origin },
        }
    }

    fn may_ask(&self, origin: &str) -> bool {
        self.origins
            .iter()
            .any(|known| known.eq_ignore_ascii_case(origin))
    }

    /// Whether a name, with or without a port, is the gateway's.
    fn is_own(&self, host: &str, local: IpAddr) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(&name);
        match address.parse::<IpAddr>() {
            Ok(named) => {
                let (named, local) = (named.to_canonical(), local.to_canonical());
                named == local || named.is_loopback() && local.is_loopback()
            }
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }
}

/// The host that a request names, of HTTP/2 or 1.1; `None` if it names none, or two.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = uri.authority().map(|authority| authority.as_str());
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (_, Some(_)) => return None,
        (Some(host), None) => Some(host.to_str().ok()?),
        (None, None) => None,
    };
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => None,
        (Some(name), _) | (None, Some(name)) => (!name.contains('@')).then_some(name),
        (None, None) => None,
    }
}

fn without_port(host: &str) -> &str {
    let after_address = host.rfind(']').map_or(0, |end| end + 1);
    match host[after_address..].rfind(':') {
        Some(colon) => &host[..after_address + colon],
        None => host,
    }
}

/// Headers that concern one connection, and are not passed on in either direction.
const OF_ONE_CONNECTION: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

/// Takes out what concerns one connection: it, and what it names.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| header::HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn rules() -> Rules {
        Rules {
            hosts: vec!["box.lan".into()],
            origins: vec!["https://chat.example".into()],
        }
    }

    fn judge(method: Method, uri: &str, headers: &[(&'static str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let local = "192.168.1.5".parse().unwrap();
        rules().judge(&method, &uri.parse().unwrap(), &map, local)
    }

    #[test]
    fn a_request_names_the_gateway() {
        let pass = Verdict::Pass { origin: None };
        for host in [
            "localhost",
            "LOCALHOST:8484",
            "box.lan",
            "Box.LAN:1",
            "192.168.1.5:8484",
        ] {
            assert_eq!(judge(Method::GET, "/", &[("host", host)]), pass, "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1",
            "[::1]:80",
            "192.168.1.6",
            "localhost.evil.example",
            "localhost.",
            "box.lan.",
            "",
            ":80",
            "0.0.0.0",
        ] {
            let verdict = judge(Method::GET, "/", &[("host", host)]);
            assert_eq!(verdict, Verdict::Refuse(OTHER_HOST), "{host}");
        }
        for headers in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "localhost@evil.example")],
        ] {
            let verdict = judge(Method::GET, "/", headers);
            assert_eq!(verdict, Verdict::Refuse(TWO_HOSTS), "{headers:?}");
        }
        assert_eq!(judge(Method::GET, "https://box.lan/x", &[]), pass);
        let two = judge(Method::GET, "https://box.lan/x", &[("host", "localhost")]);
        assert_eq!(two, Verdict::Refuse(TWO_HOSTS));
    }

    #[test]
    fn loopback_is_known_by_all_its_addresses() {
        for (local, host, own) in [
            ("127.0.0.1", "127.0.0.1:1", true),
            ("127.0.0.1", "[::1]", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::1", "[::1]:8484", true),
            ("::1", "::1", false),
            ("::1", "[::2]", false),
            ("10.0.0.1", "127.0.0.1", false),
        ] {
            let is_own = rules().is_own(host, local.parse().unwrap());
            assert_eq!(is_own, own, "{local} {host}");
        }
    }

    #[test]
    fn only_pages_that_are_named_may_ask() {
        let host = ("host", "localhost");
        let known = ("origin", "https://chat.example");
        let origin = "https://chat.example".to_owned();
        assert_eq!(
            judge(Method::POST, "/", &[host, known]),
            Verdict::Pass {
                origin: Some(origin.clone())
            }
        );
        assert_eq!(
            judge(Method::OPTIONS, "/", &[host, known]),
            Verdict::Preflight { origin }
        );
        for other in ["null", "https://evil.example", "http://chat.example", "*"] {
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                let verdict = judge(method, "/", &[host, ("origin", other)]);
                assert_eq!(verdict, Verdict::Refuse(OTHER_ORIGIN), "{other}");
            }
        }
        let twice = judge(Method::GET, "/", &[host, known, known]);
        assert_eq!(twice, Verdict::Refuse(OTHER_ORIGIN));
        for method in [Method::OPTIONS, Method::CONNECT, Method::TRACE, Method::PUT] {
            let verdict = judge(method, "/", &[host]);
            assert_eq!(verdict, Verdict::Refuse(METHOD));
        }
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("content-type"));
    }
}
