//! What is answered to which request.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::exporter::Exporter;

/// The answer to a request; of its body nothing is read.
pub(super) async fn respond<B>(exporter: &Exporter, request: &Request<B>) -> Response<Full<Bytes>> {
    let Some(endpoint) = Endpoint::at(request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND, "not found; see / for what there is\n");
    };
    // RFC 9110 §9.3.2: HEAD is GET without the content, which hyper leaves out.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        // RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match endpoint {
        Endpoint::Index => plain(StatusCode::OK, INDEX),
        Endpoint::Metrics => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exporter.render().await),
        Endpoint::Health => plain(StatusCode::OK, "ok\n"),
        Endpoint::Ready => match exporter.readiness().check() {
            Ok(()) => plain(StatusCode::OK, "ready\n"),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
    }
}

enum Endpoint {
    Index,
    Metrics,
    Health,
    Ready,
}

impl Endpoint {
    fn at(path: &str) -> Option<Endpoint> {
        match path {
            "/" => Some(Endpoint::Index),
            "/metrics" => Some(Endpoint::Metrics),
            "/healthz" => Some(Endpoint::Health),
            "/readyz" => Some(Endpoint::Ready),
            _ => None,
        }
    }
}

const INDEX: &str = "\
Portcullis admin server

/metrics  Prometheus text format 0.0.4
/healthz  200 while the process answers
/readyz   200 while new connections are welcome, else 503 and the reason
";

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", body)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
