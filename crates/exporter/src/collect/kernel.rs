//! The kernel's own TCP counters, beside which ours are read.

use std::io;

use metrics::Counter;

use super::proc_file::ProcFile;
use crate::registry::Registry;

/// The counters of `netstat` and `snmp`, of the network namespace of the thread that made this.
///
/// A counter this kernel does not have stays 0.
pub(super) struct KernelCounters {
    netstat: ProcFile,
    snmp: ProcFile,
    tcp_ext: [(&'static str, Counter); TCP_EXT.len()],
    out_rsts: Counter,
}

/// `TcpExt` fields and the series that show them.
const TCP_EXT: [(&str, &str); 7] = [
    ("SyncookiesSent", "portcullis_kernel_tcpext_syncookies_sent_total"),
    ("SyncookiesRecv", "portcullis_kernel_tcpext_syncookies_received_total"),
    ("SyncookiesFailed", "portcullis_kernel_tcpext_syncookies_failed_total"),
    ("ListenOverflows", "portcullis_kernel_tcpext_listen_overflows_total"),
    ("ListenDrops", "portcullis_kernel_tcpext_listen_drops_total"),
    ("TCPReqQFullDoCookies", "portcullis_kernel_tcpext_reqq_full_do_cookies_total"),
    ("TCPReqQFullDrop", "portcullis_kernel_tcpext_reqq_full_drop_total"),
];

impl KernelCounters {
    pub(super) fn register(registry: &Registry) -> KernelCounters {
        KernelCounters {
            // Not `/proc/self/net`, which is the namespace of the main thread, whichever thread asks.
            netstat: ProcFile::new("/proc/thread-self/net/netstat"),
            snmp: ProcFile::new("/proc/thread-self/net/snmp"),
            tcp_ext: TCP_EXT.map(|(field, name)| (field, registry.counter(name, &[]))),
            out_rsts: registry.counter("portcullis_kernel_tcp_out_rsts_total", &[]),
        }
    }

    pub(super) fn collect(&mut self) -> io::Result<()> {
        let netstat = self.netstat.read()?;
        for (field, counter) in &self.tcp_ext {
            counter.absolute(value(netstat, "TcpExt:", field).unwrap_or(0));
        }
        self.out_rsts.absolute(value(self.snmp.read()?, "Tcp:", "OutRsts").unwrap_or(0));
        Ok(())
    }
}

/// The value of `field` in the pair of lines that begin with `group`: first the names, then the values.
fn value(text: &str, group: &str, field: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)).map(str::split_ascii_whitespace);
    let (names, values) = (lines.next()?, lines.next()?);
    // Some values are -1 for "no limit", so only the one asked for is parsed.
    names.zip(values).find(|&(name, _)| name == field)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin MaxConn OutRsts\nTcp: 200 -1 1234\n";

    #[test]
    fn a_field_is_found_by_group_and_name() {
        assert_eq!(value(SNMP, "Tcp:", "OutRsts"), Some(1234));
        assert_eq!(value(SNMP, "Ip:", "DefaultTTL"), Some(64));
    }

    #[test]
    fn a_field_that_is_absent_negative_or_cut_off_is_none() {
        assert_eq!(value(SNMP, "Tcp:", "NoSuch"), None);
        assert_eq!(value(SNMP, "Udp:", "OutRsts"), None);
        assert_eq!(value(SNMP, "Tcp:", "MaxConn"), None);
        assert_eq!(value("Tcp: A B", "Tcp:", "A"), None);
        assert_eq!(value("Tcp: A B\nTcp: 1", "Tcp:", "B"), None);
    }

    #[test]
    fn the_counters_outlive_the_thread_that_opened_them() {
        let mut counters = std::thread::spawn(|| KernelCounters::register(&Registry::new())).join().unwrap();
        counters.collect().unwrap();
        counters.collect().unwrap();
    }

    #[test]
    fn this_kernel_has_every_field() {
        let netstat = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        for (field, _) in TCP_EXT {
            assert!(value(&netstat, "TcpExt:", field).is_some(), "{field}");
        }
        let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        assert!(value(&snmp, "Tcp:", "OutRsts").is_some());
    }
}
