//! deploy/container and deploy/kubernetes, held against the binary, the documents and each other.
//!
//! That an image can be built and runs, and that an API server would take the manifests, is for deploy/container/try and
//! deploy/kubernetes/validate, which need more than a test may ask for.

mod binary;
mod cluster;
mod support;

#[path = "deploy_cluster/flood.rs"]
mod flood;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use testnet::{Namespace, http_get};

use binary::{Server, code, output, stderr};
use cluster::compose::{COMPOSE, IMAGE, compose, doors, seconds, services};
use cluster::files::{at, below, list_at, repository, text, text_at, texts_at, yaml};
use cluster::image::Image;
use cluster::manifests::{KUBERNETES, OVERLAYS, container, daemonset, pod, settings_path};
use cluster::settings::{Settings, port};

/// Checks that the command line parses. `--help` comes last, so everything before it has been.
fn assert_understood(args: &[&str]) {
    let help = output(&[args, &["--help"]].concat());
    assert_eq!(code(&help), 0, "{args:?}: {}", stderr(&help));
}

/// A container's arguments, with what Kubernetes puts in for its variable.
fn arguments(container: &Value) -> Vec<String> {
    texts_at(container, "/args").iter().map(|arg| arg.replace("$(HOST_IP)", "192.0.2.7")).collect()
}

fn names(texts: Vec<&str>) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

#[test]
fn every_yaml_file_is_one_document_without_a_key_twice() {
    let files = [below("deploy/container", ".yml"), below(KUBERNETES, ".yaml")].concat();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        assert!(yaml(&file).is_object(), "{file}");
    }
}

#[test]
fn every_configuration_passes_the_check() {
    let files = [below("deploy/container", ".toml"), below(KUBERNETES, ".toml")].concat();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let output = output(&["check", repository(&file).to_str().unwrap()]);
        assert_eq!(code(&output), 0, "{file}: {}", stderr(&output));
    }
}

