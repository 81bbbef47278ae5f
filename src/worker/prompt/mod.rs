//! A conversation becomes the text that the model reads.

mod bounds;
mod guard;
mod python;
mod values;

use std::io;

use minijinja::{Environment, ErrorKind, Value};

use crate::chat::{ChatError, ChatRequest, Message, Modality, Part, RawPrompt, Role};
use crate::gemma::{marker, template};
use crate::ipc::TemplateSource;
use guard::Guard;

/// Bytes of stack for a template's compiler, which goes as deep as expressions are nested.
const COMPILE_STACK: usize = 16 << 20;
/// Steps of a template for one prompt, about a second. The family's template takes a small part of
/// it for the longest conversation; Google's own, whose cost grows with the square of the length,
/// reaches it at some 2,000 messages.
const FUEL: u64 = 30_000_000;
/// Bytes that a template writes for one prompt at most. The longest context has tokens for a third of it.
const MAX_OUTPUT: usize = 64 << 20;
/// Bytes of a template's complaint that are passed on.
const MAX_REASON: usize = 400;
const NAME: &str = "chat";

/// A piece of the prompt. Each is tokenised on its own, without a token before or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Tokenised with special tokens.
    Markup(String),
    /// Tokenised without special tokens: the client spelled a control token here.
    Plain(String),
    /// The conversation's next medium, a picture.
    Picture,
    /// The conversation's next medium, a sound.
    Sound,
}

impl Segment {
    pub fn text(&self) -> &str {
        match self {
            Self::Markup(text) | Self::Plain(text) => text,
            Self::Picture => marker::IMAGE,
            Self::Sound => marker::AUDIO,
        }
    }
}

/// Whether the prompt ends inside an open thinking channel, so that the model goes on thinking.
pub fn opens_thought(segments: &[Segment]) -> bool {
    let Some(Segment::Markup(text)) = segments.last() else {
        return false;
    };
    text.rfind(marker::CHANNEL) > text.rfind(marker::CHANNEL_END)
}

/// The model's chat template, ready to render.
pub struct Prompter {
    env: Environment<'static>,
    guard: Guard,
    bos: String,
    small_variant: bool,
}

impl Prompter {
    /// Takes the file's own template if it is a good one, else the family's.
    ///
    /// `bos` is the text of the token that begins every prompt. `markers` are the texts of all
    /// tokens that llama.cpp finds by their spelling: those of type control, user-defined and
    /// unknown. `small_variant` says that the model is an E2B or E4B.
    pub fn new(
        embedded: Option<&str>,
        bos: &str,
        mut markers: Vec<String>,
        small_variant: bool,
    ) -> (Self, TemplateSource) {
        // Even if the vocabulary has none: `render` goes by the spelling.
        markers.extend([marker::IMAGE, marker::AUDIO].map(str::to_owned));
        let guard = Guard::new(&markers);
        let mut prompter = Self {
            env: Environment::new(),
            guard,
            bos: bos.to_owned(),
            small_variant,
        };
        let source = match embedded {
            None => TemplateSource::Missing,
            Some(text) => match template::outdated(text).or_else(|| prompter.adopt(text).err()) {
                None => return (prompter, TemplateSource::Embedded),
                Some(why) => TemplateSource::Replaced { why },
            },
        };
        // It is known to work: a test renders it. If it did not, every request would be told why.
        let _ = prompter.adopt(template::FAMILY);
        (prompter, source)
    }

    /// Renders the prompt without the token that begins it; the tokenizer adds that one.
    pub fn render(&self, request: &ChatRequest) -> Result<Vec<Segment>, ChatError> {
        if let Some(RawPrompt::Text(prompt)) = &request.prompt {
            return Ok(vec![Segment::Markup(self.without_bos(prompt).to_owned())]);
        }
        let begun = request.messages.last().filter(|_| request.continues);
        let count = request.messages.len() - usize::from(begun.is_some());
        let mut context = values::context(request, count, &self.guard)?;
        context.push((Value::from("bos_token"), Value::from(self.bos.as_str())));
        context.push((
            Value::from("small_variant"),
            Value::from(self.small_variant),
        ));
        let template = self.env.get_template(NAME).map_err(refusal)?;
        let mut output = Output::default();
        template
            .render_captured_to(Value::from_pairs(context), &mut output)
            .map_err(refusal)?;
        let rendered = output.text()?;
        let mut segments: Vec<Segment> = self
            .guard
            .split(self.without_bos(&rendered))
            .into_iter()
            .flat_map(place_media)
            .collect();
        if let Some(begun) = begun {
            self.begin(begun, &mut segments);
        }
        let wanted: Vec<_> = request
            .media()
            .map(|(_, _, part)| {
                if part.modality() == Some(Modality::Audio) {
                    Segment::Sound
                } else {
                    Segment::Picture
                }
            })
            .collect();
        let placed: Vec<_> = segments
            .iter()
            .filter(|segment| matches!(segment, Segment::Picture | Segment::Sound))
            .collect();
        if !placed.iter().copied().eq(&wanted) {
            let reason = format!(
                "it has places for {} of {} pictures and sounds, or in another order",
                placed.len(),
                wanted.len()
            );
            return Err(ChatError::Template { reason });
        }
        Ok(segments)
    }

