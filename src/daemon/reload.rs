//! SIGHUP: what can change while the daemon runs.

use std::path::Path;

use super::{Parts, log};
use crate::access::{Policy, user_of_subject};
use crate::config::{self, App, Config, Place};
use crate::engine::Settings;

/// Reads the configuration again and applies it: the log level, `[access]`, `[[oidc]]` and what apps may do at once, models,
/// limits of the queue and of time for new requests, `[inference]` for the next worker. `[server]`
/// and the limits of connections need a restart, which is said. A configuration with errors changes
/// nothing.
pub async fn reload(
    old: Config,
    file: Option<&Path>,
    place: &Place,
    parts: &Parts,
    level: &log::Handle,
) -> Config {
    let new = match config::load(file, place) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            for problem in errors.0 {
                tracing::error!(%problem, "the configuration has errors; the old one stays");
            }
            return old;
        }
    };
    let policy = match Policy::new(&new.access, rustix::process::geteuid().as_raw()) {
        Ok(policy) => policy,
        Err(error) => {
            tracing::error!(error, "the configuration has errors; the old one stays");
            return old;
        }
    };
    let installers = match super::installers(&policy, &new) {
        Ok(installers) => installers,
        Err(error) => {
            tracing::error!(error, "the configuration has errors; the old one stays");
            return old;
        }
    };
    if let Err(error) = parts.admission.oidc.set(&new.oidc, user_of_subject) {
        tracing::error!(error, "the configuration has errors; the old one stays");
        return old;
    }
    let _ = level.reload(log::level(&new.log));
    parts.admission.set_policy(policy);
    parts.admission.apps.set(&new.apps);
    parts
        .attachments
        .set_networks(new.access.fetch_from.clone());
    parts.on_demand.set(new.models.pull_on_demand);
    parts.attachments.set_request_time(new.limits.request_time);
    parts.upstreams.set(&new.upstreams);
    let settings = Settings {
        models: new.models.clone(),
        inference: new.inference.clone(),
        memory: new.memory.clone(),
        limits: new.limits.clone(),
        installers,
        pull: new.pull.clone(),
    };
    parts.engine.reconfigure(settings).await;
    if fixed(&old) != fixed(&new) {
        tracing::warn!(
            "[server], `connections`, `connections-per-user`, `body-size`, `client-stall`, `worker`, `token-file`, [audit] and the sockets of [[app]] change with the next start"
        );
    }
    tracing::info!("the configuration is read again");
    new
}

/// What changes with the next start alone.
fn fixed(c: &Config) -> impl PartialEq + use<> {
    let socket = |app: &App| {
        let group = app.socket_group.clone();
        (app.name.clone(), app.socket.clone(), app.socket_mode, group)
    };
    let sockets: Vec<_> = c.apps.iter().map(socket).collect();
    (
        c.server.clone(),
        c.limits.connections,
        c.limits.connections_per_user,
        c.limits.body_bytes,
        c.limits.client_stall,
        c.inference.worker.clone(),
        c.access.token_file.clone(),
        c.audit.clone(),
        sockets,
    )
}
