//! Asking the one at the terminal. Questions go to stderr, so that stdout holds answers only.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::SecretString;
use zeroize::Zeroize;

/// One line, without its end.
pub fn line(question: &str) -> io::Result<String> {
    let mut err = io::stderr().lock();
    write!(err, "{question}")?;
    err.flush()?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        writeln!(err)?;
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "there is nobody to answer; use the options of the command",
        ));
    }
    Ok(answer.trim().to_owned())
}

/// A secret: from the environment, or typed without being shown.
pub fn secret(variable: &str, question: &str) -> io::Result<SecretString> {
    if let Ok(value) = env::var(variable) {
        return Ok(SecretString::from(value));
    }
    let hidden = Hidden::begin()?;
    let typed = line(question);
    if hidden.is_some() {
        writeln!(io::stderr())?;
    }
    drop(hidden);
    let mut typed = typed?;
    let secret = SecretString::from(typed.as_str());
    typed.zeroize();
    Ok(secret)
}

/// What is typed is not shown until this is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    /// Absent where no terminal shows anything.
    fn begin() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let shown = tcgetattr(&stdin)?;
        let mut quiet = shown.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        Ok(Some(Self(shown)))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
