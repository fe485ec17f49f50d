//! Which hosts and origins are answered.
//!
//! Contract: the rules of MLflow's security middleware. A page of another site whose name was made to lead to this
//! machine ("DNS rebinding") sends that name as `Host`, so unknown names are refused; a page of another site that sends
//! requests here says so by `Origin`, so it may change nothing unless it was allowed to. Beyond MLflow, a page may talk
//! to the very host it came from.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Options;

const LOCAL_HOSTS: &[&str] = &["localhost", "127.0.0.1", "[::1]", "0.0.0.0"];
const LOCAL_ORIGINS: &[&str] = &["localhost", "127.0.0.1", "[::1]"];

#[derive(Debug)]
pub(super) struct Hosts {
    /// The one that the server was told to listen at.
    own: String,
    /// None for the usual ones.
    allowed: Option<Vec<String>>,
    origins: Vec<String>,
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => {
            // `::1` is an address, `[::1]:80` has a port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

fn is_private(name: &str) -> bool {
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return address.is_private();
    }
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    inner.and_then(|name| name.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_unique_local())
}

impl Hosts {
    pub(super) fn new(options: &Options) -> Self {
        let lower = |list: &[String]| list.iter().map(|item| item.trim().to_ascii_lowercase()).collect();
        Self {
            own: options.host.to_ascii_lowercase(),
            allowed: options.allowed_hosts.as_deref().map(lower),
            origins: lower(&options.allowed_origins),
        }
    }

    fn takes_any_host(&self) -> bool {
        self.allowed.as_ref().is_some_and(|allowed| allowed.iter().any(|pattern| pattern == "*"))
    }

    /// Whether a `Host` is answered.
    pub(super) fn is_allowed(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let name = without_port(&host);
        if host.is_empty() {
            return false;
        }
        let Some(allowed) = &self.allowed else {
            return LOCAL_HOSTS.contains(&name) || name == self.own || is_private(name);
        };
        allowed.iter().any(|pattern| match pattern.as_str() {
            "*" => true,
            // A pattern of addresses is none of names that begin with the same digits.
            pattern if pattern.contains('*') && pattern.bytes().all(|c| b"0123456789.*:".contains(&c)) => {
                name.parse::<Ipv4Addr>().is_ok() && matches(pattern, &host)
            }
            pattern => matches(pattern, &host),
        })
    }

    /// Whether pages of any origin are welcome.
    pub(super) fn takes_any_origin(&self) -> bool {
        self.origins.iter().any(|pattern| pattern == "*")
    }

    /// Whether a page of this origin may change something through this (allowed) host.
    pub(super) fn is_origin_allowed(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let Some((_, authority)) = origin.split_once("://") else { return self.takes_any_origin() };
        LOCAL_ORIGINS.contains(&without_port(authority))
            || (!self.takes_any_host() && authority.eq_ignore_ascii_case(host))
            || self.origins.iter().any(|pattern| matches(pattern, &origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: Option<&[&str]>, origins: &[&str]) -> Hosts {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Hosts::new(&Options {
            host: "box.lab".to_owned(),
            allowed_hosts: allowed.map(texts),
            allowed_origins: texts(origins),
            ..Options::default()
        })
    }

    #[test]
    fn without_a_list_local_and_private_hosts_are_answered() {
        let usual = hosts(None, &[]);
        for good in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "10.1.2.3",
            "192.168.0.9:80",
            "172.16.0.1",
            "172.31.255.255:1",
            "[fd00::7]:5000",
            "BOX.lab:5000",
        ] {
            assert!(usual.is_allowed(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "10.evil.example",
            "192.168.0.9.evil.example",
            "172.32.0.1",
            "8.8.8.8:5000",
            "localhost.evil.example",
            "evil.example:localhost",
            "[fe80::1]",
            "::1",
        ] {
            assert!(!usual.is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_says_it_all() {
        let listed = hosts(Some(&["mlflow.example", "*.lab:5000", "10.*"]), &[]);
        for good in ["mlflow.example", "a.lab:5000", "10.0.0.1:80"] {
            assert!(listed.is_allowed(good), "{good}");
        }
        for bad in ["localhost", "a.lab", "10.evil.example", "mlflow.example.evil.example"] {
            assert!(!listed.is_allowed(bad), "{bad}");
        }
        assert!(hosts(Some(&["*"]), &[]).is_allowed("anything"));
    }

    #[test]
    fn origins_are_local_own_or_listed() {
        let listed = hosts(None, &["https://app.example", "https://*.trusted.example"]);
        let host = "192.168.0.9:5000";
        for good in [
            "http://localhost:3000",
            "http://192.168.0.9:5000",
            "https://app.example",
            "https://a.trusted.example",
        ] {
            assert!(listed.is_origin_allowed(good, host), "{good}");
        }
        for bad in ["null", "http://evil.example", "http://192.168.0.9:5001", "https://app.example.evil", ""]
        {
            assert!(!listed.is_origin_allowed(bad, host), "{bad}");
        }
        // Whoever answers any host cannot tell its own pages from others.
        let any_host = hosts(Some(&["*"]), &[]);
        assert!(!any_host.is_origin_allowed("http://evil.example", "evil.example"));
        assert!(hosts(None, &["*"]).is_origin_allowed("http://evil.example", host));
    }
}
