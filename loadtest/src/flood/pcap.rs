//! What a flood would send, as a capture file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::FloodError;
use super::kinds::recipe;
use super::spec::{FloodSpec, Place};
use super::template::FRAME_MAX;

const MAGIC: u32 = 0xa1b2_c3d4; // Microseconds, in the byte order of whoever writes.
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes the first frames of a flood, a microsecond apart, as a classic pcap file.
///
/// # Errors
/// When the file cannot be written, and for a replay or a flood of sockets, whose frames are not known beforehand.
pub fn write_pcap(spec: &FloodSpec, place: &Place, count: u64, path: &Path) -> Result<(), FloodError> {
    let recipe = recipe(spec, place).ok_or(FloodError::NotKnownBeforehand)?;
    let frames = (0..count).map(|number| recipe.frame(number));
    File::create(path).and_then(|file| write(BufWriter::new(file), frames)).map_err(FloodError::io("write a capture"))
}

fn write(mut file: impl Write, frames: impl Iterator<Item = ([u8; FRAME_MAX], usize)>) -> io::Result<()> {
    let version = 2u32 | 4 << 16;
    for word in [MAGIC, version, 0, 0, FRAME_MAX as u32, LINKTYPE_ETHERNET] {
        file.write_all(&word.to_ne_bytes())?;
    }
    for (index, (bytes, len)) in frames.enumerate() {
        for word in [index / 1_000_000, index % 1_000_000, len, len] {
            file.write_all(&(word as u32).to_ne_bytes())?;
        }
        file.write_all(&bytes[..len])?;
    }
    file.flush()
}
