//! Goal: Amazon S3 and what is compatible with it hold repositories, with the credentials found
//! where its other tools look for them.
//! Method: moto on loopback; the credentials of one server that checks them, in each place.

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::Cairn;
use cairn_tests::servers::Target;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::proxy::{Fault, Proxy};

use crate::scenario::{self, cairn, says_nothing_of};

#[test]
fn every_command_works() {
    let server = Moto::start();
    scenario::whole_course(&server.target());
}

#[test]
fn two_machines_back_up_at_once() {
    let server = Moto::start();
    scenario::two_at_once(&server.target());
}

#[test]
fn nobody_listens() {
    scenario::refused_port(|port| Target {
        url: "s3://bucket/prefix".to_owned(),
        environment: vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}").into()),
            ("AWS_ACCESS_KEY_ID", "AKIA".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ],
        port,
    });
}

#[test]
fn a_bucket_that_is_not_there_is_told_from_an_empty_one() {
    let server = Moto::start();
    let target = server.target();
    for arguments in [&["init"][..], &["snapshots"], &["backup", "/etc/hostname"]] {
        let ran = cairn(&target.at("s3://absent-bucket/prefix")).run(arguments).expect(10);
        assert!(ran.stderr.contains("absent-bucket"), "{ran:#?}");
        assert!(ran.stderr.contains("no bucket"), "{ran:#?}");
    }
    let ran = cairn(&target).run(["snapshots"]).expect(10);
    assert!(!ran.stderr.contains("no bucket"), "{ran:#?}");
    // A repository of one prefix is none of another.
    cairn(&target).init();
    cairn(&target.at("s3://bucket/some")).run(["snapshots"]).expect(10);
    cairn(&target.at("s3://bucket/some/prefix/")).run(["snapshots"]).expect(0);
}

/// Where the tools of this ecosystem look for a key: its id and secret.
fn places(target: &Target, home: &Cairn) -> Vec<(&'static str, Target)> {
    let variable = |name: &str| {
        let found = target.environment.iter().find(|(other, _)| *other == name);
        found.expect("it is set").1.to_str().expect("UTF-8").to_owned()
    };
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let endpoint = variable("AWS_ENDPOINT_URL");
    let folder = home.path("home/.aws");
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    let wrong = "aws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n";
    let shared = format!("[default]\n{wrong}[backup]\n{key}");
    std::fs::write(folder.join("credentials"), shared).expect("a file");
    let config = format!("[profile backup]\nregion = us-east-1\nendpoint_url = {endpoint}\n");
    std::fs::write(folder.join("config"), config).expect("a file");
    let other = home.path("other-credentials");
    std::fs::write(&other, format!("[default]\n{key}")).expect("a file");
    let bare = target.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let profile = bare.without("AWS_ENDPOINT_URL").without("AWS_REGION");
    vec![
        ("variables", target.clone()),
        ("a profile with region and endpoint", profile.with("AWS_PROFILE", "backup")),
        ("another file", bare.with("AWS_SHARED_CREDENTIALS_FILE", other)),
    ]
}

#[test]
fn credentials_are_found_and_checked() {
    let server = Moto::start_strict();
    let target = server.target();
    let mut home = cairn(&target);
    home.init();
    for (place, target) in places(&target, &home) {
        home.set_target(&target);
        let ran = home.run(["snapshots", "--verbose"]);
        assert_eq!(ran.code, Some(0), "{place}: {ran:#?}");
    }
    // The wrong ones, and none.
    let bare = target.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let wrong_key = target.with("AWS_SECRET_ACCESS_KEY", "hunter2-is-not-it");
    let wrong_id = target.with("AWS_ACCESS_KEY_ID", "AKIAWRONG");
    let absent = bare.with("AWS_PROFILE", "absent");
    for target in [&wrong_key, &wrong_id, &bare.with("HOME", home.path("nobody")), &absent] {
        home.set_target(target);
        for arguments in [&["snapshots", "--verbose"][..], &["init"], &["backup", "/etc/hostname"]]
        {
            let ran = home.run(arguments).expect(13);
            assert!(ran.stderr.contains("denied") && ran.stderr.contains("hint"), "{ran:#?}");
            says_nothing_of(&home, &ran, "hunter2-is-not-it");
        }
    }
}

