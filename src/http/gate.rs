//! What stands before the MCP server: each request is let in or turned away here.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
    },
    request,
};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};

use super::{bodies::Bodies, guests::Guest, sessions::Sessions};
use crate::{
    caller::Caller,
    onion::parse_hostname,
    principals::{keys::Keys, token::Token},
};

/// The path of the one endpoint.
pub(crate) const PATH: &str = "/mcp";
/// The header in which clients of the revisions with sessions name theirs.
const SESSION: &str = "mcp-session-id";

/// What a response carries.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Who is let in.
#[derive(Debug)]
pub(crate) enum Door {
    /// Who shows a token that is good now.
    Tokens(Arc<Keys>),
    /// Everybody, as one caller: for the conformance suite, which shows no tokens.
    #[cfg(feature = "conformance")]
    Open(Arc<Caller>),
}

/// The gate and the server behind it.
pub(crate) struct Gate<H> {
    door: Door,
    service: StreamableHttpService<H, LocalSessionManager>,
    sessions: Arc<Sessions>,
    bodies: Bodies,
    /// Whether names of onion services may stand in `Host`.
    onions: bool,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// No token, one that is no token, or none that is good now.
    Unauthorized,
    /// More than one host or origin.
    Host,
    /// Another path.
    NotFound,
    /// A session that is not there, or not this caller's.
    NoSession,
    /// The body is longer than it may be.
    TooLarge,
    /// The body did not come in time.
    TimedOut,
    /// The body ended too early or is no HTTP.
    Broken,
    /// As many are connected as can be.
    Full,
}

impl<H: ServerHandler> Gate<H> {
    /// A gate before servers that are made so, one for each session or request of a caller.
    pub(crate) fn new(
        door: Door,
        server: impl Fn(Arc<Caller>) -> H + Send + Sync + 'static,
        sessions: Arc<Sessions>,
        config: StreamableHttpServerConfig,
    ) -> Self {
        let nobody = || io::Error::other("a request of nobody");
        let server = move || Caller::current().map(&server).ok_or_else(nobody);
        let service = StreamableHttpService::new(server, sessions.manager(), config);
        Self { door, service, sessions, bodies: Bodies::new(), onions: false }
    }

    /// The same for a socket to which tor may bring clients.
    pub(crate) fn with_onions(self) -> Self {
        Self { onions: true, ..self }
    }

    /// Answers a request of this guest.
    pub(crate) async fn answer(&self, request: Request<Incoming>, guest: &Guest) -> Response<Body> {
        match self.pass(request, guest).await {
            Ok(response) => response,
            Err(turned) => turned.response(),
        }
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        guest: &Guest,
    ) -> Result<Response<Body>, Turned> {
        let (mut parts, body) = request.into_parts();
        if parts.uri.path() != PATH {
            return Err(Turned::NotFound);
        }
        if !is_plain(&parts) {
            return Err(Turned::Host);
        }
        let caller = self.caller(&parts.headers).ok_or(Turned::Unauthorized)?;
        if !guest.make_known() {
            return Err(Turned::Full);
        }
        if let Some(id) = parts.headers.get(SESSION) {
            let id = id.to_str().map_err(|_| Turned::NoSession)?;
            if !self.sessions.is_own(id, &caller) {
                return Err(Turned::NoSession);
            }
        }
        // What serves the request needs to know who, and never by which token.
        parts.headers.remove(AUTHORIZATION);
        if self.onions && names_onion(&parts.headers) {
            parts.headers.insert(HOST, HeaderValue::from_static("localhost"));
        }
        let (body, memory) = self.bodies.read(&parts.headers, body).await?;
        let request = Request::from_parts(parts, Full::new(body));
        let response = tokio::select! {
            biased;
            () = caller.revoked().cancelled() => return Err(Turned::Unauthorized),
            response = caller.scope(self.service.handle(request)) => response,
        };
        drop(memory);
        if let Some(id) = response.headers().get(SESSION).and_then(|id| id.to_str().ok())
            && !self.sessions.is_own(id, &caller)
        {
            self.sessions.opened(id, &caller).await;
        }
        Ok(end_when_revoked(response, &caller))
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Arc<Caller>> {
        match &self.door {
            Door::Tokens(keys) => keys.caller(&bearer(headers)?),
            #[cfg(feature = "conformance")]
            Door::Open(caller) => Some(Arc::clone(caller)),
        }
    }
}

/// The token of a request that carries exactly one (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<Token> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::parse(token.trim_start()).ok())?
}

