//! Web pages: what a reader of the page would see as text.

use std::mem;

use html2text::config::{self, Config};
use html2text::render::PlainDecorator;
use html2text::{Element, Error, Handle, RcDom};

use super::{Pages, encoding};
use crate::ipc::Sight;

/// Characters in a line before it is broken: lines mean nothing here, so only to keep tables
/// narrow.
const WIDTH: usize = 400;

pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let page = encoding::page(bytes);
    pages.encoding = Some(page.encoding);
    let text =
        seen(&page.text).map_err(|error| format!("is no web page that can be read: {error}"))?;
    pages.push(text, Sight::Told);
    Ok(1)
}

/// The page's title, and below it what the page shows.
pub fn seen(html: &str) -> Result<String, Error> {
    let page = Page {
        config: config::plain_no_decorate()
            .no_link_wrapping()
            .no_table_borders(),
    };
    let dom = page.config.parse_html(html.as_bytes())?;
    let title = match find(&dom.document, |node| is(node, "title")) {
        Some(title) => page.text_of(&title)?,
        None => String::new(),
    };
    remove_hidden(&dom.document);
    page.unfold_tables(&dom.document)?;
    let text = page.text(&dom)?;
    Ok(match title.trim() {
        "" => text,
        title if first_heading(&text).starts_with(title) => text,
        title => format!("{title}\n\n{text}"),
    })
}

struct Page {
    config: Config<PlainDecorator>,
}

