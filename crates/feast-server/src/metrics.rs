//! What is counted and measured, under Feast's names where Feast counts it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::Utc;
use feast::{Event, MaterializedView, Newest, Observer};
use feast_core::{ProjectContents, Timestamp};
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::histogram::{Family, Histogram};

const REQUESTS: &str = "feast_feature_server_request_total";
const IN_FLIGHT: &str = "feast_feature_server_requests_in_flight";
const ONLINE_REQUESTS: &str = "feast_online_features_request_total";
const FALLBACKS: &str = "feast_online_view_fallback_total";
const PUSHES: &str = "feast_push_request_total";
const OFFLINE_WRITES: &str = "feast_offline_push_write_total";
const MATERIALIZATIONS: &str = "feast_materialization_result_total";
const MATERIALIZATION_SECONDS: &str = "feast_materialization_duration_seconds";
const FRESHNESS: &str = "feast_feature_freshness_seconds";
const OFFLINE_FRESHNESS: &str = "feast_feature_offline_freshness_seconds";
const PANICS: &str = "feast_background_task_panics_total";
const REGISTRY_AGE: &str = "feast_registry_snapshot_age_seconds";

/// Upper bounds of times of requests, in nanoseconds.
const TIMES: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

static LATENCY: Family = Family {
    name: "feast_feature_server_request_latency_seconds",
    help: "Time from the head of a request to its answer, by route.",
    bounds: TIMES,
    scale: 1e9,
};

static PHASE: Family = Family {
    name: "feast_feature_server_phase_seconds",
    help: "Time spent in the parts of an online request, by feature service; empty for references.",
    bounds: TIMES,
    scale: 1e9,
};

static ENTITY_COUNT: Family = Family {
    name: "feast_online_features_entity_count",
    help: "Entity rows per request for online features.",
    bounds: &[1, 5, 10, 25, 50, 100, 250, 500, 1000],
    scale: 1.0,
};

const METADATA: Metadata<'static> = Metadata::new("feast_server", Level::INFO, Some("feast_server"));

/// Label of requests to routes that do not exist.
pub(crate) const OTHER_PATHS: &str = "other";

/// Label of requests that name features instead of a service.
const NO_SERVICE: &str = "";

/// Label of services beyond [`MOST_SERVICES`].
const OTHER_SERVICES: &str = "other";

/// Services that have labels of their own.
const MOST_SERVICES: usize = 200;

/// The metrics of one server. They belong to it, not to the process, so that several servers can run side by side.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    in_flight: Gauge,
    online_requests: Counter,
    entity_count: Histogram,
    /// By route; a route is there after its first request.
    endpoints: RwLock<HashMap<String, Arc<Endpoint>>>,
    /// By feature service.
    services: RwLock<HashMap<String, Arc<Service>>>,
    /// By push source.
    pushes: RwLock<HashMap<String, Arc<Pushes>>>,
    started: Mutex<HashMap<String, Instant>>,
    /// The newest event time that callers of this server have written, by view.
    written: Mutex<HashMap<String, Timestamp>>,
    offline: Mutex<OfflineTimes>,
}

/// What sources held when they were looked at.
#[derive(Default)]
struct OfflineTimes {
    /// The newest event time of each view, as it was last told: rows age also where nobody can look at them.
    newest: HashMap<String, Timestamp>,
    /// Views whose source could not be looked at the last time.
    unknown: HashSet<String>,
}

/// The handles of one route, so that a request does not look them up by their labels.
struct Endpoint {
    succeeded: Counter,
    failed: Counter,
    latency: Histogram,
}

/// The handles of one push source, by the target of a push.
#[derive(Default)]
struct Pushes(RwLock<HashMap<String, Arc<Counter>>>);

/// The handles of one feature service.
struct Service {
    phases: [Histogram; PHASES.len()],
}

/// The parts of an online request, in order.
const PHASES: [&str; 5] = ["parse", "plan", "store", "transform", "encode"];

/// How long each part of an online request took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PhaseTimes {
    /// From the body to columns.
    pub(crate) parse: Duration,
    /// From the names of features to the keys to read.
    pub(crate) plan: Duration,
    /// The read of the store.
    pub(crate) store: Duration,
    /// Rows into request order, and on-demand views.
    pub(crate) transform: Duration,
    /// From columns to the body of the answer.
    pub(crate) encode: Duration,
}

