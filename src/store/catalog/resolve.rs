//! What somebody types, and the files that it means. Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::address::of_url;
use super::name::is_meant;
use super::offers::{Entry, Offers, to_fetch};
use super::source::{self, Part, Place};
use super::{FileToFetch, Role, Source, check};
use crate::gemma::model_name::{ModelName, normal};
use crate::gemma::variant::Variant;

const AUTO: &str = "auto";
/// Bytes of what may be typed.
const LONGEST: usize = 2048;
/// Below this, two names have too little in common to be each other's misspelling.
const LIKENESS: f64 = 0.6;
/// Names that are offered in place of one that nobody has.
const NEAR: usize = 3;

/// What is wanted besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct With {
    pub vision: bool,
    pub audio: bool,
    pub drafter: bool,
}

impl With {
    pub const ALL: Self = Self {
        vision: true,
        audio: true,
        drafter: true,
    };

    /// Reads `vision,audio,drafter` or a part of it, or `none`.
    ///
    /// # Errors
    /// What may be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut with = Self {
            vision: false,
            audio: false,
            drafter: false,
        };
        if text.trim() == "none" {
            return Ok(with);
        }
        for word in text.split(',') {
            match word.trim() {
                "vision" | "image" => with.vision = true,
                "audio" => with.audio = true,
                "drafter" => with.drafter = true,
                other => {
                    let other: String = other.escape_debug().take(40).collect();
                    return Err(format!(
                        "\"{other}\" cannot be had with a model; there are vision, audio and drafter, or none of them"
                    ));
                }
            }
        }
        Ok(with)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// As it was typed.
    pub what: &'a str,
    /// `None`: what belongs to the model, as far as there is room for it.
    pub with: Option<With>,
    /// A type of weights; `None`: the usual one, or what `what` says.
    pub quantization: Option<&'a str>,
    /// The host, and its port if it has one, of a hub that goes by another name.
    pub hub: Option<&'a str>,
}

/// What is known of the machine that is to run the model.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The variants that its memory can hold, the best first.
    pub fits: Vec<Variant>,
    /// Bytes that its model directory has room for; `None`: not known.
    pub disk: Option<u64>,
}

/// Files that are to be fetched: the model, in its parts, and then what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// What the model will be called.
    pub id: String,
    /// `None` until its header was read.
    pub variant: Option<Variant>,
    pub files: Vec<FileToFetch>,
    /// What belongs to it and finds no room on the disk.
    pub left_out: Vec<Role>,
}

impl Pull {
    /// Bytes of all files; `None` where one is not known.
    pub fn bytes(&self) -> Option<u64> {
        let sizes = self.files.iter().map(|file| file.bytes);
        sizes.sum()
    }
}

/// What has to be known of a repository first: [`super::choose()`] goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub repository: String,
    /// A branch, a tag or a commit; `None`: the main branch.
    pub revision: Option<String>,
    pub part: Option<Part>,
    pub with: Option<With>,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Pull(Pull),
    /// A repository that no catalog describes.
    Ask(Question),
}

impl Resolved {
    /// What [`super::Allow`] calls it: each repository that it takes files from, and each address.
    pub fn places(&self) -> BTreeSet<String> {
        match self {
            Self::Ask(question) => [question.repository.clone()].into(),
            Self::Pull(pull) => {
                let place = |file: &FileToFetch| match &file.source {
                    Source::Hub { repository, .. } => repository.clone(),
                    Source::Url(url) => url.clone(),
                };
                pull.files.iter().map(place).collect()
            }
        }
    }
}

/// Why nothing can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Nobody has it.
    Unknown(String),
    /// It is known and cannot be had, here or at all.
    Refused(String),
}

