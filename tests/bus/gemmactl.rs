//! The command line over the bus.

use serde_json::Value;

use crate::harness::{self, TINY};
use crate::private::{self, Bus, possible};
use crate::{FRANCE, PARIS};

#[test]
fn gemmactl_asks_over_the_bus() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let on = format!("--bus={}", bus.address);
    // Where other users find it.
    let program = bus.dir().join("gemmactl");
    std::fs::copy(env!("CARGO_BIN_EXE_gemmactl"), &program).unwrap();
    let run = |uid: u32, args: &[&str]| {
        bus.as_user(uid, program.to_str().unwrap())
            .arg(&on)
            .args(args)
            .output()
            .unwrap()
    };
    let said = |args: &[&str]| {
        let output = run(0, args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(said(&["load", "auto"]), format!("{TINY} is loaded\n"));
    assert_eq!(said(&["ask", "--temperature", "0", FRANCE]).trim(), PARIS);
    let whole: Value =
        serde_json::from_str(&said(&["ask", "--json", "--temperature", "0", FRANCE])).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], PARIS);
    assert!(said(&["status"]).contains("2048 tokens in each of 2 slots"));
    let models = said(&["models"]);
    assert!(models.contains(TINY) && models.contains("Q8_0"), "{models}");
    assert!(said(&["memory", "plan", "--ctx", "4096", "--ram", "1G"]).contains("4096"));
    assert!(said(&["devices"]).starts_with("models run on the CPU"));
    assert_eq!(said(&["stop", "e4b"]), "tiny-e4b-q8_0 is not loaded\n");
    assert_eq!(said(&["stop", "e2b"]), format!("{TINY} is unloaded\n"));
    assert_eq!(said(&["unload"]), "no model was loaded\n");
    let fails = |uid: u32, args: &[&str]| {
        let output = run(uid, args);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text) = fails(0, &["cache"]);
    assert!(code == 2 && text.contains("--bus"), "{text}");
    let stops = ["--stop", "a"].repeat(17);
    let (code, text) = fails(0, &[&["ask", "x"], &stops[..]].concat());
    assert!(code == 2 && text.contains("--stop has 17"), "{text}");
    assert!(said(&["show", "e2b"]).contains(TINY));
    let (code, text) = fails(0, &["chat", "--model", "gemma-9"]);
    assert!(code == 1 && text.contains(TINY), "{text}");
    let (code, text) = fails(0, &["ask", "--model", "gemma-9", "x"]);
    assert!(code == 1 && text.contains(TINY), "{text}");
    let (code, text) = fails(private::NOBODY, &["unload"]);
    assert!(code == 77 && text.contains("for administrators"), "{text}");
    let (code, text) = fails(private::STRANGER, &["ask", "x"]);
    assert!(code == 77 && text.contains("usermod -aG gemmad"), "{text}");
    drop(daemon);
    let (code, text) = fails(0, &["status"]);
    assert!(code == 69 && text.contains("not on the bus"), "{text}");
}
