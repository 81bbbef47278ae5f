//! Files of pictures into pixels. What a file claims is held against the limits before anything is
//! set aside for it.

use std::borrow::Cow;
use std::io::Cursor;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView as _, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits, RgbImage,
};

use super::careful;
use crate::chat::Detail;
use crate::gemma::picture::{self as sight, Size};

/// Pixels of one side.
pub const MAX_SIDE: u32 = 16_384;
/// Pixels of a picture.
pub const MAX_PIXELS: u64 = 24 << 20;
/// Bytes that a decoder may set aside: the largest picture with two bytes for each of four
/// channels.
const MAX_ALLOC: u64 = MAX_PIXELS * 8;

const JPEG_END: &[u8] = b"\xFF\xD9";

/// Red, green and blue of each pixel, row by row.
pub struct Pixels {
    pub size: Size,
    pub rgb: Vec<u8>,
}

/// The width and height of the picture as it is to be looked at. The error continues the sentence
/// "the picture …".
pub fn dimensions(file: &[u8]) -> Result<(u32, u32), String> {
    careful(|| {
        let mut decoder = open(file)?;
        let (width, height) = decoder.dimensions();
        Ok(if turned(orientation(&mut decoder)) {
            (height, width)
        } else {
            (width, height)
        })
    })
}

/// The size at which the picture is shown.
pub fn size(file: &[u8], detail: Detail) -> Result<Size, String> {
    let (width, height) = dimensions(file)?;
    Ok(shown(width, height, detail))
}

fn shown(width: u32, height: u32, detail: Detail) -> Size {
    sight::size(width, height, sight::budget(detail, width, height))
}

/// Bytes of memory that it takes at most to decode and resize the picture, as its header says.
pub fn memory(file: &[u8], detail: Detail) -> Result<u64, String> {
    careful(|| {
        let mut decoder = open(file)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        let raw = decoder.total_bytes();
        // What a decoder keeps beside the picture: a progressive JPEG's coefficients (16 bits for each
        // of four colours), the planes or the canvas of the others.
        let beside = match file {
            [0xFF, 0xD8, ..] if file.windows(2).any(|pair| pair == [0xFF, 0xC2]) => 8 * pixels,
            [0xFF, 0xD8, ..] => 2 * pixels,
            _ => 6 * pixels,
        };
        let copy = match turned(orientation(&mut decoder)) {
            true => raw,
            false => 0,
        };
        let again = if lacks_end(file) { raw } else { 0 };
        let size = shown(width, height, detail);
        // It is resized in one direction first.
        let half = |long: u32, short: u32| u64::from(long) * u64::from(short) * 3;
        let half = half(size.width, height).max(half(size.height, width));
        // Some decoders copy the file, and so does what gives it an end.
        let file = 3 * file.len() as u64;
        let channels = match decoder.color_type().has_alpha() {
            true => 4,
            false => 3,
        };
        let resizing =
            channels * pixels + half + u64::from(size.width) * u64::from(size.height) * 3;
        Ok(file + raw + (beside + again).max(copy).max(resizing))
    })
}

/// The picture at `size`; of one that moves, what it begins with.
pub fn pixels(file: &[u8], size: Size) -> Result<Pixels, String> {
    careful(|| {
        let ended = with_end(file);
        let mut decoder = open(&ended)?;
        let orientation = orientation(&mut decoder);
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| reason(&error))?;
        if lacks_end(file) && is_cut(file, &picture)? {
            return Err("is damaged or cut off".into());
        }
        picture.apply_orientation(orientation);
        let picture = on_white(picture);
        if picture.dimensions() == (size.width, size.height) {
            return Ok(Pixels {
                size,
                rgb: picture.into_raw(),
            });
        }
        let (width, height) = picture.dimensions();
        let source = ImageRef::new(width, height, picture.as_raw(), PixelType::U8x3)
            .map_err(|error| format!("cannot be resized: {error}"))?;
        let mut shown = Image::new(size.width, size.height, PixelType::U8x3);
        // The cubic that image libraries call bicubic; it averages when it makes a picture smaller.
        let bicubic =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        Resizer::new()
            .resize(&source, &mut shown, &bicubic)
            .map_err(|error| format!("cannot be resized: {error}"))?;
        Ok(Pixels {
            size,
            rgb: shown.into_vec(),
        })
    })
}

