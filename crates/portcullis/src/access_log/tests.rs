use std::sync::{Condvar, Mutex};

use super::*;

/// A disk that can be full, and that can hang.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes that still fit; `None`: any number.
    room: Option<usize>,
    hangs: bool,
    writes: usize,
}

impl Disk {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
    }

    /// Waits until the writer is at it for the n-th time.
    fn reached(&self, writes: usize) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |state| state.writes < writes).unwrap());
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        state.writes += 1;
        self.0.1.notify_all();
        state = self.0.1.wait_while(state, |state| state.hangs).unwrap();
        let len = bytes.len().min(state.room.unwrap_or(usize::MAX));
        if len == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.room = state.room.map(|room| room - len);
        state.bytes.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(id: u64) -> Record {
    Record {
        time: "2026-11-21T13:18:39.998159Z".to_owned(),
        listener: "web".into(),
        id,
        peer: "198.18.0.1:40000".parse().unwrap(),
        client: None,
        local: "[2001:db8::1]:80".parse().unwrap(),
        via: "cookie",
        handshake_seconds: Some(0.025),
        duration_seconds: 1.5,
        received_bytes: 100,
        sent_bytes: 0,
        service: None,
        upstream: Some("198.18.0.2:8000".into()),
        close_reason: Some("client_fin"),
        states: ["ESTABLISHED", "CLOSE-WAIT", "LAST-ACK"].map(str::to_owned).to_vec(),
    }
}

fn log_on(disk: &Disk, queue_lines: usize) -> AccessLog {
    AccessLog::with_sink(queue_lines, Box::new(disk.clone())).unwrap()
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_record_is_one_json_line_with_every_key() {
    let mut line = Vec::new();
    record(7).append_to(&mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"time\":\"2026-11-21T13:18:39.998159Z\",\"listener\":\"web\",\"id\":7,\"peer\":\"198.18.0.1:40000\",\"client\":null,\
         \"local\":\"[2001:db8::1]:80\",\"via\":\"cookie\",\"handshake_seconds\":0.025,\"duration_seconds\":1.5,\
         \"received_bytes\":100,\"sent_bytes\":0,\"service\":null,\"upstream\":\"198.18.0.2:8000\",\
         \"close_reason\":\"client_fin\",\"states\":[\"ESTABLISHED\",\"CLOSE-WAIT\",\"LAST-ACK\"]}\n"
    );
}

#[test]
fn a_timestamp_is_rfc_3339_in_utc() {
    let now = timestamp();
    let shape: String = now.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
}

#[tokio::test]
async fn finish_waits_until_every_record_is_written() {
    let disk = Disk::default();
    let log = log_on(&disk, 1000);
    (0..1000).for_each(|id| log.record(record(id)));
    let counts = log.clone();
    log.finish(PATIENCE).await;
    assert_eq!(disk.text().lines().count(), 1000);
    assert_eq!((counts.written(), counts.dropped()), (1000, 0));
}

#[tokio::test]
async fn a_disk_that_hangs_costs_lines_and_no_waiting() {
    let disk = Disk::default();
    disk.change(|state| state.hangs = true);
    let log = log_on(&disk, 2);
    log.record(record(0));
    disk.reached(1); // The writer has taken it, and hangs.
    (1..10).for_each(|id| log.record(record(id)));
    assert_eq!(log.dropped(), 7, "two wait in the queue");
    log.clone().finish(Duration::from_millis(1)).await;
    disk.change(|state| state.hangs = false);
    log.clone().finish(PATIENCE).await;
    assert_eq!(disk.text().lines().count(), 3);
}

#[tokio::test]
async fn a_full_disk_costs_lines_and_no_torn_ones_once_there_is_room() {
    let disk = Disk::default();
    let mut line = Vec::new();
    record(1).append_to(&mut line);
    disk.change(|state| state.room = Some(line.len() + 10));
    let log = log_on(&disk, 8);
    for id in 1..=3 {
        log.record(record(id));
        testnet::eventually("it is dealt with", PATIENCE, || log.written() + log.dropped() == id);
    }
    assert_eq!((log.written(), log.dropped()), (1, 2));
    disk.change(|state| state.room = None);
    log.record(record(4));
    log.clone().finish(PATIENCE).await;
    let text = disk.text();
    let ids: Vec<_> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).collect();
    assert_eq!(ids.len(), 3, "{text}");
    assert!(ids[1].is_none(), "what fitted of the second");
    assert_eq!(ids[2].as_ref().unwrap()["id"], 4);
}
