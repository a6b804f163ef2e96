//! Goal: a service that has no scheme of its own holds repositories, set up by opendal's own names.
//! Method: servers of two kinds that this build knows, one that renames files and one that keeps
//! objects, reached by the way that services without a scheme take.

use cairn_tests::servers::Target;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::webdav::Webdav;

use crate::scenario::{self, cairn, says_nothing_of};

/// The same server by opendal's name of it, with settings that are taken from these variables.
fn by_name(target: &Target, url: &str, settings: &[(&'static str, &str)]) -> Target {
    let endpoint = format!("http://127.0.0.1:{}", target.port);
    let value = |variable: &str| {
        let set = target.environment.iter().find(|(name, _)| *name == variable);
        set.map_or_else(|| endpoint.clone().into(), |(_, value)| value.clone())
    };
    let environment = settings.iter().map(|(setting, from)| (*setting, value(from))).collect();
    Target { url: url.to_owned(), environment, port: target.port }
}

fn webdav(server: &Webdav) -> Target {
    by_name(
        &server.target(),
        "opendal+webdav:///some/folder",
        &[
            ("OPENDAL_WEBDAV_ENDPOINT", ""),
            ("OPENDAL_WEBDAV_USERNAME", "WEBDAV_USERNAME"),
            ("OPENDAL_WEBDAV_PASSWORD", "WEBDAV_PASSWORD"),
        ],
    )
}

#[test]
fn every_command_works_where_files_are_renamed() {
    let server = Webdav::start();
    scenario::whole_course(&webdav(&server));
    // It is the same repository by its own scheme.
    let ran = cairn(&server.target()).run(["verify", "--level", "full"]);
    ran.expect(0);
}

#[test]
fn every_command_works_where_objects_are_put() {
    let server = Moto::start();
    let target = by_name(
        &server.target(),
        "opendal+s3://bucket/some/other",
        &[
            ("OPENDAL_S3_ENDPOINT", ""),
            ("OPENDAL_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
            ("OPENDAL_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ],
    );
    scenario::whole_course(&target.with("OPENDAL_S3_REGION", "us-east-1"));
}

#[test]
fn a_wrong_password_is_told() {
    let server = Webdav::start();
    let stranger = cairn(&webdav(&server).with("OPENDAL_WEBDAV_PASSWORD", "hunter2"));
    let ran = stranger.run(["snapshots", "--verbose"]).expect(13);
    assert!(ran.stderr.contains("denied"), "{ran:#?}");
    says_nothing_of(&stranger, &ran, "hunter2");
}

#[test]
fn settings_that_make_no_sense_and_services_that_are_not_there_are_told() {
    let at = |url: &str| Target { url: url.to_owned(), environment: Vec::new(), port: 0 };
    for (url, code, told) in [
        ("opendal+gopher://hole", 2, "opendal+webdav"),
        ("opendal+webdav:///folder", 2, "endpoint"),
        ("opendal+memory://", 4, "keeps nothing"),
        ("opendal+fs:///folder", 4, "as a path"),
        ("opendal+webdav://user:hunter2@host/", 2, "OPENDAL_"),
    ] {
        for command in ["snapshots", "init"] {
            let ran = cairn(&at(url)).run([command]).expect(code);
            assert!(ran.stderr.contains(told) && !ran.stderr.contains("hunter2"), "{ran:#?}");
        }
    }
}
