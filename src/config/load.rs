//! Finds the files, reads them in order, lets later ones win key by key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{Errors, Problem};
use super::keys::{ListTable, TABLES, TOTAL_CONTEXT, Table};
use super::{Config, Place, oidc};

/// Largest configuration file, in bytes. A real one has a few thousand.
const MAX_FILE: u64 = 1 << 20;

/// A configuration and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The files that were read, in order; empty when there is none and the defaults hold.
    pub files: Vec<PathBuf>,
}

/// Reads the configuration: the place's file and its drop-ins, or `explicit` and its drop-ins.
///
/// Drop-ins of `FILE` are `FILE.d/*.toml`, in the order of their names. The default file may be
/// missing, an explicit one may not.
///
/// # Errors
/// Everything that is wrong in any of the files.
pub fn load(explicit: Option<&Path>, place: &Place) -> Result<Loaded, Errors> {
    read_all(
        explicit.unwrap_or(&place.file),
        explicit.is_some(),
        place.defaults.clone(),
    )
}

fn read_all(main: &Path, required: bool, config: Config) -> Result<Loaded, Errors> {
    let mut reader = Reader {
        config,
        ..Reader::default()
    };
    let mut files = vec![];
    let drop_ins = drop_ins(main, &mut reader.problems);
    for (file, required) in std::iter::once((main.to_path_buf(), required))
        .chain(drop_ins.into_iter().map(|file| (file, true)))
    {
        match read(&file) {
            Ok(text) => {
                reader.file(&file, &text);
                files.push(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {}
            Err(error) => reader.problems.push(Problem {
                file,
                line: None,
                text: format!("cannot be read: {error}"),
            }),
        }
    }
    reader.check_together();
    if reader.problems.is_empty() {
        Ok(Loaded {
            config: reader.config,
            files,
        })
    } else {
        Err(Errors(reader.problems))
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells a full file from one that is too long.
    File::open(file)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_FILE} bytes"
        )));
    }
    Ok(text)
}

/// The drop-ins of `main`, sorted by name. Names that begin with a dot are editors' leftovers.
fn drop_ins(main: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut directory = main.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let listed = std::fs::read_dir(&directory).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Ok(mut files) => {
            let hidden = |file: &Path| {
                file.file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            };
            files.retain(|file| file.extension().is_some_and(|end| end == "toml") && !hidden(file));
            files.sort();
            files
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        Err(error) => {
            problems.push(Problem {
                file: directory,
                line: None,
                text: format!("cannot be listed: {error}"),
            });
            vec![]
        }
    }
}

/// Gathers keys and problems over all files.
#[derive(Default)]
struct Reader {
    config: Config,
    problems: Vec<Problem>,
    /// Where each key was set last, for problems that show only in the sum.
    places: BTreeMap<(&'static str, &'static str), (PathBuf, usize)>,
}