    /// Adds the beginning of an answer to a prompt that ends where the model begins to write.
    fn begin(&self, begun: &Message, segments: &mut Vec<Segment>) {
        let written = |text: &str| self.guard.split(&self.guard.protect(text));
        let has_thought = matches!(segments.last(), Some(Segment::Markup(text)) if text.ends_with(marker::CHANNEL_END));
        if let Some(thought) = &begun.reasoning
            && !thought.is_empty()
            && !has_thought
        {
            let begin = format!("{}{}", marker::CHANNEL, marker::THOUGHT_NAME);
            segments.push(Segment::Markup(begin));
            segments.extend(written(thought));
            segments.push(Segment::Markup(format!("\n{}", marker::CHANNEL_END)));
        }
        for part in begun.content.iter().flat_map(Part::pieces) {
            if let Part::Text(text) = part {
                segments.extend(written(&values::without_thoughts(text)));
            }
        }
    }

    fn without_bos<'a>(&self, mut text: &'a str) -> &'a str {
        while !self.bos.is_empty()
            && let Some(rest) = text.strip_prefix(self.bos.as_str())
        {
            text = rest;
        }
        text
    }

    /// Uses a template; says why if it cannot.
    fn adopt(&mut self, text: &str) -> Result<(), String> {
        bounds::check(text)?;
        self.env = compiled(text)?;
        let probe = ChatRequest::new(vec![Message::text(Role::User, "Hi")]);
        let segments = self.render(&probe).map_err(|e| e.to_string())?;
        let prompt: String = segments.iter().map(Segment::text).collect();
        let turn = format!("{}user\nHi{}", marker::TURN, marker::TURN_END);
        if prompt.contains(&turn) {
            Ok(())
        } else {
            Err("it does not write the family's turns".into())
        }
    }
}

/// What a template writes.
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    fn text(self) -> Result<String, ChatError> {
        // A template writes whole strings.
        String::from_utf8(self.0).map_err(|_| ChatError::Template {
            reason: "it writes no text".into(),
        })
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_OUTPUT - self.0.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compiles a template, which goes as deep as the template's expressions are nested.
fn compiled(text: &str) -> Result<Environment<'static>, String> {
    let compile = || {
        let mut env = Environment::new();
        python::equip(&mut env).map_err(|e| reason(&e))?;
        env.set_fuel(Some(FUEL));
        env.add_template_owned(NAME, text.to_owned())
            .map_err(|e| format!("it does not compile: {}", reason(&e)))?;
        Ok(env)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(COMPILE_STACK)
            .spawn_scoped(scope, compile)
            .map_err(|error| format!("it is not compiled: {error}"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err("its compiler panicked".into()))
    })
}

/// Takes the template's marks for media out of its markup; clients cannot write any.
fn place_media(segment: Segment) -> Vec<Segment> {
    let Segment::Markup(text) = &segment else {
        return vec![segment];
    };
    let (mut out, mut rest) = (vec![], text.as_str());
    let next = |text: &str| {
        let found = [Segment::Picture, Segment::Sound]
            .map(|medium| text.find(medium.text()).map(|at| (at, medium)));
        found.into_iter().flatten().min_by_key(|(at, _)| *at)
    };
    while let Some((at, medium)) = next(rest) {
        if at > 0 {
            out.push(Segment::Markup(rest[..at].to_owned()));
        }
        rest = &rest[at + medium.text().len()..];
        out.push(medium);
    }
    if !rest.is_empty() {
        out.push(Segment::Markup(rest.to_owned()));
    }
    out
}

