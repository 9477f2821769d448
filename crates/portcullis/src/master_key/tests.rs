use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;

use super::key_file::{Exposure, exposure};
use super::*;

/// A directory that is removed with its contents.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("portcullis-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What makes it impossible to keep a new key.
    pub fn in_the_way_of_the_new_key(&self) -> PathBuf {
        let path = self.0.join(PREVIOUS_FILE);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The key of the place that is found.
fn load(named: Option<Named<'_>>, state_dir: Option<&Path>, environment: &Environment) -> Result<MasterKey, Failure> {
    KeySource::find(named, state_dir, environment.clone())?.load().map(|masters| masters.last().clone())
}

fn hex(key: &MasterKey) -> String {
    key.to_hex().to_string()
}

fn by_flag(file: &Path) -> Named<'_> {
    Named { file, by: "--master-key-file" }
}

fn new_hex() -> String {
    hex(&MasterKey::generate().unwrap())
}

#[test]
fn a_named_file_wins_over_a_credential_and_the_state() {
    let dir = Directory::new();
    let (named, credential, kept) = (new_hex(), new_hex(), new_hex());
    let file = dir.write("named", &format!("{named}\n"), 0o600);
    dir.write(CREDENTIAL, &credential, 0o600);
    dir.write(STATE_FILE, &kept, 0o600);
    let environment =
        Environment { credentials: Some(dir.0.clone()), state: Some(dir.0.clone()), ..Environment::default() };
    assert_eq!(hex(&load(Some(by_flag(&file)), None, &environment).unwrap()), named);
    assert_eq!(hex(&load(None, None, &environment).unwrap()), credential);
    let environment = Environment { credentials: None, ..environment };
    assert_eq!(hex(&load(None, None, &environment).unwrap()), kept);
}

#[test]
fn a_new_key_is_kept_for_its_owner_alone() {
    let dir = Directory::new();
    let state = dir.0.join("a/b");
    let first = load(None, Some(&state), &Environment::default()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state.join(STATE_FILE)), 0o600);
    assert_eq!(mode(&state), 0o700);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "the temporary file is gone");
    let second = load(None, Some(&state), &Environment::default()).unwrap();
    assert_eq!(hex(&first), hex(&second));
}

