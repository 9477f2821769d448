//! Frames and descriptors over a Unix socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use listener::io::{recv_descriptor, send_descriptor};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame: the half-open entries of one worker, 4,194,304 of them at the most, by IPv6.
const FRAME_BYTES_MAX: u32 = 256 << 20;

/// One end of the conversation. Each end is given up on after a time without a word.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// Over a connected socket that blocks.
    ///
    /// # Errors
    /// Of setsockopt(2).
    pub fn new(stream: UnixStream, patience: Duration) -> io::Result<Channel> {
        stream.set_nonblocking(false)?;
        let channel = Channel(stream);
        channel.set_patience(patience)?;
        Ok(channel)
    }

    /// From now on each end is given up on after this time.
    ///
    /// # Errors
    /// Of setsockopt(2).
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// Sends a line, as the control protocol has it.
    pub fn send_line(&self, line: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        (&self.0).write_all(&line)
    }

    /// Reads a line of at most so many bytes, and not a byte beyond it.
    pub fn recv_line(&self, max: usize) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if line.len() == max {
                return Err(io::Error::new(ErrorKind::InvalidData, format!("a line of more than {max} bytes")));
            }
            let mut byte = [0];
            (&self.0).read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(line)
    }

    /// Sends a message.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_bytes(&serde_json::to_vec(message)?)
    }

    /// Receives a message.
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.recv_bytes()?)?)
    }

    /// Sends a frame.
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a frame is too long"))?;
        (&self.0).write_all(&length.to_be_bytes())?;
        (&self.0).write_all(bytes)
    }

    /// Receives a frame.
    pub fn recv_bytes(&self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        (&self.0).read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a frame is too long"));
        }
        let mut bytes = Vec::new();
        (&self.0).take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    /// Sends a descriptor.
    pub fn send_descriptor(&self, descriptor: &impl AsFd) -> io::Result<()> {
        send_descriptor(&self.0, descriptor.as_fd())
    }

    /// Receives a descriptor.
    pub fn recv_descriptor(&self) -> io::Result<OwnedFd> {
        recv_descriptor(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::takeover::message::{Report, Stopped};

    #[test]
    fn frames_descriptors_and_lines_come_as_they_were_sent() {
        let (here, there) = UnixStream::pair().unwrap();
        let [here, there] = [here, there].map(|end| Channel::new(end, Duration::from_secs(10)).unwrap());
        here.send_line(&"begin").unwrap();
        here.send(&Report::Failed { message: "no".to_owned() }).unwrap();
        here.send_descriptor(&std::io::stdin()).unwrap();
        here.send_bytes(&[7; 3]).unwrap();
        here.send(&Stopped { listeners: vec![vec![[1, 2]]] }).unwrap();
        assert_eq!(there.recv_line(100).unwrap(), b"\"begin\"\n");
        assert_eq!(there.recv::<Report>().unwrap(), Report::Failed { message: "no".to_owned() });
        there.recv_descriptor().unwrap();
        assert_eq!(there.recv_bytes().unwrap(), [7; 3]);
        assert_eq!(there.recv::<Stopped>().unwrap().listeners, [vec![[1, 2]]]);
        drop(here);
        assert_eq!(there.recv::<Report>().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_without_an_end_and_a_frame_without_bound_are_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let there = Channel::new(there, Duration::from_secs(10)).unwrap();
        here.write_all(&[b'x'; 20]).unwrap();
        assert_eq!(there.recv_line(16).unwrap_err().kind(), ErrorKind::InvalidData);
        here.write_all(&[0xff; 4]).unwrap();
        assert_eq!(there.recv_bytes().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
