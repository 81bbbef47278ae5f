//! Brings one streamed answer to the user.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use super::client::{Client, Reply};
use super::error::Error;
use super::show::{show_size, show_time};
use super::text::{Printer, Terminal};
use super::wire::{self, CallPiece, Phase, Piece, Progress, Timings};

/// After how long, and how often then, a terminal is told that the answer has not begun.
const WAITING: Duration = Duration::from_secs(1);

/// How an answer ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Why: `stop`, `length`, …
    finish: Option<String>,
    /// The model said the same again and again.
    repeats: bool,
    timings: Option<Timings>,
    /// From the request to the first token, of a thought or the answer, and to the end.
    first: Option<Duration>,
    total: Duration,
}

/// A question, and where its answer goes.
pub struct Question<'a, O, E> {
    pub client: &'a dyn Client,
    /// The request.
    pub body: &'a Value,
    /// Whether thoughts are shown.
    pub thoughts: bool,
    pub printer: &'a mut Printer<O, E>,
    /// Gathers what is said, for those who stop it midway.
    pub said: &'a mut String,
}

impl<O: Write, E: Write> Question<'_, O, E> {
    /// Prints the answer as it comes.
    ///
    /// # Errors
    /// Whatever keeps the answer from its end; the text up to there has been printed.
    pub async fn stream(mut self) -> Result<Ended, Error> {
        let ended = self.follow().await;
        self.printer.stop_waiting().map_err(Error::from_output)?;
        ended
    }

    async fn follow(&mut self) -> Result<Ended, Error> {
        let mut waiting = Waiting::new();
        let start = waiting.since;
        let asked = self.client.stream(self.body);
        let mut events = told_of(asked, &mut waiting, self.printer).await?;
        let mut ended = Ended::default();
        loop {
            let next = match ended.first {
                Some(_) => events.next().await?,
                None => told_of(events.next(), &mut waiting, self.printer).await?,
            };
            let Some(data) = next else { break };
            if data == "[DONE]" {
                ended.total = start.elapsed();
                return Ok(ended);
            }
            let piece = wire::piece(&data)?;
            if let Some(progress) = piece.progress {
                waiting.progress(progress, self.printer)?;
            }
            if piece.has_token() {
                ended.first.get_or_insert_with(|| start.elapsed());
            }
            ended.finish = piece.finish.clone().or(ended.finish);
            ended.repeats |= piece.repeats;
            ended.timings = piece.timings.or(ended.timings);
            self.show(piece).map_err(Error::from_output)?;
        }
        Err(Error::Broken {
            cause: "the answer has no end".into(),
        })
    }

    /// Prints a piece and keeps what it says.
    fn show(&mut self, piece: Piece) -> io::Result<()> {
        if let Some(thought) = piece
            .thought
            .filter(|thought| self.thoughts && !thought.is_empty())
        {
            self.printer.thought(&thought)?;
        }
        if let Some(text) = piece.text.filter(|text| !text.is_empty()) {
            self.say(&text)?;
        }
        for CallPiece { name, arguments } in piece.calls {
            let begin = if self.said.is_empty() { "" } else { "\n" };
            let name = name.map(|name| format!("{begin}{name} "));
            self.say(&(name.unwrap_or_default() + &arguments))?;
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.said.push_str(text);
        self.printer.text(text)
    }
}

/// Waits for `work`; a terminal is told of that.
async fn told_of<T, O: Write, E: Write>(
    mut work: Reply<'_, T>,
    waiting: &mut Waiting,
    printer: &mut Printer<O, E>,
) -> Result<T, Error> {
    loop {
        match timeout(WAITING, &mut work).await {
            Ok(done) => return done,
            Err(_) => waiting.tell(printer)?,
        }
    }
}

/// An answer that has not begun.
struct Waiting {
    since: Instant,
    /// What the daemon has said of it last, and when.
    progress: Option<(Progress, Instant)>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            progress: None,
        }
    }

    fn progress<O: Write, E: Write>(
        &mut self,
        progress: Progress,
        printer: &mut Printer<O, E>,
    ) -> Result<(), Error> {
        self.progress = Some((progress, Instant::now()));
        // What is over in a moment would only flicker.
        match self.since.elapsed() >= WAITING {
            true => self.tell(printer),
            false => Ok(()),
        }
    }

    fn tell<O: Write, E: Write>(&self, printer: &mut Printer<O, E>) -> Result<(), Error> {
        let progress = self.progress.map(|(progress, at)| Progress {
            seconds_left: progress
                .seconds_left
                .map(|left| left - at.elapsed().as_secs_f64()),
            ..progress
        });
        let said = waiting_line(self.since.elapsed(), progress);
        printer.waits(&said).map_err(Error::from_output)
    }
}

