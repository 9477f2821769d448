//! Floods of real connections, by a kernel's sockets.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, timeout};

use super::prefix::Prefix;
use super::progress::{Shared, Work};
use super::spec::FloodKind;
use super::template::{key_of, mix};
use crate::lab::raise_descriptors;

/// Connections held, or fewer where there are not so many descriptors. Beyond them the oldest is closed for each new one.
///
/// A kernel's connection at either end takes some 3 KiB, so that these are about 120 MiB on both, buffers aside.
const HELD_MAX: usize = 20_000;
/// Connects under way. Beyond them no new one is tried, and the flood falls behind.
const CONNECTING_MAX: usize = 4096;
/// Descriptors left for everything else.
const SPARE: u64 = 512;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// More than the buffers of a connection with a small receive buffer have room for.
const REQUEST_LEN: usize = 64 << 10;
/// The kernel makes it its least, a few KiB.
const SMALL_BUFFER: usize = 1;
const PAUSE: Duration = Duration::from_secs(1);

/// The connections of a flood. Made and run in the place's namespace.
#[derive(Debug)]
pub struct Sockets {
    runtime: Runtime,
    plan: Plan,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    held: usize,
    connecting: usize,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: FloodKind,
    target: SocketAddr,
    owned: Prefix,
    key: u64,
}

impl Sockets {
    /// Makes what it takes; nothing is tried yet.
    pub fn open(kind: FloodKind, target: SocketAddr, owned: Prefix, seed: u64) -> io::Result<Sockets> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let plan = Plan { kind, target, owned, key: key_of(seed) };
        Ok(Sockets { runtime, plan, bounds: Bounds::within(raise_descriptors()?) })
    }

    /// Tries what is due until the flood ends. Then everything is closed.
    pub fn run(self, shared: &Arc<Shared>, index: usize) {
        let local = LocalSet::new();
        local.block_on(&self.runtime, offer(self.plan, self.bounds, Arc::clone(shared), index));
        // The tasks go before the runtime does, and their sockets with them.
        drop(local);
    }
}

impl Bounds {
    /// For so many descriptors: a connection has one.
    fn within(descriptors: u64) -> Bounds {
        let room = descriptors.saturating_sub(SPARE) as usize;
        let connecting = CONNECTING_MAX.min(room / 4).max(1);
        Bounds { connecting, held: HELD_MAX.min(room - room.min(connecting)) }
    }
}

async fn offer(plan: Plan, bounds: Bounds, shared: Arc<Shared>, index: usize) {
    let mut work = Work::new(&shared, index);
    let (connecting, mut held) = (Arc::new(Semaphore::new(bounds.connecting)), VecDeque::<JoinHandle<()>>::new());
    while let Ok(todo) = work.todo() {
        let wanted = todo.unwrap_or(u64::MAX).min(connecting.available_permits() as u64).min(256);
        for _ in 0..wanted {
            let Ok(permit) = Arc::clone(&connecting).try_acquire_owned() else { break };
            let (number, shared) = (work.done(), Arc::clone(&shared));
            held.push_back(tokio::task::spawn_local(async move {
                let stream = connect(&plan, number).await;
                drop(permit);
                shared.progress(index).count(stream.is_ok());
                if let Ok(stream) = stream {
                    // What the other end makes of it, it does: a connection that ends is a connection less.
                    let _ = hold(plan.kind, stream).await;
                }
            }));
            work.did(1, 0);
        }
        make_room(&mut held, bounds.held + bounds.connecting);
        if wanted == 0 { sleep(work.nap().max(Duration::from_millis(1))).await } else { tokio::task::yield_now().await }
    }
    for task in held {
        task.abort();
    }
}

/// Forgets the oldest that have ended, and ends the oldest beyond the bound. One that ended behind one that lives still counts.
fn make_room(held: &mut VecDeque<JoinHandle<()>>, max: usize) {
    while held.len() > max || held.front().is_some_and(JoinHandle::is_finished) {
        if let Some(oldest) = held.pop_front() {
            oldest.abort();
        }
    }
}

async fn connect(plan: &Plan, number: u64) -> io::Result<TcpStream> {
    let socket = socket(plan, number)?;
    timeout(CONNECT_WITHIN, socket.connect(plan.target)).await?
}

fn socket(plan: &Plan, number: u64) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(plan.target), Type::STREAM.nonblocking().cloexec(), None)?;
    // The port is chosen when the destination is known: the same port at many addresses then, and no search for a free one.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    match plan.target.ip() {
        IpAddr::V4(_) => socket.set_freebind_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    if matches!(plan.kind, FloodKind::ZeroWindow | FloodKind::SlowRead) {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    let drawn = mix(plan.key.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let source = plan.owned.host(u128::from(drawn) << 64 | u128::from(mix(drawn)));
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// What a connection does until it is closed.
async fn hold(kind: FloodKind, mut stream: TcpStream) -> io::Result<()> {
    match kind {
        FloodKind::AckSilent => wait_for_end(&stream).await,
        FloodKind::ZeroWindow => {
            ask(&mut stream).await?;
            std::future::pending().await
        }
        FloodKind::SlowRead => {
            ask(&mut stream).await?;
            while stream.read(&mut [0]).await? > 0 {
                sleep(PAUSE).await;
            }
            Ok(())
        }
        FloodKind::SlowWrite => loop {
            stream.write_all(b"G").await?;
            sleep(PAUSE).await;
        },
        FloodKind::Connect => Ok(()),
        FloodKind::Syn
        | FloodKind::Ack
        | FloodKind::Replay
        | FloodKind::Rst
        | FloodKind::Fin
        | FloodKind::Null
        | FloodKind::Xmas
        | FloodKind::SynData
        | FloodKind::HalfOpen => unreachable!("not made of sockets"),
    }
}

/// Sends what an echo service will send back. It may stop reading when its answers are not read: that ends nothing.
async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    match timeout(PAUSE, stream.write_all(&[b'?'; REQUEST_LEN])).await {
        Ok(written) => written,
        Err(_elapsed) => Ok(()),
    }
}

/// Until the other end has closed or reset the connection. Nothing is taken out of it.
async fn wait_for_end(stream: &TcpStream) -> io::Result<()> {
    while stream.peek(&mut [0]).await? > 0 {
        sleep(PAUSE).await;
    }
    Ok(())
}
