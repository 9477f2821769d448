use super::*;

/// The faults of a text, each as `line:column: key: message`.
fn faults(text: &str) -> Vec<String> {
    Config::from_toml(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

/// Asserts that a text has one fault, which begins with `place` and contains `parts`.
fn assert_fault(text: &str, place: &str, parts: &[&str]) {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{text}\n{faults:#?}");
    assert!(faults[0].starts_with(place), "{text}\n{faults:#?}");
    for part in parts {
        assert!(faults[0].contains(part), "{part}\n{faults:#?}");
    }
}

/// A listener with `line` as its second line.
fn listener(line: &str) -> String {
    format!("[[listener]]\n{line}\nbind = [\"127.0.0.1:80\"]\n")
}

#[test]
fn the_printed_default_is_the_default() {
    assert_eq!(Config::from_toml(DEFAULT_TOML).unwrap(), Config::default());
    assert_eq!(Config::from_toml("").unwrap(), Config::default());
}

#[test]
fn the_printed_default_documents_every_key() {
    let bogus = "bogus = 1\n[log]\nbogus = 1\n[access_log]\nbogus = 1\n[[listener]]\nbind = [\"127.0.0.1:80\"]\nbogus = 1\n\
                 [listener.half_open]\nbogus = 1\n[listener.cookies]\nbogus = 1\n[listener.limits]\nbogus = 1\n[listener.timeouts]\nbogus = 1\n\
                 [listener.balance]\nbogus = 1\n[listener.proxy_protocol]\nbogus = 1\n";
    let faults = faults(bogus);
    assert_eq!(faults.len(), 10, "{faults:#?}");
    for fault in faults {
        let (_, keys) = fault.split_once("legal here: ").unwrap();
        for key in keys.split(", ") {
            let lines = DEFAULT_TOML.lines().map(|line| line.trim_start_matches("# "));
            let documented = lines.into_iter().any(|line| {
                line.starts_with(&format!("{key} = "))
                    || line == format!("[{key}]")
                    || line == format!("[[{key}]]")
                    || line == format!("[listener.{key}]")
            });
            assert!(documented, "{key}");
        }
    }
}

#[test]
fn a_hook_for_programs_that_there_are_not_is_a_fault() {
    for datapath in ["raw", "kernel"] {
        let text = format!("datapath = \"{datapath}\"\nbpf_hook = \"xdp\"\n");
        assert_fault(
            &text,
            "2:",
            &["bpf_hook: \"xdp\"", &format!("datapath {datapath}"), "legal: auto, or datapath bpf or auto"],
        );
        Config::from_toml(&format!("datapath = \"{datapath}\"\nbpf_hook = \"auto\"\n")).unwrap();
    }
    for datapath in ["auto", "bpf"] {
        Config::from_toml(&format!("datapath = \"{datapath}\"\nbpf_hook = \"xdp\"\n")).unwrap();
    }
}

#[test]
fn every_value_of_a_full_file_arrives() {
    let config = Config::from_toml(
        r#"
        datapath = "bpf"
        bpf_hook = "tc"
        admin = "none"
        master_key_file = "/k"
        state_dir = "/s"
        bpf_pins = "/b"
        workers = 3
        pre_stop_seconds = 1
        shutdown_deadline_seconds = 0
        log = { format = "json", level = "debug" }
        control = "/c"
        access_log = { path = "/a", queue_lines = 1 }
        [[listener]]
        name = "web"
        bind = ["[::]:80", "198.18.0.1:80"]
        upstream = "198.18.0.2:8000"
        balance = { policy = "least_connections", tries = 8, check_seconds = 9, check_timeout_seconds = 10, check_rise = 11, check_fall = 12 }
        proxy_protocol = { send = "v2", accept_from = ["198.18.0.0/24"] }
        interfaces = ["eth0"]
        fail_closed = true
        accept_queue = 1
        connections_max = 2
        replies_per_prefix = 30
        window_scale = 4
        half_open = { max = 4, high_percent = 90, low_percent = 0, prefix_share_percent = 100, synack_retries = 5 }
        cookies = { accept = "always", bad_per_prefix = 50 }
        limits = { new_per_second = 60, per_prefix = 7, allow_files = ["/a"], deny_files = ["/d", "/e"], at_limit = "silent", displace_idle_seconds = 8 }
        timeouts = { connect_seconds = 1, first_byte_seconds = 3, idle_seconds = 0, half_close_seconds = 0, drain_idle_seconds = 8, header_seconds = 2, user_timeout_seconds = 4, keepalive_seconds = 5, keepalive_interval_seconds = 6, keepalive_probes = 7 }
        [[listener]]
        bind = ["127.0.0.1:81"]
        "#,
    )
    .unwrap();
    let web = ListenerConfig {
        name: "web".to_owned(),
        bind: vec!["[::]:80".parse().unwrap(), "198.18.0.1:80".parse().unwrap()],
        backend: Backend::Upstreams(vec!["198.18.0.2:8000".parse().unwrap()]),
        balance: Balance {
            policy: Policy::LeastConnections,
            tries: 8,
            checks: Some(HealthConfig {
                interval: Duration::from_secs(9),
                timeout: Duration::from_secs(10),
                rise: 11,
                fall: 12,
            }),
        },
        proxy_protocol: ProxyProtocol {
            send: Some(ProxyVersion::V2),
            accept_from: PrefixList::parse("198.18.0.0/24").unwrap(),
        },
        interfaces: vec!["eth0".to_owned()],
        fail_closed: true,
        accept_queue: 1,
        connections_max: 2,
        replies_per_prefix: 30,
        window_scale: 4,
        half_open: HalfOpen { max: 4, high_percent: 90, low_percent: 0, prefix_share_percent: 100, synack_retries: 5 },
        cookies: Cookies { accept: AcceptCookies::Always, bad_per_prefix: 50 },
        limits: Limits {
            new_per_second: NonZeroU32::new(60),
            per_prefix: NonZeroU32::new(7),
            allow_files: vec!["/a".into()],
            deny_files: vec!["/d".into(), "/e".into()],
            at_limit: AtLimit::Silent,
            displace_idle: Duration::from_secs(8),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            first_byte: Some(Duration::from_secs(3)),
            idle: None,
            half_close: None,
            drain_idle: Some(Duration::from_secs(8)),
            header: Duration::from_secs(2),
            user: Some(Duration::from_secs(4)),
            keepalive: Some(Keepalive { idle: Duration::from_secs(5), interval: Duration::from_secs(6), count: 7 }),
        },
    };
    let second = ListenerConfig { bind: vec!["127.0.0.1:81".parse().unwrap()], ..ListenerConfig::default() };
    let expected = Config {
        datapath: Datapath::Bpf,
        bpf_hook: BpfHook::Tc,
        admin: None,
        master_key_file: Some("/k".into()),
        state_dir: Some("/s".into()),
        bpf_pins: Some("/b".into()),
        workers: NonZeroUsize::new(3),
        pre_stop: Duration::from_secs(1),
        shutdown_deadline: Duration::ZERO,
        log: Log { format: LogFormat::Json, level: LogLevel::Debug },
        control: ControlPath::At("/c".into()),
        access_log: AccessLogConfig { path: AccessLogPath::File("/a".into()), queue_lines: 1 },
        listeners: vec![web, second],
    };
    assert_eq!(config, expected);
}

#[test]
fn a_top_level_fault_has_place_key_value_and_range() {
    for (text, place, parts) in [
        ("datapath = \"xdp\"", "1:12: datapath: ", ["\"xdp\"", r#"one of "auto", "bpf", "raw", "kernel""#]),
        ("\n datapath = 3", "2:13: datapath: ", ["3 (integer)", "\"auto\""]),
        ("admin = \"localhost:1\"", "1:9: admin: ", ["\"localhost:1\"", "\"none\""]),
        ("workers = 65", "1:11: workers: ", ["65", "from 0 to 64 (threads"]),
        ("workers = -1", "1:11: workers: ", ["-1", "from 0 to 64"]),
        ("workers = 1.5", "1:11: workers: ", ["1.5 (float)", "from 0 to 64"]),
        ("pre_stop_seconds = -1", "1:20: pre_stop_seconds: ", ["-1", "from 0 to 86400 (seconds)"]),
        ("shutdown_deadline_seconds = 86401", "1:29: shutdown_", ["86401", "from 0 to 86400 (seconds)"]),
        ("state_dir = \"\"", "1:13: state_dir: ", ["empty", "a path"]),
        ("master_key_file = 1", "1:19: master_key_file: ", ["1 (integer)", "a path"]),
        ("log = 1", "1:7: log: ", ["1 (integer)", "a table"]),
        ("[log]\nformat = \"xml\"", "2:10: log.format: ", ["\"xml\"", r#""text", "json""#]),
        ("control = \"\"", "1:11: control: ", ["empty", "at most 107 bytes, or \"none\""]),
        ("access_log = { path = 1 }", "1:23: access_log.path: ", ["1 (integer)", "\"stderr\" or \"none\""]),
        ("access_log.queue_lines = 0", "1:26: access_log.queue_lines: ", ["0", "from 1 to 1048576 (lines)"]),
        ("listener = 1", "1:12: listener: ", ["1 (integer)", "[[listener]]"]),
        ("listener = [1]", "1:13: listener: ", ["1 (integer)", "[[listener]]"]),
        ("[listener]", "1:1: listener: ", ["(table)", "[[listener]]"]),
    ] {
        assert_fault(text, place, &parts);
    }
}

#[test]
fn words_for_no_file_are_understood() {
    let config = Config::from_toml("control = \"none\"\naccess_log.path = \"stderr\"\n").unwrap();
    assert_eq!((config.control, config.access_log.path), (ControlPath::None, AccessLogPath::Stderr));
    let long = format!("control = \"/{}\"\n", "x".repeat(107));
    assert_fault(&long, "1:11: control: ", &["too long", "at most 107 bytes"]);
    assert!(Config::from_toml(&long.replace("/x", "/")).is_ok());
}

#[test]
fn a_listener_fault_has_place_key_value_and_range() {
    for (line, place, parts) in [
        ("name = \"a b\"", "2:8: listener.name: ", ["\"a b\"", "1 to 64"]),
        ("service = \"ftp\"", "2:11: listener.service: ", ["\"ftp\"", "\"discard\""]),
        ("upstream = \"0.0.0.0:1\"", "2:12: listener.upstream: ", ["\"0.0.0.0:1\"", "one host"]),
        ("interfaces = \"lo\"", "2:14: listener.interfaces: ", ["\"lo\" (string)", "a list"]),
        ("interfaces = [\"lo\", \"a/b\"]", "2:21: listener.interfaces: ", ["\"a/b\"", "1 to 15"]),
        ("fail_closed = \"no\"", "2:15: listener.fail_closed: ", ["\"no\" (string)", "true or false"]),
        ("accept_queue = 0", "2:16: listener.accept_queue: ", ["0", "from 1 to 1048576 (connections)"]),
        ("connections_max = 0", "2:19: listener.connections_max: ", ["0", "from 1 to 16777216"]),
        ("replies_per_prefix = 327671", "2:22: listener.replies_per_prefix: ", ["327671", "from 10 to 327670"]),
        ("half_open.max = 4194305", "2:17: listener.half_open.max: ", ["4194305", "from 1 to 4194304 (entries)"]),
        ("half_open.low_percent = 75", "2:25: listener.half_open.low_percent: ", ["75 is not below", "from 0 to 74"]),
        ("half_open.high_percent = 101", "2:26: listener.half_open.high_percent: ", ["101", "from 1 to 100"]),
        ("half_open.synack_retries = 6", "2:28: listener.half_open.synack_retries: ", ["6", "from 0 to 5"]),
        ("upstreams = []", "2:13: listener.upstreams: ", ["0 servers", "1 to 64"]),
        ("upstreams = [\"unix:app\"]", "2:14: listener.upstreams: ", ["unix:app", "unix:/PATH"]),
        ("upstreams = [\"[::]:1\"]", "2:14: listener.upstreams: ", ["[::]:1", "one host"]),
        ("balance.policy = \"random\"", "2:18: listener.balance.policy: ", ["\"random\"", "\"least_connections\""]),
        ("balance.tries = 0", "2:17: listener.balance.tries: ", ["0", "from 1 to 64"]),
        ("proxy_protocol.send = \"v3\"", "2:23: listener.proxy_protocol.send: ", ["\"v3\"", "\"v2\""]),
        (
            "proxy_protocol.accept_from = [\"10.0.0.1/8\"]",
            "2:31: listener.proxy_protocol.accept_from: ",
            ["10.0.0.1/8", "CIDR"],
        ),
        ("limits.per_prefix = 16777217", "2:21: listener.limits.per_prefix: ", ["16777217", "from 0 to 16777216"]),
        ("limits.at_limit = \"drop\"", "2:19: listener.limits.at_limit: ", ["\"drop\"", "\"displace\""]),
        ("limits.displace_idle_seconds = 0", "2:32: listener.limits.displace_idle_seconds: ", ["0", "from 1 to 86400"]),
        ("limits.deny_files = [\"\"]", "2:22: listener.limits.deny_files: ", ["empty", "a path"]),
        ("window_scale = 15", "2:16: listener.window_scale: ", ["15", "from 0 to 14"]),
        ("cookies.bad_per_prefix = 0", "2:26: listener.cookies.bad_per_prefix: ", ["0", "from 10 to 327670"]),
        ("cookies.accept = true", "2:18: listener.cookies.accept: ", ["true (boolean)", "\"always\""]),
        ("timeouts.connect_seconds = 0", "2:28: listener.timeouts.connect_seconds: ", ["0", "from 1 to 86400"]),
        ("timeouts.idle_seconds = \"1m\"", "2:25: listener.timeouts.idle_", ["\"1m\" (string)", "0: no limit"]),
    ] {
        assert_fault(&listener(line), place, &parts);
    }
}

#[test]
fn bad_addresses_are_faults() {
    let bind = |value: &str| format!("[[listener]]\nbind = {value}\n");
    assert_fault("[[listener]]\nname = \"a\"", "1:1: listener.bind: missing", &["ADDRESS:PORT"]);
    assert_fault(&bind("[]"), "2:8: listener.bind: ", &["the list is empty"]);
    assert_fault(&bind("\"0.0.0.0:80\""), "2:8: listener.bind: ", &["(string)", "a list"]);
    assert_fault(&bind("[\"1.2.3.4:80\", \"1.2.3.4\"]"), "2:23: listener.bind: ", &["\"1.2.3.4\"", "port is missing"]);
    assert_fault(&bind("[\"1.2.3.4:0\"]"), "2:9: listener.bind: ", &["port 0", "1 to 65535"]);
    assert_fault(&bind("[\"1.2.3.4:80\", \"0.0.0.0:80\"]"), "2:23: listener.bind: ", &["overlaps with 1.2.3.4:80"]);
}

#[test]
fn listeners_may_not_take_each_others_names_and_addresses() {
    let two = |a: &str, b: &str| {
        format!("[[listener]]\nname = \"a\"\nbind = [\"{a}\"]\n[[listener]]\nname = \"b\"\nbind = [\"{b}\"]\n")
    };
    assert_fault(&two("127.0.0.1:80", "127.0.0.1:80"), "6:9: listener.bind: ", &["overlaps with 127.0.0.1:80"]);
    assert_fault(&two("[::]:80", "127.0.0.1:80"), "6:9: listener.bind: ", &["overlaps with 0.0.0.0:80"]);
    assert!(Config::from_toml(&two("127.0.0.2:80", "127.0.0.1:80")).is_ok());
    let same_names = two("127.0.0.2:80", "127.0.0.1:80").replace("\"b\"", "\"a\"");
    assert_fault(&same_names, "5:8: listener.name: ", &["\"a\"", "of its own"]);
    let admin = format!("admin = \"127.0.0.1:80\"\n{}", listener(""));
    assert_fault(&admin, "1:9: admin: ", &["overlaps with the guarded 127.0.0.1:80"]);
}

#[test]
fn service_and_upstream_exclude_each_other() {
    let text = listener("service = \"http\"\nupstream = \"127.0.0.1:81\"");
    assert_fault(&text, "3:12: listener.upstream: ", &["exclude each other"]);
}

#[test]
fn unknown_keys_are_faults_at_every_level() {
    for (text, place) in [
        ("datpath = \"raw\"", "1:1: datpath: unknown key"),
        ("[log]\ncolour = 1", "2:1: log.colour: unknown key"),
        (&listener("binds = 1"), "2:1: listener.binds: unknown key"),
        (&listener("half_open.limit = 1"), "2:11: listener.half_open.limit: unknown key"),
        (&listener("cookies.key = 1"), "2:9: listener.cookies.key: unknown key"),
        (&listener("timeouts.idle = 1"), "2:10: listener.timeouts.idle: unknown key"),
    ] {
        assert_fault(text, place, &["legal here: "]);
    }
}

#[test]
fn all_faults_are_reported_at_once_in_the_order_of_the_file() {
    let text = "workers = 9999\ndatapath = \"x\"\n[[listener]]\nservice = \"x\"\nbind = [\"x\"]\nfoo = 1\n";
    let places: Vec<_> = Config::from_toml(text).unwrap_err().0.iter().map(|d| (d.line, d.column)).collect();
    assert_eq!(places, [(1, 11), (2, 12), (4, 11), (5, 9), (6, 1)]);
}

#[test]
fn faults_of_syntax_and_of_meaning_are_reported_together() {
    let faults = faults("workers = \nadmin = \"\nlog.format = \"xml\"\n");
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].starts_with("1:") && faults[1].starts_with("2:"), "{faults:#?}");
    assert!(faults[2].starts_with("3:14: log.format: "), "{faults:#?}");
}

#[test]
fn a_key_given_twice_is_a_fault() {
    for (text, place, first) in [
        ("workers = 1\nworkers = 2\n", "2:1: workers: ", "at 1:1 "),
        ("[log]\nlevel = \"info\"\n[log]\nformat = \"text\"\n", "3:2: log: ", "at 1:2 "),
        ("log = { level = \"info\", level = \"warn\" }", "1:25: log.level: ", "at 1:9 "),
        // Of two keys of one name, the one in the same table; of three, the first.
        ("a.x = 1\nlog.level = \"info\"\nb.level = 1\nlog.\"level\" = \"info\"\n", "4:5: log.level: ", "at 2:5 "),
        ("workers = 1\n\"workers\" = 2\nworkers = 3\n", "3:1: workers: ", "at 1:1 "),
        (&listener("half_open.max = 3\nhalf_open.max = 4"), "3:11: listener.half_open.max: ", "at 2:11 "),
    ] {
        let faults = faults(text);
        let fault = faults.iter().find(|fault| fault.starts_with(place)).unwrap_or_else(|| panic!("{faults:#?}"));
        assert!(fault.contains("duplicate key") && fault.contains(first), "{fault}");
    }
}

#[test]
fn a_list_of_no_listeners_is_a_fault() {
    assert_fault("listener = []", "1:12: listener: [] (array) is not legal", &["one [[listener]] table or more"]);
}

#[test]
fn bytes_that_are_no_text_are_a_fault_with_its_place() {
    for (bytes, place, part) in [
        (b"workers = 1\n# \xc3\xa4\xff\n".as_slice(), "2:4: ", "byte 0xff at offset 16 is not UTF-8"),
        (b"# \xc3", "1:3: ", "the end of the file"),
        (b"\xff\xfew\0", "1:1: ", "byte 0xff at offset 0"),
    ] {
        let faults = Config::from_bytes(bytes).unwrap_err().0;
        let fault = faults[0].to_string();
        assert!(faults.len() == 1 && fault.starts_with(place) && fault.contains(part), "{faults:#?}");
    }
    assert_eq!(Config::from_bytes(b"").unwrap(), Config::default());
}

#[test]
fn a_rendered_report_names_the_file_in_each_line_and_counts() {
    let diagnostics = Config::from_toml("a = 1\nb = 2\n").unwrap_err();
    let text = diagnostics.render("x.toml".as_ref());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("x.toml:1:1: a: unknown key"), "{text}");
    assert!(lines[1].starts_with("x.toml:2:1: b: unknown key"), "{text}");
    assert_eq!(lines[2], "x.toml: 2 errors");
}
