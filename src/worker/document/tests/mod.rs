//! Documents that are made here, as the programs that write them lay them out.

mod hostile;
mod kinds;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::*;
use crate::ipc::kind::{self, Reader};
use crate::ipc::{Greeting, frame};

const LOOK: Look = Look {
    pages: 16,
    tokens: 280,
    room: None,
};

/// What came of a file.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Of each page.
    texts: Vec<String>,
    /// Pages that the file has.
    count: u32,
    /// Pages that show what was not sent.
    unseen: u32,
    cut: bool,
}

/// Has a file read as the supervisor would.
fn read(name: &str, bytes: &[u8]) -> Result<Seen, String> {
    let Reader::Worker(kind) = kind::reader(name, bytes)? else {
        panic!("{name} needs no worker");
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let supervisor = thread::spawn(move || pages_of(theirs));
    let writer = Writer::greet(ours).unwrap();
    let mut pages = Pages {
        writer: &writer,
        read: 0,
        look: LOOK,
        shown: 0,
        budget: LOOK.tokens,
        left: EXTRACT_TEXT,
        pictures_left: EXTRACT_PICTURES,
        cut: false,
        encoding: None,
        before: String::new(),
    };
    let count = of_kind(kind, bytes.to_vec(), &mut pages);
    let cut = pages.cut;
    drop(writer);
    let (texts, unseen) = supervisor.join().unwrap();
    Ok(Seen {
        texts,
        count: count?,
        unseen,
        cut,
    })
}

fn pages_of(mut socket: UnixStream) -> (Vec<String>, u32) {
    let mut bytes = vec![];
    socket.read_to_end(&mut bytes).unwrap();
    let mut decoder = frame::Decoder::new();
    decoder.feed(&bytes);
    let greeting: Option<Greeting> = decoder.next().unwrap();
    assert!(greeting.is_some());
    let (mut texts, mut unseen) = (vec![], 0);
    while let Some(ExtractEvent::Page(page)) = decoder.next().unwrap() {
        texts.push(page.text);
        unseen += u32::from(matches!(page.sight, Sight::Named | Sight::Unseen { .. }));
    }
    (texts, unseen)
}

/// The text of a file of one page, of which nothing is missing.
fn text(name: &str, bytes: &[u8]) -> String {
    let seen = read(name, bytes).unwrap();
    assert_eq!(
        (seen.count, seen.unseen, seen.cut),
        (1, 0, false),
        "{seen:?}"
    );
    seen.texts.concat()
}

/// An archive of these parts, compressed.
fn zip(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![];
    let mut archive = ZipArchiveWriter::new(&mut out);
    for (name, content) in parts {
        let file = archive
            .new_file(name)
            .compression_method(CompressionMethod::DEFLATE);
        let (mut entry, config) = file.start().unwrap();
        let encoder = DeflateEncoder::new(&mut entry, Compression::best());
        let mut writer = config.wrap(encoder);
        writer.write_all(content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    out
}

/// A package of Microsoft's office with this main part, of this kind, and other parts.
fn package(kind: &str, main: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let (folder, name) = match kind {
        "wordprocessingml.document" => ("word", "document"),
        "spreadsheetml.sheet" => ("xl", "workbook"),
        _ => ("ppt", "presentation"),
    };
    let types = format!(
        "<Types xmlns=\"x\"><Default Extension=\"xml\" ContentType=\"application/xml\"/>\
         <Override PartName=\"/{folder}/{name}.xml\" \
         ContentType=\"application/vnd.openxmlformats-officedocument.{kind}.main+xml\"/></Types>"
    );
    let root = relations(&[("rId1", "officeDocument", &format!("{folder}/{name}.xml"))]);
    let path = format!("{folder}/{name}.xml");
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("[Content_Types].xml", types.as_bytes()),
        ("_rels/.rels", root.as_bytes()),
        (&path, main.as_bytes()),
    ];
    parts.extend(others.iter().map(|(name, text)| (*name, text.as_bytes())));
    zip(&parts)
}

/// A part that says what another refers to: ids, kinds and targets. Addresses are outside.
fn relations(all: &[(&str, &str, &str)]) -> String {
    let one = |(id, kind, target): &(&str, &str, &str)| {
        let mode = if target.contains("://") {
            " TargetMode=\"External\""
        } else {
            ""
        };
        format!("<Relationship Id=\"{id}\" Type=\"http://x/{kind}\" Target=\"{target}\"{mode}/>")
    };
    let all: String = all.iter().map(one).collect();
    format!("<?xml version=\"1.0\"?><Relationships>{all}</Relationships>")
}

/// A docx with this in its body.
fn docx(body: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let main = format!("<w:document><w:body>{body}</w:body></w:document>");
    package("wordprocessingml.document", &main, others)
}

/// An xlsx with one sheet, of these rows.
fn xlsx(rows: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let main =
        "<workbook><sheets><sheet name=\"One\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>";
    let links = relations(&[
        ("rId1", "worksheet", "worksheets/sheet1.xml"),
        ("rId2", "sharedStrings", "sharedStrings.xml"),
        ("rId3", "styles", "styles.xml"),
    ]);
    let sheet = format!(
        "<worksheet><dimension ref=\"A1:XFD1048576\"/><sheetData>{rows}</sheetData></worksheet>"
    );
    let mut parts = vec![
        ("xl/_rels/workbook.xml.rels", &*links),
        ("xl/worksheets/sheet1.xml", &*sheet),
    ];
    parts.extend_from_slice(others);
    package("spreadsheetml.sheet", main, &parts)
}

/// An OpenDocument file of this kind with this body.
fn open_document(kind: &str, body: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let mimetype = format!("application/vnd.oasis.opendocument.{kind}");
    let content = format!(
        "<office:document-content><office:automatic-styles><text:list-style style:name=\"L1\">\
         <text:list-level-style-number text:level=\"1\" style:num-format=\"1\"/></text:list-style>\
         </office:automatic-styles><office:body>{body}</office:body></office:document-content>"
    );
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("mimetype", mimetype.as_bytes()),
        ("content.xml", content.as_bytes()),
    ];
    parts.extend(others.iter().map(|(name, text)| (*name, text.as_bytes())));
    zip(&parts)
}
