//! What could be had, as the part `catalog` of `GET /v1/models?catalog=1`. All sizes are bytes.

use serde::Serialize;

use crate::api::render;
use crate::backend::{CatalogEntry, CatalogMemory, CatalogReport, Member};

/// The report as JSON.
pub fn json(report: CatalogReport) -> String {
    render(&CatalogOut::from(report))
}

#[derive(Serialize)]
pub struct CatalogOut {
    /// Of memory: what is free, and what a model may take of it.
    free: u64,
    budget: u64,
    /// Where models are put.
    directory: Option<String>,
    /// What it has room for.
    disk: Option<u64>,
    /// The id of what `auto` would fetch.
    auto: Option<String>,
    models: Vec<EntryOut>,
    /// Members of the family that cannot be run.
    refused: Vec<RefusedOut>,
    /// Catalogs that cannot be used.
    passed_over: Vec<BrokenOut>,
}

#[derive(Serialize)]
struct EntryOut {
    /// What it is called once it is installed.
    id: String,
    variant: &'static str,
    installed: bool,
    repository: String,
    revision: Option<String>,
    file: String,
    quantization: String,
    context_length: u32,
    input_modalities: Vec<&'static str>,
    drafter: bool,
    licence: Option<String>,
    /// Of the model's file.
    size: Option<u64>,
    /// With its projector and its drafter.
    download: Option<u64>,
    /// What it would take here, about.
    memory: Option<MemoryOut>,
}

#[derive(Serialize)]
struct MemoryOut {
    fits: bool,
    /// The largest that fits, or the smallest that does not.
    context: u32,
    total: u64,
    unevictable: u64,
    with_projector: bool,
}

#[derive(Serialize)]
struct RefusedOut {
    name: String,
    reason: String,
}

#[derive(Serialize)]
struct BrokenOut {
    path: String,
    reason: String,
}

impl From<CatalogReport> for CatalogOut {
    fn from(report: CatalogReport) -> Self {
        let refused = report.refused.into_iter();
        let passed_over = report.passed_over.into_iter();
        Self {
            free: report.free,
            budget: report.budget,
            directory: report
                .directory
                .map(|path| path.to_string_lossy().into_owned()),
            disk: report.disk,
            auto: report.automatic,
            models: report.entries.into_iter().map(EntryOut::from).collect(),
            refused: refused
                .map(|Member { name, reason }| RefusedOut { name, reason })
                .collect(),
            passed_over: passed_over
                .map(|Member { name, reason }| BrokenOut { path: name, reason })
                .collect(),
        }
    }
}

impl From<CatalogEntry> for EntryOut {
    fn from(entry: CatalogEntry) -> Self {
        let modalities = [
            ("text", true),
            ("image", entry.modalities.image),
            ("audio", entry.modalities.audio),
        ];
        let modalities = modalities.into_iter().filter(|(_, able)| *able);
        let memory = |memory: CatalogMemory| MemoryOut {
            fits: memory.fits,
            context: memory.context,
            total: memory.total,
            unevictable: memory.unevictable,
            with_projector: memory.with_projector,
        };
        Self {
            id: entry.id,
            variant: entry.variant,
            installed: entry.installed,
            repository: entry.repository,
            revision: entry.revision,
            file: entry.file,
            quantization: entry.quantization,
            context_length: entry.context_limit,
            input_modalities: modalities.map(|(name, _)| name).collect(),
            drafter: entry.drafter,
            licence: entry.licence,
            size: entry.size,
            download: entry.download,
            memory: entry.memory.map(memory),
        }
    }
}
