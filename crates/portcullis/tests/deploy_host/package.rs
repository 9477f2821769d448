//! The Debian package's metadata, without building it: `deploy/debian/build` does that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::support::Scratch;
use super::unit::{self, SERVICE};
use super::{repository, said_by, text_of, tool};

/// What `deploy/debian/build` makes.
const STAGE: &str = "../../deploy/debian/stage/";

fn metadata() -> toml::Table {
    let manifest: toml::Table = text_of("crates/portcullis/Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().expect("[package.metadata.deb]").clone()
}

fn assets() -> Vec<[String; 3]> {
    let assets = metadata()["assets"].as_array().expect("assets").clone();
    let part = |asset: &toml::Value, index: usize| asset[index].as_str().expect("a string").to_owned();
    assets.iter().map(|asset| [0, 1, 2].map(|index| part(asset, index))).collect()
}

/// Where a source of the repository goes.
fn destination(source: &str) -> String {
    let found = assets().into_iter().find(|[from, _, _]| from.ends_with(source));
    found.unwrap_or_else(|| panic!("no asset {source}"))[1].clone()
}

/// A file name with `?` for any one character; the name itself with a backslash would be an escape.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.chars().count() == name.chars().count()
        && pattern.chars().zip(name.chars()).all(|(p, n)| p == '?' || p == n)
}

#[test]
fn assets_of_the_repository_are_there() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    for [source, _, mode] in assets() {
        if source.starts_with("target/release/") || source.starts_with(STAGE) {
            continue;
        }
        let path = crate_dir.join(&source);
        let pattern = path.file_name().unwrap().to_str().unwrap();
        let entries = fs::read_dir(path.parent().unwrap()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| fits(pattern, name)).count(), 1, "{source}");
        assert_eq!(mode, "644", "{source} is no program");
    }
}

#[test]
fn staged_assets_are_made_by_the_build() {
    let build = text_of("deploy/debian/build");
    assert!(build.contains("deploy/debian/stage"));
    let staged: Vec<_> =
        assets().into_iter().filter_map(|[source, _, _]| source.strip_prefix(STAGE).map(str::to_owned)).collect();
    assert!(staged.len() >= 5, "{staged:?}");
    for source in staged {
        let file = source.split('*').next().unwrap().trim_end_matches('/');
        assert!(build.contains(&format!("$package/{file}")), "{source} is made nowhere");
    }
}

#[test]
fn files_go_where_the_unit_and_others_look_for_them() {
    assert_eq!(destination("target/release/portcullis"), "usr/bin/");
    let configured = format!("/{}", destination("deploy/portcullis.toml"));
    assert!(unit::values(&text_of(SERVICE), "ExecStart")[0].ends_with(&configured), "{configured}");
    // cargo-deb takes what goes to /etc as a configuration file of dpkg's, which an upgrade leaves to the operator.
    assert!(configured.starts_with("/etc/"));
    // Under the units' directory cargo-deb would start it with the package.
    assert!(!destination("bpf.mount").contains("systemd/system"));
    let rotated = text_of("deploy/debian/logrotate");
    assert!(rotated.contains("/var/log/portcullis/*.log {") && rotated.contains("copytruncate"), "{rotated}");
}

