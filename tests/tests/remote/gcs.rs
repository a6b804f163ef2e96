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