#[test]
fn credentials_in_the_location_are_refused_unrepeated() {
    for url in ["s3://AKIA:hunter2@bucket/x", "s3://bucket/x?secret=hunter2"] {
        let cairn = Cairn::new();
        let ran = cairn.run(["snapshots", "--repo", url]).expect(2);
        says_nothing_of(&cairn, &ran, "hunter2");
        assert!(ran.stderr.contains("AWS_SECRET_ACCESS_KEY"), "{ran:#?}");
    }
}

fn storage(value: &serde_json::Value) -> Vec<&str> {
    let storage = &value["report"]["storage"];
    let names = ["reads_after_write", "lists_after_write", "conditional_writes", "versions"];
    names.into_iter().filter(|name| storage[*name] == "yes").collect()
}

#[test]
fn what_the_storage_can_do_is_found_out() {
    let server = Moto::start();
    let here = cairn(&server.target());
    let made = scenario::result(&here.run(["init", "--json"]).expect(0));
    let plain = ["reads_after_write", "lists_after_write", "conditional_writes"];
    assert_eq!(storage(&made), plain, "{made}");
    server.set("versioning", VERSIONED);
    let asked = scenario::result(&here.run(["stats", "--probe", "--json"]).expect(0));
    assert_eq!(storage(&asked)[3..], ["versions"], "{asked}");
    let shown = here.run(["stats", "--probe", "--requests"]).expect(0).stdout;
    assert!(shown.contains("versions yes") && shown.contains("\nthis command"), "{shown}");
    let asked = scenario::result(&here.run(["stats", "--requests", "--json"]).expect(0));
    let remembered = &asked["report"]["requests"];
    assert_eq!(remembered["last"]["24_hours"]["commands"], 3, "{asked}");
    let written = remembered["last"]["30_days"]["sent"]["write"].as_u64();
    let made = made["requests"]["write"]["sent"].as_u64().unwrap_or(u64::MAX);
    assert!(written > Some(made), "init, and two objects that were tried: {asked}");
    let commands = remembered["commands"].as_array().expect("by command");
    assert_eq!(commands.len(), 2, "init and stats: {asked}");
    assert!(remembered["cost"].is_null(), "{asked}");
    let prices = here.path("prices.toml");
    let table = "[[price]]\nurl = 's3://'\ncurrency = 'XTS'\nper-thousand.write = 1000\n";
    let url = server.target().url.trim_end_matches('/').to_owned();
    std::fs::write(&prices, table.replace("s3://", &url)).expect("a file");
    let priced = ["stats", "--requests", "--config", scenario::text(&prices)];
    let told = scenario::result(&here.run(priced.into_iter().chain(["--json"])).expect(0));
    let cost = &told["report"]["requests"]["cost"];
    assert_eq!(cost["last"]["30_days"].as_f64(), written.map(|written| written as f64), "{told}");
    let by_command = ["init", "stats"].map(|name| cost["commands"][name].as_f64());
    let [Some(init), Some(stats)] = by_command else { panic!("{told}") };
    assert_eq!(Some(init + stats), cost["last"]["30_days"].as_f64(), "{told}");
    assert_eq!(cost["currency"], "XTS", "{told}");
    assert!(here.run(priced).expect(0).stdout.contains(" XTS\n"));
    // A reader's commands write nothing; what was found last is told.
    let asked = scenario::result(&here.run(["stats", "--json"]).expect(0));
    assert_eq!(storage(&asked)[3..], ["versions"], "{asked}");
    assert!(asked["report"]["storage_tried"].is_string(), "{asked}");
    let other = scenario::result(&cairn(&server.target()).run(["stats", "--json"]).expect(0));
    assert!(other["report"]["storage"].is_null(), "{other}");
    assert_eq!(asked["requests"]["write"]["sent"], 0, "{asked}");
}

