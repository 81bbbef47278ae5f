//! PDF files made by hand.

use std::io::Write;

/// A PDF of these objects, numbered from 1: the catalog and the pages' tree come first.
pub fn pdf(objects: &[Vec<u8>]) -> Vec<u8> {
    let (mut out, mut places) = (b"%PDF-1.7\n".to_vec(), vec![]);
    for (i, object) in objects.iter().enumerate() {
        places.push(out.len());
        writeln!(out, "{} 0 obj", i + 1).unwrap();
        out.extend_from_slice(object);
        out.extend_from_slice(b"\nendobj\n");
    }
    let table = out.len();
    write!(out, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).unwrap();
    places
        .iter()
        .for_each(|place| writeln!(out, "{place:010} 00000 n ").unwrap());
    write!(
        out,
        "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n",
        objects.len() + 1
    )
    .unwrap();
    out
}

/// A stream with these entries of its dictionary.
pub fn stream(head: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("<< {head} /Length {} >>\nstream\n", data.len()).into_bytes();
    out.extend_from_slice(data);
    out.extend_from_slice(b"\nendstream");
    out
}

/// A PDF with a page for each content, with the font F and the picture P.
pub fn pages(contents: &[Vec<u8>], picture: &[u8]) -> Vec<u8> {
    let first = 5;
    let kids: String = (0..contents.len())
        .map(|i| format!("{} 0 R ", first + 2 * i))
        .collect();
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        format!(
            "<< /Type /Pages /Count {} /Kids [ {kids}] >>",
            contents.len()
        )
        .into_bytes(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
            .to_vec(),
        picture.to_vec(),
    ];
    for (i, content) in contents.iter().enumerate() {
        let resources = "/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >>";
        let content_at = first + 2 * i + 1;
        let page = format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] {resources} /Contents {content_at} 0 R >>"
        );
        objects.extend([page.into_bytes(), content.clone()]);
    }
    pdf(&objects)
}

/// What draws these lines.
pub fn words(lines: &[&str]) -> Vec<u8> {
    let shown: String = lines
        .iter()
        .map(|line| format!("({line}) Tj 0 -14 Td "))
        .collect();
    stream("", format!("BT /F 12 Tf 20 280 Td {shown}ET").as_bytes())
}

/// A picture that can fill its page.
pub fn red_circle() -> Vec<u8> {
    let picture = image::load_from_memory(include_bytes!("../data/pictures/red-circle.png"))
        .unwrap()
        .to_rgb8();
    let (width, height) = picture.dimensions();
    let head = format!(
        "/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB /BitsPerComponent 8"
    );
    stream(&head, picture.as_raw())
}
