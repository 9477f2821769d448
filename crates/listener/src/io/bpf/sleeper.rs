//! How the keeper sleeps: woken by what does not wait, and not by every report.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waking {
    Reports,
    Orders,
    Links,
}

const ALL: [Waking; 3] = [Waking::Reports, Waking::Orders, Waking::Links];

pub(super) struct Sleeper(Epoll);

impl Sleeper {
    /// Of the reports it takes notice when a program says that one does not wait (edge-triggered), not whenever there are any.
    pub(super) fn new(reports: impl AsFd, orders: impl AsFd, links: impl AsFd) -> io::Result<Sleeper> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = |what: Waking, more: EpollFlags| EpollEvent::new(EpollFlags::EPOLLIN | more, what as u64);
        epoll.add(reports, event(Waking::Reports, EpollFlags::EPOLLET))?;
        epoll.add(orders, event(Waking::Orders, EpollFlags::empty()))?;
        epoll.add(links, event(Waking::Links, EpollFlags::empty()))?;
        Ok(Sleeper(epoll))
    }

    /// Sleeps so long at most. An interrupted or failed sleep only means one look too many.
    pub(super) fn sleep(&self, longest: Duration) -> [Option<Waking>; 3] {
        let mut events = [EpollEvent::empty(); 3];
        let timeout = EpollTimeout::try_from(longest).unwrap_or(EpollTimeout::from(50u8));
        let count = self.0.wait(&mut events, timeout).unwrap_or(0);
        std::array::from_fn(|index| {
            let event = events[..count].get(index)?;
            ALL.into_iter().find(|what| *what as u64 == event.data())
        })
    }
}
