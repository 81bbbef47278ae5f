//! Which installed models a client's name can mean. Pure.
//!
//! A name is a model's id in any case, with or without its file's suffix, folders and `:latest`; a variant, the
//! family or one of its types of weights in any usual spelling; `auto`, or a name that the
//! configuration has for that. Every door and every kind of request resolves its names here.

use std::path::{Path, PathBuf};

use super::choice::accepts;
use super::unsound::UnsoundModels;
use crate::backend::{Failure, Rejected};
use crate::chat::Modalities;
use crate::gemma::model_name::{self, ModelName};
use crate::store::{self, Model};

const AUTO: &str = "auto";

/// What a name is resolved against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// The installed models.
    pub models: &'a [Model],
    /// Those of them that are meant last.
    pub unsound: &'a UnsoundModels,
    /// The id of the model that is up or coming up.
    pub loaded: Option<&'a str>,
    /// The name that the configuration gives `auto`; may be `auto` itself.
    pub default: &'a str,
    /// Other names for `auto`.
    pub auto_names: &'a [String],
    /// Where models are looked for.
    pub directories: &'a [PathBuf],
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant<'a> {
    One(&'a Model),
    /// One of several; memory decides.
    BestOf(Vec<&'a Model>),
}

impl<'a> Names<'a> {
    /// What `name` means for a request that needs these `modalities`: of several models those that
    /// have them, if any has; of these the sound ones; of these the one that is loaded; for `auto` the
    /// default, if it is among them. Fails if no model is installed, or none that the name could mean.
    pub fn resolve(&self, name: &str, modalities: Modalities) -> Result<Meant<'a>, Failure> {
        if self.models.is_empty() {
            return Err(Failure::no_models(self.directories, &[]));
        }
        if let Some(model) = exact(self.models, name) {
            return Ok(Meant::One(model));
        }
        let bare = model_name::untagged(name);
        let mut meant = candidates(self.models, self.auto_names, bare);
        if meant.is_empty() {
            return Err(Failure::UnknownModel {
                asked: name.to_owned(),
                known: self.models.iter().map(|model| model.id.clone()).collect(),
                passed_over: None,
                hint: None,
            });
        }
        if meant.iter().any(|model| accepts(model, modalities)) {
            meant.retain(|model| accepts(model, modalities));
        }
        self.unsound.leave_out(&mut meant);
        let loaded = meant
            .iter()
            .find(|model| Some(model.id.as_str()) == self.loaded);
        if let Some(model) = loaded {
            return Ok(Meant::One(model));
        }
        let is_auto = |name| is_auto(self.auto_names, name);
        if is_auto(bare) && !is_auto(self.default) {
            return self.default(meant, modalities);
        }
        Ok(Meant::BestOf(meant))
    }

    /// What `auto` means, which could be each of `meant`: what the default's name means of them,
    /// or any of them if that is none.
    fn default(&self, meant: Vec<&'a Model>, modalities: Modalities) -> Result<Meant<'a>, Failure> {
        match self.resolve(self.default, modalities)? {
            Meant::One(model) if meant.contains(&model) => Ok(Meant::One(model)),
            Meant::BestOf(models) if models.iter().any(|model| meant.contains(model)) => {
                Ok(Meant::BestOf(models))
            }
            Meant::One(_) | Meant::BestOf(_) => Ok(Meant::BestOf(meant)),
        }
    }
}

/// The model whose own id `name` is, in any case, or whose file is called so: an id has no blanks.
/// Servers that name files and folders are answered as well: `models/Mine.gguf` is `mine`.
pub(super) fn exact<'a>(models: &'a [Model], name: &str) -> Option<&'a Model> {
    let named = |what: fn(&Model) -> String| {
        spellings(name)
            .find_map(|spelling| models.iter().find(move |model| what(model) == spelling))
    };
    named(|model| model.id.to_lowercase()).or_else(|| named(|model| stem(model.path())))
}

/// A file's own name in small letters, without its suffix.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().to_lowercase()
}

/// The ids that a name may stand for, in small letters.
fn spellings(name: &str) -> impl Iterator<Item = String> {
    let name = model_name::untagged(name.trim());
    let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let spellings = [
        name,
        model_name::without_suffix(name),
        model_name::without_suffix(file),
    ];
    let spellings = spellings.map(str::to_lowercase).into_iter();
    spellings.filter(|spelling| !spelling.is_empty())
}

