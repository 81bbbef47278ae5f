//! From what a request is held to, to grammars. Each is compiled on a thread of its own, which is
//! abandoned when it takes too long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::Constraints;
use super::abandoned::Abandoned;
use super::grammar::{CompiledGrammar, GrammarFactory};
use super::rules::Rules;
use super::schema::{Care, Fault, Schema};
use super::write::{self, Form};
use crate::chat::{ChatError, ChatRequest, Constraint, Format, PrincipalId, Tool, ToolChoice};
use crate::gemma::{call, marker};
use crate::worker::llama::Token;
use crate::worker::vocab::Vocab;

/// Time for one grammar.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often it is looked meanwhile whether the request was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);
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
    /// Nothing of the parameters may be left out.
    strict: bool,
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
    abandoned: Mutex<Abandoned>,
}

impl GrammarSources {
    /// `None` if the request is held to nothing.
    pub fn of(request: &ChatRequest) -> Option<Self> {
        let format = (request.format != Format::Text).then(|| request.format.clone());
        let mut functions = vec![];
        for (
            place,
            Tool {
                name,
                parameters,
                strict,
                ..
            },
        ) in request.tools.iter().enumerate()
        {
            if !matches!(&request.tool_choice, ToolChoice::Named(chosen) if chosen != name) {
                functions.push(Function {
                    place: place as u32,
                    name: name.clone(),
                    parameters: parameters.clone(),
                    strict: *strict,
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
            abandoned: Mutex::default(),
        }
    }

    /// The grammars of one request of an account's; `None` if it was cancelled meanwhile.
    pub fn constraints(
        self: &Arc<Self>,
        sources: &GrammarSources,
        account: PrincipalId,
        cancelled: &AtomicBool,
    ) -> Option<Result<Constraints, ChatError>> {
        let mut constraints = Constraints::default();
        if let Some(format) = &sources.format {
            match self.grammar(Source::Format(format.clone()), account, cancelled)? {
                Ok(grammar) => constraints.format = Some(grammar),
                Err(error) => return Some(Err(error)),
            }
        }
        if !sources.functions.is_empty() {
            match self.grammar(Source::Call(sources.functions.clone()), account, cancelled)? {
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
        account: PrincipalId,
        cancelled: &AtomicBool,
    ) -> Option<Result<Arc<CompiledGrammar>, ChatError>> {
        if let Some(kept) = self.recall(&source) {
            return Some(Ok(kept));
        }
        let (part, name) = source.part();
        let refuse = |reason: String| {
            Some(Err(ChatError::Constraint {
                name: name.clone(),
                part,
                path: String::new(),
                reason,
            }))
        };
        let refusal = self.abandoned().refusal(account);
        if let Some(reason) = refusal {
            return refuse(reason.into());
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
                        self.abandon(account, result);
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
    fn abandon(
        self: &Arc<Self>,
        account: PrincipalId,
        result: Receiver<Result<CompiledGrammar, ChatError>>,
    ) {
        let compiler = self.clone();
        compiler.abandoned().add(account);
        let wait = move || {
            let _ = result.recv();
            compiler.abandoned().remove(account);
        };
        if thread::Builder::new().spawn(wait).is_err() {
            // Better one that is not counted than one that is for ever.
            self.abandoned().remove(account);
        }
    }

    fn abandoned(&self) -> MutexGuard<'_, Abandoned> {
        // Nothing panics while it is held.
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        match source {
            Source::Format(format) => self.compile_format(format),
            Source::Call(functions) => self.compile_call(functions),
        }
    }

    fn compile_format(&self, format: &Format) -> Result<CompiledGrammar, ChatError> {
        let factory = self.factory()?;
        let refuse = |fault: Fault| ChatError::Constraint {
            part: Constraint::Format,
            name: String::new(),
            path: fault.path,
            reason: fault.reason,
        };
        let refuse_all = |reason| refuse(Fault::new("", reason));
        let (schema, strict) = match format {
            Format::Regex(regex) => {
                let grammar = TopLevelGrammar::from_regex(regex);
                return factory.compile(grammar).map_err(refuse_all);
            }
            Format::Grammar(grammar) => {
                let grammar = TopLevelGrammar::from_lark(grammar.clone());
                return factory.compile(grammar).map_err(refuse_all);
            }
            Format::Text | Format::JsonObject => (json!({"type": "object"}), true),
            Format::JsonSchema { schema, strict } => {
                let schema = serde_json::from_str(schema);
                let schema = schema.map_err(|error| refuse_all(format!("cannot be read: {error}")));
                (schema?, *strict)
            }
        };
        let mut care = Care::Exact;
        loop {
            let tried = Self::held_to(factory, &schema, strict, care);
            match (tried, care.less()) {
                (Err(_), Some(less)) if !strict => care = less,
                (tried, _) => return tried.map_err(refuse),
            }
        }
    }

    /// The grammar of JSON that fits a schema.
    fn held_to(
        factory: &GrammarFactory,
        schema: &Value,
        strict: bool,
        care: Care,
    ) -> Result<CompiledGrammar, Fault> {
        let mut rules = Rules::default();
        let schema = Schema::read(schema, strict, care)?;
        let (start, schema) = write::write(&mut rules, schema, Form::Json)?;
        let grammar = factory.compile_rules(&rules, start, true);
        let mut grammar = grammar.map_err(|reason| Fault::new("", reason))?;
        grammar.left_out = places("", &schema.left_out);
        Ok(grammar)
    }

    /// One call of one of the functions.
    fn compile_call(&self, functions: &[Function]) -> Result<CompiledGrammar, ChatError> {
        let factory = self.factory()?;
        let mut cares = vec![Care::Exact; functions.len()];
        loop {
            let (blamed, fault) = match Self::call_of(factory, functions, &cares) {
                Ok(grammar) => return Ok(grammar),
                Err(refused) => refused,
            };
            // What is too much is left out of the function that it is about, or of all.
            let mut goes_on = false;
            for (i, function) in functions.iter().enumerate() {
                let less = cares[i].less().filter(|_| !function.strict);
                if let Some(less) = less.filter(|_| blamed.is_none_or(|blamed| blamed == i)) {
                    cares[i] = less;
                    goes_on = true;
                }
            }
            if !goes_on {
                let function = &functions[blamed.unwrap_or(0)];
                return Err(ChatError::Constraint {
                    part: Constraint::Tool(function.place),
                    name: function.name.clone(),
                    path: fault.path,
                    reason: fault.reason,
                });
            }
        }
    }

    /// The error names the function by its place, if it is about one.
    fn call_of(
        factory: &GrammarFactory,
        functions: &[Function],
        cares: &[Care],
    ) -> Result<CompiledGrammar, (Option<usize>, Fault)> {
        let mut rules = Rules::default();
        let (mut calls, mut left_out) = (vec![], vec![]);
        let end = rules.control(marker::TOOL_CALL_END);
        for (i, (function, care)) in functions.iter().zip(cares).enumerate() {
            let blame = |fault| (Some(i), fault);
            let parameters = parameters(function.parameters.as_deref());
            let schema = Schema::read(&parameters, function.strict, *care).map_err(blame)?;
            let written = write::write(&mut rules, schema, Form::Call);
            let (arguments, schema) = written.map_err(blame)?;
            let name = rules.text(&format!("{}{}", call::PREFIX, function.name));
            calls.push(vec![name, arguments, end]);
            left_out.extend(places(&function.name, &schema.left_out));
        }
        let start = rules.rule(calls);
        let grammar = factory.compile_rules(&rules, start, false);
        let mut grammar = grammar.map_err(|reason| (None, Fault::new("", reason)))?;
        grammar.left_out = left_out;
        Ok(grammar)
    }
}

/// Where something was left out: a pointer within the answer's schema, or within a function's.
fn places(function: &str, left_out: &[Fault]) -> Vec<String> {
    let places = left_out.iter();
    places
        .map(|fault| format!("{function}#{}", fault.path))
        .collect()
}

impl Source {
    /// What an error is about that is about the whole of it.
    fn part(&self) -> (Constraint, String) {
        match self {
            Self::Format(_) => (Constraint::Format, String::new()),
            Self::Call(functions) => {
                let first = functions.first();
                let place = first.map_or(0, |function| function.place);
                let name = first.map_or(String::new(), |function| function.name.clone());
                (Constraint::Tool(place), name)
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Format(
                Format::JsonSchema { schema: text, .. }
                | Format::Regex(text)
                | Format::Grammar(text),
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
    let none = || json!({"type": "object", "additionalProperties": false});
    schema
        .and_then(|schema| serde_json::from_str(schema).ok())
        .unwrap_or_else(none)
}
