//! RFC 862: sends back what comes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::BUFFER_BYTES;

/// Echoes until the peer's FIN, then sends ours.
///
/// A peer that closes its direction first still gets every byte back. One that does not read is not read from.
///
/// # Errors
/// Those of the stream.
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_closes_first_gets_every_byte_back_and_then_eof() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..100_000).map(|n| n as u8).collect();
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        echo(&mut server).await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }
}
