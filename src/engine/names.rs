//! Which installed models a client's name can mean. Pure.
//!
//! A name is a model's id in any case, with or without its file's suffix and folders; a variant, the
//! family or one of its types of weights in any usual spelling; `auto`, or a name that the
//! configuration has for that. Every door and every kind of request resolves its names here.

use std::path::PathBuf;

use super::choice::accepts;
use crate::backend::Failure;
use crate::chat::Modalities;
use crate::gemma::model_name::{self, ModelName};
use crate::store::Model;

const AUTO: &str = "auto";

/// What a name is resolved against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// The installed models.
    pub models: &'a [Model],
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
    /// have them, if any has; of these the one that is loaded; for `auto` the default, if it is
    /// among them. Fails if no model is installed, or none that the name could mean.
    pub fn resolve(&self, name: &str, modalities: Modalities) -> Result<Meant<'a>, Failure> {
        if self.models.is_empty() {
            return Err(Failure::no_models(self.directories));
        }
        if let Some(model) = exact(self.models, name) {
            return Ok(Meant::One(model));
        }
        let mut meant = candidates(self.models, self.auto_names, name);
        if meant.is_empty() {
            return Err(Failure::UnknownModel {
                asked: name.to_owned(),
                known: self.models.iter().map(|model| model.id.clone()).collect(),
            });
        }
        if meant.iter().any(|model| accepts(model, modalities)) {
            meant.retain(|model| accepts(model, modalities));
        }
        let loaded = meant
            .iter()
            .find(|model| Some(model.id.as_str()) == self.loaded);
        if let Some(model) = loaded {
            return Ok(Meant::One(model));
        }
        let is_auto = |name| is_auto(self.auto_names, name);
        if is_auto(name) && !is_auto(self.default) {
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

/// The model whose own id `name` is, in any case. Servers that name files and folders are answered
/// as well: `models/Mine.gguf` is `mine`.
pub(super) fn exact<'a>(models: &'a [Model], name: &str) -> Option<&'a Model> {
    let name = name.trim();
    let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let spellings = [
        name,
        model_name::without_suffix(name),
        model_name::without_suffix(file),
    ];
    spellings
        .into_iter()
        .filter(|spelling| !spelling.is_empty())
        .find_map(|spelling| {
            let spelling = spelling.to_lowercase();
            models
                .iter()
                .find(|model| model.id.to_lowercase() == spelling)
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
fn is_auto(auto_names: &[String], name: &str) -> bool {
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
    fn names_in_every_script_and_types_of_weights() {
        let mut models = models();
        models[0].id = "Моя Модель é".into();
        let find = |name: &str| exact(&models, name).map(|model| model.id.as_str());
        assert_eq!(find("моя модель É.gguf"), Some("Моя Модель é"));
        assert_eq!(find("моя"), None);
        assert_eq!(find(""), None);
        let quantization = models[3].quantization.clone();
        let of = |name: &str| candidates(&models, &[], name).len();
        assert_eq!(of(&format!("gemma-4-31b-it-{quantization}")), 1);
        assert_eq!(of("gemma-4-31b-it-IQ1_S"), 0);
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
            loaded: None,
            default: "auto",
            auto_names: &[],
            directories: &["/m".into()],
        };
        assert_eq!(
            names.resolve("auto", Modalities::default()),
            Err(Failure::no_models(&["/m".into()]))
        );
    }
}
