//! A rule that outlives the process: with `fail_closed`, a dead Portcullis is silent instead of refusing.
//!
//! The rule drops segments for a guarded address and port that belong to no socket at all. While Portcullis runs there
//! always is one, its silenced listener, so the rule does nothing; after a crash it keeps the kernel from answering RST
//! to clients whose handshake the next start can still finish, because cookies outlive the process. A clean stop takes
//! the rule away; the next start takes it over.
//!
//! Each guarded address and port has a table of its own, whose name says which. A rule that overlaps with what we guard
//! is a leftover, whoever set it: two live processes cannot hold overlapping ports, and we hold ours.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use caps::{CapSet, Capability};

/// The nftables tables of one engine, removed on drop; a crash leaves them.
#[derive(Debug)]
pub(super) struct FailClosed {
    tables: Vec<Table>,
}

impl FailClosed {
    /// Sets the rules for these addresses, in place of those that a predecessor left. The ports must be reserved.
    ///
    /// # Errors
    /// When `nft` is missing or refuses: its message.
    pub(super) fn install(guarded: &[SocketAddr]) -> io::Result<FailClosed> {
        let tables: Vec<Table> = guarded.iter().map(Table::for_guarded).collect();
        let mut script = removal(&leftovers(guarded)?);
        tables.iter().for_each(|table| script.push_str(&table.ruleset()));
        nft(&["-f", "-"], &script)?;
        Ok(FailClosed { tables })
    }

    /// Removes the rules that a crashed predecessor left for any of these addresses. The ports must be reserved.
    pub(super) fn clear_leftover(guarded: &[SocketAddr]) {
        // No right or no nft: nothing we could remove.
        let Ok(leftovers) = leftovers(guarded) else { return };
        if !leftovers.is_empty() && nft(&["-f", "-"], &removal(&leftovers)).is_ok() {
            tracing::info!(tables = names(&leftovers), "removed the fail-closed rules of an earlier run");
        }
    }

    /// The rules are a successor's from now on.
    pub(super) fn leave(mut self) {
        self.tables.clear();
    }
}

impl Drop for FailClosed {
    fn drop(&mut self) {
        if self.tables.is_empty() {
            return;
        }
        if let Err(error) = nft(&["-f", "-"], &removal(&self.tables)) {
            tracing::warn!(tables = names(&self.tables), %error, "could not remove the fail-closed rules");
        }
    }
}

/// The rule of one guarded address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    ip: IpAddr,
    port: u16,
}

impl Table {
    const PREFIX: &'static str = "portcullis_";

    fn for_guarded(addr: &SocketAddr) -> Table {
        Table { ip: addr.ip(), port: addr.port() }
    }

    /// `portcullis_192_0_2_1_80`; of IPv6, all 32 digits: `portcullis_20010db8000000000000000000000001_80`.
    fn name(&self) -> String {
        let ip = match self.ip {
            IpAddr::V4(ip) => ip.octets().map(|octet| octet.to_string()).join("_"),
            IpAddr::V6(ip) => format!("{:032x}", ip.to_bits()),
        };
        format!("{}{ip}_{}", Table::PREFIX, self.port)
    }

    /// What [`name`](Table::name) was made from; `None` for a name that is not ours.
    fn from_name(name: &str) -> Option<Table> {
        let (ip, port) = name.strip_prefix(Table::PREFIX)?.rsplit_once('_')?;
        let ip = match ip.len() {
            32 => IpAddr::V6(Ipv6Addr::from_bits(u128::from_str_radix(ip, 16).ok()?)),
            _ => IpAddr::V4(ip.replace('_', ".").parse::<Ipv4Addr>().ok()?),
        };
        let table = Table { ip, port: port.parse().ok()? };
        (table.name() == name).then_some(table)
    }

    /// Whether some segment could be for both.
    fn overlaps(&self, other: &Table) -> bool {
        self.port == other.port
            && self.ip.is_ipv4() == other.ip.is_ipv4()
            && (self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified())
    }

    /// `socket transparent` looks the packet's socket up and, with none, ends the rule; with one, it is 0 or 1.
    fn ruleset(&self) -> String {
        let family = if self.ip.is_ipv4() { "ipv4" } else { "ipv6" };
        let destination = match self.ip {
            ip if ip.is_unspecified() => String::new(),
            IpAddr::V4(ip) => format!("ip daddr {ip} "),
            IpAddr::V6(ip) => format!("ip6 daddr {ip} "),
        };
        let matching = format!("meta nfproto {family} {destination}tcp dport {}", self.port);
        format!(
            "table inet {} {{\n  chain input {{\n    type filter hook input priority -5; policy accept;\n    \
             {matching} socket transparent {{ 0, 1 }} accept\n    {matching} counter drop\n  }}\n}}\n",
            self.name()
        )
    }
}

/// The tables there are that overlap with what is guarded.
fn leftovers(guarded: &[SocketAddr]) -> io::Result<Vec<Table>> {
    let guarded: Vec<Table> = guarded.iter().map(Table::for_guarded).collect();
    let there = nft(&["list", "tables", "inet"], "")?;
    Ok(ours(&there).filter(|table| guarded.iter().any(|own| own.overlaps(table))).collect())
}