impl PhaseTimes {
    /// Names and times, in order.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        PHASES.into_iter().zip([self.parse, self.plan, self.store, self.transform, self.encode])
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let runs = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
        let matcher = Matcher::Full(MATERIALIZATION_SECONDS.to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, &runs);
        // Buckets are refused only when there are none.
        let recorder = builder.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
        for (name, text) in [
            (REQUESTS, "Requests by route and outcome."),
            (ONLINE_REQUESTS, "Requests for online features."),
            (PUSHES, "Pushes by push source and target."),
            (OFFLINE_WRITES, "Writes of pushes that were gathered for the offline store, by push source and outcome."),
            (FALLBACKS, "Answers with nulls in place of a view that the online store could not give."),
            (MATERIALIZATIONS, "Materialization runs by view and outcome."),
            (PANICS, "Background tasks that panicked and were started anew."),
        ] {
            recorder.describe_counter(name.into(), None, SharedString::const_str(text));
        }
        for (name, text) in [
            (
                FRESHNESS,
                "Since the end of the newest materialization, or the newest event time written through this server.",
            ),
            (
                OFFLINE_FRESHNESS,
                "Since the newest event time in the batch source, where the footers of its files tell.",
            ),
        ] {
            recorder.describe_gauge(name.into(), None, SharedString::const_str(text));
        }
        let in_flight = recorder.register_gauge(&Key::from_static_name(IN_FLIGHT), &METADATA);
        Self {
            online_requests: recorder.register_counter(&Key::from_static_name(ONLINE_REQUESTS), &METADATA),
            entity_count: Histogram::new(&ENTITY_COUNT),
            handle: recorder.handle(),
            recorder,
            in_flight,
            endpoints: RwLock::default(),
            services: RwLock::default(),
            pushes: RwLock::default(),
            started: Mutex::default(),
            written: Mutex::default(),
            offline: Mutex::default(),
        }
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
        let endpoint = remembered(&self.endpoints, endpoint, |name| Endpoint {
            succeeded: self.counter(REQUESTS, &[("endpoint", name), ("status", "success")]),
            failed: self.counter(REQUESTS, &[("endpoint", name), ("status", "error")]),
            latency: Histogram::new(&LATENCY),
        });
        if failed { &endpoint.failed } else { &endpoint.succeeded }.increment(1);
        endpoint.latency.record(nanos(duration));
    }

    /// A request for online features was understood.
    pub(crate) fn online_request(&self, entity_rows: usize) {
        self.online_requests.increment(1);
        self.entity_count.record(entity_rows as u64);
    }

    /// An online request was answered; `service` is one of the registry's.
    pub(crate) fn online_phases(&self, service: Option<&str>, times: &PhaseTimes) {
        let name = service.unwrap_or(NO_SERVICE);
        let is_new =
            |services: &HashMap<String, Arc<Service>>| services.len() >= MOST_SERVICES && !services.contains_key(name);
        let name = if self.services.read().is_ok_and(|services| is_new(&services)) { OTHER_SERVICES } else { name };
        let service = remembered(&self.services, name, |_| Service { phases: PHASES.map(|_| Histogram::new(&PHASE)) });
        for (histogram, (_, time)) in service.phases.iter().zip(times.each()) {
            histogram.record(nanos(time));
        }
    }

    /// A view became null because the store could not give it.
    pub(crate) fn fell_back(&self, feature_view: &str) {
        self.counter(FALLBACKS, &[("feature_view", feature_view)]).increment(1);
    }

    pub(crate) fn task_panicked(&self, task: &'static str) {
        self.counter(PANICS, &[("task", task)]).increment(1);
    }

    /// A push that was accepted; the names of others are not taken as labels, because callers make them up.
    pub(crate) fn pushed(&self, push_source: &str, mode: &str) {
        let of_source = remembered(&self.pushes, push_source, |_| Pushes::default());
        let counter = || self.counter(PUSHES, &[("push_source", push_source), ("mode", mode)]);
        remembered(&of_source.0, mode, |_| counter()).increment(1);
    }

    /// Pushes that were gathered for the offline store are written, or wait for the next time.
    pub(crate) fn offline_written(&self, push_source: &str, is_written: bool) {
        let status = if is_written { "success" } else { "failure" };
        self.counter(OFFLINE_WRITES, &[("push_source", push_source), ("status", status)]).increment(1);
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
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner);
            let age = |time: Timestamp| Utc::now().signed_duration_since(time).num_milliseconds() as f64 / 1000.0;
            for view in contents.feature_views.values() {
                let labels = [("feature_view", view.name.as_str()), ("project", contents.project.name.as_str())];
                if let Some(newest) = view.most_recent_end().max(written.get(&view.name).copied()) {
                    self.gauge(FRESHNESS, &labels).set(age(newest));
                }
                if let Some(newest) = offline.newest.get(&view.name) {
                    self.gauge(OFFLINE_FRESHNESS, &labels).set(age(*newest));
                }
            }
        }
        if let Some(age) = registry_age {
            self.gauge(REGISTRY_AGE, &[]).set(age.as_secs_f64());
        }
        let mut text = self.handle.render();
        ENTITY_COUNT.render(&mut text, [(Vec::new(), &self.entity_count)]);
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        let mut endpoints: Vec<_> = endpoints.iter().collect();
        endpoints.sort_by_key(|(name, _)| *name);
        let latencies = endpoints.iter().map(|(name, endpoint)| (vec![("endpoint", name.as_str())], &endpoint.latency));
        LATENCY.render(&mut text, latencies);
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let mut services: Vec<_> = services.iter().collect();
        services.sort_by_key(|(name, _)| *name);
        let phases = services.iter().flat_map(|(name, service)| {
            let phases = PHASES.into_iter().zip(&service.phases);
            phases.map(move |(phase, histogram)| (vec![("service", name.as_str()), ("phase", phase)], histogram))
        });
        PHASE.render(&mut text, phases);
        text
    }

    /// What the offline store holds now. Returns what has become unknown, by view: why, in the order of names.
    pub(crate) fn offline_newest(&self, told: HashMap<String, Newest>) -> Vec<(String, String)> {
        let mut offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner);
        offline.newest.retain(|view, _| told.contains_key(view));
        offline.unknown.retain(|view| told.get(view).is_some_and(|newest| newest.problem.is_some()));
        let mut lost = Vec::new();
        for (view, newest) in told {
            if let Some(problem) = newest.problem
                && offline.unknown.insert(view.clone())
            {
                lost.push((view.clone(), problem));
            }
            if let Some(time) = newest.time {
                offline.newest.insert(view, time);
            }
        }
        lost.sort();
        lost
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
}

