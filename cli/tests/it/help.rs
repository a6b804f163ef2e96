//! Help, manual and completions, all from one definition.

use std::fs;
use std::path::Path;

use crate::env::TestEnv;

const COMMANDS: [&[&str]; 32] = [
    &[],
    &["init"],
    &["backup"],
    &["snapshots"],
    &["ls"],
    &["find"],
    &["diff"],
    &["dump"],
    &["restore"],
    &["mount"],
    &["verify"],
    &["forget"],
    &["gc"],
    &["erase"],
    &["erasure", "report"],
    &["replicate"],
    &["lock", "extend"],
    &["lock", "status"],
    &["stats"],
    &["key"],
    &["key", "list"],
    &["key", "add"],
    &["key", "remove"],
    &["key", "new-recipient"],
    &["repair"],
    &["repair", "index"],
    &["cache", "show"],
    &["cache", "clear"],
    &["cache", "forget-place"],
    &["completions"],
    &["man"],
    &["version"],
];

/// Set to anything, the texts that are expected are written anew.
const BLESS: &str = "CAIRN_TESTS_BLESS";

fn assert_expected(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/expected").join(name);
    if std::env::var_os(BLESS).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; if that is meant, run the tests with {BLESS}=1");
}

#[test]
fn help_is_as_expected() {
    let env = TestEnv::bare();
    for command in COMMANDS {
        let run = env.run(command.iter().chain(&["--help"]));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{command:?}");
        let name = ["cairn"].iter().chain(command).copied().collect::<Vec<_>>().join("-");
        assert_expected(&format!("{name}.txt"), &run.text());
    }
}

#[test]
fn help_names_variables_and_exit_codes() {
    let help = TestEnv::bare().ok(["--help"]);
    for text in ["CAIRN_REPO", "CAIRN_PASSWORD", "NO_COLOR", "13   storage unreachable", "130, 143"]
    {
        assert!(help.contains(text), "{text} is missing");
    }
}

#[test]
fn commands_that_do_not_exist_yet_are_not_offered() {
    let env = TestEnv::bare();
    for command in ["wal", "drill", "run", "status"] {
        let run = env.run([command]);
        assert_eq!(run.code, 2, "{command}");
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn version_goes_to_standard_output() {
    let env = TestEnv::bare();
    assert!(env.ok(["--version"]).starts_with("cairn "));
    assert!(env.ok(["version"]).contains("repository format 1"));
    let (_, result) = env.json(["version"]);
    assert_eq!(result["report"]["format_version"], 1);
}

#[test]
fn manual_pages_cover_every_command() {
    let env = TestEnv::bare();
    let folder = env.path("man/pages");
    env.ok(["man".as_ref(), folder.as_os_str()]);
    for page in ["cairn.1", "cairn-backup.1", "cairn-restore.1", "cairn-key-add.1"] {
        let text = fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(fs::read_to_string(folder.join("cairn.1")).unwrap().contains("Exit codes"));
    let (_, result) = env.json(["man".as_ref(), folder.as_os_str()]);
    assert_eq!(result["exit_code"], 0);
}

#[test]
fn completions_exist_for_every_shell() {
    let env = TestEnv::bare();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = env.ok(["completions", shell]);
        assert!(script.contains("snapshots") && script.contains("one-file-system"), "{shell}");
    }
}
