//! Where text goes: how wide it may be, and whether it may have colours.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::{
    model::Verdict,
    text::{lines, styled},
};

/// Standard output, as seen by whoever formats for it.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    width: usize,
    colour: bool,
}

impl Terminal {
    /// For text that goes to a file or a pipe.
    const PLAIN: Self = Self {
        width: 80,
        colour: false,
    };
    /// Lines longer than this are hard to read.
    const WIDEST: usize = 100;
    const NARROWEST: usize = 40;

    /// What standard output is. `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM` are respected.
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let columns = stdout.is_terminal().then(|| {
            let size = rustix::termios::tcgetwinsize(&stdout);
            size.map_or(0, |size| size.ws_col)
        });
        Self {
            width: columns.map_or(Self::PLAIN.width, Self::width_of),
            colour: AutoStream::choice(&stdout) != ColorChoice::Never,
        }
    }

    /// A serial console reports no columns, that is 0.
    fn width_of(columns: u16) -> usize {
        match usize::from(columns) {
            0 => Self::PLAIN.width,
            columns => columns.clamp(Self::NARROWEST, Self::WIDEST),
        }
    }

    /// Columns that a line may have.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A verdict's name, in its colour where there are colours.
    pub fn verdict(&self, verdict: Verdict) -> String {
        let name = verdict.name();
        if !self.colour {
            return name.to_owned();
        }
        let colour = match verdict {
            Verdict::Healthy => AnsiColor::Green,
            Verdict::Unknown => AnsiColor::Cyan,
            Verdict::Warning => AnsiColor::Yellow,
            Verdict::Critical => AnsiColor::Red,
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        format!("{style}{name}{style:#}")
    }

    /// A terminal of this width for tests.
    #[cfg(test)]
    pub fn plain(width: usize) -> Self {
        Self {
            width,
            colour: false,
        }
    }
}

/// Writes to standard output; text from outside does nothing to a terminal. A reader that has gone away, as `head` does, has
/// what it wanted.
///
/// # Errors
///
/// Every other error of writing.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(styled(text, lines).as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("write to standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells a person what went wrong, on standard error.
pub fn complain(what: &str) {
    eprintln!("nodemedic: {}", lines(what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_reports_no_width_gets_80_columns() {
        for (reported, width) in [(0, 80), (20, 40), (72, 72), (200, 100)] {
            assert_eq!(Terminal::width_of(reported), width, "{reported}");
        }
    }
}
