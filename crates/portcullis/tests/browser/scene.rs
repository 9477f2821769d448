//! What the page is looked at with: a door of some listeners, the page in a tab, and an attacker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use testnet::{Flags, Segment, XorShift, eventually_seen, options};

use super::super::support::{Door, Lab, Scratch, V4};
use super::{Browser, Tab};

/// Where the page is.
pub const PAGE: &str = "http://127.0.0.1:9464/";

/// The verdict's title, and all that it says, as expressions.
pub const TITLE: &str = "document.getElementById('title').textContent";
const VERDICT: &str = "[...document.querySelectorAll('#title, #reasons li')].map(line => line.textContent)";

/// A door with these listeners, each of a name, a port and further keys.
pub fn door(lab: &Lab, scratch: &Scratch, listeners: &[(&str, u16, &str)]) -> Door {
    Door::configured(lab, &scratch.file("portcullis.toml", &configuration(listeners)))
}

fn configuration(listeners: &[(&str, u16, &str)]) -> String {
    let listener = |(name, port, keys): &(&str, u16, &str)| {
        format!("[[listener]]\nname = \"{name}\"\nbind = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n{keys}\n")
    };
    listeners.iter().map(listener).collect()
}

/// The page, with two samples or more, so that there are rates.
pub fn page(browser: &Browser) -> Tab<'_> {
    let tab = browser.tab();
    tab.size(1280, 900);
    tab.open(PAGE);
    tab.wait_for("rates", "samples.length > 1");
    tab
}

/// Waits until the verdict has this title.
pub fn wait_for_title(tab: &Tab<'_>, title: &str) {
    eventually_seen(
        &format!("the title {title:?}"),
        Duration::from_secs(40),
        || tab.evaluate(VERDICT),
        |verdict| verdict[0] == title,
    );
}

/// Tells what runs beside to stop when it is dropped, also when something fails.
pub struct Until<'a>(pub &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An attacker: so many forged SYNs per second, in small bursts, each from another address.
pub fn attack<'a>(scope: &'a Scope<'a, '_>, lab: &'a Lab, stop: &'a AtomicBool, rate: u32) -> Until<'a> {
    const BURSTS: u32 = 100;
    // The forged addresses lie behind the client, as behind a router.
    lab.server.ip("route replace 198.19.0.0/16 via 198.18.0.2");
    let host = lab.raw_host(V4);
    scope.spawn(move || {
        let mut random = XorShift::new(7);
        while !stop.load(Ordering::Relaxed) {
            (0..rate / BURSTS).for_each(|_| host.send(&forged_syn(&mut random)));
            thread::sleep(Duration::from_secs(1) / BURSTS);
        }
    });
    Until(stop)
}

fn forged_syn(random: &mut XorShift) -> Segment {
    let [_, _, _, _, high, low, port_high, port_low] = random.next_u64().to_be_bytes();
    let source = ([198, 19, high, low.max(1)], u16::from_be_bytes([port_high | 4, port_low])).into();
    Segment::new(source, V4, Flags::SYN).seq(random.next_u64() as u32).options(options::typical_syn(1460, 1))
}
