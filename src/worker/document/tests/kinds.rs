//! What becomes of each kind.

use super::*;

#[test]
fn docx_keeps_headings_lists_links_tables_and_notes() {
    let styles = "<w:styles><w:style w:type=\"paragraph\" w:styleId=\"H1\"><w:name w:val=\"heading 1\"/></w:style>\
        <w:style w:type=\"paragraph\" w:styleId=\"Mine\"><w:name w:val=\"Mine\"/><w:basedOn w:val=\"H1\"/>\
        <w:pPr><w:outlineLvl w:val=\"1\"/></w:pPr></w:style></w:styles>";
    let numbering = "<w:numbering><w:abstractNum w:abstractNumId=\"7\">\
        <w:lvl w:ilvl=\"0\"><w:start w:val=\"1\"/><w:numFmt w:val=\"decimal\"/><w:lvlText w:val=\"%1.\"/></w:lvl>\
        <w:lvl w:ilvl=\"1\"><w:start w:val=\"1\"/><w:numFmt w:val=\"lowerLetter\"/><w:lvlText w:val=\"%1.%2)\"/></w:lvl>\
        </w:abstractNum><w:num w:numId=\"3\"><w:abstractNumId w:val=\"7\"/></w:num></w:numbering>";
    let links = relations(&[
        ("rId1", "styles", "styles.xml"),
        ("rId2", "numbering", "numbering.xml"),
        ("rId3", "hyperlink", "https://example.org/a"),
        ("rId4", "footnotes", "/word/footnotes.xml"),
        ("rId5", "comments", "comments.xml"),
        ("rId6", "header", "header1.xml"),
    ]);
    let paragraph =
        |properties: &str, runs: &str| format!("<w:p><w:pPr>{properties}</w:pPr>{runs}</w:p>");
    let run = |text: &str| format!("<w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r>");
    let item = |level: u8, text: &str| {
        let list = format!("<w:numPr><w:ilvl w:val=\"{level}\"/><w:numId w:val=\"3\"/></w:numPr>");
        paragraph(&list, &run(text))
    };
    let field = "<w:r><w:fldChar w:fldCharType=\"begin\"/></w:r><w:r><w:instrText> HYPERLINK \"https://example.org/b\" </w:instrText></w:r>\
        <w:r><w:fldChar w:fldCharType=\"separate\"/></w:r><w:r><w:t>there</w:t></w:r><w:r><w:fldChar w:fldCharType=\"end\"/></w:r>";
    let cell = |text: &str, more: &str| {
        format!(
            "<w:tc><w:tcPr>{more}</w:tcPr><w:p>{}</w:p></w:tc>",
            run(text)
        )
    };
    let body = [
        paragraph("<w:pStyle w:val=\"H1\"/>", &run("Report")),
        paragraph("<w:pStyle w:val=\"Mine\"/>", &run("Part &amp; parcel")),
        format!(
            "<w:p>{}<w:hyperlink r:id=\"rId3\">{}</w:hyperlink>{}{field}{}<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>\
             <w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:footnoteReference w:id=\"2\"/></w:r>\
             <w:r><w:commentReference w:id=\"0\"/></w:r></w:p>",
            run("See "), run("here"), run(" and "), run("."),
        ),
        item(0, "one"),
        item(1, "inner"),
        item(0, "two"),
        format!(
            "<w:tbl><w:tr>{}{}</w:tr><w:tr>{}</w:tr></w:tbl>",
            cell("a|b", ""), cell("c", ""), cell("wide", "<w:gridSpan w:val=\"2\"/>"),
        ),
    ]
    .concat();
    let note = |name: &str, id: u8, more: &str, text: &str| {
        format!(
            "<w:{name}s><w:{name} w:id=\"{id}\"{more}><w:p>{}</w:p></w:{name}></w:{name}s>",
            run(text)
        )
    };
    let file = docx(
        &body,
        &[
            ("word/_rels/document.xml.rels", &links),
            ("word/styles.xml", styles),
            ("word/numbering.xml", numbering),
            ("word/footnotes.xml", &note("footnote", 2, "", "a note")),
            (
                "word/comments.xml",
                &note("comment", 0, " w:author=\"Ann\"", "why?"),
            ),
            (
                "word/header1.xml",
                &format!("<w:hdr><w:p>{}</w:p></w:hdr>", run("Secret")),
            ),
        ],
    );
    assert_eq!(
        text("a.bin", &file),
        "[header] Secret\n\n# Report\n\n## Part & parcel\n\n\
         See [here](https://example.org/a) and [there](https://example.org/b).[^2][comment 0]\n\n\
         1. one\n  1.a) inner\n2. two\n\n\
         | a\\|b | c |\n| --- | --- |\n| wide |  |\n\n\
         [^2]: a note\n\n[comment 0 by Ann]: why?"
    );
}

