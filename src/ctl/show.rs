//! What the daemon says about itself, and the commands that change it.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Reply};
use super::error::Error;
use super::table::table;
use super::text::{Stream, Terminal};
use crate::access;
use crate::config;

/// A daemon that lives answers these at once.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    state: String,
    model: Option<String>,
    default: Option<String>,
    waiting: u64,
    running: u64,
    served: u64,
    crashes: u64,
    context: Option<u64>,
    slots: Option<u64>,
    threads: Option<u64>,
    pid: Option<u64>,
    template: Option<String>,
    cause: Option<String>,
    retry_in_s: Option<f64>,
    passed_over: Vec<PassedOver>,
    memory: Memory,
    sandbox: Option<Sandbox>,
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PassedOver {
    path: String,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sandbox {
    seccomp: bool,
    landlock_abi: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    level: String,
    since_s: Option<f64>,
    reason: Option<String>,
    action: Option<String>,
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
    variant: String,
    size: u64,
    context_length: u64,
    quantization: String,
    loaded: bool,
    default: bool,
}

pub async fn status(
    client: &dyn Client,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let status = promptly(client.status()).await?;
    if json {
        Ok(pretty(&status, terminal))
    } else {
        Ok(status_view(&parse(status)?, terminal.out).into_bytes())
    }
}

pub async fn models(
    client: &dyn Client,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let models = promptly(client.models()).await?;
    if json {
        return Ok(pretty(&models, terminal));
    }
    let models: Models = parse(models)?;
    let status: Status = parse(promptly(client.status()).await?)?;
    for PassedOver { path, reason } in &status.passed_over {
        terminal.remark(&format!("{path} is passed over: {reason}"));
    }
    if models.data.is_empty() {
        terminal.remark("no model is installed; put a Gemma 4 GGUF file into one of the daemon's model directories");
    }
    Ok(models_view(&models.data, terminal.out).into_bytes())
}

pub async fn load(client: &dyn Client, model: &str, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    if terminal.err.is_terminal {
        terminal.remark(&format!("loading {model} …"));
    }
    let name = client.load(model).await?;
    Ok(format!("{} is loaded\n", terminal.out.clean(&name)).into_bytes())
}

pub async fn unload(client: &dyn Client) -> Result<Vec<u8>, Error> {
    client.unload().await?;
    Ok(b"no model is loaded\n".into())
}

/// `gemmactl config check`: what the daemon would read, by the same code.
pub fn config_check(file: Option<&Path>, terminal: &Terminal) -> Result<(), Error> {
    let place = config::Place::system();
    let loaded = config::load(file, &place).map_err(Error::Config)?;
    let named_in = loaded.files.last().unwrap_or(&place.file);
    let unknown = access::unknown_names(&loaded.config).into_iter();
    let problems: Vec<_> = unknown
        .map(|text| config::Problem {
            file: named_in.clone(),
            line: None,
            text,
        })
        .collect();
    if !problems.is_empty() {
        return Err(Error::Config(config::Errors(problems)));
    }
    let mut text = String::new();
    for file in &loaded.files {
        text.push_str(&format!(
            "{}\n",
            terminal.out.clean(&file.display().to_string())
        ));
    }
    if loaded.files.is_empty() {
        text.push_str(&format!(
            "{} does not exist: the defaults hold\n",
            place.file.display()
        ));
    }
    text.push_str("ok\n");
    super::write_out(text.as_bytes())
}

/// Waits for what the daemon has at hand.
pub async fn promptly(reply: Reply<'_, Value>) -> Result<Value, Error> {
    let answer = tokio::time::timeout(TIMEOUT, reply).await;
    answer.unwrap_or_else(|_| {
        Err(Error::Broken {
            cause: format!("it did not answer for {} s", TIMEOUT.as_secs()),
        })
    })
}

/// The daemon's JSON as what is shown of it.
pub fn parse<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Error> {
    T::deserialize(value).map_err(|error| Error::Broken {
        cause: format!("it answered in a way that gemmactl does not know: {error}"),
    })
}

/// The daemon's own JSON, for `--json`.
pub fn pretty(value: &Value, terminal: &Terminal) -> Vec<u8> {
    format!("{}\n", terminal.out.clean(&format!("{value:#}"))).into_bytes()
}

fn status_view(status: &Status, out: Stream) -> String {
    let mut view = String::new();
    for (name, value) in status_lines(status, out) {
        // Colours are ours; what the daemon quotes is not.
        let value = if name == "gemmad" {
            value
        } else {
            out.clean(&value).into_owned()
        };
        let _ = writeln!(view, "{} {value}", out.dim(&format!("{name:<9}")));
    }
    view
}

/// What is shown, each with its name.
fn status_lines(status: &Status, out: Stream) -> Vec<(&'static str, String)> {
    let mut lines = vec![(
        "gemmad",
        format!(
            "{}, {}",
            status.version,
            out.bold(&status.state.replace('_', " "))
        ),
    )];
    if let Some(model) = &status.model {
        lines.push(("model", model.clone()));
    }
    if let Some(default) = status
        .default
        .as_ref()
        .filter(|default| status.model.as_ref() != Some(default))
    {
        lines.push(("default", default.clone()));
    }
    if let (Some(context), Some(slots), Some(threads)) =
        (status.context, status.slots, status.threads)
    {
        lines.push((
            "context",
            format!("{context} tokens in each of {slots} slots, {threads} threads"),
        ));
    }
    if let Some(pid) = status.pid {
        lines.push(("worker", format!("process {pid}")));
    }
    if let Some(sandbox) = &status.sandbox {
        lines.push(("sandbox", sandbox_line(sandbox)));
    }
    if let Some(template) = &status.template {
        lines.push(("template", template.clone()));
    }
    if let Some(cause) = &status.cause {
        let retry = status
            .retry_in_s
            .map(|seconds| format!("; next attempt in {seconds:.0} s"))
            .unwrap_or_default();
        lines.push(("trouble", format!("{cause}{retry}")));
    }
    if let Memory {
        level,
        since_s: Some(since),
        reason: Some(reason),
        action: Some(action),
    } = &status.memory
    {
        lines.push((
            "memory",
            format!("{level}; {} ago: {reason}; {action}", show_time(*since)),
        ));
    }
    lines.push((
        "requests",
        format!(
            "{} running, {} waiting, {} served",
            status.running, status.waiting, status.served
        ),
    ));
    lines.push(("crashes", status.crashes.to_string()));
    lines
}

fn sandbox_line(sandbox: &Sandbox) -> String {
    let seccomp = if sandbox.seccomp {
        "seccomp"
    } else {
        "no seccomp in this kernel"
    };
    let landlock = sandbox
        .landlock_abi
        .map_or("no Landlock in this kernel".to_owned(), |abi| {
            format!("Landlock ABI {abi}")
        });
    format!("{seccomp}, {landlock}")
}

fn models_view(models: &[Model], out: Stream) -> String {
    let row = |model: &Model| {
        let marks = [(model.loaded, "loaded"), (model.default, "default")];
        let marks: Vec<_> = marks
            .iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, mark)| *mark)
            .collect();
        let context = model.context_length.to_string();
        [
            model.id.clone(),
            model.variant.clone(),
            model.quantization.clone(),
            show_size(model.size),
            context,
            marks.join(", "),
        ]
    };
    let head = ["MODEL", "VARIANT", "WEIGHTS", "SIZE", "CONTEXT", ""];
    table(head, models.iter().map(row), &[3, 4], out)
}

