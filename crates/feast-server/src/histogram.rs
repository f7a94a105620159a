//! Histograms of what every request measures, as Prometheus reads them.
//!
//! A measurement is two additions. Those of the exporter keep each measurement until somebody folds them, which for some
//! hundred thousand a second is memory, and time that the next requests wait.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What histograms of one name share.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// The upper bounds of the buckets, ascending.
    pub(crate) bounds: &'static [u64],
    /// How many of the units that are measured make one of those that are told.
    pub(crate) scale: f64,
}

/// How often what was measured.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One per bucket, and one for what is in none.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(family: &Family) -> Self {
        let counts = (0..=family.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: family.bounds, counts, sum: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, measured: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < measured);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(measured, Relaxed);
    }
}

impl Family {
    /// Appends all histograms of this name, each with its labels.
    pub(crate) fn render<'h>(
        &self,
        out: &mut String,
        histograms: impl IntoIterator<Item = (Vec<(&'static str, &'h str)>, &'h Histogram)>,
    ) {
        let name = self.name;
        let mut is_first = true;
        for (labels, histogram) in histograms {
            if std::mem::take(&mut is_first) {
                // Writing to memory does not fail.
                let _ = write!(out, "# HELP {name} {}\n# TYPE {name} histogram\n", self.help);
            }
            let mut total = 0;
            for (at, count) in histogram.counts.iter().enumerate() {
                total += count.load(Relaxed);
                let bound = match self.bounds.get(at) {
                    Some(bound) => (*bound as f64 / self.scale).to_string(),
                    None => "+Inf".to_owned(),
                };
                let labels = Labels(labels.iter().copied().chain([("le", bound.as_str())]).collect());
                let _ = writeln!(out, "{name}_bucket{labels} {total}");
            }
            let labels = Labels(labels);
            let sum = histogram.sum.load(Relaxed) as f64 / self.scale;
            let _ = write!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {total}\n");
        }
        if !is_first {
            out.push('\n');
        }
    }
}

struct Labels<'a>(Vec<(&'static str, &'a str)>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{name}=\"{value}\"", if number == 0 { '{' } else { ',' })?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_counted_in_buckets() {
        let family = Family { name: "wait_seconds", help: "How long.", bounds: &[100_000, 2_500_000_000], scale: 1e9 };
        let (slow, idle) = (Histogram::new(&family), Histogram::new(&family));
        for nanos in [0, 100_000, 100_001, 2_500_000_000, 3_000_000_000] {
            slow.record(nanos);
        }
        let mut text = String::new();
        family.render(&mut text, [(vec![("path", "a\"\\\n")], &slow), (vec![], &idle)]);
        let expected = r#"# HELP wait_seconds How long.
# TYPE wait_seconds histogram
wait_seconds_bucket{path="a\"\\\n",le="0.0001"} 2
wait_seconds_bucket{path="a\"\\\n",le="2.5"} 4
wait_seconds_bucket{path="a\"\\\n",le="+Inf"} 5
wait_seconds_sum{path="a\"\\\n"} 5.500200001
wait_seconds_count{path="a\"\\\n"} 5
wait_seconds_bucket{le="0.0001"} 0
wait_seconds_bucket{le="2.5"} 0
wait_seconds_bucket{le="+Inf"} 0
wait_seconds_sum 0
wait_seconds_count 0

"#;
        assert_eq!(text, expected);
        let mut nothing = String::new();
        family.render(&mut nothing, []);
        assert_eq!(nothing, "");
    }
}
