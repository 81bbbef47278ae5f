//! PDF: the text of each page, and pictures of pages that show more than they say.

use hayro::hayro_interpret::font::GlyphRun;
use hayro::hayro_interpret::util::TransformExt;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, Paint, SoftMask, interpret_page,
};
use hayro::hayro_syntax::object::Dict;
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{LoadPdfError, Pdf};
use hayro::kurbo::{BezPath, Point, Rect, Shape};
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{PixmapSettings, RenderCache, RenderSettings, render};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageError, RgbImage};

use super::Pages;
use super::fonts::Fonts;
use super::sight::{Bounds, Found, Measure, plan};
use super::text::Text;
use super::{glyphs, notes};
use crate::gemma::picture::{Size, size};
use crate::ipc::{EXTRACT_PAGES, EXTRACT_TEXT, Look, Sight, Unseen};

/// A picture of more bytes than this is a photo, which is smaller as a JPEG of this quality.
const LARGE: usize = 512 << 10;
const QUALITY: u8 = 90;

pub fn read(bytes: Vec<u8>, pages: &mut Pages<'_>) -> Result<u32, String> {
    let pdf = Pdf::new(bytes).map_err(|error| match error {
        LoadPdfError::Decryption(_) => {
            "is a PDF that only opens with a password; send it without one".to_owned()
        }
        LoadPdfError::Invalid => "is a PDF that is damaged or cut off".to_owned(),
    })?;
    let count = pdf.pages().len();
    if count == 0 {
        return Err("is a PDF without pages, or a damaged one".to_owned());
    }
    // All is read before anything is drawn: what is shown depends on what the others say and show.
    let (mut texts, mut found, mut bytes) = (vec![], vec![], 0);
    let (cache, fonts) = (InterpreterCache::new(), Fonts::new(&pdf));
    for page in pdf
        .pages()
        .iter()
        .take(EXTRACT_PAGES.saturating_sub(pages.read as usize))
    {
        let reading = Reading::of(page, &cache, &pdf, &fonts);
        found.push(reading.measure.found());
        let text = reading.text.finish();
        bytes += text.len();
        texts.push(text);
        if bytes > EXTRACT_TEXT {
            break;
        }
    }
    let look = pages.look;
    let plan = plan(&found, bytes.min(EXTRACT_TEXT), left(pages));
    pages.budget = plan.tokens;
    let cache = RenderCache::new();
    let all = pdf
        .pages()
        .iter()
        .zip(texts)
        .zip(found.into_iter().zip(plan.shown));
    for ((page, text), (found, shown)) in all {
        let drawn = || drawn(page, &cache, plan.tokens, pages.pictures_left);
        let sight = match found {
            None => Sight::Told,
            Some(Found { why, .. }) if shown => match drawn() {
                Ok(picture) => Sight::Shown { why, picture },
                Err(because) => Sight::Unseen { why, because },
            },
            Some(Found { why, matters }) => {
                let because = match look.pages {
                    0 => Unseen::Blind,
                    _ if !matters => Unseen::Small,
                    _ if plan.is_cut => Unseen::Context,
                    _ => Unseen::TooMany,
                };
                Sight::Unseen { why, because }
            }
        };
        if !pages.push(text, sight) {
            break;
        }
    }
    Ok(count as u32)
}

/// How pages are shown, of which a mail's other PDFs have shown some: as large as those.
fn left(pages: &Pages<'_>) -> Look {
    let look = pages.look;
    match pages.shown {
        0 => look,
        shown => Look {
            pages: look.pages.saturating_sub(shown),
            tokens: pages.budget,
            room: None,
        },
    }
}

