//! What is answered to which request.

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::live::{Events, Live};
use super::page;
use crate::build::Build;
use crate::clerk::Unanswered;
use crate::exporter::Exporter;
use crate::reporter::Reporter;

/// What is sent: a text, or a stream.
pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

/// What answers are made of.
pub(super) struct Site {
    pub(super) exporter: Exporter,
    pub(super) live: Live,
}

/// The answer to a request; of its body nothing is read. A client that must hurry gets no stream.
pub(super) async fn respond<B>(site: &Site, request: &Request<B>, may_stream: bool) -> Answer {
    let mut answer = route(site, request, may_stream).await;
    let headers = answer.headers_mut();
    for (name, value) in [
        // What was true a second ago is history; and a proxy need not know it.
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // There are no CORS headers either: no page from elsewhere can read an answer, be it as an image or a script.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING_AT_ALL));
    answer
}

/// The policy of what is no page.
const NOTHING_AT_ALL: &str = "default-src 'none'; frame-ancestors 'none'";

async fn route<B>(site: &Site, request: &Request<B>, may_stream: bool) -> Answer {
    let Some(endpoint) = Endpoint::at(request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND, "not found; see / for what there is\n");
    };
    // RFC 9110 §9.3.2: HEAD is GET without the content, which hyper leaves out.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        // RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let reporter = site.exporter.reporter();
    match endpoint {
        Endpoint::Index => index(wants_html(request)),
        Endpoint::Metrics => told(site.exporter.render().await, "text/plain; version=0.0.4; charset=utf-8"),
        Endpoint::Health => plain(StatusCode::OK, "ok\n"),
        Endpoint::Ready => match reporter.readiness.check() {
            Ok(()) => plain(StatusCode::OK, "ready\n"),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        Endpoint::Version => text(StatusCode::OK, JSON, version(reporter)),
        Endpoint::Config => match reporter.surroundings.config() {
            Some(config) => text(StatusCode::OK, "application/toml; charset=utf-8", config),
            None => plain(StatusCode::NOT_FOUND, "there is no configuration\n"),
        },
        Endpoint::Status => told(site.exporter.status_json().await.map(|json| json + "\n"), JSON),
        Endpoint::Events if *request.method() == Method::HEAD => text(StatusCode::OK, EVENTS, ""),
        Endpoint::Events => match may_stream.then(|| site.live.subscribe()).flatten() {
            Some(events) => with_type(Response::new(Either::Right(events)), EVENTS),
            None => no_place(),
        },
    }
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

enum Endpoint {
    Index,
    Metrics,
    Health,
    Ready,
    Version,
    Config,
    Status,
    Events,
}

impl Endpoint {
    fn at(path: &str) -> Option<Endpoint> {
        match path {
            "/" => Some(Endpoint::Index),
            "/metrics" => Some(Endpoint::Metrics),
            "/healthz" => Some(Endpoint::Health),
            "/readyz" => Some(Endpoint::Ready),
            "/version" => Some(Endpoint::Version),
            "/config" => Some(Endpoint::Config),
            "/api/v1/status" => Some(Endpoint::Status),
            "/api/v1/events" => Some(Endpoint::Events),
            _ => None,
        }
    }
}

const INDEX: &str = "\
Portcullis admin server

/               the live page, for browsers; this text for all others
/metrics        Prometheus text format 0.0.4
/healthz        200 while the process answers
/readyz         200 while the listeners stand and nothing drains, else 503 and why
/version        which program this is, JSON
/config         the configuration in force, TOML
/api/v1/status  everything at this moment, JSON
/api/v1/events  the same once a second, server-sent events
";

/// The page for whoever asks for HTML by name, as browsers do. `*/*`, which curl and Prometheus send, gets the text.
fn index(wants_html: bool) -> Answer {
    let mut answer = if wants_html {
        let mut page = text(StatusCode::OK, "text/html; charset=utf-8", page::HTML);
        // It is made of hashes and words; should it ever not fit into a header, the page may do nothing.
        let policy = HeaderValue::from_str(&page::POLICY).unwrap_or(HeaderValue::from_static(NOTHING_AT_ALL));
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        page
    } else {
        plain(StatusCode::OK, INDEX)
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn wants_html<B>(request: &Request<B>) -> bool {
    let values = request.headers().get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
        // RFC 9110 §12.4.2: "A value of 0 means "not acceptable"."
        let is_refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        is_html && !is_refused
    })
}

fn no_place() -> Answer {
    later("as many streams as there may be; /api/v1/status is open\n")
}

fn later(why: &str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    answer
}

/// What `/version` says.
#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
    commit: &'a str,
    target: &'a str,
    rustc: &'a str,
    /// Of the listeners: one, as a rule.
    datapaths: Vec<&'static str>,
    pid: u32,
}

fn version(reporter: &Reporter) -> String {
    let Build { version, commit, target, rustc } = &reporter.build;
    let mut datapaths: Vec<_> = reporter.sources.iter().map(|source| source.tier()).collect();
    datapaths.sort_unstable();
    datapaths.dedup();
    let pid = std::process::id();
    let version = Version { version, commit, target, rustc, datapaths, pid };
    serde_json::to_string(&version).expect("texts and a number are JSON") + "\n"
}

/// What was to be had, or why it was not.
fn told(outcome: Result<String, Unanswered>, content_type: &'static str) -> Answer {
    match outcome {
        Ok(body) => text(StatusCode::OK, content_type, body),
        Err(reason @ Unanswered::Busy) => later(&format!("{reason}\n")),
        Err(reason @ Unanswered::Failed) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")),
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    text(status, "text/plain; charset=utf-8", body)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    with_type(answer, content_type)
}

fn with_type(mut answer: Answer, content_type: &'static str) -> Answer {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
