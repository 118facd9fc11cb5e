//! What the proxy itself answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ResponseBody;

/// An answer of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The request breaks the rules of HTTP; its connection is closed.
    BadRequest,
    /// `CONNECT`: this is not a forward proxy.
    MethodNotAllowed,
    /// The client stopped sending.
    RequestTimeout,
    /// No app has this host.
    UnknownHost,
    /// The instance can't be reached, or broke off.
    BadGateway,
    /// The app is stopped.
    Stopped,
    /// The instance does not answer.
    GatewayTimeout,
}

macro_rules! page {
    ($title:literal, $text:literal) => {
        Bytes::from_static(
            concat!(
                "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n",
                "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
                $title,
                "</title>\n<style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto;",
                "padding:0 1.5rem;color-scheme:light dark}</style>\n<h1>",
                $title,
                "</h1>\n<p>",
                $text,
                "</p>\n</html>\n"
            )
            .as_bytes(),
        )
    };
}

impl Page {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn body(self) -> Bytes {
        match self {
            Self::BadRequest => page!("Bad request", "This request does not follow the rules of HTTP."),
            Self::MethodNotAllowed => page!("Method not allowed", "This server does not open tunnels."),
            Self::RequestTimeout => page!("Request timeout", "The request took too long to arrive."),
            Self::UnknownHost => page!(
                "No app here",
                "No app answers at this address. Check the name; if the app is new, its first deployment may \
                 not have finished."
            ),
            Self::BadGateway => page!(
                "The app did not answer",
                "It may be restarting: try again in a moment. If this stays, its logs say more."
            ),
            Self::Stopped => {
                page!("The app is stopped", "Its owner has stopped it. It answers again once it is started.")
            }
            Self::GatewayTimeout => page!(
                "The app took too long",
                "It accepted the request but did not answer in time. Its logs may say why."
            ),
        }
    }

    /// The page as an answer.
    pub(crate) fn response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::page(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::BadRequest | Self::RequestTimeout) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
