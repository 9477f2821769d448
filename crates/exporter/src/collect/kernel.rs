//! The kernel's own TCP counters, beside which ours are read.

use std::io;
use std::path::Path;

use metrics::Counter;
use tracing::info;

use super::proc_file::ProcFile;
use crate::registry::Registry;

/// The counters of `netstat` and `snmp`, of the network namespace of the thread that made this.
///
/// A counter this kernel does not have stays 0, which is said once.
pub(super) struct KernelCounters {
    netstat: Group<{ TCP_EXT.len() }>,
    snmp: Group<1>,
}

/// Counters of one file.
struct Group<const N: usize> {
    file: ProcFile,
    /// What their lines begin with.
    name: &'static str,
    fields: [(&'static str, Counter); N],
    /// Whether it was said which of them this kernel does not have.
    told: bool,
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

/// The same for `Tcp`.
const TCP: [(&str, &str); 1] = [("OutRsts", "portcullis_kernel_tcp_out_rsts_total")];

impl KernelCounters {
    /// From below `proc`, which is `/proc`.
    pub(super) fn register(registry: &Registry, proc: &Path) -> KernelCounters {
        // Not `/proc/self/net`, which is the namespace of the main thread, whichever thread asks.
        let net = proc.join("thread-self/net");
        let counter = |(field, name)| (field, registry.counter(name, &[]));
        KernelCounters {
            netstat: Group::new(ProcFile::new(net.join("netstat")), "TcpExt:", TCP_EXT.map(counter)),
            snmp: Group::new(ProcFile::new(net.join("snmp")), "Tcp:", TCP.map(counter)),
        }
    }

    /// Of two files that fail, the first is told; the other one's counters are set either way.
    pub(super) fn collect(&mut self) -> io::Result<()> {
        let (netstat, snmp) = (self.netstat.collect(), self.snmp.collect());
        netstat.and(snmp)
    }
}

impl<const N: usize> Group<N> {
    fn new(file: ProcFile, name: &'static str, fields: [(&'static str, Counter); N]) -> Group<N> {
        Group { file, name, fields, told: false }
    }

    fn collect(&mut self) -> io::Result<()> {
        let values = self.values()?;
        for ((field, counter), value) in self.fields.iter().zip(values) {
            match value {
                Some(value) => counter.absolute(value),
                None if self.told => {}
                None => {
                    info!("this kernel does not count {} {field}; its series stays 0", self.name.trim_end_matches(':'))
                }
            }
        }
        self.told = true;
        Ok(())
    }

    /// The value of each field; `None` for one that this kernel does not have.
    fn values(&mut self) -> io::Result<[Option<u64>; N]> {
        let text = self.file.read()?;
        let fields = self.fields.each_ref().map(|(field, _)| value(text, self.name, field));
        let mut values = [None; N];
        for (index, ((field, _), outcome)) in self.fields.iter().zip(fields).enumerate() {
            let name = self.name;
            values[index] = match outcome {
                Ok(value) => Some(value),
                Err(Missing::Field) => None,
                Err(Missing::Group) => {
                    return Err(self.file.invalid(&format!("there are no lines {name}, so no {field}")));
                }
                Err(Missing::Value) => return Err(self.file.invalid(&format!("{name} {field} has no value"))),
            };
        }
        Ok(values)
    }
}

/// Why there is no value.
#[derive(Debug, PartialEq)]
enum Missing {
    /// The two lines are not there, which they are in every kernel.
    Group,
    /// The field is not named, as in a kernel that is older than the field.
    Field,
    /// The field is named, and has no number.
    Value,
}

/// The value of `field` in the pair of lines that begin with `group`: first the names, then the values.
fn value(text: &str, group: &str, field: &str) -> Result<u64, Missing> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)).map(str::split_ascii_whitespace);
    let (mut names, mut values) = lines.next().zip(lines.next()).ok_or(Missing::Group)?;
    let position = names.position(|name| name == field).ok_or(Missing::Field)?;
    // Some values are -1 for "no limit", so only the one asked for is parsed.
    values.nth(position).and_then(|value| value.parse().ok()).ok_or(Missing::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeProc;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin MaxConn OutRsts\nTcp: 200 -1 1234\n";

    #[test]
    fn a_field_is_found_by_group_and_name() {
        assert_eq!(value(SNMP, "Tcp:", "OutRsts"), Ok(1234));
        assert_eq!(value(SNMP, "Ip:", "DefaultTTL"), Ok(64));
    }

    #[test]
    fn a_field_that_is_absent_is_told_from_one_without_a_value() {
        assert_eq!(value(SNMP, "Tcp:", "NoSuch"), Err(Missing::Field));
        assert_eq!(value(SNMP, "Udp:", "OutRsts"), Err(Missing::Group));
        assert_eq!(value(SNMP, "Tcp:", "MaxConn"), Err(Missing::Value));
        assert_eq!(value("Tcp: A B", "Tcp:", "A"), Err(Missing::Group));
        assert_eq!(value("Tcp: A B\nTcp: 1", "Tcp:", "B"), Err(Missing::Value));
    }

    #[test]
    fn what_is_not_in_the_files_fails_and_names_file_and_field() {
        let proc = FakeProc::new("kernel");
        proc.write("thread-self/net/netstat", "");
        proc.write("thread-self/net/snmp", SNMP);
        let registry = Registry::new();
        let mut counters = KernelCounters::register(&registry, proc.path());
        let error = counters.collect().unwrap_err().to_string();
        assert!(error.contains("net/netstat: ") && error.contains("TcpExt:"), "{error}");
        let rsts = |value| format!("portcullis_kernel_tcp_out_rsts_total {value}\n");
        assert!(registry.render().contains(&rsts(1234)), "the other file is read nevertheless");

        proc.write("thread-self/net/netstat", "TcpExt: ListenDrops ListenOverflows\nTcpExt: 7\n");
        let error = counters.collect().unwrap_err().to_string();
        assert!(error.contains("net/netstat: ") && error.contains("ListenOverflows"), "{error}");
        proc.write("thread-self/net/netstat", "TcpExt: ListenDrops\nTcpExt: 7\n");
        counters.collect().expect("an older kernel");
        assert!(registry.render().contains("portcullis_kernel_tcpext_listen_drops_total 7\n"));
        assert!(registry.render().contains("portcullis_kernel_tcpext_listen_overflows_total 0\n"));
        proc.write("thread-self/net/snmp", "");
        assert!(counters.collect().unwrap_err().to_string().contains("net/snmp: "));
        assert!(registry.render().contains(&rsts(1234)), "the last value");
    }

    #[test]
    fn the_counters_outlive_the_thread_that_opened_them() {
        let mut counters =
            std::thread::spawn(|| KernelCounters::register(&Registry::new(), Path::new("/proc"))).join().unwrap();
        counters.collect().unwrap();
        counters.collect().unwrap();
    }

    #[test]
    fn this_kernel_has_every_field() {
        let netstat = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        for (field, _) in TCP_EXT {
            assert!(value(&netstat, "TcpExt:", field).is_ok(), "{field}");
        }
        let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        assert!(value(&snmp, "Tcp:", "OutRsts").is_ok());
    }
}