fn show_time(seconds: f64) -> String {
    match seconds {
        7200.0.. => format!("{:.0} h", seconds / 3600.0),
        120.0.. => format!("{:.0} min", seconds / 60.0),
        _ => format!("{seconds:.0} s"),
    }
}

pub fn show_size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        1024.0.. => format!("{:.1} GiB", mib / 1024.0),
        1.0.. => format!("{mib:.1} MiB"),
        _ => format!("{} KiB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    #[test]
    fn status_of_a_ready_daemon() {
        let status = json!({"state": "ready", "model": "m", "default": "m", "waiting": 1, "running": 2, "served": 3, "crashes": 0,
            "context": 8192, "slots": 2, "threads": 4, "pid": 77, "cause": null, "retry_in_s": null,
            "sandbox": {"seccomp": true, "landlock_abi": 2}, "version": "0.1.0"});
        let expected = "gemmad    0.1.0, ready\nmodel     m\ncontext   8192 tokens in each of 2 slots, 4 threads\nworker    process 77\n\
                        sandbox   seccomp, Landlock ABI 2\n\
                        requests  2 running, 1 waiting, 3 served\ncrashes   0\n";
        assert_eq!(status_view(&parse(status).unwrap(), PIPE), expected);
    }

    #[test]
    fn status_in_trouble_names_the_cause() {
        let status = json!({"state": "backing_off", "model": null, "default": "m", "cause": "killed by signal 9\x1b[2J", "retry_in_s": 4.2,
            "memory": {"level": "eased", "since_s": 150.0, "reason": "30 MiB of memory are available", "action": "the worker gives back what it can"},
            "waiting": 0, "running": 0, "served": 0, "crashes": 3, "version": "0.1.0", "something": "new"});
        let status: Status = parse(status).unwrap();
        let tty = Stream {
            is_terminal: true,
            colour: false,
        };
        let view = status_view(&status, tty);
        assert!(
            view.contains("backing off")
                && view.contains("killed by signal 9[2J; next attempt in 4 s"),
            "{view}"
        );
        assert!(
            view.contains(
                "memory    eased; 2 min ago: 30 MiB of memory are available; the worker gives back"
            ),
            "{view}"
        );
        assert!(!view.contains('\x1b'));
    }

    #[test]
    fn models_stand_in_columns() {
        let models = json!({"object": "list", "data": [
            {"id": "gemma-4-e2b-q4_0", "variant": "gemma-4-e2b", "size": 3_020_000_000_u64, "context_length": 131_072, "quantization": "Q4_0", "loaded": true, "default": true},
            {"id": "tiny", "variant": "gemma-4-e2b", "size": 1_900_000, "context_length": 2048, "quantization": "Q8_0", "loaded": false, "default": false},
        ]});
        let models: Models = parse(models).unwrap();
        let expected = "MODEL             VARIANT      WEIGHTS     SIZE  CONTEXT\n\
                        gemma-4-e2b-q4_0  gemma-4-e2b  Q4_0     2.8 GiB   131072  loaded, default\n\
                        tiny              gemma-4-e2b  Q8_0     1.8 MiB     2048\n";
        assert_eq!(models_view(&models.data, PIPE), expected);
        assert_eq!(models_view(&[], PIPE), "");
    }
}
