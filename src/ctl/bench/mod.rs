//! `gemmactl bench`: this machine, measured with one model, to compare and to send in.
//!
//! Only what every client can ask of the daemon is used; `machine` has what the kernel tells everybody, `report` what
//! is made of it. Each run says that it is not cached, not guessed ahead and not ended early, so that it is the same
//! work everywhere.

mod machine;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::args::BenchArgs;
use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, promptly, show_time};
use super::text::Terminal;
use super::wire::{self, Timings};
use machine::Machine;
use report::{Daemon, Memory, Model, Report, Runs, Start, Temperature};

/// Tokens of the prompt that is read, of the answer that is written, and of the prompt before that. Other programs that
/// measure models take the first two by default.
const PREFILL: u32 = 512;
const DECODE: u32 = 128;
const SHORT: u32 = 16;
/// Tokens of the answer after a start: enough to read all weights that answers need.
const START: u32 = 8;
/// What a start is asked to go on with. What it says does not matter.
const OPENING: &str = "The sky over the sea is blue because";
/// What prompts are cut from, again and again.
const TEXT: &str = include_str!("text.txt");
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// How long the last request may still be counted as running.
const SETTLING: Duration = Duration::from_secs(2);
/// How long the CPUs are watched before anything is asked, and the share of them that is no disturbance.
const WATCHED: Duration = Duration::from_millis(500);
const QUIET: f64 = 0.15;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    state: String,
    model: Option<String>,
    cause: Option<String>,
    waiting: u64,
    running: u64,
    served: u64,
    crashes: u64,
    threads: Option<u64>,
    load_ms: Option<u64>,
    cpu_variant: Option<String>,
    tokens_per_second: Option<f64>,
    version: String,
}