/// `reading the prompt, 600 of 1000 tokens, about 4 s left`
fn waiting_line(since: Duration, progress: Option<Progress>) -> String {
    let seconds = since.as_secs();
    let Some(Progress {
        phase,
        seconds_left,
    }) = progress
    else {
        return format!("waiting for the first word, {seconds} s");
    };
    let what = match phase {
        Phase::Fetching { received, bytes } => match bytes {
            Some(bytes) => format!(
                "fetching the model, {} of {}",
                show_size(received),
                show_size(bytes)
            ),
            None => format!("fetching the model, {}", show_size(received)),
        },
        Phase::Queued { position: 1 } => "next in the queue".to_owned(),
        Phase::Queued { position } => format!("number {position} in the queue"),
        Phase::Loading { share: Some(share) } => {
            format!("loading the model, {:.0} %", share * 100.0)
        }
        Phase::Loading { share: None } => "loading the model".to_owned(),
        Phase::Reading {
            tokens_read,
            tokens_to_read,
        } => format!("reading the prompt, {tokens_read} of {tokens_to_read} tokens"),
        Phase::Unknown => "waiting for the first word".to_owned(),
    };
    match seconds_left.filter(|left| *left >= 1.0) {
        Some(left) => format!("{what}, {seconds} s, about {} left", show_time(left)),
        None => format!("{what}, {seconds} s"),
    }
}

impl Ended {
    /// Says what is to be said of the answer beside it: that it was cut, and how fast it was.
    pub fn remark(&self, verbose: bool, terminal: &Terminal) {
        if self.repeats {
            terminal.remark("(cut: the model was repeating itself)");
        } else if self.finish.as_deref() == Some("length") {
            terminal.remark("(cut: the limit of tokens or the context is reached)");
        }
        if verbose {
            terminal.remark(&self.rates());
        }
    }

    /// `prompt 34 tokens (12 of them cached), 0.35 s, 62.9 tokens/s; answer 120 tokens, …`
    fn rates(&self) -> String {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let mut said = vec![];
        if let Some(timings) = self.timings {
            let cached = match timings.cache_n {
                0 => String::new(),
                cached => format!(" ({cached} of them cached)"),
            };
            said.push(format!(
                "prompt {} tokens{cached}, {:.2} s, {:.1} tokens/s",
                timings.cache_n + timings.prompt_n,
                timings.prompt_ms / 1e3,
                timings.prompt_per_second
            ));
            said.push(format!(
                "answer {} tokens, {:.2} s, {:.1} tokens/s",
                timings.predicted_n,
                timings.predicted_ms / 1e3,
                timings.predicted_per_second
            ));
        }
        if let Some(first) = self.first {
            said.push(format!("first token after {}", seconds(first)));
        }
        said.push(format!("{} in all", seconds(self.total)));
        said.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_waits_for() {
        let since = Duration::from_millis(3200);
        let line = |phase, seconds_left| {
            waiting_line(
                since,
                Some(Progress {
                    phase,
                    seconds_left,
                }),
            )
        };
        assert_eq!(waiting_line(since, None), "waiting for the first word, 3 s");
        for (phase, left, said) in [
            (
                Phase::Fetching {
                    received: 3 << 20,
                    bytes: Some(2 << 30),
                },
                None,
                "fetching the model, 3.0 MiB of 2.0 GiB, 3 s",
            ),
            (
                Phase::Queued { position: 1 },
                None,
                "next in the queue, 3 s",
            ),
            (
                Phase::Queued { position: 4 },
                None,
                "number 4 in the queue, 3 s",
            ),
            (
                Phase::Loading { share: Some(0.428) },
                Some(90.4),
                "loading the model, 43 %, 3 s, about 90 s left",
            ),
            (
                Phase::Loading { share: None },
                None,
                "loading the model, 3 s",
            ),
            (
                Phase::Reading {
                    tokens_read: 600,
                    tokens_to_read: 1000,
                },
                Some(0.4),
                "reading the prompt, 600 of 1000 tokens, 3 s",
            ),
            (Phase::Unknown, None, "waiting for the first word, 3 s"),
        ] {
            assert_eq!(line(phase, left), said);
        }
    }

    #[test]
    fn rates_of_an_answer() {
        let ended = Ended {
            timings: Some(Timings {
                cache_n: 12,
                prompt_n: 22,
                prompt_ms: 350.0,
                prompt_per_second: 62.86,
                predicted_n: 120,
                predicted_ms: 13_222.0,
                predicted_per_second: 9.0,
            }),
            first: Some(Duration::from_millis(400)),
            total: Duration::from_millis(13_640),
            ..Ended::default()
        };
        assert_eq!(
            ended.rates(),
            "prompt 34 tokens (12 of them cached), 0.35 s, 62.9 tokens/s; answer 120 tokens, 13.22 s, 9.0 tokens/s; \
             first token after 0.40 s; 13.64 s in all"
        );
        assert_eq!(Ended::default().rates(), "0.00 s in all");
    }
}