#[test]
fn storage_that_does_not_keep_what_it_is_given_is_refused() {
    let server = Moto::start();
    let proxy = Proxy::start(server.target().port, |asked| match asked.method.as_str() {
        "PUT" => Fault::Lie,
        _ => Fault::None,
    });
    let endpoint = format!("http://127.0.0.1:{}", proxy.port);
    let ran = cairn(&server.target().with("AWS_ENDPOINT_URL", endpoint)).run(["init"]).expect(4);
    assert!(ran.stderr.contains("cannot keep a repository"), "{ran:#?}");
    cairn(&server.target()).run(["snapshots"]).expect(10);
}

#[test]
fn rates_and_connections_can_be_limited() {
    let server = Moto::start();
    let here = cairn(&server.target());
    here.run(["init", "--connections", "1"]).expect(0);
    let source = scenario::source(&here);
    let limits = ["--connections", "1", "--limit-upload", "4MiB", "--limit-download", "4MiB"];
    let arguments = ["backup", scenario::text(&source)];
    here.run(arguments.into_iter().chain(limits)).expect(0);
    here.run(["verify", "--level", "full"].into_iter().chain(limits)).expect(0);
    here.run(["backup", "/etc/hostname", "--limit-upload", "0"]).expect(2);
    here.run(["backup", "/etc/hostname", "--connections", "0"]).expect(2);
}

/// The line of `--json` that says what came of the one replica.
fn replica(ran: &cairn_tests::process::Ran) -> serde_json::Value {
    ran.json("replica").pop().expect("a replica")
}

#[test]
fn a_replica_costs_what_changed_and_restores_elsewhere() {
    let server = Moto::start();
    let target = server.target();
    let mut here = Cairn::new();
    let home = here.path("repository").into_os_string().into_string().expect("UTF-8");
    here.set_target(&target.at(&home));
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source)]).expect(0);
    let replicate = ["replicate", "--json", "--to", &target.url];
    let first = replica(&here.run(replicate.into_iter().chain(["--create"])).expect(0));
    assert_eq!((&first["created"], &first["packs_written"]), (&true.into(), &0.into()), "{first}");
    let mut requests = Vec::new();
    for round in 0..6 {
        std::fs::write(source.join("changed"), format!("round {round}")).expect("a change");
        let made =
            scenario::result(&here.run(["backup", "--json", scenario::text(&source)]).expect(0));
        let done = replica(&here.run(replicate).expect(0));
        let stored = made["report"]["bytes_stored"].as_u64().expect("a number");
        let written = done["bytes_written"].as_u64().expect("a number");
        assert!(written <= stored && done["copied"].as_array().map(Vec::len) == Some(1), "{done}");
        requests.push(done["requests"].as_u64().expect("they are counted"));
    }
    cairn_tests::say(&format!("requests of one more snapshot: {requests:?}"));
    assert!(requests.iter().all(|requests| *requests < 80), "{requests:?}");
    // Nothing to do.
    let idle = replica(&here.run(replicate).expect(0));
    assert_eq!(idle["bytes_written"], 0, "{idle}");
    // A bucket that is not there, beside one that is.
    let absent = "s3://absent-bucket/prefix";
    let ran = here.run(["replicate", "--json", "--to", absent, "--to", &target.url]).expect(10);
    let outcomes = ran.json("replica");
    assert_eq!((&outcomes[0]["done"], &outcomes[1]["done"]), (&false.into(), &true.into()));
    // Home is gone, and so is its machine.
    let there = cairn(&target);
    there.run(["verify", "--level", "full"]).expect(0);
    let restored = there.restored("latest", "restored");
    assert_same(&source, &inside(&restored, &source));
}

const VERSIONED: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

