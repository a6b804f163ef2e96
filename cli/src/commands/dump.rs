//! `cairn dump`

use std::io::{self, IsTerminal as _, Write};

use cairn_engine::ops::dump;

use super::{App, Finished, no_json, restore};
use crate::arguments::Dump;
use crate::session::{self, Show};
use crate::ui::errors::{CliError, Failure};

pub(super) fn run(app: &App, arguments: &Dump) -> Result<Finished, Failure> {
    no_json(app, "dump")?;
    let to_terminal = io::stdout().is_terminal();
    let show = if to_terminal { Show::Nothing } else { Show::Progress };
    let mut session = session::open(app, show)?;
    for url in &arguments.fallback {
        session::add_fallback(app, &mut session, url)?;
    }
    let (snapshot, path) = session::select_path(&session, &arguments.source)?;
    let Some(path) = path else {
        return Err(CliError::Usage {
            problem: "no file of the snapshot is named".to_owned(),
            hint: "name it like latest:/path/to/file",
        }
        .into());
    };
    let mut output = Guarded { output: app.printer.raw(), to_terminal, failed: None };
    let result = dump::run(&session.repository, &snapshot, &path, &mut output);
    if let Some(error) = output.failed {
        return Err(error.into());
    }
    result?;
    app.printer.flush()?;
    restore::note_elsewhere(app, &session.repository);
    Ok(Finished::default())
}

/// Standard output; a terminal gets text only, for binary data could reprogram it.
struct Guarded<W: Write> {
    output: W,
    to_terminal: bool,
    failed: Option<CliError>,
}

impl<W: Write> Write for Guarded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_binary =
            |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t');
        if self.to_terminal && bytes.iter().any(is_binary) {
            self.failed = Some(CliError::Usage {
                problem: "the file is not plain text, and standard output is a terminal".to_owned(),
                hint: "redirect the output to a file or a program",
            });
            return Err(io::Error::other("binary data"));
        }
        self.output.write(bytes).map_err(|error| self.keep(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush().map_err(|error| self.keep(error))
    }
}

impl<W: Write> Guarded<W> {
    /// Remembers why writing failed, because the engine can only tell that it did.
    fn keep(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.failed = Some(match kind {
            io::ErrorKind::BrokenPipe => CliError::PipeClosed,
            _ => CliError::Output(error),
        });
        io::Error::from(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_only() {
        let mut output = Guarded { output: Vec::new(), to_terminal: true, failed: None };
        output.write_all("text \u{e9}\n\t".as_bytes()).unwrap();
        assert!(output.write_all(b"\x1b]0;owned\x07").is_err());
        assert!(matches!(output.failed, Some(CliError::Usage { .. })));
        assert_eq!(output.output, "text \u{e9}\n\t".as_bytes());
        let mut pipe = Guarded { output: Vec::new(), to_terminal: false, failed: None };
        pipe.write_all(b"\x00\x1b").unwrap();
        assert_eq!(pipe.output, b"\x00\x1b");
    }
}
