//! What the built-in web page says.

use std::fmt::Write;
use std::time::Duration;

use portcullis::{Connection, Negotiated, Via};

/// How this connection came about, for the one at its other end.
pub fn page(connection: &Connection) -> String {
    let handshake = connection.handshake();
    let via = match handshake.via {
        Via::Queue => "the half-open queue",
        Via::Cookie => "a SYN cookie",
        Via::Kernel => "the kernel's own listener",
    };
    let mut page = String::from("Portcullis let you in.\n\n");
    // Writing to a String does not fail.
    let mut line = |name: &str, value: &str| _ = writeln!(page, "{name:<10} {value}");
    line("you", &connection.peer_addr().to_string());
    line("here", &connection.local_addr().to_string());
    line("via", via);
    line("options", &handshake.options.map_or_else(|| "known to the kernel alone".to_owned(), options));
    line("handshake", &handshake.duration.map_or_else(|| "not measured".to_owned(), duration));
    line("state", &connection.state().map_or_else(|error| error.to_string(), |state| state.to_string()));
    page
}

/// Both ends of a handshake are seen by a clock that is read once per batch of packets: finer than that it is not.
fn duration(took: Duration) -> String {
    if took < Duration::from_millis(1) { "under 1 ms".to_owned() } else { format!("{took:.1?}") }
}

fn options(options: Negotiated) -> String {
    let mut text = format!("MSS {}", options.peer_mss);
    if let (Some(peer), Some(local)) = (options.peer_wscale, options.local_wscale) {
        _ = write!(text, ", window scale {peer} (yours) and {local} (ours)");
    }
    text.push_str(if options.sack { ", SACK" } else { ", no SACK" });
    text.push_str(if options.timestamps.is_some() { ", timestamps" } else { ", no timestamps" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_were_not_agreed_are_not_claimed() {
        let plain = Negotiated { peer_mss: 536, peer_wscale: None, local_wscale: None, sack: false, timestamps: None };
        assert_eq!(options(plain), "MSS 536, no SACK, no timestamps");
        let rich = Negotiated { peer_wscale: Some(8), local_wscale: Some(7), sack: true, ..plain };
        assert_eq!(options(rich), "MSS 536, window scale 8 (yours) and 7 (ours), SACK, no timestamps");
    }
}
