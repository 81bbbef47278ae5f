//! What the glyphs of fonts mean whose dictionary has no table of characters: by the character
//! collection that their numbers belong to, or by the table of the embedded font, read backwards.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use hayro::hayro_interpret::font::{OutlineFontData, OutlineGlyph};
use hayro::hayro_interpret::hayro_cmap::{BfString, CMap, CMapName, CidFamily, load_embedded};
use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::object::{Array, Dict, MaybeRef, Name, Object, String as PdfString};
use skrifa::{FontRef, MetadataProvider};

/// Dictionaries of a file that are searched for fonts, and how deep one may lie in another.
const MAX_DICTIONARIES: usize = 500_000;
const MAX_DEPTH: usize = 5;
/// Characters of a font; one has glyphs for 65,536 at most.
const MAX_CHARACTERS: usize = 1 << 17;

/// A font whose codes are numbers of glyphs, or of characters of a collection.
struct Composite {
    encoding: Rc<CMap>,
    /// From numbers of its collection to characters.
    characters: Option<Rc<CMap>>,
    embedded: bool,
    /// The file says that the codes are the characters.
    says_itself: bool,
}

/// Which character each glyph of an embedded font is for.
type Glyphs = HashMap<u32, char>;

/// The fonts of a file, looked at when the first glyph comes that nothing else explains.
pub struct Fonts<'a> {
    pdf: &'a Pdf,
    /// By their names, as the interpreter calls them.
    composite: OnceCell<HashMap<String, Composite>>,
    embedded: RefCell<HashMap<u128, Glyphs>>,
}

impl<'a> Fonts<'a> {
    pub fn new(pdf: &'a Pdf) -> Self {
        Self {
            pdf,
            composite: OnceCell::new(),
            embedded: RefCell::default(),
        }
    }

    /// What a glyph means of which the interpreter does not know it.
    pub fn meaning(&self, glyph: &OutlineGlyph) -> Option<String> {
        let font = glyph.font_data()?;
        let composite = self.composite.get_or_init(|| Search::of(self.pdf));
        // Only of fonts with codes of several bytes does the interpreter give the data of one that
        // takes their place.
        let Some(composite) = font
            .postscript_name
            .as_deref()
            .and_then(|name| composite.get(name))
        else {
            return self.embedded(&font, glyph).map(String::from);
        };
        let code = glyph.char_code();
        let cid = || (1..=4).find_map(|bytes| composite.encoding.lookup_cid_code(code, bytes));
        let collected = composite.characters.as_ref().and_then(|characters| {
            match characters.lookup_bf_string(cid()?)? {
                BfString::Char(c) => Some(c.to_string()),
                BfString::String(text) => Some(text),
            }
        });
        let embedded = composite.embedded.then_some(&font);
        let drawn = || embedded.and_then(|font| self.embedded(font, glyph));
        let itself = || char::from_u32(code).filter(|c| composite.says_itself && !c.is_control());
        collected.or_else(|| drawn().or_else(itself).map(String::from))
    }

    fn embedded(&self, font: &OutlineFontData, glyph: &OutlineGlyph) -> Option<char> {
        let mut embedded = self.embedded.borrow_mut();
        let glyphs = embedded
            .entry(font.cache_key)
            .or_insert_with(|| glyphs((*font.data).as_ref()));
        glyphs.get(&glyph.glyph_id().to_u32()).copied()
    }
}

/// The table of an embedded font, read backwards. Of several characters with one glyph the first is
/// taken, which is the usual one: a space, a hyphen, a letter and not what looks like it.
fn glyphs(font: &[u8]) -> Glyphs {
    let mut out = Glyphs::new();
    let Ok(font) = FontRef::new(font) else {
        return out;
    };
    for (code, glyph) in font.charmap().mappings().take(MAX_CHARACTERS) {
        let kept = |c: &char| !c.is_control() && !('\u{e000}'..='\u{f8ff}').contains(c);
        if let Some(c) = char::from_u32(code).filter(kept) {
            out.entry(glyph.to_u32()).or_insert(c);
        }
    }
    out
}

