//! Where keys come from: options, then variables, then a prompt. Secrets never appear in an
//! argument, in output or in an error, and are wiped when dropped.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::arguments::{Global, KeyAdd};
use crate::settings::{self, Environment};
use crate::ui::errors::CliError;
use crate::ui::prompt::ask_hidden;

/// Longest passphrase, bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 64 << 10;
/// Longest key file or output of a key command, bytes.
pub const KEY_BYTES_MAX: usize = 1 << 20;

/// Bytes that are wiped when dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// What opens a repository.
pub enum Credential {
    /// A passphrase.
    Passphrase(Secret),
    /// The content of a key file.
    KeyFile(Secret),
    /// The output of a key command.
    CommandOutput(Secret),
    /// The text of an identity file.
    Identity(Secret),
}

/// Whether a prompt asks once, to open something, or twice, to make something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Once.
    Open,
    /// Twice.
    Create,
}

/// The key that was named, if one was; not read yet.
pub struct Choice<'a>(Option<(&'static str, Source<'a>)>);

/// One way to name a key.
enum Source<'a> {
    PasswordFile(&'a Path),
    PasswordCommand(&'a OsStr),
    Password(&'a OsStr),
    KeyFile(&'a Path),
    KeyCommand(&'a OsStr),
    IdentityFile(&'a Path),
}

/// Where a secret is kept that the configuration file names.
#[derive(Clone)]
pub enum Keeper {
    /// In a file; one trailing newline is dropped.
    File(PathBuf),
    /// In a variable of the process.
    Variable(String),
    /// A command prints it; run by `/bin/sh -c`. One trailing newline is dropped.
    Command(String),
}

/// Without the command, in which somebody may have written a secret.
impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
            Self::Command(_) => f.write_str("Command"),
        }
    }
}

/// Reads a secret of one line. `what` is what it is called in errors.
///
/// # Errors
/// When it is not there, or is no line of text.
pub fn kept(what: &str, keeper: &Keeper, environment: &Environment) -> Result<String, CliError> {
    let (origin, secret) = match keeper {
        Keeper::File(path) => {
            let secret = read_file("read the secret file", path, PASSPHRASE_BYTES_MAX)?;
            (path.display().to_string(), secret)
        }
        Keeper::Variable(name) => {
            let origin = format!("{what}: the variable {name}");
            let Some(value) = environment.get(name) else {
                return Err(CliError::SecretUnusable { origin, problem: "is not set" });
            };
            (origin, Zeroizing::new(value.as_bytes().to_vec()))
        }
        Keeper::Command(command) => {
            let origin = format!("command for {what}");
            let secret = run_command(&origin, OsStr::new(command), PASSPHRASE_BYTES_MAX)?;
            (format!("the output of the {origin}"), secret)
        }
    };
    let secret = without_line_end(secret);
    let problem = match str::from_utf8(&secret) {
        Ok("") => "is empty",
        Ok(text) if text.contains(char::is_control) => "has more than one line, or is no text",
        Ok(text) => return Ok(text.to_owned()),
        Err(_) => "is not UTF-8",
    };
    Err(CliError::SecretUnusable { origin, problem })
}

/// The key that the options name, else the one that the environment names.
///
/// # Errors
/// When several are named.
pub fn choose<'a>(
    global: &'a Global,
    environment: &'a Environment,
) -> Result<Choice<'a>, CliError> {
    let options = [
        ("--password-file", global.password_file.as_deref().map(Source::PasswordFile)),
        ("--password-command", global.password_command.as_deref().map(Source::PasswordCommand)),
        ("--key-file", global.key_file.as_deref().map(Source::KeyFile)),
        ("--key-command", global.key_command.as_deref().map(Source::KeyCommand)),
        ("--identity-file", global.identity_file.as_deref().map(Source::IdentityFile)),
    ];
    let get = |name| environment.get(name);
    let path = |name| environment.get(name).map(Path::new);
    let variables = [
        (settings::PASSWORD, get(settings::PASSWORD).map(Source::Password)),
        (settings::PASSWORD_FILE, path(settings::PASSWORD_FILE).map(Source::PasswordFile)),
        (settings::PASSWORD_COMMAND, get(settings::PASSWORD_COMMAND).map(Source::PasswordCommand)),
        (settings::KEY_FILE, path(settings::KEY_FILE).map(Source::KeyFile)),
        (settings::KEY_COMMAND, get(settings::KEY_COMMAND).map(Source::KeyCommand)),
        (settings::IDENTITY_FILE, path(settings::IDENTITY_FILE).map(Source::IdentityFile)),
    ];
    Ok(Choice(match only(options)? {
        Some(named) => Some(named),
        None => only(variables)?,
    }))
}

