//! Goal: Google Cloud Storage holds repositories.
//! Method: a stub with generations and conditions, whose listings come in pages of three.

use cairn_tests::servers::gcs::Gcs;

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
