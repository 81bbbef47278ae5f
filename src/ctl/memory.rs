//! `gemmactl memory`: a picture of what is in memory.

use std::fmt::Write;

use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::map::{self, Palette, Part};
use super::show::{parse, pretty, promptly, show_size};
use super::table::tinted;
use super::text::{self, Stream, Terminal};

/// Cells of a bar.
const BAR: usize = 20;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    loaded: bool,
    model: Option<String>,
    supervisor: Usage,
    available: u64,
    worker: Option<Worker>,
    files: Vec<File>,
    packing: Option<Packing>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    anonymous: u64,
    file_backed: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Worker {
    pid: u64,
    anonymous: u64,
    file_backed: u64,
    peak: u64,
    locked: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    role: String,
    bytes: u64,
    resident: u64,
    kinds: Vec<Part>,
    parts: Vec<Part>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Packing {
    how: String,
    why: Option<String>,
}

pub async fn memory(
    client: &dyn Client,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let memory = promptly(client.memory()).await?;
    if json {
        return Ok(pretty(&memory, terminal));
    }
    let palette = if text::speaks_utf8() {
        map::BLOCKS
    } else {
        map::ASCII
    };
    Ok(view(&parse(memory)?, terminal.out, &palette, text::columns()).into_bytes())
}

fn view(memory: &Memory, out: Stream, palette: &Palette, columns: usize) -> String {
    let mut view = String::new();
    let model = out.clean(memory.model.as_deref().unwrap_or_default());
    // Writing to a string does not fail.
    let _ = match (&memory.worker, memory.loaded) {
        (Some(worker), true) => writeln!(
            view,
            "{} is loaded, process {}\n",
            out.bold(&model),
            worker.pid
        ),
        _ if !model.is_empty() => writeln!(view, "{} is being loaded\n", out.bold(&model)),
        _ => writeln!(view, "no model is loaded\n"),
    };
    for file in &memory.files {
        let share = percent(file.resident, file.bytes);
        let sizes = format!(
            "{}, {} in memory ({share})",
            show_size(file.bytes),
            show_size(file.resident)
        );
        let _ = writeln!(
            view,
            "{}, {sizes}",
            out.bold(file_name(&out.clean(&file.role)))
        );
        for row in map::draw(&file.parts, columns, palette, |kind, piece| {
            paint(kind, piece, out)
        }) {
            let _ = writeln!(view, "{row}");
        }
        view.push_str(&kinds_view(&file.kinds, out, palette));
        view.push('\n');
    }
    for (name, value) in lines(memory) {
        // A value is a size, then what there is to say about it.
        let _ = writeln!(
            view,
            "{} {}",
            out.dim(&format!("{name:<10}")),
            out.clean(&value)
        );
    }
    view
}

fn kinds_view(kinds: &[Part], out: Stream, palette: &Palette) -> String {
    let row = |part: &Part| {
        let share = percent(part.resident, part.bytes);
        let bar = palette.bar(part.resident, part.bytes, BAR);
        (
            tint(&part.kind),
            [
                part.kind.clone(),
                show_size(part.bytes),
                show_size(part.resident),
                share,
                bar,
            ],
        )
    };
    tinted(
        ["KIND", "SIZE", "IN MEMORY", "SHARE", ""],
        kinds.iter().map(row),
        &[1, 2, 3],
        out,
    )
}

/// What is beside the files, for the worker and the machine.
fn lines(memory: &Memory) -> Vec<(&'static str, String)> {
    let mut lines = vec![];
    let mut line =
        |name, bytes, what: &str| lines.push((name, format!("{:>10}{what}", show_size(bytes))));
    if let Some(worker) = &memory.worker {
        line(
            "anonymous",
            worker.anonymous,
            "  the worker's own: tokenizer tables, KV cache, buffers",
        );
        line(
            "files",
            worker.file_backed,
            "  mapped by the worker and in memory, programs included",
        );
        line(
            "peak",
            worker.peak,
            "  the most that both ever were together",
        );
        if worker.locked > 0 {
            line("locked", worker.locked, "  cannot be evicted");
        }
    }
    let Usage {
        anonymous,
        file_backed,
    } = memory.supervisor;
    line(
        "supervisor",
        anonymous,
        &format!("  and {} of files", show_size(file_backed)),
    );
    line(
        "free",
        memory.available,
        "  for programs on this machine, without swapping",
    );
    if let Some(Packing { how, why }) = &memory.packing {
        let how = match how.as_str() {
            "reused" => "in a file that was there",
            "new" => "in a file that is new",
            "in-memory" => "in memory that cannot be evicted",
            "left" => "nothing, so that the weights can be evicted",
            "nothing" => "nothing: the CPU uses the model file as it is",
            other => other,
        };
        let why = why
            .as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        lines.push(("packed", format!("{how}{why}")));
    }
    lines
}

fn file_name(role: &str) -> &str {
    match role {
        "model" => "model file",
        "packed" => "packed weights",
        other => other,
    }
}

/// Rounded down, so that 100 % is all of it.
fn percent(part: u64, whole: u64) -> String {
    format!("{} %", u128::from(part) * 100 / u128::from(whole.max(1)))
}

fn paint(kind: &str, piece: &str, out: Stream) -> String {
    tint(kind).map_or_else(|| piece.into(), |tint| out.tint(tint, piece))
}

/// A kind's colour, in the terminal's own; none for what is not known.
fn tint(kind: &str) -> Option<u8> {
    let tints = [
        ("layers", 32),
        ("head", 33),
        ("experts", 35),
        ("per-layer", 36),
        ("source", 90),
        ("header", 34),
        ("projector", 31),
    ];
    tints
        .iter()
        .find(|(known, _)| *known == kind)
        .map(|(_, tint)| *tint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };
    const TTY: Stream = Stream {
        is_terminal: true,
        colour: true,
    };

    fn loaded() -> Value {
        json!({
            "loaded": true, "model": "m", "supervisor": {"anonymous": 400 << 10, "file_backed": 3 << 20}, "available": 3_u64 << 30,
            "worker": {"pid": 77, "anonymous": 12 << 20, "file_backed": 9 << 20, "peak": 30 << 20, "locked": 0},
            "files": [{"role": "model", "bytes": 80 << 20, "resident": 30 << 20,
                "kinds": [{"kind": "layers", "bytes": 40 << 20, "resident": 20 << 20}, {"kind": "per-layer", "bytes": 40 << 20, "resident": 10 << 20}],
                "parts": [{"kind": "layers", "layer": 0, "bytes": 20 << 20, "resident": 20 << 20}, {"kind": "layers", "bytes": 20 << 20, "resident": 0},
                    {"kind": "per-layer", "bytes": 40 << 20, "resident": 10 << 20}]}],
            "packing": {"how": "in-memory", "why": "the disk is full"}, "something": "new",
        })
    }

    #[test]
    fn a_loaded_model() {
        let memory = parse(loaded()).unwrap();
        let expected = "\
m is loaded, process 77

model file, 80.0 MiB, 30.0 MiB in memory (37 %)
|####|
|    |
|....|
|....|
KIND           SIZE  IN MEMORY  SHARE
layers     40.0 MiB   20.0 MiB   50 %  ##########..........
per-layer  40.0 MiB   10.0 MiB   25 %  #####...............

anonymous    12.0 MiB  the worker's own: tokenizer tables, KV cache, buffers
files         9.0 MiB  mapped by the worker and in memory, programs included
peak         30.0 MiB  the most that both ever were together
supervisor    400 KiB  and 3.0 MiB of files
free          3.0 GiB  for programs on this machine, without swapping
packed     in memory that cannot be evicted: the disk is full
";
        assert_eq!(view(&memory, PIPE, &map::ASCII, 6), expected);
    }

    #[test]
    fn kinds_have_colours() {
        let view = view(&parse(loaded()).unwrap(), TTY, &map::BLOCKS, 6);
        assert!(
            view.contains("│\x1b[32m████\x1b[0m│\n") && view.contains("│\x1b[36m░░░░\x1b[0m│\n"),
            "{view}"
        );
        assert!(
            view.contains("\x1b[36mper-layer\x1b[0m  40.0 MiB   10.0 MiB   25 %  \x1b[36m█████░"),
            "{view}"
        );
    }

    #[test]
    fn no_model() {
        let view = |memory: Value| view(&parse(memory).unwrap(), TTY, &map::BLOCKS, 80);
        let cold = view(json!({"loaded": false, "model": null, "available": 1 << 30}));
        assert!(
            cold.starts_with("no model is loaded\n")
                && cold.contains("1.0 GiB")
                && !cold.contains("packed"),
            "{cold}"
        );
        let loading = view(json!({"loaded": false, "model": "a\x1b[2J"}));
        assert!(
            loading.contains("a[2J") && loading.contains("is being loaded"),
            "{loading}"
        );
    }
}
