//! Addresses of files that no hub has. Pure.

use super::name::{part_of, role_of};
use super::resolve::{Ask, Pull, Resolved, Unresolved};
use super::{FileToFetch, Role, Source, source};
use crate::gemma::layout::MOST_FILES;

/// A file that no hub has, or the parts of one that lie at one place.
pub(super) fn of_url(ask: &Ask<'_>, url: String) -> Result<Resolved, Unresolved> {
    if ask.with.is_some() || ask.quantization.is_some() {
        return Err(Unresolved::refused(
            "an address is of one file; leave --with and --quant out, and pull what belongs to it by its own address",
        ));
    }
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = source::name_in(path);
    let role = role_of(&name).unwrap_or(Role::Model);
    let id = crate::store::model_id(std::path::Path::new(&name));
    let file = |url: String, name: String| FileToFetch {
        role,
        source: Source::Url(url),
        name,
        bytes: None,
        sha256: None,
    };
    let files = match part_of(&name).filter(|_| role == Role::Model) {
        None => vec![file(url, name)],
        Some((_, number, of)) => {
            if of == 0 || of as usize > MOST_FILES {
                return Err(Unresolved::refused(format!(
                    "{name} is one of {of} parts; at most {MOST_FILES} are fetched"
                )));
            }
            let (before, after) = url.split_at(path.len());
            let part = |wanted: u32| {
                let spelled = |text: &str| {
                    let (old, new) = (numbering(number, of), numbering(wanted, of));
                    // The last: a folder may be called so, too.
                    let at = text.rfind(&old).unwrap_or(text.len());
                    let rest = text.get(at + old.len()..).unwrap_or_default();
                    format!("{}{new}{rest}", &text[..at])
                };
                file(format!("{}{after}", spelled(before)), spelled(&name))
            };
            (1..=of).map(part).collect()
        }
    };
    Ok(Resolved::Pull(Pull {
        id,
        variant: None,
        files,
        left_out: vec![],
    }))
}

/// What numbers a part in its name.
fn numbering(number: u32, of: u32) -> String {
    format!("-{number:05}-of-{of:05}")
}
