// SPDX-License-Identifier: Apache-2.0
//! The Prometheus text format, 0.0.4.
//!
//! Holds     a family is declared before its samples.
//! Never     decides what is in it.

use super::Histogram;
use std::fmt::Display;

#[derive(Default)]
pub struct Text {
    out: String,
}

impl Text {
    pub fn into_string(self) -> String {
        self.out
    }

    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        self.labels(labels);
        self.out.push_str(&format!(" {value}\n"));
    }

    /// A family of one sample without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of one sample without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A family of one histogram.
    pub fn histogram(&mut self, name: &str, help: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        self.family(name, "histogram", help);
        self.buckets(name, labels, histogram);
    }

    /// The samples of one histogram in a family.
    pub fn buckets(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut total = 0;
        for (bound, count) in histogram.cumulative() {
            let bound = if bound.is_infinite() { "+Inf".into() } else { bound.to_string() };
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
            total = count;
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum());
        self.sample(&format!("{name}_count"), labels, total);
    }

    fn labels(&mut self, labels: &[(&str, &str)]) {
        for (i, (key, value)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.out.push_str(&format!("{open}{key}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
    }
}
