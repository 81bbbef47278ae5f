//! What clients see of models, and of files that are none.

use super::{choice, keep};
use crate::backend::{ModelInfo, Rejected};
use crate::store::catalog::Catalogs;
use crate::store::{self, Model};

/// What clients see of a model.
pub(crate) fn describe(model: &Model) -> ModelInfo {
    ModelInfo {
        id: model.id.clone(),
        file: model
            .path()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        variant: model.variant,
        size: model.size(),
        created: model.created,
        context_limit: model.context_limit,
        quantization: model.quantization.clone(),
        modalities: choice::accepted(model),
        drafter: model.drafter.is_some(),
        parts: keep::parts_of(model),
    }
}

/// [`describe`], of each.
pub(crate) fn describe_all(models: &[Model]) -> Vec<ModelInfo> {
    models.iter().map(describe).collect()
}

/// What clients see of all that is passed over: catalogs, and then files that are no models.
pub(crate) fn rejected(catalogs: &Catalogs, files: &[store::Rejected]) -> Vec<Rejected> {
    let broken = catalogs.broken.iter().map(|one| Rejected {
        path: one.path.clone(),
        reason: one.reason.clone(),
        hides: false,
    });
    broken.chain(describe_rejected(files)).collect()
}

/// What clients see of files that are no models.
pub(crate) fn describe_rejected(rejected: &[store::Rejected]) -> Vec<Rejected> {
    let one = |one: &store::Rejected| Rejected {
        path: one.path.clone(),
        reason: one.reason.clone(),
        hides: one.hides,
    };
    rejected.iter().map(one).collect()
}
