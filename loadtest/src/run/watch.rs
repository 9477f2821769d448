//! What is seen of the target during a round.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use testnet::Counters;

use crate::clients;
use crate::lab::Lab;
use crate::measure::{ClientTraffic, CpuClock, CpuTime, LinkClock, LinkCounts, RequestSocks};
use crate::results::{Sample, TargetResults};
use crate::target::{Alternative, Target};

/// A scrape costs the target a millisecond: one in a second does not show.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// With fewer half-open connections, the slabs' reserves would be counted as theirs.
const HALF_OPEN_TO_TELL: u64 = 1000;
/// With fewer half-open connections of Portcullis, whatever else it needs memory for would.
pub const HALF_OPEN_TO_TELL_GUARDED: u64 = 100_000;

/// Looks at a target.
#[derive(Debug)]
pub struct Watch<'a> {
    lab: &'a Lab,
    target: &'a Target,
    link: LinkClock,
    outside: ClientTraffic,
    cpu: CpuClock,
    start: Instant,
    at_start: Reading,
    at_end: Option<Reading>,
    last: (Instant, Reading, u64),
    scraped: (Instant, u64),
    resident_peak: u64,
    half_open_peak: u64,
    slab_peak: RequestSocks,
    flooded: Option<(Instant, Instant)>,
    cpu_flooded: CpuTime,
    cpu_before_flood: CpuTime,
    counted_before: Option<u64>,
    /// Resident memory of the same target without a queue of half-open connections.
    resident_without_queue: Option<u64>,
    series: Vec<Sample>,
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    link: LinkCounts,
    clients: LinkCounts,
    cpu: CpuTime,
    socks: RequestSocks,
    resident: u64,
}

