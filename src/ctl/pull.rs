//! `gemmactl pull`: what would be fetched, a question, and a bar.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::PullArgs;
use super::bar::Bar;
use super::client::{Client, Events};
use super::confirm::confirm;
use super::error::Error;
use super::interrupt::Interrupts;
use super::show::{parse, pretty, promptly, show_size, show_time};
use super::table::table;
use super::text::{Stream, Terminal};
use super::write_out;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    model: String,
    directory: String,
    files: Vec<File>,
    download: Option<u64>,
    disk: u64,
    left_out: Vec<String>,
    memory: Option<Memory>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    fits: bool,
    needs: u64,
    budget: u64,
    automatic: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    role: String,
    name: String,
    source: String,
    bytes: Option<u64>,
    sha256: Option<String>,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    id: String,
    model: String,
    state: String,
    reason: Option<String>,
    retry_after: Option<u64>,
    resumable: Option<bool>,
    bytes: Option<u64>,
    received: u64,
    rate: u64,
    files: Vec<File>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    data: Vec<Status>,
}

pub fn run(
    args: &PullArgs,
    client: &dyn Client,
    runtime: &Runtime,
    interrupts: &Interrupts,
    terminal: &Terminal,
) -> Result<(), Error> {
    if args.status {
        return write_out(&runtime.block_on(list(client, args.json, terminal))?);
    }
    if let Some(id) = &args.cancel {
        return write_out(&runtime.block_on(cancel(client, id, args.json, terminal))?);
    }
    let request = request(args);
    // A program that reads events needs neither.
    let asks_nothing = args.yes && args.json;
    if !asks_nothing && !runtime.block_on(agree(client, &request, args.yes, terminal))? {
        return Ok(());
    }
    runtime.block_on(follow(client, request, args.json, interrupts, terminal))
}

fn request(args: &PullArgs) -> Value {
    let mut request = json!({ "model": args.model });
    if let Some(with) = &args.with {
        let words: Vec<&str> = match with.trim() {
            "none" => vec![],
            with => with.split(',').map(str::trim).collect(),
        };
        request["with"] = json!(words);
    }
    if let Some(quant) = &args.quant {
        request["quant"] = json!(quant);
    }
    if args.force {
        request["force"] = json!(true);
    }
    request
}

/// Shows what would be fetched, and asks, unless that is agreed to.
async fn agree(
    client: &dyn Client,
    request: &Value,
    agreed: bool,
    terminal: &Terminal,
) -> Result<bool, Error> {
    let mut asked = request.clone();
    asked["plan"] = json!(true);
    let plan: Plan = parse(client.pull_plan(&asked).await?)?;
    write_out(plan_view(&plan, terminal.out).as_bytes())?;
    if agreed || plan.download == Some(0) {
        return Ok(true);
    }
    confirm("Fetch it?", true, "--yes fetches it")
}

fn plan_view(plan: &Plan, out: Stream) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), show_size);
    let rows = plan.files.iter().map(|file| {
        let checked = match (file.done, &file.sha256) {
            (true, _) => "here",
            (false, Some(_)) => "sha256 known",
            (false, None) => "sha256 not known",
        };
        [
            file.role.clone(),
            file.name.clone(),
            size(file.bytes),
            checked.to_owned(),
            file.source.clone(),
        ]
    });
    let mut view = table(["FILE", "NAME", "SIZE", "", "FROM"], rows, &[2], out);
    // Writing to a string does not fail.
    let _ = writeln!(
        view,
        "{}: {} to download into {}, which has {} free",
        out.clean(&plan.model),
        size(plan.download),
        out.clean(&plan.directory),
        show_size(plan.disk)
    );
    for role in &plan.left_out {
        let _ = writeln!(view, "no room on the disk for its {}", out.clean(role));
    }
    if let Some(memory) = &plan.memory {
        let (needs, budget) = (show_size(memory.needs), show_size(memory.budget));
        let _ = match (memory.fits, &memory.automatic) {
            (true, _) => writeln!(
                view,
                "memory: it takes {needs} of {budget} that a model may have now"
            ),
            (false, Some(other)) if *other != plan.model => writeln!(
                view,
                "memory: it takes {needs}, and a model may have {budget} now; {} would fit (`gemmactl pull auto`)",
                out.clean(other)
            ),
            (false, _) => writeln!(
                view,
                "memory: it takes {needs}, and a model may have {budget} now"
            ),
        };
    }
    view
}

