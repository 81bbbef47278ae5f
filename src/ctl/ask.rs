//! `gemmactl ask`: one prompt, one answer.

use std::io::{self, IsTerminal, Read};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::answer::Question;
use super::args::AskArgs;
use super::blame::{Origin, option};
use super::client::Client;
use super::error::Error;
use super::form;
use super::input;
use super::media::{self, Attached, attach};
use super::text::{Printer, Terminal};
use super::wire::{ask_for_progress, chat_body, message, message_with_media};

/// Bytes of a prompt at most; the daemon's own limit for a whole request is 32 MiB unless it is
/// changed.
const MAX_PROMPT: usize = 64 << 20;

pub fn run(
    args: &AskArgs,
    client: &dyn Client,
    runtime: &Runtime,
    terminal: &Terminal,
) -> Result<(), Error> {
    let attached = attached(args)?;
    let takes_input = args
        .image
        .iter()
        .chain(&args.audio)
        .chain(&args.file)
        .any(|path| media::is_input(path));
    let shows_files = args.show_input && !attached.is_empty();
    let prompt = if takes_input || shows_files {
        assemble(&args.prompt, None).or(shows_files.then(String::new))
    } else {
        prompt(&args.prompt, terminal)?
    };
    let prompt = prompt.ok_or_else(|| {
        Error::Usage("there is no prompt: give some words, or text on standard input".into())
    })?;
    let system = args
        .conversation
        .system
        .as_deref()
        .map(|text| message("system", text));
    let before = system.iter().map(|_| vec![]);
    let (names, parts): (Vec<_>, Vec<_>) = attached
        .into_iter()
        .map(|file| (file.name, file.part))
        .unzip();
    let origin = Origin {
        files: before.chain([names]).collect(),
        schema: args.schema.as_deref().map(|path| option("schema", path)),
        tools: args.tools.as_deref().map(|path| option("tools", path)),
    };
    let question = message_with_media(parts, &prompt);
    let messages: Vec<Value> = system.into_iter().chain([question]).collect();
    let conversation = &args.conversation;
    let mut body = chat_body(
        &conversation.model,
        &messages,
        &conversation.sampling,
        conversation.thinks(),
        !args.json,
    );
    if !args.json && !args.show_input && terminal.shows_waiting() {
        ask_for_progress(&mut body);
    }
    hold_to(&mut body, args)?;
    let work = async {
        if args.show_input {
            print_input(client, &body, args.json, terminal).await
        } else if args.json {
            print_json(client, &body, terminal).await
        } else {
            print_text(client, &body, args, terminal).await
        }
    };
    let done = runtime.block_on(async {
        match args.timeout {
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or(Err(Error::TimedOut { limit })),
            None => work.await,
        }
    });
    done.map_err(|error| origin.explain(error))
}

/// Adds the form that the answer is to have, and the tools.
fn hold_to(body: &mut Value, args: &AskArgs) -> Result<(), Error> {
    if let Some(path) = &args.schema {
        let schema = form::schema(form::read(path)?, path)?;
        body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema } });
    }
    if let Some(path) = &args.tools {
        body["tools"] = form::tools(form::read(path)?, path)?;
    }
    Ok(())
}

/// The pictures, then the sounds, then the files. One of them may come from standard input.
fn attached(args: &AskArgs) -> Result<Vec<Attached>, Error> {
    if args
        .image
        .iter()
        .chain(&args.audio)
        .chain(&args.file)
        .filter(|path| media::is_input(path))
        .count()
        > 1
    {
        return Err(Error::Usage(
            "standard input can be one picture, sound or file, not several".into(),
        ));
    }
    let pictures = args.image.iter().map(|path| attach(path, media::picture));
    let sounds = args.audio.iter().map(|path| attach(path, media::sound));
    let files = args.file.iter().map(|path| attach(path, media::document));
    pictures.chain(sounds).chain(files).collect()
}

