//! The PROXY protocol, versions 1 and 2: the header by which a proxy tells a server who its client is.
//!
//! Written from the specification of HAProxy (`doc/proxy-protocol.txt`, section numbers below are its). [`encode_header`] writes what
//! goes to a server in front of the client's bytes; [`read_header`] reads what comes from a proxy in front of its client's.
//!
//! Whom to believe is not decided here. Whoever may send a header may claim any address, so a listener reads one only
//! from peers within prefixes that its operator trusts, and from those always: §2 forbids guessing whether there is one.

mod error;
mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

pub use error::{HeaderError, LineFault};

/// The longest header of version 1, CRLF included: §2.1, "a 108-byte buffer is always enough to store all the line and a trailing zero".
pub const V1_HEADER_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is read: the fixed part and 520 bytes, which hold the largest addresses (216 bytes, those of
/// Unix sockets) and some 300 bytes of TLVs. §2 wants a header to fit into one segment of 536 bytes, the least that every host takes.
pub const V2_HEADER_BYTES_MAX: usize = 536;

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A client as a proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's own address: the source.
    pub peer: SocketAddr,
    /// The address the client connected to: the destination.
    pub local: SocketAddr,
}

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The form it had.
    pub version: ProxyVersion,
    /// The client; `None` when the proxy speaks for itself (LOCAL, UNKNOWN), as in a health check, or for a client that did not come by
    /// TCP over IP. The addresses of the connection itself are then the ones to go by.
    pub client: Option<Client>,
}

/// The header for a client's connection, or with `None` for one of the proxy's own: LOCAL, in version 1 UNKNOWN.
///
/// At most 107 bytes. Addresses of both families in one client, and IPv4 addresses in IPv6 form, are written as one family: IPv4
/// if both can be, else IPv6. Flow labels and scopes have no place in a header.
///
/// ```
/// use connection::proxy_protocol::{Client, ProxyVersion, encode_header};
///
/// let client = Client { peer: "192.0.2.7:49152".parse().unwrap(), local: "198.51.100.1:80".parse().unwrap() };
/// assert_eq!(encode_header(ProxyVersion::V1, Some(&client)), b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 80\r\n");
/// ```
pub fn encode_header(version: ProxyVersion, client: Option<&Client>) -> Vec<u8> {
    let client = client.map(Client::of_one_family);
    match version {
        ProxyVersion::V1 => v1::encode(client.as_ref()),
        ProxyVersion::V2 => v2::encode(client.as_ref()),
    }
}

/// Reads the header that must come first, of either version, and not one byte beyond it.
///
/// It waits for as long as the proxy takes, so call it within a deadline; §2 asks for at least 3 seconds, for a segment that is sent again.
/// Its memory is some 600 bytes on the future, whatever the peer sends. Not cancel safe: what was read is gone, and the connection with it.
///
/// A line of version 1 tells its length only by its end, so it takes some ten reads of a few bytes each; version 2 takes three.
/// TLVs are passed over, except that a checksum (`PP2_TYPE_CRC32C`) must be right if there is one.
///
/// # Errors
///
/// The peer sent no header, or a wrong one, or ended before it was complete. §2: the connection is then to be closed.
pub async fn read_header(reader: &mut (impl AsyncRead + Unpin)) -> Result<Header, HeaderError> {
    // No header of either version is shorter than the signature of version 2.
    let mut start = [0; v2::SIGNATURE.len()];
    reader.read_exact(&mut start).await?;
    if start == v2::SIGNATURE {
        return v2::read(reader).await;
    }
    if start.starts_with(v1::SIGNATURE) {
        return v1::read(reader, &start).await;
    }
    Err(HeaderError::Signature)
}

impl Client {
    /// The same with both addresses in one family, which is all that a header can say.
    fn of_one_family(&self) -> Client {
        let (peer, local) = (self.peer.ip().to_canonical(), self.local.ip().to_canonical());
        let (peer, local) = match (peer, local) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => (peer, local),
            (IpAddr::V4(peer), local) => (peer.to_ipv6_mapped().into(), local),
            (peer, IpAddr::V4(local)) => (peer, local.to_ipv6_mapped().into()),
        };
        Client { peer: (peer, self.peer.port()).into(), local: (local, self.local.port()).into() }
    }
}