/// Fetches, and tells how far it is.
async fn follow(
    client: &dyn Client,
    mut request: Value,
    json: bool,
    interrupts: &Interrupts,
    terminal: &Terminal,
) -> Result<(), Error> {
    request["stream"] = json!(true);
    let mut last = Status::default();
    let bar = Bar::new(terminal);
    let watching = async {
        let mut events = client.pull_events(&request).await?;
        while let Some(raw) = next(&mut *events).await? {
            last = parse(raw.clone())?;
            match json {
                true => write_out(format!("{raw}\n").as_bytes())?,
                false => bar.show(last.received, last.bytes, message(&last)),
            }
        }
        Ok::<(), Error>(())
    };
    let ended = interrupts.stops(watching).await;
    bar.clear();
    let Some(ended) = ended else {
        terminal.remark(&match last.id.as_str() {
            "" => "it was not begun".to_owned(),
            id => format!(
                "the daemon goes on; `gemmactl pull --status` tells how far it is, `gemmactl pull --cancel {id}` stops it"
            ),
        });
        return Ok(());
    };
    ended?;
    conclude(&last, json, terminal)
}

fn conclude(last: &Status, json: bool, terminal: &Terminal) -> Result<(), Error> {
    let reason = || last.reason.clone().unwrap_or_default();
    match last.state.as_str() {
        "done" if json => Ok(()),
        "done" => {
            let bytes = last.bytes.map(show_size).unwrap_or_default();
            let model = terminal.out.clean(&last.model);
            write_out(
                format!("{model} is here: {bytes}, checked. `gemmactl ask --model {model} \"…\"` asks it\n")
                    .as_bytes(),
            )
        }
        "failed" => Err(Error::Refused {
            message: match last.resumable {
                Some(true) => format!("{}; the same command goes on with what came", reason()),
                _ => reason(),
            },
            field: None,
        }),
        "cancelled" => Err(Error::Refused {
            message: "it was cancelled".into(),
            field: None,
        }),
        _ => Err(Error::broken("it ended without saying how")),
    }
}

/// The next event.
pub(super) async fn next(events: &mut dyn Events) -> Result<Option<Value>, Error> {
    let Some(text) = events.next().await? else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::broken(format!("it sent no valid JSON: {error}")))
}

/// How far it is, how fast, and how long it will take; all that is counted is hashed.
fn message(status: &Status) -> String {
    let of = status
        .bytes
        .map(|bytes| format!(" of {}", show_size(bytes)))
        .unwrap_or_default();
    let mut said = format!("{}{of}", show_size(status.received));
    match status.state.as_str() {
        "waiting" => {
            let seconds = status.retry_after.unwrap_or(0);
            let reason: String = super::text::clean(status.reason.as_deref().unwrap_or_default())
                .chars()
                .take(60)
                .collect();
            let _ = write!(said, ", again in {seconds} s: {reason}");
        }
        "verifying" => said.push_str(", hashing"),
        _ if status.rate > 0 => {
            let _ = write!(said, ", {}/s", show_size(status.rate));
            let left = status.bytes.unwrap_or(0).saturating_sub(status.received);
            if left > 0 {
                let left = show_time(left as f64 / status.rate as f64);
                let _ = write!(said, ", {left} left");
            }
        }
        _ => {}
    }
    said
}

async fn list(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let pulls = promptly(client.pulls()).await?;
    if json {
        return Ok(pretty(&pulls, terminal));
    }
    let list: List = parse(pulls)?;
    if list.data.is_empty() {
        return Ok(b"nothing is being fetched\n".into());
    }
    let row = |status: &Status| {
        let (how, why) = match &status.reason {
            Some(reason) => (status.state.clone(), reason.clone()),
            None => (status.state.clone(), message(status)),
        };
        [status.id.clone(), status.model.clone(), how, why]
    };
    Ok(table(
        ["ID", "MODEL", "STATE", ""],
        list.data.iter().map(row),
        &[],
        terminal.out,
    )
    .into_bytes())
}

async fn cancel(
    client: &dyn Client,
    id: &str,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let stopped = client.cancel_pull(id).await?;
    if json {
        return Ok(pretty(&stopped, terminal));
    }
    let stopped: Status = parse(stopped)?;
    Ok(format!(
        "{}: {}\n",
        terminal.out.clean(&stopped.model),
        stopped.state
    )
    .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_far_how_fast_and_how_long() {
        let mut status = Status {
            state: "downloading".into(),
            bytes: Some(4 << 30),
            received: 1 << 30,
            rate: 100 << 20,
            ..Status::default()
        };
        let said = message(&status);
        assert!(
            said.contains(" of ") && said.contains("/s") && said.contains("left"),
            "{said}"
        );
        status.state = "waiting".into();
        status.reason = Some("its server answers 503\u{1b}[31m".into());
        let said = message(&status);
        assert!(said.contains("503") && !said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn what_is_asked_for_with_a_model_is_a_list() {
        let args = |with: Option<&str>| PullArgs {
            model: "e2b".into(),
            with: with.map(Into::into),
            quant: None,
            yes: true,
            force: false,
            status: false,
            cancel: None,
            json: false,
        };
        assert_eq!(request(&args(None)).get("with"), None);
        assert_eq!(request(&args(Some("none")))["with"], json!([]));
        assert_eq!(
            request(&args(Some("vision, drafter")))["with"],
            json!(["vision", "drafter"])
        );
    }
}
