//! Compiled grammars, and the vocabulary that they are compiled for.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarInit, SkipSpec, TopLevelGrammar};
use llguidance::derivre::RegexAst;
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, SymIdx, SymbolProps};
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};

use super::rules::{Rules, Symbol};
use crate::worker::llama::Token;
use crate::worker::vocab::Vocab;

/// What grammars may cost. Fuel and items are llguidance's own units.
const COMPILE_FUEL: u64 = 200_000;
const GRAMMAR_SYMBOLS: usize = 60_000;
/// About 2 KB each, for one answer.
const LEXER_STATES: usize = 10_000;
const MASK_FUEL: u64 = 100_000;
const MASK_ITEMS: usize = 20_000;

/// Bytes that are forced and looked for: those of the longest draft.
const MOST_FORCED: usize = 64;

/// Text without the ends and escapes of JSON's strings: most of the vocabulary, looked at once
/// instead of at every token of a string.
const PLAIN_TEXT: &str = r#"[^"\\\x00-\x1F\x7F]{1,30}"#;

/// Blanks and line breaks between the parts of JSON: one blank, or one line break with indentation.
/// Without a bound a model may write blanks for ever.
const BLANKS: &str = r"\x20|\n\x20{0,24}";

/// Which tokens may come next.
#[derive(Clone, Debug)]
pub struct Mask {
    /// A bit for each token of the vocabulary.
    pub allowed: SimpleVob,
    /// The answer may end here.
    pub may_end: bool,
}

impl Mask {
    /// The only token that may come next, if there is one.
    pub fn single(&self) -> Option<Token> {
        let mut bits = self.allowed.iter();
        let only = bits.next().filter(|_| !self.may_end)?;
        bits.next().is_none().then_some(only as Token)
    }
}

/// What may come next, and behind each of some tokens that may follow.
#[derive(Clone, Debug)]
pub struct Masks {
    /// One more than there are tokens.
    pub masks: Vec<Mask>,
    pub tokens: Vec<Token>,
    /// Of so many of the first tokens the bytes must follow, in whatever tokens they are written.
    pub forced: usize,
}

impl From<Mask> for Masks {
    /// Looks no further.
    fn from(mask: Mask) -> Self {
        Self {
            masks: vec![mask],
            tokens: vec![],
            forced: 0,
        }
    }
}

/// The vocabulary, and what makes grammars for it. Some 45 MB for Gemma's, and a second of work.
pub struct GrammarFactory {
    factory: ParserFactory,
    /// Tokens that are never sampled, and control tokens.
    never: SimpleVob,
    control: SimpleVob,
    end: Token,
}

impl GrammarFactory {
    /// `suppressed` are the tokens that are never sampled.
    pub fn new(vocab: Vocab, suppressed: &[Token]) -> Result<Self, String> {
        let size = vocab.len();
        let end = vocab
            .ends()
            .first()
            .copied()
            .ok_or("the vocabulary has no token that ends a turn")?;
        let mut control = SimpleVob::alloc(size);
        let words: Vec<Vec<u8>> = (0..size as Token)
            .map(|token| {
                if !vocab.is_marker(token) && !vocab.is_end(token) {
                    return vocab.bytes(token);
                }
                control.allow_token(token as u32);
                let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                word.extend(vocab.text(token).unwrap_or_default().bytes());
                word
            })
            .collect();
        let mut never = SimpleVob::alloc(size);
        suppressed
            .iter()
            .for_each(|&token| never.allow_token(token as u32));
        let trie = TokTrie::from(&TokRxInfo::new(size as u32, end as u32), &words);
        drop(words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = [PLAIN_TEXT.to_owned()];
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| error.to_string())?;
        // Errors go to the client and not to the log: a grammar is as private as a prompt.
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.initial_lexer_fuel = COMPILE_FUEL;
        limits.max_grammar_size = GRAMMAR_SYMBOLS;
        limits.max_lexer_states = LEXER_STATES;
        limits.step_lexer_fuel = MASK_FUEL;
        limits.step_max_items = MASK_ITEMS;
        limits.precompute_large_lexemes = false;
        Ok(Self {
            factory,
            never,
            control,
            end,
        })
    }