/// Fault 13: an ordinary deletion leaves everything in a bucket that keeps versions.
#[test]
fn what_is_erased_leaves_no_version_in_a_bucket_that_keeps_them() {
    let server = Moto::start();
    server.set("versioning", VERSIONED);
    let here = cairn(&server.target());
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source), "--job", "people"]).expect(0);
    std::fs::write(source.join("new"), "what came later").expect("a file");
    here.run(["backup", scenario::text(&source), "--job", "people"]).expect(0);
    let before = server.versions("packs/");
    let gone = source.join("deep");
    let erase = ["erase", "--path", scenario::text(&gone), "--max-delete", "100", "--json"];
    let erased = scenario::result(&here.run(erase).expect(0));
    let report = &erased["report"];
    assert!(report["packs_deleted"].as_u64() > Some(0), "{erased}");
    assert_eq!(report["versions_kept"].as_array().map(Vec::len), Some(0), "{erased}");
    let after = server.versions("packs/");
    assert!(after.marks.is_empty() && after.former.is_empty(), "{after:?}");
    assert!(before.current.iter().any(|key| !after.current.contains(key)));
    // Of snapshots, acknowledgements and segments neither.
    for folder in ["snapshots/", "acks/", "index/"] {
        let left = server.versions(folder);
        assert!(left.marks.is_empty() && left.former.is_empty(), "{folder}: {left:?}");
    }
    let ran = here.run(["erasure", "report", "--json"]).expect(0);
    let receipts = ran.json("receipt");
    assert!(receipts.len() >= 2, "{ran:#?}");
    for receipt in &receipts {
        let audits = receipt["audits"].as_array().expect("audits");
        let methods = audits.iter().map(|audit| audit["method"].as_str().expect("a name"));
        assert_eq!(methods.collect::<Vec<_>>(), ["by-name", "by-listing", "by-version-listing"]);
    }
    assert!(ran.json("pending").is_empty(), "{ran:#?}");
    here.run(["verify", "--level", "full"]).expect(0);
}

/// Fault 14: a lock that outlasts what was promised.
#[test]
fn a_lock_longer_than_what_expired_may_stay_is_refused() {
    let server = Moto::start();
    server.make_locked_bucket("locked", 30);
    let target = server.target().at("s3://locked/prefix");
    let ran = cairn(&target).run(["init"]).expect(4);
    assert!(ran.stderr.contains("locks what is written for 7"), "{ran:#?}");
    assert!(ran.stderr.contains("--erase-within"), "{ran:#?}");
    cairn(&target).run(["snapshots"]).expect(10);
    let here = cairn(&target);
    here.run(["init", "--erase-within", "31d"]).expect(0);
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source)]).expect(0);
    here.run(["gc"]).expect(4);
    here.run(["gc", "--erase-within", "31d"]).expect(0);
    let shown = scenario::result(&here.run(["stats", "--probe", "--json"]).expect(0));
    assert!(shown["report"]["storage"]["locked_ms"].as_u64() > Some(29 * 86_400_000), "{shown}");
}

/// A replica is a repository like any other: what `init` refuses, making one refuses.
#[test]
fn a_replica_is_not_made_where_locks_outlast_what_expired_may() {
    let server = Moto::start();
    server.make_locked_bucket("locked", 30);
    let target = server.target().at("s3://locked/prefix");
    let mut here = Cairn::new();
    let home = here.path("repository").into_os_string().into_string().expect("UTF-8");
    here.set_target(&target.at(&home));
    here.init();
    here.run(["backup", scenario::text(&scenario::source(&here))]).expect(0);
    let make = ["replicate", "--to", &target.url, "--create"];
    let ran = here.run(make).expect(4);
    assert!(ran.stderr.contains("locks what is written for 7"), "{ran:#?}");
    assert!(ran.stderr.contains("--erase-within"), "{ran:#?}");
    cairn(&target).run(["snapshots"]).expect(10);
    here.run(make.into_iter().chain(["--erase-within", "31d"])).expect(0);
    cairn(&target).run(["verify", "--level", "full"]).expect(0);
}

/// What `lock …` reports.
fn locks(here: &Cairn, arguments: &[&str], code: i32) -> serde_json::Value {
    let ran = here.run(["lock"].iter().chain(arguments).chain(&["--json"])).expect(code);
    scenario::result(&ran)["report"].clone()
}

