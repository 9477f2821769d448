//! What the examples share: the command line `[ADDR:PORT] [--kernel]`, and the end.

use std::error::Error;
use std::process::ExitCode;

use portcullis::{Builder, Datapath, Listener};

/// A builder for the address given, 127.0.0.1:8080 if none was, on the raw datapath unless `--kernel` says otherwise.
pub fn builder_from_args() -> Builder {
    let mut builder = Listener::builder();
    let mut addr = "127.0.0.1:8080".to_owned();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--kernel" => builder = builder.datapath(Datapath::Kernel),
            _ => addr = arg,
        }
    }
    eprintln!("guarding {addr} ...");
    builder.bind(addr)
}

/// Says in a sentence why it ends. Returning the error from `main` would show it as code does.
pub fn exit_code(ended: Result<(), Box<dyn Error>>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
