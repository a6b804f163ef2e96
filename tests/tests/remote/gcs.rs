//! Goal: Google Cloud Storage holds repositories.
//! Method: a stub with generations and conditions, whose listings come in pages of three.

use cairn_tests::process::Cairn;
use cairn_tests::servers::gcs::{Gcs, Refusal};

use crate::scenario::{self, cairn};

#[test]
fn every_command_works() {
    let server = Gcs::start();
    scenario::whole_course(&server.target());
}

#[test]
fn two_machines_back_up_at_once() {
    let server = Gcs::start();
    scenario::two_at_once(&server.target());
}

#[test]
fn nobody_listens() {
    scenario::refused_port(Gcs::target_at);
}

#[test]
fn a_bucket_that_is_not_there_is_told() {
    let server = Gcs::start();
    let ran = cairn(&server.target().at("gcs://absent/x")).run(["init"]).expect(10);
    assert!(ran.stderr.contains("no bucket or container"), "{ran:#?}");
}

/// What Google says of a token that it does not know or that ran out, of one that may not do this, and
/// of an account that is closed.
const REFUSALS: [(Refusal, &str); 3] = [
    ((401, "authError", "Invalid Credentials"), "401 Unauthorized"),
    ((403, "forbidden", "backup@p does not have storage.objects.get access"), "does not have"),
    ((403, "accountDisabled", "The account has been disabled."), "been disabled"),
];

#[test]
fn wrong_credentials_are_told_and_not_tried_again() {
    let server = Gcs::start();
    let here = cairn(&server.target());
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source)]).expect(0);
    for (refusal, told) in REFUSALS {
        server.refuse(Some(refusal));
        for command in [&["backup", scenario::text(&source)][..], &["snapshots"], &["init"]] {
            let before = server.asked();
            let ran = here.run(command).expect(13);
            let (error, hint) = ran.stderr.split_once("hint: ").expect("what to do next");
            assert!(error.contains("denied") && hint.contains("credentials"), "{ran:#?}");
            assert!(error.contains(told), "{ran:#?}");
            assert!(server.asked() - before < 5, "it was asked again and again");
        }
        server.refuse(None);
        here.run(["backup", scenario::text(&source)]).expect(0);
    }
}

#[test]
fn a_file_of_credentials_that_is_none_is_told_without_what_is_in_it() {
    // A place with variables of its own: no machine is asked who it is.
    let mut here = Cairn::new();
    let file = here.path("key.json");
    let config = here.path("config.toml");
    let place = format!(
        "[[place]]\nurl = 'gcs://bucket'\nenv.GOOGLE_APPLICATION_CREDENTIALS = '{}'\n",
        scenario::text(&file)
    );
    std::fs::write(&config, place).expect("a file");
    here.set_target(&Gcs::target_at(1).without("STORAGE_EMULATOR_HOST"));
    for content in [None, Some("hunter2 is no JSON"), Some("{\"type\": \"hunter2\"}")] {
        if let Some(content) = content {
            std::fs::write(&file, content).expect("a file");
        }
        let ran = here.run(["snapshots", "--config", scenario::text(&config)]).expect(13);
        let (error, hint) = ran.stderr.split_once("hint: ").expect("what to do next");
        assert!(error.contains("credentials") && hint.contains("credentials"), "{ran:#?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:#?}");
    }
}

/// What of an erasure is pending, by reason, and what is said about it.
fn pending(settings: serde_json::Value) -> (serde_json::Value, Vec<String>, String) {
    let server = Gcs::start_with(settings);
    let here = cairn(&server.target());
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source), "--job", "people"]).expect(0);
    let deep = source.join("deep");
    let erase = ["erase", "--path", scenario::text(&deep), "--max-delete", "100"];
    here.run(erase).expect(0);
    let ran = here.run(["erasure", "report", "--json"]).expect(0);
    let reasons = ran.json("pending");
    let reasons = reasons.iter().map(|one| one["reason"].as_str().expect("a name").to_owned());
    let shown = here.run(["erasure", "report"]).expect(0).stdout;
    (scenario::result(&ran)["report"].clone(), reasons.collect(), shown)
}

/// Fault 13 where deleted objects are not shown.
#[test]
fn what_soft_delete_keeps_is_pending_and_said() {
    let soft = |seconds: &str| serde_json::json!({ "retentionDurationSeconds": seconds });
    let (report, reasons, shown) =
        pending(serde_json::json!({ "softDeletePolicy": soft("1209600") }));
    assert_eq!(
        (&report["kept_for"], &report["kept_for_ms"]),
        (&"time".into(), &1_209_600_000.into())
    );
    assert_eq!(reasons, ["hidden"], "{shown}");
    assert!(shown.contains("until") && shown.contains("switch soft delete off"), "{shown}");

    let settings = serde_json::json!({ "softDeletePolicy": soft("0") });
    let (report, reasons, shown) = pending(settings);
    assert_eq!(report["kept_for"], "nothing", "{report}");
    assert!(reasons.is_empty(), "{shown}");

    let settings =
        serde_json::json!({ "softDeletePolicy": soft("0"), "versioning": { "enabled": true } });
    let (report, reasons, shown) = pending(settings);
    assert_eq!(report["kept_for"], "versions", "{report}");
    assert_eq!(reasons, ["hidden"], "{shown}");
    assert!(shown.contains("delete those that are not current"), "{shown}");

    // Silence is no promise.
    let (report, reasons, shown) = pending(serde_json::json!({}));
    assert_eq!(report["kept_for"], "unknown", "{report}");
    assert_eq!(reasons, ["hidden"], "{shown}");
    assert!(shown.contains("--kept-for"), "{shown}");
}
