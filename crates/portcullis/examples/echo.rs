//! Sends back what comes.
//!
//!     cargo run --example echo -- [ADDR:PORT] [--kernel]
//!
//! Then: `nc 127.0.0.1 8080`.

mod common;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use portcullis::Connection;
use tokio::io::{copy, split};

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut listener = common::builder_from_args().build().await?;
    while let Some(connection) = listener.accept().await {
        tokio::spawn(serve(connection?));
    }
    Ok(())
}

async fn serve(mut connection: Connection) -> io::Result<()> {
    let (mut reader, mut writer) = split(&mut connection);
    copy(&mut reader, &mut writer).await?; // To the client's FIN ...
    connection.shutdown_write().await // ... which ours follows.
}
