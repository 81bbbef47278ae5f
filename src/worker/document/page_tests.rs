//! PDFs of one page as programs write them, and what a person reads on them.

use std::io::Write;

use hayro::hayro_interpret::font::GlyphRun;
use hayro::hayro_interpret::util::TransformExt;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, SoftMask, interpret_page,
};
use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::object::Dict;
use hayro::kurbo::{BezPath, Rect};

use super::fonts::Fonts;
use super::text::Text;
use super::{glyphs, notes};

struct Reader<'f>(Text, &'f Fonts<'f>);

impl Device<'_> for Reader<'_> {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        glyphs::read(run, props.transform, self.1, &mut self.0, |_, _| {});
    }
    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {}
    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {}
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
    fn begin_marked_content(&mut self, _: &[u8], properties: Option<&Dict<'_>>) {
        self.0.begin(notes::words(properties));
    }
    fn end_marked_content(&mut self) {
        self.0.end();
    }
}

const HELVETICA: &str =
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>";

/// What is read on a page with this content, whose font F is `font`; of `more`, what the page has
/// besides, and objects from the sixth on.
fn read(font: &str, content: &str, more: &str, objects: &[&str]) -> String {
    let mut all = vec![
        "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [] >> >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 300] /Resources << /Font << /F 4 0 R >> >> /Contents 5 0 R {more} >>"
        ),
        font.to_owned(),
        format!(
            "<< /Length {} >>\nstream\n{content}\nendstream",
            content.len()
        ),
    ];
    all.extend(objects.iter().map(|object| (*object).to_owned()));
    let (mut out, mut places) = (b"%PDF-1.7\n".to_vec(), vec![]);
    for (i, object) in all.iter().enumerate() {
        places.push(out.len());
        write!(out, "{} 0 obj\n{object}\nendobj\n", i + 1).unwrap();
    }
    let table = out.len();
    write!(out, "xref\n0 {}\n0000000000 65535 f \n", all.len() + 1).unwrap();
    places
        .iter()
        .for_each(|place| writeln!(out, "{place:010} 00000 n ").unwrap());
    write!(
        out,
        "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n",
        all.len() + 1
    )
    .unwrap();

    let pdf = Pdf::new(out).unwrap();
    let page = &pdf.pages()[0];
    let upright = page.initial_transform(true).to_kurbo();
    let cache = InterpreterCache::new();
    let whole = Rect::new(0.0, 0.0, 400.0, 300.0);
    let mut context = Context::new(
        upright,
        whole,
        &cache,
        pdf.xref(),
        InterpreterSettings::default(),
    );
    let fonts = Fonts::new(&pdf);
    let mut reader = Reader(Text::default(), &fonts);
    interpret_page(page, &mut context, &mut reader);
    reader.0.close();
    reader.0.guess();
    notes::read(page, upright, &mut reader.0);
    reader.0.finish()
}

fn plain(content: &str) -> String {
    read(HELVETICA, content, "", &[])
}

#[test]
fn bold_that_is_drawn_twice_is_read_once() {
    let twice = "BT /F 12 Tf 20 200 Td (Total 2,007) Tj 0.3 0 Td (Total 2,007) Tj ET";
    assert_eq!(plain(twice), "Total 2,007");
}

#[test]
fn letters_that_are_drawings_are_as_wide_as_their_font_says() {
    // Their unit is a 40th of their size.
    let font = "<< /Type /Font /Subtype /Type3 /FontBBox [0 0 40 40] /FontMatrix [1 0 0 1 0 0] /FirstChar 97 /LastChar 100 \
        /Widths [20 20 20 20] /CharProcs << /a 6 0 R /b 6 0 R /c 6 0 R /d 6 0 R >> \
        /Encoding << /Type /Encoding /Differences [97 /a /b /c /d] >> >>";
    let drawing = "<< /Length 27 >>\nstream\n20 0 d0 0 0 18 30 re f     \nendstream";
    let content = "BT 0.3 0 0 0.3 20 200 Tm /F 1 Tf [(abba) -12000 (cab)] TJ 1 0 0 1 0 0 Tm ET";
    assert_eq!(read(font, content, "", &[drawing]), "abba cab");
}

