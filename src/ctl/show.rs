//! What the daemon says about itself, and the commands that change it.

mod queue;

use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use self::queue::{Queue, queue_lines, user_name};
use super::client::{Client, Reply};
use super::error::Error;
use super::table::table;
use super::text::{Stream, Terminal};
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
    queue: Queue,
    running: u64,
    served: u64,
    crashes: u64,
    context: Option<u64>,
    context_floor: Option<u64>,
    context_granted: Option<u64>,
    slots: Option<u64>,
    threads: Option<u64>,
    pid: Option<u64>,
    template: Option<String>,
    cpu_variant: Option<String>,
    cause: Option<String>,
    retry_in_s: Option<f64>,
    unload_in_s: Option<f64>,
    tokens_per_second: Option<f64>,
    speculation: Speculated,
    passed_over: Vec<PassedOver>,
    memory: Memory,
    sandbox: Option<Sandbox>,
    tokens: TokenKey,
    upstreams: Vec<Upstream>,
    version: String,
}

/// What tokens are signed with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenKey {
    key: Option<String>,
    cause: Option<String>,
}

/// A service on another machine.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Upstream {
    name: String,
    running: u64,
    served: u64,
    failed: u64,
    cause: Option<String>,
    retry_in_s: Option<f64>,
}

impl Upstream {
    fn line(&self) -> String {
        let Self {
            name,
            running,
            served,
            failed,
            ..
        } = self;
        let mut line = format!("{name}: {running} running, {served} served, {failed} failed");
        // Writing to a string does not fail.
        if let Some(cause) = &self.cause {
            let _ = write!(line, "; last: {cause}");
        }
        if let Some(seconds) = self.retry_in_s {
            let _ = write!(line, "; left alone for {seconds:.0} s");
        }
        line
    }
}

/// Tokens that were tried ahead.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Speculated {
    lookup: Tried,
    forced: Tried,
    drafter: Tried,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tried {
    accepted: u64,
    rejected: u64,
}

impl Speculated {
    /// Those that were right, of how many; `None` if none were tried.
    fn line(&self) -> Option<String> {
        let said = |name, tried: &Tried| {
            let all = tried.accepted.saturating_add(tried.rejected);
            (all > 0).then(|| format!("{} of {all} {name}", tried.accepted))
        };
        let sources = [
            said("looked up", &self.lookup),
            said("forced", &self.forced),
            said("drafted", &self.drafter),
        ];
        let sources: Vec<_> = sources.into_iter().flatten().collect();
        (!sources.is_empty()).then(|| format!("{} tokens were right", sources.join(", ")))
    }
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
pub struct Model {
    pub id: String,
    /// The name of its file; empty if it is an upstream's.
    file: String,
    owned_by: String,
    variant: String,
    size: u64,
    context_length: u64,
    quantization: String,
    input_modalities: Vec<String>,
    drafter: bool,
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
        let mut status: Status = parse(status)?;
        status.default = default_now(client).await;
        Ok(status_view(&status, terminal.out).into_bytes())
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
    let mut models: Models = parse(models)?;
    let default = default_now(client).await;
    for model in &mut models.data {
        model.default = Some(&model.id) == default.as_ref();
    }
    let status: Status = parse(promptly(client.status()).await?)?;
    for PassedOver { path, reason } in &status.passed_over {
        let path = config::one_line(path);
        terminal.remark(&format!("{path} is passed over: {reason}"));
    }
    if models.data.is_empty() {
        terminal.remark("no model is installed; `gemmactl pull auto` fetches one, or put a Gemma 4 GGUF file into one of the daemon's model directories");
    }
    Ok(models_view(&models.data, terminal.out).into_bytes())
}

/// What `auto` stands for now: what the daemon publishes is as old as the last change of anything,
/// and the free memory changes without it. `None` where there is no model.
pub async fn default_now(client: &dyn Client) -> Option<String> {
    let model = promptly(client.model("auto")).await.ok()?;
    Some(parse::<Model>(model).ok()?.id)
}

pub async fn load(client: &dyn Client, model: &str, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    if terminal.err.is_terminal {
        terminal.remark(&format!("loading {model} …"));
    }
    let name = client.load(model).await?;
    Ok(format!("{} is loaded\n", terminal.out.clean(&name)).into_bytes())
}

/// `model`: unloads this one only. It is no mistake if it is not loaded.
pub async fn unload(
    client: &dyn Client,
    model: Option<&str>,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let loaded = match model {
        None => parse::<Status>(promptly(client.status()).await?)?.model,
        Some(name) => {
            let model: Model = parse(promptly(client.model(name)).await?)?;
            if !model.loaded {
                let id = terminal.out.clean(&model.id);
                return Ok(format!("{id} is not loaded\n").into_bytes());
            }
            Some(model.id)
        }
    };
    client.unload().await?;
    Ok(match loaded {
        Some(id) => format!("{} is unloaded\n", terminal.out.clean(&id)),
        None => "no model was loaded\n".into(),
    }
    .into_bytes())
}

/// Waits for what the daemon has at hand.
pub async fn promptly<T>(reply: Reply<'_, T>) -> Result<T, Error> {
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
        push_line(&mut view, name, &value, out);
    }
    view
}

