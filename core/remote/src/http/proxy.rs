//! Which proxy a request goes through, by the variables that curl reads, and requests in the form that a proxy for plain HTTP wants.

use super::address;
use std::net::IpAddr;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use url::Url;

/// A proxy and the variable that names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    pub url: Url,
    pub variable: &'static str,
}

impl Proxy {
    /// Whether it wants plain-HTTP requests with the whole address (RFC 9112, section 3.2.2).
    pub fn forwards(&self, target: &Url) -> bool {
        target.scheme() == "http" && matches!(self.url.scheme(), "http" | "https")
    }
}

/// The proxy for an address, if there is one.
pub fn of(target: &Url) -> Result<Option<Proxy>, String> {
    choose(target, |name| std::env::var(name).ok())
}

fn choose(target: &Url, env: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>, String> {
    let set =
        |name: &&'static str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).map(|v| (*name, v));
    let own = if target.scheme() == "https" { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
    let Some((variable, value)) = own.iter().chain(&["all_proxy", "ALL_PROXY"]).find_map(set) else {
        return Ok(None);
    };
    let without = ["no_proxy", "NO_PROXY"].iter().find_map(set).map_or(String::new(), |(_, list)| list);
    if without.split([',', ' ']).any(|entry| excludes(entry, target)) {
        return Ok(None);
    }
    let whole = if value.contains("://") { value } else { format!("http://{value}") };
    let url = Url::parse(&whole).ok().filter(|u| u.host_str().is_some_and(|h| !h.is_empty()));
    let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    match url.filter(|u| known.contains(&u.scheme())) {
        Some(url) => Ok(Some(Proxy { url, variable })),
        None => Err(format!(
            "goes through a proxy, but {variable} names none ({}:// and host are needed)",
            known.join("://, ")
        )),
    }
}

/// Whether an entry of NO_PROXY holds for an address: `*`, a host with its subdomains, an address, or a network such as 10.0.0.0/8.
fn excludes(entry: &str, target: &Url) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    let host = target.host_str().unwrap_or("").trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    if entry.is_empty() || entry == "*" {
        return entry == "*";
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return in_network(&host, network, bits).unwrap_or(false);
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (entry.as_str(), None),
    };
    let name = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.').trim_matches(['[', ']']);
    let same = host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    same && port.is_none_or(|p| target.port_or_known_default() == Some(p))
}

fn in_network(host: &str, network: &str, bits: &str) -> Option<bool> {
    let bits: u32 = bits.parse().ok()?;
    match (host.parse().ok()?, network.parse().ok()?) {
        (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => {
            Some((a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => {
            Some((a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0)
        }
        _ => None,
    }
}

/// Writes the whole address into the first line of each request, since ureq only knows proxies that open a tunnel and most proxies
/// open none for plain HTTP.
#[derive(Debug)]
pub struct WholeAddress {
    /// Scheme, host and port of the server.
    pub origin: String,
}

impl Connector<Box<dyn Transport>> for WholeAddress {
    type Out = Forwarded;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<Box<dyn Transport>>,
    ) -> Result<Option<Forwarded>, ureq::Error> {
        Ok(chained.map(|inner| Forwarded { inner, origin: self.origin.clone(), begins: true }))
    }
}

#[derive(Debug)]
pub struct Forwarded {
    inner: Box<dyn Transport>,
    origin: String,
    /// Whether what is sent next is the beginning of a request.
    begins: bool,
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        const METHOD: &[u8] = b"POST ";
        if !std::mem::take(&mut self.begins) {
            return self.inner.transmit_output(amount, timeout);
        }
        let (out, longer) = (self.inner.buffers().output(), self.origin.len());
        if !out.starts_with(METHOD) || amount + longer > out.len() {
            return Err(ureq::Error::BadUri("the request is too long for a proxy".into()));
        }
        out.copy_within(METHOD.len()..amount, METHOD.len() + longer);
        out[METHOD.len()..METHOD.len() + longer].copy_from_slice(self.origin.as_bytes());
        self.inner.transmit_output(amount + longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.begins = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The proxy as ureq takes it.
pub fn tunnel(proxy: &Proxy) -> Result<ureq::Proxy, String> {
    ureq::Proxy::new(proxy.url.as_str()).map_err(|_| format!("the proxy that {} names cannot be used", proxy.variable))
}

/// Named in messages about what went through it.
pub fn shown(proxy: &Proxy) -> String {
    format!("{}, which {} names", address::shown(&proxy.url).trim_end_matches('/'), proxy.variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(target: &str, env: &[(&str, &str)]) -> String {
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        match choose(&Url::parse(target).unwrap(), env) {
            Ok(found) => found.map_or("none".into(), |p| shown(&p)),
            Err(what) => what,
        }
    }

    #[test]
    fn the_variables_of_curl_are_read() {
        let all = [("http_proxy", "http://p:1"), ("HTTPS_PROXY", "q:2"), ("ALL_PROXY", "socks5h://u:secret@r:3")];
        assert_eq!(chosen("http://h/", &all), "http://p:1, which http_proxy names");
        assert_eq!(chosen("https://h/", &all), "http://q:2, which HTTPS_PROXY names");
        assert_eq!(chosen("https://h/", &all[2..]), "socks5h://r:3, which ALL_PROXY names");
        assert_eq!(chosen("https://h/", &[("http_proxy", "http://p:1")]), "none");
        assert_eq!(
            chosen("http://h/", &[("http_proxy", " "), ("HTTP_PROXY", "p:1")]),
            "http://p:1, which HTTP_PROXY names"
        );
        let wrong = chosen("http://h/", &[("http_proxy", "gopher://u:secret@p")]);
        assert!(wrong.contains("http_proxy") && !wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn no_proxy_leaves_out_hosts_domains_ports_and_networks() {
        let through = |target: &str, list: &str| chosen(target, &[("http_proxy", "p:1"), ("no_proxy", list)]) != "none";
        for (target, list) in [
            ("http://localhost:8000", "localhost,127.0.0.1"),
            ("http://a.b.example.com", "example.com"),
            ("http://a.example.com", ".example.com"),
            ("http://a.example.com", "x, *.EXAMPLE.com"),
            ("http://anything", "*"),
            ("http://10.1.2.3", "10.0.0.0/8"),
            ("http://[fd00::1]:80", "fd00::/8"),
            ("http://[::1]:80", "::1"),
            ("http://h:8000", "h:8000"),
        ] {
            assert!(!through(target, list), "{target} {list}");
        }
        for (target, list) in [
            ("http://badexample.com", "example.com"),
            ("http://11.1.2.3", "10.0.0.0/8"),
            ("http://h:8000", "h:9000"),
            ("http://h", ""),
            ("http://h", "10.0.0.0/99"),
        ] {
            assert!(through(target, list), "{target} {list}");
        }
    }
}