#[test]
fn every_command_line_is_understood() {
    let image = Image::read();
    let command = image.list("CMD");
    let health = image.list("HEALTHCHECK");
    let compose = compose();
    let mut all = vec![command, health[1..].to_vec()];
    all.extend(
        doors(&compose)
            .values()
            .map(|door| texts_at(door, "/command").into_iter().map(str::to_owned).collect::<Vec<_>>()),
    );
    all.extend(OVERLAYS.map(|overlay| arguments(container(&pod(overlay), "portcullis"))));
    for args in all {
        assert_understood(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// The table under "What it needs": the capabilities of each row, what they are for, and what happens without.
fn needs() -> Vec<(BTreeSet<String>, String, String)> {
    let operations = text("docs/operations.md");
    let (_, section) = operations.split_once("## What it needs").expect("that section");
    let (table, _) = section.split_once("\n```").expect("an example behind the table");
    let row = |line: &str| {
        let [_, what, purpose, without, _] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
        let words = what.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let capabilities = words.filter_map(|word| word.strip_prefix("CAP_").map(str::to_owned)).collect();
        Some((capabilities, purpose.trim().to_owned(), without.trim().to_owned()))
    };
    table.lines().filter_map(row).collect()
}

/// The capabilities that the operations say this datapath does not start without, if it guards these addresses.
fn needed(datapath: &str, guarded: &[&str]) -> BTreeSet<String> {
    let low_port = guarded.iter().any(|address| port(address) < 1024);
    let applies = |(_, purpose, without): &(BTreeSet<String>, String, String)| match &**purpose {
        "datapath `bpf`" => datapath == "bpf",
        purpose if purpose.contains("below 1024") => low_port,
        _ => datapath != "kernel" && without.starts_with("exit code 77"),
    };
    needs().into_iter().filter(applies).flat_map(|(capabilities, ..)| capabilities).collect()
}

#[test]
fn the_image_has_every_capability_that_the_operations_name() {
    let named: BTreeSet<String> = needs().into_iter().flat_map(|(capabilities, ..)| capabilities).collect();
    assert!(named.is_superset(&needed("bpf", &["0.0.0.0:443"])), "{named:?}");
    assert_eq!(Image::read().capabilities(), named);
}

#[test]
fn each_container_adds_the_capabilities_that_its_configuration_needs_and_drops_all_others() {
    assert_ne!(needed("raw", &["0.0.0.0:443"]), needed("raw", &["0.0.0.0:1024"]));
    assert_ne!(needed("raw", &[]), needed("bpf", &[]));
    let added = |capabilities: &Value, key: &str| {
        let list = capabilities.get(key).map(|_| texts_at(capabilities, &format!("/{key}")));
        names(list.unwrap_or_default())
    };
    let compose = compose();
    for (name, door) in doors(&compose) {
        assert_eq!(texts_at(door, "/cap_drop"), ["ALL"], "{name}");
        let expected = match name {
            "portcullis" => {
                let settings = Settings::read("deploy/container/portcullis.toml");
                needed(settings.text("datapath").unwrap(), &settings.addresses("bind"))
            }
            _ => {
                let command = texts_at(door, "/command");
                let flag = |flag| command[command.iter().position(|word| *word == flag).expect(flag) + 1];
                needed(flag("--datapath"), &[flag("--listen")])
            }
        };
        assert_eq!(added(door, "cap_add"), expected, "{name}");
    }
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let settings = Settings::read(&settings_path(overlay));
        let capabilities = at(container(&pod, "portcullis"), "/securityContext/capabilities");
        assert_eq!(texts_at(capabilities, "/drop"), ["ALL"], "{overlay}");
        assert_eq!(added(capabilities, "add"), needed(overlay, &settings.addresses("bind")), "{overlay}");
    }
}

#[test]
fn everybody_runs_the_same_image() {
    let version = Image::read().argument("VERSION").to_owned();
    let compose = compose();
    for (name, door) in doors(&compose) {
        assert_eq!(text_at(door, "/image"), format!("{IMAGE}{version}"), "{name}");
    }
    for overlay in OVERLAYS {
        let built = yaml(&format!("{KUBERNETES}/overlays/{overlay}/kustomization.yaml"));
        assert_eq!(text_at(&built, "/images/0/newTag"), version, "{overlay}");
    }
}

#[test]
fn new_privileges_are_for_the_program_with_file_capabilities_alone() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let refused = service
            .get("security_opt")
            .is_some_and(|_| texts_at(service, "/security_opt") == ["no-new-privileges:true"]);
        assert_eq!(refused, name != "portcullis", "{name}");
        assert_eq!(at(service, "/read_only"), true, "{name}");
        assert_eq!(texts_at(service, "/cap_drop"), ["ALL"], "{name}");
    }
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let context = at(container(&pod, "portcullis"), "/securityContext");
        // With false it would, by some runtimes, have no rights, and end with exit code 77.
        assert_eq!(at(context, "/allowPrivilegeEscalation"), true, "{overlay}");
        assert_eq!(at(context, "/privileged"), false, "{overlay}");
        assert_eq!(at(context, "/readOnlyRootFilesystem"), true, "{overlay}");
        assert_eq!(text_at(&pod, "/securityContext/seccompProfile/type"), "RuntimeDefault", "{overlay}");
    }
}

#[test]
fn everybody_means_the_same_user_who_is_not_root() {
    let user = Image::read().last("USER").to_owned();
    let (uid, gid) = user.split_once(':').expect("a user and a group");
    let [uid, gid]: [u32; 2] = [uid, gid].map(|id| id.parse().expect("a number: Kubernetes cannot look up names"));
    assert_ne!(uid, 0);
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let context = at(&pod, "/securityContext");
        assert_eq!(at(context, "/runAsNonRoot"), true);
        assert_eq!(*at(context, "/runAsUser"), uid);
        assert_eq!(*at(context, "/runAsGroup"), gid);
        // The Secret's file belongs to this group, and 0440 shows it to it alone.
        assert_eq!(*at(context, "/fsGroup"), gid);
    }
    assert!(text(&format!("{KUBERNETES}/base/daemonset.yaml")).contains("\n            defaultMode: 0440\n"));
    assert!(text("deploy/container/make-key").contains(&format!("chown {user} ")));
}

