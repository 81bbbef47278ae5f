//! Projectors: the files beside a model that turn pictures and sounds into what the model reads.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::gguf::Header;
use super::read::{BadFile, open};
use crate::gemma::picture::TOKEN_SIDE;
use crate::gemma::sound::Hearing;

const ARCHITECTURE: &str = "clip";
/// The family's projectors for pictures, and the sides in pixels of what they know the place of: the patches of an
/// encoder, and in the unified form of the 12B whole tokens.
const KINDS: [(&str, u32); 2] = [("gemma4v", PATCH), ("gemma4uv", TOKEN_SIDE)];
/// The family's projectors for sounds.
const HEARING: [(&str, Hearing); 2] = [("gemma4a", Hearing::Spectrum), ("gemma4ua", Hearing::Frames)];
/// Sides of a patch.
const PATCH: u32 = TOKEN_SIDE / 3;
/// Where the places are looked up: one row for each along a side.
const PLACES: &str = "v.position_embd.weight";

/// A projector that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projector {
    pub path: PathBuf,
    /// Bytes of the file, all of which are in memory once it is used.
    pub size: u64,
    /// Width of what it makes, which is that of its model's hidden state.
    pub width: u32,
    /// Pixels of the longest side that it can place.
    pub longest_side: u32,
    /// How it turns sound into tokens, if it does.
    pub hearing: Option<Hearing>,
    /// The model's name as the header has it.
    pub name: String,
}

/// Opens a projector and checks its header, like [`super::read()`]. Blocks on the disk.
pub fn read_projector(path: &Path) -> Result<(Projector, File), BadFile> {
    let (described, file, metadata) = open(path, describe)?;
    let Described { width, longest_side, hearing, name } = described;
    Ok((Projector { path: path.to_owned(), size: metadata.len(), width, longest_side, hearing, name }, file))
}

#[derive(Debug, PartialEq)]
struct Described {
    width: u32,
    longest_side: u32,
    hearing: Option<Hearing>,
    name: String,
}

fn describe(header: &Header<'_>) -> Result<Described, BadFile> {
    if header.need_str("general.architecture")? != ARCHITECTURE {
        return Err(BadFile::Companion);
    }
    // A file for both pictures and sound names a kind for each.
    let kind = match header.str("clip.vision.projector_type")? {
        Some(kind) => kind,
        None => header.str("clip.projector_type")?.unwrap_or("none for pictures"),
    };
    let unusable = |found: String| BadFile::OtherProjector { found };
    let Some((_, place)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        return Err(unusable(format!("kind `{}`", kind.escape_debug().take(64).collect::<String>())));
    };
    let patch = header.need_u32("clip.vision.patch_size")?;
    let merged = header.u32("clip.vision.projector.scale_factor")?.unwrap_or(3);
    if (patch, merged) != (PATCH, 3) {
        return Err(unusable(format!("{merged} × {merged} patches of {patch} pixels")));
    }
    let places = header.tensor(PLACES).and_then(|tensor| tensor.dims().get(1).copied()).unwrap_or(0);
    if places == 0 {
        return Err(unusable(format!("no tensor `{PLACES}`")));
    }
    // What hears in another way is as good for pictures; it is not used for sounds.
    let ears = header.str("clip.audio.projector_type")?;
    let hearing = HEARING.iter().find(|(known, _)| Some(*known) == ears).map(|(_, hearing)| *hearing);
    Ok(Described {
        hearing,
        width: header.need_u32("clip.vision.projection_dim")?,
        longest_side: u32::try_from(places).unwrap_or(u32::MAX).saturating_mul(*place),
        name: header.str("general.name")?.unwrap_or_default().to_owned(),
    })
}

/// The projector of a model among those in its folder: it makes what the model reads, and its name speaks of no
/// other size. Of several the one whose file is named most like the model's, then the first.
pub fn pair<'a>(model: &Path, name: &str, width: u32, projectors: &'a [Projector]) -> Option<&'a Projector> {
    let sizes = sizes(model, name);
    let fits = |projector: &&Projector| {
        let theirs = self::sizes(&projector.path, &projector.name);
        projector.path.parent() == model.parent() && projector.width == width && (theirs.is_empty() || sizes.is_empty() || theirs == sizes)
    };
    let alike = |projector: &Projector| words(&projector.path).iter().zip(words(model)).take_while(|(a, b)| *a == b).count();
    projectors.iter().filter(fits).max_by_key(|projector| (alike(projector), std::cmp::Reverse(&projector.path)))
}

