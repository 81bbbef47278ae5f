//! What the model writes, token by token, becomes events: thoughts, text, function calls. Pure.
//!
//! ```text
//!            <|channel>                 <|tool_call>
//!   Thought ◀────────── Text ──────────────────────────▶ Call
//!      │    ──────────▶  ▲ ▲ ◀──────────────────────────┤ malformed or too long
//!      │    <channel|>     │        <tool_call|>         ▼
//!      └─ <|tool_call> ─▶ Call     (the next marker) ── Lost
//! ```
//!
//! Only control tokens move the parser: text that spells a marker is text. Markers out of place are
//! dropped, and the end of a turn closes whatever is open. Nothing is held without limit: of text
//! the longest beginning of a stop string, of a thought its last newline, of a call a key or a
//! number.

use super::call::{Call, News};
use super::lane::Lane;
use super::marker;
use super::stop::{Found, Stops};
use crate::chat::{ChatEvent, TokenLogprob};

/// One token, as the parser needs it.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// A control token, by its exact text.
    Control(&'a str),
    /// Any other token's bytes, which may be a part of a character.
    Bytes(&'a [u8]),
}

/// Whether the answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// A stop string came; nothing after it is delivered.
    Stopped,
}

/// Why the tokens end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended its turn.
    Turn,
    /// The token limit or the end of the context.
    Cut,
}

/// What was left when the tokens ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// At least one call was delivered.
    pub called: bool,
    /// A call was begun that has no end, so the answer is incomplete.
    pub cut_call: bool,
    /// The stop string that came, by its place in the list.
    pub stop: Option<u8>,
    /// Tokens of the thinking channel, its markers included.
    pub reasoning_tokens: u32,
}

#[derive(Debug)]
enum Place {
    Text,
    Thought {
        /// The name line was not passed yet.
        named: bool,
    },
    Call(Call),
    /// In what was begun as a call and is none.
    Lost,
}

/// The parser of one answer.
#[derive(Debug)]
pub struct Parser {
    place: Place,
    text: Lane,
    thought: Lane,
    /// Decodes what goes into a call.
    call: Lane,
    stops: Stops,
    /// The stop string that came.
    stopped: Option<u8>,
    called: bool,
    cut_call: bool,
    reasoning_tokens: u32,
}

impl Parser {
    /// `in_thought`: the prompt ends inside an open thinking channel, behind its name line.
    pub fn new(stops: Vec<String>, in_thought: bool) -> Self {
        Self {
            place: if in_thought {
                Place::Thought { named: true }
            } else {
                Place::Text
            },
            text: Lane::default(),
            thought: Lane::default(),
            call: Lane::default(),
            stops: Stops::new(stops),
            stopped: None,
            called: false,
            cut_call: false,
            reasoning_tokens: 0,
        }
    }

    /// Takes the next token and appends what became certain to `out`. After [`Progress::Stopped`]
    /// it takes nothing.
    pub fn push(
        &mut self,
        token: Token<'_>,
        logprob: Option<TokenLogprob>,
        out: &mut Vec<ChatEvent>,
    ) -> Progress {
        if self.stopped.is_none() {
            match token {
                Token::Control(text) => self.control(text, logprob, out),
                Token::Bytes(bytes) => self.bytes(bytes, logprob, out),
            }
        }
        if self.stopped.is_some() {
            Progress::Stopped
        } else {
            Progress::More
        }
    }

    /// No token follows: delivers what is held.
    pub fn finish(mut self, end: End, out: &mut Vec<ChatEvent>) -> Summary {
        if self.stopped.is_none() {
            match (&self.place, end) {
                (Place::Call(_), End::Cut) => self.cut_call = true,
                (Place::Call(_), End::Turn) => self.end_call(out),
                (Place::Thought { .. }, _) => self.leave_thought(false, out),
                (Place::Text | Place::Lost, _) => {}
            }
        }
        if self.stopped.is_none() {
            self.text.settle();
            self.deliver(out);
        }
        if self.stopped.is_none() {
            let (text, mut logprobs) = self.text.end(self.text.held().len());
            logprobs.extend(self.text.leftovers());
            if !text.is_empty() || !logprobs.is_empty() {
                out.push(ChatEvent::Text { text, logprobs });
            }
        }
        Summary {
            called: self.called,
            cut_call: self.cut_call,
            stop: self.stopped,
            reasoning_tokens: self.reasoning_tokens,
        }
    }

