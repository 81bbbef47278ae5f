//! From what a request is held to, to grammars. Each is compiled on a thread of its own, which is
//! abandoned when it takes too long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json as value};

use super::grammar::{CompiledGrammar, GrammarFactory};
use super::keywords::{self, Fault};
use super::{Constraints, call, json};
use crate::chat::{ChatError, ChatRequest, Constraint, Format, Tool, ToolChoice};
use crate::worker::llama::Token;
use crate::worker::vocab::Vocab;

/// Time for one grammar.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often it is looked meanwhile whether the request was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// Threads that were abandoned and still run.
const MAX_ABANDONED: usize = 2;
/// Grammars that are kept, and bytes of what they were made from.
const MAX_CACHED: usize = 32;
const MAX_CACHED_BYTES: usize = 1 << 20;
/// Bytes of stack for grammars that nest deeply; only what is used takes memory.
const STACK: usize = 64 << 20;

/// What a request is held to, as it came.
#[derive(Clone, Default)]
pub struct GrammarSources {
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
pub struct GrammarCompiler {
    vocab: Vocab,
    suppressed: Vec<Token>,
    /// Made with the first request that needs it.
    factory: OnceLock<Result<GrammarFactory, String>>,
    /// The one that was used last is the last.
    kept: Mutex<VecDeque<(Source, Arc<CompiledGrammar>)>>,
    abandoned: AtomicUsize,
}

impl GrammarSources {
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

impl GrammarCompiler {
    pub fn new(vocab: Vocab, suppressed: Vec<Token>) -> Self {
        Self {
            vocab,
            suppressed,
            factory: OnceLock::new(),
            kept: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        }
    }

    /// The grammars of one request; `None` if it was cancelled meanwhile.
    pub fn constraints(
        self: &Arc<Self>,
        sources: &GrammarSources,
        cancelled: &AtomicBool,
    ) -> Option<Result<Constraints, ChatError>> {
        let mut constraints = Constraints::default();
        if let Some(format) = &sources.format {
            match self.grammar(Source::Format(format.clone()), cancelled)? {
                Ok(grammar) => constraints.format = Some(grammar),
                Err(error) => return Some(Err(error)),
            }
        }
        if !sources.functions.is_empty() {
            match self.grammar(Source::Call(sources.functions.clone()), cancelled)? {
                Ok(grammar) => constraints.call = Some(grammar),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(constraints))
    }

    /// The grammar, from those that are kept or anew; `None` if the request was cancelled
    /// meanwhile.
    fn grammar(
        self: &Arc<Self>,
        source: Source,
        cancelled: &AtomicBool,
    ) -> Option<Result<Arc<CompiledGrammar>, ChatError>> {
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
        if self.abandoned.load(Ordering::Relaxed) >= MAX_ABANDONED {
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
            match result.recv_timeout(CANCEL_POLL) {
                Ok(Ok(grammar)) => {
                    let grammar = Arc::new(grammar);
                    self.keep(source, grammar.clone());
                    return Some(Ok(grammar));
                }
                Ok(Err(error)) => return Some(Err(error)),
                Err(RecvTimeoutError::Disconnected) => {
                    return refuse("cannot be used: llguidance gave up".into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let ready = self.factory.get().is_some();
                    let late = ready && started.elapsed() > TIMEOUT;
                    if late || cancelled.load(Ordering::Relaxed) {
                        self.abandon(result);
                        return if late {
                            refuse(format!(
                                "takes more than {} seconds to be made a grammar of",
                                TIMEOUT.as_secs()
                            ))
                        } else {
                            None
                        };
                    }
                }
            }
        }
    }

    /// Counts a thread whose result is not needed any more, until it ends.
    fn abandon(self: &Arc<Self>, result: Receiver<Result<CompiledGrammar, ChatError>>) {
        let compiler = self.clone();
        compiler.abandoned.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            let _ = result.recv();
            compiler.abandoned.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn recall(&self, source: &Source) -> Option<Arc<CompiledGrammar>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(other, _)| other == source)?;
        let entry = kept.remove(place)?;
        let grammar = entry.1.clone();
        kept.push_back(entry);
        Some(grammar)
    }

    fn keep(&self, source: Source, grammar: Arc<CompiledGrammar>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((source, grammar));
        while kept.len() > MAX_CACHED
            || (kept.len() > 1
                && kept.iter().map(|(source, _)| source.bytes()).sum::<usize>() > MAX_CACHED_BYTES)
        {
            kept.pop_front();
        }
    }

    fn factory(&self) -> Result<&GrammarFactory, ChatError> {
        let made = self
            .factory
            .get_or_init(|| GrammarFactory::new(self.vocab, &self.suppressed));
        made.as_ref().map_err(|reason| ChatError::Inference {
            reason: reason.clone(),
        })
    }

    /// The grammar of an answer's text.
    #[cfg(test)]
    pub fn format(&self, format: &Format) -> Result<CompiledGrammar, ChatError> {
        self.compile(&Source::Format(format.clone()))
    }

    /// The grammar of a call of one of `tools`.
    #[cfg(test)]
    pub fn call(&self, tools: &[Tool]) -> Result<CompiledGrammar, ChatError> {
        let mut request = ChatRequest::new(vec![]);
        request.tools = tools.to_vec();
        self.compile(&Source::Call(
            GrammarSources::of(&request).unwrap_or_default().functions,
        ))
    }

    fn compile(&self, source: &Source) -> Result<CompiledGrammar, ChatError> {
        let factory = self.factory()?;
        match source {
            Source::Format(format) => {
                let refuse = |fault: Fault| ChatError::Constraint {
                    part: Constraint::Format,
                    path: fault.path,
                    reason: fault.reason,
                };
                let grammar = format_grammar(format).map_err(refuse)?;
                factory
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
                        factory.compile(TopLevelGrammar::from_json_schema(schema.clone()), true);
                    probe.map_err(|reason| refuse((i, Fault::new("", reason))))?;
                }
                let named = functions
                    .iter()
                    .zip(&schemas)
                    .map(|(function, schema)| (function.name.as_str(), schema));
                let grammar = call::grammar(named).map_err(refuse)?;
                factory
                    .compile(TopLevelGrammar::from_lark(grammar), false)
                    .map_err(|reason| refuse((0, Fault::new("", reason))))
            }
        }
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
