//! One client: connect, request, response, half-close, and every byte checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use testnet::XorShift;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout_at;

use super::{ClientSpec, Outcome};

/// How one client ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub outcome: Outcome,
    /// From the moment it was due to the return of `connect`.
    pub connected: Option<Duration>,
    /// From the moment it was due to the end.
    pub total: Duration,
}

/// Runs the client with this number, which was due at that moment.
pub async fn run(spec: &ClientSpec, source: Option<IpAddr>, number: u64, due: Instant) -> Ended {
    let deadline = (due + spec.deadline).into();
    let connected = match timeout_at(deadline, connect(spec.target, source)).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return Ended { outcome: Outcome::of_connect(&error), connected: None, total: due.elapsed() },
    };
    let connected = due.elapsed();
    let request = XorShift::new(spec.seed ^ number.wrapping_add(1)).bytes(spec.bytes);
    let outcome = match timeout_at(deadline, exchange(&mut stream, &request)).await {
        Ok(Ok(true)) => Outcome::Ok,
        Ok(Ok(false)) => Outcome::WrongData,
        Ok(Err(error)) => Outcome::of_exchange(&error),
        Err(_elapsed) => Outcome::Timeout,
    };
    Ended { outcome, connected: Some(connected), total: due.elapsed() }
}

async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        // The port is chosen when the destination is known, so that all of them can be used for each.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target).await
}

/// Sends the request and closes that direction while reading what comes back; says whether it was the same.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<bool> {
    let (reader, mut writer) = stream.split();
    let sending = async {
        writer.write_all(request).await?;
        writer.shutdown().await
    };
    let receiving = async {
        let mut answer = Vec::with_capacity(request.len() + 1);
        // One more than expected would be one too many.
        reader.take(request.len() as u64 + 1).read_to_end(&mut answer).await?;
        io::Result::Ok(answer == request)
    };
    let (sent, same) = tokio::join!(sending, receiving);
    let same = same?;
    sent?;
    Ok(same)
}
