//! Who may do what, by the bus's policy and by the daemon's.

use std::path::Path;

use crate::harness;
use crate::harness::skip::skip;
use crate::private::{Bus, NOBODY, POLKITD, STRANGER, possible};
use crate::{FRANCE, PARIS};

const MANAGER: [&str; 3] = [
    "org.gemmad.Gemmad1",
    "/org/gemmad/Gemmad1",
    "org.gemmad.Gemmad1.Manager",
];

const LOAD: [&str; 4] = ["Load", "sa{sv}", "auto", "0"];
const ASK: [&str; 10] = [
    "Ask",
    "sa{sv}",
    FRANCE,
    "2",
    "temperature",
    "d",
    "0",
    "timeout",
    "u",
    "60",
];

/// What the user is answered, or the error's text.
fn call(bus: &Bus, uid: u32, args: &[&str]) -> Result<String, String> {
    let output = bus.busctl(
        uid,
        &[&["--timeout=60", "call"], &MANAGER[..], args].concat(),
    );
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Nobody can take the service's name.
fn assert_name_is_reserved(bus: &Bus) {
    let taken = bus.busctl(
        NOBODY,
        &[
            "call",
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "RequestName",
            "su",
            MANAGER[0],
            "0",
        ],
    );
    assert!(
        String::from_utf8_lossy(&taken.stderr).contains("ccess denied"),
        "{taken:?}"
    );
}

#[test]
fn each_user_may_do_what_the_policies_say() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let refused = call(&bus, NOBODY, &LOAD).unwrap_err();
    assert!(
        refused.contains("for administrators, and user 65534 is none"),
        "{refused}"
    );
    assert_eq!(call(&bus, 0, &LOAD).unwrap(), "s \"tiny-e2b-q8_0\"");
    assert_eq!(call(&bus, NOBODY, &ASK).unwrap(), format!("s \"{PARIS}\""));
    assert!(
        call(&bus, NOBODY, &["Unload", "a{sv}", "0"])
            .unwrap_err()
            .contains("for administrators")
    );
    // The bus lets nobody else in, but shows everybody what is there.
    for method in [&ASK[..], &LOAD[..]] {
        assert!(
            call(&bus, STRANGER, method)
                .unwrap_err()
                .contains("Access denied"),
            "{method:?}"
        );
    }
    let state = bus.busctl(
        STRANGER,
        &[&["get-property"], &MANAGER[..], &["State"]].concat(),
    );
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "s \"ready\"");
    assert!(
        bus.busctl(STRANGER, &["introspect", MANAGER[0], MANAGER[1]])
            .status
            .success()
    );
    assert_name_is_reserved(&bus);

    // An administrator by the configuration, from the next reload on.
    let config = daemon.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("[access]", "[access]\nadmins = [\"65534\"]"),
    )
    .unwrap();
    daemon.signal("HUP");
    harness::wait_for("the reload", || {
        daemon.log().contains("the configuration is read again")
    });
    call(&bus, NOBODY, &["Unload", "a{sv}", "0"]).unwrap();
}

#[test]
fn where_polkit_runs_it_decides() {
    if !possible() {
        return;
    }
    if !Path::new(POLKITD).exists() {
        skip("what polkit decides", "polkitd is not installed");
        return;
    }
    let shipped = include_str!("../../systemd/dbus/org.gemmad.policy");
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());

    // By default whom the bus lets in may ask, and nobody but administrators may load. There is
    // nobody to be asked for a password.
    let polkit = bus.polkit(shipped);
    assert_eq!(call(&bus, NOBODY, &ASK).unwrap(), format!("s \"{PARIS}\""));
    let refused = call(&bus, NOBODY, &LOAD).unwrap_err();
    assert!(refused.contains("org.gemmad.load"), "{refused}");
    let plain = bus.busctl(
        NOBODY,
        &[
            &["--allow-interactive-authorization=false", "call"],
            &MANAGER[..],
            &LOAD,
        ]
        .concat(),
    );
    let plain = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(plain.contains("polkit would ask for a password"), "{plain}");
    call(&bus, 0, &LOAD).unwrap();
    drop(polkit);

    // As an administrator may have it: this user loads, but does not ask.
    let turned = shipped
        .replace("<allow_any>yes", "<allow_any>no")
        .replace("<allow_any>auth_admin", "<allow_any>yes");
    let _polkit = bus.polkit(&turned);
    call(&bus, NOBODY, &["Unload", "a{sv}", "0"]).unwrap();
    let refused = call(&bus, NOBODY, &ASK).unwrap_err();
    assert!(
        refused.contains("polkit does not let user 65534 ask")
            && refused.contains("org.gemmad.infer"),
        "{refused}"
    );
    // Root needs nobody's leave.
    assert_eq!(call(&bus, 0, &ASK).unwrap(), format!("s \"{PARIS}\""));
}