impl<'a> Watch<'a> {
    /// Begins now.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn new(lab: &'a Lab, target: &'a Target) -> io::Result<Watch<'a>> {
        let link = LinkClock::new(&lab.far)?;
        let outside = ClientTraffic::new(&lab.outside)?;
        let cpu = CpuClock::new(&lab.cores.target);
        let at_start = read(&link, &outside, &cpu, target)?;
        let now = Instant::now();
        let mut watch = Watch {
            lab,
            target,
            link,
            outside,
            cpu,
            start: now,
            at_start,
            at_end: None,
            last: (now, at_start, 0),
            scraped: (now, 0),
            resident_peak: at_start.resident,
            half_open_peak: 0,
            slab_peak: RequestSocks::default(),
            flooded: None,
            cpu_flooded: CpuTime::default(),
            cpu_before_flood: at_start.cpu,
            counted_before: None,
            resident_without_queue: None,
            series: Vec::new(),
        };
        watch.counted_before = watch.counted();
        Ok(watch)
    }

    /// What the same target needs without a queue, in bytes: what it needs more is the queue's.
    pub fn compare_with_resident(&mut self, without_queue: Option<u64>) {
        self.resident_without_queue = without_queue;
    }

    /// A flood is about to begin.
    pub fn flood_begins(&mut self) {
        let now = Instant::now();
        self.flooded.get_or_insert((now, now));
        self.cpu_before_flood = self.cpu.now().unwrap_or_default();
    }

    /// It has sent its last frame.
    pub fn flood_ended(&mut self) {
        if let Some((_, end)) = &mut self.flooded {
            *end = Instant::now();
        }
        self.cpu_flooded += self.cpu.now().unwrap_or_default().since(&self.cpu_before_flood);
    }

    /// Everything has arrived: what comes from now on is not the flood's.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn flood_over(&mut self) -> io::Result<()> {
        self.at_end = Some(self.read()?);
        Ok(())
    }

    /// Looks, and keeps what was seen.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn look(&mut self, sent: u64, clients: clients::Progress) -> io::Result<Sample> {
        let (now, reading) = (Instant::now(), self.read()?);
        let (then, before, sent_before) = self.last;
        let seconds = (now - then).as_secs_f64().max(1e-3);
        let flood = reading.link.since(&before.link).without(&reading.clients.since(&before.clients));
        self.resident_peak = self.resident_peak.max(reading.resident);
        let socks = reading.socks.since(&self.at_start.socks);
        if socks.bytes > self.slab_peak.bytes {
            self.slab_peak = socks;
        }
        let half_open = self.half_open(now, socks.count);
        self.half_open_peak = self.half_open_peak.max(half_open);
        let sample = Sample {
            at_s: (now - self.start).as_secs_f64(),
            sent_pps: (sent - sent_before) as f64 / seconds,
            received_pps: flood.rx_frames as f64 / seconds,
            replies_pps: flood.tx_frames as f64 / seconds,
            attempts: clients.came,
            ok: clients.ok,
            failed: clients.failed,
            connect_max_us: clients.slowest_us as f64,
            half_open,
            cookies_only: self.target.switches().cookies_only(),
            rss_bytes: reading.resident,
            busy: reading.cpu.since(&before.cpu).load(),
        };
        self.last = (now, reading, sent);
        self.series.push(sample);
        Ok(sample)
    }

    /// Waits until a target that answers with cookies alone has calmed down.
    pub fn wait_for_calm(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.target.switches().cookies_only() == Some(true) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The flood's part of the traffic, and what the target counted of it. `connected`: the flood is made of connections, which the
    /// outside's kernel cannot tell from the clients'. `by_program`: frames of the flood that no socket sent.
    pub fn received(&self, connected: bool, attempts: u64, by_program: u64) -> (LinkCounts, Option<u64>) {
        let end = self.at_end.unwrap_or(self.last.1);
        let mut all = end.link.since(&self.at_start.link);
        all.rx_bytes += self.lab.bytes_left_out(self.target.alternative(), all.rx_frames, by_program);
        let clients = if connected { LinkCounts::default() } else { end.clients.since(&self.at_start.clients) };
        let counted = self.counted().zip(self.counted_before).map(|(now, then)| (now - then).saturating_sub(attempts));
        (all.without(&clients), counted)
    }

    /// What it cost.
    pub fn target_results(&self, flood_frames: u64) -> TargetResults {
        let cpu = match self.flooded {
            Some(_) => self.cpu_flooded,
            None => self.last.1.cpu.since(&self.at_start.cpu),
        };
        let [switch_in, switch_out] = self.switches();
        let tells = RequestSocks::now().is_some();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        TargetResults {
            cpu_user_s: cpu.user,
            cpu_system_s: cpu.system,
            cpu_softirq_s: cpu.softirq,
            cpu_ns_per_frame: (flood_frames > 0).then(|| cpu.busy() * 1e9 / flood_frames as f64),
            rss_before_bytes: self.at_start.resident,
            rss_peak_bytes: self.resident_peak,
            slab_peak_bytes: tells.then_some(self.slab_peak.bytes),
            half_open_peak: (tells || self.target.alternative().is_guarded()).then_some(self.half_open_peak),
            bytes_per_half_open: self.bytes_per_half_open(),
            switch_in_ms: switch_in.map(millis),
            switch_out_ms: switch_out.map(millis),
        }
    }

    /// All that was seen.
    pub fn into_series(self) -> Vec<Sample> {
        self.series
    }

    fn read(&self) -> io::Result<Reading> {
        read(&self.link, &self.outside, &self.cpu, self.target)
    }

    fn half_open(&mut self, now: Instant, kernels: u64) -> u64 {
        if !self.target.alternative().is_guarded() {
            return kernels;
        }
        if now - self.scraped.0 >= SCRAPE_EVERY {
            let found = self.target.metrics().and_then(|metrics| metrics.get("portcullis_half_open", &[]));
            self.scraped = (now, found.map_or(self.scraped.1, |count| count as u64));
        }
        self.scraped.1
    }

    /// SYNs, as whoever answers them counts them.
    fn counted(&self) -> Option<u64> {
        match self.target.alternative() {
            alternative if alternative.is_guarded() => {
                let count = self.target.metrics()?.get("portcullis_syns_received_total", &[])?;
                Some(count as u64)
            }
            // Each gets a cookie.
            Alternative::KernelCookies(2) => {
                u64::try_from(Counters::of(&self.lab.server).get("TcpExtSyncookiesSent")).ok()
            }
            _ => None,
        }
    }

    /// The kernel takes the memory of each when it comes; Portcullis has that of its queue from the start.
    fn bytes_per_half_open(&self) -> Option<f64> {
        if !self.target.alternative().is_guarded() {
            let tells = self.half_open_peak >= HALF_OPEN_TO_TELL;
            return tells.then(|| self.slab_peak.bytes as f64 / self.slab_peak.count.max(1) as f64);
        }
        let tells = self.half_open_peak >= HALF_OPEN_TO_TELL_GUARDED;
        let of_queue = self.resident_peak.saturating_sub(self.resident_without_queue.filter(|_| tells)?);
        Some(of_queue as f64 / self.half_open_peak as f64)
    }

    fn switches(&self) -> [Option<Duration>; 2] {
        let Some((begin, end)) = self.flooded else { return [None; 2] };
        let switches = self.target.switches();
        let since = |moment, to_cookies| Some(switches.first_since(moment, to_cookies)? - moment);
        [since(begin, true), since(end, false)]
    }
}

fn read(link: &LinkClock, outside: &ClientTraffic, cpu: &CpuClock, target: &Target) -> io::Result<Reading> {
    Ok(Reading {
        link: link.now()?,
        clients: outside.now()?,
        cpu: cpu.now()?,
        socks: RequestSocks::now().unwrap_or_default(),
        resident: target.resident_bytes(),
    })
}
