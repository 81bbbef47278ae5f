//! Who may fetch what, by the catalogs. Asks no server.

use std::collections::BTreeSet;

use super::plan::{resolved, split_hash};
use crate::backend::{Failure, PullAsk, PullRights};
use crate::engine::PullBasis;
use crate::store::partial::{Journal, PartialFile, PartialSource};

/// Who may fetch what is meant, by the catalogs, for each place that it comes from.
///
/// # Errors
/// Nobody has it, or it cannot be used.
pub fn rights(hub: &str, ask: &PullAsk, basis: &PullBasis) -> Result<Vec<PullRights>, Failure> {
    let (what, _) = split_hash(&ask.model)?;
    let resolved = resolved(hub, what, ask, basis)?;
    Ok(rights_of(resolved.places(), basis))
}

/// Who may fetch what was begun, as [`rights`].
pub fn rights_of_journal(journal: &Journal, basis: &PullBasis) -> Vec<PullRights> {
    let place = |file: &PartialFile| match &file.source {
        PartialSource::Hub { repository, .. } => repository.clone(),
        PartialSource::Url(url) => url.clone(),
    };
    rights_of(journal.files.iter().map(place).collect(), basis)
}

/// Who may fetch from each of these places.
pub fn rights_of(places: BTreeSet<String>, basis: &PullBasis) -> Vec<PullRights> {
    let of_place = |place: String| {
        let mut rights = PullRights::default();
        for allow in basis
            .offers
            .allow
            .iter()
            .filter(|allow| allow.names(&place))
        {
            rights.users.extend(allow.users.iter().cloned());
            rights.groups.extend(allow.groups.iter().cloned());
        }
        rights
    };
    places.into_iter().map(of_place).collect()
}
