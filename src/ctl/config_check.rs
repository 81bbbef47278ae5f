//! `gemmactl config check`: what the daemon would say of its configuration.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::Error;
use super::text::Terminal;
use crate::access;
use crate::config;
use crate::store::catalog::{Broken, Place, read_all};

/// Reads what the daemon would read, by the same code.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(file: Option<&Path>, user: bool, terminal: &Terminal) -> Result<(), Error> {
    let place = if user {
        config::Place::of_user(|name| std::env::var_os(name)).map_err(Error::Usage)?
    } else {
        config::Place::system()
    };
    if let Err(cause) = File::open(file.unwrap_or(&place.file))
        && cause.kind() == io::ErrorKind::PermissionDenied
    {
        let path = file.unwrap_or(&place.file).to_path_buf();
        return Err(Error::File { path, cause });
    }
    let loaded = config::load(file, &place).map_err(Error::Config)?;
    let named_in = loaded.files.last().unwrap_or(&place.file);
    let unknown = access::unknown_names(&loaded.config).into_iter();
    let problems: Vec<_> = unknown
        .map(|text| config::Problem {
            file: named_in.clone(),
            line: None,
            text,
        })
        .collect();
    let problems = [problems, broken_catalogs(&loaded.config.models)].concat();
    if !problems.is_empty() {
        return Err(Error::Config(config::Errors(problems)));
    }
    let mut text = String::new();
    for file in &loaded.files {
        text.push_str(&format!(
            "{}\n",
            terminal.out.clean(&file.display().to_string())
        ));
    }
    if loaded.files.is_empty() {
        text.push_str(&format!(
            "{} does not exist: the defaults hold\n",
            place.file.display()
        ));
    }
    text.push_str("ok\n");
    super::write_out(text.as_bytes())
}

/// The catalogs that the daemon would pass over.
fn broken_catalogs(models: &config::Models) -> Vec<config::Problem> {
    let place = models.catalog_directory.as_deref().map(|folder| Place {
        folder,
        key: &models.catalog_key,
    });
    let broken = read_all(place.as_ref()).broken.into_iter();
    let problem = |broken: Broken| config::Problem {
        file: broken.path,
        line: None,
        text: format!("the catalog is passed over: {}", broken.reason),
    };
    broken.map(problem).collect()
}
