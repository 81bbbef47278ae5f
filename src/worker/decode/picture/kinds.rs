//! Which pictures are not read, and what to do about them. Each continues "the picture …".

use std::io::Cursor;

use tiff::decoder::Decoder;
use tiff::tags::Tag;

/// What a TIFF says of its pictures: a smaller copy of another, a mask of it.
const COPY: u32 = 1;
const MASK: u32 = 4;
/// Marks of cameras' raw photographs in the form of TIFF.
const DNG_VERSION: Tag = Tag::Unknown(50_706);
const CANON: &[u8] = b"CR\x02\0";

const RAW: &str = "is a camera's raw photograph, which is not read; save it as JPEG";
/// Beginnings of other kinds of pictures.
const OTHERS: [(&[u8], &str); 8] = [
    (
        b"\xFF\x0A",
        "is a JPEG XL file, which is not read; save it as PNG or JPEG",
    ),
    (
        b"\0\0\0\x0CJXL ",
        "is a JPEG XL file, which is not read; save it as PNG or JPEG",
    ),
    (
        b"\0\0\0\x0CjP  ",
        "is a JPEG 2000 file, which is not read; save it as PNG or JPEG",
    ),
    (
        b"8BPS",
        "is a Photoshop file, which is not read; save it as PNG or JPEG",
    ),
    (
        b"\0\0\x01\0",
        "is an icon, which is not read; save it as PNG",
    ),
    (
        b"\x1A\x45\xDF\xA3",
        "is a video (WebM, Matroska) and no picture; send frames of it as JPEG",
    ),
    (b"%PDF-", "is a PDF and no picture; send it as a file"),
    (
        b"II+\0",
        "is a TIFF file of the large sort (BigTIFF), which is not read; save it as PNG or JPEG",
    ),
];

/// What a file is that is none of the formats.
pub fn other(file: &[u8]) -> &'static str {
    if file.get(4..8) == Some(b"ftyp") {
        return of_brand(file);
    }
    if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"AVI ") {
        return "is a video (AVI) and no picture; send frames of it as JPEG";
    }
    let begin = file.trim_ascii_start();
    let head = &begin[..begin.len().min(1024)];
    let is_drawing = head.starts_with(b"<svg")
        || head.starts_with(b"<?xml") && head.windows(4).any(|part| part == b"<svg");
    if is_drawing {
        return "is an SVG drawing, which is not read; save it as PNG, or send its text";
    }
    OTHERS
        .iter()
        .find(|(begin, _)| file.starts_with(begin))
        .map_or(
            "is no PNG, JPEG, WebP, GIF, BMP or TIFF file",
            |(_, what)| what,
        )
}

/// What is in a container of the MP4 family: its own brand says it, or the others that it is as good as.
fn of_brand(file: &[u8]) -> &'static str {
    let length = file
        .first_chunk::<4>()
        .map_or(0, |l| u32::from_be_bytes(*l));
    let brands = &file[8..file.len().min((length as usize).clamp(12, 256))];
    let has = |known: &[&[u8; 4]]| {
        let mut all = brands.as_chunks::<4>().0.iter();
        all.any(|brand| known.contains(&brand))
    };
    if has(&[b"avif", b"avis"]) {
        "is an AVIF file, which is not read; save it as JPEG or WebP"
    } else if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
    ]) {
        "is an HEIC file, which is not read; save it as JPEG (`heif-convert` does)"
    } else if has(&[b"crx "]) {
        RAW
    } else if has(&[b"M4A ", b"M4B "]) {
        "is a sound and no picture; send it as `input_audio`"
    } else {
        "is a video (MP4) and no picture; send frames of it as JPEG"
    }
}

/// Whether a TIFF is one picture. Of several one alone would be shown, and nobody would know.
pub fn has_one_page(file: &[u8]) -> Result<(), String> {
    let failed = |_| "is damaged or cut off".to_owned();
    let mut decoder = Decoder::new(Cursor::new(file)).map_err(failed)?;
    let mut pages = 0;
    let mut is_first = true;
    loop {
        let kind = decoder.find_tag_unsigned::<u32>(Tag::NewSubfileType);
        let kind = kind.ok().flatten().unwrap_or_default();
        let is_raw = is_first && kind & COPY != 0
            || file.get(8..12) == Some(CANON)
            || decoder.image_ifd().find_entry(DNG_VERSION).is_some();
        if is_raw {
            return Err(RAW.into());
        }
        is_first = false;
        pages += u32::from(kind & (COPY | MASK) == 0);
        if pages > 1 {
            return Err("has several pages; save it as PDF, and send that as a file".into());
        }
        // What stands behind the first picture and is none does not make that unreadable.
        if !decoder.more_images() || decoder.next_image().is_err() {
            return Ok(());
        }
    }
}
