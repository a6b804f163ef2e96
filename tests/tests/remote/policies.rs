//! Goal: the documented policies allow what their roles need, and nothing that a thief could destroy
//! with.
//! Method: moto with its checks on, users with the policies of `policies/s3`.

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::{Cairn, Ran};
use cairn_tests::reader::source_root;
use cairn_tests::servers::Target;
use cairn_tests::servers::moto::Moto;

use crate::scenario::{self, cairn, source, text};

/// A documented policy for the repository of the tests.
fn policy(role: &str) -> String {
    let path = source_root().join(format!("policies/s3/{role}.json"));
    let text = std::fs::read_to_string(&path).expect("a policy");
    text.replace("BUCKET", "bucket").replace("PREFIX", "some/prefix")
}

/// Runs with the credentials of a role.
fn as_role(cairn: &mut Cairn, target: &Target, arguments: &[&str]) -> Ran {
    cairn.set_target(target);
    cairn.run(arguments)
}

/// It fails for want of a right, and says which.
#[track_caller]
fn lacks(ran: Ran, right: &str) {
    let ran = ran.expect(13);
    assert!(ran.stderr.contains("denied"), "{ran:#?}");
    assert!(ran.stderr.contains(right), "it does not say {right}: {ran:#?}");
}

#[test]
fn each_role_can_do_its_work_and_no_more() {
    let roles = ["writer", "reader", "maintainer"].map(|role| (role, policy(role)));
    let policies = roles.iter().map(|(role, policy)| (*role, policy.as_str())).collect::<Vec<_>>();
    let (server, targets) = Moto::start_with_users(&policies);
    let [writer, reader, maintainer] = targets.as_slice() else { panic!("three targets") };
    let mut here = cairn(&server.target());
    lacks(as_role(&mut here, writer, &["init"]), "s3:PutObject");
    as_role(&mut here, maintainer, &["init"]).expect(0);
    let source = source(&here);
    let backup = ["backup", text(&source), "--job", "people"];

    lacks(as_role(&mut here, reader, &backup), "s3:PutObject");
    // Also many of them, so that segments are to be merged.
    for round in 0..12 {
        std::fs::write(source.join("changed"), format!("round {round}")).expect("a change");
        as_role(&mut here, writer, &backup).expect(0);
    }
    cairn_tests::tree::settle(&source);
    as_role(&mut here, writer, &backup).expect(0);

    // A thief with the writer's credentials, even with an owner's key, destroys nothing.
    // It cannot even say that something is to go.
    let forget = ["forget", "--keep-last", "1"];
    lacks(as_role(&mut here, writer, &forget), "s3:PutObject");
    let erase = ["erase", "--job", "people", "--max-delete", "100"];
    lacks(as_role(&mut here, writer, &erase), "s3:PutObject");
    as_role(&mut here, maintainer, &forget).expect(0);
    // Before it condemns anything.
    lacks(as_role(&mut here, writer, &["gc", "--max-dead", "0"]), "s3:PutObject");
    lacks(as_role(&mut here, reader, &["gc"]), "s3:PutObject");

    // On a machine that knows nothing.
    let mut there = cairn(reader);
    as_role(&mut there, reader, &["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&there.restored("latest", "restored"), &source));
    as_role(&mut here, maintainer, &["gc", "--max-dead", "0"]).expect(0);
    as_role(&mut there, reader, &["verify", "--level", "full"]).expect(0);
    let report = as_role(&mut here, maintainer, &["erasure", "report", "--json"]).expect(0);
    assert!(!report.json("receipt").is_empty(), "{report:#?}");
    assert_eq!(scenario::result(&report)["report"]["unsound"], 0);
}
