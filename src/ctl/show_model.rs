//! `gemmactl show`: one model, and all that there is to know of it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::Client;
use super::error::Error;
use super::keep::Part;
use super::show::{default_now, parse, pretty, promptly, push_line, show_size};
use super::text::{Stream, Terminal};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    id: String,
    /// The name of its file.
    file: String,
    path: String,
    source: Option<String>,
    variant: String,
    size: u64,
    context_length: u64,
    quantization: String,
    input_modalities: Vec<String>,
    drafter: bool,
    files: Vec<Part>,
    licence: Option<String>,
    sampling: Option<Sampling>,
    template: Option<u64>,
    metadata: Map<String, Value>,
    loaded: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sampling {
    temperature: f64,
    top_k: u64,
    top_p: f64,
    min_p: f64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    budget: u64,
    models: Vec<Planned>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Planned {
    id: String,
    plans: Vec<Way>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Way {
    context: u64,
    fits: bool,
    total: u64,
}

pub async fn model(
    client: &dyn Client,
    name: &str,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let model = promptly(client.details(name)).await?;
    if json {
        return Ok(pretty(&model, terminal));
    }
    let model: Model = parse(model)?;
    let is_default = default_now(client).await.as_ref() == Some(&model.id);
    // What it takes is no reason not to tell what it is.
    let plan = promptly(client.plan(None, None)).await.ok();
    let plan: Plan = plan.and_then(|plan| parse(plan).ok()).unwrap_or_default();
    Ok(view(&model, is_default, &plan, terminal.out).into_bytes())
}

fn view(model: &Model, is_default: bool, plan: &Plan, out: Stream) -> String {
    let mut view = String::new();
    let lines = lines(model, is_default, plan).into_iter();
    for (name, value) in lines.filter(|(_, value)| !value.is_empty()) {
        push_line(&mut view, name, &out.clean(&value), out);
    }
    let told = model
        .metadata
        .iter()
        .filter(|(key, _)| key.starts_with("general."));
    for (key, value) in told {
        let line = format!("{key}: {}", value.as_str().unwrap_or_default());
        push_line(
            &mut view,
            "header",
            &out.clean(&line.replace('\n', " ")),
            out,
        );
    }
    view
}

fn lines(model: &Model, is_default: bool, plan: &Plan) -> Vec<(&'static str, String)> {
    let file = match model.path.is_empty() {
        true => model.file.clone(),
        false => model.path.clone(),
    };
    let parts = model
        .files
        .iter()
        .filter(|part| part.role == "model")
        .count();
    let file = match parts {
        0 | 1 => file,
        _ => format!("{file}, and {} more parts beside it", parts - 1),
    };
    let senses = model.input_modalities.iter().map(|sense| match &**sense {
        "image" => "pictures",
        "audio" => "sounds",
        other => other,
    });
    let mut lines = vec![
        ("model", model.id.clone()),
        ("file", file),
        ("from", model.source.clone().unwrap_or_default()),
        ("variant", model.variant.clone()),
        (
            "weights",
            format!("{}, {}", model.quantization, show_size(model.size)),
        ),
        (
            "context",
            format!("{} tokens at most", model.context_length),
        ),
        ("takes", senses.collect::<Vec<_>>().join(", ")),
    ];
    for part in model.files.iter().filter(|part| part.role != "model") {
        let name = match &*part.role {
            "projector" => "projector",
            _ => "drafter",
        };
        lines.push((name, format!("{}, {}", part.file, show_size(part.bytes))));
    }
    if model.drafter && model.files.is_empty() {
        lines.push(("drafter", "lies beside it".into()));
    }
    if let Some(bytes) = model.template {
        lines.push(("template", format!("its own, {}", show_size(bytes))));
    }
    if let Some(best) = &model.sampling {
        let text = format!(
            "temperature {}, top-k {}, top-p {}, min-p {} are recommended",
            best.temperature, best.top_k, best.top_p, best.min_p
        );
        lines.push(("sampling", text));
    }
    lines.push(("licence", model.licence.clone().unwrap_or_default()));
    lines.extend(memory(model, plan).map(|text| ("memory", text)));
    let is = [
        (model.loaded, "loaded"),
        (is_default, "what `auto` stands for"),
    ];
    let is = is.iter().filter(|(holds, _)| *holds);
    let is: Vec<_> = is.map(|(_, mark)| *mark).collect();
    lines.push(("now", is.join(", ")));
    lines
}

/// What it takes in the contexts of the plan.
fn memory(model: &Model, plan: &Plan) -> Option<String> {
    let planned = plan.models.iter().find(|planned| planned.id == model.id)?;
    let way = |way: &Way| {
        let no = if way.fits { "" } else { ", which is too much" };
        format!("{} in {} tokens{no}", show_size(way.total), way.context)
    };
    let ways: Vec<_> = planned.plans.iter().map(way).collect();
    Some(format!(
        "{}; {} are there for it",
        ways.join(", "),
        show_size(plan.budget)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_model_is_shown_line_by_line() {
        let model = json!({"id": "m", "path": "/m/m.gguf", "source": "a/b:m.gguf", "variant": "gemma-4-e2b", "size": 1 << 20,
            "context_length": 4096, "quantization": "Q4_0", "input_modalities": ["text", "image"], "drafter": true,
            "files": [{"role": "model", "file": "m.gguf", "bytes": 1}, {"role": "projector", "file": "p.gguf", "bytes": 2048}],
            "licence": "apache-2.0", "sampling": {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0},
            "template": 1024, "metadata": {"general.name": "M\n\u{1b}[31m", "gemma4.block_count": "3"}});
        let plan = json!({"budget": 1 << 30, "models": [{"id": "m", "plans": [
            {"context": 4096, "fits": true, "total": 3 << 20}, {"context": 8192, "fits": false, "total": 1_u64 << 31}]}]});
        let out = Stream {
            is_terminal: true,
            colour: false,
        };
        let view = view(&parse(model).unwrap(), true, &parse(plan).unwrap(), out);
        for line in [
            "file      /m/m.gguf",
            "from      a/b:m.gguf",
            "takes     text, pictures",
            "projector p.gguf, 2 KiB",
            "template  its own, 1 KiB",
            "sampling  temperature 1, top-k 64, top-p 0.95, min-p 0 are recommended",
            "licence   apache-2.0",
            "memory    3.0 MiB in 4096 tokens, 2.0 GiB in 8192 tokens, which is too much; 1.0 GiB are there for it",
            "now       what `auto` stands for",
        ] {
            assert!(view.lines().any(|one| one == line), "{line}:\n{view}");
        }
        assert!(
            view.contains("general.name: M ")
                && !view.contains('\u{1b}')
                && !view.contains("block_count"),
            "{view}"
        );
    }

    #[test]
    fn what_an_older_daemon_says_is_shown() {
        let model = json!({"id": "e2b-q4\x1b[2J", "variant": "gemma-4-e2b", "size": 3_020_000_000_u64, "context_length": 131_072,
            "quantization": "Q4_0", "input_modalities": ["text", "image", "audio"], "drafter": true, "loaded": true, "default": false, "file": "E2B q4.gguf"});
        let tty = Stream {
            is_terminal: true,
            colour: false,
        };
        assert_eq!(
            view(&parse(model).unwrap(), false, &Plan::default(), tty),
            "model     e2b-q4[2J\nfile      E2B q4.gguf\nvariant   gemma-4-e2b\nweights   Q4_0, 2.8 GiB\ncontext   131072 tokens at most\n\
             takes     text, pictures, sounds\ndrafter   lies beside it\nnow       loaded\n"
        );
    }
}