/// Whether what is looked at to know a page in a browser stands there once: the host, also where the
/// target of the request names it again, and the origin.
fn is_plain(parts: &request::Parts) -> bool {
    let twice = |name| parts.headers.get_all(name).iter().nth(1).is_some();
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let again = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    !twice(HOST) && !twice(ORIGIN) && again.is_none_or(|again| host == Some(again))
}

/// Whether the host is an onion service. Its name is its key, which no page in a browser can point
/// elsewhere, so it is as good as localhost where only tor and this qube's users come from.
fn names_onion(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.strip_suffix(":80").unwrap_or(host));
    host.is_some_and(|host| parse_hostname(host).is_some())
}

/// A stream of events ends when its caller's token is taken back.
fn end_when_revoked(response: Response<Body>, caller: &Caller) -> Response<Body> {
    let revoked = caller.revoked().clone().cancelled_owned();
    response.map(|body| {
        BodyExt::boxed(StreamBody::new(BodyStream::new(body).take_until(Box::pin(revoked))))
    })
}

impl Turned {
    fn response(self) -> Response<Body> {
        let (status, text) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "a good token is needed\n"),
            Self::Host => (StatusCode::BAD_REQUEST, "one Host and one Origin at most\n"),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is only /mcp\n"),
            Self::NoSession => (StatusCode::NOT_FOUND, "there is no such session\n"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n"),
            Self::TimedOut => (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
            Self::Broken => (StatusCode::BAD_REQUEST, "the body ended too early\n"),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "too many are connected\n"),
        };
        let mut response = Response::new(BodyExt::boxed(Full::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Full => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Host | Self::NotFound | Self::TooLarge | Self::TimedOut | Self::Broken => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NoSession => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_host_and_an_origin_stand_there_once() {
        let good = "http://localhost";
        for (uri, headers, plain) in [
            ("/mcp", vec![(HOST, "localhost"), (ORIGIN, good)], true),
            ("http://localhost/mcp", vec![(HOST, "localhost")], true),
            ("http://evil.example/mcp", vec![(HOST, "localhost")], false),
            ("/mcp", vec![(HOST, "localhost"), (HOST, "evil.example")], false),
            ("/mcp", vec![(HOST, "localhost"), (ORIGIN, good), (ORIGIN, "http://evil")], false),
        ] {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            assert_eq!(is_plain(&request.body(()).unwrap().into_parts().0), plain, "{uri}");
        }
    }

    #[test]
    fn only_a_whole_onion_name_is_one() {
        let onion = "a".repeat(56);
        let named = |host: &str| {
            names_onion(&HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]))
        };
        for good in [format!("{onion}.onion"), format!("{onion}.onion:80")] {
            assert!(named(&good), "{good}");
        }
        for bad in [
            "localhost".to_owned(),
            "a.onion".to_owned(),
            format!("{onion}.onion:81"),
            format!("{onion}.onion.example.org"),
            format!("www.{onion}.onion"),
            format!("{onion}.onion@example.org"),
        ] {
            assert!(!named(&bad), "{bad}");
        }
    }

    #[test]
    fn a_token_comes_in_one_header_and_in_one_form() {
        let token = "x".repeat(40);
        for good in [format!("Bearer {token}"), format!("bearer  {token}")] {
            assert_eq!(bearer(&headers(&[&good])), Token::parse(&token).ok(), "{good}");
        }
        let good = format!("Bearer {token}");
        let (basic, longer) = (format!("Basic {token}"), format!("Bearer {token} x"));
        for bad in [
            &[][..],
            &[token.as_str()],
            &[good.as_str(), good.as_str()],
            &[basic.as_str()],
            &[longer.as_str()],
            &["Bearer short"],
            &["Bearer "],
        ] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }
}
