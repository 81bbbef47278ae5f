//! A line for each request: to the journal, or to a file of JSON lines, which is rotated. A disk that hangs holds up nobody: what does
//! not fit into its queue is left out, and the log says how many lines that were.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::Serialize;

use crate::backend::Entry;
use crate::chat::timestamp::rfc3339;
use crate::config::{Audit, AuditLog};

/// Lines that wait for the disk.
const AHEAD: usize = 1024;
/// How long the end of the daemon waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the lines go.
#[derive(Debug)]
pub enum Log {
    Nowhere,
    Journal,
    File(Mutex<Queue>),
}

/// What a thread writes.
#[derive(Debug)]
pub struct Queue {
    /// `None` when it is closed.
    lines: Option<SyncSender<String>>,
    /// Says, by its end, that everything is written.
    done: mpsc::Receiver<()>,
    left_out: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    model: Option<&'a str>,
    backend: &'a str,
    prompt_tokens: u32,
    completion_tokens: u32,
    took_ms: u64,
    outcome: &'a str,
    /// Lines before this one that are missing.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Log {
    /// # Errors
    ///
    /// The file cannot be written: a sentence.
    pub fn open(config: &Audit) -> Result<Self, String> {
        let path = match &config.log {
            AuditLog::None => return Ok(Self::Nowhere),
            AuditLog::Journal => return Ok(Self::Journal),
            AuditLog::File(path) => path.clone(),
        };
        let failed = |error: io::Error| {
            format!(
                "the log of requests cannot be written: {}: {error} (`log` in gemmad.toml, under [audit])",
                path.display()
            )
        };
        let mut file =
            Rotated::open(path.clone(), config.log_size, config.log_files).map_err(failed)?;
        let (lines, waiting) = mpsc::sync_channel::<String>(AHEAD);
        let (end, done) = mpsc::channel::<()>();
        let work = move || {
            let _end = end;
            let mut failing = false;
            for line in waiting {
                match file.write(&line) {
                    Ok(()) => failing = false,
                    // Once for each spell.
                    Err(error) if !failing => {
                        failing = true;
                        tracing::error!(file = %file.path.display(), %error, "the log of requests cannot be written");
                    }
                    Err(_) => {}
                }
            }
        };
        thread::Builder::new()
            .name("gemmad-audit".to_owned())
            .spawn(work)
            .map_err(failed)?;
        Ok(Self::File(Mutex::new(Queue {
            lines: Some(lines),
            done,
            left_out: 0,
        })))
    }

    /// Writes of one request.
    pub fn write(&self, entry: &Entry) {
        let backend = entry.upstream.as_deref().unwrap_or("local");
        let took_ms = entry.took.as_millis() as u64;
        match self {
            Self::Nowhere => {}
            // At any level of the log: it was asked for.
            Self::Journal => tracing::info!(
                target: crate::config::AUDIT_TARGET,
                principal = %entry.owner,
                model = entry.model,
                backend,
                prompt_tokens = entry.prompt_tokens,
                completion_tokens = entry.completion_tokens,
                took_ms,
                outcome = entry.outcome.word(),
                "request"
            ),
            Self::File(queue) => {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                let line = Line {
                    time: rfc3339(SystemTime::now()),
                    principal: entry.owner.to_string(),
                    uid: entry.owner.uid(),
                    model: entry.model.as_deref(),
                    backend,
                    prompt_tokens: entry.prompt_tokens,
                    completion_tokens: entry.completion_tokens,
                    took_ms,
                    outcome: entry.outcome.word(),
                    left_out: queue.left_out,
                };
                // Plain text and numbers always can be written.
                let line = serde_json::to_string(&line).unwrap_or_default() + "\n";
                let sent = queue.lines.as_ref().map(|lines| lines.try_send(line));
                queue.left_out = match sent {
                    Some(Ok(())) => 0,
                    _ => queue.left_out.saturating_add(1),
                };
            }
        }
    }

    /// Waits a moment until everything is on its way to the disk.
    pub fn close(&self) {
        if let Self::File(queue) = self {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.lines = None;
            if queue.done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                tracing::error!("the log of requests is not whole: its disk does not answer");
            }
        }
    }
}

/// A file, and those that it was before: `audit.log`, `audit.log.1` and so on.
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
    /// Older ones that are kept.
    kept: u32,
}

impl Rotated {
    fn open(path: PathBuf, most: u64, kept: u32) -> io::Result<Self> {
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            bytes,
            most,
            kept,
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.most {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (0..self.kept).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.kept == 0 {
            fs::remove_file(&self.path)?;
        }
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

/// Nobody else can read it, and a link is not followed.
fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Outcome;
    use crate::chat::PrincipalId;

    #[test]
    fn lines_go_to_a_file_that_is_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let config = Audit {
            log: AuditLog::File(path.clone()),
            log_size: 1000,
            log_files: 2,
            ..Audit::default()
        };
        let log = Log::open(&config).unwrap();
        let entry = Entry {
            owner: PrincipalId::Token { id: 7, owner: 1000 },
            model: Some("a\n\"b\"".into()),
            upstream: None,
            prompt_tokens: 3,
            completion_tokens: 4,
            took: Duration::from_millis(1500),
            outcome: Outcome::Failed("queue_full"),
        };
        for _ in 0..40 {
            log.write(&entry);
        }
        log.close();
        log.write(&entry);
        let name = |number: &str| folder.path().join(format!("audit.log{number}"));
        assert!(!name(".3").exists());
        for number in ["", ".1", ".2"] {
            let text = fs::read_to_string(name(number)).unwrap();
            assert!(text.len() <= 1000 && text.ends_with('\n'), "{text}");
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["uid"], 1000);
                assert_eq!(line["principal"], "1000 (token 0000000000000007)");
                assert_eq!(
                    (&line["took_ms"], &line["outcome"], &line["backend"]),
                    (&1500.into(), &"queue_full".into(), &"local".into())
                );
            }
        }
        let elsewhere = Audit {
            log: AuditLog::File("/nowhere/audit.log".into()),
            ..config
        };
        let error = Log::open(&elsewhere).unwrap_err();
        assert!(error.contains("/nowhere/audit.log"), "{error}");
    }
}
