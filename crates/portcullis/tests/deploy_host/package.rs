//! The Debian package's metadata, without building it: `deploy/debian/build` does that.

use std::fs;
use std::path::Path;

use super::unit::{self, SERVICE};
use super::{repository, said_by, text_of};

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

#[test]
fn an_upgrade_takes_over_instead_of_stopping() {
    let units = metadata()["systemd-units"].clone();
    for (key, expected) in
        [("enable", true), ("start", true), ("restart-after-upgrade", false), ("stop-on-upgrade", false)]
    {
        assert_eq!(units[key].as_bool(), Some(expected), "{key}");
    }
    assert!(text_of("deploy/debian/postinst").contains("portcullis ctl restart --socket /run/portcullis/control.sock"));
}

#[test]
fn scripts_are_good_shell_and_have_a_place_for_the_generated_parts() {
    for script in ["postinst", "postrm"] {
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