/// A name, and behind it what there is of it.
pub fn push_line(view: &mut String, name: &str, value: &str, out: Stream) {
    // Writing to a string does not fail.
    let _ = writeln!(view, "{} {value}", out.dim(&format!("{name:<9}")));
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
    lines.extend(model_lines(status));
    if let (Some(context), Some(slots), Some(threads)) =
        (status.context, status.slots, status.threads)
    {
        let room = match (status.context_floor, status.context_granted) {
            (Some(floor), Some(granted)) if floor < context => format!(
                "{granted} tokens for {slots} slots, at least {floor} for each; up to {context} for one that needs them"
            ),
            _ => format!("{context} tokens in each of {slots} slots"),
        };
        lines.push(("context", format!("{room}, {threads} threads")));
    }
    if let Some(pid) = status.pid {
        let variant = status.cpu_variant.as_ref();
        let kernels = variant.map_or(String::new(), |variant| format!(", kernels for {variant}"));
        lines.push(("worker", format!("process {pid}{kernels}")));
    }
    let sandbox = status.sandbox.as_ref().map(sandbox_line);
    lines.extend(sandbox.map(|line| ("sandbox", line)));
    lines.extend(tokens_line(&status.tokens));
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
    lines.extend(queue_lines(&status.queue, user_name));
    if let Some(rate) = status.tokens_per_second {
        lines.push(("speed", format!("{rate:.1} tokens/s in the last answer")));
    }
    lines.extend(status.speculation.line().map(|line| ("guesses", line)));
    lines.push(("crashes", status.crashes.to_string()));
    let upstreams = status.upstreams.iter();
    lines.extend(upstreams.map(|upstream| ("upstream", upstream.line())));
    lines
}

/// The model that is loaded, and the one that would be if that is another.
fn model_lines(status: &Status) -> impl Iterator<Item = (&'static str, String)> {
    let left = status
        .unload_in_s
        .map(|seconds| format!("; idle: unloaded in {}", show_time(seconds)))
        .unwrap_or_default();
    let model = status.model.as_ref();
    let default = status.default.as_ref();
    let default = default.filter(|default| model != Some(default));
    let model = model.map(|model| ("model", format!("{model}{left}")));
    model
        .into_iter()
        .chain(default.map(|default| ("default", default.clone())))
}

