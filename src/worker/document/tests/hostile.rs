//! Files that mean harm, or were made by a mistake.

use std::time::{Duration, Instant};

use super::*;

/// Nothing takes longer, on a busy machine and without optimization.
const SOON: Duration = Duration::from_secs(20);

/// Reads it, and says how long it is; fails if that takes long.
fn soon(name: &str, bytes: &[u8]) -> Result<Seen, String> {
    let begun = Instant::now();
    let seen = read(name, bytes);
    assert!(begun.elapsed() < SOON, "{name} took {:?}", begun.elapsed());
    seen
}

/// Whether it was read as far as there is room.
fn is_cut(seen: &Seen) -> bool {
    let length = seen.texts.concat().len();
    seen.cut && (EXTRACT_TEXT / 2..=EXTRACT_TEXT).contains(&length)
}

fn refused(name: &str, bytes: &[u8], reason: &str) {
    let error = soon(name, bytes).unwrap_err();
    assert!(error.contains(reason), "{name}: {error}");
}

fn paragraphs(text: &str, count: usize) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>").repeat(count)
}

#[test]
fn bombs_are_refused() {
    let blanks = " ".repeat(64 << 20);
    refused("ratio", &docx(&blanks, &[]), "more than 300 times its size");
    // Each within the ratio, and too much all together.
    let mut state = 1u32;
    let noise: String = (0..1 << 15)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 28) as u8)
        })
        .collect();
    // Further apart than what is said again may lie.
    let header = format!(
        "<w:hdr><!--{}--></w:hdr>",
        (noise + &" ".repeat(1 << 21)).repeat(32)
    );
    let names: Vec<_> = (0..5)
        .map(|i| (format!("rId{i}"), format!("h{i}.xml")))
        .collect();
    let links: Vec<_> = names
        .iter()
        .map(|(id, name)| (&**id, "header", &**name))
        .collect();
    let links = relations(&links);
    let paths: Vec<_> = names
        .iter()
        .map(|(_, name)| format!("word/{name}"))
        .collect();
    let mut parts = vec![("word/_rels/document.xml.rels", &*links)];
    parts.extend(paths.iter().map(|path| (&**path, &*header)));
    refused("total", &docx("<w:p/>", &parts), "more than 256 MiB");
    let inner = zip(&[("0.txt", &[b' '; 1 << 20])]);
    let nested = zip(&[("a.zip", &inner), ("b.zip", &inner)]);
    refused(
        "nested",
        &zip(&[("c.zip", &nested)]),
        "send the files in it one by one",
    );
    let many: Vec<String> = (0..16_385).map(|i| format!("{i}.txt")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (&**name, &b""[..])).collect();
    refused("many parts", &zip(&many), "more than 16384 parts");
}

#[test]
fn entities_are_neither_expanded_nor_fetched() {
    let laughs = "<!DOCTYPE d [<!ENTITY a \"haha\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>";
    let main = format!(
        "{laughs}<w:document><w:body><w:p><w:r><w:t>[&b;&x;&amp;&#65;]</w:t></w:r></w:p></w:body></w:document>"
    );
    let file = package("wordprocessingml.document", &main, &[]);
    assert_eq!(text("laughs", &file), "[&A]");
}

#[test]
fn sheets_that_claim_more_than_they_have_cost_what_they_have() {
    let last = "<row r=\"1048576\"><c r=\"XFD1048576\"><v>9</v></c></row>";
    let first = "<row r=\"1\"><c r=\"A1\"><v>1</v></c></row>";
    let seen = soon("corners", &xlsx(&format!("{first}{last}"), &[])).unwrap();
    // That column is beyond those that are taken.
    assert_eq!(
        (seen.texts.concat().as_str(), seen.cut),
        ("## Sheet: One\n\nCells A1:A1\n\n1", true)
    );
    let cell = |number: u32| format!("<c><v>{}</v></c>", number.wrapping_mul(2_654_435_761));
    let row = |row: u32| (0..100).map(|at| cell(row * 100 + at)).collect::<String>();
    let rows: String = (0..10_000)
        .map(|at| format!("<row>{}</row>", row(at)))
        .collect();
    let seen = soon("a million cells", &xlsx(&rows, &[])).unwrap();
    assert!(is_cut(&seen));
    let cell = "<table:table-cell table:number-columns-repeated=\"4294967295\"><text:p>1</text:p></table:table-cell>";
    let rows = format!(
        "<office:spreadsheet><table:table><table:table-row table:number-rows-repeated=\"4294967295\">{cell}</table:table-row></table:table></office:spreadsheet>"
    );
    let seen = soon("repeated", &open_document("spreadsheet", &rows, &[])).unwrap();
    assert!(is_cut(&seen));
    let cell = "<w:tc><w:p/></w:tc>".repeat(2000);
    let rows = format!(
        "<w:tbl>{}</w:tbl>",
        format!("<w:tr>{cell}</w:tr>").repeat(100)
    );
    assert!(soon("cells without text", &docx(&rows, &[])).is_ok());
}