#[test]
fn pictures_are_counted_and_charts_say_their_figures() {
    let chart = "<c:chartSpace><c:title><a:t>Sales</a:t></c:title><c:ser><c:tx><c:v>East</c:v></c:tx>\
        <c:cat><c:pt><c:v>May</c:v></c:pt></c:cat><c:val><c:pt><c:v>7</c:v></c:pt></c:val></c:ser></c:chartSpace>";
    let body = "<w:p><w:r><w:drawing><wp:docPr descr=\"our house\"/><a:blip r:embed=\"rId9\"/></w:drawing></w:r></w:p>\
        <w:p><w:r><w:drawing><c:chart r:id=\"rId1\"/></w:drawing></w:r></w:p>";
    let links = relations(&[("rId1", "chart", "charts/chart1.xml")]);
    let file = docx(
        body,
        &[
            ("word/_rels/document.xml.rels", &links),
            ("word/charts/chart1.xml", chart),
        ],
    );
    let seen = read("a.docx", &file).unwrap();
    assert_eq!((seen.count, seen.unseen, seen.cut), (1, 1, false));
    assert_eq!(
        seen.texts.concat(),
        "[picture 1, not shown: our house]\n\n[chart 2, not shown: Sales]\n\n|  | East |\n| --- | --- |\n| May | 7 |"
    );
}

#[test]
fn xlsx_shows_each_sheet_by_its_name_and_values_as_cells_show_them() {
    let main = "<workbook><sheets><sheet name=\"Rent &amp; more\" sheetId=\"1\" r:id=\"rId1\"/>\
        <sheet name=\"Old\" sheetId=\"2\" state=\"hidden\" r:id=\"rId2\"/></sheets></workbook>";
    let links = relations(&[
        ("rId1", "worksheet", "worksheets/sheet1.xml"),
        ("rId2", "worksheet", "worksheets/sheet2.xml"),
        ("rId3", "sharedStrings", "sharedStrings.xml"),
        ("rId4", "styles", "styles.xml"),
    ]);
    let sheet = "<worksheet><sheetData>\
        <row r=\"2\"><c r=\"B2\" t=\"s\"><v>1</v></c><c r=\"C2\" t=\"inlineStr\"><is><t>Amount</t></is></c></row>\
        <row r=\"3\"><c r=\"B3\" s=\"1\"><v>46053</v></c><c r=\"C3\" s=\"2\"><v>1234.5</v></c></row>\
        <row r=\"4\"><c r=\"B4\" t=\"b\"><v>1</v></c><c r=\"C4\"><f>SUM(C3)</f></c></row>\
        <row r=\"9\"><c r=\"D9\" t=\"s\"><v>0</v></c></row></sheetData>\
        <hyperlinks><hyperlink ref=\"B2\" r:id=\"rId1\"/></hyperlinks></worksheet>";
    let styles = "<styleSheet><numFmts><numFmt numFmtId=\"164\" formatCode=\"#,##0.00\\ &quot;€&quot;\"/></numFmts>\
        <cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/><xf numFmtId=\"164\"/></cellXfs></styleSheet>";
    let file = package(
        "spreadsheetml.sheet",
        main,
        &[
            ("xl/_rels/workbook.xml.rels", &links),
            ("xl/worksheets/sheet1.xml", sheet),
            (
                "xl/worksheets/_rels/sheet1.xml.rels",
                &relations(&[("rId1", "hyperlink", "https://example.org")]),
            ),
            (
                "xl/worksheets/sheet2.xml",
                "<worksheet><sheetData/></worksheet>",
            ),
            (
                "xl/sharedStrings.xml",
                "<sst><si><t>far</t></si><si><r><t>Da</t></r><r><t>y</t></r></si></sst>",
            ),
            ("xl/styles.xml", styles),
        ],
    );
    let seen = read("", &file).unwrap();
    assert_eq!((seen.count, seen.unseen, seen.cut), (2, 0, false));
    assert_eq!(
        seen.texts,
        [
            "## Sheet: Rent & more\n\nCells B2:C4\n\n| Day | Amount |\n| --- | --- |\n\
             | 2026-01-31 | 1234.50 € |\n| TRUE | =SUM(C3) |\n\nCells D9:D9\n\nfar\n\n\
             Links: [B2](https://example.org)",
            "## Sheet: Old (hidden)"
        ]
    );
}