/// Whether deleting the only version of a pack for good is refused.
fn is_safe(server: &Moto, bucket: &str, pack: &str) -> bool {
    let versions = server.ask(&format!("GET /{bucket}?versions&max-keys=1000&prefix={pack}"));
    let text = String::from_utf8_lossy(&versions.body).into_owned();
    let (_, rest) = text.split_once("<VersionId>").expect("a version");
    let version = rest.split_once('<').expect("its end").0;
    let answer = server.ask(&format!("DELETE /{bucket}/{pack}?versionId={version}"));
    answer.status() == Some(403)
}

/// The keys of what is there below a prefix.
fn keys(server: &Moto, bucket: &str, prefix: &str) -> Vec<String> {
    let listed = server.ask(&format!("GET /{bucket}?list-type=2&max-keys=1000&prefix={prefix}"));
    let text = String::from_utf8_lossy(&listed.body).into_owned();
    let parts = text.split("<Key>").skip(1);
    parts.filter_map(|part| part.split_once('<').map(|(key, _)| key.to_owned())).collect()
}

#[test]
fn what_snapshots_need_is_locked_and_nobody_deletes_it() {
    let server = Moto::start();
    server.make_lockable_bucket("lockable");
    let here = cairn(&server.target().at("s3://lockable/prefix"));
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source)]).expect(0);
    let packs = keys(&server, "lockable", "prefix/packs/");
    // The alarm, before anything is locked.
    let before = locks(&here, &["status"], 6);
    assert!(before["objects"].as_u64() >= Some(packs.len() as u64 + 4), "{before}");
    assert_eq!((&before["unlocked"], &before["lapsing"]), (&before["objects"], &before["objects"]));
    assert_eq!(locks(&here, &["extend", "--dry-run"], 6)["extended"], before["objects"]);
    // Shorter than what is warned of.
    let done = locks(&here, &["extend", "--for", "8h"], 0);
    assert_eq!((&done["extended"], &done["snapshots"]), (&before["objects"], &1.into()));
    assert_eq!(locks(&here, &["status", "--for", "8h"], 0)["extended"], 0);
    let lapsing = locks(&here, &["status", "--for", "72h"], 6);
    assert_eq!((&lapsing["lapsing"], &lapsing["unlocked"]), (&before["objects"], &0.into()));
    // Extended in time, once.
    assert_eq!(locks(&here, &["extend"], 0)["extended"], before["objects"]);
    let ran = here.run(["lock", "extend", "--json"]).expect(0);
    let again = scenario::result(&ran);
    assert_eq!(again["report"]["extended"], 0, "{again}");
    assert_eq!(again["requests"]["write"]["sent"], 0, "{again}");
    assert_eq!(locks(&here, &["status"], 0)["lapsing"], 0);
    for pack in &packs {
        assert!(is_safe(&server, "lockable", pack), "{pack} could be deleted");
    }
    // What is no more needed is not locked again; that it is still kept is said.
    std::fs::write(source.join("new"), "what came later").expect("a file");
    here.run(["backup", scenario::text(&source)]).expect(0);
    let rules = ["extend", "--keep-last", "1", "--for", "8h"];
    assert_eq!(locks(&here, &rules, 0)["snapshots"], 1);
    here.run(["forget", "--keep-last", "1"]).expect(0);
    let collected = here.run(["gc", "--max-dead", "0", "--json"]).expect(0);
    let report = scenario::result(&collected)["report"].clone();
    assert!(report["versions_kept"].as_array().map(Vec::len) > Some(0), "{report}");
    assert!(report["versions_locked_until_ms"].is_i64(), "{report}");
    let collected = here.run(["gc", "--max-dead", "0", "--erase-within", "1h"]).expect(6);
    assert!(collected.stderr.contains("longer than `--erase-within` allows"), "{collected:#?}");
    here.run(["verify", "--level", "full"]).expect(0);
    assert_eq!(locks(&here, &["extend"], 0)["snapshots"], 1);
    assert_eq!(locks(&here, &["status"], 0)["lapsing"], 0);
}