/// A decoder that has read the header of a picture within the limits.
fn open(file: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let mut reader = ImageReader::new(Cursor::new(file));
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let reader = reader
        .with_guessed_format()
        .map_err(|error| format!("cannot be read: {error}"))?;
    match reader.format() {
        Some(
            ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp,
        ) => {}
        _ => return Err(other_kind(file).into()),
    }
    let decoder = reader.into_decoder().map_err(|error| reason(&error))?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "has {width} x {height} pixels; at most {MAX_PIXELS} are allowed, and {MAX_SIDE} on a side"
        ));
    }
    if width == 0 || height == 0 {
        return Err("has no pixels".into());
    }
    Ok(decoder)
}

/// What a file is that is none of the formats. Continues "the picture …".
fn other_kind(file: &[u8]) -> &'static str {
    let brand = (file.get(4..8) == Some(b"ftyp")).then(|| file.get(8..12));
    match brand.flatten() {
        Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => {
            "is an HEIC file, which is not read; save it as JPEG (`heif-convert` does)"
        }
        Some(b"avif" | b"avis") => "is an AVIF file, which is not read; save it as JPEG or WebP",
        Some(_) => "is a film and no picture; send frames of it as JPEG",
        None if file.starts_with(b"II*\0") || file.starts_with(b"MM\0*") => {
            "is a TIFF file, which is not read; save it as PNG or JPEG"
        }
        None => "is no PNG, JPEG, WebP, GIF or BMP file",
    }
}

/// The file with the mark that ends it, where that is missing: some programs leave it out. A PNG
/// whose rows are not all there remains one that is cut off.
fn with_end(file: &[u8]) -> Cow<'_, [u8]> {
    const PNG_END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";
    let has_end = |end: &[u8]| file.windows(end.len()).rev().any(|part| part == end);
    match file {
        _ if lacks_end(file) => [file, JPEG_END].concat().into(),
        [0x89, b'P', b'N', b'G', ..] if !has_end(PNG_END) => [file, PNG_END].concat().into(),
        _ => file.into(),
    }
}

/// A JPEG without an end mark behind its last scan.
fn lacks_end(file: &[u8]) -> bool {
    let last = |mark: u8| file.windows(2).rposition(|pair| pair == [0xFF, mark]);
    file.starts_with(&[0xFF, 0xD8]) && last(0xD9) < last(0xDA)
}

/// Whether more is missing of a JPEG than the mark of its end: its decoder makes pixels of whatever
/// stands there in the place of what is missing, and passes over it where nothing is.
fn is_cut(jpeg: &[u8], picture: &DynamicImage) -> Result<bool, String> {
    const FILLING: [u8; 256] = [0x5A; 256];
    let filled = [jpeg, &FILLING, JPEG_END].concat();
    let filled = DynamicImage::from_decoder(open(&filled)?).map_err(|error| reason(&error))?;
    Ok(filled != *picture)
}

/// As viewers show it: what is transparent lets a white page through.
fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let (width, height) = picture.dimensions();
    let mut bytes = picture.into_rgba8().into_raw();
    let pixels = bytes.len() / 4;
    for i in 0..pixels {
        let alpha = u32::from(bytes[4 * i + 3]);
        for channel in 0..3 {
            let mixed = u32::from(bytes[4 * i + channel]) * alpha + 255 * (255 - alpha);
            bytes[3 * i + channel] = ((mixed + 127) / 255) as u8;
        }
    }
    bytes.truncate(3 * pixels);
    // It has three bytes for each pixel.
    RgbImage::from_raw(width, height, bytes).unwrap_or_default()
}

/// How a camera was held. What a file says wrongly about that does not make it unreadable.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

