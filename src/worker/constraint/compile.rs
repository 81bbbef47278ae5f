//! The compiler thread: from what a request is held to, to grammars. Each is compiled on a thread
//! of its own, which is given up when it takes too long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json as value};

use super::keywords::{self, Fault};
use super::prototype::{Grammars, Prototype};
use super::{Constraints, call, json};
use crate::chat::{ChatError, ChatRequest, Constraint, Format, Tool, ToolChoice};
use crate::ipc::ServeEvent;
use crate::worker::inbox::Turn;
use crate::worker::link::Writer;
use crate::worker::llama::Token;
use crate::worker::prepare::Prepared;
use crate::worker::vocab::Vocab;

/// Time for one grammar.
const LONGEST: Duration = Duration::from_secs(3);
/// How often a cancelled request is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(20);
/// Grammars that took too long and are still being worked on.
const MAX_STRAYS: usize = 2;
/// Grammars that are kept, and bytes of what they were made from.
const KEPT: usize = 32;
const KEPT_BYTES: usize = 1 << 20;
/// Requests that wait for their grammars.
const MAX_WAITING: usize = 64;
/// For grammars that nest deeply; only what is used takes memory.
const STACK: usize = 64 << 20;

/// A request whose grammars are not ready.
pub struct Waiting {
    pub prepared: Box<Prepared>,
    pub wanted: Wanted,
}

/// What a request is held to, as it came.
#[derive(Clone, Default)]
pub struct Wanted {
    format: Option<Format>,
    functions: Vec<Function>,
}

/// A function that may be called.
#[derive(Clone, PartialEq, Eq)]
struct Function {
    /// Its place in the request.
    place: u32,
    name: String,
    parameters: Option<String>,
}

/// What one grammar is made from.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    Format(Format),
    Call(Vec<Function>),
}

/// Makes grammars for one vocabulary.
pub struct Compiler {
    vocab: Vocab,
    suppressed: Vec<Token>,
    /// Made with the first request that needs it.
    grammars: OnceLock<Result<Grammars, String>>,
    /// The one that was used last is the last.
    kept: Mutex<VecDeque<(Source, Arc<Prototype>)>>,
    strays: AtomicUsize,
}

impl Wanted {
    /// `None` if the request is held to nothing.
    pub fn of(request: &ChatRequest) -> Option<Self> {
        let format = (request.format != Format::Text).then(|| request.format.clone());
        let mut functions = vec![];
        for (
            place,
            Tool {
                name, parameters, ..
            },
        ) in request.tools.iter().enumerate()
        {
            if !matches!(&request.tool_choice, ToolChoice::Named(chosen) if chosen != name) {
                functions.push(Function {
                    place: place as u32,
                    name: name.clone(),
                    parameters: parameters.clone(),
                });
            }
        }
        (format.is_some() || !functions.is_empty()).then_some(Self { format, functions })
    }
}

impl Compiler {
    pub fn new(vocab: Vocab, suppressed: Vec<Token>) -> Self {
        Self {
            vocab,
            suppressed,
            grammars: OnceLock::new(),
            kept: Mutex::default(),
            strays: AtomicUsize::new(0),
        }
    }

    /// Starts the thread; what it is sent comes out at `ready` with its grammars.
    pub fn spawn(self, ready: SyncSender<Turn>, writer: Writer) -> Desk {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        thread::spawn(move || Arc::new(self).run(&waiting, &ready, &writer));
        Desk { queue }
    }