#[test]
fn lines_may_run_upwards_and_downwards() {
    for (matrix, next) in [
        ("0 1 -1 0", "60 40"),
        ("0 -1 1 0", "40 260"),
        ("-1 0 0 -1", "300 40"),
    ] {
        let (x, y) = next.split_once(' ').unwrap();
        let content = format!(
            "BT /F 12 Tf {matrix} {x} {y} Tm (A line in a landscape) Tj 0 -14 Td (table, and another.) Tj ET"
        );
        assert_eq!(
            plain(&content),
            "A line in a landscape\ntable, and another.",
            "{matrix}"
        );
    }
}

#[test]
fn widths_are_the_files_where_the_font_is_not_there() {
    // Letters that are narrower than those of any font that takes their place.
    let widths = "250 ".repeat(224);
    let font = format!(
        "<< /Type /Font /Subtype /TrueType /BaseFont /Unknown-Narrow /Encoding /WinAnsiEncoding /FirstChar 32 /LastChar 255 \
         /Widths [{widths}] /FontDescriptor << /Type /FontDescriptor /FontName /Unknown-Narrow /Flags 32 /FontBBox [0 0 500 500] >> >>"
    );
    let content = "BT /F 12 Tf 20 200 Td [(minimum) -250 (of) -250 (wwww)] TJ ET";
    assert_eq!(read(&font, content, "", &[]), "minimum of wwww");
}

#[test]
fn letters_that_are_spaced_for_looks_are_words() {
    let content = "BT /F 12 Tf 3 Tc 20 200 Td (ABSTRACT AND SUMMARY) Tj ET";
    assert_eq!(plain(content), "ABSTRACT AND SUMMARY");
}

#[test]
fn letters_that_stand_apart_are_no_words() {
    let apart = "BT /F 12 Tf 20 200 Td [(a) -500 (b) -500 (c) -500 (d) -500 (e)] TJ ET";
    assert_eq!(plain(apart), "a b c d e");
}

#[test]
fn a_space_counts_where_it_is_drawn() {
    let content = "BT /F 12 Tf 20 200 Td (BUTTO) Tj 0 -50 Td (Else ) Tj 40.67 50 Td (N) Tj ET";
    assert_eq!(plain(content), "BUTTON\n\nElse");
}

#[test]
fn small_signs_beside_the_line_end_words() {
    let signs = |before: &str, sign: &str, rise: i32, after: &str| {
        plain(&format!(
            "BT /F 12 Tf 20 200 Td ({before}) Tj /F 7 Tf {rise} Ts ({sign}) Tj /F 12 Tf 0 Ts ({after}) Tj ET"
        ))
    };
    assert_eq!(signs("", "1", 4, "These are"), "1 These are");
    assert_eq!(signs("T", "s", -2, "S"), "Ts S");
    assert_eq!(signs("H", "2", -2, "O"), "H2O");
    let stepped = "BT /F 12 Tf 20 200 Td (Up) Tj 6 Ts (stairs) Tj ET";
    assert_eq!(plain(stepped), "Up stairs");
}

