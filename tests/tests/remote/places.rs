//! Goal: copies in another region, at another vendor or on another host are reached in the same run
//! as home, each with what the configuration file says of it, and none is shown the credentials of
//! another.
//! Method: servers that check who asks, each behind a proxy that keeps what it was shown; home by the
//! environment, the other by the file, and both by the file.

use std::sync::{Arc, Mutex};

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::Cairn;
use cairn_tests::servers::Target;
use cairn_tests::servers::azurite::Azurite;
use cairn_tests::servers::gcs::Gcs;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::proxy::{Fault, Proxy};
use cairn_tests::servers::sshd::Sshd;
use cairn_tests::servers::webdav::Webdav;

use crate::scenario::{self, cairn, says_nothing_of, text};

/// What a server was shown to prove who asks, one for each request.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl Shown {
    /// A proxy before the server at this port.
    fn before(port: u16) -> (Proxy, Self) {
        let shown = Self::default();
        let kept = shown.clone();
        let proxy = Proxy::start(port, move |asked| {
            kept.0.lock().expect("no test panics here").push(asked.authorization.clone());
            Fault::None
        });
        (proxy, shown)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no test panics here").clone()
    }

    /// Some requests showed this.
    #[track_caller]
    fn has(&self, credential: &str) {
        let all = self.all();
        assert!(all.iter().any(|shown| shown.contains(credential)), "{credential}: {all:#?}");
    }

    /// No request showed this.
    #[track_caller]
    fn never_has(&self, credential: &str) {
        let all = self.all();
        assert!(!all.iter().any(|shown| shown.contains(credential)), "{credential}: {all:#?}");
    }
}

/// A vendor that speaks S3, checks signatures, and has a key of its own.
struct Vendor {
    server: Moto,
    proxy: Proxy,
    shown: Shown,
}

impl Vendor {
    fn start() -> Self {
        let server = Moto::start_strict();
        let (proxy, shown) = Shown::before(server.target().port);
        Self { server, proxy, shown }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port)
    }

    fn target(&self) -> Target {
        self.server.target().with("AWS_ENDPOINT_URL", self.endpoint())
    }

    fn key(&self) -> (String, String) {
        let target = self.server.target();
        (variable(&target, "AWS_ACCESS_KEY_ID"), variable(&target, "AWS_SECRET_ACCESS_KEY"))
    }

    /// A place with this key, and the secret kept as `keeper` says.
    fn place(&self, url: &str, region: &str, keeper: &str) -> String {
        format!(
            "[[place]]\nurl = \"{url}\"\n[place.env]\nAWS_ENDPOINT_URL = \"{}\"\n\
             AWS_REGION = \"{region}\"\nAWS_ACCESS_KEY_ID = \"{}\"\n\
             AWS_SECRET_ACCESS_KEY = {{ {keeper} }}\n",
            self.endpoint(),
            self.key().0,
        )
    }
}

fn variable(target: &Target, name: &str) -> String {
    let found = target.environment.iter().find(|(other, _)| *other == name);
    found.expect("it is set").1.to_str().expect("UTF-8").to_owned()
}

/// Writes the configuration file where it is looked for.
fn configure(cairn: &Cairn, parts: &[String]) {
    let path = cairn.path("home/.config/cairn/config.toml");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, parts.concat()).expect("a file");
}

/// Writes a secret into a file of its own, and says that it is there.
fn kept(cairn: &Cairn, name: &str, secret: &str) -> String {
    let path = cairn.path(name);
    std::fs::write(&path, format!("{secret}\n")).expect("a file");
    format!("file = \"{}\"", path.display())
}

/// A repository in a folder with one snapshot, in the environment of `target`.
fn home_in_a_folder(target: &Target) -> Cairn {
    let mut here = Cairn::new();
    let home = here.path("repository").into_os_string().into_string().expect("UTF-8");
    here.set_target(&target.at(&home));
    here.init();
    here.run(["backup", text(&scenario::source(&here))]).expect(0);
    here
}

const SECOND: &str = "s3://bucket/second/crm";

