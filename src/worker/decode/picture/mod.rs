//! Files of pictures into pixels. What a file claims is held against the limits before anything is
//! set aside for it.

mod colour;
mod jpeg;
mod kinds;

use std::io::Cursor;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use self::colour::{Profile, on_white};
use self::jpeg::{is_cut, lacks_end, with_end};
use super::careful;
use crate::chat::Detail;
use crate::gemma::picture::{self as sight, Size};
use crate::ipc::DECODE_MEMORY_MOST;

/// Pixels of one side.
pub const MAX_SIDE: u32 = 16_384;
/// Pixels of a picture: what phones take with a sensor of 108 megapixels.
pub const MAX_PIXELS: u64 = 112 << 20;
/// Bytes that a picture may take while it is decoded: what the process may have, without its own.
const MAX_MEMORY: u64 = DECODE_MEMORY_MOST - super::OWN_MEMORY;

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
        // What a decoder keeps beside the picture: coefficients and inks, the samples as they lie in
        // the file, the planes or the canvas of the others.
        let beside = match file {
            [0xFF, 0xD8, ..] => jpeg::beside(file),
            [b'I', b'I', ..] | [b'M', b'M', ..] => 2 * raw.max(4 * pixels),
            _ => 6 * pixels,
        };
        let turned = turned(orientation(&mut decoder));
        let copy = if turned { raw } else { 0 };
        let again = if lacks_end(file) { raw } else { 0 };
        let (across, down) = if turned {
            (height, width)
        } else {
            (width, height)
        };
        let size = shown(across, down, detail);
        // It is resized in one direction first.
        let half = |long: u32, short: u32| u64::from(long) * u64::from(short) * 3;
        let half = half(size.width, down).max(half(size.height, across));
        // What is not in three bytes for each pixel is brought there.
        let three = match decoder.color_type() {
            ColorType::Rgb8 => 0,
            kind if kind.has_alpha() => 4 * pixels,
            _ => 3 * pixels,
        };
        let resizing = three + half + u64::from(size.width) * u64::from(size.height) * 3;
        let profile = Profile::memory(file, &mut decoder);
        // Some decoders copy the file, and so does what gives it an end.
        let copies = 3 * file.len() as u64;
        let all = copies + profile + raw + (beside + again).max(copy).max(resizing);
        match all <= MAX_MEMORY {
            true => Ok(all),
            false => Err(format!(
                "has {width} x {height} pixels, which take {} MiB of memory to decode; at most {} MiB are \
                 allowed: send it smaller",
                all >> 20,
                MAX_MEMORY >> 20
            )),
        }
    })
}

/// The picture at `size`; of one that moves, what it begins with.
pub fn pixels(file: &[u8], size: Size) -> Result<Pixels, String> {
    careful(|| {
        let ended = with_end(file);
        let mut decoder = open(&ended)?;
        let orientation = orientation(&mut decoder);
        let profile = Profile::of(&ended, &mut decoder);
        let mixed = match &profile {
            Some(profile) if !lacks_end(file) => profile.mixed(&ended),
            _ => None,
        };
        let mut picture = match mixed {
            Some(mixed) => mixed.into(),
            None => DynamicImage::from_decoder(decoder).map_err(|error| reason(&error))?,
        };
        if lacks_end(file) && is_cut(file, &picture)? {
            return Err("is damaged or cut off".into());
        }
        picture.apply_orientation(orientation);
        let mut rgb = resized(on_white(picture), size)?;
        if let Some(profile) = profile {
            profile.into_srgb(&mut rgb);
        }
        Ok(Pixels { size, rgb })
    })
}

fn resized(picture: RgbImage, size: Size) -> Result<Vec<u8>, String> {
    if picture.dimensions() == (size.width, size.height) {
        return Ok(picture.into_raw());
    }
    let (width, height) = picture.dimensions();
    let source = ImageRef::new(width, height, picture.as_raw(), PixelType::U8x3)
        .map_err(|error| format!("cannot be resized: {error}"))?;
    let mut shown = Image::new(size.width, size.height, PixelType::U8x3);
    // The cubic that image libraries call bicubic; it averages when it makes a picture smaller.
    let bicubic = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new()
        .resize(&source, &mut shown, &bicubic)
        .map_err(|error| format!("cannot be resized: {error}"))?;
    Ok(shown.into_vec())
}

/// A decoder that has read the header of a picture within the limits.
fn open(file: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let mut reader = ImageReader::new(Cursor::new(file));
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_MEMORY);
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
        Some(ImageFormat::Tiff) => kinds::has_one_page(file)?,
        _ => return Err(kinds::other(file).into()),
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

/// How a camera was held. What a file says wrongly about that does not make it unreadable.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let said = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    if said != Orientation::NoTransforms {
        return said;
    }
    // Some programs write in WebP and PNG what stands before it in JPEG.
    let labelled = decoder.exif_metadata().ok().flatten();
    labelled
        .and_then(|exif| Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0")?))
        .unwrap_or(said)
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
        ImageError::Limits(_) => format!(
            "takes more than {} MiB of memory to decode; send it smaller",
            MAX_MEMORY >> 20
        ),
        ImageError::Unsupported(_) => {
            "is of a rare sort of its format that is not read; save it as PNG or JPEG".into()
        }
        _ => "is damaged or cut off".into(),
    }
}

#[cfg(test)]
mod tests;
