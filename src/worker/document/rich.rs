//! RTF: text between control words, which say what it is.

mod words;

use encoding_rs::{Encoding, WINDOWS_1252};

use super::Pages;
use super::blocks::{Blocks, Table, link};
use words::{HIDDEN, of_charset, of_codepage};

/// Groups within each other.
const MAX_DEPTH: usize = 1000;
/// Fonts whose characters are looked up.
const MAX_FONTS: usize = 4096;

pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let mut rich = Rich::default();
    let complete = rich.read(bytes)?;
    rich.end_paragraph();
    rich.end_table();
    let notes = std::mem::take(&mut rich.notes);
    for note in notes {
        rich.out.paragraph(&note);
    }
    let out = rich.out;
    let unseen = out.unseen > 0;
    pages.cut |= out.cut || !complete;
    pages.push(out.finish(), unseen, None);
    Ok(1)
}

/// What a group has of its own.
#[derive(Clone, Copy)]
struct Group {
    kind: Kind,
    /// By which bytes become characters.
    encoding: &'static Encoding,
    /// Characters behind one in Unicode that stand for it elsewhere.
    skipped: usize,
    is_hidden: bool,
    in_table: bool,
    item: Option<usize>,
    heading: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// Nothing of it is read.
    Hidden,
    Fonts,
    Picture,
    /// Of a field.
    Instruction,
    Result,
    Note,
    Edge,
    /// Of an item of a list: its number, or a sign.
    Marker,
}

struct Rich {
    out: Blocks,
    groups: Vec<Group>,
    text: String,
    /// Bytes that are not yet characters.
    bytes: Vec<u8>,
    /// Characters that are still to be passed over.
    skip: usize,
    /// Half of a character in UTF-16.
    half: Option<u16>,
    usual: &'static Encoding,
    /// The font that is described, and those that were.
    font: i32,
    fonts: Vec<(i32, &'static Encoding)>,
    table: Table,
    cells: Vec<String>,
    instruction: String,
    marker: String,
    /// Where results of fields, and notes, begin in the text.
    starts: Vec<usize>,
    notes: Vec<String>,
}

impl Default for Rich {
    fn default() -> Self {
        Self {
            out: Blocks::default(),
            groups: vec![],
            text: String::new(),
            bytes: vec![],
            skip: 0,
            half: None,
            usual: WINDOWS_1252,
            font: 0,
            fonts: vec![],
            table: Table::default(),
            cells: vec![],
            instruction: String::new(),
            marker: String::new(),
            starts: vec![],
            notes: vec![],
        }
    }
}

impl Rich {
    /// Whether the file has its end.
    fn read(&mut self, file: &[u8]) -> Result<bool, String> {
        let mut at = 0;
        while let Some(&byte) = file.get(at) {
            at += 1;
            if self.out.is_full() {
                self.out.cut = true;
                return Ok(true);
            }
            match byte {
                b'{' => self.begin()?,
                b'}' => {
                    self.end();
                    if self.groups.is_empty() {
                        return Ok(true);
                    }
                }
                b'\\' => at = self.control(file, at),
                b'\r' | b'\n' => {}
                byte => self.byte(byte),
            }
        }
        Ok(false)
    }