#[test]
fn a_second_vendor_is_reached_beside_the_first() {
    let (first, second) = (Vendor::start(), Vendor::start());
    let here = cairn(&first.target());
    let (id, secret) = second.key();
    let keeper = kept(&here, "second.key", &secret);
    let replica = format!("[[replica]]\nname = \"second\"\nurl = \"{SECOND}\"\n");
    configure(&here, &[replica, second.place("s3://bucket/second/", "eu-central-1", &keeper)]);
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", text(&source)]).expect(0);
    let ran = here.run(["replicate", "--create", "--verbose"]).expect(0);
    says_nothing_of(&here, &ran, &secret);
    std::fs::write(source.join("new"), "what came later").expect("a file");
    here.run(["backup", text(&source), "--also", SECOND]).expect(0);
    here.run(["--repo", SECOND, "verify", "--level", "full"]).expect(0);
    assert_eq!(
        here.run(["--repo", SECOND, "snapshots", "--json"]).expect(0).json("snapshot").len(),
        2
    );

    // The first loses everything but its index.
    assert!(first.server.lose("some/prefix/packs/") > 1);
    here.run(["restore", "latest", "--target", text(&here.path("no"))]).expect(5);
    let restored = here.path("restored");
    here.run(["restore", "latest", "--target", text(&restored), "--fallback", SECOND]).expect(0);
    assert_same(&source, &inside(&restored, &source));
    here.run(["verify", "--level", "full"]).expect(5);
    here.run(["repair", "--from", SECOND]).expect(0);
    here.run(["verify", "--level", "full"]).expect(0);

    // Each was shown its own key for its own region, and nothing else.
    let (of_first, _) = first.key();
    first.shown.has(&format!("{of_first}/"));
    second.shown.has(&format!("{id}/"));
    second.shown.has("/eu-central-1/s3/");
    first.shown.never_has(&id);
    second.shown.never_has(&of_first);
}

#[test]
fn every_place_may_have_settings_of_its_own_and_the_environment_none() {
    let (first, second) = (Vendor::start(), Vendor::start());
    let mut here = cairn(&first.server.target());
    let secrets = [first.key().1, second.key().1];
    here.set_target(&Target {
        environment: vec![("KEY_OF_HOME", secrets[0].clone().into())],
        ..first.server.target()
    });
    let command = format!("command = \"cat {}\"", here.path("second.key").display());
    kept(&here, "second.key", &secrets[1]);
    configure(
        &here,
        &[
            first.place("s3://bucket", "us-east-1", "env = \"KEY_OF_HOME\""),
            second.place("s3://bucket/second", "eu-central-1", &command),
        ],
    );
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", text(&source)]).expect(0);
    here.run(["replicate", "--to", SECOND, "--create"]).expect(0);
    here.run(["key", "list"]).expect(0);
    first.shown.never_has(&second.key().0);
    second.shown.never_has(&first.key().0);

    // Home and its machine are gone: a profile on a new machine.
    let there = cairn(&Target { environment: Vec::new(), ..second.server.target() }.at(SECOND));
    let (id, secret) = second.key();
    let folder = there.path("home/.aws");
    std::fs::create_dir_all(&folder).expect("a folder");
    let profile = format!(
        "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n\
         [second]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"
    );
    std::fs::write(folder.join("credentials"), profile).expect("a file");
    let config =
        format!("[profile second]\nregion = eu-west-3\nendpoint_url = {}\n", second.endpoint());
    std::fs::write(folder.join("config"), config).expect("a file");
    let place = "[[place]]\nurl = \"s3://bucket/second\"\nenv.AWS_PROFILE = \"second\"\n";
    configure(&there, &[place.to_owned()]);
    let restored = there.restored("latest", "restored");
    assert_same(&source, &inside(&restored, &source));
    second.shown.has("/eu-west-3/s3/");
}

#[test]
fn a_place_that_lacks_credentials_gets_none_of_others() {
    let (first, second) = (Vendor::start(), Vendor::start());
    let here = cairn(&first.target());
    let (id, secret) = first.key();
    // Where the AWS tools would find them.
    let folder = here.path("home/.aws");
    std::fs::create_dir_all(&folder).expect("a folder");
    let profile =
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    std::fs::write(folder.join("credentials"), profile).expect("a file");
    let place = format!(
        "[[place]]\nurl = \"s3://bucket/second\"\nenv.AWS_ENDPOINT_URL = \"{}\"\n\
         env.AWS_REGION = \"us-east-1\"\n",
        second.endpoint()
    );
    configure(&here, std::slice::from_ref(&place));
    here.init();
    let source = scenario::source(&here);
    let ran = here.run(["backup", text(&source), "--also", SECOND, "--json"]).expect(13);
    assert_eq!(scenario::result(&ran)["report"]["snapshot"].as_str().map(str::len), Some(64));
    let ran = here.run(["--repo", SECOND, "init"]).expect(13);
    assert!(ran.stderr.contains("no usable credentials"), "{ran:#?}");
    // By opendal's own name of the service neither.
    let by_name = format!(
        "[[place]]\nurl = \"opendal+s3://bucket\"\nenv.OPENDAL_S3_ENDPOINT = \"{}\"\n\
         env.OPENDAL_S3_REGION = \"us-east-1\"\n",
        second.endpoint()
    );
    configure(&here, &[place, by_name]);
    here.run(["--repo", "opendal+s3://bucket/by-name", "init"]).expect(13);
    second.shown.never_has(&id);

    // A secret that is not there holds up this copy, and home not.
    let missing = second.place("s3://bucket/second", "us-east-1", "file = \"/nowhere/at/all\"");
    configure(&here, &[missing]);
    let ran = here.run(["backup", text(&source), "--also", SECOND]).expect(2);
    assert!(ran.stderr.contains("/nowhere/at/all"), "{ran:#?}");
    assert_eq!(here.run(["snapshots", "--json"]).expect(0).json("snapshot").len(), 2);
}

