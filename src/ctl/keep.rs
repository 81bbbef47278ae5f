//! `gemmactl rm`, `verify`, `prune` and `du`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::PruneArgs;
use super::bar::Bar;
use super::client::Client;
use super::confirm::confirm;
use super::error::Error;
use super::pull::next;
use super::show::{parse, pretty, promptly, show_size};
use super::table::table;
use super::text::{Stream, Terminal};
use super::wire::message_of;
use super::write_out;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Removed {
    id: String,
    files: Vec<String>,
    freed: u64,
}

/// Each is told when it is gone: the next one may fail.
pub async fn rm(client: &dyn Client, models: &[String], terminal: &Terminal) -> Result<(), Error> {
    for model in models {
        let removed: Removed = parse(client.remove(model).await?)?;
        let (id, freed) = (terminal.out.clean(&removed.id), show_size(removed.freed));
        let files = match removed.files.len() {
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        write_out(format!("{id} is removed: {files}, {freed}\n").as_bytes())?;
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Models {
    data: Vec<Model>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    id: String,
    files: Vec<Part>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub role: String,
    pub file: String,
    pub bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Verified {
    files: Vec<VerifiedFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VerifiedFile {
    file: String,
    sha256: String,
    verdict: String,
    against: Option<String>,
    expected: Option<String>,
}

/// Hashes files again. Fails if one is not what it should be.
pub async fn verify(
    client: &dyn Client,
    model: Option<&str>,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let models = match model {
        Some(model) => vec![model.to_owned()],
        None => {
            let models: Models = parse(promptly(client.models()).await?)?;
            models.data.into_iter().map(|model| model.id).collect()
        }
    };
    let (mut told, mut differs) = (vec![], vec![]);
    for model in models {
        let answer = verified(client, &model, terminal).await?;
        if json {
            told.extend(format!("{}\n", terminal.out.clean(&answer.to_string())).into_bytes());
        }
        let verified: Verified = parse(answer)?;
        for file in &verified.files {
            if !json {
                told.extend(line(file, terminal.out).into_bytes());
            }
            if file.verdict == "differs" {
                differs.push(file.file.clone());
            }
        }
    }
    if differs.is_empty() {
        return Ok(told);
    }
    super::write_out(&told)?;
    Err(Error::Refused {
        message: format!(
            "{} differs; `gemmactl rm` it and fetch it again",
            differs.join(", ")
        ),
        field: None,
    })
}

/// Has a model's files read, and shows how far that is.
async fn verified(client: &dyn Client, model: &str, terminal: &Terminal) -> Result<Value, Error> {
    let bar = Bar::new(terminal);
    let mut events = client.verify(model).await?;
    let last = loop {
        let event = next(&mut *events).await;
        let Ok(Some(Value::Object(progress))) = &event else {
            break event;
        };
        if progress
            .get("object")
            .is_none_or(|object| object != "verify.progress")
        {
            break event;
        }
        let number = |field: &str| progress.get(field).and_then(Value::as_u64).unwrap_or(0);
        let (read, bytes) = (number("read"), number("bytes"));
        let model = terminal.err.clean(model);
        let said = format!("{model}, {} of {}", show_size(read), show_size(bytes));
        bar.show(read, Some(bytes), said);
    };
    bar.clear();
    let told = last?.ok_or_else(|| Error::broken("it ended without saying what it read"))?;
    match told.get("error").map(message_of) {
        Some(message) => Err(Error::Refused {
            message: message.unwrap_or("the files were not read").to_owned(),
            field: None,
        }),
        None => Ok(told),
    }
}

fn line(file: &VerifiedFile, out: Stream) -> String {
    let against = file.against.as_deref().unwrap_or_default();
    let said = match (&*file.verdict, &file.expected) {
        ("matches", _) => format!("ok: {against}"),
        ("differs", Some(expected)) => format!(
            "DIFFERS: sha256 is {}, and {expected} is {against}",
            file.sha256
        ),
        _ => format!("nobody knows what it should be: sha256 is {}", file.sha256),
    };
    format!("{}  {}\n", out.clean(&file.file), out.clean(&said))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pruned {
    dry_run: bool,
    freed: u64,
    data: Vec<Unused>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unused {
    kind: String,
    name: String,
    bytes: u64,
}

/// Deletes what serves no installed model, if whoever typed it agrees.
pub async fn prune(
    client: &dyn Client,
    args: &PruneArgs,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    if !args.yes && !args.dry_run {
        let found: Pruned = parse(client.prune(true).await?)?;
        if found.data.is_empty() {
            return Ok(pruned_view(&found, terminal.out).into_bytes());
        }
        super::write_out(pruned_view(&found, terminal.out).as_bytes())?;
        if !confirm("Delete it?", false, "--yes deletes it")? {
            return Ok(vec![]);
        }
    }
    let pruned = client.prune(args.dry_run).await?;
    if args.json {
        return Ok(pretty(&pruned, terminal));
    }
    Ok(pruned_view(&parse(pruned)?, terminal.out).into_bytes())
}

fn pruned_view(pruned: &Pruned, out: Stream) -> String {
    if pruned.data.is_empty() {
        return "nothing is left over\n".to_owned();
    }
    let row = |unused: &Unused| {
        let kind = unused.kind.replace('_', " ");
        [kind, unused.name.clone(), show_size(unused.bytes)]
    };
    let mut view = table(
        ["WHAT", "OF", "SIZE"],
        pruned.data.iter().map(row),
        &[2],
        out,
    );
    let freed = show_size(pruned.freed);
    view.push_str(&match pruned.dry_run {
        true => format!("{freed} would be freed\n"),
        false => format!("{freed} are freed\n"),
    });
    view
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cache {
    bytes: u64,
    files: Vec<CachedFile>,
    prompts: Prompts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CachedFile {
    name: String,
    bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompts {
    bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Disk {
    disk: Option<u64>,
}

/// What all of it takes on the disk.
pub async fn du(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let models = promptly(client.models()).await?;
    let cache = promptly(client.packed_weights()).await?;
    let free = promptly(client.catalog()).await?;
    if json {
        let all: Value = json!({"models": models["data"], "cache": cache, "disk": free["disk"]});
        return Ok(pretty(&all, terminal));
    }
    Ok(du_view(&parse(models)?, &parse(cache)?, &parse(free)?, terminal.out).into_bytes())
}

fn du_view(models: &Models, cache: &Cache, free: &Disk, out: Stream) -> String {
    // What two models share is there once.
    let mut shared: BTreeMap<&str, usize> = BTreeMap::new();
    let parts = || models.data.iter().flat_map(|model| &model.files);
    for part in parts().filter(|part| part.role != "model") {
        *shared.entry(&part.file).or_default() += 1;
    }
    let mut sum = 0;
    let mut seen = vec![];
    let mut rows = vec![];
    for model in &models.data {
        let of = |role: &str| -> u64 {
            let files = model.files.iter().filter(|part| part.role == role);
            files.map(|part| part.bytes).sum()
        };
        let packed = cache.files.iter().filter(|file| {
            file.name
                .strip_prefix(&model.id)
                .is_some_and(|rest| rest.len() == 17 && rest.starts_with('-'))
        });
        let packed: u64 = packed.map(|file| file.bytes).sum();
        for part in &model.files {
            if !seen.contains(&&part.file) {
                seen.push(&part.file);
                sum += part.bytes;
            }
        }
        let size = |bytes: u64| match bytes {
            0 => String::new(),
            bytes => show_size(bytes),
        };
        rows.push([
            model.id.clone(),
            size(of("model")),
            size(of("projector")),
            size(of("drafter")),
            size(packed),
        ]);
    }
    let head = ["MODEL", "WEIGHTS", "PROJECTOR", "DRAFTER", "PACKED"];
    let mut view = table(head, rows.into_iter(), &[1, 2, 3, 4], out);
    if shared.values().any(|count| *count > 1) {
        view.push_str("what several models share is counted once\n");
    }
    let free = free
        .disk
        .map(|bytes| format!("; {} are free for models", show_size(bytes)));
    // Writing to a string does not fail.
    let _ = writeln!(
        view,
        "{} of models, {} of packed weights, {} of prompts{}",
        show_size(sum),
        show_size(cache.bytes),
        show_size(cache.prompts.bytes),
        free.unwrap_or_default()
    );
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_counted_once() {
        let part = |role: &str, file: &str, bytes: u64| json!({"role": role, "file": file, "bytes": bytes << 20});
        let eyes = || part("projector", "mmproj.gguf", 5);
        let models = json!({"data": [
            {"id": "a", "files": [part("model", "a.gguf", 10), eyes()]},
            {"id": "b", "files": [part("model", "b.gguf", 20), eyes(), part("drafter", "mtp.gguf", 1)]},
        ]});
        let cache = json!({"bytes": 7 << 20, "files": [{"name": "a-0123456789abcdef", "bytes": 7 << 20}], "prompts": {"bytes": 0}});
        let out = Stream {
            is_terminal: false,
            colour: false,
        };
        let view = du_view(
            &parse(models).unwrap(),
            &parse(cache).unwrap(),
            &Disk {
                disk: Some(1 << 30),
            },
            out,
        );
        let expected = "\
MODEL   WEIGHTS  PROJECTOR  DRAFTER   PACKED
a      10.0 MiB    5.0 MiB           7.0 MiB
b      20.0 MiB    5.0 MiB  1.0 MiB
what several models share is counted once
36.0 MiB of models, 7.0 MiB of packed weights, 0 KiB of prompts; 1.0 GiB are free for models
";
        assert_eq!(view, expected);
    }
}