    fn group(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push(Group {
                kind: Kind::Text,
                encoding: self.usual,
                skipped: 1,
                is_hidden: false,
                in_table: false,
                item: None,
                heading: None,
            });
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn begin(&mut self) -> Result<(), String> {
        self.flush();
        self.skip = 0;
        if self.groups.len() == MAX_DEPTH {
            return Err(format!("has groups more than {MAX_DEPTH} deep"));
        }
        if self.groups.is_empty() {
            self.group();
            return Ok(());
        }
        let group = *self.group();
        self.groups.push(group);
        Ok(())
    }

    fn end(&mut self) {
        self.flush();
        self.skip = 0;
        let Some(group) = self.groups.pop() else {
            return;
        };
        let outer = self.groups.last().map(|outer| outer.kind);
        if outer == Some(group.kind) {
            return;
        }
        match group.kind {
            Kind::Result | Kind::Note => {
                let start = self
                    .starts
                    .pop()
                    .filter(|start| self.text.is_char_boundary(*start));
                let Some(start) = start.filter(|start| *start <= self.text.len()) else {
                    return;
                };
                let inside = self.text.split_off(start);
                if group.kind == Kind::Note {
                    let mark = format!("[^{}]", self.notes.len() + 1);
                    self.notes.push(format!("{mark}: {}", inside.trim()));
                    self.text += &mark;
                    return;
                }
                let instruction = std::mem::take(&mut self.instruction);
                let address = instruction.trim().strip_prefix("HYPERLINK").map(|rest| {
                    let rest = rest.trim();
                    rest.trim_start_matches('"')
                        .split('"')
                        .next()
                        .unwrap_or_default()
                });
                self.text += &link(&inside, address);
            }
            Kind::Picture => {
                let mark = self.out.unseen("picture", "");
                self.text += &mark;
            }
            Kind::Edge => self.end_paragraph(),
            _ => {}
        }
    }

    /// A byte of text.
    fn byte(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.is_said() {
            self.bytes.push(byte);
        }
    }

    fn is_said(&mut self) -> bool {
        let group = *self.group();
        !group.is_hidden && !matches!(group.kind, Kind::Hidden | Kind::Fonts | Kind::Picture)
    }

    /// Makes characters of the bytes that were read.
    fn flush(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let group = *self.group();
        let (text, _) = group.encoding.decode_without_bom_handling(&bytes);
        self.push(&text);
    }

    fn push(&mut self, text: &str) {
        match self.group().kind {
            Kind::Instruction => self.instruction += text,
            Kind::Marker => self.marker += text,
            Kind::Hidden | Kind::Fonts | Kind::Picture => {}
            Kind::Text | Kind::Result | Kind::Note | Kind::Edge => self.text += text,
        }
    }

    /// A control word or sign behind a backslash; where the text goes on.
    fn control(&mut self, file: &[u8], at: usize) -> usize {
        let rest = &file[at..];
        let Some(&first) = rest.first() else {
            return at;
        };
        if !first.is_ascii_alphabetic() {
            if first == b'\'' {
                let digits = rest
                    .get(1..3)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    self.byte(byte);
                    return at + 3;
                }
                return at + 1;
            }
            match first {
                b'\\' | b'{' | b'}' => self.byte(first),
                b'~' => self.sign("\u{A0}"),
                b'_' => self.sign("-"),
                b'*' => self.unknown(&rest[1..]),
                b'\r' | b'\n' => self.end_paragraph(),
                _ => {}
            }
            return at + 1;
        }
        let letters = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic())
            .count()
            .min(32);
        let word = std::str::from_utf8(&rest[..letters]).unwrap_or_default();
        let number = &rest[letters..];
        let sign = usize::from(number.first() == Some(&b'-'));
        let digits = number[sign..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let length = if digits == 0 { 0 } else { sign + digits };
        let value = std::str::from_utf8(&number[..length])
            .ok()
            .and_then(|text| text.parse().ok());
        let mut next = at + letters + length;
        next += usize::from(file.get(next) == Some(&b' '));
        if word == "bin" {
            // So many bytes of a picture.
            let count = value
                .and_then(|count: i32| usize::try_from(count).ok())
                .unwrap_or(0);
            return next.saturating_add(count).min(file.len());
        }
        self.word(word, value);
        next
    }

    /// A group whose first word not everybody knows: those that are read are known here.
    fn unknown(&mut self, rest: &[u8]) {
        let known = ["\\fldinst", "\\shppict", "\\shptxt", "\\footnote"];
        if !known
            .iter()
            .any(|word| rest.trim_ascii_start().starts_with(word.as_bytes()))
        {
            self.group().kind = Kind::Hidden;
        }
    }

    fn sign(&mut self, text: &str) {
        self.flush();
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.is_said() {
            self.push(text);
        }
    }

