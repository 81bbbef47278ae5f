//! Web pages: what a reader of the page would see as text.

use super::Pages;

/// Characters in a line before it is broken: lines mean nothing here, so only to keep tables
/// narrow.
const WIDTH: usize = 400;

pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let config = html2text::config::plain_no_decorate()
        .no_link_wrapping()
        .no_table_borders();
    let text = config
        .string_from_read(bytes, WIDTH)
        .map_err(|error| format!("is no web page that can be read: {error}"))?;
    pages.push(text, false, None);
    Ok(1)
}
