//! Version 1 (§2.1): a line of text, such as `PROXY TCP4 192.0.2.7 198.51.100.1 49152 80`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::LineFault;
use super::{Client, Header, HeaderError, ProxyVersion, V1_HEADER_BYTES_MAX};

/// How every line begins.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Spaces in a line that names addresses.
const SPACES: usize = 5;

/// The line for this client, whose addresses are of one family.
pub(super) fn encode(client: Option<&Client>) -> Vec<u8> {
    let Some(Client { peer, local }) = client else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let mut line = String::with_capacity(V1_HEADER_BYTES_MAX);
    line.push_str(if peer.is_ipv4() { "PROXY TCP4 " } else { "PROXY TCP6 " });
    push_address(&mut line, peer.ip());
    line.push(' ');
    push_address(&mut line, local.ip());
    write!(line, " {} {}\r\n", peer.port(), local.port()).expect("writing to a String does not fail");
    line.into_bytes()
}

fn push_address(line: &mut String, address: IpAddr) {
    match address {
        // The usual way to write these ends with dots, for which the grammar of §2.1 has no place.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            write!(line, "::ffff:{high:x}:{low:x}")
        }
        _ => write!(line, "{address}"),
    }
    .expect("writing to a String does not fail");
}

/// Reads the rest of the line and judges it.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin), start: &[u8]) -> Result<Header, HeaderError> {
    let mut line = [0; V1_HEADER_BYTES_MAX];
    line[..start.len()].copy_from_slice(start);
    let mut len = start.len();
    loop {
        let missing = missing_at_least(&line[..len])?;
        if missing == 0 {
            break;
        }
        let next = line.get_mut(len..len + missing).ok_or(LineFault::TooLong)?;
        reader.read_exact(next).await?;
        len += missing;
    }
    let client = parse(&line[..len - 2])?;
    Ok(Header { version: ProxyVersion::V1, client })
}

/// How many bytes a legal line that begins like this has still to come, at the very least; 0 when it is complete.
///
/// So many can be asked for at a time without reading beyond the line's end.
fn missing_at_least(line: &[u8]) -> Result<usize, LineFault> {
    if let Some(at) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        return match line[at..] {
            [b'\r', b'\n'] => Ok(0),
            [b'\r'] => Ok(1),
            // The line ended before a legal one could.
            [b'\r', b'\n', ..] => Err(LineFault::Fields),
            _ => Err(LineFault::LineEnd),
        };
    }
    // Behind each space is at least one character, and at the end is CRLF.
    let spaces = if line.starts_with(b"PROXY TCP") { SPACES } else { 0 };
    let spaces_missing = spaces.saturating_sub(line.iter().filter(|&&byte| byte == b' ').count());
    Ok(2 * spaces_missing + 2)
}

/// Judges a line without its CRLF.
fn parse(line: &[u8]) -> Result<Option<Client>, LineFault> {
    let rest = line.strip_prefix(SIGNATURE).ok_or(LineFault::Protocol)?;
    let protocol_len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    let (protocol, rest) = rest.split_at(protocol_len);
    match protocol {
        b"TCP4" => parse_client::<Ipv4Addr>(rest).map(Some),
        b"TCP6" => parse_client::<Ipv6Addr>(rest).map(Some),
        // §2.1: "the receiver must ignore anything presented before the CRLF".
        b"UNKNOWN" => Ok(None),
        _ => Err(LineFault::Protocol),
    }
}

/// Judges what follows the protocol: each of four fields behind a space.
fn parse_client<Address: FromStr + Into<IpAddr>>(fields: &[u8]) -> Result<Client, LineFault> {
    let mut fields = str::from_utf8(fields).map_err(|_| LineFault::Fields)?.split(' ');
    let (Some(""), Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(LineFault::Fields);
    };
    let address = |text: &str| text.parse::<Address>().map(Into::into).map_err(|_| LineFault::Address);
    let (source, destination) = (address(source)?, address(destination)?);
    Ok(Client {
        peer: SocketAddr::new(source, parse_port(source_port)?),
        local: SocketAddr::new(destination, parse_port(destination_port)?),
    })
}

/// A port without sign or leading zeros; the standard library's parser takes both.
fn parse_port(text: &str) -> Result<u16, LineFault> {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| plain).ok_or(LineFault::Port)
}
