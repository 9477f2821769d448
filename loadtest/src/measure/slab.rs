//! The kernel's memory of half-open connections, by `/proc/slabinfo`.

use std::fs;

/// What there is of request socks, of both families, on the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSocks {
    /// How many. The kernel keeps some in reserve for each core and counts these, so about.
    pub count: u64,
    /// Memory of the slabs in which they lie.
    pub bytes: u64,
}

impl RequestSocks {
    /// Now; `None` where the file cannot be read (it is root's).
    pub fn now() -> Option<RequestSocks> {
        fs::read_to_string("/proc/slabinfo").ok().map(|text| parse(&text))
    }

    /// What there is more than there was.
    pub fn since(&self, earlier: &RequestSocks) -> RequestSocks {
        RequestSocks {
            count: self.count.saturating_sub(earlier.count),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// `name active_objs num_objs objsize objperslab pagesperslab : tunables l b s : slabdata active_slabs num_slabs sharedavail`
fn parse(text: &str) -> RequestSocks {
    const PAGE_BYTES: u64 = 4096;
    let mut sum = RequestSocks::default();
    for line in text.lines().filter(|line| line.starts_with("request_sock_TCP")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let slabs = line.split("slabdata").nth(1).and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        sum.count += at(1);
        sum.bytes += slabs.unwrap_or(0) * at(5) * PAGE_BYTES;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_count_and_nothing_else() {
        let text = "slabinfo - version: 2.1\nTCP 9 9 2560 12 8 : tunables 0 0 0 : slabdata 1 1 0\n\
                    request_sock_TCP 24 26 312 13 1 : tunables 0 0 0 : slabdata 2 2 0\n\
                    request_sock_TCPv6 1 13 312 13 1 : tunables 0 0 0 : slabdata 1 1 0\n";
        assert_eq!(parse(text), RequestSocks { count: 25, bytes: 3 * 4096 });
        assert_eq!(parse(text).since(&RequestSocks { count: 30, bytes: 0 }).count, 0);
    }
}