/// The sizes in a file's name, like `e2b` and `26b`, `a4b`; those in its header's name if there are none.
fn sizes(path: &Path, name: &str) -> Vec<String> {
    let is_size = |word: &String| {
        let digits = word.trim_start_matches(['a', 'e']).strip_suffix('b').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let found: Vec<String> = words(path).into_iter().filter(is_size).collect();
    if found.is_empty() { split(name).into_iter().filter(is_size).collect() } else { found }
}

/// The words of a file's name that tell models apart.
fn words(path: &Path) -> Vec<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    split(&stem).into_iter().filter(|word| word != "mmproj").collect()
}

fn split(text: &str) -> Vec<String> {
    text.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::gguf::{parse, write};
    use super::*;

    fn projector(path: &str, width: u32, name: &str) -> Projector {
        Projector { path: path.into(), size: 1, width, longest_side: 1, hearing: None, name: name.into() }
    }

    fn paired(model: &str, name: &str, files: &[&str]) -> Option<String> {
        let projectors: Vec<_> = files.iter().map(|path| projector(path, 128, "")).collect();
        pair(Path::new(model), name, 128, &projectors).map(|found| found.path.display().to_string())
    }

    #[test]
    fn a_header_says_whether_it_sees() {
        let describe_bytes = |file: write::File| {
            let bytes = file.bytes();
            describe(&parse(&bytes, bytes.len() as u64).unwrap()).map_err(|error| error.to_string())
        };
        let clip = |kind| write::File::new().text("general.architecture", "clip").text("clip.projector_type", kind);
        let seeing = |kind| clip(kind).u32("clip.vision.patch_size", 16).u32("clip.vision.projection_dim", 128);
        let placed = |kind| seeing(kind).tensor(PLACES, &[32, 100, 2], 0);
        let described = |longest_side, name: &str| Ok(Described { width: 128, longest_side, hearing: None, name: name.into() });
        assert_eq!(describe_bytes(placed("gemma4v").text("general.name", "Tiny")), described(1600, "Tiny"));
        // A file for pictures and sound.
        for (kind, hearing) in [("gemma4a", Some(Hearing::Spectrum)), ("gemma4ua", Some(Hearing::Frames)), ("whisper", None)] {
            let both = placed("gemma4v").text("clip.audio.projector_type", kind);
            assert_eq!(describe_bytes(both).map(|described| described.hearing), Ok(hearing), "{kind}");
        }
        assert_eq!(describe_bytes(placed("gemma4a").text("clip.vision.projector_type", "gemma4uv")), described(4800, ""));
        for (file, reason) in [
            (placed("gemma3"), "kind `gemma3`"),
            (write::File::new().text("general.architecture", "clip"), "none for pictures"),
            (placed("gemma4v").u32("clip.vision.projector.scale_factor", 4), "4 × 4 patches of 16 pixels"),
            (seeing("gemma4v"), "no tensor"),
            (clip("gemma4v"), "patch_size"),
        ] {
            let error = describe_bytes(file).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn models_find_their_projector() {
        let family = ["/m/tiny-12b-mmproj-f16.gguf", "/m/tiny-e2b-mmproj-f16.gguf"];
        assert_eq!(paired("/m/tiny-e2b-q8_0.gguf", "", &family).as_deref(), Some(family[1]));
        assert_eq!(paired("/m/tiny-12b-q8_0.gguf", "", &family).as_deref(), Some(family[0]));
        assert_eq!(paired("/m/tiny-e4b-q8_0.gguf", "", &family), None);
        assert_eq!(paired("/m/tiny-26b-a4b-q8_0.gguf", "", &family), None);
        assert_eq!(paired("/m/model.gguf", "Gemma 4 E2B It", &family).as_deref(), Some(family[1]));
        // The names that people upload them by.
        assert_eq!(paired("/m/gemma-4-E2B-it-Q4_K_M.gguf", "", &["/m/mmproj-F16.gguf"]).as_deref(), Some("/m/mmproj-F16.gguf"));
        let two = ["/m/mmproj-gemma-4-26B-A4B-it-bf16.gguf", "/m/mmproj-gemma-4-26B-A4B-it-f16.gguf"];
        assert_eq!(paired("/m/gemma-4-26B-A4B-it-Q4_0.gguf", "", &two).as_deref(), Some(two[0]));
        assert_eq!(paired("/m/gemma-4-31B-it-Q4_0.gguf", "", &two), None);
        assert_eq!(paired("/m/b-x.gguf", "", &["/m/a-mmproj.gguf", "/m/b-mmproj.gguf"]).as_deref(), Some("/m/b-mmproj.gguf"));
    }

    #[test]
    fn another_folder_or_width_is_none_of_the_models() {
        assert_eq!(paired("/m/tiny-e2b.gguf", "", &["/n/tiny-e2b-mmproj.gguf"]), None);
        assert_eq!(pair(Path::new("/m/a.gguf"), "", 128, &[projector("/m/mmproj.gguf", 64, "")]), None);
    }
}
