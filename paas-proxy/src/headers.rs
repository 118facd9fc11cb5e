//! What a proxy changes in heads: which host is meant, hop-by-hop headers, forwarded headers.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Version};

use crate::pages::Page;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that programs believe when they come from a proxy, and that this one does not set: what a client wrote
/// there is a lie. `Proxy` would become a variable of CGI programs (httpoxy).
const SPOOFED: [&[u8]; 13] = [
    b"forwarded",
    b"proxy",
    b"client-ip",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-real-ip",
    b"x-original-forwarded-for",
    b"x-scheme",
    b"x-url-scheme",
    b"cf-connecting-ip",
    b"fastly-client-ip",
    b"front-end-https",
];

/// Every name that begins so is of that kind too.
const SPOOFED_PREFIX: &[u8] = b"x-forwarded";

/// The longest host name.
pub(crate) const MAX_HOST_BYTES: usize = 253;

/// The host that a request means: in lower case, without port and trailing dot, written to `buffer`.
///
/// # Errors
/// The page to answer with: the request names none, two, or something that is not a host.
pub(crate) fn host_of<'b, B>(
    request: &Request<B>,
    buffer: &'b mut [u8; MAX_HOST_BYTES],
) -> Result<&'b str, Page> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(Page::BadRequest);
    }
    // A target in absolute form wins over the header (RFC 9112, 3.2.2).
    let authority = match (request.uri().authority(), header) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(header)) => header.as_bytes(),
        (None, None) if request.version() == Version::HTTP_11 => return Err(Page::BadRequest),
        (None, None) => return Err(Page::UnknownHost),
    };
    normalise(authority, buffer).ok_or(Page::BadRequest)
}

fn normalise<'b>(authority: &[u8], buffer: &'b mut [u8; MAX_HOST_BYTES]) -> Option<&'b str> {
    let mut host = authority;
    if !host.starts_with(b"[")
        && let Some(colon) = host.iter().position(|byte| *byte == b':')
    {
        let (name, port) = host.split_at(colon);
        if !port[1..].iter().all(u8::is_ascii_digit) {
            return None;
        }
        host = name;
    }
    host = host.strip_suffix(b".").unwrap_or(host);
    let target = buffer.get_mut(..host.len())?;
    for (to, from) in target.iter_mut().zip(host) {
        // A literal IPv6 address is a host too, though never an app's.
        if !from.is_ascii_alphanumeric() && !matches!(from, b'-' | b'.' | b'_' | b'[' | b']' | b':') {
            return None;
        }
        *to = from.to_ascii_lowercase();
    }
    std::str::from_utf8(target).ok()
}

/// True if the request asks to speak another protocol on its connection. HTTP/2 does not count: its requests would pass
/// through the tunnel unseen, with whatever headers the client likes. Who asks for it is answered in HTTP/1.1.
pub(crate) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    let is_http = |protocol: &[u8]| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        [b"h2".as_slice(), b"h2c", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
    };
    request.version() == Version::HTTP_11
        && tokens(request.headers(), UPGRADE).next().is_some()
        && !tokens(request.headers(), UPGRADE).any(is_http)
        && tokens(request.headers(), CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// The members of a header that is a list.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// True if repeating a request has the effect of sending it once (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Makes of the client's request the one that the instance gets.
///
/// # Errors
/// The page to answer with: a transfer encoding that this proxy does not speak.
pub(crate) fn prepare_request<B>(request: &mut Request<B>, client: &HeaderValue) -> Result<(), Page> {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Page::BadRequest)?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    *request.version_mut() = Version::HTTP_11;

    let headers = request.headers_mut();
    if headers.get(TRANSFER_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Page::BadRequest);
    }
    strip_hop_by_hop(headers);
    // The proxy has sent `100 Continue` itself by the time that the instance gets the body.
    headers.remove(EXPECT);
    headers.remove(TE);
    // Only ever sent to change to HTTP/2, which is not done here.
    headers.remove(HTTP2_SETTINGS);
    remove_spoofed(headers);
    headers.insert(X_FORWARDED_FOR, client.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    Ok(())
}

fn remove_spoofed(headers: &mut HeaderMap) {
    let spoofed: Vec<HeaderName> = headers.keys().filter(|name| is_spoofed(name)).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
}

fn is_spoofed(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // WSGI and CGI programs can't tell `_` from `-`.
    let begins = |with: &[u8]| {
        name.len() >= with.len() && name.iter().zip(with).all(|(a, b)| a == b || (*a == b'_' && *b == b'-'))
    };
    begins(SPOOFED_PREFIX) || SPOOFED.iter().any(|spoofed| name.len() == spoofed.len() && begins(spoofed))
}

/// Makes of the instance's answer the one that the client gets.
pub(crate) fn prepare_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(TRANSFER_ENCODING);
}

/// Removes what is meant for one connection only (RFC 9110, 7.6.1), what `Connection` names included.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    while let Some(value) = headers.remove(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            // Neither the host nor the length can be declared hop-by-hop: the message would change its meaning.
            if let Ok(name) = HeaderName::from_bytes(token)
                && !matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING)
            {
                headers.remove(name);
            }
        }
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &PROXY_AUTHENTICATE, &PROXY_AUTHORIZATION, &UPGRADE] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Option<String> {
        normalise(authority.as_bytes(), &mut [0; MAX_HOST_BYTES]).map(str::to_owned)
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_trailing_dot() {
        for text in ["hello.localhost", "HELLO.localhost:8080", "hello.localhost.", "Hello.Localhost.:80"] {
            assert_eq!(host(text).as_deref(), Some("hello.localhost"), "{text}");
        }
        for text in ["a b", "a/b", "user@host", "host:port", "a:1:2", "h\u{e9}", &"a".repeat(254)] {
            assert_eq!(host(text), None, "{text}");
        }
        assert_eq!(host("[::1]:8080").as_deref(), Some("[::1]:8080"));
    }

    #[test]
    fn what_connection_names_is_removed_but_never_the_framing() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-Private, content-length"),
            ("connection", "host, keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
            ("host", "a"),
            ("x-kept", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "x-kept"]);
    }
}