#[test]
fn the_image_runs_what_is_in_it() {
    let image = Image::read();
    assert_eq!(image.base(), "scratch", "then nothing else is in it");
    let program = "/usr/bin/portcullis";
    assert_eq!(image.list("ENTRYPOINT"), [program]);
    assert_eq!(image.list("HEALTHCHECK")[0], program);
    assert_eq!(image.last("STOPSIGNAL"), "SIGTERM");
    let file = text(cluster::image::CONTAINERFILE);
    for part in [&format!("/image{program}"), "deploy/container/image.toml /image/etc/portcullis/portcullis.toml"] {
        assert!(file.contains(part), "{part}");
    }
    assert_eq!(image.list("CMD"), ["run", "--config", "/etc/portcullis/portcullis.toml"]);
    let settings = Settings::read("deploy/container/image.toml");
    let mut ports: Vec<u16> = settings.addresses("bind").into_iter().map(port).collect();
    ports.push(port(settings.text("admin").unwrap()));
    let exposed: Vec<u16> =
        image.last("EXPOSE").split(' ').map(|port| port.strip_suffix("/tcp").unwrap().parse().unwrap()).collect();
    assert_eq!(exposed, ports);
}

#[test]
fn what_the_build_copies_is_in_its_context() {
    let ignored = text(".dockerignore");
    let context: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "loadtest",
        "LICENSE-*",
        "deploy/container/image.toml",
        "deploy/container/flood",
    ] {
        assert!(context.contains(path), "{path}");
    }
    assert!(ignored.contains("\n*\n"), "all else is left out");
    // Which would take source away: loadtest has a module of that name.
    assert!(!ignored.contains("target"));
}

#[test]
fn probes_and_scrapes_ask_for_what_the_admin_server_has() {
    let server = Server::start(&[]);
    let monitor = yaml(&format!("{KUBERNETES}/monitoring/podmonitor.yaml"));
    let mut paths = vec![text_at(&monitor, "/spec/podMetricsEndpoints/0/path").to_owned()];
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let container = container(&pod, "portcullis");
        for (probe, path) in [("startup", "/healthz"), ("readiness", "/readyz"), ("liveness", "/healthz")] {
            let ask = at(container, &format!("/{probe}Probe/httpGet"));
            assert_eq!(text_at(ask, "/port"), "admin", "{overlay} {probe}");
            // The drain makes /readyz fail, and must not get the pod restarted.
            assert_eq!(text_at(ask, "/path"), path, "{overlay} {probe}");
            paths.push(path.to_owned());
        }
    }
    for path in paths {
        let (status, _) = http_get(&Namespace::current(), server.admin, &path).unwrap();
        assert_eq!(status, 200, "{path}");
    }
}

#[test]
fn the_port_that_is_probed_is_the_one_the_admin_server_listens_on() {
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let container = container(&pod, "portcullis");
        let args = arguments(container);
        let admin = args.iter().find_map(|arg| arg.strip_prefix("--admin=")).expect("--admin");
        assert_eq!(admin.parse::<SocketAddr>().unwrap().port(), port(admin));
        let ports = list_at(container, "/ports");
        let of_name = |name: &str| -> BTreeSet<u16> {
            let named = ports.iter().filter(|port| text_at(port, "/name").starts_with(name));
            named.map(|port| at(port, "/containerPort").as_u64().unwrap().try_into().unwrap()).collect()
        };
        assert_eq!(of_name("admin"), BTreeSet::from([port(admin)]), "{overlay}");
        // By these the scheduler knows of conflicts.
        let settings = Settings::read(&settings_path(overlay));
        assert_eq!(of_name("guarded"), settings.addresses("bind").into_iter().map(port).collect(), "{overlay}");
        assert_eq!(text_at(container, "/env/0/valueFrom/fieldRef/fieldPath"), "status.hostIP");
        assert_eq!(text_at(container, "/env/0/name"), "HOST_IP");
    }
    let monitor = yaml(&format!("{KUBERNETES}/monitoring/podmonitor.yaml"));
    assert_eq!(text_at(&monitor, "/spec/podMetricsEndpoints/0/port"), "admin");
    let scraped = yaml("deploy/container/prometheus.yml");
    let admin = Settings::read("deploy/container/portcullis.toml").text("admin").map(port).unwrap();
    let targets = texts_at(&scraped, "/scrape_configs/0/static_configs/0/targets");
    assert_eq!(targets, [format!("portcullis:{admin}")]);
}

