//! One listener's connections, from accept to the end.

use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use connection::proxy_protocol::{Client, read_header};
use connection::upstream::ServerView;
use connection::{DISPLACED_MAX, rarely};
use portcullis::{AtLimit, CloseReason, Connection, ConnectionHandle, Listener, PrefixList};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::descriptors::{self, Allowed, Descriptors};
use super::stop::Stop;
use super::upstream::Upstream;
use crate::config::{Backend, Choice, ListenerConfig, Service, Timeouts};
use crate::failure::Failure;
use crate::registry::{Door, Seat};
use crate::service;

/// How long a peer may go on sending once its service is done with it. Closing at once would make the kernel send RST
/// for the bytes that are on their way, which can destroy the end of our answer (RFC 1122 §4.2.2.13).
const LINGER: Duration = Duration::from_secs(2);

/// One listener's side of the program.
pub struct Front {
    name: String,
    served: Arc<Served>,
    stop: Arc<Stop>,
    door: Door,
}

/// What is done with the connections of a listener, as the configuration in force has it.
pub struct Served(RwLock<Arc<Handler>>);

/// What is done with a connection.
struct Handler {
    backend: Answerer,
    timeouts: Timeouts,
    /// Peers whose connections begin with a header of the PROXY protocol.
    proxies: PrefixList,
}

enum Answerer {
    Service(Service),
    Upstream(Box<Upstream>),
}

impl Answerer {
    /// The name of a built-in service.
    fn service(&self) -> Option<&'static str> {
        match self {
            Answerer::Service(service) => Some(service.word()),
            Answerer::Upstream(_) => None,
        }
    }
}

impl Served {
    /// As this configuration has it.
    ///
    /// # Errors
    /// Upstreams that cannot be.
    pub fn new(config: &ListenerConfig) -> Result<Served, Failure> {
        let backend = match &config.backend {
            Backend::Service(service) => Answerer::Service(*service),
            Backend::Upstreams(servers) => Answerer::Upstream(Box::new(Upstream::new(config, servers.clone())?)),
        };
        let proxies = config.proxy_protocol.accept_from.clone();
        Ok(Served(RwLock::new(Arc::new(Handler { backend, timeouts: config.timeouts, proxies }))))
    }

