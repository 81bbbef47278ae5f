use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::config::{App, BusChoice, Keeps, Upstream, UpstreamModel};

const SAMPLE: &str = include_str!("../../systemd/gemmad.toml");

fn read_text(text: &str) -> Result<Config, Vec<String>> {
    let mut reader = Reader::default();
    reader.file(Path::new("a.toml"), text);
    reader.check_together();
    if reader.problems.is_empty() {
        Ok(reader.config)
    } else {
        Err(reader.problems.iter().map(ToString::to_string).collect())
    }
}

/// Asserts that `text` has one problem, whose message holds each of `parts`.
fn refused(text: &str, parts: &[&str]) {
    let problems = read_text(text).expect_err(text);
    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    for part in parts {
        assert!(
            problems[0].contains(part),
            "{text}: no {part:?} in {problems:?}"
        );
    }
}

/// Most keys, each with another value than its default.
const CHANGED: &str = r#"
    [server]
    socket = "/run/x.sock"
    socket-mode = "0666"
    socket-group = "gemma"
    shutdown-grace = 5
    dbus = "unix:path=/run/bus"
    [models]
    directories = ["/a", "/b"]
    default = "gemma-4-e4b"
    idle-unload = 0
    [inference]
    context = 4096
    slots = 1
    threads = 3
    batch = 64
    step-time = "100ms"
    worker = "/opt/worker"
    [limits]
    connections = 10
    connections-per-user = 9
    body-size = "512 KiB"
    queue = 8
    queue-per-user = 7
    output-tokens = 100
    request-time = "10m"
    client-stall = "500ms"
    load-time = "1h"
    worker-silence = "2h"
    [access]
    admins = ["alice"]
    admin-groups = ["wheel"]
    [log]
    level = "debug"
"#;

#[test]
fn every_key_arrives_in_its_field() {
    let mut expected = Config::default();
    let server = &mut expected.server;
    server.socket = "/run/x.sock".into();
    server.socket_mode = 0o666;
    server.socket_group = Some("gemma".into());
    server.shutdown_grace = Duration::from_secs(5);
    server.dbus = BusChoice::Address("unix:path=/run/bus".into());
    let models = &mut expected.models;
    models.directories = vec!["/a".into(), "/b".into()];
    models.default = "gemma-4-e4b".into();
    models.idle_unload = Duration::ZERO;
    let inference = &mut expected.inference;
    inference.context = Some(4096);
    inference.slots = Some(1);
    inference.threads = 3;
    inference.batch = 64;
    inference.step_time = Duration::from_millis(100);
    inference.worker = Some("/opt/worker".into());
    let limits = &mut expected.limits;
    limits.connections = 10;
    limits.connections_per_user = 9;
    limits.body_bytes = 512 << 10;
    limits.queue = 8;
    limits.queue_per_user = 7;
    limits.output_tokens = 100;
    limits.request_time = Duration::from_secs(600);
    limits.client_stall = Duration::from_millis(500);
    limits.load_time = Duration::from_secs(3600);
    limits.worker_silence = Duration::from_secs(7200);
    expected.access.admins = vec!["alice".into()];
    expected.access.admin_groups = vec!["wheel".into()];
    expected.log.level = "debug".into();
    assert_eq!(read_text(CHANGED), Ok(expected));
}

#[test]
fn unknown_names_get_a_suggestion_and_a_line() {
    refused(
        "[server]\nsockt = 1",
        &["a.toml:2:", "`sockt`", "[server]", "did you mean `socket`?"],
    );
    refused("[limits]\nbody_size = 1", &["did you mean `body-size`?"]);
    refused("[severs]\n", &["a.toml:1:", "did you mean [server]?"]);
    refused("context = 1", &["`context`", "belongs under [inference]"]);
    refused("[server]\nslots = 1", &["belongs under [inference]"]);
    refused("[log]\nxyzzy = 1", &["there are level"]);
    refused(
        "[xyzzy]",
        &["[server], [models], [pull], [inference], [memory], [limits], [access], [log]"],
    );
    refused("server = 3", &["`server` is a table"]);
    refused("[[server]]\nsocket = \"/x\"", &["`server` is a table"]);
}

