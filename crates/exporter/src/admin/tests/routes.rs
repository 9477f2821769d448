//! What is served, and what is said where it cannot be had.

use super::*;

#[tokio::test]
async fn metrics_are_served_as_text_0_0_4() {
    let server = Server::start().await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status(), "200");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
    assert!(answer.head.contains(&format!("content-length: {}", answer.body.len())), "{}", answer.head);
    assert!(answer.body.contains("portcullis_syns_received_total{listener=\"web\"} 0\n"), "{}", answer.body);
    assert_eq!(server.get("/metrics?collect=all").await.status(), "200", "a query changes nothing");
    server.stop().await;
}

#[tokio::test]
async fn index_and_health_are_served_and_nothing_else() {
    let server = Server::start().await;
    let index = server.get("/").await;
    assert_eq!(index.status(), "200");
    let paths = ["/metrics", "/healthz", "/readyz", "/version", "/config", "/api/v1/status", "/api/v1/events"];
    assert!(paths.iter().all(|path| index.body.contains(path)), "{}", index.body);
    let health = server.get("/healthz").await;
    assert_eq!((health.status(), health.body.as_str()), ("200", "ok\n"));
    for path in ["/anything", "/metrics/", "/health", "/healthz/x", "//", "/api/v1", "/api/v1/", "/api/v2/status"] {
        assert_eq!(server.get(path).await.status(), "404", "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_is_503_with_the_reason_until_ready_and_while_draining() {
    let server = Server::start().await;
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("503", "not ready: the listeners are not up\n"));
    server.readiness.set_ready(true);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("200", "ready\n"));
    server.readiness.set_draining(true);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("503", "not ready: draining\n"));
    assert_eq!(server.get("/healthz").await.status(), "200", "alive all the time");
    server.stop().await;
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let server = Server::start().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = server.ask(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(answer.status(), "405", "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn head_has_the_length_and_no_content() {
    let server = Server::start().await;
    let answer = server.ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer.status(), "200");
    assert!(answer.head.contains("content-length: 3"), "{}", answer.head);
    assert_eq!(answer.body, "");
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_and_a_client_that_closes_its_side_are_answered() {
    let server = Server::start().await;
    assert_eq!(server.ask("GET /healthz HTTP/1.0\r\n\r\n").await.status(), "200");
    let mut client = server.connect().await;
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(Answer::read(&mut client).await.status(), "200");
    server.stop().await;
}

#[tokio::test]
async fn browsers_get_the_page_and_all_others_the_text() {
    let server = Server::start().await;
    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for accept in [FIREFOX, "TEXT/HTML", "image/png, text/html;q=0.1"] {
        let page = server.browse("/", accept).await;
        assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{accept}: {}", page.head);
        assert!(page.head.contains("vary: accept"), "{}", page.head);
        assert!(page.body.starts_with("<!doctype html>"), "{}", page.body);
        let policy = page.head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src ") && !policy.contains("http"), "{policy}");
        assert!(policy.contains("connect-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    for accept in ["*/*", "text/plain", "text/html;q=0", "application/json, text/html; q=0.0"] {
        let text = server.browse("/", accept).await;
        assert!(text.head.contains("content-type: text/plain"), "{accept}: {}", text.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_guessing_keeping_and_sharing() {
    let server = Server::start().await;
    let paths = ["/", "/metrics", "/healthz", "/readyz", "/version", "/config", "/api/v1/status", "/none"];
    for path in paths {
        let answer = server.browse(path, "text/html").await;
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'",
        ] {
            assert!(answer.head.contains(header), "{path}: no {header} in {}", answer.head);
        }
        assert!(!answer.head.contains("access-control-"), "{path}: {}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn version_says_which_program_it_is() {
    let server = Server::start().await;
    let answer = server.get("/version").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let version: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&version["version"], &version["commit"]), (&"1.2.3".into(), &"unknown".into()));
    assert_eq!(version["datapaths"], serde_json::json!(["raw"]));
    assert_eq!(version["pid"], std::process::id());
    server.stop().await;
}

#[tokio::test]
async fn config_is_the_one_in_force() {
    let server = Server::start().await;
    let answer = server.get("/config").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("200", "datapath = \"raw\"\n"));
    assert!(answer.head.contains("content-type: application/toml"), "{}", answer.head);
    server.stop().await;
}

#[tokio::test]
async fn status_is_one_object_on_one_line() {
    let server = Server::start().await;
    server.source.set(|values| values.half_open = 17);
    let answer = server.get("/api/v1/status").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(answer.body.matches('\n').count(), 1);
    let status: Status = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((status.listeners[0].name.as_str(), status.listeners[0].half_open), ("web", 17));
    assert_eq!(status.pid, std::process::id());
    server.stop().await;
}

#[test]
fn a_process_that_can_have_no_more_threads_answers_and_streams() {
    // No address space has room for such a stack, so that this runtime cannot start a thread, whatever it needs it for.
    let threadless = tokio::runtime::Builder::new_current_thread().enable_all().thread_stack_size(1 << 50).build();
    threadless.unwrap().block_on(async {
        let refused = tokio::spawn(async { tokio::task::spawn_blocking(|| ()).await }).await;
        assert!(refused.is_err_and(|error| error.is_panic()), "there are threads after all");
        let server = Server::start().await;
        let mut stream = server.watch().await;
        for path in ["/metrics", "/api/v1/status", "/healthz"] {
            assert_eq!(server.get(path).await.status(), "200", "{path}");
        }
        assert!(stream.next().await.is_some(), "another event");
        server.stop().await;
    });
}

#[tokio::test]
async fn what_panics_is_500_and_the_server_goes_on() {
    let server = Server::start().await;
    server.source.set(|values| values.broken = true);
    for path in ["/metrics", "/api/v1/status"] {
        assert_eq!(server.get(path).await.status(), "500", "{path}");
    }
    assert_eq!(server.get("/healthz").await.status(), "200");
    let mut stream = Stream::of(server.connect().await).await;
    server.source.set(|values| values.broken = false);
    for path in ["/metrics", "/api/v1/status"] {
        assert_eq!(server.get(path).await.status(), "200", "{path}");
    }
    assert!(stream.next().await.is_some(), "an event, though perhaps not the first that was due");
    server.stop().await;
}