impl Choice<'_> {
    /// Reads the key that was named, else asks for a passphrase.
    ///
    /// # Errors
    /// When the key cannot be read or used, or there is nobody to ask.
    pub fn read(&self, prompt: Prompt) -> Result<Credential, CliError> {
        match &self.0 {
            Some((origin, source)) => read(origin, source),
            None => ask("passphrase", prompt).map(Credential::Passphrase),
        }
    }
}

/// The new key of `key add`, unless it is a recipient's.
///
/// # Errors
/// When several are named, or the one named cannot be read or used.
pub fn new_credential(arguments: &KeyAdd) -> Result<Credential, CliError> {
    let options = [
        ("--new-password-file", arguments.new_password_file.as_deref().map(Source::PasswordFile)),
        (
            "--new-password-command",
            arguments.new_password_command.as_deref().map(Source::PasswordCommand),
        ),
        ("--new-key-file", arguments.new_key_file.as_deref().map(Source::KeyFile)),
        ("--new-key-command", arguments.new_key_command.as_deref().map(Source::KeyCommand)),
    ];
    match only(options)? {
        Some((origin, source)) => read(origin, &source),
        None => ask("new passphrase", Prompt::Create).map(Credential::Passphrase),
    }
}

fn only<'a, const N: usize>(
    sources: [(&'static str, Option<Source<'a>>); N],
) -> Result<Option<(&'static str, Source<'a>)>, CliError> {
    let mut named = sources.into_iter().filter_map(|(origin, source)| Some((origin, source?)));
    let first = named.next();
    match (&first, named.next()) {
        (Some((first, _)), Some((second, _))) => Err(CliError::SecretConflict { first, second }),
        _ => Ok(first),
    }
}

fn read(origin: &'static str, source: &Source<'_>) -> Result<Credential, CliError> {
    match *source {
        Source::Password(value) => {
            let secret = Zeroizing::new(value.as_bytes().to_vec());
            passphrase(origin, secret).map(Credential::Passphrase)
        }
        Source::PasswordFile(path) => {
            let secret = read_file("read the password file", path, PASSPHRASE_BYTES_MAX)?;
            passphrase(&path.display().to_string(), secret).map(Credential::Passphrase)
        }
        Source::PasswordCommand(command) => {
            let secret = run_command(origin, command, PASSPHRASE_BYTES_MAX)?;
            passphrase(&format!("the output of the {origin}"), secret).map(Credential::Passphrase)
        }
        Source::KeyFile(path) => {
            read_file("read the key file", path, KEY_BYTES_MAX).map(Credential::KeyFile)
        }
        Source::KeyCommand(command) => {
            run_command(origin, command, KEY_BYTES_MAX).map(Credential::CommandOutput)
        }
        Source::IdentityFile(path) => {
            read_file("read the identity file", path, KEY_BYTES_MAX).map(Credential::Identity)
        }
    }
}

/// Drops one line end from the end.
fn without_line_end(mut secret: Secret) -> Secret {
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    secret
}

/// The same, and refuses what cannot be meant.
fn passphrase(origin: &str, secret: Secret) -> Result<Secret, CliError> {
    let secret = without_line_end(secret);
    if secret.is_empty() {
        let problem = "holds no passphrase";
        return Err(CliError::SecretUnusable { origin: origin.to_owned(), problem });
    }
    Ok(secret)
}

fn read_file(action: &'static str, path: &Path, bytes_max: usize) -> Result<Secret, CliError> {
    let failed = |source| CliError::File { action, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    bounded(&path.display().to_string(), &mut file, bytes_max, failed)
}

/// Reads a whole secret without leaving copies in reallocated memory.
fn bounded(
    origin: &str,
    reader: &mut dyn Read,
    bytes_max: usize,
    failed: impl Fn(std::io::Error) -> CliError,
) -> Result<Secret, CliError> {
    let mut secret = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut secret).map_err(failed)?;
    let problem = match secret.len() {
        0 => "is empty",
        length if length > bytes_max => "is too long for a key",
        _ => return Ok(secret),
    };
    Err(CliError::SecretUnusable { origin: origin.to_owned(), problem })
}