    fn bytes(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>, out: &mut Vec<ChatEvent>) {
        match &mut self.place {
            Place::Text => {
                self.text.feed(bytes, logprob);
                self.deliver(out);
            }
            Place::Lost => self.text.note(logprob),
            Place::Thought { .. } => {
                self.reasoning_tokens += 1;
                self.thought.feed(bytes, logprob);
                self.think(out);
            }
            Place::Call(_) => {
                self.text.note(logprob);
                self.call.feed(bytes, None);
                self.go_on_with_call(None, out);
            }
        }
    }

    fn control(&mut self, text: &str, logprob: Option<TokenLogprob>, out: &mut Vec<ChatEvent>) {
        let thinks = match self.place {
            Place::Text => text == marker::CHANNEL,
            Place::Thought { .. } => !matches!(
                text,
                marker::TOOL_CALL | marker::TURN | marker::TURN_END | marker::EOS
            ),
            Place::Call(_) | Place::Lost => false,
        };
        self.reasoning_tokens += u32::from(thinks);
        self.text.settle();
        match &mut self.place {
            Place::Text => {
                self.text.note(logprob);
                self.open(text);
            }
            Place::Thought { .. } => {
                self.thought.note(logprob);
                match text {
                    marker::CHANNEL => {
                        self.leave_thought(false, out);
                        self.place = Place::Thought { named: false };
                    }
                    marker::CHANNEL_END | marker::TURN | marker::TURN_END | marker::EOS => {
                        self.leave_thought(true, out)
                    }
                    marker::TOOL_CALL => {
                        self.leave_thought(true, out);
                        self.open(text);
                    }
                    _ => {}
                }
            }
            Place::Call(_) => {
                self.text.note(logprob);
                self.call.settle();
                match text {
                    marker::TOOL_CALL_END
                    | marker::TURN
                    | marker::TURN_END
                    | marker::TOOL_RESPONSE
                    | marker::EOS => self.end_call(out),
                    marker::TOOL_CALL => {
                        self.end_call(out);
                        self.place = Place::Call(Call::default());
                    }
                    _ => self.go_on_with_call(Some(text), out),
                }
            }
            Place::Lost => {
                self.text.note(logprob);
                match text {
                    marker::TOOL_CALL_END
                    | marker::TURN
                    | marker::TURN_END
                    | marker::TOOL_RESPONSE
                    | marker::EOS => self.place = Place::Text,
                    marker::TOOL_CALL => self.place = Place::Call(Call::default()),
                    _ => {}
                }
            }
        }
        if self.stopped.is_none() {
            self.deliver(out);
        }
    }

    /// A control token in text: opens something, or is out of place.
    fn open(&mut self, text: &str) {
        match text {
            marker::CHANNEL => self.place = Place::Thought { named: false },
            marker::TOOL_CALL => self.place = Place::Call(Call::default()),
            _ => {}
        }
    }

    /// Delivers thought text, all but the newline that the format puts before the closing marker.
    fn think(&mut self, out: &mut Vec<ChatEvent>) {
        if let Place::Thought {
            named: named @ false,
        } = &mut self.place
        {
            let held = self.thought.held();
            if held.len() < marker::THOUGHT_NAME.len() && marker::THOUGHT_NAME.starts_with(held) {
                return;
            }
            *named = true;
            if held.starts_with(marker::THOUGHT_NAME) {
                self.thought.skip(marker::THOUGHT_NAME.len());
            }
        }
        let held = self.thought.held();
        let ready = held.strip_suffix('\n').unwrap_or(held).len();
        release_thought(&mut self.thought, ready, out);
    }

