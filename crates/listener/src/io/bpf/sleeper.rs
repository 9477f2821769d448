//! How the keeper sleeps: woken by what does not wait, and not by every report.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What an event of the orders is told apart by.
const ORDERS: u64 = 1;
const OTHER: u64 = 0;

pub(super) struct Sleeper(Epoll);

impl Sleeper {
    /// Of the reports it takes notice when a program says that one does not wait (edge-triggered), not whenever there are any.
    pub(super) fn new(reports: impl AsFd, orders: impl AsFd, links: impl AsFd) -> io::Result<Sleeper> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(reports, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, OTHER))?;
        epoll.add(orders, EpollEvent::new(EpollFlags::EPOLLIN, ORDERS))?;
        epoll.add(links, EpollEvent::new(EpollFlags::EPOLLIN, OTHER))?;
        Ok(Sleeper(epoll))
    }

    /// Sleeps so long at most; whether an order has come. An interrupted or failed sleep only means one look too many.
    pub(super) fn sleep(&self, longest: Duration) -> bool {
        let mut events = [EpollEvent::empty(); 3];
        let timeout = EpollTimeout::try_from(longest).unwrap_or(EpollTimeout::from(50u8));
        let count = self.0.wait(&mut events, timeout).unwrap_or(0);
        events[..count].iter().any(|event| event.data() == ORDERS)
    }
}
