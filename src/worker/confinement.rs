//! The rights that a worker gives up before it reads anything from outside.

use super::exit::EXIT_SYSTEM;
use crate::sandbox;

/// Confines the process. What this kernel does not have is said on standard error. An error is the
/// exit status.
pub fn confine(needs: &sandbox::Needs<'_>) -> Result<(), u8> {
    match sandbox::confine(needs) {
        Ok(missing) => missing.iter().for_each(|missing| eprintln!("{missing}")),
        Err(error) => {
            eprintln!("gemmad-worker cannot be confined: {error}");
            return Err(EXIT_SYSTEM);
        }
    }
    Ok(())
}