impl Reader {
    fn file(&mut self, file: &Path, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map(|span| line_of(text, span.start));
            self.problems.push(Problem {
                file: file.into(),
                line,
                text: format!("this is not TOML: {}", error.message()),
            });
        }
        // What is left of a broken file would only mislead.
        if !errors.is_empty() {
            return;
        }
        // Sorted by place, so that problems come in the order of the file.
        for (name, value) in in_order(document.get_ref()) {
            let at = |span: &std::ops::Range<usize>| line_of(text, span.start);
            if name.get_ref() == oidc::TABLE {
                self.issuers(file, text, value);
                continue;
            }
            let Some(table) = Table::named(name.get_ref()) else {
                self.problem(file, at(&name.span()), unknown_table(name.get_ref()));
                continue;
            };
            match (table.list, value.get_ref()) {
                (None, DeValue::Table(entries)) => self.entries(file, text, table, entries),
                (None, _) => {
                    let text = format!("`{0}` is a table: write its keys under [{0}]", table.name);
                    self.problem(file, at(&name.span()), text);
                }
                (Some(list), DeValue::Array(items))
                    if items.iter().all(|one| one.get_ref().is_table()) =>
                {
                    self.list(file, text, table, list, items);
                }
                (Some(_), _) => {
                    let text = format!(
                        "`{0}` is a list of tables: write the keys of each under [[{0}]]",
                        table.name
                    );
                    self.problem(file, at(&name.span()), text);
                }
            }
        }
    }

    /// One more thing for each item; all of them are tables.
    fn list(
        &mut self,
        file: &Path,
        text: &str,
        table: &'static Table,
        list: &ListTable,
        items: &DeArray<'_>,
    ) {
        for item in items.iter() {
            let problems = self.problems.len();
            (list.begin)(&mut self.config);
            if let DeValue::Table(entries) = item.get_ref() {
                self.entries(file, text, table, entries);
            }
            // What is wrong with one of its keys is not missing besides.
            if problems == self.problems.len()
                && let Some(problem) = (list.problem)(&self.config)
            {
                self.problem(file, line_of(text, item.span().start), problem);
            }
        }
    }

    fn entries(&mut self, file: &Path, text: &str, table: &'static Table, entries: &DeTable<'_>) {
        for (name, value) in in_order(entries) {
            let line = line_of(text, name.span().start);
            self.entry(file, line, table, name.get_ref(), value.get_ref());
        }
    }

    fn entry(
        &mut self,
        file: &Path,
        line: usize,
        table: &'static Table,
        name: &str,
        value: &DeValue<'_>,
    ) {
        let Some(key) = table.key(name) else {
            return self.problem(file, line, unknown_key(table, name));
        };
        if key.set(&mut self.config, value) {
            self.places
                .insert((table.name, key.name), (file.into(), line));
        } else {
            let text = format!(
                "[{}] {name} is {}; allowed is {}",
                table.name,
                show(value),
                key.allowed()
            );
            self.problem(file, line, text);
        }
    }

    /// `[[oidc]]`. Those of several files come together.
    fn issuers(&mut self, file: &Path, text: &str, value: &Spanned<DeValue<'_>>) {
        let line = line_of(text, value.span().start);
        let Some(tables) = value.get_ref().as_array() else {
            let text = "`oidc` is a table for each issuer: write its keys under [[oidc]]";
            return self.problem(file, line, text.into());
        };
        for table in tables.iter() {
            match oidc::read(table) {
                Ok(issuer) => self.config.oidc.push(issuer),
                Err((at, problem)) => {
                    let at = at.unwrap_or(table.span().start);
                    self.problem(file, line_of(text, at), problem);
                }
            }
        }
        if let Err(problem) = oidc::check_all(&self.config.oidc) {
            self.problem(file, line, problem);
        }
    }

    /// What no key can know alone.
    fn check_together(&mut self) {
        let inference = &self.config.inference;
        let context = inference.counted_context();
        let slots = inference.least_slots();
        let total = u64::from(context) * u64::from(slots);
        if total > TOTAL_CONTEXT {
            let text = format!(
                "[inference] context × slots is {context} × {slots} = {total} tokens; allowed are at most {TOTAL_CONTEXT}: lower one of them"
            );
            let places = [("inference", "context"), ("inference", "slots")];
            // Defaults are within the limit, so one of the two was set.
            if let Some((file, line)) = places
                .iter()
                .filter_map(|place| self.places.get(place))
                .next_back()
                .cloned()
            {
                self.problem(&file, line, text);
            }
        }
    }

    fn problem(&mut self, file: &Path, line: usize, text: String) {
        self.problems.push(Problem {
            file: file.into(),
            line: Some(line),
            text,
        });
    }
}

type Entry<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

fn unknown_table(name: &str) -> String {
    let mut tables: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    tables.push(oidc::TABLE);
    let hint = match (
        homes(name).as_slice(),
        closest(name, tables.iter().copied()),
    ) {
        ([home, ..], _) => format!("it belongs under [{home}]"),
        (_, Some(table)) => format!("did you mean [{table}]?"),
        _ => format!("there are [{}]", tables.join("], [")),
    };
    format!("unknown table or key `{name}`: {hint}")
}

fn unknown_key(table: &Table, name: &str) -> String {
    let names = || table.keys.iter().map(|key| key.name);
    let hint = match (homes(name).as_slice(), closest(name, names())) {
        ([home, ..], _) => format!("it belongs under [{home}]"),
        (_, Some(close)) => format!("did you mean `{close}`?"),
        _ => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("unknown key `{name}` in [{}]: {hint}", table.name)
}

/// The tables that have a key of this name.
fn homes(name: &str) -> Vec<&'static str> {
    TABLES
        .iter()
        .filter(|table| table.key(name).is_some())
        .map(|table| table.name)
        .collect()
}

/// The word of `known` that `name` is a misspelling of.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, two words have too little in common to be each other's misspelling.
    const LIKENESS: f64 = 0.6;
    let scored = known.map(|word| (strsim::normalized_damerau_levenshtein(name, word), word));
    scored
        .filter(|(score, _)| *score >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// A value as it is named in a message: short, on one line.
fn show(value: &DeValue<'_>) -> String {
    /// Characters of a value that a message repeats.
    const SHOWN: usize = 60;
    match value {
        DeValue::String(text) if text.chars().count() > SHOWN => {
            format!("a string of {} bytes", text.len())
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string().chars().take(SHOWN).collect(),
        DeValue::Float(number) => number.to_string().chars().take(SHOWN).collect(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(items) if items.is_empty() => "an empty array".into(),
        DeValue::Array(items) if items.len() == 1 => format!("[{}]", show(items[0].get_ref())),
        DeValue::Array(items) => format!("an array of {} values", items.len()),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