/// That the daemon keeps the key itself is usual, and not said.
fn tokens_line(tokens: &TokenKey) -> Option<(&'static str, String)> {
    let key = "signed with the service manager's credential tokens.key";
    let is_given = tokens.key.as_deref() == Some("credential");
    let trouble = tokens.cause.as_ref();
    let line = trouble.map(|cause| format!("none is taken: {cause}"));
    let line = line.or(is_given.then(|| key.to_owned()))?;
    Some(("tokens", line))
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
        let marks = [
            (model.loaded, "loaded"),
            (model.default, "default"),
            (model.drafter, "has a drafter"),
        ];
        let marks = marks.iter().filter(|(holds, _)| *holds);
        let mut marks: Vec<_> = marks.map(|(_, mark)| (*mark).to_owned()).collect();
        if model.file.is_empty() && !model.owned_by.is_empty() {
            // An upstream's: nothing else is known of it.
            let row = [&model.id, "", "", "", "", &format!("at {}", model.owned_by)];
            return row.map(str::to_owned);
        }
        if !is_named_by_file(model) {
            marks.push(format!("file {}", config::one_line(&model.file)));
        }
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

/// Whether a model is called what its file is called; capitals are no difference to the daemon.
fn is_named_by_file(Model { id, file, .. }: &Model) -> bool {
    file.is_empty() || file.to_lowercase() == format!("{id}.gguf")
}

pub fn show_time(seconds: f64) -> String {
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
            "unload_in_s": 240.2, "tokens_per_second": 9.04, "sandbox": {"seccomp": true, "landlock_abi": 2}, "version": "0.1.0"});
        let expected = "gemmad    0.1.0, ready\nmodel     m; idle: unloaded in 4 min\ncontext   8192 tokens in each of 2 slots, 4 threads\nworker    process 77\n\
                        sandbox   seccomp, Landlock ABI 2\n\
                        requests  2 running, 1 waiting, 3 served\nspeed     9.0 tokens/s in the last answer\ncrashes   0\n";
        assert_eq!(status_view(&parse(status.clone()).unwrap(), PIPE), expected);
        let mut guesses = status.clone();
        guesses["speculation"] = json!({"lookup": {"accepted": 30, "rejected": 10}, "forced": {"accepted": 5, "rejected": 0}, "drafter": {"accepted": 8, "rejected": 2}});
        let view = status_view(&parse(guesses).unwrap(), PIPE);
        let line =
            "guesses   30 of 40 looked up, 5 of 5 forced, 8 of 10 drafted tokens were right\n";
        assert!(view.contains(line), "{view}");
        let mut loaded = status.clone();
        loaded["cpu_variant"] = json!("haswell");
        let view = status_view(&parse(loaded).unwrap(), PIPE);
        let line = "worker    process 77, kernels for haswell\n";
        assert!(view.contains(line), "{view}");
        let mut grows = status;
        grows["context_floor"] = json!(2048);
        grows["context_granted"] = json!(6000);
        let view = status_view(&parse(grows).unwrap(), PIPE);
        assert!(
            view.contains(
                "context   6000 tokens for 2 slots, at least 2048 for each; up to 8192 for one that needs them, 4 threads\n"
            ),
            "{view}"
        );
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
            {"id": "gemma-4-e2b-q4_0", "file": "Gemma-4-E2B-Q4_0.gguf", "variant": "gemma-4-e2b", "size": 3_020_000_000_u64, "context_length": 131_072, "quantization": "Q4_0", "loaded": true, "default": true},
            {"id": "gemma-big", "object": "model", "created": 0, "owned_by": "big"},
            {"id": "tiny-1", "file": "Tiny (1).gguf", "variant": "gemma-4-e2b", "size": 1_900_000, "context_length": 2048, "quantization": "Q8_0", "loaded": false, "drafter": true},
        ]});
        let models: Models = parse(models).unwrap();
        let expected = "MODEL             VARIANT      WEIGHTS     SIZE  CONTEXT\n\
                        gemma-4-e2b-q4_0  gemma-4-e2b  Q4_0     2.8 GiB   131072  loaded, default\n\
                        gemma-big                                                 at big\n\
                        tiny-1            gemma-4-e2b  Q8_0     1.8 MiB     2048  has a drafter, file Tiny (1).gguf\n";
        assert_eq!(models_view(&models.data, PIPE), expected);
        assert_eq!(models_view(&[], PIPE), "");
    }
}