/// `failure` of a request for `name`: where it fails for want of a model, with the files in the
/// `directories` that are `passed_over` and would be one, or with a folder that is and may have one, and with what the
/// catalogs say of a name (`hint`).
pub(super) fn explain(
    failure: Failure,
    name: &str,
    directories: &[PathBuf],
    passed_over: &[Rejected],
    hint: impl Fn(&str) -> Option<String>,
) -> Failure {
    let hint = |name: &str| hint(name).map(String::into_boxed_str);
    let file = |name: &str| meant_file(passed_over, name).cloned();
    match failure {
        // It may be the default, which the client has not named.
        Failure::UnknownModel { asked, known, .. } => Failure::UnknownModel {
            passed_over: file(&asked).or_else(|| passed_over.iter().find(|one| one.hides).cloned()),
            hint: hint(&asked),
            asked,
            known,
        },
        Failure::NoModels { .. } => match (file(name), hint(name)) {
            (None, None) => Failure::no_models(directories, passed_over),
            // `NoModels` asks for any file, and one was named that is there or can be had.
            (file, hint) => Failure::UnknownModel {
                asked: name.to_owned(),
                known: vec![],
                passed_over: file,
                hint,
            },
        },
        failure => failure,
    }
}

/// The file that is passed over and that a name means: by the id that it would have, by its own
/// name, or as a member of the family.
fn meant_file<'a>(passed_over: &'a [Rejected], name: &str) -> Option<&'a Rejected> {
    let files = || {
        let is_model = |one: &&Rejected| {
            let suffix = one.path.extension();
            suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"))
        };
        passed_over.iter().filter(is_model)
    };
    let named = spellings(name).find_map(|spelling| {
        files().find(|one| stem(&one.path) == spelling || store::model_id(&one.path) == spelling)
    });
    let asked = ModelName::parse(name).filter(|asked| asked.variant.is_some());
    named.or_else(|| {
        let asked = asked?;
        let is_meant = |one: &&Rejected| {
            ModelName::parse(&stem(&one.path)).is_some_and(|file| {
                file.variant == asked.variant
                    && (asked.quantization.is_none() || file.quantization == asked.quantization)
            })
        };
        files().find(is_meant)
    })
}

/// The models that a name can mean which is no model's own: all, or those of a variant, or of a type
/// of weights.
pub(super) fn candidates<'a>(
    models: &'a [Model],
    auto_names: &[String],
    name: &str,
) -> Vec<&'a Model> {
    let auto = is_auto(auto_names, name);
    let meant = ModelName::parse(name);
    let is_meant = |model: &&Model| {
        auto || meant.as_ref().is_some_and(|meant| {
            let quantization = || model_name::normal(&model.quantization);
            meant.variant.is_none_or(|variant| variant == model.variant)
                && meant
                    .quantization
                    .as_ref()
                    .is_none_or(|meant| *meant == quantization())
        })
    };
    models.iter().filter(is_meant).collect()
}