#[test]
fn another_region_of_the_same_account_inherits_the_credentials() {
    let vendor = Vendor::start();
    let here = cairn(&vendor.target());
    let place = "[[place]]\nurl = \"s3://bucket/second\"\ninherit-credentials = true\n\
                 env.AWS_REGION = \"eu-central-1\"\n";
    configure(&here, &[place.to_owned()]);
    here.init();
    here.run(["backup", text(&scenario::source(&here))]).expect(0);
    here.run(["replicate", "--to", SECOND, "--create"]).expect(0);
    here.run(["--repo", SECOND, "verify"]).expect(0);
    let (id, _) = vendor.key();
    vendor.shown.has(&format!("{id}/"));
    vendor.shown.has("/us-east-1/s3/");
    vendor.shown.has("/eu-central-1/s3/");
}

#[test]
fn locks_are_asked_for_by_the_key_of_the_place() {
    let server = Moto::start();
    server.make_lockable_bucket("lockable");
    let (proxy, shown) = Shown::before(server.target().port);
    let mut here = cairn(&server.target());
    here.set_target(&server.target().with("AWS_ACCESS_KEY_ID", "AKIAHOME").at("s3://lockable/x"));
    let place = format!(
        "[[place]]\nurl = \"s3://lockable\"\n[place.env]\nAWS_ENDPOINT_URL = \"http://127.0.0.1:{}\"\n\
         AWS_REGION = \"us-east-1\"\nAWS_ACCESS_KEY_ID = \"AKIALOCK\"\n\
         AWS_SECRET_ACCESS_KEY = {{ {} }}\n",
        proxy.port,
        kept(&here, "key", "secret"),
    );
    configure(&here, &[place]);
    here.init();
    here.run(["backup", text(&scenario::source(&here))]).expect(0);
    here.run(["lock", "extend"]).expect(0);
    here.run(["lock", "status"]).expect(0);
    shown.has("AKIALOCK/");
    shown.never_has("AKIAHOME");
}

#[test]
fn the_password_of_one_webdav_host_is_not_sent_to_another() {
    let (first, second) = (Webdav::start(), Webdav::start_with("of-the-second"));
    let (proxy, shown) = Shown::before(second.target().port);
    let here = cairn(&first.target());
    here.init();
    let source = scenario::source(&here);
    here.run(["backup", text(&source)]).expect(0);
    let url = format!("webdav+http://127.0.0.1:{}/some/folder", proxy.port);
    let to_second = ["replicate", "--to", &url, "--create"];
    let ran = here.run(to_second).expect(2);
    assert!(ran.stderr.contains("[[place]]"), "{ran:#?}");
    assert_eq!(shown.all(), Vec::<String>::new());
    let place = format!(
        "[[place]]\nurl = \"webdav+http://127.0.0.1:{}/\"\n[place.env]\n\
         WEBDAV_USERNAME = \"cairn\"\nWEBDAV_PASSWORD = {{ {} }}\n",
        proxy.port,
        kept(&here, "second.key", "of-the-second"),
    );
    configure(&here, &[place]);
    here.run(to_second).expect(0);
    let restored = here.path("restored");
    here.run(["--repo", &url, "restore", "latest", "--target", text(&restored)]).expect(0);
    assert_same(&source, &inside(&restored, &source));
    // `cairn:of-the-second`, and `cairn:webdav-password`.
    shown.has("Y2Fpcm46b2YtdGhlLXNlY29uZA==");
    shown.never_has("Y2Fpcm46d2ViZGF2LXBhc3N3b3Jk");
}