#[test]
fn pptx_shows_slides_by_their_numbers_with_notes() {
    let shape = |role: &str, text: &str| {
        format!(
            "<p:sp><p:nvSpPr><p:nvPr><p:ph type=\"{role}\"/></p:nvPr></p:nvSpPr><p:txBody>{text}</p:txBody></p:sp>"
        )
    };
    let main = "<p:presentation><p:sldIdLst><p:sldId id=\"256\" r:id=\"rId2\"/><p:sldId id=\"257\" r:id=\"rId1\"/></p:sldIdLst></p:presentation>";
    let first = format!(
        "<p:sld><p:spTree>{}{}{}</p:spTree></p:sld>",
        shape("title", "<a:p><a:r><a:t>Hello</a:t></a:r></a:p>"),
        shape(
            "body",
            "<a:p><a:r><a:t>point</a:t></a:r></a:p><a:p><a:pPr lvl=\"1\"/><a:r><a:rPr><a:hlinkClick r:id=\"rId1\"/></a:rPr><a:t>link</a:t></a:r></a:p>"
        ),
        shape("sldNum", "<a:p><a:fld><a:t>1</a:t></a:fld></a:p>"),
    );
    let second = "<p:sld show=\"0\"><p:spTree><p:graphicFrame><a:tbl><a:tr><a:tc><a:txBody><a:p><a:r><a:t>a</a:t></a:r></a:p></a:txBody></a:tc>\
        <a:tc><a:txBody><a:p><a:r><a:t>b</a:t></a:r></a:p></a:txBody></a:tc></a:tr></a:tbl></p:graphicFrame>\
        <p:pic><p:nvPicPr><p:cNvPr descr=\"a cat\"/></p:nvPicPr></p:pic></p:spTree></p:sld>";
    let notes = format!(
        "<p:notes><p:spTree>{}</p:spTree></p:notes>",
        shape("body", "<a:p><a:r><a:t>Smile.</a:t></a:r></a:p>")
    );
    let file = package(
        "presentationml.presentation",
        main,
        &[
            (
                "ppt/_rels/presentation.xml.rels",
                &relations(&[
                    ("rId1", "slide", "slides/slide2.xml"),
                    ("rId2", "slide", "slides/slide1.xml"),
                ]),
            ),
            ("ppt/slides/slide1.xml", &first),
            (
                "ppt/slides/_rels/slide1.xml.rels",
                &relations(&[
                    ("rId1", "hyperlink", "https://example.org"),
                    ("rId2", "notesSlide", "../notesSlides/n.xml"),
                ]),
            ),
            ("ppt/slides/slide2.xml", second),
            ("ppt/notesSlides/n.xml", &notes),
        ],
    );
    let seen = read("", &file).unwrap();
    assert_eq!((seen.count, seen.unseen, seen.cut), (2, 1, false));
    assert_eq!(
        seen.texts,
        [
            "## Slide 1: Hello\n\n- point\n  - [link](https://example.org)\n\nSpeaker notes: Smile.",
            "## Slide 2 (hidden)\n\n| a | b |\n| --- | --- |\n\n[picture 1, not shown: a cat]"
        ]
    );
}

