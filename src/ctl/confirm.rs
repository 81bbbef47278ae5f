//! Questions that are answered with yes or no.

use std::io::{BufRead, IsTerminal};

use super::error::Error;
use super::write_out;

/// Asks. `default` is what an empty line means, `remedy` what can be typed instead.
///
/// # Errors
/// Nobody can be asked.
pub fn confirm(question: &str, default: bool, remedy: &str) -> Result<bool, Error> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::Usage(format!(
            "nobody can be asked, because standard input is no terminal; {remedy}"
        )));
    }
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    write_out(format!("{question} {choice} ").as_bytes())?;
    let mut line = String::new();
    let read = input.lock().read_line(&mut line).map_err(Error::Output)?;
    Ok(match line.trim().to_lowercase().as_str() {
        "" => read > 0 && default,
        "y" | "yes" => true,
        _ => false,
    })
}