/// Runs a command by `/bin/sh -c`, so that pipes and quotes mean what they mean at a prompt. Its
/// standard input is empty, for that may be the data of a backup.
fn run_command(origin: &str, command: &OsStr, bytes_max: usize) -> Result<Secret, CliError> {
    let failed = |problem: String| CliError::SecretCommand { origin: origin.to_owned(), problem };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env_remove(settings::PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("could not be started: {error}")))?;
    let secret = child.stdout.take().map(|mut output| {
        bounded(&format!("the output of the {origin}"), &mut output, bytes_max, |error| {
            failed(format!("could not be read: {error}"))
        })
    });
    let status = child.wait().map_err(|error| failed(format!("could not be awaited: {error}")))?;
    if !status.success() {
        return Err(failed(format!("failed: {status}")));
    }
    secret.unwrap_or_else(|| Err(failed("has no output".to_owned())))
}

fn ask(what: &'static str, prompt: Prompt) -> Result<Secret, CliError> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(CliError::SecretMissing);
    }
    let entry = |question: String| ask_hidden(&question).map_err(CliError::Prompt);
    let first = passphrase("the answer", entry(format!("{what}: "))?)?;
    if prompt == Prompt::Create {
        let second = passphrase("the answer", entry(format!("{what}, again: "))?)?;
        if *first != *second {
            return Err(CliError::SecretsDiffer);
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn passphrase_of(global: &Global, environment: &Environment) -> Result<Vec<u8>, CliError> {
        match choose(global, environment)?.read(Prompt::Open)? {
            Credential::Passphrase(secret) => Ok(secret.to_vec()),
            _ => panic!("not a passphrase"),
        }
    }

    #[test]
    fn an_option_wins_over_the_environment() {
        let global = Global { password_command: Some("echo option".into()), ..Global::default() };
        let env = environment(&[(settings::PASSWORD, "variable")]);
        assert_eq!(passphrase_of(&global, &env).unwrap(), b"option");
        assert_eq!(passphrase_of(&Global::default(), &env).unwrap(), b"variable");
    }

    #[test]
    fn two_sources_are_refused() {
        let global = Global {
            password_file: Some("/a".into()),
            key_file: Some("/b".into()),
            ..Global::default()
        };
        let error = passphrase_of(&global, &environment(&[])).unwrap_err();
        assert_eq!(error.to_string(), "--password-file and --key-file both name a key");
        let env = environment(&[(settings::PASSWORD, "x"), (settings::KEY_FILE, "/k")]);
        assert!(matches!(
            passphrase_of(&Global::default(), &env),
            Err(CliError::SecretConflict { .. })
        ));
    }

    #[test]
    fn one_line_end_is_dropped_and_nothing_else() {
        for (output, expected) in
            [("a\\n", "a"), ("a\\r\\n", "a"), ("a\\n\\n", "a\n"), (" a ", " a ")]
        {
            let command = format!("printf '{output}'");
            let global = Global { password_command: Some(command.into()), ..Global::default() };
            assert_eq!(passphrase_of(&global, &environment(&[])).unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_command_that_fails_or_says_nothing_is_no_key() {
        for command in ["echo half; exit 3", "true", "echo", "head -c 70000 /dev/zero"] {
            let global = Global { password_command: Some(command.into()), ..Global::default() };
            let error = passphrase_of(&global, &environment(&[])).unwrap_err();
            assert!(
                matches!(error, CliError::SecretCommand { .. } | CliError::SecretUnusable { .. }),
                "{command}: {error}"
            );
        }
    }

    #[test]
    fn commands_do_not_inherit_the_passphrase_or_standard_input() {
        let global = Global {
            password_command: Some("cat; printf '%s' \"${CAIRN_PASSWORD-gone}\"".into()),
            ..Global::default()
        };
        assert_eq!(passphrase_of(&global, &environment(&[])).unwrap(), b"gone");
    }
}