impl Unresolved {
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unknown(text) | Self::Refused(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Unresolved {}

/// What an ask means: `auto`, a variant in any usual spelling, the name of a model that a catalog has, `OWNER/REPO` with
/// `:FILE` or `:QUANTIZATION`, or an address.
///
/// # Errors
/// Nobody has it, with names that are near; or it cannot be had, with the reason and what can.
pub fn resolve(offers: &Offers, ask: &Ask<'_>, machine: &Machine) -> Result<Resolved, Unresolved> {
    let what = ask.what.trim();
    if what.is_empty() || what.len() > LONGEST || what.chars().any(char::is_control) {
        return Err(Unresolved::Unknown(format!(
            "a name has 1 to {LONGEST} bytes on one line; `gemmactl models --all` lists what there is"
        )));
    }
    let ollama = crate::gemma::model_name::untagged(what);
    let ollama = ollama.strip_prefix("library/").unwrap_or(ollama);
    match source::read(ollama, ask.hub) {
        Some(place) => of_place(offers, ask, place.map_err(Unresolved::Refused)?, machine),
        None => of_name(offers, ask, ollama, machine),
    }
}

/// What an address or a repository means.
fn of_place(
    offers: &Offers,
    ask: &Ask<'_>,
    place: Place,
    machine: &Machine,
) -> Result<Resolved, Unresolved> {
    let (repository, revision, part) = match place {
        Place::Url(url) => return of_url(ask, url),
        Place::Repository {
            repository,
            revision,
            part,
        } => (repository, revision, part),
    };
    if let Some(refused) = offers.refusal(repository.split('/').next_back().unwrap_or_default()) {
        return Err(refused);
    }
    let part = match (part, ask.quantization) {
        (Some(Part::File(name)), Some(_)) => {
            return Err(Unresolved::refused(format!(
                "{name} is one file, whose type is what it is; leave --quant out"
            )));
        }
        (_, Some(asked)) if !check::is_quantization(asked) => return Err(no_type()),
        (_, Some(asked)) => Some(Part::Quantization(asked.to_owned())),
        (part, None) => part,
    };
    let known = offers.repository(&repository).filter(|known| {
        // Another revision than the catalog's has other files.
        revision.is_none() || revision == known.revision
    });
    if let Some(known) = known {
        let meant = offers.entries().find(|entry| {
            entry.repository.name == known.name
                && match &part {
                    None => true,
                    Some(Part::File(name)) => entry.files().iter().any(|file| file.name == *name),
                    Some(Part::Quantization(asked)) => is_meant(asked, &entry.file.quantization),
                }
        });
        if let Some(entry) = meant {
            return pull(offers, &entry, ask.with, machine).map(Resolved::Pull);
        }
    }
    Ok(Resolved::Ask(Question {
        repository,
        revision: revision.or_else(|| known.and_then(|known| known.revision.clone())),
        part,
        with: ask.with,
    }))
}

fn no_type() -> Unresolved {
    Unresolved::refused("--quant takes the name of a type of weights, like Q4_0 or UD-Q4_K_XL")
}

/// What a name without a `/` means.
fn of_name(
    offers: &Offers,
    ask: &Ask<'_>,
    what: &str,
    machine: &Machine,
) -> Result<Resolved, Unresolved> {
    if let Some(refused) = offers.refusal(what) {
        return Err(refused);
    }
    let by_id = |id: &str| {
        offers
            .entries()
            .find(|entry| entry.id() == id.to_lowercase())
    };
    if let Some(entry) = by_id(crate::gemma::model_name::without_suffix(what)) {
        if ask
            .quantization
            .is_some_and(|asked| !is_meant(asked, &entry.file.quantization))
        {
            return Err(Unresolved::refused(format!(
                "{} is one file, of type {}; leave --quant out, or name the variant: {}",
                entry.id(),
                entry.file.quantization,
                entry.variant().id()
            )));
        }
        return pull(offers, &entry, ask.with, machine).map(Resolved::Pull);
    }
    let named = match what.eq_ignore_ascii_case(AUTO) {
        true => Some(ModelName {
            variant: None,
            quantization: None,
        }),
        false => ModelName::parse(what),
    };
    let Some(named) = named else {
        return Err(offers.unknown(what));
    };
    let quantization = ask.quantization.or(named.quantization.as_deref());
    if quantization.is_some_and(|asked| !check::is_quantization(asked)) {
        return Err(no_type());
    }
    let found = match named.variant {
        Some(variant) => of_variant(offers, variant, quantization, ask.with, machine),
        None => auto(offers, quantization, ask.with, machine),
    };
    found.map(Resolved::Pull)
}

/// The first file of a variant that is of a type.
fn of_variant(
    offers: &Offers,
    variant: Variant,
    quantization: Option<&str>,
    with: Option<With>,
    machine: &Machine,
) -> Result<Pull, Unresolved> {
    let of_variant = || offers.entries().filter(|entry| entry.variant() == variant);
    let is_asked = |entry: &Entry<'_>| {
        quantization.is_none_or(|asked| is_meant(asked, &entry.file.quantization))
    };
    match of_variant().find(is_asked) {
        Some(entry) => pull(offers, &entry, with, machine),
        None => {
            let known = of_variant()
                .map(|entry| format!("{} ({})", entry.file.quantization, entry.repository.name));
            let known = known.collect::<Vec<_>>().join(", ");
            Err(Unresolved::refused(format!(
                "no catalog has {} as {}; there is {known}",
                variant.id(),
                quantization.unwrap_or("a model")
            )))
        }
    }
}

/// The best variant that the machine's memory and disk can hold.
fn auto(
    offers: &Offers,
    quantization: Option<&str>,
    with: Option<With>,
    machine: &Machine,
) -> Result<Pull, Unresolved> {
    let mut lacking = None;
    for variant in &machine.fits {
        let fitting = offers.entries().filter(|entry| {
            entry.variant() == *variant
                && quantization.is_none_or(|asked| is_meant(asked, &entry.file.quantization))
        });
        for entry in fitting {
            match pull(offers, &entry, with, machine) {
                Ok(pull) => return Ok(pull),
                Err(no_room) => lacking = Some(no_room),
            }
        }
    }
    Err(lacking.unwrap_or_else(|| match machine.fits.is_empty() {
        true => Unresolved::refused(
            "no variant fits the memory of this machine; `gemmactl memory plan` shows what each would take, and a name in place of `auto` is taken anyway",
        ),
        false => Unresolved::refused(format!(
            "no catalog has a variant that fits here as {}",
            quantization.unwrap_or("a file")
        )),
    }))
}

/// The files of one entry, with what belongs to it.
fn pull(
    offers: &Offers,
    entry: &Entry<'_>,
    with: Option<With>,
    machine: &Machine,
) -> Result<Pull, Unresolved> {
    if let Some(with) = with {
        can_have(offers, entry, with)?;
    }
    let wanted = with.unwrap_or(With::ALL);
    let own = entry.files().into_iter();
    let mut files: Vec<_> = own.map(|file| to_fetch(entry.repository, file)).collect();
    let mut left_out = vec![];
    let room = machine.disk.unwrap_or(u64::MAX);
    let mut taken = entry.model_bytes().unwrap_or(0);
    let companions = [
        (entry.projector, wanted.vision || wanted.audio),
        (entry.drafter, wanted.drafter),
    ];
    for ((repository, file), _) in companions
        .into_iter()
        .filter_map(|(found, is_wanted)| Some((found?, is_wanted)))
        .filter(|(_, is_wanted)| *is_wanted)
    {
        let more = file.bytes.unwrap_or(0);
        if with.is_none() && taken.saturating_add(more) > room {
            left_out.push(file.role);
            continue;
        }
        taken = taken.saturating_add(more);
        files.push(to_fetch(repository, file));
    }
    if taken > room {
        return Err(Unresolved::refused(format!(
            "{} takes {taken} bytes on the disk, of which {room} are free; `gemmactl rm` and `gemmactl cache clear` make room",
            entry.id()
        )));
    }
    Ok(Pull {
        id: entry.id(),
        variant: Some(entry.variant()),
        files,
        left_out,
    })
}

/// Whether a model can have what is asked for with it.
fn can_have(offers: &Offers, entry: &Entry<'_>, with: With) -> Result<(), Unresolved> {
    let id = entry.id();
    let senses = offers.published(entry.variant()).map(|one| one.senses);
    let lacks = |sense: bool| entry.projector.is_none() || !sense;
    if with.audio && lacks(senses.is_none_or(|senses| senses.audio)) {
        return Err(Unresolved::refused(format!(
            "{id} hears nothing; leave audio out of --with"
        )));
    }
    if with.vision && lacks(senses.is_none_or(|senses| senses.image)) {
        return Err(Unresolved::refused(format!(
            "{id} sees nothing; leave vision out of --with"
        )));
    }
    if with.drafter && entry.drafter.is_none() {
        return Err(Unresolved::refused(format!(
            "no drafter is known that goes with {id}; leave it out of --with"
        )));
    }
    Ok(())
}

impl Offers {
    /// Whether a name is that of a member of the family that cannot be run.
    pub fn refuses(&self, name: &str) -> bool {
        self.refusal(name.rsplit('/').next().unwrap_or_default())
            .is_some()
    }