/// Whether a name means whichever model is best: `auto`, the family's, one of the configuration's.
pub(super) fn is_auto(auto_names: &[String], name: &str) -> bool {
    let name = name.trim();
    let any = ModelName {
        variant: None,
        quantization: None,
    };
    name.eq_ignore_ascii_case(AUTO)
        || auto_names
            .iter()
            .any(|auto| auto.to_lowercase() == name.to_lowercase())
        || ModelName::parse(name) == Some(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemma::variant::Variant;
    use crate::store::Projector;

    /// `e2b`, `e4b-a` with a projector, `e4b-b`, `31b`.
    fn models() -> Vec<Model> {
        let model = |id: &str, variant| Model {
            variant,
            ..Model::example(&format!("/m/{id}.gguf"))
        };
        let projector = Projector {
            path: "/m/mmproj.gguf".into(),
            size: 1,
            width: 128,
            longest_side: 1600,
            hearing: None,
            name: String::new(),
        };
        let mut models = vec![
            model("e2b", Variant::E2b),
            model("e4b-a", Variant::E4b),
            model("e4b-b", Variant::E4b),
            model("31b", Variant::B31),
        ];
        models[1].projector = Some(projector);
        models
    }

    fn meant(
        loaded: Option<&str>,
        default: &str,
        name: &str,
        modalities: Modalities,
    ) -> Vec<String> {
        let models = models();
        let auto_names = ["".to_owned(), "gpt-4o".to_owned()];
        let names = Names {
            models: &models,
            unsound: &UnsoundModels::default(),
            loaded,
            default,
            auto_names: &auto_names,
            directories: &[],
        };
        match names.resolve(name, modalities) {
            Ok(Meant::One(model)) => vec![model.id.clone()],
            Ok(Meant::BestOf(models)) => models.iter().map(|model| model.id.clone()).collect(),
            Err(failure) => vec![format!("{failure:?}")],
        }
    }

    #[test]
    fn a_name_is_an_id_a_variant_or_auto() {
        let all = &["e2b", "e4b-a", "e4b-b", "31b"][..];
        for (loaded, default, name, ids) in [
            (None, "auto", "E4B-A", &["e4b-a"][..]),
            (Some("e2b"), "auto", "e4b-b", &["e4b-b"]),
            (None, "auto", "gemma-4-e4b", &["e4b-a", "e4b-b"]),
            (None, "auto", "Gemma 4 31B", &["31b"]),
            (Some("e4b-b"), "auto", "gemma-4-e4b", &["e4b-b"]),
            (Some("e2b"), "auto", "gemma-4-e4b", &["e4b-a", "e4b-b"]),
            (None, "auto", "auto", all),
            (Some("e4b-a"), "31b", "AUTO", &["e4b-a"]),
            (None, "31b", "auto", &["31b"]),
            (None, "gemma-4-e4b", "auto", &["e4b-a", "e4b-b"]),
            (None, "31b", "e2b", &["e2b"]),
            (None, "auto", "E4B-A.gguf", &["e4b-a"]),
            (None, "auto", "/srv/models/e4b-a.GGUF", &["e4b-a"]),
            (None, "auto", "openai/e4b-a", &["e4b-a"]),
            (None, "auto", "e4b", &["e4b-a", "e4b-b"]),
            (None, "auto", "gemma4:e4b", &["e4b-a", "e4b-b"]),
            (None, "auto", "google/gemma-4-31B-it", &["31b"]),
            (None, "auto", "gemma4", all),
            (None, "31b", "gemma4:latest", &["31b"]),
            (None, "31b", "auto:latest", &["31b"]),
            (None, "auto", "e4b-b:latest", &["e4b-b"]),
            (None, "auto", "", all),
            (None, "31b", "GPT-4o", &["31b"]),
            (Some("e2b"), "31b", " gpt-4o ", &["e2b"]),
        ] {
            let got = meant(loaded, default, name, Modalities::default());
            assert_eq!(got, ids, "{name} with {loaded:?} loaded, {default} default");
        }
    }

    #[test]
    fn modalities_narrow_what_is_not_named_itself() {
        let image = Modalities {
            image: true,
            audio: false,
        };
        for (loaded, default, name, ids) in [
            (None, "auto", "auto", &["e4b-a"][..]),
            (Some("e4b-b"), "auto", "gemma-4-e4b", &["e4b-a"]),
            (None, "31b", "auto", &["e4b-a"]),
            (None, "auto", "31b", &["31b"]),
            (None, "auto", "gemma-4-31b", &["31b"]),
        ] {
            assert_eq!(meant(loaded, default, name, image), ids, "{name}");
        }
    }

    #[test]
    fn a_model_whose_output_is_no_number_is_meant_last() {
        let models = models();
        let mut unsound = UnsoundModels::default();
        unsound.add(&models[2]);
        unsound.add(&models[3]);
        for (loaded, default, name, ids) in [
            (None, "auto", "auto", &["e2b", "e4b-a"][..]),
            (Some("e4b-b"), "31b", "auto", &["e2b", "e4b-a"]),
            (Some("e4b-b"), "auto", "gemma-4-e4b", &["e4b-a"]),
            // It is named, or there is no other.
            (None, "auto", "e4b-b", &["e4b-b"]),
            (None, "auto", "gemma-4-31b", &["31b"]),
        ] {
            let names = Names {
                models: &models,
                unsound: &unsound,
                loaded,
                default,
                auto_names: &[],
                directories: &[],
            };
            let meant = match names.resolve(name, Modalities::default()).unwrap() {
                Meant::One(model) => vec![model],
                Meant::BestOf(models) => models,
            };
            let meant: Vec<_> = meant.iter().map(|model| model.id.as_str()).collect();
            assert_eq!(
                meant, ids,
                "{name} with {loaded:?} loaded, {default} default"
            );
        }
    }

    #[test]
    fn names_in_every_script_and_types_of_weights() {
        let mut models = models();
        models[0].id = "Моя Модель é".into();
        models[1].files[0].path = "/m/My model (1).gguf".into();
        models[1].id = "my-model--1-".into();
        let find = |name: &str| exact(&models, name).map(|model| model.id.as_str());
        assert_eq!(find("моя модель É.gguf"), Some("Моя Модель é"));
        assert_eq!(find("моя"), None);
        assert_eq!(find(""), None);
        for name in [
            "my-model--1-",
            "My Model (1)",
            "/m/my model (1).gguf",
            "my-model--1-:latest",
        ] {
            assert_eq!(find(name), Some("my-model--1-"), "{name}");
        }
        let quantization = models[3].quantization.clone();
        let of = |name: &str| candidates(&models, &[], name).len();
        assert_eq!(of(&format!("gemma-4-31b-it-{quantization}")), 1);
        assert_eq!(of("gemma-4-31b-it-IQ1_S"), 0);
    }

    #[test]
    fn a_file_that_is_passed_over_is_told_to_who_names_it() {
        let rejected = |path: &str| Rejected {
            path: path.into(),
            reason: "a reason".into(),
            hides: false,
        };
        let passed_over = [
            rejected("/m/Open File.gguf"),
            rejected("/m/folder"),
            rejected("/m/gemma-4-26B_A4B_q4_0-it.gguf"),
        ];
        let unknown = |asked: &str| Failure::UnknownModel {
            asked: asked.into(),
            known: vec!["e2b".into()],
            passed_over: None,
            hint: None,
        };
        let explained = |failure, name| {
            explain(failure, name, &["/m".into()], &passed_over, |_| None).to_string()
        };
        let open = "/m/Open File.gguf is passed over: a reason; installed: e2b";
        let family = "/m/gemma-4-26B_A4B_q4_0-it.gguf is passed over: a reason; installed: e2b";
        for (name, told) in [
            ("open-file", open),
            ("Open File", open),
            ("OPEN FILE.GGUF", open),
            ("/m/Open File.gguf", open),
            ("openai/open-file", open),
            ("gemma4:26b", family),
            ("gemma-4-26b-a4b-it-Q4_0", family),
        ] {
            let expected = format!("there is no model `{name}`: the file {told}");
            // Where it is the default as well.
            for asked in [name, "auto"] {
                assert_eq!(explained(unknown(name), asked), expected, "{name}");
            }
        }
        for name in ["folder", "file", "31b", "gemma4:26b-q8_0", "gemma4", ""] {
            let expected = format!("there is no model `{name}`; installed: e2b");
            assert_eq!(explained(unknown(name), name), expected, "{name}");
        }
        let hiding = [Rejected {
            hides: true,
            ..rejected("/m/closed")
        }];
        let passed_over_all = [&passed_over[..], &hiding].concat();
        for (name, told) in [
            (
                "31b",
                ", unless it lies in /m/closed, which is passed over: a reason; installed: e2b",
            ),
            ("open-file", &format!(": the file {open}")),
        ] {
            let said = explain(
                unknown(name),
                name,
                &["/m".into()],
                &passed_over_all,
                |_| None,
            );
            assert_eq!(
                said.to_string(),
                format!("there is no model `{name}`{told}")
            );
        }
        let none = || Failure::no_models(&["/m".into()], &[]);
        assert_eq!(
            explained(none(), "open-file"),
            "there is no model `open-file`: the file /m/Open File.gguf is passed over: a reason; installed: none"
        );
        let all = explained(none(), "auto");
        assert!(
            all.contains("into /m; /m/Open File.gguf is passed over: a reason; /m/folder is"),
            "{all}"
        );
        assert_eq!(
            explained(Failure::ShuttingDown, "open-file"),
            Failure::ShuttingDown.to_string()
        );
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (default, name, asked) in [("auto", "e9b", "e9b"), ("e9b", "auto", "e9b")] {
            let failure = &meant(None, default, name, Modalities::default())[0];
            assert!(
                failure.contains(&format!("UnknownModel {{ asked: \"{asked}\"")),
                "{failure}"
            );
        }
        let names = Names {
            models: &[],
            unsound: &UnsoundModels::default(),
            loaded: None,
            default: "auto",
            auto_names: &[],
            directories: &["/m".into()],
        };
        assert_eq!(
            names.resolve("auto", Modalities::default()),
            Err(Failure::no_models(&["/m".into()], &[]))
        );
    }
}
