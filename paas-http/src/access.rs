//! Who may call: those who know the one token.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::AUTHORIZATION;
use paas_core::{Clock, Error, Kind, Retry};
use sha2::{Digest, Sha256};

use crate::problem::Result;

/// How many bad attempts a caller has in a [`WINDOW`] before they are answered 429.
const ATTEMPTS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// How many callers are remembered: the longest known makes room.
const CALLERS: usize = 4096;

/// Lets those in who know the token.
///
/// # Guarantees
/// Of the token only a digest is kept, compared in constant time. Bad attempts are counted by caller within bounded
/// memory; they never keep the holder of the token out, also not one who calls from the same address.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    digest: [u8; 32],
    clock: Arc<dyn Clock>,
    callers: Mutex<HashMap<IpAddr, Attempts>>,
}

#[derive(Debug)]
struct Attempts {
    since: Duration,
    count: u32,
}

impl Access {
    /// Asks for this bearer token; it should have 256 random bits.
    #[must_use]
    pub fn bearer(token: &str, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { digest: digest(token), clock, callers: Mutex::default() }))
    }

    /// True if the request carries the token.
    pub(crate) fn is_granted(&self, request: &http::request::Parts) -> bool {
        let mut values = request.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let difference = digest(token.trim())
            .iter()
            .zip(self.0.digest)
            .fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        scheme.eq_ignore_ascii_case("bearer") && difference == 0
    }

    /// Counts a bad attempt; answers how long to stay away after too many.
    fn refuse(&self, caller: IpAddr) -> Option<Duration> {
        let now = self.0.clock.elapsed();
        // A panic while it was held leaves at most one attempt uncounted.
        let mut callers = self.0.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS && !callers.contains_key(&caller) {
            callers.retain(|_, attempts| now.saturating_sub(attempts.since) < WINDOW);
            let oldest = callers.iter().min_by_key(|(_, attempts)| attempts.since).map(|(caller, _)| *caller);
            if let Some(oldest) = oldest.filter(|_| callers.len() >= CALLERS) {
                callers.remove(&oldest);
            }
        }
        let attempts = callers.entry(caller).or_insert(Attempts { since: now, count: 0 });
        if now.saturating_sub(attempts.since) >= WINDOW {
            *attempts = Attempts { since: now, count: 0 };
        }
        attempts.count = attempts.count.saturating_add(1);
        (attempts.count > ATTEMPTS).then(|| WINDOW.saturating_sub(now.saturating_sub(attempts.since)))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Answers 401 without the token, and 429 to those who keep trying.
pub(crate) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Result<Response> {
    let (parts, body) = request.into_parts();
    // A token in an address ends up in logs and histories: nobody should get used to it.
    let is_in_query = parts.uri.query().is_some_and(|query| {
        query
            .split('&')
            .any(|pair| matches!(pair.split('=').next(), Some("token" | "access_token" | "api_key")))
    });
    if access.is_granted(&parts) && !is_in_query {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let caller = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| network(peer.0.ip()));
    // Behind a transport that does not tell, all callers count as one.
    if let Some(wait) = access.refuse(caller.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))) {
        return Err(Error::new(Kind::RateLimited, "access.check", "too many requests without a valid token")
            .fault(paas_core::Fault::User)
            .retry(Retry::Transient { after: Some(wait) })
            .into());
    }
    Err(Error::new(Kind::Unauthenticated, "access.check", "a valid token is needed")
        .hint("send the header `Authorization: Bearer TOKEN`; the server prints the token when it starts")
        .into())
}

/// One caller has a whole IPv6 /64 to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use paas_core::TestClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_in_number_and_memory_and_forgiven() {
        let clock = Arc::new(TestClock::new());
        let access = Access::bearer("right", clock.clone());
        let caller: IpAddr = [192, 0, 2, 1].into();
        for _ in 0..ATTEMPTS {
            assert_eq!(access.refuse(caller), None);
        }
        assert_eq!(access.refuse(caller), Some(WINDOW));
        for number in 0..2 * CALLERS as u32 {
            access.refuse(IpAddr::V4(number.into()));
        }
        assert!(access.0.callers.lock().unwrap().len() <= CALLERS);
        clock.sleep(WINDOW).await;
        assert_eq!(access.refuse(caller), None);
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_caller() {
        let addresses = ["2001:db8::1", "2001:db8::2"].map(|text| network(text.parse().unwrap()));
        assert_eq!(addresses[0], addresses[1]);
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
