//! What this machine is, as the kernel tells everybody. Nothing that names it or its users is read.

use std::fs::read_to_string;
use std::path::Path;

use serde::Serialize;

/// A machine, as far as it says what it is.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// The board's or computer's model.
    pub board: Option<String>,
    /// The CPUs by their names, the most frequent kind first, and how many there are of each.
    pub cpus: Vec<Cpus>,
    pub architecture: &'static str,
    pub kernel: String,
    /// Bytes of memory, of swap, and of the swap that is compressed memory.
    pub ram: u64,
    pub swap: u64,
    pub zram: u64,
}

/// CPUs of one kind.
#[derive(Debug, PartialEq, Serialize)]
pub struct Cpus {
    pub name: String,
    pub count: usize,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let swaps = text("/proc/swaps");
        Self {
            board: board(),
            cpus: cpus(&text("/proc/cpuinfo")),
            architecture: std::env::consts::ARCH,
            kernel: text("/proc/sys/kernel/osrelease").trim().into(),
            ram: kib(&text("/proc/meminfo"), "MemTotal:") << 10,
            swap: swap(&swaps, ""),
            zram: swap(&swaps, "/dev/zram"),
        }
    }
}

/// Bytes that all disks of the machine together have been read by now, without what was swapped in.
pub fn bytes_read() -> u64 {
    let vmstat = text("/proc/vmstat");
    let swapped = kib(&vmstat, "pswpin") * rustix::param::page_size() as u64;
    (kib(&vmstat, "pgpgin") << 10).saturating_sub(swapped)
}

/// The highest temperature that a sensor tells, in degrees Celsius.
pub fn temperature() -> Option<f64> {
    let zones = std::fs::read_dir("/sys/class/thermal").ok()?;
    let zones = zones.filter_map(|zone| {
        let degrees = read_to_string(zone.ok()?.path().join("temp")).ok()?;
        Some(degrees.trim().parse::<f64>().ok()? / 1000.0)
    });
    // Sensors that do not work tell zero, or less.
    zones.filter(|degrees| *degrees > 0.0).reduce(f64::max)
}

/// Ticks of all CPUs: those in which they worked, and all.
pub fn ticks() -> (u64, u64) {
    busy(&text("/proc/stat"))
}

fn text(path: impl AsRef<Path>) -> String {
    read_to_string(path).unwrap_or_default()
}

/// The number behind a name at the start of a line; 0 where there is none.
fn kib(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().map(str::split_whitespace);
    lines
        .find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
        .unwrap_or(0)
}

/// What the firmware calls the machine: the device tree on boards, DMI on PCs.
fn board() -> Option<String> {
    let dmi = |name| text(Path::new("/sys/class/dmi/id").join(name));
    let names = [
        text("/proc/device-tree/model"),
        format!(
            "{} {}",
            dmi("sys_vendor").trim(),
            dmi("product_name").trim()
        ),
    ];
    let mut names = names
        .iter()
        .map(|name| name.trim_matches(['\0', ' ', '\n']));
    names.find(|name| !name.is_empty()).map(Into::into)
}

/// Bytes of the swap whose device is called so.
fn swap(swaps: &str, device: &str) -> u64 {
    let lines = swaps
        .lines()
        .skip(1)
        .filter(|line| line.starts_with(device));
    let kib = lines.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    kib.sum::<u64>() << 10
}

fn busy(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        // What guests took is in what users took.
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn cpus(cpuinfo: &str) -> Vec<Cpus> {
    let mut kinds: Vec<Cpus> = vec![];
    for name in cpuinfo.split("\n\n").filter_map(cpu) {
        match kinds.iter_mut().find(|known| known.name == name) {
            Some(known) => known.count += 1,
            None => kinds.push(Cpus { name, count: 1 }),
        }
    }
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    kinds
}

/// The name of the CPU that a paragraph of `/proc/cpuinfo` is about. Arm's say numbers.
fn cpu(paragraph: &str) -> Option<String> {
    let value = |name: &str| {
        let mut lines = paragraph.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
        Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    value("processor")?;
    if let Some(name) = value("model name").filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let Some((maker, part)) = value("CPU implementer").zip(value("CPU part")) else {
        return Some(value("uarch").unwrap_or_else(|| "unknown CPU".into()));
    };
    let known = ARM_PARTS
        .iter()
        .find(|(number, _)| maker == "0x41" && part == *number);
    Some(match known {
        Some((_, name)) => (*name).into(),
        None => format!("CPU {maker}/{part}"),
    })
}

/// Arm's own cores, by the number that `/proc/cpuinfo` has of them.
const ARM_PARTS: [(&str, &str); 17] = [
    ("0xd03", "Cortex-A53"),
    ("0xd04", "Cortex-A35"),
    ("0xd05", "Cortex-A55"),
    ("0xd07", "Cortex-A57"),
    ("0xd08", "Cortex-A72"),
    ("0xd09", "Cortex-A73"),
    ("0xd0a", "Cortex-A75"),
    ("0xd0b", "Cortex-A76"),
    ("0xd0c", "Neoverse-N1"),
    ("0xd0d", "Cortex-A77"),
    ("0xd40", "Neoverse-V1"),
    ("0xd41", "Cortex-A78"),
    ("0xd46", "Cortex-A510"),
    ("0xd47", "Cortex-A710"),
    ("0xd49", "Neoverse-N2"),
    ("0xd4b", "Cortex-A78C"),
    ("0xd80", "Cortex-A520"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_have_their_names() {
        let cpus = |cpuinfo: &str| {
            let kinds = cpus(cpuinfo).into_iter();
            kinds
                .map(|kind| (kind.name, kind.count))
                .collect::<Vec<_>>()
        };
        let x86 = "processor\t: 0\nmodel name\t: AMD  EPYC\n\nprocessor\t: 1\nmodel name\t: AMD  EPYC\n\n";
        assert_eq!(cpus(x86), [("AMD EPYC".into(), 2)]);
        let core =
            |part: &str| format!("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n");
        let (small, large) = (core("0xd05"), core("0xd0b"));
        let board = format!("{small}{small}{small}{large}Serial\t: 0\nModel\t: Board\n");
        assert_eq!(
            cpus(&board),
            [("Cortex-A55".into(), 3), ("Cortex-A76".into(), 1)]
        );
        assert_eq!(cpus(&core("0x001")), [("CPU 0x41/0x001".into(), 1)]);
        assert_eq!(cpus(""), []);
    }

    #[test]
    fn the_kernels_numbers() {
        let swaps = "Filename Type Size Used Priority\n/dev/zram0 partition 1000 0 100\n/swap file 24 0 -2\n";
        assert_eq!(
            (swap(swaps, ""), swap(swaps, "/dev/zram")),
            (1024 << 10, 1000 << 10)
        );
        assert_eq!(kib("MemTotal:  77 kB\nMemFree: 1 kB\n", "MemTotal:"), 77);
        assert_eq!(kib("pgpgin 9\n", "pgpgout"), 0);
        assert_eq!(busy("cpu  1 2 3 40 5 6 7 8 9 9\ncpu0 1\n"), (27, 72));
        assert_eq!(busy(""), (0, 0));
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::here();
        assert!(machine.ram > 0 && !machine.kernel.is_empty() && !machine.cpus.is_empty());
        assert!(bytes_read() > 0 && ticks().1 > 0);
    }
}
