//! The nftables rules and the sysctl settings, in namespaces.

use testnet::{FloodKind, Namespace, Sources, eventually, isolated};

use super::support::battlefield::Battlefield;
use super::support::{Door, PATIENCE, PORT, V4, V6, connect_from, exchange};
use super::{repository, text_of};

const RULES: &str = "deploy/nftables/portcullis.nft";
const SETTINGS: &str = "deploy/sysctl/90-portcullis.conf";

fn apply(namespace: &Namespace) {
    let path = repository().join(RULES);
    namespace.output("nft", &format!("-f {}", path.display()));
}

/// The tracked flows of a namespace.
fn tracked(namespace: &Namespace) -> u64 {
    let text = namespace.output("cat", "/proc/sys/net/netfilter/nf_conntrack_count");
    text.trim().parse().expect("a count")
}

/// What makes a kernel track: a rule that asks for it, as every stateful firewall has one.
fn stateful_firewall(namespace: &Namespace) {
    namespace.output("nft", "add table inet filter");
    namespace.output("nft", "add chain inet filter input { type filter hook input priority filter ; policy accept ; }");
    namespace.output("nft", "add rule inet filter input ct state established,related accept");
}

#[test]
fn rules_applied_twice_are_as_applied_once_and_removal_leaves_nothing() {
    isolated!(|| {
        let namespace = Namespace::new();
        namespace.output("nft", "add table inet theirs");
        let before = namespace.output("nft", "list ruleset");
        apply(&namespace);
        let once = namespace.output("nft", "list ruleset");
        assert_eq!(once.matches("notrack").count(), 4, "the table's name and three rules: {once}");
        apply(&namespace);
        assert_eq!(namespace.output("nft", "list ruleset"), once);
        // As the file's head says.
        let removal = "delete table inet portcullis_notrack";
        assert!(text_of(RULES).contains(&format!("nft {removal} ")), "the head says how to remove it");
        namespace.output("nft", removal);
        assert_eq!(namespace.output("nft", "list ruleset"), before);
    });
}

#[test]
fn rules_name_the_port_of_the_example() {
    let example: toml::Table = text_of("deploy/portcullis.toml").parse().unwrap();
    let bind = example["listener"][0]["bind"][0].as_str().unwrap();
    let port = bind.rsplit_once(':').unwrap().1;
    assert!(text_of(RULES).contains(&format!("elements = {{ {port} }}")), "{port}");
    assert_eq!(port, PORT.to_string(), "which is also that of these tests");
}

/// Flows that are tracked once a flood of more than ten thousand SYNs has passed, and clients of both families and on the host itself.
fn tracked_in_a_flood(with_rules: bool) -> u64 {
    let field = Battlefield::new();
    let server = &field.lab.server;
    let _door = Door::open(&field.lab, "echo");
    // From here on nobody asks the admin server, whose port is tracked as any.
    stateful_firewall(server);
    if with_rules {
        apply(server);
    }
    let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
    eventually("the flood is a flood", PATIENCE, || flood.sent() > 10_000);
    for (from, to) in [(&field.lab.client, V4), (&field.lab.client, V6), (server, V4), (server, V6)] {
        let mut stream = connect_from(from, to).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        assert_eq!(exchange(&mut stream, b"hello").expect("an echo"), b"hello");
    }
    flood.stop();
    if with_rules {
        let counted = server.output("nft", "list table inet portcullis_notrack");
        assert!(!counted.contains("counter packets 0 "), "each rule had its packets: {counted}");
    }
    tracked(server)
}

#[test]
fn flood_fills_conntrack_without_the_rules_and_leaves_it_empty_with_them() {
    isolated!(|| {
        let without = tracked_in_a_flood(false);
        println!("without the rules {without} flows are tracked");
        assert!(without > 1000, "else the test tells nothing: {without}");
        assert_eq!(tracked_in_a_flood(true), 0);
    });
}

/// `key = value` of each line, of those that are comments only where they are settings that one may want.
fn settings(with_optional: bool) -> Vec<(String, String)> {
    let text = text_of(SETTINGS);
    let lines = text.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(optional) => (with_optional && optional.starts_with("net.")).then_some(optional),
        None => Some(line),
    });
    let pairs = lines.filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

fn read(namespace: &Namespace, key: &str) -> String {
    let text = namespace.output("cat", &format!("/proc/sys/{}", key.replace('.', "/")));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn settings_are_the_kernels_defaults_and_each_namespaces_own() {
    isolated!(|| {
        let (namespace, other) = (Namespace::new(), Namespace::new());
        assert!(settings(false).len() >= 5);
        for (key, value) in settings(false) {
            assert_eq!(read(&namespace, &key), value, "{key}: the default, as the file says");
        }
        for (key, value) in settings(true) {
            let before = read(&other, &key);
            namespace.sysctl(&key, &value); // Panics where it is no key of a namespace, or the kernel refuses the value.
            assert_eq!(read(&namespace, &key), value, "{key}");
            assert_eq!(read(&other, &key), before, "{key} of another namespace");
        }
    });
}

#[test]
fn each_setting_says_its_default_and_its_price() {
    let text = text_of(SETTINGS);
    for part in
        text.split("\n\n").filter(|part| part.lines().any(|line| line.starts_with("net.") || line.starts_with("#net.")))
    {
        for word in ["Default", "Price"] {
            assert!(part.contains(word), "{word}: {part}");
        }
    }
}