#[test]
fn open_documents_are_read() {
    let body = "<office:text><text:h text:outline-level=\"2\">Title</text:h><text:p>a<text:s text:c=\"2\"/>b \n c<text:line-break/>d \
        <text:a xlink:href=\"https://example.org\">site</text:a><text:note><text:note-citation>1</text:note-citation>\
        <text:note-body><text:p>below</text:p></text:note-body></text:note></text:p>\
        <text:list text:style-name=\"L1\"><text:list-item><text:p>one</text:p></text:list-item>\
        <text:list-item><text:p>two</text:p><text:list><text:list-item><text:p>in</text:p></text:list-item></text:list></text:list-item></text:list>\
        <text:tracked-changes><text:p>gone</text:p></text:tracked-changes>\
        <table:table><table:table-row><table:table-cell><text:p>x</text:p></table:table-cell>\
        <table:table-cell table:number-columns-repeated=\"2\"><text:p>y</text:p></table:table-cell></table:table-row></table:table></office:text>";
    assert_eq!(
        text("", &open_document("text", body, &[])),
        "## Title\n\na  b c\nd [site](https://example.org)[^1]\n\n1. one\n2. two\n  - in\n\n\
         | x | y | y |\n| --- | --- | --- |\n\n[^1]: below"
    );
    let body = "<office:spreadsheet><table:table table:name=\"S\"><table:table-row table:number-rows-repeated=\"2\">\
        <table:table-cell office:value-type=\"float\" office:value=\"5\"/><table:table-cell><text:p>5,0 €</text:p></table:table-cell>\
        <table:table-cell table:number-columns-repeated=\"16382\"/></table:table-row>\
        <table:table-row table:number-rows-repeated=\"1048574\"><table:table-cell/></table:table-row></table:table></office:spreadsheet>";
    assert_eq!(
        text("", &open_document("spreadsheet", body, &[])),
        "## Sheet: S\n\nCells A1:B2\n\n| 5 | 5,0 € |\n| --- | --- |\n| 5 | 5,0 € |"
    );
    let body = "<office:presentation><draw:page><draw:frame presentation:class=\"title\"><draw:text-box><text:p>Hi</text:p></draw:text-box></draw:frame>\
        <draw:frame><draw:image xlink:href=\"Pictures/1.png\"/><svg:desc>a dog</svg:desc></draw:frame>\
        <presentation:notes><draw:frame><draw:text-box><text:p>Wave.</text:p></draw:text-box></draw:frame></presentation:notes></draw:page></office:presentation>";
    let seen = read("", &open_document("presentation", body, &[])).unwrap();
    assert_eq!((seen.count, seen.unseen), (1, 1));
    assert_eq!(
        seen.texts.concat(),
        "## Slide 1: Hi\n\n[picture 1, not shown: a dog]\n\nSpeaker notes: Wave."
    );
}

/// A book of two chapters.
fn epub(more: &[(&str, &[u8])]) -> Vec<u8> {
    let package = "<package><metadata><dc:title>A Book</dc:title><dc:creator>Ann</dc:creator></metadata>\
        <manifest><item id=\"b\" href=\"two.xhtml\" media-type=\"application/xhtml+xml\"/>\
        <item id=\"a\" href=\"ch%201.xhtml\" media-type=\"application/xhtml+xml\"/>\
        <item id=\"p\" href=\"p.png\" media-type=\"image/png\"/></manifest>\
        <spine><itemref idref=\"a\"/><itemref idref=\"b\"/></spine></package>";
    let container =
        "<container><rootfiles><rootfile full-path=\"OPS/p.opf\"/></rootfiles></container>";
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("mimetype", b"application/epub+zip"),
        ("META-INF/container.xml", container.as_bytes()),
        ("OPS/p.opf", package.as_bytes()),
        (
            "OPS/ch 1.xhtml",
            b"<html><body><h1>One</h1><p>It was&nbsp;night.</p></body></html>",
        ),
        (
            "OPS/two.xhtml",
            b"<html><body><h1>Two</h1><p>It was day.</p></body></html>",
        ),
    ];
    parts.extend_from_slice(more);
    zip(&parts)
}