#[test]
fn what_is_stopped_is_given_longer_than_its_drain_takes() {
    for overlay in OVERLAYS {
        let settings = Settings::read(&settings_path(overlay));
        let grace = at(&pod(overlay), "/terminationGracePeriodSeconds").as_u64().unwrap();
        assert!(Duration::from_secs(grace) >= settings.end_max(), "{overlay}: {grace} s");
    }
    let settings = Settings::read("deploy/container/portcullis.toml");
    let compose = compose();
    let grace = seconds(text_at(&compose, "/services/portcullis/stop_grace_period"));
    assert!(grace >= settings.end_max(), "{COMPOSE}: {grace:?}");
}

#[test]
fn before_sigterm_the_program_of_the_image_is_told_to_drain() {
    let mut command = Image::read().list("ENTRYPOINT");
    command.extend(["ctl", "drain"].map(str::to_owned));
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let hook = texts_at(container(&pod, "portcullis"), "/lifecycle/preStop/exec/command");
        assert_eq!(hook, command, "{overlay}");
    }
}

/// Where a container finds a volume.
fn mount_of<'a>(container: &'a Value, volume: &str) -> &'a str {
    let mount = list_at(container, "/volumeMounts").iter().find(|mount| mount["name"] == volume);
    text_at(mount.unwrap_or_else(|| panic!("{volume} is not mounted")), "/mountPath")
}

#[test]
fn paths_in_the_pod_are_those_of_its_configuration() {
    let image = Image::read();
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let container = container(&pod, "portcullis");
        let settings = Settings::read(&settings_path(overlay));
        let config = format!("--config={}/portcullis.toml", mount_of(container, "config"));
        assert!(arguments(container).contains(&config), "{overlay}");
        let key = format!("{}/master.key", mount_of(container, "master-key"));
        assert_eq!(settings.text("master_key_file"), Some(&*key), "{overlay}");
        assert_eq!(image.variable("RUNTIME_DIRECTORY"), mount_of(container, "runtime"), "{overlay}");
        assert_eq!(settings.text("datapath"), Some(overlay));
        let mounted: BTreeSet<_> =
            list_at(container, "/volumeMounts").iter().map(|mount| text_at(mount, "/name")).collect();
        let volumes: BTreeSet<_> = list_at(&pod, "/volumes").iter().map(|volume| text_at(volume, "/name")).collect();
        assert_eq!(mounted, volumes, "{overlay}");
    }
}

#[test]
fn the_pins_are_our_own_directory_of_the_nodes_bpffs() {
    let pod = pod("bpf");
    let mounted = mount_of(container(&pod, "portcullis"), "pins");
    assert_eq!(Settings::read(&settings_path("bpf")).text("bpf_pins"), Some(mounted));
    assert!(!mounted.starts_with("/sys/"), "where AppArmor profiles of container runtimes deny writing");
    let volume = list_at(&pod, "/volumes").iter().find(|volume| volume["name"] == "pins").unwrap();
    let host = text_at(volume, "/hostPath/path");
    let own = host.strip_prefix("/sys/fs/bpf/").expect("on the bpffs");
    assert!(!own.is_empty() && !own.contains(['.', '/']), "{host}");
    let [init] = list_at(&pod, "/initContainers") else { panic!("one that gives it to our user") };
    assert_eq!(texts_at(init, "/command"), ["chown", Image::read().last("USER"), mounted]);
    assert_eq!(texts_at(init, "/securityContext/capabilities/add"), ["CHOWN"]);
    assert_eq!(mount_of(init, "pins"), mounted);
}

#[test]
fn the_overlays_configurations_differ_by_datapath_and_pins_alone() {
    let mut tables = OVERLAYS.map(|overlay| text(&settings_path(overlay)).parse::<toml::Table>().unwrap());
    assert_eq!(tables[0].get("bpf_pins"), None);
    assert!(tables[1].remove("bpf_pins").is_some());
    assert_ne!(tables[0].remove("datapath"), tables[1].remove("datapath"));
    assert_eq!(tables[0], tables[1]);
}

#[test]
fn nodes_that_share_a_key_take_each_others_cookies() {
    for overlay in OVERLAYS {
        for listener in Settings::read(&settings_path(overlay)).listeners() {
            assert_eq!(listener["cookies"]["accept"].as_str(), Some("always"), "{overlay}");
        }
    }
}

