//! What downloads have left behind and nobody goes on with.

use std::fs;

use super::{Pulls, lock};
use crate::backend::{Failure, PullFault, Unused, UnusedKind};
use crate::store::partial::PartialFolder;

impl Pulls {
    /// Lists downloads of which something is kept, and files of downloads that are forgotten; takes them away if told to. Blocks on
    /// the disk.
    pub(in crate::engine) fn prune(&self, remove: bool) -> Result<Vec<Unused>, Failure> {
        let mut found = vec![];
        let kept = self.list().into_iter().filter(|status| {
            let jobs = lock(&self.0.jobs);
            jobs.get(&status.id).is_some_and(|job| job.is_kept())
        });
        for status in kept {
            match remove.then(|| self.cancel(&status.id, None)) {
                // Somebody goes on with it.
                Some(Err(Failure::Pull {
                    fault: PullFault::NoJob,
                    ..
                })) => continue,
                Some(Err(failure)) => return Err(failure),
                Some(Ok(_)) | None => found.push(Unused {
                    kind: UnusedKind::Download,
                    bytes: status.received(),
                    name: status.model,
                }),
            }
        }
        let (_, directories) = self.place()?;
        let directory = &directories[0];
        if !PartialFolder::is_there(directory) {
            return Ok(found);
        }
        let _starting = lock(&self.0.starting);
        let folder = self.folder(directory)?;
        for (path, bytes) in folder.forgotten() {
            if remove && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "a forgotten part cannot be removed");
                continue;
            }
            let name = path.file_name().unwrap_or_default();
            found.push(Unused {
                kind: UnusedKind::Download,
                name: name.to_string_lossy().into_owned(),
                bytes,
            });
        }
        Ok(found)
    }
}
