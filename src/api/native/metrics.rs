//! `GET /metrics`: the same numbers as `/status` and `/memory`, for Prometheus (text exposition
//! format 0.0.4).

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::access::Caller;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::native::memory::kinds;
use crate::api::native::{admin, status};
use crate::backend::{MemoryReport, MemoryState, Phase, Status, WorkerMemory};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// For administrators. Loads nothing; what a worker does not say in time is left out.
pub async fn metrics(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    admin::allowed(&api, &caller)?;
    let memory = api.backends.local().memory().await;
    let mut response = Response::new(Body::from(render(
        status::serves(&api).is_ok(),
        &api.backends.local().status(),
        &memory,
    )));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

/// Labels and a value.
type Sample<'a> = (Vec<(&'a str, &'a str)>, u64);

fn render(serves: bool, status: &Status, memory: &MemoryReport) -> String {
    let mut text = Text(String::new());
    text.service(serves, status);
    text.pressure(&status.memory);
    text.memory(memory);
    text.0
}

fn one<'a>(value: u64) -> [Sample<'a>; 1] {
    [(vec![], value)]
}

struct Text(String);

impl Text {
    /// What is served, and how many requests there are.
    fn service(&mut self, serves: bool, status: &Status) {
        let ready = match &status.phase {
            Phase::Ready { model, .. } => Some(model.as_str()),
            _ => None,
        };
        self.gauge(
            "up",
            "Whether a request would be served now.",
            one(u64::from(serves)),
        );
        self.gauge(
            "info",
            "The daemon's version.",
            [(vec![("version", status::VERSION)], 1)],
        );
        let loaded = status.models.iter().map(|model| {
            (
                vec![("model", model.id.as_str())],
                u64::from(ready == Some(&model.id)),
            )
        });
        self.gauge(
            "model_loaded",
            "Whether an installed model is loaded.",
            loaded,
        );
        self.gauge(
            "requests_waiting",
            "Requests that wait for a slot.",
            one(status.waiting.into()),
        );
        self.gauge(
            "requests_running",
            "Requests being answered.",
            one(status.running.into()),
        );
        self.counter(
            "requests_served_total",
            "Requests ended, however they ended.",
            one(status.served),
        );
        let sources = status.drafted.by_source();
        let outcomes = sources.iter().flat_map(|&(source, tally)| {
            let outcomes = [("accepted", tally.accepted), ("rejected", tally.rejected)];
            outcomes
                .map(|(outcome, tokens)| (vec![("source", source), ("outcome", outcome)], tokens))
        });
        self.counter(
            "speculated_tokens_total",
            "Tokens of answers that were tried ahead, by where the guesses came from and whether they were right.",
            outcomes,
        );
        self.counter(
            "worker_crashes_total",
            "Workers that died.",
            one(status.crashes),
        );
    }

    /// What is done about memory that runs short.
    fn pressure(&mut self, state: &MemoryState) {
        self.gauge(
            "memory_level",
            "What was done about memory that runs short: 0 nothing, 1 eased, 2 shrinking.",
            one(state.level as u64),
        );
        self.counter(
            "memory_eases_total",
            "Times that a worker was told to give back what it can.",
            one(state.eases),
        );
        self.counter(
            "memory_ends_total",
            "Times that a worker was told to end because memory was short.",
            one(state.ends),
        );
        self.counter(
            "worker_oom_kills_total",
            "Workers that the system killed because memory ran out.",
            one(state.kills),
        );
    }

    /// What is free, and what the two processes have.
    fn memory(&mut self, memory: &MemoryReport) {
        self.gauge(
            "available_bytes",
            "Memory that programs can have without swapping.",
            one(memory.available),
        );
        self.gauge(
            "supervisor_anonymous_bytes",
            "The supervisor's memory that no file stands behind.",
            one(memory.supervisor.anonymous),
        );
        self.gauge(
            "supervisor_file_backed_bytes",
            "Files that the supervisor has in memory.",
            one(memory.supervisor.file_backed),
        );
        if let Ok(Some(worker)) = &memory.worker {
            self.worker(worker);
        }
    }

    fn worker(&mut self, worker: &WorkerMemory) {
        let picture = &worker.picture;
        self.gauge(
            "worker_anonymous_bytes",
            "The worker's memory that no file stands behind.",
            one(picture.anonymous),
        );
        self.gauge(
            "worker_file_backed_bytes",
            "Files that the worker has in memory.",
            one(picture.file_backed),
        );
        self.gauge(
            "worker_peak_bytes",
            "The most that the worker ever had in memory.",
            one(picture.peak),
        );
        self.gauge(
            "worker_locked_bytes",
            "The worker's memory that cannot be evicted because it is locked.",
            one(picture.locked),
        );
        let kinds: Vec<_> = picture
            .files
            .iter()
            .flat_map(|file| kinds(file).map(|sum| (file.role.id(), sum)))
            .collect();
        let labels = |role, kind| vec![("file", role), ("kind", kind)];
        let mapped = kinds
            .iter()
            .map(|(role, (kind, bytes, _))| (labels(*role, kind.id()), *bytes));
        self.gauge(
            "mapped_bytes",
            "Bytes of the files that the worker has mapped.",
            mapped,
        );
        let resident = kinds
            .iter()
            .map(|(role, (kind, _, resident))| (labels(*role, kind.id()), *resident));
        self.gauge(
            "resident_bytes",
            "Bytes of those files that are in its memory.",
            resident,
        );
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.family(name, "gauge", help, samples);
    }

    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        self.family(name, "counter", help, samples);
    }

    fn family<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        // Writing to a string does not fail.
        let _ = writeln!(
            self.0,
            "# HELP gemmad_{name} {help}\n# TYPE gemmad_{name} {kind}"
        );
        for (labels, value) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let _ = writeln!(self.0, "gemmad_{name}{labels} {value}");
        }
    }
}

/// A label's value as the format wants it.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Text(String::new());
        text.gauge(
            "model_loaded",
            "Whether.",
            [(vec![("model", "a\"b\\c\nd"), ("x", "y")], 1)],
        );
        let expected = "# HELP gemmad_model_loaded Whether.\n# TYPE gemmad_model_loaded gauge\n\
                        gemmad_model_loaded{model=\"a\\\"b\\\\c\\nd\",x=\"y\"} 1\n";
        assert_eq!(text.0, expected);
    }
}