/// Whether every label of a selector is among an object's.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("matchLabels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[test]
fn selectors_and_names_meet_what_they_mean() {
    let base = |name: &str| yaml(&format!("{KUBERNETES}/base/{name}.yaml"));
    let monitor = yaml(&format!("{KUBERNETES}/monitoring/podmonitor.yaml"));
    for overlay in OVERLAYS {
        let daemonset = daemonset(overlay);
        let labels = at(&daemonset, "/spec/template/metadata/labels");
        assert!(selects(at(&daemonset, "/spec/selector/matchLabels"), labels));
        assert!(selects(at(&monitor, "/spec/selector/matchLabels"), labels));
        // The rules and the dashboards know Portcullis by this job.
        assert_eq!(labels[text_at(&monitor, "/spec/jobLabel")], "portcullis");
        let pod = pod(overlay);
        assert_eq!(text_at(&pod, "/serviceAccountName"), text_at(&base("serviceaccount"), "/metadata/name"));
        assert_eq!(text_at(&pod, "/priorityClassName"), text_at(&base("priorityclass"), "/metadata/name"));
        assert_eq!(at(&pod, "/automountServiceAccountToken"), false);
        let built = yaml(&format!("{KUBERNETES}/overlays/{overlay}/kustomization.yaml"));
        assert_eq!(text_at(&built, "/images/0/name"), text_at(container(&pod, "portcullis"), "/image"));
    }
    assert_eq!(at(&base("serviceaccount"), "/automountServiceAccountToken"), false);
    let namespace = base("namespace");
    let namespace = text_at(&namespace, "/metadata/name");
    assert_eq!(text_at(&base("kustomization"), "/namespace"), namespace);
    for file in ["monitoring/podmonitor", "monitoring/prometheusrule", "overlays/bpf/daemonset"] {
        assert_eq!(text_at(&yaml(&format!("{KUBERNETES}/{file}.yaml")), "/metadata/namespace"), namespace, "{file}");
    }
}

#[test]
fn every_file_that_a_kustomization_names_is_there_and_each_is_named() {
    let all = below(KUBERNETES, ".yaml").into_iter().chain(below(KUBERNETES, ".toml"));
    let mut unnamed: BTreeSet<_> = all.map(|path| repository(&path).canonicalize().unwrap()).collect();
    for file in below(KUBERNETES, "kustomization.yaml") {
        let directory = repository(&file).canonicalize().unwrap();
        unnamed.remove(&directory);
        let directory = directory.parent().unwrap();
        let kustomization = yaml(&file);
        let list = |key: &str| {
            kustomization.get(key).map(|_| texts_at(&kustomization, &format!("/{key}"))).unwrap_or_default()
        };
        let objects = |key: &str| kustomization.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let patches = objects("patches");
        let generators = objects("configMapGenerator");
        let named = [list("resources"), list("components")].concat().into_iter();
        let named = named.chain(patches.iter().map(|patch| text_at(patch, "/path")));
        for path in named.chain(generators.iter().flat_map(|generator| texts_at(generator, "/files"))) {
            let found = directory.join(path).canonicalize();
            unnamed.remove(&found.unwrap_or_else(|error| panic!("{file}: {path}: {error}")));
        }
    }
    assert_eq!(unnamed, BTreeSet::new(), "named by nobody");
}

#[test]
fn the_operators_rules_are_those_of_prometheus() {
    let files = below("deploy/prometheus/rules", ".yml");
    let groups: Vec<Value> = files.iter().flat_map(|file| list_at(&yaml(file), "/groups").to_vec()).collect();
    assert!(!groups.is_empty());
    let rule = yaml(&format!("{KUBERNETES}/monitoring/prometheusrule.yaml"));
    // After a change of the rules: deploy/kubernetes/copy-rules.
    assert!(
        list_at(&rule, "/spec/groups") == groups,
        "deploy/kubernetes/copy-rules has not been run since the rules changed"
    );
}

/// A service's address in one of compose's networks.
fn address(compose: &Value, service: &str, network: &str) -> IpAddr {
    text_at(compose, &format!("/services/{service}/networks/{network}/ipv4_address")).parse().unwrap()
}