    /// For the connections that come from now on; those there are go on as they began.
    pub fn replace(&self, new: Served) {
        let new = new.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// The servers behind it, as they are now; none behind a service.
    pub fn upstreams(&self) -> Vec<ServerView> {
        match &self.handler().backend {
            Answerer::Upstream(upstream) => upstream.view(),
            Answerer::Service(_) => Vec::new(),
        }
    }

    fn handler(&self) -> Arc<Handler> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Front {
    /// For the listener of this name.
    pub fn new(name: &str, served: Arc<Served>, stop: Stop, door: Door) -> Front {
        Front { name: name.to_owned(), served, stop: Arc::new(stop), door }
    }

    /// Accepts and serves until the listener has drained and every connection has ended, or the last step of the stop
    /// was taken; then gives the ports back.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn run(self, mut listener: Listener) -> Result<(), Failure> {
        let tasks = TaskTracker::new();
        let accepted = self.accept_all(&mut listener, &tasks).await;
        if let Err(failure) = &accepted {
            // At once, not when the last connection has ended.
            tracing::error!("{failure}: ending");
            self.stop.failed.cancel();
        }
        tasks.close();
        tasks.wait().await;
        listener.close().await;
        accepted
    }

    async fn accept_all(&self, listener: &mut Listener, tasks: &TaskTracker) -> Result<(), Failure> {
        loop {
            let accepted = tokio::select! {
                biased; // The place of a connection that ended at the deadline is nobody's.
                () = self.stop.deadline.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let connection = match accepted {
                None if self.stop.drain.is_cancelled() => return Ok(()),
                None => {
                    return Err(Failure::Runtime(format!("listener \"{}\": its packet workers have ended", self.name)));
                }
                Some(Ok(connection)) => connection,
                Some(Err(error)) => return Err(Failure::runtime(format!("listener \"{}\"", self.name), error)),
            };
            let (handler, stop) = (self.served.handler(), self.stop.clone());
            let seat = self.door.open(&connection, handler.backend.service());
            tasks.spawn(async move {
                handler.handle(connection, &seat, &stop).await;
                drop(seat);
            });
        }
    }
}

/// How many connections of one of `listeners` listeners are served at once: as many as configured, or as the descriptors allow, which is
/// then said.
///
/// # Errors
/// When there is no descriptor for a single one.
pub fn places(config: &ListenerConfig, listeners: usize, descriptors: &Descriptors) -> Result<usize, Failure> {
    let limit = descriptors.limit();
    let accept_queue = descriptors::accept_queue(config.accept_queue, limit, listeners);
    let relayed = matches!(config.backend, Backend::Upstreams(_));
    let (listener, wanted) = (&config.name, config.connections_max);
    // Who is displaced holds its descriptors until its task has noticed.
    let displaced = match config.limits.at_limit {
        AtLimit::Displace => DISPLACED_MAX * if relayed { 2 } else { 1 },
        AtLimit::Queue | AtLimit::Reset | AtLimit::Silent => 0,
    };
    match descriptors.connections(wanted, accept_queue + displaced, relayed, listeners) {
        Allowed::All => Ok(wanted),
        Allowed::Fewer(max) => {
            tracing::info!(
                listener,
                "serving at most {max} connections at once, not {wanted}, with {accept_queue} more in the accept queue: \
                 the limit of open files is {limit}"
            );
            Ok(max)
        }
        Allowed::HardlyAny(0) => Err(Failure::Runtime(format!(
            "listener \"{listener}\": the limit of open files, {limit}, leaves none for connections: raise it \
             (ulimit -n, LimitNOFILE= of systemd)"
        ))),
        Allowed::HardlyAny(max) => {
            tracing::warn!(
                listener,
                "serving only {max} connections at once, not {wanted}: the limit of open files is {limit}; raise it \
                 (ulimit -n, LimitNOFILE= of systemd)"
            );
            Ok(max)
        }
    }
}

impl Handler {
    async fn handle(&self, mut connection: Connection, seat: &Seat, stop: &Stop) {
        let through_proxy = self.proxies.contains(connection.peer_addr().ip());
        if let Err(error) = connection.set_timeouts(&self.limits(through_proxy)) {
            tracing::debug!(%error, "a connection ended before its limits could be set");
        }
        let mut client = Client { peer: connection.peer_addr(), local: connection.local_addr() };
        if through_proxy {
            // Boxed, as all that not every connection comes to: a task has room for the largest of what it may do.
            match Box::pin(self.announced(&mut connection, client, stop)).await {
                Some(announced) => client = announced,
                None => return connection.abort(),
            }
            seat.set_client(client.peer);
        }
        let handle = connection.handle();
        let mut conversation = pin!(self.converse(connection, &client, seat, stop));
        tokio::select! {
            () = &mut conversation => return,
            () = rarely(idle_at_the_drain(&handle, stop, self.timeouts.drain_idle)) => {}
        }
        // The client learns that there is nothing more to wait for; what it says yet is heard.
        handle.half_close(CloseReason::Drained);
        conversation.await;
    }

    async fn converse(&self, connection: Connection, client: &Client, seat: &Seat, stop: &Stop) {
        match &self.backend {
            Answerer::Upstream(upstream) => upstream.handle(connection, client, seat, stop).await,
            Answerer::Service(service) => Box::pin(self.serve(*service, connection, stop)).await,
        }
    }

    /// The limits of a connection. Those on progress are the relay's own where there is one; then they hold for a proxy's header alone.
    fn limits(&self, through_proxy: bool) -> portcullis::Timeouts {
        let all = self.timeouts.of_client();
        match self.backend {
            Answerer::Upstream(_) if !through_proxy => {
                portcullis::Timeouts { first_byte: None, idle: None, half_close: None, ..all }
            }
            Answerer::Upstream(_) | Answerer::Service(_) => all,
        }
    }

    /// Whom a proxy, whose connection is `seen`, says it speaks for. `None` where it does not say it as it should, or not before the deadline.
    async fn announced(&self, connection: &mut Connection, seen: Client, stop: &Stop) -> Option<Client> {
        let header = tokio::select! {
            header = timeout(self.timeouts.header, read_header(connection)) => header,
            () = stop.deadline.cancelled() => {
                connection.note_close(CloseReason::Drained);
                return None;
            }
        };
        match header {
            Ok(Ok(header)) => Some(header.client.unwrap_or(seen)),
            Ok(Err(error)) => {
                tracing::debug!(peer = %seen.peer, %error, "no header of the PROXY protocol");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// A service's errors are the peer's doing (a reset, a timeout, a request that is none) and counted as such by the
    /// connection: there is nobody to tell.
    async fn serve(&self, service: Service, mut connection: Connection, stop: &Stop) {
        let page = match service {
            Service::Http => service::page(&connection),
            Service::Echo | Service::Discard => String::new(),
        };
        let conversation = async {
            match service {
                Service::Http => service::http(&mut connection, page, self.timeouts.header, &stop.drain).await.is_ok(),
                Service::Echo => service::echo(&mut connection).await.is_ok(),
                Service::Discard => service::discard(&mut connection).await.is_ok(),
            }
        };
        tokio::select! {
            _done = conversation => {}
            () = stop.deadline.cancelled() => {
                connection.note_close(CloseReason::Drained);
                // Cut short: a FIN would let it pass for complete, but gives the peer a chance; at the very end there is none.
                if stop.now.is_cancelled() {
                    return connection.abort();
                }
            }
        }
        finish(connection, stop).await;
    }
}

/// Returns when, during the drain, nothing has passed for so long.
async fn idle_at_the_drain(handle: &ConnectionHandle, stop: &Stop, idle: Option<Duration>) {
    let Some(idle) = idle else { return pending().await };
    stop.drain.cancelled().await;
    // Boxed: few connections live to see a drain.
    Box::pin(idle_for(handle, idle)).await;
}

/// Returns when nothing has passed for so long.
async fn idle_for(handle: &ConnectionHandle, idle: Duration) {
    let passed = || (handle.received_bytes(), handle.sent_bytes());
    let mut before = None;
    while before != Some(passed()) {
        before = Some(passed());
        tokio::time::sleep(idle).await;
    }
}

/// FIN, then reading to the peer's FIN; a peer for which that takes too long gets RST.
async fn finish(connection: Connection, stop: &Stop) {
    let handle = connection.handle();
    let mut close = pin!(connection.close(LINGER));
    tokio::select! {
        biased; // A peer that is done already gets no RST, not even at the very end.
        _closed = &mut close => {}
        () = stop.now.cancelled() => { handle.abort(CloseReason::Drained); }
    }
}