#[test]
fn values_out_of_range_name_the_key_and_what_is_allowed() {
    refused(
        "[inference]\n\ncontext = 255",
        &["a.toml:3:", "context is 255", "from 256 to 262144"],
    );
    refused("[inference]\ncontext = 262145", &["262145"]);
    refused("[inference]\nslots = 0", &["1 to 64"]);
    refused("[inference]\nslots = 65", &["65"]);
    refused("[inference]\nbatch = 31", &["32 to 2048"]);
    refused("[inference]\nbatch = 2049", &["2049"]);
    refused("[inference]\nthreads = -1", &["-1"]);
    refused("[inference]\nslots = 4.0", &["4.0"]);
    refused("[inference]\nslots = \"4\"", &["\"4\""]);
    refused(
        "[inference]\nslots = 99999999999999999999999999",
        &["slots"],
    );
    refused("[inference]\nworker = \"worker\"", &["absolute"]);
    refused("[limits]\nqueue = 0", &["1 to 65536"]);
    refused(
        "[limits]\nbody-size = \"32 MX\"",
        &["\"32 MX\"", "from 1 KiB to 48 MiB", "32 MiB"],
    );
    refused("[limits]\nrequest-time = \"0s\"", &["more than 0"]);
    refused("[limits]\nrequest-time = 0", &["more than 0"]);
    refused("[limits]\nrequest-time = \"8d\"", &["at most 7d"]);
    refused(
        "[inference]\nstep-time = \"2m\"",
        &["step-time", "more than 0 and at most 1m"],
    );
    refused("[limits]\nrequest-time = 1979-05-27", &["a date"]);
    refused("[server]\nsocket = \"run/api.sock\"", &["absolute"]);
    refused(
        &format!("[server]\nsocket = \"/{}\"", "x".repeat(107)),
        &["a string of 108 bytes", "107"],
    );
    assert!(read_text(&format!("[server]\nsocket = \"/{}\"", "x".repeat(106))).is_ok());
    refused("[server]\nsocket-mode = 660", &["octal as a string"]);
    refused("[server]\nsocket-mode = \"0770\"", &["0770"]);
    refused("[server]\nsocket-mode = \"0060\"", &["0060"]);
    refused("[server]\nsocket-mode = \"+660\"", &["+660"]);
    refused(
        "[server]\ndbus = \"tcp:host=x\"",
        &["tcp:host=x", "\"session\"", "unix:path="],
    );
    refused(
        "[models]\ndirectories = []",
        &["an empty array", "at least one"],
    );
    refused(
        "[models]\ndirectories = [\"models\"]",
        &["[\"models\"]", "absolute"],
    );
    refused("[models]\ndefault = \"\"", &["auto"]);
    refused("[access]\nadmins = \"alice\"", &["array of user names"]);
    refused("[access]\nadmins = [1]", &["array of user names"]);
    refused("[log]\nlevel = \"loud\"", &["\"warn\""]);
    refused("[log]\nlevel = true", &["true"]);
}

#[test]
fn the_whole_context_has_a_limit_too() {
    refused(
        "[inference]\ncontext = 262144\nslots = 5",
        &["a.toml:3:", "262144 × 5 = 1310720", "1048576"],
    );
    assert!(read_text("[inference]\ncontext = 262144\nslots = 4").is_ok());
}

#[test]
fn all_problems_of_a_file_are_told_in_its_order() {
    let problems = read_text("[log]\nlevel = 1\n[server]\nsocket = 2\nnonsense = 3\n").unwrap_err();
    let lines: Vec<_> = problems
        .iter()
        .map(|text| text.split(':').nth(1).unwrap())
        .collect();
    assert_eq!(lines, ["2", "4", "5"]);
}

#[test]
fn what_is_not_toml_names_its_line() {
    refused("[log]\nlevel = \n", &["a.toml:2:", "not TOML"]);
    refused(
        "[log]\nlevel = \"info\"\nlevel = \"info\"\n",
        &["a.toml:3:"],
    );
}

#[test]
fn drop_ins_win_key_by_key_in_the_order_of_their_names() {
    let home = tempfile::tempdir().unwrap();
    let main = home.path().join("g.toml");
    let drop_ins = home.path().join("g.toml.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&main, "[inference]\nslots = 1\nbatch = 64\nthreads = 5").unwrap();
    std::fs::write(drop_ins.join("20-b.toml"), "[inference]\nslots = 3").unwrap();
    std::fs::write(
        drop_ins.join("10-a.toml"),
        "[inference]\nslots = 2\nbatch = 128",
    )
    .unwrap();
    std::fs::write(drop_ins.join("30-c.toml~"), "nonsense").unwrap();
    std::fs::write(drop_ins.join(".40-d.toml"), "nonsense").unwrap();
    let loaded = load(Some(&main), &Place::system()).unwrap();
    let inference = &loaded.config.inference;
    assert_eq!(
        (inference.slots, inference.batch, inference.threads),
        (Some(3), 128, 5)
    );
    assert_eq!(
        loaded.files,
        [
            main.clone(),
            drop_ins.join("10-a.toml"),
            drop_ins.join("20-b.toml")
        ]
    );

    std::fs::write(drop_ins.join("20-b.toml"), "[inference]\nslots = 99").unwrap();
    let errors = load(Some(&main), &Place::system()).unwrap_err();
    assert_eq!(
        (errors.0.len(), &errors.0[0].file, errors.0[0].line),
        (1, &drop_ins.join("20-b.toml"), Some(2))
    );
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("none.toml");
    assert_eq!(
        read_all(&file, false, Config::default()).unwrap(),
        Loaded {
            config: Config::default(),
            files: vec![]
        }
    );
    let errors = load(Some(&file), &Place::system()).unwrap_err().to_string();
    assert!(
        errors.contains("none.toml: cannot be read: No such file"),
        "{errors}"
    );
}

#[test]
fn files_that_are_not_text_or_too_long_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    std::fs::write(&file, b"[log]\nlevel = \"\xff\"").unwrap();
    assert!(load(Some(&file), &Place::system()).is_err());
    std::fs::write(&file, "#".repeat(MAX_FILE as usize + 1)).unwrap();
    assert!(
        load(Some(&file), &Place::system())
            .unwrap_err()
            .to_string()
            .contains("longer than")
    );
    assert!(load(Some(home.path()), &Place::system()).is_err());
}

