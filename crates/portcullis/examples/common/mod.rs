//! The command line of the examples: `[ADDR:PORT] [--kernel]`.

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
    eprintln!("guarding {addr}");
    builder.bind(addr)
}