    /// Compiles a grammar as llguidance has it. The error continues "the grammar …".
    pub fn compile(&self, grammar: TopLevelGrammar) -> Result<CompiledGrammar, String> {
        self.start(GrammarInit::Serialized(grammar), true)
    }

    /// Compiles rules: for text that is JSON, or for a call, which has control tokens.
    pub fn compile_rules(
        &self,
        rules: &Rules,
        start: Symbol,
        is_text: bool,
    ) -> Result<CompiledGrammar, String> {
        let made = self.assemble(rules, start, is_text);
        let (grammar, lexer) =
            made.map_err(|error| format!("cannot be used: {}", first_line(&error.to_string())))?;
        if lexer.cost() > COMPILE_FUEL || grammar.num_symbols() > GRAMMAR_SYMBOLS {
            return Err("is too large".into());
        }
        self.start(GrammarInit::Internal(grammar, lexer), is_text)
    }

    fn assemble(
        &self,
        rules: &Rules,
        start: Symbol,
        blanks: bool,
    ) -> Result<(Grammar, LexerSpec), Box<dyn std::error::Error + Send + Sync>> {
        let mut lexer = LexerSpec::new()?;
        let skip = if blanks {
            RegexAst::Regex(BLANKS.into())
        } else {
            RegexAst::NoMatch
        };
        let class = lexer.setup_lexeme_class_with_skip(SkipSpec::once(skip))?;
        let mut grammar = Grammar::new(None);
        let symbol = |grammar: &mut Grammar, name: &str, is_start| {
            let props = SymbolProps {
                grammar_id: class,
                is_start,
                ..SymbolProps::default()
            };
            grammar.fresh_symbol_ext(name, props)
        };
        let first = symbol(&mut grammar, "start", true);
        let numbers: Vec<SymIdx> = rules
            .rules
            .iter()
            .map(|_| symbol(&mut grammar, "r", false))
            .collect();
        let mut regexes = vec![];
        for regex in &rules.regexes {
            let lexeme =
                lexer.add_greedy_lexeme(String::new(), regex.clone(), false, None, usize::MAX)?;
            let terminal = symbol(&mut grammar, "t", false);
            grammar.make_terminal(terminal, lexeme, &lexer)?;
            regexes.push(terminal);
        }
        let mut controls = vec![];
        for &name in &rules.controls {
            let token = self.factory.tok_env().tok_trie().get_special_token(name);
            let ranges = token.into_iter().map(|token| token..=token).collect();
            let lexeme = lexer.add_special_token(name.to_owned(), ranges)?;
            let terminal = symbol(&mut grammar, "c", false);
            grammar.make_terminal(terminal, lexeme, &lexer)?;
            controls.push(terminal);
        }
        let number = |symbol: &Symbol| match symbol {
            Symbol::Rule(i) => Some(numbers[*i as usize]),
            Symbol::Regex(i) => Some(regexes[*i as usize]),
            Symbol::Control(i) => Some(controls[*i as usize]),
            Symbol::Nothing => None,
        };
        grammar.add_rule(first, number(&start).into_iter().collect())?;
        for (rows, lhs) in rules.rules.iter().zip(&numbers) {
            for row in rows {
                grammar.add_rule(*lhs, row.iter().filter_map(number).collect())?;
            }
        }
        Ok((grammar, lexer))
    }

    fn start(&self, grammar: GrammarInit, is_text: bool) -> Result<CompiledGrammar, String> {
        let parser = self.factory.create_parser_from_init_default(grammar);
        let matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(format!("cannot be used: {}", first_line(&error)));
        }
        let mut never = self.never.clone();
        if is_text {
            never.or(&self.control);
        }
        let mut running = GrammarState {
            matcher,
            never,
            end: self.end,
        };
        let first = running
            .mask()
            .map_err(|error| format!("allows nothing at its beginning: {error}"))?;
        Ok(CompiledGrammar {
            initial: Mutex::new(running),
            first,
            left_out: vec![],
        })
    }
}

/// A compiled grammar that waits for its first token.
pub struct CompiledGrammar {
    initial: Mutex<GrammarState>,
    /// What may come first.
    pub first: Mask,
    /// What of the schemas it does not keep to.
    pub left_out: Vec<String>,
}

