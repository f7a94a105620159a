//! What is counted and measured, under Feast's names where Feast counts it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use feast::{Event, MaterializedView, Observer};
use feast_core::ProjectContents;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

const REQUESTS: &str = "feast_feature_server_request_total";
const LATENCY: &str = "feast_feature_server_request_latency_seconds";
const IN_FLIGHT: &str = "feast_feature_server_requests_in_flight";
const PHASE: &str = "feast_feature_server_phase_seconds";
const ONLINE_REQUESTS: &str = "feast_online_features_request_total";
const ENTITY_COUNT: &str = "feast_online_features_entity_count";
const PUSHES: &str = "feast_push_request_total";
const MATERIALIZATIONS: &str = "feast_materialization_result_total";
const MATERIALIZATION_SECONDS: &str = "feast_materialization_duration_seconds";
const FRESHNESS: &str = "feast_feature_freshness_seconds";
const REGISTRY_AGE: &str = "feast_registry_snapshot_age_seconds";

const METADATA: Metadata<'static> = Metadata::new("feast_server", Level::INFO, Some("feast_server"));

/// The metrics of one server. They belong to it, not to the process, so that several servers can run side by side.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    in_flight: Gauge,
    started: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests =
            [0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let rows = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
        let runs = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
        let buckets: [(&str, &[f64]); 4] =
            [(LATENCY, &requests), (PHASE, &requests), (ENTITY_COUNT, &rows), (MATERIALIZATION_SECONDS, &runs)];
        let builder = buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            // Buckets are refused only when there are none.
            let matcher = Matcher::Full(name.to_owned());
            builder.set_buckets_for_metric(matcher, bounds).unwrap_or_else(|_| PrometheusBuilder::new())
        });
        let recorder = builder.build_recorder();
        for (name, text) in [
            (REQUESTS, "Requests by route and outcome."),
            (LATENCY, "Time from the head of a request to its answer, by route."),
            (PHASE, "Time spent in the parts of an online request."),
            (ONLINE_REQUESTS, "Requests for online features."),
            (ENTITY_COUNT, "Entity rows per request for online features."),
            (PUSHES, "Pushes by push source and target."),
            (MATERIALIZATIONS, "Materialization runs by view and outcome."),
        ] {
            recorder.describe_counter(name.into(), None, SharedString::const_str(text));
        }
        let in_flight = recorder.register_gauge(&Key::from_static_name(IN_FLIGHT), &METADATA);
        Self { handle: recorder.handle(), recorder, in_flight, started: Mutex::default() }
    }

    /// A request came in; it is over when the guard is dropped.
    pub(crate) fn request_started(&self) -> impl Drop + use<> {
        struct InFlight(Gauge);
        impl Drop for InFlight {
            fn drop(&mut self) {
                self.0.decrement(1.0);
            }
        }
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn request_finished(&self, endpoint: &str, failed: bool, duration: Duration) {
        let status = if failed { "error" } else { "success" };
        self.counter(REQUESTS, &[("endpoint", endpoint), ("status", status)]).increment(1);
        self.histogram(LATENCY, &[("endpoint", endpoint)]).record(duration);
    }

    pub(crate) fn online_request(&self, entity_rows: usize) {
        self.counter(ONLINE_REQUESTS, &[]).increment(1);
        self.histogram(ENTITY_COUNT, &[]).record(entity_rows as f64);
    }

    /// How long a part of an online request took.
    pub(crate) fn phase(&self, phase: &'static str, duration: Duration) {
        self.histogram(PHASE, &[("phase", phase)]).record(duration);
    }

    /// A push that was accepted; the names of others are not taken as labels, because callers make them up.
    pub(crate) fn pushed(&self, push_source: &str, mode: &str) {
        self.counter(PUSHES, &[("push_source", push_source), ("mode", mode)]).increment(1);
    }

    pub(crate) fn materialized(&self, views: &[MaterializedView]) {
        for view in views {
            self.counter(MATERIALIZATIONS, &[("feature_view", &view.name), ("status", "success")]).increment(1);
        }
    }

    /// A run ended early: the view that was being worked on did not make it.
    pub(crate) fn materialization_failed(&self, views: &[String]) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        for view in views.iter().filter(|view| started.remove(*view).is_some()) {
            self.counter(MATERIALIZATIONS, &[("feature_view", view), ("status", "failure")]).increment(1);
        }
    }

    /// The text that Prometheus reads, with how old features and the registry snapshot are right now.
    pub(crate) fn render(&self, contents: Option<&ProjectContents>, registry_age: Option<Duration>) -> String {
        if let Some(contents) = contents {
            for view in contents.feature_views.values() {
                if let Some(end) = view.most_recent_end() {
                    let labels = [("feature_view", view.name.as_str()), ("project", contents.project.name.as_str())];
                    let age = Utc::now().signed_duration_since(end).num_milliseconds() as f64 / 1000.0;
                    self.gauge(FRESHNESS, &labels).set(age);
                }
            }
        }
        if let Some(age) = registry_age {
            self.gauge(REGISTRY_AGE, &[]).set(age.as_secs_f64());
        }
        self.handle.render()
    }

    /// Folds what was measured since the last time; without it, measurements pile up while nobody asks for them.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }
}

impl Observer for Metrics {
    fn on(&self, event: &Event) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::MaterializationStarted { view, .. } => drop(started.insert(view.clone(), Instant::now())),
            Event::MaterializationFinished { view, .. } => {
                if let Some(since) = started.remove(view) {
                    self.histogram(MATERIALIZATION_SECONDS, &[("feature_view", view)]).record(since.elapsed());
                }
            }
            _ => {}
        }
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}