/// Those of the lines `table inet NAME` that name a table of ours.
fn ours(list: &str) -> impl Iterator<Item = Table> {
    list.lines().filter_map(|line| Table::from_name(line.trim().strip_prefix("table inet ")?))
}

/// Removes the tables, in one transaction. An empty declaration comes first, so that one that is gone is no error.
fn removal(tables: &[Table]) -> String {
    let mut script = String::new();
    for name in tables.iter().map(Table::name) {
        let _ = writeln!(script, "table inet {name} {{}}\ndelete table inet {name}");
    }
    script
}

fn names(tables: &[Table]) -> String {
    tables.iter().map(Table::name).collect::<Vec<_>>().join(", ")
}

/// Where `nft` may be. Not `$PATH`: a program with file capabilities can be started by a user who has set that, and must
/// not lend its rights to whatever lies there.
const PLACES: [&str; 6] = [
    "/usr/sbin/nft",
    "/sbin/nft",
    "/usr/bin/nft",
    "/usr/local/sbin/nft",
    "/usr/local/bin/nft",
    "/run/current-system/sw/bin/nft",
];

/// Whether there is an `nft`, which [fail-closed rules](super::EngineConfig::fail_closed) need.
///
/// # Errors
/// `NotFound`, with the places that were looked at.
pub fn find_nft() -> io::Result<&'static str> {
    PLACES.into_iter().find(|place| Path::new(place).exists()).ok_or_else(|| {
        let message = format!("there is no nft (package nftables): looked for {}", PLACES.join(", "));
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// Runs `nft` with CAP_NET_ADMIN and this standard input; returns its standard output.
fn nft(arguments: &[&str], input: &str) -> io::Result<String> {
    let program = find_nft()?;
    let mut command = Command::new(program);
    // The caller's environment must not reach what runs with our rights either: LD_PRELOAD would be obeyed.
    command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = with_net_admin_for_children(move || command.spawn())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {}", message.lines().next().unwrap_or("failed without a message"))))
}

/// Calls `spawn` on a thread whose children get CAP_NET_ADMIN.
///
/// capabilities(7): a program that was given rights by file capabilities does not hand them on, except for those in its
/// ambient set, which must be inheritable too. The sets are the thread's, so they end with this one.
fn with_net_admin_for_children<R: Send>(spawn: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            // Without the right itself there is nothing to hand on: then nft says so.
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                let _ = caps::raise(None, set, Capability::CAP_NET_ADMIN);
            }
            spawn()
        });
        spawning.join().unwrap_or_else(|_| Err(io::Error::other("the spawning thread failed")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(guarded: &str) -> Table {
        Table::for_guarded(&guarded.parse().unwrap())
    }

    #[test]
    fn rules_name_address_family_and_port() {
        let text = table("198.18.0.1:80").ruleset();
        assert!(text.contains("meta nfproto ipv4 ip daddr 198.18.0.1 tcp dport 80 counter drop"), "{text}");
        let text = table("[::]:443").ruleset();
        assert!(text.contains("meta nfproto ipv6 tcp dport 443 socket transparent"), "{text}");
    }

    #[test]
    fn a_name_says_what_is_guarded() {
        for (guarded, name) in [
            ("127.0.0.1:8080", "portcullis_127_0_0_1_8080"),
            ("[2001:db8::1]:80", "portcullis_20010db8000000000000000000000001_80"),
        ] {
            assert_eq!(table(guarded).name(), name);
        }
        for guarded in ["0.0.0.0:80", "255.255.255.255:65535", "[::]:80", "[ffff::ffff]:1"] {
            assert_eq!(Table::from_name(&table(guarded).name()), Some(table(guarded)));
        }
        for foreign in ["filter", "portcullis", "portcullis_web", "portcullis_127_0_0_1", "portcullis_01_0_0_1_80"] {
            assert_eq!(Table::from_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_what_could_be_for_both_overlaps() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[2001:db8::1]:80", true),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("0.0.0.0:80", "0.0.0.0:81", false),
            ("[::]:80", "0.0.0.0:80", false),
        ] {
            assert_eq!(table(a).overlaps(&table(b)), expected, "{a} {b}");
            assert_eq!(table(b).overlaps(&table(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn other_tables_are_left_alone() {
        let list = "table inet filter\ntable inet portcullis_127_0_0_1_80\ntable inet portcullis_old\n";
        assert_eq!(ours(list).collect::<Vec<_>>(), [table("127.0.0.1:80")]);
    }

    #[test]
    fn children_get_the_right_and_this_thread_keeps_its_sets() {
        if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_ADMIN).unwrap() {
            return; // Nothing to hand on; tests of the whole program need it, and say so.
        }
        let ambient = caps::read(None, CapSet::Ambient).unwrap();
        let status = with_net_admin_for_children(|| std::fs::read_to_string("/proc/thread-self/status")).unwrap();
        let set = status.lines().find_map(|line| line.strip_prefix("CapAmb:")).unwrap().trim();
        let net_admin = 1 << Capability::CAP_NET_ADMIN.index();
        assert_ne!(u64::from_str_radix(set, 16).unwrap() & net_admin, 0, "{set}");
        assert_eq!(caps::read(None, CapSet::Ambient).unwrap(), ambient);
    }
}