impl CompiledGrammar {
    /// The state of a new answer.
    pub fn start(&self) -> GrammarState {
        let running = self.initial.lock().unwrap_or_else(PoisonError::into_inner);
        // The copy has its own caches, so what one answer costs ends with it.
        GrammarState {
            matcher: running.matcher.deep_clone(),
            never: running.never.clone(),
            end: running.end,
        }
    }
}

/// A grammar in the middle of an answer.
pub struct GrammarState {
    matcher: Matcher,
    never: SimpleVob,
    end: Token,
}

impl GrammarState {
    /// Takes tokens that were sampled; says what may come next.
    pub fn take(&mut self, tokens: &[Token]) -> Result<Mask, String> {
        self.consume(tokens)
            .and_then(|()| self.mask())
            .map_err(|error| format!("takes too much work, or leaves nothing to write: {error}"))
    }

    fn consume(&mut self, tokens: &[Token]) -> Result<(), String> {
        let tokens: Vec<u32> = tokens.iter().map(|&token| token as u32).collect();
        let consumed = self.matcher.consume_tokens(&tokens);
        consumed.map_err(|error| first_line(&error.to_string()))
    }

    /// The bytes that must come behind `last`, the token that was taken last, up to a control token; and
    /// whether text follows that may be anything. Not many are looked for.
    fn forced(&mut self, last: Token) -> Result<(Vec<u8>, bool), String> {
        let mut bytes = self.matcher.compute_ff_bytes();
        let control = bytes
            .iter()
            .position(|byte| *byte == TokTrie::SPECIAL_TOKEN_MARKER);
        let end = control.unwrap_or(bytes.len());
        bytes.truncate(end.min(MOST_FORCED));
        // The parser has gone on by them, and control tokens among them would be in no mask: it goes back.
        self.go_back(1)?;
        self.consume(&[last])?;
        Ok((bytes, control.is_none()))
    }

    fn go_back(&mut self, tokens: usize) -> Result<(), String> {
        let back = self.matcher.rollback(tokens);
        back.map_err(|error| first_line(&error.to_string()))
    }

    /// Looks ahead from behind `last`, the token that was taken last, where `mask` is what may come next: along the tokens that must follow, which
    /// `spell` makes of bytes, or else along those of `guesses` that may. Afterwards the state is as it
    /// was; after an error it is of no more use.
    pub fn look_ahead(
        &mut self,
        (last, mask): (Token, Mask),
        guesses: &[Token],
        most: usize,
        spell: impl Fn(&[u8]) -> Vec<Token>,
    ) -> Result<Masks, String> {
        let mut here = mask.clone();
        let mut ahead = Masks::from(mask);
        let (bytes, is_open) = self.forced(last)?;
        let mut forced = spell(&bytes);
        if is_open {
            // What is written as one token with what follows.
            forced.pop();
        }
        let is_guessed = guesses.starts_with(&forced);
        let guesses = if is_guessed { guesses } else { &forced };
        ahead.forced = forced.len();
        for at in 0..most {
            let single = here.single();
            let Some(next) = single.or_else(|| guesses.get(at).copied()) else {
                break;
            };
            if !here.allowed.is_allowed(next as u32) {
                break;
            }
            if single.is_some() && at == ahead.forced {
                ahead.forced += 1;
            }
            self.consume(&[next])?;
            here = self.mask()?;
            ahead.tokens.push(next);
            ahead.masks.push(here.clone());
            if guesses.get(at) != Some(&next) {
                break;
            }
        }
        ahead.forced = ahead.forced.min(ahead.tokens.len());
        self.go_back(ahead.tokens.len())?;
        Ok(ahead)
    }

    fn mask(&mut self) -> Result<Mask, String> {
        let mut allowed = self
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| first_line(&error.to_string()))?;
        let may_end = allowed.is_allowed(self.end as u32);
        allowed.sub(&self.never);
        allowed.disallow_token(self.end as u32);
        if !may_end && allowed.is_zero() {
            return Err("no token of text is left".into());
        }
        Ok(Mask { allowed, may_end })
    }
}

/// llguidance's reports go on with the grammar itself.
fn first_line(error: &str) -> String {
    const LONGEST: usize = 300;
    error
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(LONGEST)
        .collect()
}
