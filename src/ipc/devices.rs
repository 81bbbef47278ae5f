//! The protocol of a worker that says what devices ggml can compute on. It gets no descriptor. One is
//! started for the names of the modules, and one for each module: whatever a driver does to its
//! process, the other modules are still asked.

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Devices {}

impl Protocol for Devices {
    const KIND: WorkerKind = WorkerKind::Devices;
    type Request = DevicesRequest;
    type Event = DevicesEvent;
    const LARGEST_EVENT: usize = 64 << 10;
}

/// Bytes of memory that are set aside for such a worker, most of it for drivers.
pub const DEVICES_MEMORY: u64 = 256 << 20;
/// Modules that are asked at most.
pub const MODULES_MOST: usize = 16;
/// Devices of one module at most.
pub const DEVICES_MOST: usize = 64;
/// Bytes of a text about a module or a device.
pub const DEVICE_TEXT: usize = 512;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesRequest {
    /// Which modules there are. Loads none.
    List,
    /// What devices this module has: a name that was listed.
    Load { file: String },
}

/// From the worker to the supervisor. The worker exits after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesEvent {
    /// `None`: the worker was built without what loads modules.
    Modules(Option<Modules>),
    Backend(DeviceBackend),
    /// Why the module is not used; continues its name.
    Refused {
        reason: String,
    },
}

/// The modules that are installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// Where they are looked for; it need not exist.
    pub directory: String,
    /// Names of files in it.
    pub files: Vec<String>,
}

/// What a module has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceBackend {
    /// As ggml calls it, such as `Vulkan`.
    pub name: String,
    pub devices: Vec<Device>,
}

/// Something that can compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As ggml calls it, such as `Vulkan0`.
    pub name: String,
    pub description: String,
    pub kind: DeviceKind,
    /// Bytes of its memory; 0 where the driver does not say. An integrated GPU's is the machine's.
    pub memory_total: u64,
    pub memory_free: u64,
    /// Where it is on the bus, if it is on one, such as `0000:c1:00.0`.
    pub bus_id: Option<String>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that shares the machine's memory.
    IntegratedGpu,
    /// ggml has no word for it: it calls NPUs GPUs. It shares the machine's memory.
    Npu,
    /// It helps the CPU.
    Accelerator,
}

impl DeviceKind {
    pub const ALL: [Self; 5] = [
        Self::Cpu,
        Self::Gpu,
        Self::IntegratedGpu,
        Self::Npu,
        Self::Accelerator,
    ];

    /// Its name in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::IntegratedGpu => "integrated_gpu",
            Self::Npu => "npu",
            Self::Accelerator => "accelerator",
        }
    }
}

impl DevicesEvent {
    /// Whether it can be what a worker says that does what it should: the code of drivers has run in it.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Modules(None) => true,
            Self::Modules(Some(Modules { directory, files })) => {
                is_text(directory)
                    && files.len() <= MODULES_MOST
                    && files.iter().all(|file| is_module(file) && is_text(file))
            }
            Self::Backend(DeviceBackend { name, devices }) => {
                is_text(name)
                    && devices.len() <= DEVICES_MOST
                    && devices.iter().all(Device::is_sound)
            }
            Self::Refused { reason } => is_text(reason),
        }
    }
}

impl Device {
    fn is_sound(&self) -> bool {
        is_text(&self.name)
            && is_text(&self.description)
            && self.bus_id.as_deref().is_none_or(is_text)
            && self.memory_free <= self.memory_total
    }
}

/// Whether a file of this name can be a module.
pub fn is_module(file: &str) -> bool {
    let name = file.strip_prefix("libggml-");
    let name = name.and_then(|name| name.strip_suffix(".so"));
    name.is_some_and(|name| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.chars().all(is_plain)
    })
}

fn is_text(text: &str) -> bool {
    text.len() <= DEVICE_TEXT && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_is_a_module() {
        for (file, expected) in [
            ("libggml-vulkan.so", true),
            ("libggml-cpu-x64.so", true),
            ("libggml-.so", false),
            ("libggml-../x.so", false),
            ("libggml-a\n.so", false),
            ("libggml-vulkan.so.0", false),
            ("libvulkan.so", false),
        ] {
            assert_eq!(is_module(file), expected, "{file:?}");
        }
    }

    #[test]
    fn what_a_driver_made_up_is_not_taken() {
        let device = Device {
            name: "Vulkan0".into(),
            description: "A GPU".into(),
            kind: DeviceKind::Gpu,
            memory_total: 2,
            memory_free: 1,
            bus_id: Some("0000:c1:00.0".into()),
        };
        let event = |devices| {
            DevicesEvent::Backend(DeviceBackend {
                name: "Vulkan".into(),
                devices,
            })
        };
        assert!(event(vec![device.clone(); DEVICES_MOST]).is_sound());
        assert!(!event(vec![device.clone(); DEVICES_MOST + 1]).is_sound());
        for wrong in [
            Device {
                description: "\u{1b}[31m".into(),
                ..device.clone()
            },
            Device {
                name: "x".repeat(DEVICE_TEXT + 1),
                ..device.clone()
            },
            Device {
                memory_free: 3,
                ..device.clone()
            },
            Device {
                bus_id: Some("\n".into()),
                ..device
            },
        ] {
            assert!(!event(vec![wrong]).is_sound());
        }
        let modules = |file: &str, count| {
            DevicesEvent::Modules(Some(Modules {
                directory: "/usr/lib/gemmad/backends".into(),
                files: vec![file.to_owned(); count],
            }))
        };
        assert!(modules("libggml-vulkan.so", MODULES_MOST).is_sound());
        assert!(!modules("libggml-vulkan.so", MODULES_MOST + 1).is_sound());
        assert!(!modules("../libggml-vulkan.so", 1).is_sound());
    }
}
