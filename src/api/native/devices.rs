//! `GET /devices`: what ggml could compute on beside the CPU, and why it is not used.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::{Api, render};
use crate::backend::{DeviceKind, DeviceModule, DeviceReport, FoundDevice, VariantThere};

/// Starts a process for each module that is installed.
pub async fn list(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let report = api.backends.local().devices().await?;
    Ok(crate::api::json(json(report)))
}

/// The report as JSON.
pub fn json(report: DeviceReport) -> String {
    render(&DevicesOut::from(report))
}

#[derive(Serialize)]
struct DevicesOut {
    /// Where modules are looked for; null if this build loads none.
    directory: Option<String>,
    modules: Vec<ModuleOut>,
}

#[derive(Serialize)]
struct ModuleOut {
    file: String,
    /// What ggml calls it; null if it cannot be used.
    backend: Option<String>,
    /// Why it cannot be used; continues the file's name.
    fault: Option<String>,
    devices: Vec<DeviceOut>,
}

#[derive(Serialize)]
struct DeviceOut {
    name: String,
    description: String,
    /// [`DeviceKind::id`]
    kind: &'static str,
    /// Bytes; null where the driver does not say.
    memory_total: Option<u64>,
    memory_free: Option<u64>,
    /// Whether its memory is the machine's.
    shares_memory: bool,
    bus_id: Option<String>,
    used: bool,
    /// Why it is not used.
    reason: &'static str,
    /// The published variants; null where nothing is known.
    variants: Option<Vec<VariantOut>>,
    /// What has to hold while one runs on it.
    conditions: Vec<String>,
}

#[derive(Serialize)]
struct VariantOut {
    id: &'static str,
    runs: bool,
    /// Why it does not.
    reason: Option<String>,
}

impl From<DeviceReport> for DevicesOut {
    fn from(report: DeviceReport) -> Self {
        Self {
            directory: report.directory,
            modules: report.modules.into_iter().map(ModuleOut::from).collect(),
        }
    }
}

impl From<DeviceModule> for ModuleOut {
    fn from(DeviceModule { file, found }: DeviceModule) -> Self {
        let (backend, devices, fault) = match found {
            Ok(backend) => (Some(backend.name), backend.devices, None),
            Err(reason) => (None, vec![], Some(reason)),
        };
        Self {
            file,
            backend,
            fault,
            devices: devices.into_iter().map(DeviceOut::from).collect(),
        }
    }
}

impl From<FoundDevice> for DeviceOut {
    fn from(found: FoundDevice) -> Self {
        let FoundDevice {
            device,
            variants,
            conditions,
        } = found;
        let known = Some(device.memory_total).filter(|total| *total > 0);
        Self {
            kind: device.kind.id(),
            memory_total: known,
            memory_free: known.map(|_| device.memory_free),
            shares_memory: matches!(
                device.kind,
                DeviceKind::Cpu | DeviceKind::IntegratedGpu | DeviceKind::Npu
            ),
            bus_id: device.bus_id,
            used: false,
            reason: match device.kind {
                DeviceKind::Cpu => "models run on the CPU with gemmad's own kernels",
                _ => "this version of gemmad runs models on the CPU only",
            },
            name: device.name,
            description: device.description,
            variants: variants.map(|all| all.into_iter().map(VariantOut::from).collect()),
            conditions,
        }
    }
}

impl From<VariantThere> for VariantOut {
    fn from(VariantThere { variant, refused }: VariantThere) -> Self {
        Self {
            id: variant.id(),
            runs: refused.is_none(),
            reason: refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::backend::{Device, FoundBackend};
    use crate::gemma::variant::Variant;

    #[test]
    fn what_is_there_is_told_and_what_is_not_used_has_its_reason() {
        let device = Device {
            name: "Vulkan0".into(),
            description: "An integrated GPU".into(),
            kind: DeviceKind::IntegratedGpu,
            memory_total: 0,
            memory_free: 0,
            bus_id: None,
        };
        let found = FoundDevice {
            device: device.clone(),
            variants: Some(vec![
                VariantThere {
                    variant: Variant::E2b,
                    refused: None,
                },
                VariantThere {
                    variant: Variant::B31,
                    refused: Some("too large".into()),
                },
            ]),
            conditions: vec!["all layers are on it".into()],
        };
        let unknown = FoundDevice {
            device: Device {
                kind: DeviceKind::Gpu,
                memory_total: 2,
                memory_free: 1,
                ..device
            },
            variants: None,
            conditions: vec![],
        };
        let backend = FoundBackend {
            name: "Vulkan".into(),
            devices: vec![found, unknown],
        };
        let report = DeviceReport {
            directory: Some("/b".into()),
            modules: vec![
                DeviceModule {
                    file: "libggml-rpc.so".into(),
                    found: Err("cannot be loaded".into()),
                },
                DeviceModule {
                    file: "libggml-vulkan.so".into(),
                    found: Ok(backend),
                },
            ],
        };
        let told: Value = serde_json::from_str(&super::json(report)).unwrap();
        let device = json!({"name": "Vulkan0", "description": "An integrated GPU", "kind": "integrated_gpu",
            "memory_total": null, "memory_free": null, "shares_memory": true, "bus_id": null, "used": false,
            "reason": "this version of gemmad runs models on the CPU only",
            "variants": [{"id": "gemma-4-e2b", "runs": true, "reason": null},
                {"id": "gemma-4-31b", "runs": false, "reason": "too large"}],
            "conditions": ["all layers are on it"]});
        let unknown = json!({"name": "Vulkan0", "description": "An integrated GPU", "kind": "gpu",
            "memory_total": 2, "memory_free": 1, "shares_memory": false, "bus_id": null, "used": false,
            "reason": "this version of gemmad runs models on the CPU only", "variants": null, "conditions": []});
        assert_eq!(
            told,
            json!({"directory": "/b", "modules": [
                {"file": "libggml-rpc.so", "backend": null, "fault": "cannot be loaded", "devices": []},
                {"file": "libggml-vulkan.so", "backend": "Vulkan", "fault": null, "devices": [device, unknown]},
            ]})
        );
    }
}
