//! `GET /memory`: what is in memory, and what each byte of it is for. All sizes are bytes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::{Api, json, render};
use crate::backend::{Class, FileMemory, Kind, MemoryReport, Packing, Part, WorkerMemory};

/// Loads nothing. It says nothing of what anybody asked, so everybody may look.
pub async fn memory(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let MemoryReport {
        supervisor,
        available,
        worker,
    } = api.backends.local().memory().await;
    let worker = worker?;
    let supervisor = Supervisor {
        anonymous: supervisor.anonymous,
        file_backed: supervisor.file_backed,
    };
    let out = MemoryOut {
        loaded: worker.is_some(),
        supervisor,
        available,
        ..MemoryOut::default()
    };
    Ok(json(render(&match worker {
        Some(worker) => out.with(worker),
        None => MemoryOut {
            model: api.backends.local().status().loaded().map(Into::into),
            ..out
        },
    })))
}

/// What does not apply is null or empty.
#[derive(Debug, Default, Serialize)]
struct MemoryOut {
    loaded: bool,
    /// The model that is loaded or being loaded.
    model: Option<String>,
    supervisor: Supervisor,
    /// What programs can have without swapping.
    available: u64,
    worker: Option<WorkerOut>,
    files: Vec<FileOut>,
    packing: Option<PackingOut>,
}

/// See [`crate::sys::usage::Usage`].
#[derive(Debug, Default, Serialize)]
struct Supervisor {
    anonymous: u64,
    file_backed: u64,
}

/// See [`crate::backend::MemorySnapshot`].
#[derive(Debug, Serialize)]
struct WorkerOut {
    pid: u32,
    anonymous: u64,
    file_backed: u64,
    peak: u64,
    locked: u64,
}

#[derive(Debug, Serialize)]
struct FileOut {
    /// `model`, `packed` or `drafter`
    role: &'static str,
    bytes: u64,
    /// Those of them that are in the worker's memory.
    resident: u64,
    kinds: Vec<PartOut>,
    /// From the file's start to its end.
    parts: Vec<PartOut>,
}

#[derive(Debug, Serialize)]
struct PartOut {
    /// One of the names in `gemma/layout`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<u16>,
    bytes: u64,
    resident: u64,
}

/// Where packed weights are.
#[derive(Debug, Serialize)]
struct PackingOut {
    /// `reused` or `new` (both in a file), `in-memory`, or `nothing` is packed
    how: &'static str,
    /// Why they are not in the file that was there, or in none.
    why: Option<String>,
}

impl MemoryOut {
    fn with(self, worker: WorkerMemory) -> Self {
        let WorkerMemory {
            model,
            pid,
            packing,
            picture,
        } = worker;
        let out = WorkerOut {
            pid,
            anonymous: picture.anonymous,
            file_backed: picture.file_backed,
            peak: picture.peak,
            locked: picture.locked,
        };
        let files = picture.files.iter().map(file).collect();
        Self {
            model: Some(model),
            worker: Some(out),
            files,
            packing: Some(packing.into()),
            ..self
        }
    }
}

impl From<Packing> for PackingOut {
    fn from(packing: Packing) -> Self {
        let (how, why) = match packing {
            Packing::Nothing => ("nothing", None),
            Packing::Reused => ("reused", None),
            Packing::New { instead } => ("new", instead),
            Packing::InMemory { why } => ("in-memory", Some(why)),
            Packing::Left { why } => ("left", Some(why)),
        };
        Self { how, why }
    }
}

/// The kinds that a file has: each with its bytes, and how many of them are resident.
pub fn kinds(file: &FileMemory) -> impl Iterator<Item = (Kind, u64, u64)> {
    let sums = Kind::ALL.into_iter().map(|kind| (kind, file.sum(kind)));
    sums.filter(|(_, (bytes, _))| *bytes > 0)
        .map(|(kind, (bytes, resident))| (kind, bytes, resident))
}

fn file(file: &FileMemory) -> FileOut {
    let kinds: Vec<_> = kinds(file)
        .map(|(kind, bytes, resident)| PartOut {
            kind: kind.id(),
            layer: None,
            bytes,
            resident,
        })
        .collect();
    FileOut {
        role: file.role.id(),
        bytes: kinds.iter().map(|kind| kind.bytes).sum(),
        resident: kinds.iter().map(|kind| kind.resident).sum(),
        kinds,
        parts: file.parts.iter().map(part).collect(),
    }
}

fn part(part: &Part) -> PartOut {
    let layer = match part.class {
        Class::Layer(layer) | Class::Experts(layer) => Some(layer),
        _ => None,
    };
    PartOut {
        kind: part.class.kind().id(),
        layer,
        bytes: part.bytes,
        resident: part.resident,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{FileRole, MemorySnapshot};
    use serde_json::{Value, json};

    #[test]
    fn a_worker_shows_its_files_part_by_part() {
        let part = |class, bytes, resident| Part {
            class,
            bytes,
            resident,
        };
        let parts = vec![
            part(Class::Header, 10, 0),
            part(Class::Shared, 5, 5),
            part(Class::Layer(0), 20, 10),
            part(Class::Experts(1), 40, 4),
        ];
        let picture = MemorySnapshot {
            files: vec![FileMemory {
                role: FileRole::Model,
                parts,
            }],
            anonymous: 1,
            file_backed: 2,
            peak: 3,
            locked: 4,
        };
        let packing = Packing::New {
            instead: Some("is damaged".into()),
        };
        let worker = WorkerMemory {
            model: "m".into(),
            pid: 77,
            packing,
            picture,
        };
        let out: Value = serde_json::from_str(&render(
            &MemoryOut {
                loaded: true,
                available: 9,
                ..MemoryOut::default()
            }
            .with(worker),
        ))
        .unwrap();
        let expected = json!({
            "loaded": true, "model": "m", "supervisor": {"anonymous": 0, "file_backed": 0}, "available": 9,
            "worker": {"pid": 77, "anonymous": 1, "file_backed": 2, "peak": 3, "locked": 4},
            "files": [{"role": "model", "bytes": 75, "resident": 19,
                "kinds": [{"kind": "layers", "bytes": 25, "resident": 15}, {"kind": "experts", "bytes": 40, "resident": 4},
                    {"kind": "header", "bytes": 10, "resident": 0}],
                "parts": [{"kind": "header", "bytes": 10, "resident": 0}, {"kind": "layers", "bytes": 5, "resident": 5},
                    {"kind": "layers", "layer": 0, "bytes": 20, "resident": 10}, {"kind": "experts", "layer": 1, "bytes": 40, "resident": 4}]}],
            "packing": {"how": "new", "why": "is damaged"},
        });
        assert_eq!(out, expected);
    }
}