impl Page {
    fn text(&self, dom: &RcDom) -> Result<String, Error> {
        match self.config.dom_to_render_tree(dom) {
            Ok(tree) => self.config.render_to_string(tree, WIDTH),
            // There is nothing to be seen.
            Err(Error::Fail) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// What is in an element, as if it stood alone.
    fn text_of(&self, element: &Handle) -> Result<String, Error> {
        let [block] = &self.blocks(1)?[..] else {
            return Ok(String::new());
        };
        let content = element.children.borrow().clone();
        *block.children.borrow_mut() = content;
        let dom = RcDom {
            document: block.clone(),
            ..RcDom::default()
        };
        let text = self.text(&dom);
        // Nodes that are dropped take what is below them along.
        block.children.borrow_mut().clear();
        text
    }

    /// New elements without content: the library lets others make none but by parsing.
    fn blocks(&self, count: usize) -> Result<Vec<Handle>, Error> {
        let dom = self
            .config
            .parse_html("<div></div>".repeat(count).as_bytes())?;
        let body = find(&dom.document, |node| is(node, "body"));
        Ok(body.map_or(vec![], |body| mem::take(&mut *body.children.borrow_mut())))
    }

    /// Puts the cells of tables below each other that would be broken beside each other, and then
    /// be read across: those that lay out a page, and those with long texts.
    fn unfold_tables(&self, root: &Handle) -> Result<(), Error> {
        let mut ahead = vec![root.clone()];
        while let Some(node) = ahead.pop() {
            let tables = || {
                node.children
                    .borrow()
                    .iter()
                    .any(|child| is(child, "table"))
            };
            if tables() {
                let children = mem::take(&mut *node.children.borrow_mut());
                let mut unfolded = Vec::with_capacity(children.len());
                for child in children {
                    match is(&child, "table") {
                        true => unfolded.extend(self.unfolded(child)?),
                        false => unfolded.push(child),
                    }
                }
                *node.children.borrow_mut() = unfolded;
            }
            ahead.extend(node.children.borrow().iter().cloned());
        }
        Ok(())
    }

    /// A table, or what is in its cells.
    fn unfolded(&self, table: Handle) -> Result<Vec<Handle>, Error> {
        let rows = rows(&table);
        if self.fits(&table, &rows)? {
            return Ok(vec![table]);
        }
        let cells: Vec<_> = rows.into_iter().flatten().collect();
        let blocks = self.blocks(cells.len())?;
        for (block, cell) in blocks.iter().zip(cells) {
            *block.children.borrow_mut() = mem::take(&mut *cell.children.borrow_mut());
        }
        Ok(blocks)
    }

    /// Whether a table's cells stand beside each other with their lines whole.
    fn fits(&self, table: &Handle, rows: &[Vec<Handle>]) -> Result<bool, Error> {
        let is_layout = attribute(table, "role", |role| {
            matches!(role.trim(), "presentation" | "none")
        });
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        if is_layout || columns == 0 {
            return Ok(!is_layout);
        }
        for cell in rows.iter().flatten() {
            if find(cell, |node| is(node, "table")).is_some() {
                return Ok(false);
            }
            let text = self.text_of(cell)?;
            let longest = text.lines().map(|line| line.chars().count()).max();
            if longest.is_some_and(|longest| longest * columns > WIDTH) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The cells of a table by its rows, without those of tables in them.
fn rows(table: &Handle) -> Vec<Vec<Handle>> {
    let mut rows = vec![];
    for part in table.children.borrow().iter() {
        if is(part, "tr") {
            rows.push(cells(part));
        } else if ["thead", "tbody", "tfoot"]
            .iter()
            .any(|name| is(part, name))
        {
            let children = part.children.borrow();
            rows.extend(children.iter().filter(|row| is(row, "tr")).map(cells));
        } else if is(part, "caption") {
            rows.push(vec![part.clone()]);
        }
    }
    rows
}

fn cells(row: &Handle) -> Vec<Handle> {
    let children = row.children.borrow();
    let cells = children
        .iter()
        .filter(|cell| is(cell, "td") || is(cell, "th"));
    cells.cloned().collect()
}

/// Takes away what the page hides: with `hidden`, by its own style, in a dialog that is not open.
fn remove_hidden(root: &Handle) {
    let mut ahead = vec![root.clone()];
    while let Some(node) = ahead.pop() {
        node.children.borrow_mut().retain(|child| !is_hidden(child));
        ahead.extend(node.children.borrow().iter().cloned());
    }
}

fn is_hidden(node: &Handle) -> bool {
    let style = |style: &str| {
        let mut style = style.to_ascii_lowercase();
        style.retain(|c| !c.is_whitespace());
        style.split(';').any(|rule| {
            matches!(
                rule.trim_end_matches("!important"),
                "display:none" | "visibility:hidden"
            )
        })
    };
    attribute(node, "hidden", |_| true)
        || attribute(node, "style", style)
        || is(node, "dialog") && !attribute(node, "open", |_| true)
}

/// Text without the marks of a heading at its begin.
fn first_heading(text: &str) -> &str {
    text.trim_start_matches(|c: char| c == '#' || c.is_whitespace())
}

/// The first element, in the page's order, of which this is so.
fn find(root: &Handle, wanted: impl Fn(&Handle) -> bool) -> Option<Handle> {
    let mut ahead = vec![root.clone()];
    while let Some(node) = ahead.pop() {
        if wanted(&node) {
            return Some(node);
        }
        ahead.extend(node.children.borrow().iter().rev().cloned());
    }
    None
}

/// Whether it is an HTML element of this name.
fn is(node: &Handle, wanted: &str) -> bool {
    matches!(&node.data, Element { name, .. } if &*name.local == wanted && name.ns == html2text::ns!(html))
}

fn attribute(node: &Handle, wanted: &str, holds: impl Fn(&str) -> bool) -> bool {
    let Element { attrs, .. } = &node.data else {
        return false;
    };
    let attributes = attrs.borrow();
    let mut named = attributes
        .iter()
        .filter(|attribute| &*attribute.name.local == wanted);
    named.any(|attribute| holds(&attribute.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(html: &str) -> String {
        let text = seen(html).unwrap();
        let lines = text
            .lines()
            .map(|line| line.trim_end())
            .filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_title_comes_first_and_once() {
        let page = "<html><head><title> Report\n 2026</title><style>p{}</style></head><body>";
        assert_eq!(text(&format!("{page}<p>Body</p>")), "Report 2026\nBody");
        assert_eq!(
            text(&format!("{page}<h1>Report 2026</h1>a")),
            "# Report 2026\na"
        );
        assert_eq!(text("<svg><title>icon</title></svg><p>a"), "[icon]\na");
        assert_eq!(text("<title></title>a"), "a");
        assert_eq!(text(""), "");
    }

    #[test]
    fn what_is_hidden_is_not_read() {
        let page = "a<p hidden>b</p><p style='color:red; Display : none !important'>c</p>\
            <div style=\"visibility:hidden\"><p>d</div><dialog>e</dialog><dialog open>f</dialog>\
            <template>g</template><script>h</script><p style='display:block'>i</p>";
        assert_eq!(text(page), "af\ni");
    }

    #[test]
    fn tables_of_data_stay_tables_and_others_are_read_cell_by_cell() {
        let data =
            "<table><tr><th>name</th><th>mass</th></tr><tr><td>iron</td><td>56</td></tr></table>";
        assert_eq!(text(data), "name mass\niron 56");
        let long = |word: &str| format!("{word} ").repeat(60);
        let (one, two) = (long("one"), long("two"));
        let layout = format!("<table><tr><td>{one}</td><td><b>{two}</b></td></tr></table>after");
        let read = format!("{}\n{}\nafter", one.trim(), two.trim());
        assert_eq!(text(&layout), read);
        let nested = "<table><tr><td><table><tr><td>a</td><td>b</td></tr></table></td><td>c</td></tr></table>";
        assert_eq!(text(nested), "a b\nc");
        let laid_out = "<table role=presentation><tr><td>a</td><td>b</td></tr></table>";
        assert_eq!(text(laid_out), "a\nb");
    }

    #[test]
    fn pages_of_many_tables_and_depths_are_read() {
        let deep = "<table><tr><td>".repeat(300);
        assert_eq!(text(&format!("{deep}a")), "a");
        let many = "<table><tr><td>a<td>b</table>".repeat(2000);
        assert_eq!(text(&many).lines().count(), 2000);
    }
}
