//! Debian's `prometheus` and `promtool`.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testnet::{Namespace, Process, eventually, http_get};

use super::files;
use crate::support::PATIENCE;

/// Runs promtool in deploy/prometheus, and fails with all that it says if it finds anything.
pub fn promtool<S: AsRef<OsStr>>(arguments: &[&str], files: impl IntoIterator<Item = S>) {
    let mut command = Command::new("promtool");
    command.args(arguments).args(files).current_dir(files::path("deploy/prometheus"));
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("promtool: {error}; it must be installed (Debian: apt-get install prometheus)");
    });
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
}

/// A Prometheus in a namespace, with the rules of deploy/prometheus. It scrapes and judges once a second.
pub struct Prometheus {
    process: Process,
    namespace: Namespace,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts with deploy/prometheus/prometheus.yml, but for the intervals and for what it scrapes, and waits until it is ready.
    pub fn start(namespace: &Namespace, scratch: &Path, target: SocketAddr) -> Prometheus {
        let rules = scratch.join("rules");
        for dir in [&rules, &scratch.join("targets")] {
            fs::create_dir(dir).expect("make a directory");
        }
        for rule in files::in_directory("deploy/prometheus/rules", ".yml") {
            fs::copy(files::path(&rule), rules.join(files::stem(&rule)).with_extension("yml")).expect("copy the rules");
        }
        fs::write(scratch.join("targets/portcullis.yml"), format!("- targets: [\"{target}\"]\n"))
            .expect("write the target");
        let config = files::text("deploy/prometheus/prometheus.yml")
            .replace("scrape_interval: 15s", "scrape_interval: 1s")
            .replace("evaluation_interval: 15s", "evaluation_interval: 1s")
            .replace("scrape_timeout: 5s", "scrape_timeout: 1s");
        assert_eq!(config.matches(": 1s").count(), 3, "the intervals stand elsewhere now:\n{config}");
        fs::write(scratch.join("prometheus.yml"), config).expect("write the configuration");
        let address = SocketAddr::from(([127, 0, 0, 1], 9090));
        let mut command = namespace.command("prometheus");
        command.arg("--config.file").arg(scratch.join("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(scratch.join("data"));
        command.args(["--web.listen-address", &address.to_string(), "--log.level", "warn"]);
        let process = Process::spawn(command).unwrap_or_else(|error| {
            panic!("prometheus: {error}; it must be in $PATH (Debian: apt-get install prometheus)");
        });
        let mut prometheus = Prometheus { process, namespace: namespace.clone(), address };
        eventually("prometheus is ready", PATIENCE, || {
            assert!(!prometheus.process.has_ended(), "prometheus ended before it was ready; its last words are above");
            matches!(prometheus.get("/-/ready"), Ok((200, _)))
        });
        prometheus
    }

    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        http_get(&self.namespace, self.address, path)
    }

    /// The answer of the API, or what it says is wrong.
    fn api(&self, path: &str) -> Result<Value, String> {
        let (_, body) = self.get(path).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The values of an instant query, now; NaN and infinities are among them.
    pub fn query(&self, expr: &str) -> Result<Vec<f64>, String> {
        let data = self.api(&format!("/api/v1/query?query={}", percent_encoded(expr)))?;
        assert_eq!(data["resultType"], "vector", "{expr}");
        let number = |sample: &Value| sample["value"][1].as_str().expect("a value").parse().expect("a number");
        Ok(files::list(&data, "result").iter().map(number).collect())
    }

    /// The rules as Prometheus sees them: groups of rules with their health.
    pub fn rules(&self) -> Vec<Value> {
        let data = self.api("/api/v1/rules").expect("the rules");
        files::list(&data, "groups").iter().flat_map(|group| files::list(group, "rules").to_vec()).collect()
    }
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encoded).collect()
}