/// What the maintainer scripts of an installation, an upgrade or a removal call, where the service is in that state, beside
/// `daemon-reload` and what only asks.
fn calls(scripts: &[(&str, &[&str])], is_active: bool, policy: Option<i32>) -> Vec<String> {
    let scratch = Scratch::new();
    let root = scratch.path().to_str().unwrap().to_owned();
    let stub = |name: &str, body: &str| {
        scratch.file(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(scratch.path().join(name), Permissions::from_mode(0o755)).unwrap();
    };
    let note = format!("echo \"$(basename \"$0\") $*\" >>{root}/calls");
    let active = if is_active { "exit 0" } else { "exit 3" };
    stub("systemctl", &format!("case $* in *is-active*) {active};; esac\n{note}"));
    for name in ["deb-systemd-invoke", "portcullis"] {
        stub(name, &note);
    }
    scratch.dir("usr");
    scratch.dir("usr/sbin");
    if let Some(code) = policy {
        stub("usr/sbin/policy-rc.d", &format!("[ \"$*\" = \"portcullis restart\" ] || exit 1\nexit {code}"));
    }
    scratch.file("calls", "");
    for directory in ["var/lib/portcullis", "var/log/portcullis", "run/portcullis", "etc/portcullis"] {
        fs::create_dir_all(scratch.path().join(directory)).unwrap();
    }
    scratch.file("var/lib/portcullis/master.key", "secret");
    for (script, arguments) in scripts {
        let mut text = text_of(&format!("deploy/debian/{script}")).replace("-d /run/systemd/system", "-d /");
        for place in ["/run/portcullis", "/var/lib/portcullis", "/var/log/portcullis", "/etc/portcullis", "/usr/sbin/"]
        {
            text = text.replace(&format!(" {place}"), &format!(" {root}{place}"));
            text = text.replace(&format!("\t{place}"), &format!("\t{root}{place}"));
        }
        let removed = text.lines().map(str::trim_start).filter(|line| line.starts_with("rm"));
        let mut removed =
            removed.flat_map(str::split_whitespace).filter(|word| word.starts_with('/') && !word.starts_with("/dev/"));
        assert!(removed.all(|path| path.starts_with(&root)), "nothing of this host's is removed: {text}");
        let path = scratch.path().join("script");
        fs::write(&path, text).unwrap();
        let mut shell = Command::new("sh");
        shell.arg(&path).args(*arguments).env("PATH", format!("{root}:{}", std::env::var("PATH").unwrap()));
        let output = shell.output().expect("sh");
        assert!(output.status.success(), "{script} {arguments:?}: {output:?}");
    }
    let kept = scratch.path().join("var/lib/portcullis/master.key").exists();
    let calls = fs::read_to_string(scratch.path().join("calls")).unwrap();
    let calls = calls.lines().filter(|line| !line.ends_with("daemon-reload")).map(str::to_owned);
    calls.chain((!kept).then(|| "the key is gone".to_owned())).collect()
}

const INSTALL: [(&str, &[&str]); 2] = [("preinst", &["install"]), ("postinst", &["configure", ""])];
/// Of a package that was removed and not purged: dpkg tells postinst the version, as at an upgrade.
const INSTALL_AGAIN: [(&str, &[&str]); 2] =
    [("preinst", &["install", "0.1.0-1", "0.1.1-1"]), ("postinst", &["configure", "0.1.0-1"])];
const UPGRADE: [(&str, &[&str]); 2] =
    [("preinst", &["upgrade", "0.1.0-1", "0.1.1-1"]), ("postinst", &["configure", "0.1.0-1"])];

const START: &str = "deb-systemd-invoke start portcullis.service";

#[test]
fn an_installation_starts_it() {
    assert_eq!(calls(&INSTALL, false, None), [START]);
    assert_eq!(calls(&INSTALL_AGAIN, false, None), [START]);
    assert_eq!(
        calls(&[UPGRADE[0], INSTALL[0], INSTALL[1]], false, None),
        [START],
        "the note of a broken upgrade is gone"
    );
}

#[test]
fn an_upgrade_takes_over_once_from_what_runs_and_leaves_stopped_what_was_stopped() {
    let taken = calls(&UPGRADE, true, None);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(taken[0].starts_with("portcullis ctl restart --socket "), "{taken:?}");
    assert!(text_of("deploy/debian/postinst").contains(" ctl restart --socket /run/portcullis/control.sock "));
    assert_eq!(calls(&UPGRADE, false, None), [""; 0]);
    // What cargo-deb generates does not: it starts at every upgrade.
    let units = metadata()["systemd-units"].clone();
    for (key, expected) in
        [("enable", true), ("start", false), ("restart-after-upgrade", false), ("stop-on-upgrade", false)]
    {
        assert_eq!(units[key].as_bool(), Some(expected), "{key}");
    }
}

#[test]
fn an_upgrade_asks_the_policy_of_the_host() {
    for (policy, allowed) in [(0, true), (104, true), (101, false), (106, false)] {
        assert_eq!(calls(&UPGRADE, true, Some(policy)).len(), usize::from(allowed), "policy-rc.d says {policy}");
    }
}

#[test]
fn a_removal_keeps_the_key_and_a_purge_deletes_it() {
    assert_eq!(calls(&[("postrm", &["remove"])], false, None), [""; 0]);
    assert_eq!(calls(&[("postrm", &["purge"])], false, None), ["the key is gone"]);
}

#[test]
fn what_is_recommended_is_what_fail_closed_runs() {
    assert_eq!(metadata()["recommends"].as_array().unwrap()[..], ["nftables".into()]);
    assert!(tool("nft", "nftables", &["--version"]).status.success(), "which has that program");
}

#[test]
fn scripts_are_good_shell_and_have_a_place_for_the_generated_parts() {
    for script in ["preinst", "postinst", "postrm"] {
        let path = repository().join("deploy/debian").join(script);
        assert_eq!(text_of(&format!("deploy/debian/{script}")).matches("\n#DEBHELPER#\n").count(), 1, "{script}");
        said_by("sh", "dash", &["-n", path.to_str().unwrap()]);
    }
    for script in ["deploy/debian/build", "deploy/systemd/try"] {
        said_by("bash", "bash", &["-n", repository().join(script).to_str().unwrap()]);
    }
}

#[test]
fn changelog_and_program_have_the_same_version() {
    let changelog = text_of("deploy/debian/changelog");
    let version = env!("CARGO_PKG_VERSION");
    assert!(changelog.starts_with(&format!("portcullis ({version}-")), "{changelog}");
}

/// What the links of a page point to, without those to the Web and those within it.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://") && !file.contains(char::is_whitespace)).collect()
}

#[test]
fn links_of_the_pages_in_the_package_lead_to_pages_in_the_package_or_to_the_web() {
    let scratch = Scratch::new();
    let script = repository().join("deploy/debian/pages");
    said_by("sh", "dash", &[script.to_str().unwrap(), scratch.path().to_str().unwrap()]);
    let mut count = 0;
    for directory in ["", "runbooks", "decisions"].map(|name| scratch.path().join(name)) {
        let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        for page in entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
            let text = fs::read_to_string(&page).unwrap();
            for link in links(&text) {
                count += 1;
                assert!(directory.join(link).exists(), "{}: {link}", page.display());
            }
            let web = "https://github.com/portcullis-tcp/portcullis/blob/main/";
            for rest in text.split(web).skip(1) {
                let path = rest.split([')', '#']).next().unwrap();
                assert!(repository().join(path).exists(), "{}: {path} on the Web", page.display());
            }
        }
    }
    assert!(count > 100, "{count} links");
}
