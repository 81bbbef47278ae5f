//! What was measured: as a table for people, as Markdown to send in, as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::machine::{Cpus, Machine};
use crate::ctl::show::{push_line, show_size};
use crate::ctl::table::table;
use crate::ctl::text::Stream;

/// Everything. What was not measured is null, and a note says why.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub daemon: Daemon,
    pub model: Model,
    /// After the model was unloaded: the first time, and again.
    pub first_start: Option<Start>,
    pub warm_start: Option<Start>,
    /// Tokens per second.
    pub prefill: Runs,
    pub decode: Runs,
    /// Seconds until the first token of a short prompt's answer, with the model loaded.
    pub first_token: Runs,
    pub memory: Option<Memory>,
    pub temperature: Option<Temperature>,
    /// What there is to know about these figures.
    pub notes: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Daemon {
    pub version: String,
    /// ggml's kernels for this CPU; `None` where they are built in.
    pub kernels: Option<String>,
    pub threads: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Model {
    pub id: String,
    /// The name of its file.
    pub file: String,
    pub variant: String,
    pub quantization: String,
    /// Bytes of its file.
    pub size: u64,
}

/// From a request for a model that is not loaded.
#[derive(Debug, Serialize)]
pub struct Start {
    /// Seconds until the model was loaded, and until the first token.
    pub load: Option<f64>,
    pub first_token: f64,
    /// Seconds until the end of an answer of a few tokens, and bytes that the disks were read meanwhile, by whomever.
    pub total: f64,
    pub bytes_read: u64,
    /// Whether the page cache was emptied before.
    pub caches_dropped: bool,
}

/// Bytes. The worker's most, files included; the parts that it has at the end, of which the anonymous one cannot be
/// evicted; and the supervisor's own.
#[derive(Debug, Serialize)]
pub struct Memory {
    pub peak: u64,
    pub anonymous: u64,
    pub files: u64,
    pub supervisor: u64,
}

/// Degrees Celsius of the hottest sensor: before, and the most that was seen after a run.
#[derive(Debug, Serialize)]
pub struct Temperature {
    pub before: f64,
    pub most: f64,
}

/// The same measured several times.
#[derive(Debug, Serialize)]
pub struct Runs {
    /// Tokens that each run reads or writes.
    pub tokens: u32,
    pub runs: Vec<f64>,
    pub median: Option<f64>,
}

impl Runs {
    pub fn of(tokens: u32) -> Self {
        Self {
            tokens,
            runs: vec![],
            median: None,
        }
    }

    pub fn push(&mut self, value: f64) {
        self.runs.push(value);
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        self.median = Some(match sorted.len() % 2 {
            1 => sorted[half],
            _ => (sorted[half - 1] + sorted[half]) / 2.0,
        });
    }

    /// A row of the table; none if nothing was measured.
    fn row(&self, name: &str, unit: &str, digits: usize) -> Option<Row> {
        let median = self.median?;
        let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.runs.iter().copied().fold(0.0, f64::max);
        let range = match self.runs.len() {
            1 => String::new(),
            count => format!("{least:.digits$} to {most:.digits$} in {count} runs"),
        };
        let name = name.replace("{}", &self.tokens.to_string());
        Some([name, format!("{median:.digits$}"), unit.into(), range])
    }
}

/// What, how much, of what, and more about it.
type Row = [String; 4];

impl Report {
    /// The table with what it is about before it, and the notes behind it.
    pub fn view(&self, out: Stream) -> String {
        let mut view = String::new();
        for (name, value) in self.facts() {
            push_line(&mut view, name, &out.clean(&value), out);
        }
        let rows = table(["", "", "", ""], self.rows().into_iter(), &[1], out);
        // There is nothing to say above numbers with units.
        view.push_str(rows.split_once('\n').map_or("", |(_, rows)| rows));
        for note in &self.notes {
            let _ = writeln!(view, "{}", out.dim(&out.clean(&format!("note: {note}"))));
        }
        view
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let mut view = String::from("| | |\n|---|---|\n");
        let plain = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
        // Writing to a string does not fail.
        for (name, value) in self.facts() {
            let _ = writeln!(view, "| {name} | {} |", plain(&value));
        }
        view.push_str("\n| measured | | |\n|---|---|---|\n");
        for [name, value, unit, more] in self.rows() {
            let _ = writeln!(view, "| {name} | {value} {unit} | {} |", plain(&more));
        }
        if !self.notes.is_empty() {
            view.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(view, "* {}", plain(note));
        }
        view
    }

    /// What these figures are of.
    fn facts(&self) -> [(&'static str, String); 3] {
        let Machine {
            board,
            cpus,
            architecture,
            kernel,
            ram,
            swap,
            zram,
        } = &self.machine;
        let cpus = cpus
            .iter()
            .map(|Cpus { name, count }| format!("{count} × {name}"));
        let swap = match (*swap, *zram) {
            (0, _) => "no swap".to_owned(),
            (swap, 0) => format!("{} of swap", show_size(swap)),
            (swap, zram) => format!(
                "{} of swap, {} of it zram",
                show_size(swap),
                show_size(zram)
            ),
        };
        let machine = board.iter().cloned().chain(cpus).chain([
            (*architecture).to_owned(),
            format!("{} of memory", show_size(*ram)),
            swap,
        ]);
        let machine = machine.collect::<Vec<_>>().join(", ");
        let Daemon {
            version,
            kernels,
            threads,
        } = &self.daemon;
        let kernels = kernels
            .as_ref()
            .map_or("built in".to_owned(), |name| format!("for {name}"));
        let threads = threads.map_or(String::new(), |count| format!(", {count} threads"));
        let system = format!("Linux {kernel}, gemmad {version}, kernels {kernels}{threads}");
        let Model {
            id,
            file,
            variant,
            quantization,
            size,
        } = &self.model;
        let size = show_size(*size);
        let model = format!("{id}: {variant}, {quantization}, {size}, file {file}");
        [("machine", machine), ("system", system), ("model", model)]
    }

    fn rows(&self) -> Vec<Row> {
        let name = match &self.first_start {
            Some(start) if start.caches_dropped => "start to first token, cold page cache",
            _ => "start to first token, first",
        };
        let starts = [
            (name, &self.first_start),
            ("start to first token, again", &self.warm_start),
        ];
        let starts = starts.into_iter().filter_map(|(name, start)| {
            let start = start.as_ref()?;
            let time = format!("{:.2}", start.first_token);
            Some([name.into(), time, "s".into(), start.more(self.model.size)])
        });
        let runs = [
            self.first_token
                .row("first token, prompt of {} tokens", "s", 2),
            self.prefill
                .row("reading a prompt of {} tokens", "tokens/s", 1),
            self.decode.row("writing {} tokens", "tokens/s", 1),
        ];
        let memory = self.memory.as_ref().map(Memory::row);
        let temperature = self
            .temperature
            .as_ref()
            .map(|Temperature { before, most }| {
                let before = format!("{before:.0} °C before");
                [
                    "temperature".into(),
                    format!("{most:.0}"),
                    "°C".into(),
                    before,
                ]
            });
        let rest = runs.into_iter().chain([memory, temperature]);
        starts.chain(rest.flatten()).collect()
    }
}

impl Start {
    /// `size`: bytes of the model file.
    fn more(&self, size: u64) -> String {
        let loaded = self.load.map(|load| format!("loaded after {load:.2} s; "));
        let read = show_size(self.bytes_read);
        let read = match self.bytes_read < size / 10 {
            true => format!("{read} read from the disk: the page cache had the rest"),
            false => {
                let rate = show_size((self.bytes_read as f64 / self.total) as u64);
                format!(
                    "{read} read from the disk in {:.1} s, at least {rate}/s",
                    self.total
                )
            }
        };
        loaded.unwrap_or_default() + &read
    }
}

impl Memory {
    fn row(&self) -> Row {
        let size = show_size(self.peak);
        let (size, unit) = size.split_once(' ').unwrap_or((&size, ""));
        let more = format!(
            "at most; at the end {} that cannot be evicted and {} of files; supervisor {}",
            show_size(self.anonymous),
            show_size(self.files),
            show_size(self.supervisor)
        );
        ["memory".into(), size.into(), unit.into(), more]
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self::of(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    fn measured() -> Report {
        let mut report = Report {
            machine: Machine {
                board: Some("Board 5".into()),
                cpus: vec![Cpus {
                    name: "Cortex-A76".into(),
                    count: 4,
                }],
                architecture: "aarch64",
                kernel: "6.12.0".into(),
                ram: 8 << 30,
                swap: 2 << 30,
                zram: 1 << 30,
            },
            daemon: Daemon {
                version: "9.9".into(),
                kernels: Some("armv8.2_2".into()),
                threads: Some(4),
            },
            model: Model {
                id: "m".into(),
                file: "M|x.gguf".into(),
                variant: "gemma-4-e2b".into(),
                quantization: "Q4_0".into(),
                size: 3 << 30,
            },
            first_start: Some(Start {
                load: Some(3.2),
                first_token: 6.41,
                total: 8.0,
                bytes_read: 2 << 30,
                caches_dropped: true,
            }),
            warm_start: Some(Start {
                load: Some(0.5),
                first_token: 1.84,
                total: 2.0,
                bytes_read: 3 << 10,
                caches_dropped: false,
            }),
            prefill: Runs::of(512),
            decode: Runs::of(128),
            first_token: Runs::of(16),
            memory: Some(Memory {
                peak: 1467 << 20,
                anonymous: 126 << 20,
                files: 1300 << 20,
                supervisor: 900 << 10,
            }),
            temperature: Some(Temperature {
                before: 48.2,
                most: 71.0,
            }),
            notes: vec!["the fan was off".into()],
        };
        for rate in [21.0, 20.0, 24.0] {
            report.prefill.push(rate);
        }
        report.decode.push(7.9);
        report
    }

    #[test]
    fn a_table_for_people() {
        let expected = "\
machine   Board 5, 4 × Cortex-A76, aarch64, 8.0 GiB of memory, 2.0 GiB of swap, 1.0 GiB of it zram
system    Linux 6.12.0, gemmad 9.9, kernels for armv8.2_2, 4 threads
model     m: gemma-4-e2b, Q4_0, 3.0 GiB, file M|x.gguf
start to first token, cold page cache  6.41  s         loaded after 3.20 s; 2.0 GiB read from the disk in 8.0 s, at least 256.0 MiB/s
start to first token, again            1.84  s         loaded after 0.50 s; 3 KiB read from the disk: the page cache had the rest
reading a prompt of 512 tokens         21.0  tokens/s  20.0 to 24.0 in 3 runs
writing 128 tokens                      7.9  tokens/s
memory                                  1.4  GiB       at most; at the end 126.0 MiB that cannot be evicted and 1.3 GiB of files; supervisor 900 KiB
temperature                              71  °C        48 °C before
note: the fan was off
";
        assert_eq!(measured().view(PIPE), expected);
    }

    #[test]
    fn markdown_to_send_in() {
        let text = measured().markdown();
        assert!(
            text.contains("| model | m: gemma-4-e2b, Q4_0, 3.0 GiB, file M\\|x.gguf |\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "| reading a prompt of 512 tokens | 21.0 tokens/s | 20.0 to 24.0 in 3 runs |\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("\n\n* the fan was off\n"), "{text}");
    }

    #[test]
    fn medians() {
        let mut runs = Runs::of(1);
        assert_eq!(runs.median, None);
        for (value, median) in [(4.0, 4.0), (1.0, 2.5), (3.0, 3.0)] {
            runs.push(value);
            assert_eq!(runs.median, Some(median));
        }
    }
}
