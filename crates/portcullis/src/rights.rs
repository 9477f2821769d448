//! The two capabilities that the raw datapath needs, and what to do without.

use std::path::Path;

use caps::{CapSet, Capability};

use crate::failure::Failure;

const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_NET_RAW, "to see the packets of the guarded ports and to answer them"),
    (Capability::CAP_NET_ADMIN, "to make sockets of finished handshakes (TCP_REPAIR)"),
];

/// Whether this process has what the raw datapath needs.
///
/// # Errors
/// [`Failure::Rights`] with what is missing and the command that grants it; [`Failure::Runtime`] if the capabilities
/// cannot be read.
pub fn check() -> Result<(), Failure> {
    let effective =
        caps::read(None, CapSet::Effective).map_err(|error| Failure::runtime("cannot read own capabilities", error))?;
    let missing: Vec<_> = NEEDED.into_iter().filter(|(capability, _)| !effective.contains(capability)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let binary = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
    Err(Failure::Rights(explain(&missing, &binary)))
}

fn explain(missing: &[(Capability, &str)], binary: &Path) -> String {
    let mut text = String::from("rights are missing:\n");
    for (capability, purpose) in missing {
        text.push_str(&format!("  {capability}: {purpose}\n"));
    }
    text.push_str("Run it as root, or grant them to the program once:\n");
    text.push_str(&format!("  sudo setcap cap_net_raw,cap_net_admin+ep {}\n", shell_quoted(binary)));
    text.push_str("Or run without them, and without the protection: the kernel then answers the SYNs.\n");
    text.push_str("  portcullis --datapath kernel");
    text
}

/// The path as a shell takes it.
fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_missing_the_remedy_and_the_way_without() {
        let text = explain(&NEEDED[1..], Path::new("/opt/it's/portcullis"));
        assert!(!text.contains("CAP_NET_RAW") && text.contains("CAP_NET_ADMIN"), "{text}");
        assert!(text.contains(r"sudo setcap cap_net_raw,cap_net_admin+ep '/opt/it'\''s/portcullis'"), "{text}");
        assert!(text.contains("--datapath kernel"), "{text}");
    }
}
