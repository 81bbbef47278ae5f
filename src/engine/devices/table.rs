//! Which variants which devices take: `models/devices.toml`. Pure.

use serde::{Deserialize, Deserializer, de};

use crate::backend::{FoundBackend, FoundDevice, VariantThere};
use crate::gemma::variant::Variant;
use crate::ipc::{Device, DeviceBackend, DeviceKind};

const DEVICES: &str = include_str!("../../../models/devices.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    device: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    backend: String,
    #[serde(default)]
    described: Vec<String>,
    #[serde(default, deserialize_with = "kind")]
    kind: Option<DeviceKind>,
    #[serde(deserialize_with = "variants")]
    runs: Vec<Variant>,
    #[serde(default)]
    refused: Vec<Refused>,
    #[serde(default)]
    conditions: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    #[serde(deserialize_with = "variants")]
    variants: Vec<Variant>,
    reason: String,
}

impl Entry {
    fn is_for(&self, backend: &str, device: &Device) -> bool {
        let has = |text: &String| device.description.contains(text);
        self.backend == backend && self.described.iter().all(has)
    }

    /// In the family's order.
    fn variants(&self) -> Vec<VariantThere> {
        let refusal = |variant| {
            let of = |refused: &&Refused| refused.variants.contains(&variant);
            self.refused.iter().find(of)
        };
        let there = |variant| VariantThere {
            variant,
            refused: refusal(variant).map(|refused| refused.reason.clone()),
        };
        let is_named =
            |there: &VariantThere| there.refused.is_some() || self.runs.contains(&there.variant);
        Variant::PUBLISHED
            .into_iter()
            .map(there)
            .filter(is_named)
            .collect()
    }
}

fn kind<'de, D: Deserializer<'de>>(id: D) -> Result<Option<DeviceKind>, D::Error> {
    let id = String::deserialize(id)?;
    let kind = DeviceKind::ALL.into_iter().find(|kind| kind.id() == id);
    kind.map(Some)
        .ok_or_else(|| de::Error::custom(format!("there is no kind `{id}`")))
}

fn variants<'de, D: Deserializer<'de>>(ids: D) -> Result<Vec<Variant>, D::Error> {
    let variant = |id: String| {
        Variant::named(&id).ok_or_else(|| de::Error::custom(format!("there is no variant `{id}`")))
    };
    let ids = Vec::<String>::deserialize(ids)?;
    ids.into_iter().map(variant).collect()
}

fn entries() -> Vec<Entry> {
    // The tests read the file that is compiled in.
    toml::from_str(DEVICES).map_or(vec![], |table: Table| table.device)
}

/// Adds what is known of its devices to what a module says.
pub fn described(backend: DeviceBackend) -> FoundBackend {
    let entries = entries();
    let DeviceBackend { name, devices } = backend;
    let devices = devices.into_iter().map(|mut device| {
        let entry = entries.iter().find(|entry| entry.is_for(&name, &device));
        device.kind = entry.and_then(|entry| entry.kind).unwrap_or(device.kind);
        FoundDevice {
            device,
            variants: entry.map(Entry::variants),
            conditions: entry.map_or(vec![], |entry| entry.conditions.clone()),
        }
    });
    FoundBackend {
        devices: devices.collect(),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_of_each_variant_once_whether_it_runs() {
        let table: Table = toml::from_str(DEVICES).unwrap();
        for entry in &table.device {
            let refused = entry.refused.iter().flat_map(|refused| &refused.variants);
            let mut named: Vec<_> = entry.runs.iter().chain(refused).map(|v| v.id()).collect();
            let mut all = Variant::PUBLISHED.map(Variant::id);
            named.sort_unstable();
            all.sort_unstable();
            assert_eq!(named, all, "{entry:?}");
            let reasons = entry.refused.iter().map(|refused| &refused.reason);
            assert!(
                reasons
                    .chain(&entry.conditions)
                    .all(|text| !text.is_empty())
            );
        }
    }

    #[test]
    fn no_entry_hides_a_later_one() {
        let entries = entries();
        for (at, entry) in entries.iter().enumerate() {
            let hides = |earlier: &&Entry| {
                let is_wanted = |text| entry.described.contains(text);
                earlier.backend == entry.backend && earlier.described.iter().all(is_wanted)
            };
            let hidden = entries[..at].iter().find(hides);
            assert!(hidden.is_none(), "{entry:?} is behind {hidden:?}");
        }
    }

    fn found(backend: &str, description: &str, kind: DeviceKind) -> FoundDevice {
        let device = Device {
            name: "0".into(),
            description: description.into(),
            kind,
            memory_total: 0,
            memory_free: 0,
            bus_id: None,
        };
        let backend = DeviceBackend {
            name: backend.into(),
            devices: vec![device],
        };
        described(backend).devices.remove(0)
    }

    fn running(found: &FoundDevice) -> Vec<Variant> {
        let variants = found.variants.iter().flatten();
        let run = variants.filter(|there| there.refused.is_none());
        run.map(|there| there.variant).collect()
    }

    #[test]
    fn devices_are_told_apart_by_what_they_are_described_as() {
        use DeviceKind::*;
        let small = [Variant::E2b, Variant::E4b];
        for (backend, description, said, kind, runs) in [
            (
                "OPENVINO",
                "GGML_OPENVINO_DEVICE=NPU (selected) - Intel(R) AI Boost",
                Gpu,
                Npu,
                &small[..],
            ),
            (
                "OPENVINO",
                "GGML_OPENVINO_DEVICE=GPU.0 - Intel(R) Graphics (iGPU)",
                Gpu,
                IntegratedGpu,
                &Variant::PUBLISHED,
            ),
            (
                "OPENVINO",
                "GGML_OPENVINO_DEVICE=CPU - a CPU",
                IntegratedGpu,
                Cpu,
                &Variant::PUBLISHED,
            ),
            ("Vulkan", "V3D 7.1.7.0", IntegratedGpu, IntegratedGpu, &[]),
            (
                "Vulkan",
                "AMD Radeon Vega 8 (RADV)",
                IntegratedGpu,
                IntegratedGpu,
                &Variant::PUBLISHED,
            ),
            ("HTP", "Hexagon", Gpu, Npu, &small),
        ] {
            let found = found(backend, description, said);
            assert_eq!(found.device.kind, kind, "{description}");
            assert_eq!(running(&found), runs, "{description}");
        }
    }

    #[test]
    fn of_a_device_without_an_entry_nothing_is_made_up() {
        let found = found("BLAS", "a library", DeviceKind::Accelerator);
        assert_eq!(found.device.kind, DeviceKind::Accelerator);
        assert_eq!((found.variants, found.conditions), (None, vec![]));
    }
}