    /// Why a member of the family that cannot be run is refused.
    fn refusal(&self, name: &str) -> Option<Unresolved> {
        let plain = |name: &str| normal(name).replace("-it", "").replace("-gguf", "");
        let found = self.refused.iter().find(|one| {
            let names = std::iter::once(&one.name).chain(&one.aliases);
            names.into_iter().any(|known| plain(known) == plain(name))
        })?;
        Some(Unresolved::Refused(format!(
            "{}: {}",
            found.name, found.reason
        )))
    }

    /// That nobody has it, and what is near.
    fn unknown(&self, what: &str) -> Unresolved {
        let shown: String = what.escape_debug().take(80).collect();
        let plain = normal(what);
        let mut names: Vec<String> = Variant::PUBLISHED.map(|one| one.id().to_owned()).into();
        let short = Variant::PUBLISHED.iter().map(|one| one.id());
        names.extend(
            short.filter_map(|id| Some(format!("gemma4:{}", id.strip_prefix("gemma-4-")?))),
        );
        names.extend(self.entries().map(|entry| entry.id()));
        names.push(AUTO.to_owned());
        let mut scored: Vec<(f64, String)> = names
            .into_iter()
            .map(|name| {
                (
                    strsim::normalized_damerau_levenshtein(&plain, &normal(&name)),
                    name,
                )
            })
            .filter(|(score, _)| *score >= LIKENESS)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let near: Vec<_> = scored
            .into_iter()
            .map(|(_, name)| format!("`{name}`"))
            .take(NEAR)
            .collect();
        let hint = match near.is_empty() {
            true => "`gemmactl models --all` lists what there is, and OWNER/REPO names a repository of the hub".to_owned(),
            false => format!("did you mean {}?", near.join(" or ")),
        };
        Unresolved::Unknown(format!("no catalog has `{shown}`; {hint}"))
    }
}
