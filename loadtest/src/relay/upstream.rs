//! The upstream: one thread that does with each connection what its first byte asks for.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};
use testnet::Namespace;

use super::peer::{Bulk, Purpose};
use crate::lab::bind_to;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// What the listening socket's events are called; descriptors are smaller.
const LISTENER: u64 = u64::MAX;
/// How long it may take to notice that it is to end, in milliseconds.
const NOTICE_MS: u8 = 50;
/// Bytes echoed at a time: more than any request has.
const ECHO_LEN: usize = 4096;

/// A running upstream. Dropped, it ends, and its connections with it.
#[derive(Debug)]
pub struct Upstream {
    sunk: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens, and serves on these cores from now on.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(namespace: &Namespace, address: SocketAddr, cores: &[usize]) -> io::Result<Upstream> {
        let listener = namespace.run(|| listen(address))?;
        let (sunk, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut server = Server {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener,
            connections: HashMap::new(),
            bulk: Bulk::new()?,
            sunk: Arc::clone(&sunk),
        };
        server.epoll.add(&server.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let (cores, stopped) = (cores.to_vec(), Arc::clone(&stop));
        let run = move || {
            let _ = bind_to(&cores); // With shared cores it is slower.
            while !stopped.load(Ordering::Relaxed) && server.turn().is_ok() {}
        };
        let thread = thread::Builder::new().name("upstream".into()).spawn(run)?;
        Ok(Upstream { sunk, stop, thread: Some(thread) })
    }

    /// Bytes that were uploaded so far.
    pub fn sunk_bytes(&self) -> u64 {
        self.sunk.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join); // Its panic has been shown.
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

struct Server {
    epoll: Epoll,
    listener: Socket,
    /// By their descriptors. `None`: the first byte has not come.
    connections: HashMap<u64, (TcpStream, Option<Purpose>)>,
    bulk: Bulk,
    sunk: Arc<AtomicU64>,
}

impl Server {
    /// Serves what is ready.
    fn turn(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::from(NOTICE_MS)) {
            Err(nix::errno::Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in &events[..ready] {
            match event.data() {
                LISTENER => self.accept_all()?,
                // A connection that fails ends, and is the client's to count.
                id => match self.serve(id) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => drop(self.connections.remove(&id)),
                },
            }
        }
        Ok(())
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((socket, _relay)) => TcpStream::from(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let id = stream.as_raw_fd() as u64;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            self.connections.insert(id, (stream, None));
        }
    }

    /// Whether the connection goes on.
    fn serve(&mut self, id: u64) -> io::Result<bool> {
        let Some((stream, purpose)) = self.connections.get_mut(&id) else { return Ok(true) };
        match purpose {
            None => {
                let mut first = [0; ECHO_LEN];
                // One byte tells; what else has come with it belongs to it.
                let len = match stream.read(&mut first) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    len => len?,
                };
                let Some(found) = first[..len].first().and_then(|&first| Purpose::of(first)) else { return Ok(false) };
                *purpose = Some(found);
                match found {
                    Purpose::Echo => stream.write_all(&first[..len])?,
                    Purpose::Sink => drop(self.sunk.fetch_add(len as u64, Ordering::Relaxed)),
                    Purpose::Source => {
                        self.epoll.modify(&*stream, &mut EpollEvent::new(EpollFlags::EPOLLOUT, id))?;
                    }
                }
                Ok(true)
            }
            Some(Purpose::Echo) => echo(stream),
            Some(Purpose::Source) => self.bulk.send(stream).map(|_| true),
            Some(Purpose::Sink) => {
                let len = self.bulk.discard(stream)?;
                self.sunk.fetch_add(len.unwrap_or(0) as u64, Ordering::Relaxed);
                Ok(len != Some(0))
            }
        }
    }
}

/// Sends back what has come, which is little: a client waits for each answer.
fn echo(stream: &mut TcpStream) -> io::Result<bool> {
    let mut bytes = [0; ECHO_LEN];
    match stream.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(len) => stream.write_all(&bytes[..len]).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