/// Looks for the fonts of a file.
#[derive(Default)]
struct Search {
    dictionaries: usize,
    found: HashMap<String, Composite>,
    /// Tables that many fonts have in common.
    predefined: HashMap<Vec<u8>, Option<Rc<CMap>>>,
}

impl Search {
    fn of(pdf: &Pdf) -> HashMap<String, Composite> {
        let mut search = Self::default();
        for object in pdf.objects() {
            search.object(&object, 0);
            if search.dictionaries >= MAX_DICTIONARIES {
                break;
            }
        }
        search.found
    }

    /// In an object and what is written within it.
    fn object(&mut self, object: &Object<'_>, depth: usize) {
        let dict = match object {
            Object::Dict(dict) => dict,
            Object::Stream(stream) => stream.dict(),
            _ => return,
        };
        if self.dictionaries >= MAX_DICTIONARIES || depth > MAX_DEPTH {
            return;
        }
        self.dictionaries += 1;
        if let Some((name, font)) = self.font(dict) {
            self.found.entry(name).or_insert(font);
            return;
        }
        for (_, value) in dict.entries() {
            if let MaybeRef::NotRef(value) = value {
                self.object(&value, depth + 1);
            }
        }
    }

    fn font(&mut self, dict: &Dict<'_>) -> Option<(String, Composite)> {
        if dict.get::<Name<'_>>("Subtype")?.as_str() != "Type0" {
            return None;
        }
        let name = dict.get::<Name<'_>>("BaseFont")?;
        let name = match name.as_str().split_once('+') {
            Some((subset, name)) if subset.len() == 6 => name,
            _ => name.as_str(),
        };
        let descendant = dict
            .get::<Array<'_>>("DescendantFonts")?
            .iter::<Dict<'_>>()
            .next()?;
        let encoding = self.encoding(&dict.get::<Object<'_>>("Encoding")?)?;
        let of_encoding = encoding.metadata().character_collection.clone();
        let family = of_encoding
            .map(|collection| collection.family)
            .filter(|family| family.ucs2_cmap().is_some())
            .or_else(|| family(&descendant));
        let characters = family.and_then(|family| self.predefined(family.ucs2_cmap()?));
        let descriptor = descendant.get::<Dict<'_>>("FontDescriptor");
        let font = Composite {
            encoding,
            characters,
            embedded: descriptor.is_some_and(|descriptor| {
                ["FontFile", "FontFile2", "FontFile3"]
                    .iter()
                    .any(|file| descriptor.contains_key(file))
            }),
            says_itself: dict
                .get::<Name<'_>>("ToUnicode")
                .is_some_and(|name| name.as_str().starts_with("Identity")),
        };
        Some((name.to_owned(), font))
    }

    /// From codes to numbers.
    fn encoding(&mut self, encoding: &Object<'_>) -> Option<Rc<CMap>> {
        match encoding {
            Object::Name(name) => self.predefined(CMapName::from_bytes(name.as_ref())),
            Object::Stream(stream) => {
                CMap::parse(&stream.decoded().ok()?, load_embedded).map(Rc::new)
            }
            _ => None,
        }
    }

    fn predefined(&mut self, name: CMapName<'_>) -> Option<Rc<CMap>> {
        let parsed = || match name {
            CMapName::IdentityH => Some(CMap::identity_h()),
            CMapName::IdentityV => Some(CMap::identity_v()),
            name => CMap::parse(load_embedded(name)?, load_embedded),
        };
        self.predefined
            .entry(name.to_bytes().to_vec())
            .or_insert_with(|| parsed().map(Rc::new))
            .clone()
    }
}

/// The collection that a font's numbers are from.
fn family(descendant: &Dict<'_>) -> Option<CidFamily> {
    let info = descendant.get::<Dict<'_>>("CIDSystemInfo")?;
    let said = |key: &str| info.get::<PdfString<'_>>(key);
    let (registry, ordering) = (said("Registry")?, said("Ordering")?);
    Some(CidFamily::from_registry_ordering(
        registry.as_bytes(),
        ordering.as_bytes(),
    ))
}