/// The sample sets nothing as it is shipped; with its keys uncommented it says what the defaults
/// say.
#[test]
fn the_sample_names_every_key_and_its_default() {
    let live: String = SAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let mut reader = Reader::default();
    reader.file(Path::new("sample"), &live);
    assert_eq!(reader.problems, []);
    // It shows one app and one upstream, each of which sets what it must and leaves the rest as it is.
    let apps = std::mem::take(&mut reader.config.apps);
    let notes = App {
        name: "notes".into(),
        ..App::default()
    };
    assert_eq!(apps, [notes]);
    let upstreams = std::mem::take(&mut reader.config.upstreams);
    let shown = Upstream {
        name: "big".into(),
        url: "https://big.example/v1".into(),
        models: vec![UpstreamModel {
            asked: "gemma-4-26b-a4b-it".into(),
            theirs: "google/gemma-4-26b-a4b-it".into(),
        }],
        users: vec!["*".into()],
        keeps: Some(Keeps::Nothing),
        ..Upstream::default()
    };
    assert_eq!(upstreams, [shown]);
    assert_eq!(reader.config, Config::default());
    let named: BTreeSet<_> = reader.places.keys().copied().collect();
    let known: BTreeSet<_> = TABLES
        .iter()
        .flat_map(|table| table.keys.iter().map(|key| (table.name, key.name)))
        .collect();
    assert_eq!(named, known);

    assert_eq!(read_text(SAMPLE), Ok(Config::default()));
    assert!(
        SAMPLE
            .lines()
            .all(|line| line.is_empty() || line.starts_with(['#', '['])),
        "a key is set in the sample"
    );
}

#[test]
fn apps_are_a_list_of_different_ones() {
    let one = "[[app]]\nname = \"notes\"\nsocket = \"/run/notes.sock\"\n";
    let two = "[[app]]\nname = \"org.example.Mail\"\nsocket-mode = \"0666\"\nscopes = [\"inference\", \"models\"]\nmodels = [\"a\"]\nlimit = 30\n";
    let read = read_text(&format!("{one}{two}")).unwrap().apps;
    assert_eq!(read[0].socket, Some("/run/notes.sock".into()));
    assert_eq!((read[0].socket_mode, read[0].limit), (0o600, None));
    assert_eq!((read[1].socket_mode, read[1].limit), (0o666, Some(30)));
    assert_eq!((read[1].scopes.len(), read[1].models.len()), (2, 1));
    refused(
        &format!("{one}{one}"),
        &["a.toml:4", "two [[app]] of the name `notes`"],
    );
    refused(
        &format!("{one}{}", one.replace("\"notes\"", "\"mail\"")),
        &["`notes` and `mail` have the same `socket`"],
    );
    refused("[[app]]\nlimit = 3\n", &["[[app]] lacks `name`"]);
    refused("[[app]]\nname = \"a b\"\n", &["[app] name is", "letters"]);
    refused(
        "[[app]]\nname = \"a\"\nscopes = []\n",
        &["scopes", "at least one"],
    );
    refused("[app]\nname = \"a\"\n", &["each under [[app]]"]);
}

#[test]
fn upstreams_are_a_list_each_of_which_is_whole() {
    let whole = "[[upstream]]\nname = \"big\"\nurl = \"https://big.example/v1/\"\nmodels = [\"a\", \"b = x/b\"]\nretention = \"any\"\n";
    let one = format!("{whole}users = [\"*\"]\n");
    let two = format!(
        "{one}{}groups = [\"staff\"]\nfailover = true\n",
        whole.replace("big\"", "other\"")
    );
    let read = read_text(&two).unwrap().upstreams;
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].url, "https://big.example/v1");
    assert_eq!(
        (
            read[0].models[0].theirs.as_str(),
            read[0].models[1].theirs.as_str()
        ),
        ("a", "x/b")
    );
    assert_eq!((read[0].failover, read[1].failover), (false, true));

    refused(whole, &["a.toml:1", "`big` names nobody", "users"]);
    refused(
        &format!("{one}{one}"),
        &["two [[upstream]] of the name `big`"],
    );
    refused(
        "[upstream]\nname = \"big\"\n",
        &["write the keys of each under [[upstream]]"],
    );
    refused(
        "upstream = [1]\n",
        &["write the keys of each under [[upstream]]"],
    );
    for (key, part) in [
        ("name", "letters"),
        ("url", "base URL"),
        ("models", "model ids"),
        ("retention", "zero"),
    ] {
        let without: String = one
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        refused(&without, &["[[upstream]] lacks", &format!("`{key}`"), part]);
    }
    for bad in ["local", "a b", ""] {
        refused(
            &one.replacen("big", bad, 1).replace("big.example", "x"),
            &["name"],
        );
    }
    refused(&one.replace("https://", "https://user@"), &["url"]);
}
