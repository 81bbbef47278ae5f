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
    reason: String,
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
    let Some(directory) = &found.directory else {
        return "models run on the CPU: this gemmad was built without the feature `cpu-variants`, and so loads no \
                backends for other devices; the Debian package has it\n"
            .into();
    };
    let directory = out.clean(directory);
    if found.modules.is_empty() {
        return format!(
            "models run on the CPU: no backend for another device is installed. `cross/backends/build.sh vulkan \
             {directory}` in gemmad's sources builds one\n"
        );
    }
    let row = |device: &Device| {
        let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), show_size);
        [
            device.name.clone(),
            device.kind.replace('_', " "),
            size(device.memory_total),
            size(device.memory_free),
            device.description.clone(),
            format!("not used: {}", device.reason),
        ]
    };
    let devices = found.modules.iter().flat_map(|module| &module.devices);
    let mut view = table(
        ["DEVICE", "KIND", "MEMORY", "FREE", "DESCRIPTION", "STATE"],
        devices.map(row),
        &[2, 3],
        out,
    );
    for module in &found.modules {
        let told = match &module.fault {
            Some(fault) => fault,
            None if module.devices.is_empty() => "finds no device",
            None => continue,
        };
        // Writing to a string does not fail.
        let _ = writeln!(view, "{} {}", out.clean(&module.file), out.clean(told));
    }
    let _ = writeln!(view, "modules are in {directory}");
    view
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
    fn devices_stand_in_columns_and_faults_below() {
        let device = json!({"name": "Vulkan0", "description": "A GPU", "kind": "integrated_gpu",
            "memory_total": 4_u64 << 30, "memory_free": null, "reason": "x"});
        let found = json!({"directory": "/b", "modules": [
            {"file": "libggml-a.so", "fault": "cannot be loaded", "devices": []},
            {"file": "libggml-rpc.so", "devices": []},
            {"file": "libggml-vulkan.so", "devices": [device]}]});
        assert_eq!(
            view(&parse(found).unwrap(), PIPE),
            "DEVICE   KIND             MEMORY  FREE  DESCRIPTION  STATE\n\
             Vulkan0  integrated gpu  4.0 GiB     -  A GPU        not used: x\n\
             libggml-a.so cannot be loaded\n\
             libggml-rpc.so finds no device\n\
             modules are in /b\n"
        );
        let none = view(&parse(json!({"directory": "/b"})).unwrap(), PIPE);
        assert!(none.contains("build.sh vulkan /b`"), "{none}");
        let unable = view(&Devices::default(), PIPE);
        assert!(unable.contains("`cpu-variants`"), "{unable}");
    }
}
