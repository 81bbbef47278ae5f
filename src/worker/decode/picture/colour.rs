//! Colours as a file means them: by its ICC profile, in the inks of print, on a white page.

use std::io::Cursor;
use std::sync::Arc;

use image::{ColorType, DynamicImage, GenericImageView as _, ImageDecoder, RgbImage};
use moxcms::{
    ColorProfile, DataColorSpace, Layout, ParsingOptions, Transform8BitExecutor, TransformOptions,
};
use tiff::decoder::{Decoder as TiffDecoder, DecodingResult};
use tiff::tags::Tag;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{MAX_MEMORY, MAX_SIDE, careful};

/// Bytes of a profile; what is larger is passed over. Those of printers have up to 3 MB.
const MAX_PROFILE: usize = 4 << 20;
/// Bytes of its tables in memory for each of its own.
const UNPACKED: u64 = 8;
/// Pixels that are brought to other colours at once.
const AT_ONCE: usize = 16 << 10;
/// How a TIFF has its channels: each by itself.
const PLANAR: u16 = 2;

/// What the colours of a picture are meant to be. One that is damaged, or that is of other channels
/// than the picture, is passed over, as viewers do.
pub struct Profile(ColorProfile);

impl Profile {
    pub fn of(file: &[u8], decoder: &mut impl ImageDecoder) -> Option<Self> {
        let bytes = bytes(file, decoder)?;
        let options = ParsingOptions {
            max_profile_size: MAX_PROFILE,
            ..ParsingOptions::default()
        };
        let profile = careful(|| {
            ColorProfile::new_from_slice_with_options(&bytes, options)
                .map_err(|error| error.to_string())
        })
        .ok()?;
        let is_grey = matches!(
            decoder.color_type(),
            ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16
        );
        (profile.color_space != DataColorSpace::Gray || is_grey).then_some(Self(profile))
    }

    /// Bytes that [`of`](Self::of) takes at most.
    pub fn memory(file: &[u8], decoder: &mut impl ImageDecoder) -> u64 {
        bytes(file, decoder).map_or(0, |bytes| UNPACKED * bytes.len() as u64)
    }

    fn transform(&self, from: Layout) -> Result<Arc<Transform8BitExecutor>, String> {
        let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
        self.0
            .create_transform_8bit(from, &srgb, Layout::Rgb, options)
            .map_err(|error| error.to_string())
    }

    /// Red, green and blue of each pixel become those of sRGB.
    pub fn into_srgb(self, rgb: &mut [u8]) {
        let is_grey = self.0.color_space == DataColorSpace::Gray;
        let layout = match self.0.color_space {
            DataColorSpace::Rgb => Layout::Rgb,
            DataColorSpace::Gray => Layout::Gray,
            _ => return,
        };
        let converted = careful(|| {
            let transform = self.transform(layout)?;
            let mut converted = vec![0; rgb.len()];
            let parts = rgb
                .chunks(3 * AT_ONCE)
                .zip(converted.chunks_mut(3 * AT_ONCE));
            for (from, to) in parts {
                let grey: Vec<u8>;
                let from = match is_grey {
                    true => {
                        grey = from.iter().step_by(3).copied().collect();
                        &grey[..]
                    }
                    false => from,
                };
                transform
                    .transform(from, to)
                    .map_err(|error| error.to_string())?;
            }
            Ok(converted)
        });
        if let Ok(converted) = converted {
            rgb.copy_from_slice(&converted);
        }
    }

    /// A picture in the four inks of print, as the profile has them look; `None` of others, and where
    /// the profile does not say that.
    pub fn mixed(&self, file: &[u8]) -> Option<RgbImage> {
        if self.0.color_space != DataColorSpace::Cmyk {
            return None;
        }
        careful(|| {
            let transform = self.transform(Layout::Rgba)?;
            let (width, height, inks) = match file.starts_with(&[0xFF, 0xD8]) {
                true => inks_of_jpeg(file)?,
                false => inks_of_tiff(file)?,
            };
            let mut rgb = vec![0; inks.len() / 4 * 3];
            transform
                .transform(&inks, &mut rgb)
                .map_err(|error| error.to_string())?;
            RgbImage::from_raw(width, height, rgb).ok_or_else(|| "lacks pixels".to_owned())
        })
        .ok()
    }
}

fn bytes(file: &[u8], decoder: &mut impl ImageDecoder) -> Option<Vec<u8>> {
    let profile = match file {
        [b'I', b'I', ..] | [b'M', b'M', ..] => bytes_in_tiff(file)?,
        _ => decoder.icc_profile().ok().flatten()?,
    };
    (profile.len() < MAX_PROFILE).then_some(profile)
}

/// The decoder has it in 32 bytes for each byte, and none of a small picture.
fn bytes_in_tiff(file: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = TiffDecoder::new(Cursor::new(file)).ok()?;
    let mut directory = decoder.image_ifd();
    let count = directory.find_entry(Tag::IccProfile)?.count();
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count < MAX_PROFILE)?;
    let mut profile = vec![0; count];
    directory
        .find_tag_bytes(Tag::IccProfile, &mut profile, 0)
        .ok()??;
    Some(profile)
}

/// Cyan, magenta, yellow and black of each pixel.
type Inks = (u32, u32, Vec<u8>);

fn inks_of_jpeg(file: &[u8]) -> Result<Inks, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    let failed = |error: zune_jpeg::errors::DecodeErrors| error.to_string();
    decoder.decode_headers().map_err(failed)?;
    let space = decoder.input_colorspace();
    let Some(space @ (ColorSpace::CMYK | ColorSpace::YCCK)) = space else {
        return Err("has no inks".into());
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut inks = decoder.decode().map_err(failed)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    for pixel in inks.as_chunks_mut::<4>().0 {
        // The programs that write such files write how much of the paper shows; what is made of it
        // for YCbCr is turned round.
        *pixel = match (space, *pixel) {
            (ColorSpace::YCCK, [y, cb, cr, k]) => {
                let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0];
                [
                    (y + 1.402 * cr).round() as u8,
                    (y - 0.344_136 * cb - 0.714_136 * cr).round() as u8,
                    (y + 1.772 * cb).round() as u8,
                    255 - k,
                ]
            }
            (_, paper) => paper.map(|paper| 255 - paper),
        };
    }
    Ok((width as u32, height as u32, inks))
}

fn inks_of_tiff(file: &[u8]) -> Result<Inks, String> {
    let failed = |error: tiff::TiffError| error.to_string();
    let mut limits = tiff::decoder::Limits::default();
    limits.decoding_buffer_size = MAX_MEMORY as usize;
    let mut decoder = TiffDecoder::new(Cursor::new(file))
        .map_err(failed)?
        .with_limits(limits);
    let planes = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration);
    if decoder.colortype().map_err(failed)? != tiff::ColorType::CMYK(8)
        || planes.map_err(failed)? == Some(PLANAR)
    {
        return Err("has no inks".into());
    }
    let (width, height) = decoder.dimensions().map_err(failed)?;
    match decoder.read_image().map_err(failed)? {
        DecodingResult::U8(inks) => Ok((width, height, inks)),
        _ => Err("has no inks".into()),
    }
}

/// As viewers show it: what is transparent lets a white page through.
pub fn on_white(picture: DynamicImage) -> RgbImage {
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