impl Observer for Metrics {
    fn on(&self, event: &Event) {
        if let Event::FeaturesWritten { view, newest } = event {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            match written.get_mut(view) {
                Some(known) => *known = (*known).max(*newest),
                None => drop(written.insert(view.clone(), *newest)),
            }
            return;
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::MaterializationStarted { view, .. } => drop(started.insert(view.clone(), Instant::now())),
            Event::MaterializationFinished { view, .. } => {
                if let Some(since) = started.remove(view) {
                    let key = key(MATERIALIZATION_SECONDS, &[("feature_view", view)]);
                    self.recorder.register_histogram(&key, &METADATA).record(since.elapsed());
                }
            }
            _ => {}
        }
    }
}

/// The entry with this name, made when it is asked for the first time.
fn remembered<T>(known: &RwLock<HashMap<String, Arc<T>>>, name: &str, make: impl FnOnce(&str) -> T) -> Arc<T> {
    if let Some(found) = known.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Arc::clone(found);
    }
    let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(make(name))))
}

/// Nobody waits for centuries.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use chrono::TimeDelta;
    use feast::ToldBy;
    use feast_core::{BatchFeatures, FeatureView, FeatureViewKind, RegistryObject};

    use super::*;

    #[test]
    fn rows_age_also_where_nobody_can_look_at_them() {
        let metrics = Metrics::new();
        let mut contents = ProjectContents::default();
        contents.put(RegistryObject::FeatureView(Arc::new(FeatureView::new(
            "v",
            FeatureViewKind::Batch(BatchFeatures::default()),
        ))));
        let told = |time, problem: Option<&str>| {
            let problem = problem.map(str::to_owned);
            HashMap::from([("v".to_owned(), Newest { time, age_seconds: None, told_by: ToldBy::Statistics, problem })])
        };
        let age = || -> f64 {
            let text = metrics.render(Some(&contents), None);
            let line = text.lines().find(|line| line.starts_with(OFFLINE_FRESHNESS)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let before = Some(Utc::now() - TimeDelta::seconds(100));
        assert!(metrics.offline_newest(told(before, None)).is_empty());
        let first = age();
        assert!((100.0..110.0).contains(&first), "{first}");
        let gone = [("v".to_owned(), "the file is gone".to_owned())];
        assert_eq!(metrics.offline_newest(told(None, Some("the file is gone"))), gone);
        std::thread::sleep(Duration::from_millis(2));
        let second = age();
        assert!(second > first, "{second}");
        // It is said once, and again when it was there meanwhile.
        assert!(metrics.offline_newest(told(None, Some("the file is gone"))).is_empty());
        assert!(metrics.offline_newest(told(Some(Utc::now()), None)).is_empty());
        assert!(age() < 50.0);
        assert_eq!(metrics.offline_newest(told(None, Some("the file is gone"))), gone);
    }
}
