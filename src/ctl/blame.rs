//! A refusal in the words of the command line: the daemon blames a field of the request, which nobody
//! typed; here it becomes the option or the file that it was made of. Pure.

use std::path::Path;

use super::error::Error;
use super::settings;

/// What a request was made of, as it was typed.
#[derive(Debug, Default)]
pub struct Origin {
    /// Of each message the files that come before its words, in their order.
    pub files: Vec<Vec<String>>,
    pub schema: Option<String>,
    pub tools: Option<String>,
}

impl Origin {
    /// The refusal of a field that an option or a file stands for is a mistake in that one; any other
    /// error stays as it is.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Refused {
            message,
            field: Some(field),
        } = &error
        else {
            return error;
        };
        let Some(typed) = self.typed(field) else {
            return error;
        };
        let quoted = format!("`{field}`");
        Error::Usage(if message.contains(&quoted) {
            // Where in a file of functions it is, is worth knowing.
            let inside = field.strip_prefix("tools").unwrap_or_default();
            let typed = match inside {
                "" => typed,
                inside => format!("{typed}: `{inside}`"),
            };
            message.replace(&quoted, &typed)
        } else {
            format!("{typed}: {message}")
        })
    }

    /// What was typed for a field.
    fn typed(&self, field: &str) -> Option<String> {
        let end = field.find(['.', '[']).unwrap_or(field.len());
        match &field[..end] {
            "messages" => {
                let (message, rest) = index(&field[end..])?;
                let (part, _) = index(rest.strip_prefix(".content")?)?;
                self.files.get(message)?.get(part).cloned()
            }
            "response_format" => self.schema.clone(),
            "tools" => self.tools.clone(),
            name => {
                let option = name.replace('_', "-");
                settings::names()
                    .contains(&option)
                    .then(|| format!("--{option}"))
            }
        }
    }
}

/// The number in brackets at the beginning of a path, and what follows.
fn index(path: &str) -> Option<(usize, &str)> {
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest))
}

/// How an option that names a file was typed.
pub fn option(name: &str, file: &Path) -> String {
    format!("--{name} {}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(field: Option<&str>, message: &str) -> Error {
        let origin = Origin {
            files: vec![vec![], vec!["a.png".into(), "b c.txt".into()]],
            schema: Some(option("schema", Path::new("s.json"))),
            tools: Some(option("tools", Path::new("t.json"))),
        };
        origin.explain(Error::Refused {
            message: message.into(),
            field: field.map(Into::into),
        })
    }

    #[test]
    fn fields_become_what_was_typed() {
        for (field, message, expected) in [
            (
                "messages[1].content[1].file.file_data",
                "`messages[1].content[1].file.file_data` is empty",
                "b c.txt is empty",
            ),
            (
                "messages[1].content[0].image_url",
                "the model cannot see: it has no projector",
                "a.png: the model cannot see: it has no projector",
            ),
            (
                "response_format.json_schema.schema",
                "the answer's format at `/a` is wrong",
                "--schema s.json: the answer's format at `/a` is wrong",
            ),
            (
                "tools[0].function.name",
                "`tools[0].function.name` is missing",
                "--tools t.json: `[0].function.name` is missing",
            ),
            ("stop", "`stop` has 17 entries", "--stop has 17 entries"),
            ("top_p", "`top_p` must be less", "--top-p must be less"),
        ] {
            let told = explained(Some(field), message);
            assert!(
                matches!(&told, Error::Usage(text) if text == expected),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_was_not_typed_stays_the_daemons() {
        for field in [
            None,
            Some("model"),
            Some("messages"),
            Some("messages[1].content"),
            Some("messages[1].content[2].text"),
            Some("messages[7].content[0]"),
            Some(""),
        ] {
            let told = explained(field, "no");
            assert!(matches!(told, Error::Refused { .. }), "{told:?}");
        }
    }
}
