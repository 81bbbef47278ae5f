//! Saying what devices there are. A worker of its own does it, for one module at a time.
//!
//! What a module does when it is loaded is the code of a driver, and drivers open devices, start
//! threads and load libraries: it is all done before this process is confined, and the driver's
//! threads never are. It has nothing but its channel, and what it says is not believed.

use std::process::ExitCode;

use super::confinement::confine;
use super::link::Writer;
use super::llama;
use crate::ipc::{Devices, DevicesEvent, DevicesRequest};
use crate::sandbox::{Needs, Profile};

/// Answers the request.
pub fn run(request: &DevicesRequest, writer: &Writer<Devices>) -> Result<ExitCode, u8> {
    let answer = match request {
        DevicesRequest::List => DevicesEvent::Modules(llama::backend_modules()),
        DevicesRequest::Load { file } => match llama::load_backend(file) {
            Ok(backend) => DevicesEvent::Backend(backend),
            Err(reason) => DevicesEvent::Refused { reason },
        },
    };
    confine(&Needs {
        profile: Profile::Devices,
        files: &[],
        largest_file: 0,
        memory: None,
        cpu_seconds: None,
    })?;
    // When the channel has ended the answer is not needed.
    let _ = writer.send(&answer);
    Ok(ExitCode::SUCCESS)
}