#[test]
fn processes_that_start_at_once_agree() {
    let dir = Directory::new();
    let barrier = Barrier::new(8);
    let keys: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            hex(&load(None, Some(&dir.0), &Environment::default()).unwrap())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn the_state_directory_follows_the_environment() {
    let home = Environment { home: Some("/home/u".into()), ..Environment::default() };
    assert_eq!(home.state_directory(), Some("/home/u/.local/state/portcullis".into()));
    let xdg = Environment { xdg_state: Some("/x".into()), ..home };
    assert_eq!(xdg.state_directory(), Some("/x/portcullis".into()));
    let root = Environment { root: true, ..xdg };
    assert_eq!(root.state_directory(), Some("/var/lib/portcullis".into()));
    let systemd = Environment { state: Some("/s".into()), ..root };
    assert_eq!(systemd.state_directory(), Some("/s".into()));
    assert_eq!(Environment::default().state_directory(), None);
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_way_out() {
    let dir = Directory::new();
    let not_a_directory = dir.write("file", "", 0o600);
    let message = load(None, Some(&not_a_directory), &Environment::default()).unwrap_err().to_string();
    assert!(message.contains("--master-key-file") && message.contains("/file"), "{message}");
    let message = load(None, None, &Environment::default()).unwrap_err().to_string();
    assert!(message.contains("--master-key-file"), "{message}");
}

#[test]
fn a_bad_key_file_is_refused_without_showing_it() {
    let dir = Directory::new();
    let file = dir.write("key", "deadbeef", 0o600);
    let message = load(Some(by_flag(&file)), None, &Environment::default()).unwrap_err().to_string();
    assert!(message.contains("64 hexadecimal digits") && !message.contains("deadbeef"), "{message}");
    let message = load(Some(by_flag(&dir.0.join("absent"))), None, &Environment::default()).unwrap_err().to_string();
    assert!(message.contains("No such file"), "{message}");
}

#[test]
fn a_key_file_that_others_can_read_or_change_is_refused_with_the_command() {
    let dir = Directory::new();
    for mode in [0o604, 0o644, 0o602, 0o620, 0o666] {
        let file = dir.write("it's", &new_hex(), mode);
        let message = load(Some(by_flag(&file)), None, &Environment::default()).unwrap_err().to_string();
        let (mode, remedy) = (format!("mode {mode:04o}"), format!(r"chmod 600 '{}/it'\''s'", dir.0.display()));
        assert!(message.contains(&mode) && message.contains(&remedy), "{message}");
    }
    for mode in [0o400, 0o600, 0o440, 0o640] {
        load(Some(by_flag(&dir.write("key", &new_hex(), mode))), None, &Environment::default()).unwrap();
    }
}

#[test]
fn a_key_of_systemd_may_have_any_mode() {
    let dir = Directory::new();
    let file = dir.write(CREDENTIAL, &new_hex(), 0o444);
    let environment = Environment { credentials: Some(dir.0.clone()), ..Environment::default() };
    load(None, None, &environment).unwrap();
    load(Some(by_flag(&file)), None, &environment).unwrap();
}

#[test]
fn a_group_that_can_read_is_told_from_roots_own() {
    let dir = Directory::new();
    let metadata = fs::metadata(dir.write("key", "", 0o440)).unwrap();
    let expected = if std::os::unix::fs::MetadataExt::gid(&metadata) == 0 { Exposure::None } else { Exposure::Group };
    assert_eq!(exposure(&metadata), expected);
    if Environment::of_process().root {
        std::os::unix::fs::chown(dir.0.join("key"), None, Some(1)).unwrap();
        assert_eq!(exposure(&fs::metadata(dir.0.join("key")).unwrap()), Exposure::Group);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let dir = Directory::new();
    let fifo = dir.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for (path, kind) in [(fifo.as_path(), "a pipe"), (&dir.0, "a directory"), (Path::new("/dev/zero"), "a character")] {
        let message = load(Some(by_flag(path)), None, &Environment::default()).unwrap_err().to_string();
        assert!(message.contains(kind) && message.contains("legal: a regular file"), "{message}");
    }
}

#[test]
fn a_message_names_what_named_the_key() {
    let dir = Directory::new();
    for name in [CREDENTIAL, STATE_FILE] {
        dir.write(name, "bad", 0o600);
    }
    let message = |named, state_dir, environment: &Environment| {
        let failure: Failure = load(named, state_dir, environment).unwrap_err();
        failure.to_string().split(": ").next().unwrap().to_owned()
    };
    let (nothing, at) = (Environment::default(), dir.0.display());
    let by_key = Named { file: Path::new("/absent"), by: "master_key_file" };
    assert_eq!(message(Some(by_key), None, &nothing), "cannot use the master key of master_key_file /absent");
    let credentials = Environment { credentials: Some(dir.0.clone()), ..Environment::default() };
    assert_eq!(
        message(None, None, &credentials),
        format!("cannot use the master key of $CREDENTIALS_DIRECTORY/{CREDENTIAL} ({at}/{CREDENTIAL})")
    );
    assert_eq!(
        message(None, Some(&dir.0), &nothing),
        format!("cannot use the master key of state_dir {at}/{STATE_FILE}")
    );
    let state = Environment { state: Some(dir.0.clone()), ..Environment::default() };
    assert_eq!(
        message(None, None, &state),
        format!("cannot use the master key of the state directory {at}/{STATE_FILE}")
    );
}

#[test]
fn a_restart_after_a_rotation_has_the_key_before_for_as_long_as_a_client_may_need_it() {
    let dir = Directory::new();
    let source = KeySource::kept_in(&dir.0);
    let old = source.load().unwrap().last().clone();
    let new = source.fresh().unwrap();
    let now = oldest_epoch_now().0 + 2;
    for (from, both) in [(now + 2, true), (now, true), (now - 1, true), (now - 3, false)] {
        let mut masters = KeySchedule::new(old.clone());
        masters.rotate(Epoch(from), new.clone()).unwrap();
        source.keep(&masters).unwrap();
        let loaded = source.load().unwrap();
        assert!(loaded.last().is(&new) && loaded.master_of(Epoch(from)).is(&new));
        assert_eq!(loaded.master_of(Epoch(from - 1)).is(&old), both, "from {from}, now {now}");
        assert_eq!(dir.0.join(PREVIOUS_FILE).exists(), both, "what nobody needs is removed");
    }
    let mode = |name| fs::metadata(dir.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(STATE_FILE), 0o600);
    let names: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [STATE_FILE], "nothing temporary is left");
}

#[test]
fn a_key_that_somebody_else_put_into_the_state_directory_has_those_before_it_beside_it_too() {
    let dir = Directory::new();
    let source = KeySource::kept_in(&dir.0);
    let mut masters = source.load().unwrap();
    let from = Epoch(oldest_epoch_now().0 + 4);
    dir.write(STATE_FILE, &new_hex(), 0o600);
    masters.rotate(from, source.read().unwrap()).unwrap();
    source.keep_previous(&masters);
    let loaded = source.load().unwrap();
    assert!(loaded.first().is(masters.first()) && loaded.last().is(masters.last()));
    let given = KeySource::find(Some(by_flag(&dir.0.join(STATE_FILE))), None, Environment::default()).unwrap();
    fs::remove_file(dir.0.join(PREVIOUS_FILE)).unwrap();
    given.keep_previous(&masters);
    assert!(!dir.0.join(PREVIOUS_FILE).exists(), "nothing beside a file of somebody else's");
}

#[test]
fn previous_keys_that_make_no_sense_are_left_out() {
    let dir = Directory::new();
    let source = KeySource::kept_in(&dir.0);
    let key = source.load().unwrap().last().clone();
    for (text, mode) in [("garbage", 0o600), ("", 0o666)] {
        dir.write(PREVIOUS_FILE, text, mode);
        let loaded = source.load().unwrap();
        assert!(loaded.last().is(&key) && loaded.later().next().is_none(), "{text:?}");
    }
}

#[test]
fn a_key_of_somebody_elses_is_not_replaced() {
    let dir = Directory::new();
    let file = dir.write("key", &new_hex(), 0o600);
    let source = KeySource::find(Some(by_flag(&file)), Some(&dir.0), Environment::default()).unwrap();
    let message = source.fresh().unwrap_err().to_string();
    assert!(message.contains("--master-key-file") && message.contains("without --generate"), "{message}");
    fs::write(&file, "short").unwrap();
    assert!(source.read().unwrap_err().to_string().contains("64 hexadecimal digits"));
}
