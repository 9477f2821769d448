//! A rule that outlives the process: with `fail_closed`, a dead Portcullis is silent instead of refusing.
//!
//! The rule drops segments for a guarded address and port that belong to no socket at all. While Portcullis runs there
//! always is one, its silenced listener, so the rule does nothing; after a crash it keeps the kernel from answering RST
//! to clients whose handshake the next start can still finish, because cookies outlive the process. A clean stop takes
//! the rule away; the next start takes it over.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// The nftables table of one engine, removed on drop; a crash leaves it.
#[derive(Debug)]
pub(super) struct FailClosed {
    table: String,
}

impl FailClosed {
    /// Sets the rule for these addresses, in place of one that a predecessor left.
    ///
    /// # Errors
    /// When `nft` is missing or refuses: its message.
    pub(super) fn install(guarded: &[SocketAddr]) -> io::Result<FailClosed> {
        let table = table_name(guarded);
        nft(&ruleset(&table, guarded))?;
        Ok(FailClosed { table })
    }

    /// Removes the rule that a crashed predecessor with these addresses left, if there is one.
    pub(super) fn clear_leftover(guarded: &[SocketAddr]) {
        let table = table_name(guarded);
        // No rule, no right or no nft: nothing to remove, or nothing we could.
        if nft(&format!("delete table inet {table}\n")).is_ok() {
            tracing::info!(table, "removed the fail-closed rule of an earlier run");
        }
    }
}

impl Drop for FailClosed {
    fn drop(&mut self) {
        if let Err(error) = nft(&format!("delete table inet {}\n", self.table)) {
            tracing::warn!(table = self.table, %error, "could not remove the fail-closed rule");
        }
    }
}

/// One table for each set of guarded addresses, so that several listeners do not take each other's.
fn table_name(guarded: &[SocketAddr]) -> String {
    let mut names: Vec<String> = guarded.iter().map(SocketAddr::to_string).collect();
    names.sort();
    let plain = names.join("_").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    // nftables takes names of up to 255 bytes.
    format!("portcullis_{}", &plain[..plain.len().min(200)])
}

/// `socket transparent` looks the packet's socket up and, with none, ends the rule; with one, it is 0 or 1.
fn ruleset(table: &str, guarded: &[SocketAddr]) -> String {
    let mut text = String::new();
    // An empty declaration first, so that `delete` never fails; all of it is one transaction.
    let _ = writeln!(text, "table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{");
    let _ = writeln!(text, "  chain input {{\n    type filter hook input priority -5; policy accept;");
    for addr in guarded {
        let family = match addr {
            SocketAddr::V4(_) => "meta nfproto ipv4",
            SocketAddr::V6(_) => "meta nfproto ipv6",
        };
        let destination = match addr {
            _ if addr.ip().is_unspecified() => String::new(),
            SocketAddr::V4(addr) => format!("ip daddr {} ", addr.ip()),
            SocketAddr::V6(addr) => format!("ip6 daddr {} ", addr.ip()),
        };
        let matching = format!("{family} {destination}tcp dport {}", addr.port());
        let _ = writeln!(text, "    {matching} socket transparent {{ 0, 1 }} accept");
        let _ = writeln!(text, "    {matching} counter drop");
    }
    text.push_str("  }\n}\n");
    text
}

fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run nft (package nftables): {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {}", message.lines().next().unwrap_or("failed without a message"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_address_family_and_port() {
        let guarded: Vec<SocketAddr> = ["198.18.0.1:80", "[::]:443"].iter().map(|addr| addr.parse().unwrap()).collect();
        let text = ruleset("t", &guarded);
        assert!(text.contains("meta nfproto ipv4 ip daddr 198.18.0.1 tcp dport 80 counter drop"), "{text}");
        assert!(text.contains("meta nfproto ipv6 tcp dport 443 socket transparent"), "{text}");
    }

    #[test]
    fn table_names_are_stable_and_legal() {
        let a: SocketAddr = "0.0.0.0:80".parse().unwrap();
        let b: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(table_name(&[a, b]), table_name(&[b, a]));
        let many: Vec<SocketAddr> = (1..100).map(|port| SocketAddr::from(([198, 18, 0, 1], port))).collect();
        let name = table_name(&many);
        assert!(name.len() < 256 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    }
}