    fn run(
        self: Arc<Self>,
        waiting: &Receiver<Waiting>,
        ready: &SyncSender<Turn>,
        writer: &Writer,
    ) {
        for Waiting {
            mut prepared,
            wanted,
        } in waiting
        {
            let outcome = match self.constraints(&wanted, &prepared) {
                Some(Ok(constraints)) => {
                    prepared.constraints = constraints;
                    ready.send(Turn::Ready(prepared)).map_err(drop)
                }
                Some(Err(error)) => writer
                    .send(&ServeEvent::Failed {
                        id: prepared.id,
                        error,
                    })
                    .map_err(drop),
                // Nobody waits for it any more.
                None => Ok(()),
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    fn constraints(
        self: &Arc<Self>,
        wanted: &Wanted,
        prepared: &Prepared,
    ) -> Option<Result<Constraints, ChatError>> {
        let mut constraints = Constraints::default();
        if let Some(format) = &wanted.format {
            match self.prototype(Source::Format(format.clone()), prepared)? {
                Ok(prototype) => constraints.format = Some(prototype),
                Err(error) => return Some(Err(error)),
            }
        }
        if !wanted.functions.is_empty() {
            match self.prototype(Source::Call(wanted.functions.clone()), prepared)? {
                Ok(prototype) => constraints.call = Some(prototype),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(constraints))
    }

    /// The grammar, from those that are kept or anew; `None` if the request was cancelled
    /// meanwhile.
    fn prototype(
        self: &Arc<Self>,
        source: Source,
        prepared: &Prepared,
    ) -> Option<Result<Arc<Prototype>, ChatError>> {
        if let Some(kept) = self.recall(&source) {
            return Some(Ok(kept));
        }
        let part = match &source {
            Source::Format(_) => Constraint::Format,
            Source::Call(functions) => {
                Constraint::Tool(functions.first().map_or(0, |function| function.place))
            }
        };
        let refuse = |reason: String| {
            Some(Err(ChatError::Constraint {
                part,
                path: String::new(),
                reason,
            }))
        };
        if self.strays.load(Ordering::Relaxed) >= MAX_STRAYS {
            return refuse(
                "has to wait: others that take too long are being looked at; try again".into(),
            );
        }
        let (done, result) = sync_channel(1);
        let (compiler, wanted) = (self.clone(), source.clone());
        let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ = done.send(compiler.compile(&wanted));
        });
        if let Err(error) = worker {
            return Some(Err(ChatError::Inference {
                reason: format!("no thread for a grammar: {error}"),
            }));
        }
        let started = Instant::now();
        loop {
            match result.recv_timeout(GLANCE) {
                Ok(Ok(prototype)) => {
                    let prototype = Arc::new(prototype);
                    self.keep(source, prototype.clone());
                    return Some(Ok(prototype));
                }
                Ok(Err(error)) => return Some(Err(error)),
                Err(RecvTimeoutError::Disconnected) => {
                    return refuse("cannot be used: llguidance gave up".into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let ready = self.grammars.get().is_some();
                    let late = ready && started.elapsed() > LONGEST;
                    if late || prepared.cancelled() {
                        self.abandon(result);
                        return if late {
                            refuse(format!(
                                "takes more than {} seconds to be made a grammar of",
                                LONGEST.as_secs()
                            ))
                        } else {
                            None
                        };
                    }
                }
            }
        }
    }

    /// Counts a thread that goes on for nobody, until it ends.
    fn abandon(self: &Arc<Self>, result: Receiver<Result<Prototype, ChatError>>) {
        let compiler = self.clone();
        compiler.strays.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            let _ = result.recv();
            compiler.strays.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn recall(&self, source: &Source) -> Option<Arc<Prototype>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(other, _)| other == source)?;
        let entry = kept.remove(place)?;
        let prototype = entry.1.clone();
        kept.push_back(entry);
        Some(prototype)
    }

    fn keep(&self, source: Source, prototype: Arc<Prototype>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((source, prototype));
        while kept.len() > KEPT
            || (kept.len() > 1
                && kept.iter().map(|(source, _)| source.bytes()).sum::<usize>() > KEPT_BYTES)
        {
            kept.pop_front();
        }
    }

    fn grammars(&self) -> Result<&Grammars, ChatError> {
        let made = self
            .grammars
            .get_or_init(|| Grammars::new(self.vocab, &self.suppressed));
        made.as_ref().map_err(|reason| ChatError::Inference {
            reason: reason.clone(),
        })
    }

    /// The grammar of an answer's text.
    #[cfg(test)]
    pub fn format(&self, format: &Format) -> Result<Prototype, ChatError> {
        self.compile(&Source::Format(format.clone()))
    }

    /// The grammar of a call of one of `tools`.
    #[cfg(test)]
    pub fn call(&self, tools: &[Tool]) -> Result<Prototype, ChatError> {
        let mut request = ChatRequest::new(vec![]);
        request.tools = tools.to_vec();
        self.compile(&Source::Call(
            Wanted::of(&request).unwrap_or_default().functions,
        ))
    }

    fn compile(&self, source: &Source) -> Result<Prototype, ChatError> {
        let grammars = self.grammars()?;
        match source {
            Source::Format(format) => {
                let refuse = |fault: Fault| ChatError::Constraint {
                    part: Constraint::Format,
                    path: fault.path,
                    reason: fault.reason,
                };
                let grammar = format_grammar(format).map_err(refuse)?;
                grammars
                    .compile(grammar, true)
                    .map_err(|reason| refuse(Fault::new("", reason)))
            }
            Source::Call(functions) => {
                let refuse = |(i, fault): (usize, Fault)| {
                    let part =
                        Constraint::Tool(functions.get(i).map_or(0, |function| function.place));
                    ChatError::Constraint {
                        part,
                        path: fault.path,
                        reason: fault.reason,
                    }
                };
                let schemas: Vec<Value> = functions
                    .iter()
                    .map(|function| parameters(function.parameters.as_deref()))
                    .collect();
                for (i, schema) in schemas.iter().enumerate() {
                    keywords::check(schema).map_err(|fault| refuse((i, fault)))?;
                    // Knows what else is wrong with a schema, and which options of a `oneOf`
                    // exclude each other.
                    let probe =
                        grammars.compile(TopLevelGrammar::from_json_schema(schema.clone()), true);
                    probe.map_err(|reason| refuse((i, Fault::new("", reason))))?;
                }
                let named = functions
                    .iter()
                    .zip(&schemas)
                    .map(|(function, schema)| (function.name.as_str(), schema));
                let grammar = call::grammar(named).map_err(refuse)?;
                grammars
                    .compile(TopLevelGrammar::from_lark(grammar), false)
                    .map_err(|reason| refuse((0, Fault::new("", reason))))
            }
        }
    }
}

/// Where requests wait for their grammars.
pub struct Desk {
    queue: SyncSender<Waiting>,
}

impl Desk {
    /// Hands a request on; it comes out ready, or its failure is told.
    pub fn hand(&self, waiting: Waiting) -> Result<(), ChatError> {
        self.queue.try_send(waiting).map_err(|error| match error {
            TrySendError::Full(_) => ChatError::Inference {
                reason: format!("more than {MAX_WAITING} requests wait for their grammars"),
            },
            TrySendError::Disconnected(_) => ChatError::Inference {
                reason: "no grammars are made any more".into(),
            },
        })
    }
}

impl Source {
    fn bytes(&self) -> usize {
        match self {
            Self::Format(
                Format::JsonSchema(text) | Format::Regex(text) | Format::Grammar(text),
            ) => text.len(),
            Self::Format(Format::Text | Format::JsonObject) => 0,
            Self::Call(functions) => functions
                .iter()
                .map(|f| f.name.len() + f.parameters.as_ref().map_or(0, String::len))
                .sum(),
        }
    }
}

/// A function without a schema takes no arguments.
fn parameters(schema: Option<&str>) -> Value {
    let none = || value!({"type": "object", "additionalProperties": false});
    schema
        .and_then(|schema| serde_json::from_str(schema).ok())
        .unwrap_or_else(none)
}

fn format_grammar(format: &Format) -> Result<TopLevelGrammar, Fault> {
    let schema = match format {
        Format::Regex(regex) => return Ok(TopLevelGrammar::from_regex(regex)),
        Format::Grammar(grammar) => return Ok(TopLevelGrammar::from_lark(grammar.clone())),
        Format::Text | Format::JsonObject => value!({"type": "object"}),
        Format::JsonSchema(schema) => serde_json::from_str(schema)
            .map_err(|error| Fault::new("", format!("cannot be read: {error}")))?,
    };
    keywords::check(&schema)?;
    Ok(TopLevelGrammar::from_json_schema(json::tamed(&schema)))
}
