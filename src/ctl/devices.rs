//! `gemmactl devices`: what there is to compute on beside the CPU.

use std::fmt::Write;

use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, show_size};
use super::table::table;
use super::text::{Stream, Terminal};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Devices {
    directory: Option<String>,
    modules: Vec<Module>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Module {
    file: String,
    fault: Option<String>,
    devices: Vec<Device>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Device {
    name: String,
    description: String,
    kind: String,
    memory_total: Option<u64>,
    memory_free: Option<u64>,
    variants: Option<Vec<Variant>>,
    conditions: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Variant {
    id: String,
    runs: bool,
    reason: Option<String>,
}

pub async fn list(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    // Each driver may take its time.
    let devices = client.devices().await?;
    if json {
        return Ok(pretty(&devices, terminal));
    }
    Ok(view(&parse(devices)?, terminal.out).into_bytes())
}

fn view(found: &Devices, out: Stream) -> String {
    let mut view =
        String::from("models run on the CPU; this version of gemmad uses no other device\n");
    // Writing to a string does not fail.
    let _ = match &found.directory {
        None => writeln!(
            view,
            "whether there is one, this build cannot tell: it lacks the feature `cpu-variants`, which the Debian package has"
        ),
        Some(directory) if found.modules.is_empty() => writeln!(
            view,
            "GPUs and NPUs are found by backends for them, and none is in {}; docs/devices.md says how to build one",
            out.clean(directory)
        ),
        Some(directory) => {
            list_modules(&mut view, &found.modules, out);
            writeln!(view, "backends are in {}", out.clean(directory))
        }
    };
    view
}

fn list_modules(view: &mut String, modules: &[Module], out: Stream) {
    let row = |device: &Device| {
        let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), show_size);
        [
            device.name.clone(),
            device.kind.replace('_', " "),
            size(device.memory_total),
            size(device.memory_free),
            device.takes(),
            device.description.clone(),
        ]
    };
    let devices = || modules.iter().flat_map(|module| &module.devices);
    *view += &table(
        ["DEVICE", "KIND", "MEMORY", "FREE", "MODELS", "DESCRIPTION"],
        devices().map(row),
        &[2, 3],
        out,
    );
    for device in devices() {
        let name = out.clean(&device.name);
        for (reason, variants) in device.refusals() {
            let variants = variants.join(", ");
            let _ = writeln!(
                view,
                "{name}, not {}: {}",
                out.clean(&variants),
                out.clean(reason)
            );
        }
        for condition in &device.conditions {
            let _ = writeln!(view, "{name}: {}", out.clean(condition));
        }
    }
    for module in modules {
        let told = match &module.fault {
            Some(fault) => fault,
            None if module.devices.is_empty() => "finds no device",
            None => continue,
        };
        let _ = writeln!(view, "{} {}", out.clean(&module.file), out.clean(told));
    }
}

impl Device {
    /// Which variants it could run.
    fn takes(&self) -> String {
        let Some(variants) = &self.variants else {
            return "not known".to_owned();
        };
        let running: Vec<&str> = variants
            .iter()
            .filter(|variant| variant.runs)
            .map(|variant| variant.id.trim_start_matches("gemma-4-"))
            .collect();
        match running.len() {
            0 => "none".to_owned(),
            count if count == variants.len() => "all".to_owned(),
            _ => running.join(", "),
        }
    }

    /// Each reason once, with those that it keeps away.
    fn refusals(&self) -> Vec<(&str, Vec<&str>)> {
        let mut refusals: Vec<(&str, Vec<&str>)> = vec![];
        for variant in self.variants.iter().flatten() {
            let Some(reason) = variant.reason.as_deref() else {
                continue;
            };
            match refusals.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, variants)) => variants.push(&variant.id),
                None => refusals.push((reason, vec![&variant.id])),
            }
        }
        refusals
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    #[test]
    fn devices_stand_in_columns_and_what_is_to_be_known_below() {
        let variants = json!([{"id": "gemma-4-e2b", "runs": true, "reason": null},
            {"id": "gemma-4-12b", "runs": false, "reason": "too large"},
            {"id": "gemma-4-31b", "runs": false, "reason": "too large"}]);
        let npu = json!({"name": "HTP0", "description": "Hexagon", "kind": "npu", "memory_total": null,
            "memory_free": null, "variants": variants, "conditions": ["one request at a time"]});
        let gpu = json!({"name": "Vulkan0", "description": "A GPU", "kind": "integrated_gpu",
            "memory_total": 4_u64 << 30, "memory_free": null, "variants": [variants[0]], "conditions": []});
        let found = json!({"directory": "/b", "modules": [
            {"file": "libggml-a.so", "fault": "cannot be loaded", "devices": []},
            {"file": "libggml-htp.so", "devices": [npu]},
            {"file": "libggml-rpc.so", "devices": []},
            {"file": "libggml-vulkan.so", "devices": [gpu]}]});
        assert_eq!(
            view(&parse(found).unwrap(), PIPE),
            "models run on the CPU; this version of gemmad uses no other device\n\
             DEVICE   KIND             MEMORY  FREE  MODELS  DESCRIPTION\n\
             HTP0     npu                   -     -  e2b     Hexagon\n\
             Vulkan0  integrated gpu  4.0 GiB     -  all     A GPU\n\
             HTP0, not gemma-4-12b, gemma-4-31b: too large\n\
             HTP0: one request at a time\n\
             libggml-a.so cannot be loaded\n\
             libggml-rpc.so finds no device\n\
             backends are in /b\n"
        );
    }

    #[test]
    fn where_there_is_none_it_is_said_what_finds_one() {
        let none = view(&parse(json!({"directory": "/b"})).unwrap(), PIPE);
        assert!(none.contains("none is in /b; docs/devices.md"), "{none}");
        let unable = view(&Devices::default(), PIPE);
        assert!(unable.contains("`cpu-variants`"), "{unable}");
        for told in [none, unable] {
            assert!(told.starts_with("models run on the CPU"), "{told}");
        }
    }

    #[test]
    fn of_a_device_it_is_said_when_nothing_is_known_or_nothing_runs() {
        let device = |variants| -> Device { parse(json!({"variants": variants})).unwrap() };
        assert_eq!(device(json!(null)).takes(), "not known");
        let none = json!([{"id": "gemma-4-e2b", "runs": false, "reason": "x"}]);
        assert_eq!(device(none).takes(), "none");
    }
}
