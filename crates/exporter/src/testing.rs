//! A listener, a table of sockets and a scraper's view, all of which a test can set.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use listener::{Stats, TcpState, TransitionCounts, Watermarks};
use wire::FourTuple;

use crate::census::{Census, SocketTable};
use crate::exporter::Exporter;
use crate::readiness::Readiness;
use crate::reporter::Reporter;
use crate::source::{ConnectionCounts, Histogram, Source};

/// A listener that says what it is told to say.
pub(crate) struct FakeSource {
    name: String,
    tier: &'static str,
    endpoint: SocketAddr,
    values: Mutex<Values>,
    /// How often somebody wanted to know.
    reads: AtomicUsize,
}

/// What the fake listener says.
#[derive(Clone, Default)]
pub(crate) struct Values {
    pub(crate) stats: Stats,
    pub(crate) half_open: u64,
    pub(crate) cookies_mode: bool,
    pub(crate) accept_queue: u64,
    pub(crate) connections: ConnectionCounts,
    pub(crate) transitions: Option<TransitionCounts>,
    /// Whether it panics when it is asked for its addresses.
    pub(crate) broken: bool,
}

pub(crate) const HALF_OPEN_LIMIT: u64 = 4096;
pub(crate) const CONNECTIONS_LIMIT: u64 = 500;
pub(crate) const ACCEPT_QUEUE_LIMIT: u64 = 1024;

impl FakeSource {
    pub(crate) fn new(name: &str, tier: &'static str, endpoint: &str) -> Arc<FakeSource> {
        let connections = ConnectionCounts {
            closed: vec![("peer_fin", 0), ("error", 0)],
            refused: vec![("denied", 0)],
            durations: Histogram { bounds: &[0.1, 1.0], counts: vec![0; 3], sum: 0.0 },
            limit: Some(CONNECTIONS_LIMIT),
            ..Default::default()
        };
        let values = Mutex::new(Values { connections, ..Values::default() });
        Arc::new(FakeSource {
            name: name.to_owned(),
            tier,
            endpoint: endpoint.parse().unwrap(),
            values,
            reads: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Values)) {
        change(&mut self.values());
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap()
    }
}

impl Source for FakeSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn stats(&self) -> Stats {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.values().stats.clone()
    }

    fn half_open(&self) -> u64 {
        self.values().half_open
    }

    fn half_open_limit(&self) -> u64 {
        HALF_OPEN_LIMIT
    }

    fn watermarks(&self) -> Watermarks {
        Watermarks { high: HALF_OPEN_LIMIT / 4 * 3, low: HALF_OPEN_LIMIT / 4 }
    }

    fn transitions(&self) -> Option<TransitionCounts> {
        self.values().transitions
    }

    fn cookies_mode(&self) -> bool {
        self.values().cookies_mode
    }

    fn accept_queue(&self) -> u64 {
        self.values().accept_queue
    }

    fn accept_queue_limit(&self) -> u64 {
        ACCEPT_QUEUE_LIMIT
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        let broken = self.values().broken;
        assert!(!broken, "as the test wants it");
        vec![self.endpoint]
    }

    fn connections(&self) -> ConnectionCounts {
        self.values().connections.clone()
    }

    fn tier(&self) -> &'static str {
        self.tier
    }
}

/// A table of sockets that can break, and counts how often it is walked. Clones are the same table.
#[derive(Clone, Default)]
pub(crate) struct FakeSockets {
    pub(crate) sockets: Arc<Mutex<Vec<(FourTuple, TcpState)>>>,
    pub(crate) error: Arc<Mutex<Option<io::ErrorKind>>>,
    pub(crate) walks: Arc<AtomicUsize>,
}

impl FakeSockets {
    pub(crate) fn add(&self, local: &str, state: TcpState) {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        self.sockets.lock().unwrap().push((FourTuple { local: end(local), peer: end("198.18.0.9:40000") }, state));
    }

    pub(crate) fn walks(&self) -> usize {
        self.walks.load(Ordering::SeqCst)
    }
}

impl SocketTable for FakeSockets {
    fn dump(&mut self, port: u16, each: &mut dyn FnMut(FourTuple, TcpState)) -> io::Result<()> {
        self.walks.fetch_add(1, Ordering::SeqCst);
        for &(tuple, state) in self.sockets.lock().unwrap().iter().filter(|(tuple, _)| tuple.local.port == port) {
            each(tuple, state);
        }
        self.error.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// A directory in which a test puts what is to be found in `/proc`; it goes with this.
pub(crate) struct FakeProc(PathBuf);

impl FakeProc {
    /// `name` is no other test's.
    pub(crate) fn new(name: &str) -> FakeProc {
        let path = std::env::temp_dir().join(format!("exporter-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        FakeProc(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// In place, as a file that is kept open sees it.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An exporter of these listeners and sockets.
pub(crate) fn exporter(sources: &[Arc<FakeSource>], sockets: &FakeSockets) -> (Exporter, Arc<Readiness>) {
    let reporter = reporter(sources, sockets);
    let readiness = Arc::clone(&reporter.readiness);
    (Exporter::of(Arc::new(reporter)).unwrap(), readiness)
}

/// What such an exporter asks.
pub(crate) fn reporter(sources: &[Arc<FakeSource>], sockets: &FakeSockets) -> Reporter {
    let sources: Vec<_> = sources.iter().map(|source| Arc::clone(source) as Arc<dyn Source>).collect();
    let census = Census::of(sources.clone(), Box::new(sockets.clone()));
    Reporter::with_census("1.2.3", sources, Arc::default(), census).unwrap()
}

/// A scrape, as a scraper reads it: series by name and labels.
pub(crate) struct Scrape {
    pub(crate) text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(exporter: &Exporter) -> Scrape {
        let text = exporter.render().await.unwrap();
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let twin = series.insert(key.to_owned(), value.parse().unwrap());
            assert!(twin.is_none(), "{key} is there twice");
        }
        Scrape { text, series }
    }

    /// The value of the series written exactly like `key`.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> f64 {
        *self.series.get(key).unwrap_or_else(|| panic!("no series {key} in:\n{}", self.text))
    }

    /// The values of all series that begin with `prefix`.
    pub(crate) fn sum(&self, prefix: &str) -> f64 {
        let values: Vec<f64> =
            self.series.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no series {prefix}… in:\n{}", self.text);
        values.iter().sum()
    }

    /// Names and labels of all series, in order.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.series.keys().map(String::as_str).collect()
    }
}
