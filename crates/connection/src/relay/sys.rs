//! The system call of the relay that no crate here wraps.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Whether the process ignores SIGPIPE, as Rust's runtime arranges before `main`
/// ([sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html)).
pub(super) fn sigpipe_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and the kernel's answer is written to `action`, which has room for it.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all of `action` was zeroed, and zeros are a `sigaction`.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disposition_of_sigpipe_is_read_from_the_kernel() {
        assert!(sigpipe_is_ignored(), "as the test harness is Rust's");
    }
}