    /// Ends a thought. `trim`: its last newline belongs to the format.
    fn leave_thought(&mut self, trim: bool, out: &mut Vec<ChatEvent>) {
        self.thought.settle();
        let held = self.thought.held();
        let unnamed = matches!(self.place, Place::Thought { named: false });
        if unnamed && marker::THOUGHT_NAME.starts_with(held) {
            self.thought.skip(held.len());
        } else {
            self.think(out);
            let held = self.thought.held().len();
            if trim {
                self.thought.skip(held);
            } else {
                release_thought(&mut self.thought, held, out);
            }
        }
        let leftovers = self.thought.leftovers();
        self.text.adopt(leftovers);
        self.place = Place::Text;
    }

    /// Delivers what is certain of the running call, with the control token that came, if one did.
    fn go_on_with_call(&mut self, control: Option<&str>, out: &mut Vec<ChatEvent>) {
        let Place::Call(call) = &mut self.place else {
            return;
        };
        let mut news = News::default();
        let text = self
            .call
            .release(self.call.held().len())
            .map_or_else(String::new, |(text, _)| text);
        let outcome = call
            .text(&text, &mut news)
            .and_then(|()| control.map_or(Ok(()), |control| call.control(control, &mut news)));
        out.extend(news.name.map(|name| ChatEvent::CallStarted { name }));
        if !news.json.is_empty() {
            out.push(ChatEvent::CallArguments { json: news.json });
        }
        if outcome.is_err() {
            (self.place, self.cut_call) = (Place::Lost, true);
        }
    }

    /// Ends a call: it is complete, or lost.
    fn end_call(&mut self, out: &mut Vec<ChatEvent>) {
        self.call.settle();
        self.go_on_with_call(None, out);
        match std::mem::replace(&mut self.place, Place::Text) {
            Place::Call(call) if call.is_whole() => {
                self.called = true;
                out.push(ChatEvent::CallEnded);
            }
            _ => self.cut_call = true,
        }
    }

    /// Delivers the text that can no longer become a part of a stop string.
    fn deliver(&mut self, out: &mut Vec<ChatEvent>) {
        match self.stops.look(self.text.held()) {
            Found::Free(len) => out.extend(
                self.text
                    .release(len)
                    .map(|(text, logprobs)| ChatEvent::Text { text, logprobs }),
            ),
            Found::Stop { at, which } => {
                self.stopped = Some(which);
                let (text, logprobs) = self.text.end(at);
                if !text.is_empty() || !logprobs.is_empty() {
                    out.push(ChatEvent::Text { text, logprobs });
                }
            }
        }
    }
}

