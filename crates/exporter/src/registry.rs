//! The metrics crate's recorder, private to one exporter.

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::catalog;
use crate::text;

/// Where handles are registered and from which they are rendered.
///
/// Not the process's global recorder: several exporters in one process, as in tests, must not share series.
pub(crate) struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// The labels of a series.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Registry {
    /// A registry that knows the HELP text of every family of the catalog, and has no series.
    pub(crate) fn new() -> Registry {
        let recorder = PrometheusBuilder::new().build_recorder();
        for family in catalog::all() {
            // The recorder keeps one table of descriptions for all kinds of metrics.
            recorder.describe_gauge(family.name.into(), None, family.help.into());
        }
        let handle = recorder.handle();
        Registry { recorder, handle }
    }

    /// The counter of that name and labels; made at 0 the first time.
    pub(crate) fn counter(&self, name: &'static str, labels: Labels<'_>) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// The gauge of that name and labels; made at 0 the first time.
    pub(crate) fn gauge(&self, name: &'static str, labels: Labels<'_>) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// Every series, the families in the order of their names.
    pub(crate) fn render(&self) -> String {
        text::sorted(&self.handle.render())
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    debug_assert!(catalog::all().any(|family| family.name == name), "{name} has no HELP text in the catalog");
    let labels: Vec<Label> = labels.iter().map(|&(label, value)| Label::new(label, value.to_owned())).collect();
    Key::from_parts(name, labels)
}