impl Status {
    fn is_quiet(&self) -> bool {
        self.running + self.waiting == 0
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Found {
    id: String,
    file: String,
    owned_by: String,
    variant: String,
    quantization: String,
    size: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InMemory {
    worker: Option<Used>,
    supervisor: Used,
    packing: Option<Packing>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Used {
    anonymous: u64,
    file_backed: u64,
    peak: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Packing {
    how: String,
}

/// A piece of an answer of `/completion`, or an error in its place.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece {
    content: String,
    stop: bool,
    timings: Option<Timings>,
    error: Option<Value>,
}

/// What came of one request: seconds until its first token and until its end, and the daemon's own times.
struct Answer {
    first: f64,
    total: f64,
    timings: Timings,
}

/// A measurement under way.
struct Bench<'a> {
    client: &'a dyn Client,
    args: &'a BenchArgs,
    terminal: &'a Terminal,
    report: Report,
    /// Requests that were sent.
    asked: u64,
}

/// Measures, and says what there is to say.
///
/// # Errors
/// The model cannot be used, others use the daemon, or nothing could be measured within the limit.
pub async fn run(
    client: &dyn Client,
    args: &BenchArgs,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let model = installed(client, &args.model).await?;
    let before = quiet_status(client).await?;
    // Where that is not served, as over D-Bus, nothing is unloaded for nothing.
    promptly(client.memory()).await?;
    if args.drop_caches {
        may_drop_caches()?;
    }
    let mut bench = Bench {
        client,
        args,
        terminal,
        report: Report {
            machine: Machine::here(),
            model,
            prefill: Runs::of(PREFILL),
            decode: Runs::of(DECODE),
            first_token: Runs::of(SHORT),
            temperature: machine::temperature().map(|degrees| Temperature {
                before: degrees,
                most: degrees,
            }),
            ..Report::default()
        },
        asked: 0,
    };
    bench.announce(&before);
    bench.look_around().await;
    bench.measure_within(args.limit).await?;
    bench.look_back(&before).await?;
    let report = bench.report;
    Ok(match (args.json, args.markdown) {
        (true, _) => pretty(
            &serde_json::to_value(&report).map_err(Error::broken)?,
            terminal,
        ),
        (_, true) => terminal.out.clean(&report.markdown()).as_bytes().to_vec(),
        _ => report.view(terminal.out).into_bytes(),
    })
}

/// The model that a name means, if it is on this machine.
async fn installed(client: &dyn Client, name: &str) -> Result<Model, Error> {
    let found: Found = parse(promptly(client.model(name)).await?)?;
    if found.file.is_empty() {
        return Err(Error::Usage(format!(
            "{} is not on this machine, but at {}; `gemmactl models` lists what is installed",
            found.id, found.owned_by
        )));
    }
    Ok(Model {
        id: found.id,
        file: found.file,
        variant: found.variant,
        quantization: found.quantization,
        size: found.size,
    })
}

impl Bench<'_> {
    /// Says what will happen, and how long that takes.
    fn announce(&self, before: &Status) {
        let Model { id, size, .. } = &self.report.model;
        let known = before
            .tokens_per_second
            .filter(|_| before.model.as_ref() == Some(id));
        let time = expected(*size, self.args.runs, known).min(self.args.limit);
        self.terminal.remark(&format!(
            "measuring {id}: about {}, at most {}; the model is unloaded and loaded, and whoever asks meanwhile disturbs",
            show_time(time.as_secs_f64()),
            show_time(self.args.limit.as_secs_f64())
        ));
    }

    /// Who else uses the CPUs.
    async fn look_around(&mut self) {
        let (busy, all) = machine::ticks();
        sleep(WATCHED).await;
        let (busy_then, all_then) = machine::ticks();
        let share =
            busy_then.saturating_sub(busy) as f64 / all_then.saturating_sub(all).max(1) as f64;
        if share > QUIET {
            self.note(format!(
                "disturbed: other programs used {:.0} % of the CPUs before it began",
                share * 100.0
            ));
        }
    }

    async fn measure_within(&mut self, limit: Duration) -> Result<(), Error> {
        if let Ok(done) = timeout(limit, self.measure()).await {
            return done;
        }
        let Report {
            prefill, decode, ..
        } = &self.report;
        if decode.median.or(prefill.median).is_none() {
            return Err(Error::Refused {
                message: format!(
                    "nothing was measured within {limit:?}: give it more time with --limit"
                ),
                field: None,
            });
        }
        let time = show_time(limit.as_secs_f64());
        self.note(format!(
            "ended after {time} (--limit): some runs are missing"
        ));
        Ok(())
    }

    async fn measure(&mut self) -> Result<(), Error> {
        self.starts().await?;
        let prompt = self.prompt().await?;
        for run in 1..=self.args.runs {
            self.tell(&format!("reading {PREFILL} tokens, run {run}"));
            let answer = self.ask(json!(prompt), 1).await?;
            self.report.prefill.push(answer.timings.prompt_per_second);
        }
        for run in 1..=self.args.runs {
            self.tell(&format!("writing {DECODE} tokens, run {run}"));
            let answer = self.ask(json!(prompt[..SHORT as usize]), DECODE).await?;
            self.report.first_token.push(answer.first);
            self.report.decode.push(answer.timings.predicted_per_second);
        }
        Ok(())
    }

    /// Starts the model twice; loads it alone where this user may not unload it.
    async fn starts(&mut self) -> Result<(), Error> {
        match self.client.unload().await {
            Ok(()) => {}
            Err(Error::NotAllowed { .. }) => {
                self.note("starts were not measured: only administrators may unload a model (sudo gemmactl bench)".into());
                return self.start(false).await.map(drop);
            }
            Err(error) => return Err(error),
        }
        if self.args.drop_caches {
            drop_caches()?;
        }
        self.tell("starting the model");
        let start = self.start(self.args.drop_caches).await?;
        self.report.first_start = Some(start);
        let memory: InMemory = parse(promptly(self.client.memory()).await?)?;
        if memory.packing.is_some_and(|packing| packing.how == "new") {
            self.note(
                "the first start packed the weights for this CPU, which later ones do not".into(),
            );
        }
        if !self.args.drop_caches {
            self.note("the page cache was left as it was; `sudo gemmactl bench --drop-caches` measures a start from the disk".into());
        }
        self.tell("starting the model again");
        self.client.unload().await?;
        self.report.warm_start = Some(self.start(false).await?);
        Ok(())
    }

    async fn start(&mut self, caches_dropped: bool) -> Result<Start, Error> {
        let before = machine::bytes_read();
        let answer = self.ask(json!(OPENING), START).await?;
        let bytes_read = machine::bytes_read().saturating_sub(before);
        let status: Status = parse(promptly(self.client.status()).await?)?;
        self.report.daemon = Daemon {
            version: status.version,
            kernels: status.cpu_variant,
            threads: status.threads,
        };
        Ok(Start {
            load: status.load_ms.map(|time| time as f64 / 1e3),
            first_token: answer.first,
            total: answer.total,
            bytes_read,
            caches_dropped,
        })
    }

    /// The tokens of a prompt.
    async fn prompt(&mut self) -> Result<Vec<u32>, Error> {
        let body = json!({
            "model": self.report.model.id, "content": TEXT.repeat(PREFILL as usize * 8 / TEXT.len() + 1), "add_special": true,
        });
        self.asked += 1;
        let answer = self.client.tokenize(&body).await?;
        let tokens: Vec<u32> = parse(answer["tokens"].clone())?;
        let prompt = tokens.get(..PREFILL as usize);
        prompt.map(Into::into).ok_or_else(|| {
            Error::broken(format!("a text of {PREFILL} tokens has {}", tokens.len()))
        })
    }

    /// Has a prompt read and so many tokens written.
    async fn ask(&mut self, prompt: Value, tokens: u32) -> Result<Answer, Error> {
        let body = json!({
            "model": self.report.model.id, "prompt": prompt, "n_predict": tokens, "stream": true, "temperature": 0,
            "cache_prompt": false, "speculation": "off", "ignore_eos": true,
        });
        self.asked += 1;
        let start = Instant::now();
        let seconds = || start.elapsed().as_secs_f64();
        let mut events = self.client.completion(&body).await?;
        let mut first = None;
        while let Some(data) = events.next().await? {
            let piece: Piece = serde_json::from_str(&data).map_err(Error::broken)?;
            if let Some(error) = piece.error {
                return Err(Error::Refused {
                    message: wire::message_of(&error).unwrap_or("a run failed").into(),
                    field: None,
                });
            }
            if piece.stop || !piece.content.is_empty() {
                first.get_or_insert_with(seconds);
            }
            if let (true, Some(timings)) = (piece.stop, piece.timings) {
                self.feel();
                return Ok(Answer {
                    first: first.unwrap_or_default(),
                    total: seconds(),
                    timings,
                });
            }
        }
        Err(Error::broken("the answer has no end"))
    }

    fn feel(&mut self) {
        if let (Some(known), Some(now)) = (&mut self.report.temperature, machine::temperature()) {
            known.most = known.most.max(now);
        }
    }

    /// What is in memory now, and whether anybody else was there.
    async fn look_back(&mut self, before: &Status) -> Result<(), Error> {
        let memory: InMemory = parse(promptly(self.client.memory()).await?)?;
        self.report.memory = memory.worker.map(|worker| Memory {
            peak: worker.peak,
            anonymous: worker.anonymous,
            files: worker.file_backed,
            supervisor: memory.supervisor.anonymous,
        });
        let since = Instant::now();
        let status = loop {
            let status: Status = parse(promptly(self.client.status()).await?)?;
            if status.is_quiet() || since.elapsed() > SETTLING {
                break status;
            }
            sleep(Duration::from_millis(50)).await;
        };
        let others = status.served.saturating_sub(before.served + self.asked);
        let others = others + status.running + status.waiting;
        if others > 0 {
            self.note(format!("disturbed: {others} other requests ran meanwhile"));
        }
        if status.crashes > before.crashes {
            self.note(
                "disturbed: the worker was ended by a failure meanwhile, see `gemmactl status`"
                    .into(),
            );
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        self.report.notes.push(text);
    }

    /// Says what is done now to who watches.
    fn tell(&self, what: &str) {
        if self.terminal.err.is_terminal {
            self.terminal.remark(&format!("{what} …"));
        }
    }
}

/// The status of a daemon that does nothing for others.
async fn quiet_status(client: &dyn Client) -> Result<Status, Error> {
    let status: Status = parse(promptly(client.status()).await?)?;
    let busy = |message| {
        Err(Error::Busy {
            message,
            retry_after: None,
        })
    };
    match &*status.state {
        _ if !status.is_quiet() => busy(format!(
            "others use the daemon ({} running, {} waiting), and both would disturb each other",
            status.running, status.waiting
        )),
        "cold" | "ready" => Ok(status),
        state => busy(format!(
            "the daemon is {}{}",
            state.replace('_', " "),
            status
                .cause
                .map_or(String::new(), |cause| format!(": {cause}"))
        )),
    }
}

/// Roughly how long it takes. `size`: bytes of the model file; `known`: tokens per second that it is known to write.
fn expected(size: u64, runs: u8, known: Option<f64>) -> Duration {
    /// Bytes a second that a small machine gets out of its memory and its disk, and how much faster it reads a prompt
    /// than it writes.
    const MEMORY: f64 = 10e9;
    const DISK: f64 = 200e6;
    const READING: f64 = 3.0;
    let size = size.max(1) as f64;
    let rate = known.unwrap_or(MEMORY / size);
    let run = f64::from(DECODE + SHORT) / rate + f64::from(PREFILL) / (READING * rate);
    let starts = 2.0 * (size / DISK + f64::from(START) / rate);
    Duration::from_secs_f64((f64::from(runs) * run + starts).clamp(1.0, 1e6))
}

/// Whether the page cache can be emptied, before anything is done for it.
fn may_drop_caches() -> Result<(), Error> {
    let opened = std::fs::OpenOptions::new().write(true).open(DROP_CACHES);
    opened.map(drop).map_err(not_dropped)
}

fn drop_caches() -> Result<(), Error> {
    // What is not written yet would stay.
    rustix::fs::sync();
    std::fs::write(DROP_CACHES, "1").map_err(not_dropped)
}

fn not_dropped(cause: std::io::Error) -> Error {
    Error::File {
        path: Path::new(DROP_CACHES).into(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_follows_the_size_and_what_is_known() {
        let minutes = |size, known| expected(size, 3, known).as_secs_f64() / 60.0;
        let e2b = minutes(3_020_000_000, None);
        assert!((3.0..10.0).contains(&e2b), "{e2b}");
        assert!(minutes(13_000_000_000, None) > 3.0 * e2b);
        assert!(minutes(3_020_000_000, Some(8.0)) < e2b);
        assert_eq!(expected(0, 1, None), Duration::from_secs(1));
    }

    #[test]
    fn the_text_is_long_enough_for_a_prompt() {
        // Tokens have fewer than eight letters on average.
        assert!(TEXT.split_whitespace().count() >= 100 && TEXT.is_ascii());
    }
}
