//! PDF: the text of each page, and a picture of a page that shows more than it says.

use hayro::hayro_interpret::font::GlyphRun;
use hayro::hayro_interpret::util::TransformExt;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, SoftMask, interpret_page,
};
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{LoadPdfError, Pdf};
use hayro::kurbo::{BezPath, Rect};
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{PixmapSettings, RenderCache, RenderSettings, render};

use super::Pages;
use super::text::Text;
use super::{glyphs, notes};
use crate::ipc::EXTRACT_PAGES;

/// Pages that are shown as pictures.
const MAX_PICTURES: u32 = 16;
/// Pixels of a picture's longest side: what the most tokens can show of a page.
const SIDE: f32 = 1280.0;
/// A page with fewer characters than this says little of what it shows.
const LITTLE: usize = 40;

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
    let (cache, mut pictures) = (RenderCache::new(), 0);
    let texts = InterpreterCache::new();
    for page in pdf.pages().iter().take(EXTRACT_PAGES) {
        let reading = Reading::of(page, &texts, &pdf);
        let says_little = reading.characters < LITTLE && reading.shows;
        let picture = (says_little && pictures < MAX_PICTURES)
            .then(|| picture(page, &cache))
            .flatten();
        pictures += u32::from(picture.is_some());
        if !pages.push(reading.text.finish(), says_little, picture) {
            break;
        }
    }
    Ok(count as u32)
}

/// The page on white, as a PNG.
fn picture<'a>(page: &'a Page<'a>, cache: &RenderCache<'a>) -> Option<Vec<u8>> {
    let (width, height) = page.render_dimensions();
    let scale = SIDE / width.max(height).max(1.0);
    let settings = PixmapSettings {
        x_scale: scale,
        y_scale: scale,
        bg_color: WHITE,
    };
    let pixels = render(
        page,
        cache,
        &InterpreterSettings::default(),
        &RenderSettings::default(),
        &settings,
    );
    pixels.into_png().ok()
}

/// What a page says, and whether it shows anything else.
struct Reading {
    text: Text,
    characters: usize,
    shows: bool,
}

impl Reading {
    fn of<'a>(page: &'a Page<'a>, cache: &InterpreterCache<'a>, pdf: &'a Pdf) -> Self {
        let mut reading = Self {
            text: Text::default(),
            characters: 0,
            shows: false,
        };
        let (width, height) = page.render_dimensions();
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
        notes::read(page, upright, &mut reading.text);
        reading
    }
}

impl Device<'_> for Reading {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        let (read, unread) = glyphs::read(run, props.transform, &mut self.text);
        self.characters += read;
        // What cannot be read can be seen.
        self.shows |= unread > 0;
    }

    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {
        self.shows = true;
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {
        self.shows = true;
    }

    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}