/// The page on white, at the size at which the model sees it with so many tokens, in no more bytes
/// than these.
fn drawn<'a>(
    page: &'a Page<'a>,
    cache: &RenderCache<'a>,
    tokens: u32,
    most: usize,
) -> Result<Vec<u8>, Unseen> {
    let (width, height) = page.render_dimensions();
    let Size {
        width: across,
        height: down,
    } = size(width as u32, height as u32, tokens);
    // One pixel more is cut off: a product of floating point may be just below what it should be.
    let scale = |pixels: u32, points: f32| (pixels as f32 + 0.5) / points.max(1.0);
    let settings = PixmapSettings {
        x_scale: scale(across, width),
        y_scale: scale(down, height),
        bg_color: WHITE,
    };
    let pixels = render(
        page,
        cache,
        &InterpreterSettings::default(),
        &RenderSettings::default(),
        &settings,
    );
    let (width, height) = (u32::from(pixels.width()), u32::from(pixels.height()));
    // On white nothing is transparent.
    let rgb = pixels.data_as_u8_slice().chunks_exact(4);
    let rgb = rgb
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect();
    let picture = RgbImage::from_raw(width, height, rgb).ok_or(Unseen::Undrawn)?;
    let file = encoded(&picture).map_err(|_| Unseen::Undrawn)?;
    (file.len() <= most).then_some(file).ok_or(Unseen::Bytes)
}

/// As a file of few bytes.
fn encoded(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut png = vec![];
    picture.write_with_encoder(PngEncoder::new(&mut png))?;
    if png.len() <= LARGE {
        return Ok(png);
    }
    let mut jpeg = vec![];
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(if jpeg.len() < png.len() { jpeg } else { png })
}

/// What a page says, and how much it shows besides.
struct Reading<'f> {
    fonts: &'f Fonts<'f>,
    text: Text,
    measure: Measure,
}

impl<'f> Reading<'f> {
    fn of<'a>(
        page: &'a Page<'a>,
        cache: &InterpreterCache<'a>,
        pdf: &'a Pdf,
        fonts: &'f Fonts<'f>,
    ) -> Self {
        let (width, height) = page.render_dimensions();
        let mut reading = Self {
            fonts,
            text: Text::default(),
            measure: Measure::new(width, height),
        };
        let whole = Rect::new(0.0, 0.0, width.into(), height.into());
        let upright = page.initial_transform(true).to_kurbo();
        let mut context = Context::new(
            upright,
            whole,
            cache,
            pdf.xref(),
            InterpreterSettings::default(),
        );
        interpret_page(page, &mut context, &mut reading);
        reading.text.close();
        let guessed = reading.text.guess();
        reading.measure.guessed(guessed);
        notes::read(page, upright, &mut reading.text);
        reading
    }
}

fn bounds(rect: Rect) -> Bounds {
    Bounds {
        left: rect.x0,
        top: rect.y0,
        right: rect.x1,
        bottom: rect.y1,
    }
}

/// Whether it leaves white as it is.
fn is_white(paint: &Paint<'_>) -> bool {
    let Paint::Color(color) = paint else {
        return false;
    };
    let [red, green, blue, alpha] = color.to_rgba().components();
    alpha < 0.01 || red.min(green).min(blue) > 0.99
}

impl Device<'_> for Reading<'_> {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        let measure = &mut self.measure;
        glyphs::read(
            run,
            props.transform,
            self.fonts,
            &mut self.text,
            |said, mark| {
                // Through the middle of a small letter.
                let middle = mark.at + mark.up * 0.25;
                let end = middle + mark.advance;
                measure.glyph(said, (middle.x, middle.y), (end.x, end.y));
            },
        );
    }

    fn draw_image(&mut self, image: Image<'_, '_>, props: ImageDrawProps<'_>) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let corner = |x, y| {
            let Point { x, y } = props.transform * Point::new(x, y);
            (x, y)
        };
        self.measure.picture([
            corner(0.0, 0.0),
            corner(width, 0.0),
            corner(width, height),
            corner(0.0, height),
        ]);
    }

    fn draw_path(&mut self, path: &BezPath, props: DrawProps<'_>, _: &DrawMode) {
        if !is_white(&props.paint) {
            let drawn = props.transform.transform_rect_bbox(path.bounding_box());
            self.measure.drawing(bounds(drawn));
        }
    }

    fn push_clip_path(&mut self, clip: &ClipPath) {
        self.measure.push_clip(bounds(clip.path.bounding_box()));
    }

    fn pop_clip(&mut self) {
        self.measure.pop_clip();
    }

    fn begin_marked_content(&mut self, _: &[u8], properties: Option<&Dict<'_>>) {
        self.text.begin(notes::words(properties));
    }

    fn end_marked_content(&mut self) {
        self.text.end();
    }

    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn pop_transparency_group(&mut self) {}
}