#[test]
fn depth_is_bounded() {
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + &close.repeat(count);
    let tables = deep("<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>", 5000);
    refused("tables", &docx(&tables, &[]), "more than 200 deep");
    let spans = format!(
        "<office:text><text:p>{}</text:p></office:text>",
        deep("<text:span>", "</text:span>", 50_000)
    );
    refused(
        "spans",
        &open_document("text", &spans, &[]),
        "more than 200 deep",
    );
    refused(
        "groups",
        &[b"{\\rtf1".to_vec(), b"{".repeat(100_000)].concat(),
        "more than 1000 deep",
    );
    let lists = format!(
        "{{\"cells\": {}, \"nbformat\": 4}}",
        deep("[", "]", 100_000)
    );
    assert_eq!(text("a.ipynb", lists.as_bytes()), lists);
    let mut mail =
        "From: a@example.org\r\nSubject: last\r\nMIME-Version: 1.0\r\n\r\nhi\r\n".to_owned();
    for depth in 0..20 {
        mail = format!(
            "From: a@example.org\r\nSubject: {depth}\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n{mail}"
        );
    }
    let seen = soon("mails", mail.as_bytes()).unwrap();
    assert!(seen.unseen > 0 && seen.count <= 4, "{seen:?}");
}

#[test]
fn what_is_long_is_cut_and_said_to_be() {
    for (name, file) in [
        (
            "docx",
            docx(&paragraphs("some words of a text", 100_000), &[]),
        ),
        ("csv", "a,b\n".repeat(500_000).into_bytes()),
        (
            "rtf",
            [b"{\\rtf1".to_vec(), b"some words\\par ".repeat(200_000)].concat(),
        ),
    ] {
        let seen = soon(&format!("a.{name}"), &file).unwrap();
        assert!(is_cut(&seen), "{name}");
    }
}

#[test]
fn damaged_and_locked_files_are_refused_by_name() {
    let whole = docx(&paragraphs("text", 500), &[]);
    for length in [30, whole.len() / 2, whole.len() - 10] {
        refused("cut off", &whole[..length], "damaged or cut off");
    }
    let mut wrong = whole.clone();
    wrong[60..200].iter_mut().for_each(|byte| *byte ^= 0x55);
    assert!(soon("overwritten", &wrong).is_err());
    refused("no XML", &docx("<w:p><w:x</w:p>", &[]), "damaged");
    refused(
        "not closed",
        &package("wordprocessingml.document", "<a><b>", &[]),
        "damaged",
    );
    let manifest = "<manifest:manifest><manifest:encryption-data/></manifest:manifest>";
    let locked = open_document("text", "", &[("META-INF/manifest.xml", manifest)]);
    refused("locked", &locked, "password");
    refused(
        "xlsb",
        &package("sheet.binary.macroEnabled", "<a/>", &[]),
        "xlsb",
    );
    refused(
        "a formula",
        &open_document("formula", "<math/>", &[]),
        "not read",
    );
    assert_eq!(soon("no parts", &docx("", &[])).unwrap().texts, [""]);
    // What a part refers to may be away, or itself.
    let links = relations(&[
        ("a", "styles", "document.xml"),
        ("b", "footnotes", "gone.xml"),
        ("c", "header", "document.xml"),
    ]);
    let odd = docx(
        &paragraphs("text", 1),
        &[("word/_rels/document.xml.rels", &links)],
    );
    assert_eq!(
        soon("itself", &odd).unwrap().texts,
        ["[header] text\n\ntext"]
    );
}
