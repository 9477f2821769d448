//! Debian's chromium without a screen, told what to do by the DevTools protocol.
//!
//! Reference: <https://chromedevtools.github.io/devtools-protocol/>. Messages go through two pipes (`--remote-debugging-pipe`), so there is
//! no port to choose or to wait for, and the browser ends with the test.
#![allow(dead_code)] // Each test binary, and the bench that draws the pictures, uses its part of this.

pub mod numbers;
mod pipe;
pub mod scene;

use std::cell::RefCell;
use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use testnet::{Namespace, Process, eventually};

use self::pipe::Pipe;
use super::support::{PATIENCE, Scratch};

/// A running browser. Ends with the handle.
pub struct Browser {
    pipe: RefCell<Pipe>,
    process: RefCell<Process>,
    profile: Scratch,
}

impl Browser {
    /// Starts it in a namespace, with a profile of its own.
    ///
    /// # Panics
    /// Where there is no chromium.
    pub fn start(namespace: &Namespace) -> Browser {
        let chromium = find("chromium").expect("cannot run `chromium`: is Debian's package chromium installed?");
        let profile = Scratch::new();
        let mut command = namespace.command("sh");
        // The protocol's descriptors are 3 (commands) and 4 (answers); a shell can put pipes there.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"]).arg(chromium).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.dir("profile").display()));
        // Whatever it keeps outside of its profile goes where it is removed too.
        command
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path());
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.stderr(File::create(profile.path().join("stderr")).expect("a file for the browser's words"));
        let (pipe, process) = Pipe::spawn(command);
        Browser { pipe: RefCell::new(pipe), process: RefCell::new(process), profile }
    }

    /// Opens a window's first or next tab, empty and in front.
    pub fn tab(&self) -> Tab<'_> {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"}));
        let target = text(&target["targetId"]);
        let session = self.call(None, "Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        let tab = Tab { browser: self, target, session: text(&session["sessionId"]) };
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            tab.call(&format!("{domain}.enable"), json!({}));
        }
        tab
    }

    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let answer = self.pipe.borrow_mut().call(session, method, params);
        answer.unwrap_or_else(|error| panic!("{method}: {error}\nThe browser said last:\n{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let words = fs::read_to_string(self.profile.path().join("stderr")).unwrap_or_default();
        let lines: Vec<_> = words.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Browser {
    /// Asks it to end, which ends its helpers and takes its files; whoever does not hear is killed with its handle.
    fn drop(&mut self) {
        if self.pipe.borrow_mut().call(None, "Browser.close", json!({})).is_ok() {
            self.process.borrow_mut().wait(Duration::from_secs(5));
        }
    }
}

/// A tab.
pub struct Tab<'a> {
    browser: &'a Browser,
    target: String,
    session: String,
}

impl Tab<'_> {
    /// Goes to an address, and waits until what is there has been read.
    pub fn open(&self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url}));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.wait_for("the document", "document.readyState === 'complete'");
    }

    /// The value of a JavaScript expression, or of what it promises.
    ///
    /// # Panics
    /// With what the expression throws.
    pub fn evaluate(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The same as text.
    pub fn text(&self, expression: &str) -> String {
        text(&self.evaluate(expression))
    }

    /// Waits until an expression is true.
    pub fn wait_for(&self, what: &str, expression: &str) {
        eventually(what, PATIENCE, || self.evaluate(&format!("Boolean({expression})")) == json!(true));
    }

    /// Makes the window this wide and high, in CSS pixels.
    pub fn size(&self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// What the user's system prefers: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Presses and releases Enter.
    pub fn press_enter(&self) {
        for kind in ["keyDown", "keyUp"] {
            let params =
                json!({"type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// A PNG of the first `height` pixels of the page.
    pub fn screenshot(&self, height: u32) -> Vec<u8> {
        let width = self.evaluate("document.documentElement.clientWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        from_base64(&text(&self.call("Page.captureScreenshot", params)["data"]))
    }

    /// Puts this tab in front of the window's others.
    pub fn show(&self) {
        self.browser.call(None, "Target.activateTarget", json!({"targetId": self.target}));
    }

    /// Closes it.
    pub fn close(self) {
        self.browser.call(None, "Target.closeTarget", json!({"targetId": self.target}));
    }

    /// Every address that was asked for, since the tab was opened.
    pub fn requests(&self) -> Vec<String> {
        self.events("Network.requestWillBeSent").iter().map(|event| text(&event["request"]["url"])).collect()
    }

    /// What the console has to complain of: errors and warnings, exceptions, violations of the Content-Security-Policy.
    pub fn complaints(&self) -> Vec<Value> {
        let complains = |event: &Value| match event["type"].as_str().or(event["entry"]["level"].as_str()) {
            Some(level) => matches!(level, "error" | "warning" | "assert"),
            None => true,
        };
        ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Audits.issueAdded"]
            .iter()
            .flat_map(|method| self.events(method))
            .filter(complains)
            .collect()
    }

    fn events(&self, method: &str) -> Vec<Value> {
        // Whatever was on its way is here behind the answer to this.
        self.evaluate("0");
        self.browser.pipe.borrow().events(&self.session, method)
    }

    fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }
}

/// No sandbox: tests run as root of a namespace. Nothing that asks the network by itself: there is none.
const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--lang=en",
];

fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text expected, not {value}")).to_owned()
}

/// RFC 4648 §4, of text that is known to be of that form.
fn from_base64(text: &str) -> Vec<u8> {
    let sextet = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        (bits, count) = (bits << 6 | u32::from(sextet(byte)), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