/// Deletes the marks of deletion below a prefix, as whoever keeps the bucket does.
fn unmark(server: &Moto, bucket: &str, prefix: &str) {
    let listed = server.ask(&format!("GET /{bucket}?versions&max-keys=1000&prefix={prefix}"));
    let text = String::from_utf8_lossy(&listed.body).into_owned();
    let field = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("<{name}>")).expect("a field");
        rest.split_once('<').expect("its end").0.to_owned()
    };
    for mark in text.split("<DeleteMarker>").skip(1) {
        let (key, version) = (field(mark, "Key"), field(mark, "VersionId"));
        let answer = server.ask(&format!("DELETE /{bucket}/{key}?versionId={version}"));
        assert_eq!(answer.status(), Some(204), "{key}");
    }
}

/// A thief who may not delete for good hides everything behind marks, and waits for the locks to end.
#[test]
fn what_is_needed_and_hidden_behind_marks_of_deletion_is_an_alarm() {
    let server = Moto::start();
    server.make_lockable_bucket("lockable");
    let here = cairn(&server.target().at("s3://lockable/prefix"));
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source)]).expect(0);
    locks(&here, &["extend"], 0);
    locks(&here, &["status"], 0);
    let mark = |prefix: &str| {
        let marked = keys(&server, "lockable", prefix);
        for key in &marked {
            let answer = server.ask(&format!("DELETE /lockable/{key}"));
            assert_eq!(answer.status(), Some(204), "{key}: {answer:?}");
        }
        let left = keys(&server, "lockable", prefix);
        assert!(left.is_empty() && !marked.is_empty(), "{prefix}: {marked:?}, {left:?}");
        marked
    };
    let packs = mark("prefix/packs/data/");
    let mut there = cairn(&server.target().at("s3://lockable/prefix"));
    for (who, host) in [("who knew it", &here), ("who did not", &there)] {
        for command in ["status", "extend"] {
            let report = locks(host, &[command], 6);
            assert_eq!(report["absent"], packs.len(), "{who}, {command}: {report}");
            let named = report["absent_names"].as_array().expect("names");
            let is_named =
                |key: &String| named.iter().any(|it| key.ends_with(it.as_str().unwrap()));
            assert!(packs.iter().all(is_named), "{who}, {command}: {report}");
        }
    }
    let ran = here.run(["lock", "status"]).expect(6);
    assert!(ran.stderr.contains("delete the marks") && ran.stderr.contains("verify"), "{ran:#?}");
    // The snapshots as well: then nothing that is left needs anything.
    for hidden in ["prefix/acks/", "prefix/snapshots/"] {
        mark(hidden);
        let report = locks(&here, &["status"], 6);
        assert_eq!(report["withheld"].as_array().map(Vec::len), Some(1), "{hidden}: {report}");
        locks(&here, &["extend"], 6);
    }
    unmark(&server, "lockable", "prefix/acks/");
    there = cairn(&server.target().at("s3://lockable/prefix"));
    // The acknowledgement tells also who has never seen it.
    assert_eq!(locks(&there, &["status"], 6)["withheld"].as_array().map(Vec::len), Some(1));
    unmark(&server, "lockable", "prefix/");
    let report = locks(&here, &["status"], 0);
    assert_eq!((&report["absent"], &report["snapshots"]), (&0.into(), &1.into()));
    here.run(["verify", "--level", "full"]).expect(0);
}

#[test]
fn locks_that_cannot_be_or_would_break_a_promise_are_refused() {
    let server = Moto::start();
    let here = cairn(&server.target());
    here.init();
    // The bucket has no locks.
    let ran = here.run(["lock", "extend"]).expect(4);
    assert!(
        ran.stderr.contains("keeps no locks") && ran.stderr.contains("Object Lock"),
        "{ran:#?}"
    );
    locks(&here, &["status"], 6);
    let ran = here.run(["lock", "extend", "--for", "73h"]).expect(2);
    assert!(ran.stderr.contains("outlast"), "{ran:#?}");
    here.run(["lock", "extend", "--for", "1m"]).expect(2);
    here.run(["lock", "extend", "--erase-within", "never"]).expect(2);
    // Nor has a folder.
    let local = Cairn::with_repository();
    for command in ["status", "extend"] {
        let ran = local.run(["lock", command]).expect(4);
        assert!(ran.stderr.contains("keeps no locks"), "{ran:#?}");
    }
}