#[test]
fn the_demonstrations_addresses_are_of_labs_alone_and_where_its_configuration_says() {
    let compose = compose();
    let lab: IpNet = "198.18.0.0/15".parse().unwrap();
    for (network, definition) in at(&compose, "/networks").as_object().unwrap() {
        let subnet: IpNet = text_at(definition, "/ipam/config/0/subnet").parse().unwrap();
        assert!(lab.contains(&subnet), "{network}");
        for (name, service) in services(&compose) {
            if service.pointer(&format!("/networks/{network}")).is_some() {
                assert!(subnet.contains(&address(&compose, name, network)), "{name}");
            }
        }
    }
    let settings = Settings::read("deploy/container/portcullis.toml");
    let admin: SocketAddr = settings.text("admin").unwrap().parse().unwrap();
    assert_eq!(admin.ip(), address(&compose, "portcullis", "ops"));
    let upstream = address(&compose, "upstream", "back");
    let [relayed_to] = settings.addresses("upstreams")[..] else { panic!("one upstream") };
    assert_eq!(relayed_to.parse::<SocketAddr>().unwrap().ip(), upstream);
    assert!(texts_at(&compose, "/services/upstream/command").contains(&relayed_to));
    assert_eq!(at(&compose, "/networks/back/internal"), true);
}

#[test]
fn the_demonstration_is_published_on_loopback_and_its_guarded_ports_all_are() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let published = service.get("ports").map(|_| texts_at(service, "/ports")).unwrap_or_default();
        assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
    }
    let published = texts_at(&compose, "/services/portcullis/ports").into_iter().map(port);
    let settings = Settings::read("deploy/container/portcullis.toml");
    assert!(published.eq(settings.addresses("bind").into_iter().map(port)));
}

#[test]
fn files_that_the_demonstration_mounts_are_there() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let volumes = service.get("volumes").map(|_| texts_at(service, "/volumes")).unwrap_or_default();
        let is_kept = |volume: &&str| compose["volumes"].get(volume.split(':').next().unwrap()).is_some();
        for volume in volumes.into_iter().filter(|volume| !is_kept(volume)) {
            let (source, place) = volume.strip_suffix(":ro").expect("read only").split_once(':').unwrap();
            assert!(repository("deploy/container").join(source).exists(), "{name}: {source}");
            assert!(place.starts_with('/'), "{name}: {place}");
        }
    }
    let settings = Settings::read("deploy/container/portcullis.toml");
    let secret = texts_at(&compose, "/services/portcullis/secrets")[0];
    assert_eq!(settings.text("master_key_file"), Some(&*format!("/run/secrets/{secret}")));
    let key = text_at(&compose, &format!("/secrets/{secret}/file"));
    assert_eq!(text("deploy/container/.gitignore").trim(), key.strip_prefix('.').unwrap());
    let writable = texts_at(&compose, "/services/portcullis/tmpfs")[0];
    assert_eq!(writable.split(':').next(), Some(Image::read().variable("RUNTIME_DIRECTORY")));
}

#[test]
fn grafana_finds_its_dashboards_and_prometheus() {
    let compose = compose();
    let grafana = at(&compose, "/services/grafana");
    let provider = yaml("deploy/grafana/provisioning/dashboards/portcullis.yml");
    let dashboards = format!("../grafana/dashboards:{}:ro", text_at(&provider, "/providers/0/options/path"));
    assert!(texts_at(grafana, "/volumes").contains(&&*dashboards), "{dashboards}");
    let source = yaml("deploy/grafana/provisioning/datasources/portcullis.yml");
    let variable = text_at(&source, "/datasources/0/url").strip_prefix('$').expect("from the environment");
    let url = text_at(grafana, &format!("/environment/{variable}"));
    let listens = port(texts_at(&compose, "/services/prometheus/ports")[0]);
    assert_eq!(url, format!("http://prometheus:{listens}"));
}

#[test]
fn the_flood_is_asked_for_bounded_and_of_the_door_beside_it() {
    let compose = compose();
    let echoes = |listener: &&toml::Value| listener.get("service").and_then(toml::Value::as_str) == Some("echo");
    let settings = Settings::read("deploy/container/portcullis.toml");
    let echo = settings.listeners().find(echoes).expect("clients come to a server that echoes");
    let guarded = port(echo["bind"][0].as_str().unwrap());
    for name in ["flood", "clients"] {
        let service = at(&compose, &format!("/services/{name}"));
        assert_eq!(texts_at(service, "/profiles"), ["flood"], "not without being asked for");
        assert_eq!(text_at(service, "/network_mode"), "service:portcullis");
    }
    let [target, rate, seconds] = texts_at(&compose, "/services/flood/command")[..] else { panic!("three words") };
    assert_eq!(target, guarded.to_string());
    assert!(rate.parse::<u32>().unwrap() <= 5000);
    assert!(seconds.parse::<u32>().unwrap() <= 60);
    let clients = texts_at(&compose, "/services/clients/command");
    let flag = |flag: &str| clients[clients.iter().position(|word| *word == flag).expect(flag) + 1];
    assert_eq!(flag("--target"), format!("127.0.0.1:{guarded}"));
    assert!(flag("--rate").parse::<u32>().unwrap() <= 100);
    assert_eq!(flag("--seconds"), seconds);
}

