//! deploy/kubernetes: the base, and what the overlays make of it.
//!
//! `kubectl kustomize` is in no package of Debian, so the overlays' strategic merge patches are applied here, by the rules of which these
//! manifests make use; deploy/kubernetes/validate has kustomize itself build them.

use serde_json::{Map, Value};

use super::files::{at, list_at, text_at, texts_at, yaml};

/// The directory.
pub const KUBERNETES: &str = "deploy/kubernetes";

/// The overlays, with the datapath that each is for.
pub const OVERLAYS: [&str; 2] = ["raw", "bpf"];

/// The DaemonSet as an overlay has it.
pub fn daemonset(overlay: &str) -> Value {
    let mut whole = yaml(&format!("{KUBERNETES}/base/daemonset.yaml"));
    let overlay = format!("{KUBERNETES}/overlays/{overlay}");
    let kustomization = yaml(&format!("{overlay}/kustomization.yaml"));
    for patch in kustomization.get("patches").and_then(Value::as_array).into_iter().flatten() {
        merge(&mut whole, yaml(&format!("{overlay}/{}", text_at(patch, "/path"))));
    }
    whole
}

/// Its pod.
pub fn pod(overlay: &str) -> Value {
    at(&daemonset(overlay), "/spec/template/spec").clone()
}

/// A container of a pod.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let mut all = list_at(pod, "/containers").iter();
    all.find(|container| container["name"] == name).unwrap_or_else(|| panic!("no container {name}"))
}

/// The configuration that an overlay mounts: its own, or the base's.
pub fn settings_path(overlay: &str) -> String {
    let own = format!("{KUBERNETES}/overlays/{overlay}");
    let replaced = yaml(&format!("{own}/kustomization.yaml")).pointer("/configMapGenerator").is_some();
    let directory = if replaced { own } else { format!("{KUBERNETES}/base") };
    let generator = yaml(&format!("{directory}/kustomization.yaml"));
    let generator = at(&generator, "/configMapGenerator/0");
    assert_eq!(text_at(generator, "/name"), "portcullis");
    assert_eq!(texts_at(generator, "/files"), ["portcullis.toml"]);
    format!("{directory}/portcullis.toml")
}

/// Applies a strategic merge patch: mappings are merged key by key, lists of Kubernetes' objects by what names them, others replaced.
fn merge(whole: &mut Value, patch: Value) {
    match (whole, patch) {
        (Value::Object(whole), Value::Object(patch)) => {
            for (key, item) in patch {
                merge_item(whole, key, item);
            }
        }
        (whole, patch) => *whole = patch,
    }
}

fn merge_item(whole: &mut Map<String, Value>, key: String, patch: Value) {
    let names = match key.as_str() {
        "containers" | "initContainers" | "volumes" | "env" => "name",
        "volumeMounts" => "mountPath",
        _ => return merge(whole.entry(key).or_insert(Value::Null), patch),
    };
    let items = whole.entry(key).or_insert_with(|| Value::Array(Vec::new())).as_array_mut().unwrap();
    let Value::Array(patches) = patch else { panic!("a list is patched by {patch}") };
    for patch in patches {
        match items.iter_mut().find(|item| item[names] == patch[names]) {
            Some(item) => merge(item, patch),
            None => items.push(patch),
        }
    }
}
