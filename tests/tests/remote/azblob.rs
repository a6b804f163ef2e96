//! Goal: Azure Blob Storage holds repositories.
//! Method: Azurite on loopback.

use cairn_tests::servers::azurite::Azurite;

use crate::scenario::{self, cairn, says_nothing_of};

#[test]
fn every_command_works() {
    let server = Azurite::start();
    scenario::whole_course(&server.target());
}

#[test]
fn nobody_listens() {
    scenario::refused_port(Azurite::target_at);
}

#[test]
fn a_container_that_is_not_there_and_wrong_keys_are_told() {
    let server = Azurite::start();
    let target = server.target();
    let ran = cairn(&target.at("azblob://absent/x")).run(["init"]).expect(10);
    assert!(ran.stderr.contains("no bucket or container"), "{ran:#?}");
    let wrong = "aHVudGVyMi1pcy1ub3QtaXQ=";
    let stranger = cairn(&target.with("AZURE_STORAGE_KEY", wrong));
    let ran = stranger.run(["snapshots", "--verbose"]).expect(13);
    assert!(ran.stderr.contains("denied"), "{ran:#?}");
    says_nothing_of(&stranger, &ran, wrong);
    let ran = cairn(&target.without("AZURE_STORAGE_ACCOUNT")).run(["snapshots"]).expect(2);
    assert!(ran.stderr.contains("AZURE_STORAGE_ACCOUNT"), "{ran:#?}");
    // A connection string says all in one.
    let mut by_string = target.with("AZURE_STORAGE_CONNECTION_STRING", server.connection_string());
    for name in ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ENDPOINT"] {
        by_string = by_string.without(name);
    }
    cairn(&by_string).init();
    cairn(&target).run(["snapshots"]).expect(0);
    let broken = by_string.with("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hunter2");
    let broken = cairn(&broken);
    let ran = broken.run(["snapshots", "--verbose"]).expect(2);
    says_nothing_of(&broken, &ran, "hunter2");
}

/// What of an erasure is pending, by reason, and what is said of what the account keeps.
fn pending(soft_delete: Option<Option<u32>>) -> (serde_json::Value, Vec<serde_json::Value>) {
    let server = Azurite::start();
    if let Some(days) = soft_delete {
        server.set_soft_delete(days);
    }
    let here = cairn(&server.target());
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", scenario::text(&source), "--job", "people"]).expect(0);
    let deep = source.join("deep");
    here.run(["erase", "--path", scenario::text(&deep), "--max-delete", "100"]).expect(0);
    let ran = here.run(["erasure", "report", "--json"]).expect(0);
    let report = scenario::result(&ran)["report"].clone();
    let reasons = ran.json("pending").iter().map(|one| one["reason"].clone()).collect();
    (report, reasons)
}

/// Fault 13 where deleted objects are not shown.
#[test]
fn what_soft_delete_keeps_is_pending_and_said() {
    let (report, reasons) = pending(Some(Some(14)));
    let kept = (&report["kept_for"], &report["kept_for_ms"]);
    assert_eq!(kept, (&"time".into(), &(14 * 86_400_000_u64).into()), "{report}");
    assert_eq!(reasons, ["hidden"]);
    let (report, reasons) = pending(Some(None));
    assert_eq!(report["kept_for"], "nothing", "{report}");
    assert!(reasons.is_empty(), "{reasons:?}");
    // Silence is no promise.
    let (report, reasons) = pending(None);
    assert_eq!(report["kept_for"], "unknown", "{report}");
    assert_eq!(reasons, ["hidden"]);
}
