//! RFC 863: takes what comes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::BUFFER_BYTES;

/// Reads until the peer's FIN, then sends ours.
///
/// # Errors
/// Those of the stream.
pub async fn discard<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while stream.read(&mut buffer).await? > 0 {}
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_comes_back_but_eof() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let server = tokio::spawn(async move { discard(&mut server).await });
        client.write_all(&[7; 100_000]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received.is_empty());
        server.await.unwrap().unwrap();
    }
}
