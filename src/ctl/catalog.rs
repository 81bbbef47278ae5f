//! `gemmactl models --all`: what could be had, as a table.

use std::fmt::Write;

use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, promptly, show_size};
use super::table::table;
use super::text::{Stream, Terminal};
use crate::config;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Catalog {
    budget: u64,
    disk: Option<u64>,
    auto: Option<String>,
    models: Vec<Entry>,
    refused: Vec<Refused>,
    passed_over: Vec<Broken>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    id: String,
    variant: String,
    installed: bool,
    quantization: String,
    input_modalities: Vec<String>,
    drafter: bool,
    size: Option<u64>,
    download: Option<u64>,
    memory: Option<Memory>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    fits: bool,
    context: u64,
    total: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    name: String,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Broken {
    path: String,
    reason: String,
}

pub async fn list(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let catalog = promptly(client.catalog()).await?;
    if json {
        return Ok(pretty(&catalog, terminal));
    }
    let catalog: Catalog = parse(catalog)?;
    for Broken { path, reason } in &catalog.passed_over {
        let path = config::one_line(path);
        terminal.remark(&format!("{path} is passed over: {reason}"));
    }
    Ok(view(&catalog, terminal.out).into_bytes())
}

fn view(catalog: &Catalog, out: Stream) -> String {
    let head = [
        "MODEL", "VARIANT", "WEIGHTS", "DOWNLOAD", "BRINGS", "MEMORY", "HERE",
    ];
    let rows = catalog.models.iter().map(|entry| {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), show_size);
        let memory = entry.memory.as_ref();
        [
            entry.id.clone(),
            entry.variant.clone(),
            entry.quantization.clone(),
            size(entry.download.or(entry.size)),
            brings(entry),
            size(memory.map(|memory| memory.total)),
            here(entry, memory),
        ]
    });
    let mut view = table(head, rows, &[3, 5], out);
    // Writing to a string does not fail.
    for Refused { name, reason } in &catalog.refused {
        let _ = writeln!(
            view,
            "{} cannot be had: {}",
            out.clean(name),
            out.clean(reason)
        );
    }
    let budget = show_size(catalog.budget);
    let disk = catalog
        .disk
        .map(|bytes| format!(", {} on the disk", show_size(bytes)));
    let _ = writeln!(
        view,
        "{budget} of memory for a model{}",
        disk.unwrap_or_default()
    );
    if let Some(auto) = &catalog.auto {
        let _ = writeln!(view, "`gemmactl pull auto` would fetch {}", out.clean(auto));
    }
    view
}

/// What there is besides text.
fn brings(entry: &Entry) -> String {
    let senses = entry
        .input_modalities
        .iter()
        .filter_map(|sense| match &**sense {
            "image" => Some("pictures"),
            "audio" => Some("sounds"),
            _ => None,
        });
    let drafter = entry.drafter.then_some("drafter");
    senses.chain(drafter).collect::<Vec<_>>().join(", ")
}

fn here(entry: &Entry, memory: Option<&Memory>) -> String {
    let fits = match memory {
        Some(memory) if memory.fits => format!("fits, {} tokens", memory.context),
        Some(_) => "does not fit".to_owned(),
        None => String::new(),
    };
    match (entry.installed, fits.is_empty()) {
        (true, true) => "installed".to_owned(),
        (true, false) => format!("installed; {fits}"),
        (false, _) => fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_could_be_had_stands_in_columns() {
        let catalog = json!({"budget": 2_u64 << 30, "disk": 5_u64 << 30, "auto": "a", "models": [
            {"id": "a", "variant": "gemma-4-e2b", "quantization": "Q4_0", "input_modalities": ["text", "image", "audio"],
             "drafter": true, "size": 1 << 30, "download": 3_u64 << 29, "installed": true,
             "memory": {"fits": true, "context": 8192, "total": 1_u64 << 30}},
            {"id": "b", "variant": "gemma-4-31b", "quantization": "UD-Q4_K_XL", "input_modalities": ["text"],
             "memory": {"fits": false, "context": 2048, "total": 7_u64 << 30}},
        ], "refused": [{"name": "c", "reason": "no"}]});
        let out = Stream {
            is_terminal: false,
            colour: false,
        };
        let expected = "\
MODEL  VARIANT      WEIGHTS     DOWNLOAD  BRINGS                      MEMORY  HERE
a      gemma-4-e2b  Q4_0         1.5 GiB  pictures, sounds, drafter  1.0 GiB  installed; fits, 8192 tokens
b      gemma-4-31b  UD-Q4_K_XL         ?                             7.0 GiB  does not fit
c cannot be had: no
2.0 GiB of memory for a model, 5.0 GiB on the disk
`gemmactl pull auto` would fetch a
";
        assert_eq!(view(&parse(catalog).unwrap(), out), expected);
    }
}
