//! Version 2 (§2.2): 16 bytes of fixed layout, then addresses, then TLVs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Client, Header, HeaderError, ProxyVersion, V2_HEADER_BYTES_MAX};

/// How every header begins: bytes that no text protocol takes for a request, and that hold no "PROXY".
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const UDP_OVER_IPV4: u8 = 0x12;
const TCP_OVER_IPV6: u8 = 0x21;
const UDP_OVER_IPV6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// `PP2_TYPE_CRC32C`: CRC-32C of the whole header, computed with zeros in its place.
const TLV_CRC32C: u8 = 0x03;

/// The header for this client, whose addresses are of one family.
pub(super) fn encode(client: Option<&Client>) -> Vec<u8> {
    let Some(Client { peer, local }) = client else { return fixed_part(LOCAL, UNSPECIFIED, 0) };
    let mut header = match (peer.ip(), local.ip()) {
        (IpAddr::V4(peer), IpAddr::V4(local)) => {
            let mut header = fixed_part(PROXY, TCP_OVER_IPV4, address_bytes::<4>() as u16);
            header.extend_from_slice(&peer.octets());
            header.extend_from_slice(&local.octets());
            header
        }
        (peer, local) => {
            let mut header = fixed_part(PROXY, TCP_OVER_IPV6, address_bytes::<16>() as u16);
            header.extend_from_slice(&v6_octets(peer));
            header.extend_from_slice(&v6_octets(local));
            header
        }
    };
    header.extend_from_slice(&peer.port().to_be_bytes());
    header.extend_from_slice(&local.port().to_be_bytes());
    header
}

fn fixed_part(command: u8, family: u8, len: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED_BYTES + usize::from(len));
    header.extend_from_slice(&SIGNATURE);
    header.extend_from_slice(&[VERSION << 4 | command, family]);
    header.extend_from_slice(&len.to_be_bytes());
    header
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Two addresses of this many bytes each, and two ports.
const fn address_bytes<const LEN: usize>() -> usize {
    2 * LEN + 4
}

/// Reads what follows the signature, and judges it.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Header, HeaderError> {
    let mut header = [0; V2_HEADER_BYTES_MAX];
    header[..SIGNATURE.len()].copy_from_slice(&SIGNATURE);
    reader.read_exact(&mut header[SIGNATURE.len()..FIXED_BYTES]).await?;
    let [version_command, family, len @ ..] = [header[12], header[13], header[14], header[15]];
    if version_command >> 4 != VERSION {
        return Err(HeaderError::Version(version_command >> 4));
    }
    let len = u16::from_be_bytes(len);
    let end = FIXED_BYTES + usize::from(len);
    reader.read_exact(header.get_mut(FIXED_BYTES..end).ok_or(HeaderError::Length(len))?).await?;
    let client = match version_command & 0x0f {
        // §2.2: "The receiver must accept this connection as valid and must use the real connection endpoints and discard the
        // protocol block including the family which is ignored."
        LOCAL => None,
        PROXY => parse(family, &header[..end])?,
        command => return Err(HeaderError::Command(command)),
    };
    Ok(Header { version: ProxyVersion::V2, client })
}

/// Judges the addresses and TLVs of a header with the command PROXY. `None` for clients that did not come by TCP over IP.
fn parse(family: u8, header: &[u8]) -> Result<Option<Client>, HeaderError> {
    let body = &header[FIXED_BYTES..];
    let needed = match family {
        UNSPECIFIED => return Ok(None), // What follows has no layout that could be judged.
        TCP_OVER_IPV4 | UDP_OVER_IPV4 => address_bytes::<4>(),
        TCP_OVER_IPV6 | UDP_OVER_IPV6 => address_bytes::<16>(),
        UNIX_STREAM | UNIX_DATAGRAM => 2 * 108,
        unknown => return Err(HeaderError::Family(unknown)),
    };
    let (addresses, _) = body.split_at_checked(needed).ok_or(HeaderError::Addresses { len: body.len(), needed })?;
    check_tlvs(header, FIXED_BYTES + needed)?;
    Ok(match family {
        TCP_OVER_IPV4 => client::<4, Ipv4Addr>(addresses),
        TCP_OVER_IPV6 => client::<16, Ipv6Addr>(addresses),
        _ => None,
    })
}

/// Source, destination, source port, destination port.
fn client<const LEN: usize, Address: From<[u8; LEN]> + Into<IpAddr>>(bytes: &[u8]) -> Option<Client> {
    let (source, rest) = bytes.split_first_chunk::<LEN>()?;
    let (destination, rest) = rest.split_first_chunk::<LEN>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    let endpoint = |address: &[u8; LEN], port: &[u8; 2]| {
        SocketAddr::new(Address::from(*address).into(), u16::from_be_bytes(*port))
    };
    Some(Client { peer: endpoint(source, source_port), local: endpoint(destination, destination_port) })
}

/// Walks over the TLVs (type, length in two bytes, value), which must fill the header from `at` to its end.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), HeaderError> {
    while at < header.len() {
        let [kind, high, low] = *header[at..].first_chunk().ok_or(HeaderError::Tlv)?;
        let start = at + 3;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(start..end).ok_or(HeaderError::Tlv)?;
        if kind == TLV_CRC32C {
            let claimed = u32::from_be_bytes(value.try_into().map_err(|_| HeaderError::Tlv)?);
            if crc32c(&[&header[..start], &[0; 4], &header[end..]]) != claimed {
                return Err(HeaderError::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (RFC 9260, appendix A) of these pieces, one behind the other. Bit by bit: a header is short, and few have a checksum.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // 0x1edc6f41 with its bits turned round.
    let shift = |crc: u32, _bit| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !pieces.iter().copied().flatten().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_castagnoli_polynomial() {
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283, "the usual check value");
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa, "RFC 3720, appendix B.4");
    }
}
