//! What ggml could compute on, as workers say that are started for it. This process never loads a
//! driver.

mod table;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::one_shot::{self, Failed};
use crate::backend::{DeviceModule, DeviceReport, Failure};
use crate::ipc::{self, DEVICES_MEMORY, DevicesEvent, DevicesRequest};
use crate::memory::probe;
use crate::memory::reserved::ReservedMemory;

/// In messages.
const WHAT: &str = "devices cannot be listed";
/// How long one module may take. Drivers compile programs when they start.
const MODULE_TIME: Duration = Duration::from_secs(10);
/// How long what was found is told again: anybody may ask.
const FRESH: Duration = Duration::from_secs(2);

/// Starts them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Devices {
    worker: Arc<PathBuf>,
    memory: ReservedMemory,
    /// What was found last. One looks at a time.
    last: Arc<Mutex<Option<(Instant, DeviceReport)>>>,
}

impl Devices {
    pub fn new(worker: PathBuf, memory: ReservedMemory) -> Self {
        Self {
            worker: Arc::new(worker),
            memory,
            last: Arc::default(),
        }
    }

    /// All modules, and what they have. A module that fails is named; the others are still asked.
    pub async fn list(&self) -> Result<DeviceReport, Failure> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(report.clone());
        }
        let report = self.look().await?;
        *last = Some((Instant::now(), report.clone()));
        Ok(report)
    }

    async fn look(&self) -> Result<DeviceReport, Failure> {
        let modules = match self.ask(DevicesRequest::List).await? {
            Ok(DevicesEvent::Modules(modules)) => modules,
            Ok(_) => return Err(not_now(wrong(&Failed::Mistaken))),
            Err(reason) => return Err(not_now(reason)),
        };
        let Some(ipc::Modules { directory, files }) = modules else {
            return Ok(DeviceReport::default());
        };
        let mut report = DeviceReport {
            directory: Some(directory),
            modules: vec![],
        };
        for file in files {
            let request = DevicesRequest::Load { file: file.clone() };
            let found = match self.ask(request).await? {
                Ok(DevicesEvent::Backend(backend)) => Ok(table::described(backend)),
                Ok(DevicesEvent::Refused { reason }) | Err(reason) => Err(reason),
                Ok(DevicesEvent::Modules(_)) => Err(wrong(&Failed::Mistaken)),
            };
            if let Err(reason) = &found {
                tracing::warn!(module = %file, %reason, "a module is not used");
            }
            report.modules.push(DeviceModule { file, found });
        }
        Ok(report)
    }

    /// Asks one worker. What its driver did to it continues the module's name.
    async fn ask(&self, request: DevicesRequest) -> Result<Result<DevicesEvent, String>, Failure> {
        let memory = self.memory.reserve(DEVICES_MEMORY, probe::room().free);
        let memory = memory.ok_or_else(|| not_now("there is no memory for it".to_owned()))?;
        let each = |event: DevicesEvent| {
            ControlFlow::Break(match event.is_sound() {
                true => Ok(event),
                false => Err(event),
            })
        };
        let asked = one_shot::run::<ipc::Devices, _>(
            &self.worker,
            &request,
            &[],
            MODULE_TIME,
            &memory,
            each,
        );
        match asked.await {
            Ok(event) => Ok(Ok(event)),
            Err(Failed::Start(error)) => Err(not_now(error.to_string())),
            Err(Failed::Revoked) => Err(not_now("memory ran short".to_owned())),
            Err(failed) => Ok(Err(wrong(&failed))),
        }
    }
}

/// What a module did to its process.
fn wrong(failed: &Failed) -> String {
    match failed {
        Failed::Late => format!("takes more than {} s to start", MODULE_TIME.as_secs()),
        Failed::Mistaken => "says what makes no sense".to_owned(),
        _ => "ends the process that loads it; the log has its last lines".to_owned(),
    }
}

fn not_now(cause: String) -> Failure {
    Failure::NotNow { what: WHAT, cause }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_ends_or_lies_is_a_reason_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        for (script, reason) in [
            ("exit 1", "ends the process"),
            (
                "printf '\\377\\377\\377\\377' >&0; sleep 9",
                "ends the process",
            ),
        ] {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
            let devices = Devices::new(program.clone(), ReservedMemory::default());
            let failure = devices.list().await.unwrap_err();
            assert!(
                matches!(&failure, Failure::NotNow { what: WHAT, cause } if cause.contains(reason)),
                "{script}: {failure:?}"
            );
        }
    }
}