fn refusal(error: minijinja::Error) -> ChatError {
    ChatError::Template {
        reason: reason(&error),
    }
}

fn reason(error: &minijinja::Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it takes more than {FUEL} steps; shorten the conversation");
    }
    if error.kind() == ErrorKind::WriteFailure {
        return format!("it writes more than {MAX_OUTPUT} bytes");
    }
    error.to_string().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A template of as many expressions as fit into it, each as long and as deep as may be; of one, where
    /// that has no end.
    fn deepest(before: &str, again: &str, after: &str) -> String {
        let tokens = again.replace('x', " x ").split_whitespace().count();
        let one = |times: usize| format!("{{{{ {before}{}{after} }}}}", again.repeat(times));
        let mut times = bounds::MAX_TOKENS / tokens;
        while bounds::check(&one(times)).is_err() {
            times -= 1;
        }
        let one = one(times);
        let full = one.repeat(bounds::MAX_TEMPLATE / one.len());
        Some(full)
            .filter(|full| bounds::check(full).is_ok())
            .unwrap_or(one)
    }

    #[test]
    fn the_worst_templates_compile_in_time_and_end_nothing() {
        for (before, again, after) in [
            ("", "not ", "x"),
            ("", "-", "x"),
            ("", "- ", "1"),
            ("", "(", "x"),
            ("", "[", "x"),
            ("x", ".a", ""),
            ("x", "|upper", ""),
            ("x", "~x", ""),
            ("1", "~1", ""),
            ("x", "**x", ""),
            ("x", "+x", ""),
            ("1", "+1", ""),
            ("x", " if x else x", ""),
            ("x", " and x", ""),
        ] {
            let text = deepest(before, again, after);
            assert_eq!(bounds::check(&text), Ok(()));
            let begun = Instant::now();
            // Whether it compiles is the compiler's business.
            drop(compiled(&text));
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(5), "{again:?}: {took:?}");
        }
        let (mut nested, mut ends) = (String::new(), String::new());
        while nested.len() + ends.len() < bounds::MAX_TEMPLATE - 30 {
            nested.push_str("{% if x %}");
            ends.push_str("{% endif %}");
        }
        drop(compiled(&(nested + &ends)));
    }

    #[test]
    fn a_template_that_is_one_nested_expression_is_replaced_at_once() {
        let text = format!("{{{{ {}x }}}}", "not ".repeat(16_000));
        let mut prompter = Prompter::new(None, "<bos>", vec![], true).0;
        let begun = Instant::now();
        let why = prompter.adopt(&text).unwrap_err();
        assert!(why.contains("an expression of more than"), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_template_that_writes_without_end_is_replaced() {
        let text = "{% for i in range(100) %}{{ 'x' * 1000000 }}{% endfor %}";
        let mut prompter = Prompter::new(None, "<bos>", vec![], true).0;
        let why = prompter.adopt(text).unwrap_err();
        assert!(why.contains("it writes more than 67108864 bytes"), "{why}");
    }

    #[test]
    fn a_begun_answer_is_gone_on_with() {
        let (prompter, _) = Prompter::new(None, "<bos>", vec![marker::TURN.into()], true);
        let mut begun = Message::text(Role::Assistant, "1, 2, <|turn>");
        begun.reasoning = Some("Count.".into());
        let mut request = ChatRequest::new(vec![Message::text(Role::User, "Count"), begun]);
        request.continues = true;
        let segments = prompter.render(&request).unwrap();
        let prompt: String = segments.iter().map(Segment::text).collect();
        assert!(
            prompt.ends_with("<|turn>model\n<|channel>thought\nCount.\n<channel|>1, 2, <|turn>"),
            "{prompt}"
        );
        // What the client spelled is no turn.
        assert!(
            segments
                .iter()
                .any(|s| *s == Segment::Plain("|turn>".into()))
        );
        assert!(!opens_thought(&segments));
        // A model that is shown an empty thought is not shown another.
        let (prompter, _) = Prompter::new(None, "<bos>", vec![], false);
        let segments = prompter.render(&request).unwrap();
        let prompt: String = segments.iter().map(Segment::text).collect();
        assert!(
            prompt.ends_with("<|channel>thought\n<channel|>1, 2, <|turn>"),
            "{prompt}"
        );
    }
}