async fn print_input(
    client: &dyn Client,
    body: &Value,
    as_json: bool,
    terminal: &Terminal,
) -> Result<(), Error> {
    let input = client.input(body).await?;
    let text = match as_json {
        true => format!("{input:#}\n"),
        false => input::shown(&input),
    };
    super::write_out(terminal.out.clean(&text).as_bytes())
}

async fn print_json(client: &dyn Client, body: &Value, terminal: &Terminal) -> Result<(), Error> {
    let answer = client.chat(body).await?;
    super::write_out(format!("{}\n", terminal.out.clean(&format!("{answer:#}"))).as_bytes())
}

async fn print_text(
    client: &dyn Client,
    body: &Value,
    args: &AskArgs,
    terminal: &Terminal,
) -> Result<(), Error> {
    // Standard output's own buffer would hold a line back until its end; the printer flushes every
    // piece.
    let mut printer = Printer::new(io::stdout(), io::stderr(), *terminal).bare(args.no_newline);
    let mut said = String::new();
    let question = Question {
        client,
        body,
        thoughts: args.conversation.show_thoughts,
        printer: &mut printer,
        said: &mut said,
    };
    let result = question.stream().await;
    // A refusal needs no empty line before it; an answer that broke off needs its line ended.
    if result.is_ok() || !said.is_empty() {
        printer.end().map_err(Error::from_output)?;
    }
    result?.remark(args.conversation.verbose, terminal);
    Ok(())
}

/// What to ask; `None` if nobody said.
fn prompt(words: &[String], terminal: &Terminal) -> Result<Option<String>, Error> {
    let only_input = words.is_empty() || words == ["-"];
    let input = io::stdin();
    if only_input && input.is_terminal() {
        terminal.remark("(type the prompt, end it with Ctrl-D on a line of its own)");
    }
    let input = if only_input || !input.is_terminal() {
        Some(read(input.lock())?)
    } else {
        None
    };
    let words = if only_input { &[] } else { words };
    Ok(assemble(words, input.as_deref()))
}

/// Words, then an empty line, then the input, each where there is any; `None` when there is
/// neither.
fn assemble(words: &[String], input: Option<&str>) -> Option<String> {
    let words = words.join(" ");
    let input = input.unwrap_or_default().trim_end_matches(['\n', '\r']);
    match (words.trim().is_empty(), input.trim().is_empty()) {
        (true, true) => None,
        (false, true) => Some(words),
        (true, false) => Some(input.into()),
        (false, false) => Some(format!("{words}\n\n{input}")),
    }
}

fn read(input: impl Read) -> Result<String, Error> {
    let mut bytes = vec![];
    input
        .take(MAX_PROMPT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::Output)?;
    if bytes.len() > MAX_PROMPT {
        return Err(Error::Usage(format!(
            "standard input holds more than {} MiB: too much for a prompt",
            MAX_PROMPT >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::Usage(format!(
            "standard input is not UTF-8 text (byte {at}): convert it first, for example with iconv"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_words_then_input() {
        let words = |text: &[&str]| text.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let cases: &[(&[&str], Option<&str>, Option<&str>)] = &[
            (&["why", "is it"], None, Some("why is it")),
            (&["sum up:"], Some("a\nb\n"), Some("sum up:\n\na\nb")),
            (&["sum up:"], Some(""), Some("sum up:")),
            (&["sum up:"], Some("\n \n"), Some("sum up:")),
            (&[], Some("a\r\n\n"), Some("a")),
            (&[], Some("  a"), Some("  a")),
            (&[], Some("\n"), None),
            (&[" "], Some(""), None),
            (&[], None, None),
        ];
        for (given, input, expected) in cases {
            assert_eq!(
                assemble(&words(given), *input).as_deref(),
                *expected,
                "{given:?} {input:?}"
            );
        }
    }

    #[test]
    fn input_that_is_no_text_is_refused() {
        assert_eq!(read(&b"a\xc3\xa4"[..]).unwrap(), "aä");
        assert!(matches!(read(&b"ab\xff"[..]), Err(Error::Usage(text)) if text.contains("byte 2")));
        assert!(
            matches!(read(io::repeat(b'x')), Err(Error::Usage(text)) if text.contains("64 MiB"))
        );
    }
}
