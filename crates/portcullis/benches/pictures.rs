//! Draws the pictures of docs/live-page.md: a real door with visitors, calm and then flooded, looked at in a real browser.
//!
//! `PORTCULLIS_WRITE_DOCS=1 cargo bench -p portcullis --bench pictures --profile dev`. Takes a little more than a minute, and needs Debian's chromium. What
//! the page shows is judged by the tests (`e2e_page`); here it is only seen to that the pictures are of what the documentation says.

#[path = "../tests/browser/mod.rs"]
mod browser;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use browser::numbers::wait_for_samples;
use browser::scene::{TITLE, Until, attack, door, page};
use browser::{Browser, Tab};
use support::{Lab, Scratch, V4, exchange};

/// Until the page knows what is usual, which takes 20 seconds of calm, and has lines to show.
const CALM: Duration = Duration::from_secs(35);
/// Until the attack is as long as the calm before it.
const ATTACKED: Duration = Duration::from_secs(30);
/// Forged SYNs per second; a busy machine makes fewer.
const ATTACK_RATE: u32 = 20_000;

fn main() -> io::Result<()> {
    testnet::enter_namespaces()?;
    let pictures = Pictures::new()?;
    let (lab, scratch, stop) = (Lab::new(), Scratch::new(), AtomicBool::new(false));
    let _door = door(&lab, &scratch, &[("web", 8080, "service = \"http\"")]);
    let browser = Browser::start(&lab.server);
    let tab = page(&browser);
    thread::scope(|scope| {
        let _visitors = visitors(scope, &lab, &stop);
        thread::sleep(CALM);
        assert_eq!(tab.text(TITLE), "Calm");
        pictures.draw(&tab, "page-calm.png", (1280, 880), "light")?;
        let _attack = attack(scope, &lab, &stop, ATTACK_RATE);
        thread::sleep(ATTACKED);
        assert_eq!(tab.text(TITLE), "Under attack: users get in");
        pictures.draw(&tab, "page-flood.png", (1280, 1120), "light")?;
        pictures.draw(&tab, "page-phone-dark.png", (360, 1420), "dark")
    })
}

/// Where the pictures go.
struct Pictures(PathBuf);

impl Pictures {
    /// The documentation's if they are asked for; else, as with all the benches of the package, a scratch directory.
    fn new() -> io::Result<Pictures> {
        let is_asked_for = std::env::var("PORTCULLIS_WRITE_DOCS").is_ok_and(|value| value == "1");
        let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images");
        let directory =
            if is_asked_for { documentation } else { Path::new(env!("CARGO_TARGET_TMPDIR")).join("images") };
        fs::create_dir_all(&directory)?;
        Ok(Pictures(directory.canonicalize()?))
    }

    /// Draws the upper part of the page, so wide and so high, as in a system of that colour scheme.
    fn draw(&self, tab: &Tab<'_>, name: &str, (width, height): (u32, u32), scheme: &str) -> io::Result<()> {
        tab.size(width, 900);
        tab.prefer(scheme);
        // What is drawn when the size changes moves to its place.
        wait_for_samples(tab, 1);
        let path = self.0.join(name);
        fs::write(&path, tab.screenshot(height))?;
        println!("{}", path.display());
        Ok(())
    }
}

/// Visitors of the `http` service, some forty a second: each takes a second to ask for the page, and reads it.
fn visitors<'a>(scope: &'a Scope<'a, '_>, lab: &'a Lab, stop: &'a AtomicBool) -> Until<'a> {
    const COUNT: u32 = 40;
    for at in 0..COUNT {
        scope.spawn(move || {
            thread::sleep(Duration::from_secs(1) * at / COUNT); // Not all at once.
            while !stop.load(Ordering::Relaxed) {
                let mut stream = lab.connect(V4);
                thread::sleep(Duration::from_secs(1));
                let page = exchange(&mut stream, b"GET / HTTP/1.0\r\n\r\n").expect("a page");
                assert!(page.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&page));
            }
        });
    }
    Until(stop)
}
