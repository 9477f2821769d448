//! Echo over TLS, with rustls and a certificate made at the start.
//!
//!     cargo run --example tls -- [ADDR:PORT] [--kernel]
//!
//! Then: `openssl s_client -connect 127.0.0.1:8080`.

mod common;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use portcullis::Connection;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let acceptor = TlsAcceptor::from(Arc::new(self_signed()?));
    let mut listener = common::builder_from_args().build().await?;
    while let Some(connection) = listener.accept().await {
        tokio::spawn(serve(acceptor.clone(), connection?));
    }
    Ok(())
}

/// A configuration with a certificate that nobody has reason to trust.
fn self_signed() -> Result<ServerConfig, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.into()], key.into())?)
}

async fn serve(acceptor: TlsAcceptor, connection: Connection) -> io::Result<()> {
    // The TCP handshake is done; that of TLS is the next thing a client could leave half done.
    let stream = timeout(Duration::from_secs(10), acceptor.accept(connection)).await??;
    let (mut reader, mut writer) = split(stream);
    copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
