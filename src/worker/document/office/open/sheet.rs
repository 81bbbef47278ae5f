//! ods: the cells of a sheet, by their places.

use super::super::grid::{Grid, MAX_COLUMNS, Row};
use super::super::xml::{Tag, Xml};
use super::{Open, repeated};
use crate::worker::document::blocks::Blocks;

impl Open<'_> {
    pub(super) fn sheet(
        &mut self,
        _: u32,
        tag: &Tag,
        xml: &mut Xml<'_>,
        out: &mut Blocks,
    ) -> Result<(), String> {
        let name = tag.attribute("name").unwrap_or_default();
        out.heading(2, &format!("Sheet: {name}"));
        let (mut grid, mut number) = (Grid::default(), 1);
        let mut shapes = out.inner();
        self.sheet_rows(xml, &mut grid, &mut number, out, &mut shapes)?;
        grid.end(out);
        let said = out.take(shapes);
        out.paragraph(&said);
        Ok(())
    }

    fn sheet_rows(
        &mut self,
        xml: &mut Xml<'_>,
        grid: &mut Grid,
        number: &mut u32,
        out: &mut Blocks,
        shapes: &mut Blocks,
    ) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                _ if out.is_full() || grid.is_full() => {
                    out.cut = true;
                    xml.skip()?;
                }
                "table-row" => {
                    let row = self.sheet_row(xml, out)?;
                    let times = repeated(&tag, "number-rows-repeated");
                    for again in 0..times {
                        if row.is_empty() || grid.is_full() {
                            break;
                        }
                        grid.push(number.saturating_add(again), row.clone(), out);
                    }
                    *number = number.saturating_add(times);
                }
                "shapes" => self.blocks(xml, shapes)?,
                "table-rows" | "table-header-rows" | "table-row-group" => {
                    self.sheet_rows(xml, grid, number, out, shapes)?;
                }
                _ => xml.skip()?,
            }
        }
        Ok(())
    }

    fn sheet_row(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<Row, String> {
        let (mut row, mut column) = (Row::new(), 0u32);
        while let Some(tag) = xml.element()? {
            let times = repeated(&tag, "number-columns-repeated");
            let value = self.cell(&tag, xml, out)?;
            if !value.is_empty() {
                for again in 0..times {
                    let at = column.saturating_add(again);
                    if at >= MAX_COLUMNS {
                        out.cut = true;
                        break;
                    }
                    row.insert(at, value.clone());
                }
            }
            column = column.saturating_add(times);
        }
        Ok(row)
    }
}
