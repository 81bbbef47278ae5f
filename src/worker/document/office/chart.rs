//! Charts and diagrams: the figures and words that they are drawn from.

use super::archive::Archive;
use super::xml::{Node, Xml};
use crate::worker::document::blocks::{Blocks, Table};

/// Series of a chart, and points of each.
const MAX_SERIES: usize = 64;
const MAX_POINTS: usize = 4096;

/// What is said of a chart whose part this is; it counts as not shown.
pub fn text(archive: &Archive<'_>, part: Option<&str>, out: &mut Blocks) -> Result<String, String> {
    let Some(mut xml) = part.map(|part| archive.xml(part)).transpose()?.flatten() else {
        return Ok(out.unseen("chart", ""));
    };
    let mut chart = Chart::default();
    chart.read(&mut xml, Place::Nowhere)?;
    let kind = if chart.series.is_empty() {
        "diagram"
    } else {
        "chart"
    };
    let said = match chart.series.is_empty() {
        true => chart.words.join("; "),
        false => chart.words.join(" "),
    };
    let mut own = out.inner();
    let mark = own.unseen(kind, &said);
    own.paragraph(&mark);
    own.table(chart.table());
    Ok(out.take(own))
}

#[derive(Default)]
struct Chart {
    series: Vec<Series>,
    /// Titles, or the words of a diagram.
    words: Vec<String>,
}

#[derive(Default)]
struct Series {
    name: Vec<String>,
    categories: Vec<String>,
    values: Vec<String>,
}

/// Of what in a series the points are that are read.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Name,
    Categories,
    Values,
}

impl Chart {
    /// To the end of the element that was begun last, or of all.
    fn read(&mut self, xml: &mut Xml<'_>, place: Place) -> Result<(), String> {
        while let Some(node) = xml.next()? {
            let Node::Element(tag) = node else { continue };
            let inside = match tag.name() {
                "ser" => {
                    if self.series.len() == MAX_SERIES {
                        xml.skip()?;
                        continue;
                    }
                    self.series.push(Series::default());
                    Place::Nowhere
                }
                "tx" if !self.series.is_empty() => Place::Name,
                "cat" | "xVal" => Place::Categories,
                "val" | "yVal" => Place::Values,
                "v" => {
                    let text = xml.text()?;
                    self.point(place, text);
                    continue;
                }
                // The words of a title or of a diagram's boxes.
                "t" => {
                    let mut text = String::new();
                    while let Some(node) = xml.next()? {
                        match node {
                            Node::Text(more) => text += &more,
                            Node::Element(_) => self.read(xml, place)?,
                        }
                    }
                    if !text.trim().is_empty() && self.words.len() < MAX_POINTS {
                        self.words.push(text.trim().to_owned());
                    }
                    continue;
                }
                _ => place,
            };
            self.read(xml, inside)?;
        }
        Ok(())
    }

    fn point(&mut self, place: Place, text: String) {
        let Some(series) = self.series.last_mut() else {
            return;
        };
        let points = match place {
            Place::Nowhere => return,
            Place::Name => &mut series.name,
            Place::Categories => &mut series.categories,
            Place::Values => &mut series.values,
        };
        if points.len() < MAX_POINTS {
            points.push(text);
        }
    }

    /// A row for each category, a column for each series.
    fn table(&self) -> Table {
        let mut table = Table::default();
        if self.series.is_empty() {
            return table;
        }
        table.row();
        table.cell("");
        self.series
            .iter()
            .for_each(|series| table.cell(&series.name.join(" ")));
        let categories = &self.series[0].categories;
        let points = self.series.iter().map(|series| series.values.len());
        for at in 0..points.max().unwrap_or(0).max(categories.len()) {
            table.row();
            table.cell(categories.get(at).map_or("", |name| name));
            for series in &self.series {
                table.cell(series.values.get(at).map_or("", |value| value));
            }
        }
        table
    }
}