#[test]
fn two_accounts_of_azure_are_told_apart() {
    let server = Azurite::start();
    let target = server.target();
    let of = |name| variable(&target, name);
    let of_home =
        target.with("AZURE_STORAGE_KEY", "d3Jvbmc=").with("AZURE_STORAGE_ACCOUNT", "home");
    let here = home_in_a_folder(&of_home);
    let key = kept(&here, "key", &of("AZURE_STORAGE_KEY"));
    let by_key = format!(
        "[[place]]\nurl = \"azblob://container\"\n[place.env]\nAZURE_STORAGE_ACCOUNT = \"{}\"\n\
         AZURE_STORAGE_ENDPOINT = \"{}\"\nAZURE_STORAGE_KEY = {{ {key} }}\n",
        of("AZURE_STORAGE_ACCOUNT"),
        of("AZURE_STORAGE_ENDPOINT"),
    );
    let string = kept(&here, "string", &server.connection_string());
    let by_string = format!(
        "[[place]]\nurl = \"azblob://container\"\n\
         env.AZURE_STORAGE_CONNECTION_STRING = {{ {string} }}\n"
    );
    configure(&here, &[by_key]);
    here.run(["replicate", "--to", &target.url, "--create"]).expect(0);
    configure(&here, &[by_string]);
    here.run(["--repo", &target.url, "verify"]).expect(0);
    here.run(["--repo", &target.url, "erasure", "report"]).expect(0);

    // The right key is in the environment, for somewhere else.
    let mut other = here;
    other.set_target(&target.at(text(&other.path("repository"))));
    let without = format!(
        "[[place]]\nurl = \"azblob://container\"\n[place.env]\nAZURE_STORAGE_ACCOUNT = \"{}\"\n\
         AZURE_STORAGE_ENDPOINT = \"{}\"\n",
        of("AZURE_STORAGE_ACCOUNT"),
        of("AZURE_STORAGE_ENDPOINT"),
    );
    configure(&other, &[without]);
    other.run(["replicate", "--to", &target.url]).expect(13);
}

#[test]
fn other_kinds_of_storage_take_their_settings_from_the_place() {
    let (google, ssh, named) = (Gcs::start(), Sshd::start(), Moto::start_strict());
    let path = Target { url: String::new(), ..ssh.target() };
    let here = home_in_a_folder(&path);
    let of_named = named.target();
    let secret = kept(&here, "key", &variable(&of_named, "AWS_SECRET_ACCESS_KEY"));
    configure(
        &here,
        &[
            format!(
                "[[place]]\nurl = \"{}\"\nenv.STORAGE_EMULATOR_HOST = \"{}\"\n",
                google.target().url,
                variable(&google.target(), "STORAGE_EMULATOR_HOST")
            ),
            format!(
                "[[place]]\nurl = \"opendal+s3://bucket\"\n[place.env]\n\
                 OPENDAL_S3_ENDPOINT = \"{}\"\nOPENDAL_S3_REGION = \"us-east-1\"\n\
                 OPENDAL_S3_ACCESS_KEY_ID = \"{}\"\nOPENDAL_S3_SECRET_ACCESS_KEY = {{ {secret} }}\n",
                variable(&of_named, "AWS_ENDPOINT_URL"),
                variable(&of_named, "AWS_ACCESS_KEY_ID"),
            ),
            format!("[[place]]\nurl = \"sftp://127.0.0.1:{}\"\n", ssh.target().port),
        ],
    );
    let urls = [google.target().url, "opendal+s3://bucket/by-name".to_owned(), ssh.target().url];
    let places = urls.iter().flat_map(|url| ["--to", url.as_str()]);
    here.run(["replicate", "--create"].into_iter().chain(places)).expect(0);
    for url in &urls {
        here.run(["--repo", url, "verify", "--level", "full"]).expect(0);
    }
}

#[test]
fn a_file_that_cannot_be_understood_is_told_before_anything_is_sent() {
    let vendor = Vendor::start();
    let here = cairn(&vendor.target());
    for (text, told) in [
        ("[[place]]\nurl = \"s3://bucket\"\nenv.AWS_SECRET_ACCESS_KEY = \"hunter2\"\n", "file = "),
        ("[[place]]\nurl = \"s3://bucket\"\nenv.AWS_SECRET_ACCESS_KEY = \"hunter2\n", "line 3"),
        ("[[place]]\nurl = \"s3://bucket\"\nenv.AWS_REGOIN = \"hunter2\"\n", "AWS_REGION"),
    ] {
        configure(&here, &[text.to_owned()]);
        let ran = here.run(["init"]).expect(2);
        assert!(ran.stderr.contains(told), "{ran:#?}");
        says_nothing_of(&here, &ran, "hunter2");
    }
    assert_eq!(vendor.shown.all(), Vec::<String>::new());
    // A folder is to be had all the same.
    let folder = here.path("folder");
    here.run(["--repo", text(&folder), "init"]).expect(0);
}
