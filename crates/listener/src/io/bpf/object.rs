//! The programs' object file, made ready for this kernel.

use std::io;

use aya::Btf;
use aya_obj::btf::BtfKind;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/objects/guard.o"));

/// The kernel function that makes a connection of a segment with a valid cookie (Linux 6.9).
const ASSIGN: &str = "bpf_sk_assign_tcp_reqsk";

/// A call of a kernel function whose number is not known yet: `call`, source register 2, and the marker that
/// `bpf/guard/kernel.h` puts where the number belongs.
const MARKED_CALL: [u8; 8] = [0x85, 0x20, 0, 0, 0x01, 0xde, 0xc0, 0x7f];

/// Calls in the object.
const CALLS: usize = 1;

/// The object with the kernel's number for [`ASSIGN`] filled in.
///
/// The loader knows no calls of kernel functions by name yet, so the object has a marker instead of a name, and this puts the
/// number in before the loader reads it.
///
/// # Errors
/// `Unsupported` where the kernel has no such function: before Linux 6.9, or without BTF.
pub(super) fn for_this_kernel() -> io::Result<Vec<u8>> {
    let unsupported = |what: &str, error: &dyn std::error::Error| {
        io::Error::new(io::ErrorKind::Unsupported, format!("{what}: {error}"))
    };
    let btf = Btf::from_sys_fs().map_err(|error| unsupported("no BTF at /sys/kernel/btf/vmlinux", &error))?;
    let number = btf
        .id_by_type_name_kind(ASSIGN, BtfKind::Func)
        .map_err(|error| unsupported("the kernel has no bpf_sk_assign_tcp_reqsk (Linux 6.9)", &error))?;
    fill_in(OBJECT, number)
}

fn fill_in(object: &[u8], number: u32) -> io::Result<Vec<u8>> {
    let mut object = object.to_vec();
    let mut calls = 0;
    // Instructions are eight bytes, and their sections are aligned so.
    for instruction in object.chunks_exact_mut(8).filter(|bytes| **bytes == MARKED_CALL) {
        instruction[4..].copy_from_slice(&number.to_le_bytes());
        calls += 1;
    }
    if calls == CALLS {
        Ok(object)
    } else {
        Err(io::Error::other(format!("the eBPF object calls {ASSIGN} {calls} times, not {CALLS}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_is_replaced() {
        let object = fill_in(OBJECT, 0x1234_5678).unwrap();
        assert!(!object.chunks_exact(8).any(|bytes| bytes == MARKED_CALL));
        let filled = [0x85, 0x20, 0, 0, 0x78, 0x56, 0x34, 0x12];
        assert_eq!(object.chunks_exact(8).filter(|bytes| **bytes == filled).count(), CALLS);
        assert_eq!(object.len(), OBJECT.len());
    }

    #[test]
    fn an_object_without_the_call_is_refused() {
        assert!(fill_in(&[0; 64], 1).is_err());
    }
}