fn turned(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

fn reason(error: &ImageError) -> String {
    match error {
        ImageError::Limits(_) => format!("takes more than {MAX_ALLOC} bytes to decode"),
        ImageError::Unsupported(_) => "is of a sort that is not supported".into(),
        _ => "is damaged or cut off".into(),
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, Rgba, RgbaImage};
    use proptest::prelude::*;

    use super::*;

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    const FORMATS: [ImageFormat; 5] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
    ];

    /// Red on the left, blue on the right.
    fn halves(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 {
                Rgb([220, 0, 0])
            } else {
                Rgb([0, 0, 220])
            }
        })
        .into()
    }

    fn at(pixels: &Pixels, x: u32, y: u32) -> &[u8] {
        let start = (y * pixels.size.width + x) as usize * 3;
        &pixels.rgb[start..start + 3]
    }

    /// The header of a PNG that claims a size.
    fn claims(width: u32, height: u32) -> Vec<u8> {
        let mut png = encoded(&halves(2, 2), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut sum = flate_crc(&png[12..29]);
        png[29..33].swap_with_slice(&mut sum);
        png
    }

    /// The checksum of a PNG's chunk.
    fn flate_crc(bytes: &[u8]) -> [u8; 4] {
        let bit = |crc: u32, _| {
            if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        };
        (!bytes
            .iter()
            .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit)))
        .to_be_bytes()
    }

    #[test]
    fn every_format_is_read_and_resized() {
        for format in FORMATS {
            let file = encoded(&halves(300, 200), format);
            assert_eq!(dimensions(&file), Ok((300, 200)));
            let shown = pixels(
                &file,
                Size {
                    width: 96,
                    height: 48,
                },
            )
            .unwrap();
            assert_eq!(shown.rgb.len(), 96 * 48 * 3);
            assert!(
                at(&shown, 10, 20)[0] > 200 && at(&shown, 80, 20)[2] > 200,
                "{format:?}"
            );
        }
    }

    #[test]
    fn a_picture_of_the_right_size_stays_as_it_is() {
        let picture = halves(96, 48);
        let shown = pixels(
            &encoded(&picture, ImageFormat::Png),
            Size {
                width: 96,
                height: 48,
            },
        )
        .unwrap();
        assert_eq!(shown.rgb, picture.into_rgb8().into_raw());
    }

    #[test]
    fn grey_transparent_and_deep_pictures_become_rgb() {
        let size = Size {
            width: 48,
            height: 48,
        };
        let clear = RgbaImage::from_pixel(50, 50, Rgba([10, 200, 30, 0]));
        assert_eq!(
            at(
                &pixels(&encoded(&clear.into(), ImageFormat::Png), size).unwrap(),
                5,
                5
            ),
            [255; 3]
        );
        let half = RgbaImage::from_pixel(50, 50, Rgba([0, 100, 255, 51]));
        assert_eq!(
            at(
                &pixels(&encoded(&half.into(), ImageFormat::Png), size).unwrap(),
                5,
                5
            ),
            [204, 224, 255]
        );
        let grey =
            DynamicImage::ImageLuma8(image::GrayImage::from_pixel(50, 50, image::Luma([77])));
        assert_eq!(
            at(
                &pixels(&encoded(&grey, ImageFormat::Png), size).unwrap(),
                5,
                5
            ),
            [77, 77, 77]
        );
        let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(
            50,
            50,
            Rgb([0xFFFF, 0, 0x8080]),
        ));
        assert_eq!(
            at(
                &pixels(&encoded(&deep, ImageFormat::Png), size).unwrap(),
                5,
                5
            ),
            [255, 0, 128]
        );
    }

    #[test]
    fn a_turned_picture_is_turned_back() {
        let jpeg = encoded(&halves(96, 48), ImageFormat::Jpeg);
        // An EXIF segment behind the start mark: one entry, orientation 6, to be turned by 90
        // degrees.
        let exif = b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let file = [&jpeg[..2], exif, &jpeg[2..]].concat();
        assert_eq!(dimensions(&file), Ok((48, 96)));
        let shown = pixels(
            &file,
            Size {
                width: 48,
                height: 96,
            },
        )
        .unwrap();
        assert!(at(&shown, 20, 10)[0] > 200 && at(&shown, 20, 90)[2] > 200);
    }

    #[test]
    fn the_first_frame_of_an_animation_is_shown() {
        let frame = |colour| image::Frame::new(RgbaImage::from_pixel(60, 40, Rgba(colour)));
        let mut gif = vec![];
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
        encoder
            .encode_frames([frame([0, 200, 0, 255]), frame([200, 0, 0, 255])])
            .unwrap();
        drop(encoder);
        let shown = pixels(
            &gif,
            Size {
                width: 48,
                height: 48,
            },
        )
        .unwrap();
        assert!(at(&shown, 20, 20)[1] > 150 && at(&shown, 20, 20)[0] < 50);
    }

    #[test]
    fn what_lacks_the_mark_of_its_end_alone_is_read() {
        let size = Size {
            width: 48,
            height: 48,
        };
        for (format, mark) in [(ImageFormat::Png, 12), (ImageFormat::Jpeg, 2)] {
            let whole = encoded(&halves(200, 200), format);
            let ended = &whole[..whole.len() - mark];
            assert_eq!(
                pixels(ended, size).unwrap().rgb,
                pixels(&whole, size).unwrap().rgb
            );
        }
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for (file, named) in [
            (&b"\0\0\0\x18ftypheic"[..], "HEIC"),
            (b"\0\0\0\x18ftypavif", "AVIF"),
            (b"\0\0\0\x18ftypisom", "a film"),
            (b"II*\0\x08\0\0\0", "TIFF"),
        ] {
            let said = dimensions(file).unwrap_err();
            assert!(said.contains(named), "{said}");
        }
    }

    #[test]
    fn bombs_are_refused_by_their_header() {
        // The sizes of a BMP, a GIF and a WebP lie where they always do.
        let huge = |format, at: usize, bytes: &[u8]| {
            let mut file = encoded(&halves(2, 2), format);
            file[at..at + bytes.len()].copy_from_slice(bytes);
            dimensions(&file).unwrap_err()
        };
        let bmp = huge(ImageFormat::Bmp, 18, &[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
        assert!(bmp.contains("65535 x 65535 pixels"), "{bmp}");
        let gif = huge(ImageFormat::Gif, 6, &[0xFF; 4]);
        assert!(gif.contains("65535 x 65535 pixels"), "{gif}");
        // 14 bits for each side, less one; the decoder takes the largest for none at all.
        let webp = huge(ImageFormat::WebP, 21, &[0xFF, 0xFF, 0xFF, 0x0F]);
        assert!(webp.contains("pixels"), "{webp}");
        for (width, height) in [
            (65_535, 65_535),
            (MAX_SIDE + 1, 1),
            (1, MAX_SIDE + 1),
            (5016, 5018),
        ] {
            let error = dimensions(&claims(width, height)).unwrap_err();
            assert!(
                error.contains(&format!("{width} x {height} pixels")),
                "{error}"
            );
        }
        assert_eq!(dimensions(&claims(4096, 6144)), Ok((4096, 6144)));
        assert!(
            pixels(
                &claims(4096, 6144),
                Size {
                    width: 48,
                    height: 48
                }
            )
            .err()
            .unwrap()
            .contains("damaged")
        );
        assert!(dimensions(&claims(0, 4)).is_err());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for file in [&b""[..], b"RIFF\0\0\0\0WAVEfmt ", b"<svg/>", b"hello"] {
            assert!(
                dimensions(file).unwrap_err().contains("is no PNG, JPEG"),
                "{file:?}"
            );
        }
        for format in FORMATS {
            let file = encoded(&halves(200, 200), format);
            assert!(
                dimensions(&file[..12]).unwrap_err().contains("damaged"),
                "{format:?}"
            );
        }
        for format in FORMATS {
            let file = encoded(&halves(200, 200), format);
            let cut = pixels(
                &file[..file.len() - 20],
                Size {
                    width: 48,
                    height: 48,
                },
            )
            .map(|_| ());
            assert!(cut.unwrap_err().contains("cut off"), "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_shown(at in 0usize..2000, byte: u8, cut in 0usize..2000, which in 0usize..5) {
            let mut file = encoded(&halves(60, 40), FORMATS[which]);
            let (at, cut) = (at % file.len(), cut % file.len());
            file[at] = byte;
            let size = Size { width: 96, height: 48 };
            for file in [&file[..], &file[..cut]] {
                if let Ok(shown) = pixels(file, size) {
                    prop_assert_eq!(shown.rgb.len(), 96 * 48 * 3);
                }
                let _ = dimensions(file);
            }
        }
    }
}
