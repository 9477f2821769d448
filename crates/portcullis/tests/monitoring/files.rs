//! The files under test, read.

use std::fs;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::Value;

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// A file of the repository, as text.
pub fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The files in a directory whose names end so, by their paths in the repository, in order.
pub fn in_directory(relative: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"));
    let names = entries.map(|entry| entry.expect("read the directory").file_name().into_string().expect("UTF-8"));
    let mut found: Vec<String> =
        names.filter(|name| name.ends_with(ending)).map(|name| format!("{relative}/{name}")).collect();
    found.sort_unstable();
    assert!(!found.is_empty(), "no *{ending} in {relative}");
    found
}

/// The last part of a path, without its ending.
pub fn stem(relative: &str) -> &str {
    Path::new(relative).file_stem().and_then(|stem| stem.to_str()).expect("a file with a name")
}

/// A file of JSON.
pub fn json(relative: &str) -> Value {
    serde_json::from_str(&text(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A file with one document of YAML.
pub fn yaml(relative: &str) -> Value {
    let text = text(relative);
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{relative}: {error}"));
    assert_eq!(documents.len(), 1, "{relative}: documents");
    value_of(&documents[0])
}

fn value_of(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(yes)) => (*yes).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(value_of).collect(),
        Yaml::Mapping(pairs) => {
            let key =
                |key: &Yaml<'_>| key.as_str().unwrap_or_else(|| panic!("a key that is no text: {key:?}")).to_owned();
            Value::Object(pairs.iter().map(|(name, value)| (key(name), value_of(value))).collect())
        }
        other => panic!("unexpected in YAML: {other:?}"),
    }
}

/// The text under this key, which must be there.
pub fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key:?} in {value}"))
}

/// The list under this key, which must be there.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key:?} in {value}"))
}
