//! `gemmactl transcribe`: a sound, written down.

use std::io;

use serde_json::Value;
use tokio::runtime::Runtime;

use super::args::{TranscribeArgs, Transcript};
use super::client::Client;
use super::error::Error;
use super::media;
use super::text::{Printer, Terminal};
use super::upload::Form;
use super::wire;

pub fn run(
    args: &TranscribeArgs,
    client: &dyn Client,
    runtime: &Runtime,
    terminal: &Terminal,
) -> Result<(), Error> {
    let format = match args.format {
        Transcript::Text => ("stream", "true"),
        Transcript::Srt => ("response_format", "srt"),
        Transcript::Vtt => ("response_format", "vtt"),
        Transcript::Json => ("response_format", "verbose_json"),
    };
    let mut fields = vec![("model", args.model.as_str()), format];
    fields.extend(args.language.as_deref().map(|code| ("language", code)));
    fields.extend(args.prompt.as_deref().map(|text| ("prompt", text)));
    let form = Form::new(&fields, &media::sound_file(&args.file)?);
    let done = runtime.block_on(async {
        match args.format {
            Transcript::Text => print_text(client, form, terminal).await,
            _ => {
                let text = client.transcript(form).await?;
                super::write_out(terminal.out.clean(&text).as_bytes())
            }
        }
    });
    done.map_err(|error| explained(error, args))
}

async fn print_text(client: &dyn Client, form: Form, terminal: &Terminal) -> Result<(), Error> {
    let mut printer = Printer::new(io::stdout(), io::stderr(), *terminal);
    let mut events = client.transcribe(form).await?;
    let mut said = false;
    let ended = loop {
        let data = match events.next().await {
            Ok(Some(data)) => data,
            Ok(None) => break Err(Error::broken("the transcript has no end")),
            Err(error) => break Err(error),
        };
        match event(&data) {
            Ok(Some(delta)) => {
                said = true;
                printer.text(&delta).map_err(Error::from_output)?;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if said {
        printer.end().map_err(Error::from_output)?;
    }
    ended
}

/// What an event adds to the text; `None` at the end.
fn event(data: &str) -> Result<Option<String>, Error> {
    let event: Value = serde_json::from_str(data)
        .map_err(|error| Error::broken(format!("it sent no valid event: {error}")))?;
    match event["type"].as_str() {
        Some("transcript.text.delta") => {
            Ok(Some(event["delta"].as_str().unwrap_or_default().to_owned()))
        }
        Some("transcript.text.done") => Ok(None),
        _ => {
            let (message, field) = wire::error(data.as_bytes());
            let message =
                message.unwrap_or_else(|| "it failed for a reason that was not told".into());
            Err(Error::Refused { message, field })
        }
    }
}

/// What is wrong with a field of the form, said of what was typed.
fn explained(error: Error, args: &TranscribeArgs) -> Error {
    let Error::Refused {
        message,
        field: Some(field),
    } = &error
    else {
        return error;
    };
    let typed = match field.as_str() {
        "file" => media::name(&args.file),
        "language" | "prompt" | "model" => format!("--{field}"),
        _ => return error,
    };
    let quoted = format!("`{field}`");
    Error::Usage(match message.strip_prefix(&quoted) {
        Some(what) => format!("{typed}{what}"),
        None => format!("{typed}: {message}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let delta = r#"{"type":"transcript.text.delta","delta":" a"}"#;
        assert_eq!(event(delta).unwrap().as_deref(), Some(" a"));
        let done = r#"{"type":"transcript.text.done","text":"a"}"#;
        assert_eq!(event(done).unwrap(), None);
        let error = r#"{"error":{"message":"no more","param":null}}"#;
        assert!(
            matches!(event(error), Err(Error::Refused { message, .. }) if message == "no more")
        );
        assert!(matches!(event("x"), Err(Error::Broken { .. })));
    }
}