/// A TrueType font that has so many empty glyphs, the last of which are for these characters.
fn true_type(glyphs: u16, characters: &str) -> Vec<u8> {
    let units: Vec<u16> = characters.encode_utf16().collect();
    let first = glyphs - units.len() as u16;
    let mut segments: Vec<(u16, u16)> = (first..).zip(&units).map(|(g, c)| (*c, g)).collect();
    segments.sort_unstable();
    segments.push((0xffff, 0));
    let words = |all: &[u16]| -> Vec<u8> { all.iter().flat_map(|w| w.to_be_bytes()).collect() };
    let count = segments.len() as u16;
    let mut table = vec![4, 16 + 8 * count, 0, 2 * count, 0, 0, 0];
    table.extend(segments.iter().map(|(c, _)| c));
    table.push(0);
    table.extend(segments.iter().map(|(c, _)| c));
    table.extend(segments.iter().map(|(c, g)| g.wrapping_sub(*c)));
    table.extend(vec![0; segments.len()]);
    let mut cmap = words(&[0, 1, 3, 1, 0, 12]);
    cmap.extend(words(&table));
    let mut head = vec![0; 54];
    head[..4].copy_from_slice(&[0, 1, 0, 0]);
    head[12..16].copy_from_slice(&[0x5f, 0x0f, 0x3c, 0xf5]);
    head[18..20].copy_from_slice(&1000_u16.to_be_bytes());
    let mut hhea = vec![0; 36];
    hhea[34..36].copy_from_slice(&1_u16.to_be_bytes());
    let mut maxp = vec![0; 32];
    maxp[..6].copy_from_slice(&[0, 1, 0, 0, (glyphs >> 8) as u8, glyphs as u8]);
    let tables: [(&[u8], Vec<u8>); 7] = [
        (b"cmap", cmap),
        (b"glyf", vec![0; 4]),
        (b"head", head),
        (b"hhea", hhea),
        (b"hmtx", vec![0; 2 + 2 * usize::from(glyphs)]),
        (b"loca", vec![0; 2 + 2 * usize::from(glyphs)]),
        (b"maxp", maxp),
    ];
    let mut out = words(&[0, 1, 0x0700 >> 8, 64, 2, 48]);
    out[..4].copy_from_slice(&[0, 1, 0, 0]);
    let mut at = 12 + 16 * tables.len() as u32;
    for (name, table) in &tables {
        out.extend(*name);
        [0, at, table.len() as u32]
            .iter()
            .for_each(|n| out.extend(n.to_be_bytes()));
        at += table.len().next_multiple_of(4) as u32;
    }
    for (_, table) in tables {
        out.extend(&table);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// What is read of these codes in a font with codes of two bytes that is embedded.
fn composite(characters: &str, ordering: &str, more: &str, codes: &str) -> String {
    let data: String = true_type(1000, characters)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let file = format!(
        "<< /Filter /ASCIIHexDecode /Length {} >>\nstream\n{data}>\nendstream",
        data.len() + 1
    );
    let font = format!(
        "<< /Type /Font /Subtype /Type0 /BaseFont /ABCDEF+Some /Encoding /Identity-H /DescendantFonts [6 0 R] {more} >>"
    );
    let descendant = format!(
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /ABCDEF+Some /DW 500 /CIDToGIDMap /Identity /CIDSystemInfo \
         << /Registry (Adobe) /Ordering ({ordering}) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor \
         /FontName /ABCDEF+Some /Flags 4 /FontBBox [0 0 1 1] /FontFile2 7 0 R >> >>"
    );
    let content = format!("BT /F 12 Tf 20 200 Td <{codes}> Tj ET");
    read(&font, &content, "", &[&descendant, &file])
}

#[test]
fn fonts_say_what_their_glyphs_are() {
    // By the table of the embedded font, which has other numbers.
    assert_eq!(
        composite("Łódź", "Identity", "", "03e403e503e603e7"),
        "Łódź"
    );
    // By the collection that the numbers are from.
    assert_eq!(composite("", "Japan1", "", "00220465034b"), "A亜あ");
    // By the file, which says that the codes are the characters.
    let itself = "/ToUnicode /Identity-H";
    assert_eq!(
        composite("", "Identity", itself, "014100f30064017a"),
        "Łódź"
    );
    assert_eq!(composite("", "Identity", "", "00f3"), "\u{fffd}");
}

#[test]
fn letters_with_numbers_for_names_are_read_if_they_are_text() {
    let names: String = (97..123).map(|code| format!(" /a{code}")).collect();
    let drawn: String = (97..123).map(|code| format!(" /a{code} 6 0 R")).collect();
    let widths = "20 ".repeat(26);
    let font = format!(
        "<< /Type /Font /Subtype /Type3 /FontBBox [0 0 40 40] /FontMatrix [0.025 0 0 0.025 0 0] /FirstChar 97 \
         /LastChar 122 /Widths [{widths}] /CharProcs << {drawn} >> /Encoding << /Differences [97{names}] >> >>"
    );
    let drawing = "<< /Length 27 >>\nstream\n20 0 d0 0 0 18 30 re f     \nendstream";
    let shown = |text: &str| {
        let content = format!("BT /F 12 Tf 20 200 Td ({text}) Tj ET");
        read(&font, &content, "", &[drawing])
    };
    let words = "astheorderofthesewordsshows";
    assert_eq!(shown(words), words);
    let none = "abcdefghijklmnopqrstuvwxyz";
    assert_eq!(shown(none), "\u{fffd}".repeat(26));
}

#[test]
fn what_cannot_be_read_is_seen_to_be_missing() {
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /Unknown /Encoding /Identity-H /DescendantFonts [6 0 R] >>";
    let descendant = "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Unknown /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) \
        /Supplement 0 >> /DW 500 /FontDescriptor << /Type /FontDescriptor /FontName /Unknown /Flags 4 /FontBBox [0 0 1 1] >> >>";
    let content = "BT /F 12 Tf 20 200 Td <000100020003> Tj ET";
    assert_eq!(
        read(font, content, "", &[descendant]),
        "\u{fffd}\u{fffd}\u{fffd}"
    );
}

#[test]
fn tables_are_read_by_rows_however_they_are_drawn() {
    let columns = [
        ("20", ["Item", "Apple", "Pear"]),
        ("120", ["Qty", "3", ""]),
        ("200", ["Price", "1.20", "2.50"]),
    ];
    let mut content = String::from("BT /F 12 Tf ");
    for (x, cells) in columns {
        for (i, cell) in cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| !cell.is_empty())
        {
            content += &format!("1 0 0 1 {x} {} Tm ({cell}) Tj ", 250 - 20 * i);
        }
    }
    assert_eq!(
        plain(&(content + "ET")),
        "| Item | Qty | Price |\n|---|---|---|\n| Apple | 3 | 1.20 |\n| Pear | | 2.50 |"
    );
}

#[test]
fn columns_are_read_one_after_the_other() {
    let line = "Lines that fill a column of text %";
    let mut content = String::from("BT /F 10 Tf ");
    for i in 0..6 {
        for (column, x) in [(1, 20), (2, 210)] {
            content += &format!(
                "1 0 0 1 {x} {} Tm ({}) Tj ",
                250 - 12 * i,
                line.replace('%', &format!("{column}{i}"))
            );
        }
    }
    // Drawn by rows as a table is, these would be one.
    let by_rows = plain(&(content.clone() + "ET"));
    let left = content.replace("BT /F 10 Tf ", "");
    let (left, right): (Vec<_>, Vec<_>) = left
        .split_inclusive("Tj ")
        .partition(|shown| shown.contains(" 20 "));
    let by_columns = plain(&format!(
        "BT /F 10 Tf {}{}ET",
        left.concat(),
        right.concat()
    ));
    let place = |text: &str, what: &str| text.find(what).unwrap();
    assert!(
        place(&by_columns, "text 15") < place(&by_columns, "text 20"),
        "{by_columns}"
    );
    assert!(
        place(&by_rows, "text 20") < place(&by_rows, "text 15"),
        "{by_rows}"
    );
}

#[test]
fn values_of_forms_stand_beside_their_labels() {
    let content = "BT /F 12 Tf 20 250 Td (Name:) Tj 0 -30 Td (Married:) Tj 0 -30 Td (Please fill in every field of it.) Tj ET";
    let widgets = "/Annots [<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Anna Example) /Rect [100 245 300 265] >> \
        << /Type /Annot /Subtype /Widget /FT /Btn /T (married) /AS /Off /Rect [100 215 115 230] >>]";
    let read = read(HELVETICA, content, widgets, &[]);
    assert_eq!(
        read,
        "Name:  Anna Example\n\nMarried:  [ ]\n\nPlease fill in every field of it."
    );
}

#[test]
fn words_that_the_file_gives_stand_for_their_glyphs() {
    let given = |words: &str, glyphs: &str| {
        plain(&format!(
            "BT /F 12 Tf 20 200 Td (An o) Tj /Span << /ActualText {words} >> BDC {glyphs} EMC (ce of it) Tj ET"
        ))
    };
    assert_eq!(given("(ffi)", "(X) Tj"), "An office of it");
    assert_eq!(
        given("<FEFF00660066>", "(#) Tj /Inner BMC (#) Tj EMC"),
        "An offce of it"
    );
    assert_eq!(given("<FEFF00AD>", "(-) Tj"), "An o-ce of it");
    assert_eq!(given("<FEFF00AD>", "[( ) 278] TJ"), "An oce of it");
    assert!(!given("()", "(XYZ) Tj").contains('X'));
    // Two lines are read as they are.
    let lines = given("(all of it)", "(ne) Tj 0 -14 Td (tw) Tj");
    assert_eq!(lines, "An one\ntwce of it");
    // One that does not end.
    let open = "BT /F 12 Tf 20 200 Td /Span << /ActualText (yes) >> BDC (no) Tj ET";
    assert_eq!(plain(open), "yes");
}

#[test]
fn what_is_chosen_of_lists_is_read() {
    let content =
        "BT /F 12 Tf 20 250 Td (Country:) Tj 0 -100 Td (Please fill in every field of it.) Tj ET";
    let drawing = "BT /F 12 Tf 2 44 Td (red) Tj 0 -14 Td (green) Tj 0 -14 Td (blue) Tj ET";
    let list = format!(
        "<< /Type /XObject /Subtype /Form /BBox [0 0 100 60] /Length {} >>\nstream\n{drawing}\nendstream",
        drawing.len()
    );
    let widgets = "/Annots [<< /Type /Annot /Subtype /Widget /FT /Ch /Ff 131072 /T (country) /V (de) \
        /Opt [[(fr) (France)] [(de) (Germany)]] /Rect [100 245 300 265] >> \
        << /Type /Annot /Subtype /Widget /FT /Ch /T (colour) /V [(g) (blue)] /Opt [(red) [(g) (green)] (blue)] \
        /AP << /N 6 0 R >> /Rect [100 180 200 240] >>]";
    let read_of = |widgets: &str| read(HELVETICA, content, widgets, &[&list]);
    let open = "/Annots [<< /Type /Annot /Subtype /Widget /FT /Ch /T (size) /V () /Opt [(small) (large)] \
        /Rect [100 100 200 140] >>]";
    assert!(read_of(open).ends_with("small\nlarge"), "{}", read_of(open));
    let read = read_of(widgets);
    assert!(read.starts_with("Country:  Germany\n"), "{read}");
    assert!(
        read.ends_with("[Chosen of the list \u{201c}colour\u{201d}: green, blue]"),
        "{read}"
    );
}

#[test]
fn notes_and_links_are_read() {
    let content = "BT /F 12 Tf 20 250 Td (See our page for more of it.) Tj ET";
    let annotations = "/Annots [<< /Type /Annot /Subtype /Text /T (Ben) /Contents (Is this right?) /Rect [300 240 320 260] >> \
        << /Type /Annot /Subtype /Link /Rect [43 245 94 265] /A << /S /URI /URI (https://example.org/a) >> >> \
        << /Type /Annot /Subtype /Text /F 2 /Contents (hidden) /Rect [300 240 320 260] >>]";
    let read = read(HELVETICA, content, annotations, &[]);
    assert_eq!(
        read,
        "See [our page](https://example.org/a) for more of it.\n\n[Note by Ben: Is this right?]"
    );
}