/// What must stand in the DaemonSet, and what is lost without it.
#[test]
fn the_daemonset_has_each_line_that_something_rests_on() {
    let daemonset = daemonset("raw");
    assert_eq!(daemonset["spec"]["template"]["spec"]["hostNetwork"], pod("bpf")["hostNetwork"]);
    for (pointer, expected, reason) in [
        ("/spec/template/spec/hostNetwork", Value::from(true), "SYNs are seen where they arrive"),
        ("/spec/updateStrategy/type", Value::from("RollingUpdate"), "another configuration rolls over the nodes"),
        ("/spec/updateStrategy/rollingUpdate/maxSurge", Value::from(0), "two cannot guard one port of one host"),
        ("/spec/updateStrategy/rollingUpdate/maxUnavailable", Value::from(1), "the other nodes serve meanwhile"),
        ("/spec/template/spec/nodeSelector/portcullis-front", Value::from("true"), "on chosen nodes alone"),
    ] {
        assert_eq!(*at(&daemonset, pointer), expected, "{pointer}: {reason}");
    }
    let namespace = yaml(&format!("{KUBERNETES}/base/namespace.yaml"));
    for mode in ["enforce", "warn", "audit"] {
        let label = format!("/metadata/labels/pod-security.kubernetes.io~1{mode}");
        assert_eq!(text_at(&namespace, &label), "privileged", "no other profile admits hostNetwork and NET_ADMIN");
    }
}

#[test]
fn a_busy_node_gets_the_pod_neither_throttled_nor_killed() {
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let container = container(&pod, "portcullis");
        let limits = at(container, "/resources/limits");
        assert_eq!(limits.get("cpu"), None, "{overlay}: it would stop the packet workers in a flood");
        let mebibytes = |pointer: &str| match text_at(container, pointer) {
            size if size.ends_with("Gi") => size.trim_end_matches("Gi").parse::<i64>().unwrap() * 1024,
            size => size.strip_suffix("Mi").expect("Mi or Gi").parse().unwrap(),
        };
        let settings = Settings::read(&settings_path(overlay));
        let rings = 16 * settings.workers() * i64::try_from(settings.listeners().count()).unwrap();
        let (requested, most) = (mebibytes("/resources/requests/memory"), mebibytes("/resources/limits/memory"));
        assert!(requested >= 64 + rings, "{overlay}: {requested} MiB with {rings} of rings");
        // 20,000 connections at some 30 KB.
        assert!(most >= 2 * requested && most >= rings + 768, "{overlay}: {most} MiB");
        let number = |pointer: &str| at(container, pointer).as_u64().unwrap();
        let patience =
            |probe: &str| number(&format!("/{probe}/periodSeconds")) * number(&format!("/{probe}/failureThreshold"));
        // As docs/containers.md has it.
        assert!(patience("livenessProbe") >= 60, "{overlay}: a restart helps nobody");
        assert!(patience("startupProbe") >= 120, "{overlay}");
        let seen = settings.seconds("pre_stop_seconds");
        assert!(patience("readinessProbe") < seen.as_secs(), "{overlay}: it is out before nobody is served");
    }
}

#[test]
fn the_secret_is_the_one_that_the_documents_make() {
    let made = "create secret generic portcullis-master-key --from-file=master.key";
    assert!(text("docs/containers.md").contains(made));
    for overlay in OVERLAYS {
        let pod = pod(overlay);
        let volume = list_at(&pod, "/volumes").iter().find(|volume| volume["name"] == "master-key").unwrap();
        assert_eq!(text_at(volume, "/secret/secretName"), "portcullis-master-key", "{overlay}");
    }
}

