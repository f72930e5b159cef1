//! Makes series out of families and label values.
//!
//! Keeps true: no other file calls the recorder.
//! Must not know: which label values there are.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::families::{self, Family, MetricKind};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// A recorder that isn't the process's global one.
#[derive(Debug)]
pub(crate) struct Registrar {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Registrar {
    /// Describes every family; no series exists yet.
    #[allow(clippy::expect_used)] // bounds are constants of `families`, held not empty by its test
    pub(crate) fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for family in families::ALL {
            if let MetricKind::Histogram(bounds) = family.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds)
                    .expect("a histogram has buckets");
            }
        }
        let recorder = builder.build_recorder();
        for family in families::ALL {
            let name = KeyName::from_const_str(family.name);
            let help = SharedString::const_str(family.help);
            match family.kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    /// The counter of these labels, at 0 if it is new.
    pub(crate) fn counter(&self, family: &Family, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(family.kind, MetricKind::Counter, "{}", family.name);
        self.recorder
            .register_counter(&key(family, labels), &METADATA)
    }

    /// The gauge of these labels, at 0 if it is new.
    pub(crate) fn gauge(&self, family: &Family, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(family.kind, MetricKind::Gauge, "{}", family.name);
        self.recorder
            .register_gauge(&key(family, labels), &METADATA)
    }

    /// The gauge of these labels, set to `value`.
    pub(crate) fn gauge_at(
        &self,
        family: &Family,
        labels: &[(&'static str, &str)],
        value: f64,
    ) -> Gauge {
        let gauge = self.gauge(family, labels);
        gauge.set(value);
        gauge
    }

    /// The histogram of these labels, empty if it is new.
    pub(crate) fn histogram(&self, family: &Family, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(
            matches!(family.kind, MetricKind::Histogram(_)),
            "{}",
            family.name
        );
        self.recorder
            .register_histogram(&key(family, labels), &METADATA)
    }

    /// All series as text, in no order.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves histogram samples into their buckets.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn key(family: &Family, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(family.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_ascending_buckets_and_every_family_a_name_of_its_own() {
        let mut names: Vec<_> = families::ALL.iter().map(|family| family.name).collect();
        for family in families::ALL {
            if let MetricKind::Histogram(bounds) = family.kind {
                assert!(!bounds.is_empty() && bounds.is_sorted(), "{}", family.name);
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), families::ALL.len());
    }
}
