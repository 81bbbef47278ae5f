//! Projectors: the files beside a model that turn pictures and sounds into what the model reads.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::companion::Companion;
use super::gguf::{Header, Patience};
use super::open::open;
use super::{BadFile, Model, architecture};
use crate::gemma::picture::TOKEN_SIDE;
use crate::gemma::sound::Hearing;

/// The family's projectors for pictures, and the sides in pixels of what they know the place of:
/// the patches of an encoder, and in the unified form of the 12B whole tokens.
const KINDS: [(&str, u32); 2] = [("gemma4v", PATCH), ("gemma4uv", TOKEN_SIDE)];
/// The family's projectors for sounds.
const HEARING: [(&str, Hearing); 2] = [
    ("gemma4a", Hearing::Spectrum),
    ("gemma4ua", Hearing::Frames),
];
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
pub fn read_projector(path: &Path, patience: Patience<'_>) -> Result<(Projector, File), BadFile> {
    let (described, file, metadata) = open(path, patience, describe)?;
    let Described {
        width,
        longest_side,
        hearing,
        name,
    } = described;
    Ok((
        Projector {
            path: path.to_owned(),
            size: metadata.len(),
            width,
            longest_side,
            hearing,
            name,
        },
        file,
    ))
}

#[derive(Debug, PartialEq)]
struct Described {
    width: u32,
    longest_side: u32,
    hearing: Option<Hearing>,
    name: String,
}

fn describe(header: &Header) -> Result<Described, BadFile> {
    let unusable = |found: String| BadFile::OtherProjector { found };
    let architecture = header.need_str("general.architecture")?;
    if architecture != architecture::PROJECTOR {
        return Err(unusable(format!(
            "architecture `{}`",
            architecture.escape_debug().take(64).collect::<String>()
        )));
    }
    // A file for both pictures and sound names a kind for each.
    let kind = match header.str("clip.vision.projector_type")? {
        Some(kind) => kind,
        None => header
            .str("clip.projector_type")?
            .unwrap_or("none for pictures"),
    };
    let Some((_, place)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        return Err(unusable(format!(
            "kind `{}`",
            kind.escape_debug().take(64).collect::<String>()
        )));
    };
    let patch = header.need_u32("clip.vision.patch_size")?;
    let merged = header
        .u32("clip.vision.projector.scale_factor")?
        .unwrap_or(3);
    if (patch, merged) != (PATCH, 3) {
        return Err(unusable(format!(
            "{merged} × {merged} patches of {patch} pixels"
        )));
    }
    let places = header
        .tensor(PLACES)
        .and_then(|tensor| tensor.dims().get(1).copied())
        .unwrap_or(0);
    if places == 0 {
        return Err(unusable(format!("no tensor `{PLACES}`")));
    }
    // What hears in another way is as good for pictures; it is not used for sounds.
    let ears = header.str("clip.audio.projector_type")?;
    let hearing = HEARING
        .iter()
        .find(|(known, _)| Some(*known) == ears)
        .map(|(_, hearing)| *hearing);
    Ok(Described {
        hearing,
        width: header.need_u32("clip.vision.projection_dim")?,
        longest_side: u32::try_from(places)
            .unwrap_or(u32::MAX)
            .saturating_mul(*place),
        name: header.str("general.name")?.unwrap_or_default().to_owned(),
    })
}

impl Companion for Projector {
    fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn fits(&self, model: &Model) -> bool {
        self.width == model.width
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write;
    use super::*;

    #[test]
    fn a_header_says_whether_it_sees() {
        let describe_bytes =
            |file: write::File| describe(&file.header()).map_err(|error| error.to_string());
        let clip = |kind| {
            write::File::new()
                .text("general.architecture", "clip")
                .text("clip.projector_type", kind)
        };
        let seeing = |kind| {
            clip(kind)
                .u32("clip.vision.patch_size", 16)
                .u32("clip.vision.projection_dim", 128)
        };
        let placed = |kind| seeing(kind).tensor(PLACES, &[32, 100, 2], 0);
        let described = |longest_side, name: &str| {
            Ok(Described {
                width: 128,
                longest_side,
                hearing: None,
                name: name.into(),
            })
        };
        assert_eq!(
            describe_bytes(placed("gemma4v").text("general.name", "Tiny")),
            described(1600, "Tiny")
        );
        // A file for pictures and sound.
        for (kind, hearing) in [
            ("gemma4a", Some(Hearing::Spectrum)),
            ("gemma4ua", Some(Hearing::Frames)),
            ("whisper", None),
        ] {
            let both = placed("gemma4v").text("clip.audio.projector_type", kind);
            assert_eq!(
                describe_bytes(both).map(|described| described.hearing),
                Ok(hearing),
                "{kind}"
            );
        }
        assert_eq!(
            describe_bytes(placed("gemma4a").text("clip.vision.projector_type", "gemma4uv")),
            described(4800, "")
        );
        for (file, reason) in [
            (placed("gemma3"), "kind `gemma3`"),
            (
                write::File::new().text("general.architecture", "clip"),
                "none for pictures",
            ),
            (
                placed("gemma4v").u32("clip.vision.projector.scale_factor", 4),
                "4 × 4 patches of 16 pixels",
            ),
            (seeing("gemma4v"), "no tensor"),
            (clip("gemma4v"), "patch_size"),
        ] {
            let error = describe_bytes(file).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn it_makes_what_its_model_reads() {
        let model = Model {
            width: 128,
            ..Model::example("/m/model.gguf")
        };
        let projector = |width| Projector {
            path: "/m/p.gguf".into(),
            size: 1,
            width,
            longest_side: 1,
            hearing: None,
            name: String::new(),
        };
        assert!(projector(128).fits(&model) && !projector(64).fits(&model));
    }
}