#[test]
fn books_are_read_in_their_order() {
    let seen = read("", &epub(&[])).unwrap();
    assert_eq!((seen.count, seen.unseen, seen.cut), (1, 1, false));
    assert_eq!(
        seen.texts.concat(),
        "# A Book\n\nAnn\n\n# One\n\nIt was\u{A0}night.\n\n# Two\n\nIt was day.\n\n[1 picture is not shown]"
    );
    let locked = |way: &str| {
        format!(
            "<encryption><enc:EncryptedData><enc:EncryptionMethod Algorithm=\"{way}\"/></enc:EncryptedData></encryption>"
        )
    };
    let locked_with = |way: &str| {
        let list = locked(way);
        read("", &epub(&[("META-INF/encryption.xml", list.as_bytes())]))
    };
    let refused = locked_with("http://www.w3.org/2001/04/xmlenc#aes128-cbc").unwrap_err();
    assert!(refused.contains("DRM"), "{refused}");
    assert!(locked_with("http://www.idpf.org/2008/embedding").is_ok());
}

#[test]
fn rtf_is_read() {
    let file = br#"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}{\info{\title no}}
\pard\outlinelevel0 Caf\'e9\par\pard {\f1 \'cf\'f0} \u8364?\u-10179?\u-8704?\line {\v hidden}x\par
{\field{\*\fldinst HYPERLINK "https://example.org"}{\fldrslt there}}\par
\pard{\listtext\tab 1.\tab}\ls1\ilvl0 one\par\pard\trowd\intbl a\cell b\cell\row\pard
text{\footnote below}{\pict\pngblip 89504e47}\par}"#;
    let seen = read("a.rtf", file).unwrap();
    assert_eq!((seen.count, seen.unseen, seen.cut), (1, 1, false));
    assert_eq!(
        seen.texts.concat(),
        "# Café\n\nПр €😀\nx\n\n[there](https://example.org)\n\n1. one\n\n\
         | a | b |\n| --- | --- |\n\ntext[^1][picture 1, not shown]\n\n[^1]: below"
    );
}

#[test]
fn mails_are_read_with_what_is_attached() {
    let inner = "From: c@example.org\r\nSubject: Inner\r\nMIME-Version: 1.0\r\n\r\ninside\r\n";
    let attached = STANDARD.encode(docx("<w:p><w:r><w:t>letter</w:t></w:r></w:p>", &[]));
    let mail = format!(
        "From: =?utf-8?q?Gr=C3=B6=C3=9Fe?= <a@example.org>\r\nTo: b@example.org\r\nDate: Sat, 31 Jan 2026 13:30:00 +0100\r\n\
         Subject: Plans\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n\
         --x\r\nContent-Type: multipart/alternative; boundary=\"y\"\r\n\r\n\
         --y\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=F6n\r\n\
         --y\r\nContent-Type: text/html\r\n\r\n<p>Sch&ouml;n</p>\r\n--y--\r\n\
         --x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"a.docx\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{attached}\r\n\
         --x\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename=\"p.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgr/\r\n\
         --x\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--x--\r\n"
    );
    let seen = read("a.eml", mail.as_bytes()).unwrap();
    assert_eq!(
        (seen.count, seen.unseen, seen.cut),
        (4, 1, false),
        "{seen:?}"
    );
    assert_eq!(
        seen.texts,
        [
            "From: Größe <a@example.org>\nTo: b@example.org\nDate: 2026-01-31T13:30:00+01:00\nSubject: Plans\n\nSchön",
            "[attachment a.docx]\nletter",
            "[attachment p.png: not read, it is a picture; send it by itself to have it seen]",
            "[attachment without a name]\nFrom: c@example.org\nSubject: Inner\n\ninside",
        ]
    );
}

#[test]
fn notebooks_and_tables_are_read_and_what_only_looks_like_them_is_text() {
    let notebook = br#"{"cells": [{"cell_type": "markdown", "source": "Hello"},
        {"cell_type": "code", "source": ["1+1"], "outputs": [{"output_type": "execute_result", "data": {"text/plain": "2"}}]}],
        "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}"#;
    let read = "Hello\n\n```python\n1+1\n```\n\nOutput:\n\n```\n2\n```";
    assert_eq!(text("a.json", notebook), read);
    assert_eq!(text("a.ipynb", b"{\"no\": 1}"), "{\"no\": 1}");
    let table = "| Name | Größe |\n| --- | --- |\n| a;b | 5,5 |";
    assert_eq!(text("a.csv", "Name;Größe\n\"a;b\";5,5\n".as_bytes()), table);
    assert_eq!(
        text("a.csv", b"One line, and\nno table."),
        "One line, and\nno table."
    );
}
