//! Extracts the text of files that clients send, and pictures of their pages. A worker of its own
//! does it and then ends, so a file that crashes its reader affects nothing else.

mod area;
mod blocks;
mod encoding;
mod fonts;
mod glyphs;
mod html;
mod mail;
mod notebook;
mod notes;
mod office;
#[cfg(test)]
mod page_tests;
mod pdf;
mod rich;
mod sight;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use super::confinement::confine;
use super::exit::{EXIT_LOAD, EXIT_PROTOCOL};
use super::link::Writer;
use crate::ipc::{
    DocumentKind, EXTRACT_MEMORY, EXTRACT_PAGES, EXTRACT_PICTURES, EXTRACT_TEXT, Extent, Extract,
    ExtractEvent, ExtractRequest, Look, Page, Sight,
};
use crate::sandbox::{Needs, Profile};

/// Seconds of a CPU that it may cost; the supervisor minds the clock.
const CPU_SECONDS: u64 = 20;

/// Reads the one file that came.
pub fn run(
    request: ExtractRequest,
    files: Vec<OwnedFd>,
    writer: &Writer<Extract>,
) -> Result<ExitCode, u8> {
    confine(&Needs {
        profile: Profile::Extract,
        files: &[],
        largest_file: 0,
        memory: Some(EXTRACT_MEMORY),
        cpu_seconds: Some(CPU_SECONDS),
    })?;
    let Ok([file]) = <[OwnedFd; 1]>::try_from(files) else {
        eprintln!("a file to read was announced, and none came");
        return Err(EXIT_PROTOCOL);
    };
    let mut pages = Pages {
        writer,
        read: 0,
        look: request.look,
        shown: 0,
        budget: request.look.tokens,
        left: EXTRACT_TEXT,
        pictures_left: EXTRACT_PICTURES,
        cut: false,
        encoding: None,
        before: String::new(),
    };
    let read =
        contents(File::from(file)).and_then(|bytes| of_kind(request.kind, bytes, &mut pages));
    let (last, status) = match read {
        Ok(count) => (
            ExtractEvent::Read(Extent {
                pages: count,
                read: pages.read,
                budget: pages.budget,
                cut: pages.cut,
                encoding: pages.encoding.map(str::to_owned),
            }),
            Ok(ExitCode::SUCCESS),
        ),
        Err(reason) => (ExtractEvent::Rejected { reason }, Err(EXIT_LOAD)),
    };
    // When the channel has ended the result is not needed.
    let _ = writer.send(&last);
    status
}

/// Reads a file of a kind; how many pages it has. The error continues "the file …".
fn of_kind(kind: DocumentKind, bytes: Vec<u8>, pages: &mut Pages<'_>) -> Result<u32, String> {
    match kind {
        DocumentKind::Html => html::read(&bytes, pages),
        DocumentKind::Pdf => pdf::read(bytes, pages),
        DocumentKind::Office => office::read(&bytes, pages),
        DocumentKind::Rich => rich::read(&bytes, pages),
        DocumentKind::Mail => mail::read(&bytes, pages),
        DocumentKind::Notebook => notebook::read(&bytes, pages),
        DocumentKind::Table => table::read(&bytes, pages),
        DocumentKind::Text => plain(&bytes, pages),
    }
}

fn plain(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let decoded = encoding::text(bytes).ok_or(
        "is of a kind that is not read; text, HTML, PDF, office documents, mails and pictures are",
    )?;
    pages.encoding = Some(decoded.encoding);
    pages.push(decoded.text, Sight::Told);
    Ok(1)
}

fn contents(file: File) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = vec![0; file.metadata().map_err(failed)?.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

/// Pages on their way to the supervisor.
struct Pages<'a> {
    writer: &'a Writer<Extract>,
    read: u32,
    /// How they are shown.
    look: Look,
    /// Those that are.
    shown: u32,
    /// Tokens of a page's picture.
    budget: u32,
    /// Bytes of text that may still be taken.
    left: usize,
    pictures_left: usize,
    cut: bool,
    /// In which the text was found to be.
    encoding: Option<&'static str>,
    /// What the next page begins with.
    before: String,
}

impl Pages<'_> {
    /// Whether no more pages are wanted.
    fn is_full(&self) -> bool {
        self.cut || self.read as usize >= EXTRACT_PAGES
    }

    /// Sends a page, whose picture has no more bytes than are left; false if no more are wanted.
    fn push(&mut self, text: String, sight: Sight) -> bool {
        let mut text = std::mem::take(&mut self.before) + &text;
        if text.len() > self.left {
            text.truncate(text.floor_char_boundary(self.left));
            self.cut = true;
        }
        self.left -= text.len();
        self.pictures_left -= sight.picture().map_or(0, <[u8]>::len);
        self.shown += u32::from(sight.picture().is_some());
        self.read += 1;
        self.writer
            .send(&ExtractEvent::Page(Page { text, sight }))
            .is_ok()
            && !self.cut
    }
}
