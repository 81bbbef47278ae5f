//! Text in the making: headings, paragraphs, lists and tables, as Markdown. Pure.

use std::fmt::Write;

use crate::ipc::EXTRACT_TEXT;

/// Columns of a table.
const MAX_COLUMNS: usize = 256;
/// A list is indented no deeper.
const MAX_INDENT: usize = 8;

/// What was read of a file, or of a cell in it.
#[derive(Debug, Default)]
pub struct Blocks {
    text: String,
    in_list: bool,
    /// Pictures and the like that are not shown.
    pub unseen: u32,
    /// Something was left out for lack of room.
    pub cut: bool,
}

impl Blocks {
    /// Whether more would be left out anyway.
    pub fn is_full(&self) -> bool {
        self.text.len() > EXTRACT_TEXT
    }

    pub fn heading(&mut self, level: usize, text: &str) {
        let text = one_line(text);
        if !text.is_empty() {
            self.begin(false);
            self.text += &"#".repeat(level.clamp(1, 6));
            self.text.push(' ');
            self.text += &text;
        }
    }

    pub fn paragraph(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.begin(false);
            self.text += text;
        }
    }

    /// An item of a list, after its marker: `-`, `3.` or the like.
    pub fn item(&mut self, depth: usize, marker: &str, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.begin(true);
            let indent = "  ".repeat(depth.min(MAX_INDENT));
            let rest = text.replace('\n', &format!("\n{indent}  "));
            let _ = write!(self.text, "{indent}{marker} {rest}");
        }
    }

    /// Lines that stay as they are.
    pub fn code(&mut self, language: &str, code: &str) {
        let code = code.trim_end();
        if !code.trim().is_empty() {
            // As many as it takes.
            let mut fence = "```".to_owned();
            while code.contains(&fence) {
                fence.push('`');
            }
            self.begin(false);
            let _ = write!(self.text, "{fence}{language}\n{code}\n{fence}");
        }
    }

    pub fn table(&mut self, table: Table) {
        self.cut |= table.is_full();
        let mut rows = table.rows;
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        self.cut |= columns > MAX_COLUMNS;
        let columns = columns.min(MAX_COLUMNS);
        if columns == 1 && rows.len() == 1 {
            // A frame around text.
            return self.paragraph(&rows[0][0].replace("<br>", "\n").replace("\\|", "|"));
        }
        if !rows.is_empty() {
            self.begin(false);
        }
        for (i, row) in rows.iter().enumerate() {
            if self.is_full() {
                self.cut = true;
                return;
            }
            for column in 0..columns {
                self.text += if column == 0 { "| " } else { " | " };
                self.text += row.get(column).map_or("", |cell| cell);
            }
            self.text += " |\n";
            if i == 0 {
                self.text += &"| --- ".repeat(columns);
                self.text += "|\n";
            }
        }
        self.text.truncate(self.text.trim_end_matches('\n').len());
    }

    /// Stands for something that is to be seen and is not shown: `what`, with what is said of it.
    pub fn unseen(&mut self, what: &str, said: &str) -> String {
        self.unseen += 1;
        match one_line(said) {
            said if said.is_empty() => format!("[{what} {}, not shown]", self.unseen),
            said => format!("[{what} {}, not shown: {said}]", self.unseen),
        }
    }

    /// Blocks that will be a cell of a table, or the like, in these.
    pub fn inner(&mut self) -> Self {
        Self {
            unseen: self.unseen,
            ..Self::default()
        }
    }

    /// The text of what [`Blocks::inner`] made.
    pub fn take(&mut self, inner: Self) -> String {
        self.unseen = inner.unseen;
        self.cut |= inner.cut;
        inner.text
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, is_item: bool) {
        if !self.text.is_empty() {
            let is_list = is_item && self.in_list;
            self.text += if is_list { "\n" } else { "\n\n" };
        }
        self.in_list = is_item;
    }
}

/// Rows of cells.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    bytes: usize,
}

impl Table {
    pub fn row(&mut self) {
        if !self.is_full() {
            self.bytes += 4;
            self.rows.push(vec![]);
        }
    }

    /// A cell of the last row.
    pub fn cell(&mut self, text: &str) {
        if let Some(row) = self.rows.last_mut()
            && self.bytes <= EXTRACT_TEXT
        {
            let text = text.trim().replace('|', "\\|");
            let lines: Vec<_> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            let cell = lines.join("<br>");
            self.bytes += cell.len() + 3;
            row.push(cell);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether more would be left out anyway.
    pub fn is_full(&self) -> bool {
        self.bytes > EXTRACT_TEXT
    }
}

/// A link as Markdown has it; the text alone where it leads to a place in the file.
pub fn link(text: &str, address: Option<&str>) -> String {
    let address = address.map(str::trim).filter(|address| {
        let lower = address.to_ascii_lowercase();
        ["http:", "https:", "mailto:", "tel:", "ftp:"]
            .iter()
            .any(|begin| lower.starts_with(begin))
    });
    match address {
        None => text.into(),
        Some(address) if text.trim().is_empty() || text.trim() == address => address.into(),
        Some(address) if address.strip_prefix("mailto:") == Some(text.trim()) => text.into(),
        Some(address) => format!("[{text}]({address})"),
    }
}

/// Without line breaks and with single blanks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