fn release_thought(lane: &mut Lane, len: usize, out: &mut Vec<ChatEvent>) {
    out.extend(
        lane.release(len)
            .map(|(text, logprobs)| ChatEvent::Thought { text, logprobs }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What an answer adds up to.
    #[derive(Debug, Default, PartialEq)]
    struct Answer {
        text: String,
        thought: String,
        calls: Vec<(String, String)>,
        logprobs: Vec<Vec<u8>>,
        stopped: bool,
        cut_call: bool,
        reasoning_tokens: u32,
    }

    /// A token that outlives its parser.
    #[derive(Clone, Debug)]
    enum Piece {
        Control(&'static str),
        Bytes(Vec<u8>),
    }

    impl Piece {
        fn token(&self) -> Token<'_> {
            match self {
                Self::Control(text) => Token::Control(text),
                Self::Bytes(bytes) => Token::Bytes(bytes),
            }
        }

        fn logprob(&self) -> TokenLogprob {
            let bytes = match self {
                Self::Control(text) => text.as_bytes().to_vec(),
                Self::Bytes(bytes) => bytes.clone(),
            };
            TokenLogprob {
                bytes,
                logprob: -1.0,
                top: vec![],
            }
        }
    }

    const MARKERS: [&str; 9] = [
        marker::CHANNEL,
        marker::CHANNEL_END,
        marker::TOOL_CALL,
        marker::TOOL_CALL_END,
        marker::TOOL_RESPONSE,
        marker::QUOTE,
        marker::TURN,
        marker::TURN_END,
        "<|image>",
    ];

    /// Real markers where the text spells them, everything else in tokens of `size` bytes.
    fn pieces(text: &str, size: usize) -> Vec<Piece> {
        let (mut out, mut rest) = (vec![], text);
        let mut plain = vec![];
        while !rest.is_empty() {
            let found = MARKERS.iter().find(|m| rest.starts_with(**m));
            if let Some(marker) = found {
                out.extend(
                    std::mem::take(&mut plain)
                        .chunks(size)
                        .map(|c| Piece::Bytes(c.to_vec())),
                );
                out.push(Piece::Control(marker));
                rest = &rest[marker.len()..];
            } else {
                plain.push(rest.as_bytes()[0]);
                let mut next = 1;
                while !rest.is_char_boundary(next) {
                    plain.push(rest.as_bytes()[next]);
                    next += 1;
                }
                rest = &rest[next..];
            }
        }
        out.extend(plain.chunks(size).map(|c| Piece::Bytes(c.to_vec())));
        out
    }

    fn run(pieces: &[Piece], stops: &[&str], in_thought: bool, end: End) -> Answer {
        let mut parser = Parser::new(stops.iter().map(|s| s.to_string()).collect(), in_thought);
        let (mut out, mut answer) = (vec![], Answer::default());
        for piece in pieces {
            answer.stopped =
                parser.push(piece.token(), Some(piece.logprob()), &mut out) == Progress::Stopped;
        }
        let summary = parser.finish(end, &mut out);
        answer.cut_call = summary.cut_call;
        answer.reasoning_tokens = summary.reasoning_tokens;
        let mut ended = 0;
        for event in out {
            let logprobs = match event {
                ChatEvent::Text { text, logprobs } => {
                    assert!(!text.is_empty() || !logprobs.is_empty());
                    answer.text += &text;
                    logprobs
                }
                ChatEvent::Thought { text, logprobs } => {
                    assert!(!text.is_empty());
                    answer.thought += &text;
                    logprobs
                }
                ChatEvent::CallStarted { name } => {
                    answer.calls.push((name, String::new()));
                    vec![]
                }
                ChatEvent::CallArguments { json } => {
                    assert!(!json.is_empty());
                    answer.calls.last_mut().unwrap().1 += &json;
                    vec![]
                }
                ChatEvent::CallEnded => {
                    ended += 1;
                    vec![]
                }
                other => panic!("{other:?}"),
            };
            answer
                .logprobs
                .extend(logprobs.into_iter().map(|l| l.bytes));
        }
        assert_eq!(summary.called, ended > 0);
        // One that has no end was cut off or lost.
        assert!(ended == answer.calls.len() || summary.cut_call);
        answer.calls.truncate(ended);
        answer
    }

    /// The same for every token size, thought, text and calls alone.
    fn parse(
        text: &str,
        stops: &[&str],
        end: End,
    ) -> (String, String, Vec<(String, String)>, bool, bool) {
        let answers = [1, 2, 3, 7, 1000].map(|size| {
            let a = run(&pieces(text, size), stops, false, end);
            (a.thought, a.text, a.calls, a.stopped, a.cut_call)
        });
        assert!(
            answers.iter().all(|a| *a == answers[0]),
            "{text}: {answers:?}"
        );
        answers.into_iter().next().unwrap_or_default()
    }

    #[test]
    fn shapes() {
        for (model, thought, text, calls) in [
            ("Hello", "", "Hello", &[][..]),
            ("", "", "", &[]),
            ("<|channel>thought\n<channel|>Hi", "", "Hi", &[]),
            (
                "<|channel>thought\nI see.\n<channel|>Hi",
                "I see.",
                "Hi",
                &[],
            ),
            (
                "<|channel>thought\n\n two \n\n<channel|>\nHi \n",
                "\n two \n",
                "\nHi \n",
                &[],
            ),
            ("<|channel>no name<channel|>Hi", "no name", "Hi", &[]),
            (
                "<|channel>thoughtful\n<channel|>Hi",
                "thoughtful",
                "Hi",
                &[],
            ),
            ("<|channel>thought<channel|>Hi", "", "Hi", &[]),
            (
                "before<|channel>thought\na\n<channel|>after",
                "a",
                "beforeafter",
                &[],
            ),
            (
                "<|channel>thought\na\n<|channel>thought\nb\n<channel|>c",
                "a\nb",
                "c",
                &[],
            ),
            (
                "<|channel>thought\nnever closed\n",
                "never closed\n",
                "",
                &[],
            ),
            ("<|channel>tho", "", "", &[]),
            (
                "<channel|>Hi<|\"|><tool_call|><|image> there<|turn>",
                "",
                "Hi there",
                &[],
            ),
            ("<|channel>thought\na<|image>b<turn|>Hi", "ab", "Hi", &[]),
            (
                "<|tool_call>call:f{a:1}<tool_call|>",
                "",
                "",
                &[("f", r#"{"a":1}"#)],
            ),
            (
                "<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|><|tool_response>",
                "",
                "",
                &[("f", "{}"), ("g", "{}")],
            ),
            (
                "a<|tool_call>call:f{s:<|\"|>x\n{}<|\"|>}<tool_call|>b",
                "",
                "ab",
                &[("f", r#"{"s":"x\n{}"}"#)],
            ),
            (
                "<|channel>thought\nI call\n<|tool_call>call:f{}<tool_call|>",
                "I call",
                "",
                &[("f", "{}")],
            ),
            ("<|tool_call>call:f{}<turn|>", "", "", &[("f", "{}")]),
            ("<|tool_call>call:f{}", "", "", &[("f", "{}")]),
        ] {
            let calls = calls
                .iter()
                .map(|(n, a)| (n.to_string(), a.to_string()))
                .collect();
            assert_eq!(
                parse(model, &[], End::Turn),
                (thought.to_string(), text.to_string(), calls, false, false),
                "{model}"
            );
        }
    }

    #[test]
    fn text_that_spells_markers_is_text() {
        let spelled = "<|channel>thought\nx<channel|><|tool_call>call:f{}<tool_call|>";
        let answer = run(&[Piece::Bytes(spelled.into())], &[], false, End::Turn);
        assert_eq!(
            (answer.text.as_str(), answer.thought.as_str()),
            (spelled, "")
        );
        let quoted = [
            Piece::Control(marker::TOOL_CALL),
            Piece::Bytes(b"call:f{s:".to_vec()),
            Piece::Control(marker::QUOTE),
            Piece::Bytes(b"<tool_call|><|\"|>".to_vec()),
            Piece::Control(marker::QUOTE),
            Piece::Bytes(b"}".to_vec()),
            Piece::Control(marker::TOOL_CALL_END),
        ];
        assert_eq!(
            run(&quoted, &[], false, End::Turn).calls,
            [("f".to_string(), r#"{"s":"<tool_call|><|\"|>"}"#.to_string())]
        );
    }

    #[test]
    fn what_is_no_call_is_lost_and_reported() {
        for (model, text, calls) in [
            ("<|tool_call>call:f{x<tool_call|>after", "after", &[][..]),
            ("<|tool_call>call:f{s:<|\"|>ü<tool_call|>a", "a", &[]),
            ("<|tool_call>call:f{<|channel>}<tool_call|>b", "b", &[]),
            ("<|tool_call>ca<|tool_call>call:f{}<tool_call|>", "", &["f"]),
            ("<|tool_call>never closed", "", &[]),
        ] {
            let (_, got, made, _, cut) = parse(model, &[], End::Turn);
            let made: Vec<String> = made.into_iter().map(|(name, _)| name).collect();
            assert_eq!(
                (got.as_str(), made, cut),
                (
                    text,
                    calls.iter().map(|name| name.to_string()).collect(),
                    true
                ),
                "{model}"
            );
        }
    }

    #[test]
    fn arguments_leave_as_they_come() {
        let mut parser = Parser::new(vec![], false);
        let mut step = |token: Token<'_>| {
            let mut out = vec![];
            parser.push(token, None, &mut out);
            out
        };
        let json = |json: &str| vec![ChatEvent::CallArguments { json: json.into() }];
        assert_eq!(step(Token::Control(marker::TOOL_CALL)), []);
        assert_eq!(step(Token::Bytes(b"call:f")), []);
        assert_eq!(
            step(Token::Bytes(b"{te"))[0],
            ChatEvent::CallStarted { name: "f".into() }
        );
        assert_eq!(step(Token::Bytes(b"xt:")), json("\"text\":"));
        assert_eq!(step(Token::Control(marker::QUOTE)), json("\""));
        assert_eq!(step(Token::Bytes("a \"ü".as_bytes())), json("a \\\"ü"));
        assert_eq!(step(Token::Control(marker::QUOTE)), json("\""));
        assert_eq!(step(Token::Bytes(b",n:1")), json(",\"n\":"));
        assert_eq!(step(Token::Bytes(b"2}")), json("12}"));
        assert_eq!(
            step(Token::Control(marker::TOOL_CALL_END)),
            [ChatEvent::CallEnded]
        );
    }

    #[test]
    fn a_call_cut_off_is_dropped_and_reported() {
        for model in [
            "a<|tool_call>",
            "a<|tool_call>call:f{s:<|\"|>x",
            "a<|tool_call>call:f{}",
        ] {
            assert_eq!(
                parse(model, &[], End::Cut),
                (String::new(), "a".into(), vec![], false, true),
                "{model}"
            );
        }
        assert!(!parse("<|tool_call>call:f{}<tool_call|>", &[], End::Cut).4);
    }

    #[test]
    fn a_call_without_end_is_given_up_at_its_limit() {
        let mut model = pieces("<|tool_call>call:f{s:<|\"|>", 1000);
        model.extend(
            (0..=crate::gemma::call::MAX_BYTES / 1000).map(|_| Piece::Bytes(vec![b'x'; 1000])),
        );
        model.extend(pieces("<|\"|>}<tool_call|>after", 1000));
        let answer = run(&model, &[], false, End::Turn);
        assert!(answer.calls.is_empty() && answer.cut_call);
        assert_eq!(answer.text, "after");
    }

    #[test]
    fn generation_that_begins_in_a_thought() {
        let answer = run(
            &pieces("thought\nis kept\n<channel|>Hi", 3),
            &[],
            true,
            End::Turn,
        );
        assert_eq!(
            (answer.thought.as_str(), answer.text.as_str()),
            ("thought\nis kept", "Hi")
        );
    }

    #[test]
    fn stop_strings() {
        for (model, stops, text, stopped) in [
            ("one two three", &["two"][..], "one ", true),
            ("one two three", &["four", "three"], "one two ", true),
            ("one tw", &["two"], "one tw", false),
            ("aaab", &["aab"], "a", true),
            ("stop", &["stop"], "", true),
            (
                "<|channel>thought\nstop\n<channel|>go stop",
                &["stop"],
                "go ",
                true,
            ),
            ("st<|channel>thought\nx\n<channel|>op", &["stop"], "", true),
            ("größe: ü!", &["ü"], "größe: ", true),
        ] {
            let (_, got, _, was_stopped, _) = parse(model, stops, End::Turn);
            assert_eq!((got.as_str(), was_stopped), (text, stopped), "{model}");
        }
    }

    #[test]
    fn reasoning_tokens() {
        let count = |model: &str, in_thought| {
            run(&pieces(model, 1), &[], in_thought, End::Turn).reasoning_tokens
        };
        assert_eq!(count("Hi", false), 0);
        assert_eq!(count("<|channel>thought\na\n<channel|>Hi", false), 12);
        assert_eq!(count("ab<channel|>Hi", true), 3);
        assert_eq!(
            count("<|channel>a<|tool_call>call:f{}<tool_call|>", false),
            2
        );
        assert_eq!(count("<tool_call|><channel|>", false), 0);
    }

    #[test]
    fn logprobs_travel_with_their_text() {
        let mut parser = Parser::new(vec!["two".into()], false);
        let mut out = vec![];
        let logprob = |bytes: &[u8]| {
            Some(TokenLogprob {
                bytes: bytes.to_vec(),
                logprob: -0.5,
                top: vec![],
            })
        };
        let mut step = |bytes: &[u8]| {
            parser.push(Token::Bytes(bytes), logprob(bytes), &mut out);
            out.drain(..)
                .map(|e| match e {
                    ChatEvent::Text { text, logprobs } => (
                        text,
                        logprobs.into_iter().map(|l| l.bytes).collect::<Vec<_>>(),
                    ),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(step(b"a"), [("a".to_string(), vec![b"a".to_vec()])]);
        assert_eq!(step(b" t"), [(" ".to_string(), vec![b" t".to_vec()])]);
        assert_eq!(step(b"w"), []);
        assert_eq!(step(b"\xC3"), []);
        assert_eq!(
            step(b"\xA4"),
            [(
                "twä".to_string(),
                vec![b"w".to_vec(), b"\xC3".to_vec(), b"\xA4".to_vec()]
            )]
        );
        assert_eq!(step(b"b tw"), [("b ".to_string(), vec![b"b tw".to_vec()])]);
        assert_eq!(step(b"o c"), []);
    }

    #[test]
    fn no_logprob_is_lost() {
        let model = pieces(
            "a<|channel>thought\nx\n<channel|>b<|tool_call>call:f{}<tool_call|><|tool_response>",
            2,
        );
        let mut all: Vec<_> = model.iter().map(|p| p.logprob().bytes).collect();
        let mut got = run(&model, &["zz"], false, End::Turn).logprobs;
        all.sort();
        got.sort();
        assert_eq!(got, all);
    }

    fn soup() -> impl Strategy<Value = Vec<Piece>> {
        let words = prop::sample::select(vec![
            "thought\n",
            "call:f{",
            "a:",
            "1",
            "}",
            "\n",
            "stop",
            "ä😀",
            ",",
            "[",
            "st",
            "op",
        ]);
        let piece = prop_oneof![
            3 => prop::sample::select(MARKERS.to_vec()).prop_map(Piece::Control),
            4 => words.prop_map(|w| Piece::Bytes(w.into())),
            2 => prop::collection::vec(any::<u8>(), 0..5).prop_map(Piece::Bytes),
        ];
        prop::collection::vec(piece, 0..40)
    }

    /// Cuts the ordinary tokens anew, by the bits of `cuts`.
    fn recut(pieces: &[Piece], cuts: &[bool]) -> Vec<Piece> {
        let mut cuts = cuts.iter().copied().cycle();
        let mut out: Vec<Piece> = vec![];
        for piece in pieces {
            match piece {
                Piece::Control(_) => out.push(piece.clone()),
                Piece::Bytes(bytes) => {
                    for byte in bytes {
                        match out.last_mut() {
                            Some(Piece::Bytes(last)) if !cuts.next().unwrap_or(false) => {
                                last.push(*byte)
                            }
                            _ => out.push(Piece::Bytes(vec![*byte])),
                        }
                    }
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn token_boundaries_do_not_matter(
            pieces in soup(),
            cuts in prop::collection::vec(any::<bool>(), 1..20),
            in_thought: bool,
            cut: bool,
            with_stop: bool,
        ) {
            let end = if cut { End::Cut } else { End::Turn };
            let stops: &[&str] = if with_stop { &["stop", "p\n", "ä"] } else { &[] };
            let one = run(&pieces, stops, in_thought, end);
            let two = run(&recut(&pieces, &cuts), stops, in_thought, end);
            prop_assert_eq!(&one.text, &two.text);
            prop_assert_eq!(&one.thought, &two.thought);
            prop_assert_eq!(&one.calls, &two.calls);
            prop_assert_eq!(one.cut_call, two.cut_call);
            for stop in stops {
                prop_assert!(!one.text.contains(stop), "{} leaked in {}", stop, one.text);
            }
            if !one.stopped {
                prop_assert_eq!(one.logprobs.len(), pieces.len());
            }
            for (_, arguments) in &one.calls {
                prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_ok());
            }
        }
    }
}