#[test]
fn the_operator_scrapes_as_often_as_the_rules_want() {
    let monitor = yaml(&format!("{KUBERNETES}/monitoring/podmonitor.yaml"));
    let interval = |text: &str| seconds(text).as_secs();
    let every = interval(text_at(&monitor, "/spec/podMetricsEndpoints/0/interval"));
    let wanted = interval(text_at(&yaml("deploy/prometheus/prometheus.yml"), "/global/scrape_interval"));
    assert!(every <= wanted, "{every} s, of a minute's windows");
    assert!(interval(text_at(&monitor, "/spec/podMetricsEndpoints/0/scrapeTimeout")) <= every);
}

#[test]
fn times_in_the_documents_are_those_of_the_configurations() {
    let document = text("docs/containers.md");
    for overlay in OVERLAYS {
        let settings = Settings::read(&settings_path(overlay));
        let grace = at(&pod(overlay), "/terminationGracePeriodSeconds").clone();
        let [before, deadline] =
            ["pre_stop_seconds", "shutdown_deadline_seconds"].map(|key| settings.seconds(key).as_secs());
        for said in [
            format!("| `terminationGracePeriodSeconds: {grace}` | {before} + {deadline} of `portcullis.toml`, and 10 "),
            format!("the drain (up to {deadline} s,"),
            format!("the {before} s before, in which `/readyz` says 503"),
        ] {
            assert!(document.contains(&said), "{overlay}: {said}");
        }
    }
}

#[test]
fn the_image_keeps_file_capabilities_and_lets_any_user_write_in_one_place() {
    let containerfile = text(cluster::image::CONTAINERFILE);
    let copies: Vec<&str> = containerfile.lines().filter(|line| line.starts_with("COPY --from")).collect();
    assert_eq!(copies, ["COPY --from=build /image/ /"], "--chown would take file capabilities away");
    let place = Image::read().variable("STATE_DIRECTORY").to_owned();
    assert!(containerfile.contains(&format!("install -d -m 1777 /image{place}\n")), "for any --user");
    let compose = compose();
    for (name, door) in doors(&compose) {
        assert_eq!(texts_at(door, "/tmpfs"), [format!("{place}:mode=1777,size=64k")], "{name}");
    }
    assert_eq!(at(&compose, "/services/portcullis/ulimits/rtprio"), 1, "as much as the workers take, and no more");
}

#[test]
fn who_reaches_the_demonstrations_grafana_may_look_and_nothing_else() {
    let compose = compose();
    for (variable, expected) in [
        ("GF_AUTH_ANONYMOUS_ENABLED", "true"),
        ("GF_AUTH_ANONYMOUS_ORG_ROLE", "Viewer"),
        ("GF_AUTH_DISABLE_LOGIN_FORM", "true"),
        // By the API admin:admin would be let in all the same.
        ("GF_AUTH_BASIC_ENABLED", "false"),
    ] {
        assert_eq!(text_at(&compose, &format!("/services/grafana/environment/{variable}")), expected, "{variable}");
    }
}

/// Whether all networks of a service have no way out.
fn is_internal(compose: &Value, service: &Value) -> bool {
    let networks = service["networks"].as_object().expect("networks");
    networks.keys().all(|name| compose["networks"][name].get("internal") == Some(&Value::from(true)))
}

#[test]
fn who_publishes_a_port_has_a_network_on_which_engines_do_so_and_nobody_else_has_a_way_out() {
    let compose = compose();
    for (name, service) in services(&compose).into_iter().filter(|(_, service)| service.get("networks").is_some()) {
        assert_eq!(is_internal(&compose, service), service.get("ports").is_none(), "{name}");
    }
}

#[test]
fn the_rules_for_nodes_have_the_port_of_the_manifests() {
    let rules = text("deploy/nftables/portcullis.nft");
    let (_, command) = text("docs/containers.md")
        .split_once("# sed 's/")
        .map(|(before, rest)| (before.to_owned(), rest.split_once("/' deploy/nftables").unwrap().0.to_owned()))
        .expect("the step for nodes");
    let (from, to) = command.split_once('/').unwrap();
    assert_eq!(rules.matches(from).count(), 1, "{from}");
    let ports = Settings::read(&settings_path("raw")).addresses("bind").into_iter().map(port).collect::<Vec<_>>();
    assert_eq!(to, format!("elements = {{ {} }}", ports[0]));
    assert!(rules.contains("fib daddr type local"), "which the page says to replace");
}
