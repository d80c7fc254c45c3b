// SPDX-License-Identifier: Apache-2.0
//! URLs that a member listens on or announces.
//!
//! Owns      which of them are well formed (etcd's `types.NewURLs`), and where a listener is bound.
//! Holds     an announced URL is kept as it was written: member ids are made of these texts (ID-1).
//! Never     resolves a name or opens a socket.

use std::{fmt, net::IpAddr, path::PathBuf};

/// Who is at the other end of a file's socket, too.
const LOCALHOST: &str = "localhost";

/// A place to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenUrl {
    /// As given.
    pub text: String,
    pub place: Place,
    /// `https` or `unixs`.
    pub secure: bool,
}

impl ListenUrl {
    /// The host that a client asks for, as a certificate names it.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Tcp { host: Host::Address(address), .. } => address.to_string(),
            Place::Tcp { host: Host::Localhost, .. } | Place::Unix(_) => LOCALHOST.into(),
        }
    }
}

/// What is bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// `localhost` or a literal address, and a port.
    Tcp {
        host: Host,
        port: u16,
    },
    Unix(PathBuf),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    Localhost,
    Address(IpAddr),
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A URL in its parts.
struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, String> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| format!("URL scheme must be http, https, unix, or unixs: {text}"))?;
    let cut = rest.find('/').unwrap_or(rest.len());
    Ok(Parts { scheme, authority: &rest[..cut], path: &rest[cut..] })
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return None;
    }
    Some((bare.unwrap_or(host), port.parse().ok()?))
}

/// Checks one URL that is announced to others.
pub fn check_announced(text: &str) -> Result<(), String> {
    let Parts { scheme, authority, path } = split(text)?;
    match scheme {
        "http" | "https" => {
            if split_port(authority).is_none() {
                return Err(format!("URL address does not have the form \"host:port\": {text}"));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
            Ok(())
        }
        "unix" | "unixs" => Ok(()),
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
    }
}

/// Where another member is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerUrl<'a> {
    /// Host and port, as they stand in a request.
    pub authority: &'a str,
    /// The host, as a certificate names it.
    pub host: &'a str,
    /// The file of a socket; `None` for a host and a port.
    pub file: Option<PathBuf>,
    /// `https` or `unixs`.
    pub secure: bool,
}

/// Reads one URL that another member announces.
pub fn parse_peer(text: &str) -> Result<PeerUrl<'_>, String> {
    // Who adds a member may have put it there.
    let text = text.trim_end_matches('/');
    check_announced(text)?;
    let Parts { scheme, authority, path } = split(text)?;
    let secure = is_secure(scheme);
    Ok(match scheme {
        "http" | "https" => {
            let (host, _) = split_port(authority).expect("checked above");
            PeerUrl { authority, host, file: None, secure }
        }
        _ => {
            let file = Some(PathBuf::from(format!("{authority}{path}")));
            PeerUrl { authority: LOCALHOST, host: LOCALHOST, file, secure }
        }
    })
}

fn is_secure(scheme: &str) -> bool {
    matches!(scheme, "https" | "unixs")
}

/// Reads one URL to listen on.
pub fn parse_listen(text: &str) -> Result<ListenUrl, String> {
    check_announced(text)?;
    let Parts { scheme, authority, path } = split(text)?;
    let place = match scheme {
        "http" | "https" => {
            let (host, port) = split_port(authority).expect("checked above");
            let host = match host {
                LOCALHOST => Host::Localhost,
                _ => Host::Address(
                    host.parse().map_err(|_| format!("expected IP in URL for binding ({text})"))?,
                ),
            };
            Place::Tcp { host, port }
        }
        // E2-13: host and path together name the file.
        _ => Place::Unix(PathBuf::from(format!("{authority}{path}"))),
    };
    Ok(ListenUrl { text: text.to_owned(), place, secure: is_secure(scheme) })
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: E2-13
    #[test]
    fn listeners_are_addresses_or_files() {
        let place = |text: &str| parse_listen(text).map(|url| url.place);
        assert_eq!(place("http://localhost:2379"), Ok(Place::Tcp { host: Host::Localhost, port: 2379 }));
        assert_eq!(
            place("http://[::1]:0"),
            Ok(Place::Tcp { host: Host::Address("::1".parse().expect("an address")), port: 0 })
        );
        assert_eq!(place("unix://etcd.unix:1"), Ok(Place::Unix("etcd.unix:1".into())));
        assert_eq!(place("unix:///run/x.sock"), Ok(Place::Unix("/run/x.sock".into())));
    }

    // rule: TL-13
    #[test]
    fn two_schemes_of_four_are_secure() {
        for (text, secure, host) in [
            ("http://[::1]:1", false, "::1"),
            ("https://127.0.0.1:1", true, "127.0.0.1"),
            ("unix://a:1", false, "localhost"),
            ("unixs://a:1", true, "localhost"),
        ] {
            let url = parse_listen(text).expect("a URL");
            assert_eq!((url.secure, url.host().as_str()), (secure, host), "{text}");
        }
    }

    #[test]
    fn members_are_reached_by_host_and_port_or_by_a_file() {
        for (text, authority, host, file, secure) in [
            ("http://a.example:1", "a.example:1", "a.example", None, false),
            ("https://[::1]:2380", "[::1]:2380", "::1", None, true),
            ("https://10.0.0.1:1", "10.0.0.1:1", "10.0.0.1", None, true),
            ("unix://a:1", "localhost", "localhost", Some("a:1"), false),
            ("unixs:///run/x.sock", "localhost", "localhost", Some("/run/x.sock"), true),
        ] {
            let url = PeerUrl { authority, host, file: file.map(PathBuf::from), secure };
            assert_eq!(parse_peer(text), Ok(url), "{text}");
        }
        assert!(parse_peer("https://a").is_err());
    }

    #[test]
    fn other_urls_are_refused_with_their_text() {
        for (text, why) in [
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://a", "URL address does not have the form \"host:port\": http://a"),
            ("http://a:b", "URL address does not have the form \"host:port\": http://a:b"),
            ("http://::1:2379", "URL address does not have the form \"host:port\": http://::1:2379"),
            ("http://1.2.3.4:1/x", "URL must not contain a path: http://1.2.3.4:1/x"),
            ("http://example.com:1", "expected IP in URL for binding (http://example.com:1)"),
            ("https://example.com:1", "expected IP in URL for binding (https://example.com:1)"),
        ] {
            assert_eq!(parse_listen(text).map(|url| url.place), Err(why.to_owned()), "{text}");
        }
    }
}