    fn word(&mut self, word: &str, value: Option<i32>) {
        self.flush();
        let group = *self.group();
        let on = value != Some(0);
        match word {
            _ if group.kind == Kind::Hidden => {}
            "fonttbl" => self.group().kind = Kind::Fonts,
            "f" if group.kind == Kind::Fonts => self.font = value.unwrap_or(0),
            "fcharset" => {
                if let Some(encoding) = value.and_then(of_charset)
                    && self.fonts.len() < MAX_FONTS
                {
                    self.fonts.push((self.font, encoding));
                }
            }
            "f" => {
                let font = value.unwrap_or(0);
                let found = self.fonts.iter().rev().find(|(number, _)| *number == font);
                self.group().encoding = found.map_or(self.usual, |(_, encoding)| encoding);
            }
            "ansicpg" => {
                self.usual = value.and_then(of_codepage).unwrap_or(self.usual);
                self.group().encoding = self.usual;
            }
            "mac" => {
                self.usual = encoding_rs::MACINTOSH;
                self.group().encoding = self.usual;
            }
            "uc" => {
                self.group().skipped = value
                    .and_then(|count| usize::try_from(count).ok())
                    .unwrap_or(1)
                    .min(16)
            }
            "u" => self.unit(value.unwrap_or(0)),
            "v" | "deleted" => self.group().is_hidden = on,
            "plain" => self.group().is_hidden = false,
            "pict" | "nonshppict" => {
                // The second is the first once more.
                self.group().kind = if word == "pict" {
                    Kind::Picture
                } else {
                    Kind::Hidden
                };
            }
            "fldinst" => {
                self.instruction.clear();
                self.group().kind = Kind::Instruction;
            }
            "fldrslt" => {
                self.starts.push(self.text.len());
                self.group().kind = Kind::Result;
            }
            "footnote" => {
                self.starts.push(self.text.len());
                self.group().kind = Kind::Note;
            }
            "header" | "headerl" | "headerr" | "headerf" | "footer" | "footerl" | "footerr"
            | "footerf" => {
                self.end_paragraph();
                self.group().kind = Kind::Edge;
            }
            "listtext" | "pntext" => self.group().kind = Kind::Marker,
            "shptxt" => self.group().kind = Kind::Edge,
            word if HIDDEN.contains(&word) => self.group().kind = Kind::Hidden,
            word => self.layout(word, value),
        }
    }

    /// Words that stand for signs, and ends of paragraphs and cells.
    fn layout(&mut self, word: &str, value: Option<i32>) {
        let text = match word {
            "tab" => "\t",
            "line" | "lbr" | "softline" => "\n",
            "emdash" => "\u{2014}",
            "endash" => "\u{2013}",
            "lquote" => "\u{2018}",
            "rquote" => "\u{2019}",
            "ldblquote" => "\u{201C}",
            "rdblquote" => "\u{201D}",
            "bullet" => "\u{2022}",
            "emspace" | "enspace" | "qmspace" => " ",
            "par" | "page" | "sect" => return self.end_paragraph(),
            "cell" | "nestcell" => {
                let text = std::mem::take(&mut self.text);
                self.starts.clear();
                return self.cells.push(text);
            }
            "row" | "nestrow" => return self.end_row(),
            "pard" => {
                let group = self.group();
                (group.in_table, group.item, group.heading) = (false, None, None);
                return;
            }
            "intbl" => return self.group().in_table = true,
            "ls" => {
                let group = self.group();
                return group.item = group.item.or(Some(0));
            }
            "ilvl" => {
                return self.group().item = value.and_then(|level| usize::try_from(level).ok());
            }
            "outlinelevel" => {
                let level = value.and_then(|level| usize::try_from(level).ok());
                return self.group().heading =
                    level.filter(|level| *level < 9).map(|level| level + 1);
            }
            _ => return,
        };
        self.sign(text);
    }

    /// A unit of UTF-16.
    fn unit(&mut self, value: i32) {
        let unit = value as u16;
        self.skip = self.group().skipped;
        if !self.is_said() {
            return;
        }
        let units = [self.half.take(), Some(unit)];
        if self.half.is_none() && (0xD800..0xDC00).contains(&unit) {
            self.half = Some(unit);
            return;
        }
        let text: String = char::decode_utf16(units.into_iter().flatten())
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        self.push(&text);
    }

    fn end_paragraph(&mut self) {
        self.flush();
        let group = *self.group();
        if matches!(group.kind, Kind::Note | Kind::Result) {
            return self.text.push('\n');
        }
        if group.in_table {
            // Within a cell.
            return self.text.push('\n');
        }
        self.end_table();
        let text = std::mem::take(&mut self.text);
        self.starts.clear();
        let marker = std::mem::take(&mut self.marker);
        let item = group.item.or((!marker.is_empty()).then_some(0));
        // Bullets are of many shapes.
        let is_number = marker.contains(char::is_alphanumeric) && marker.trim() != "o";
        let marker = if is_number { marker.trim() } else { "-" };
        match (group.heading, item) {
            (Some(level), _) => self.out.heading(level, &text),
            (None, Some(depth)) => self.out.item(depth, marker, &text),
            (None, None) => self.out.paragraph(&text),
        }
    }

    fn end_row(&mut self) {
        self.flush();
        self.table.row();
        for cell in std::mem::take(&mut self.cells) {
            self.table.cell(&cell);
        }
    }

    fn end_table(&mut self) {
        if !self.cells.is_empty() {
            self.end_row();
        }
        if !self.table.is_empty() {
            self.out.table(std::mem::take(&mut self.table));
        }
    }
}
