//! What is wrong with a configuration file, and where.

use std::{fmt, io, ops::Range, path::PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read configuration {}: {cause}", file.display())]
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A flag sets a key to what it cannot be.
    #[error("{key}: {}", cause.message())]
    Flag {
        /// The table and the key.
        key: String,
        /// What is wrong with the value.
        cause: toml::de::Error,
    },
    /// It can be read, and something in it is wrong.
    #[error("{}", Listed { file, faults })]
    Faulty {
        /// Its path.
        file: PathBuf,
        /// All that was found, in the order of the file.
        faults: Vec<Fault>,
    },
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl Fault {
    /// A fault at a span of bytes of a text.
    pub(super) fn at(text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }
}

struct Listed<'a> {
    file: &'a PathBuf,
    faults: &'a [Fault],
}

/// One line a fault, in the form that editors jump to.
impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let (line, column) = (fault.line, fault.column);
            let (file, message) = (self.file.display(), &fault.message);
            write!(f, "{file}:{line}:{column}: {message}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_placed_by_characters() {
        let text = "a = 1\nää = 2\n";
        let at = text.find('2').unwrap();
        let fault = Fault::at(text, at..at + 1, "");
        assert_eq!((fault.line, fault.column), (2, 6));
    }

    #[test]
    fn the_end_of_the_file_is_a_place() {
        let fault = Fault::at("a =", 3..3, "");
        assert_eq!((fault.line, fault.column), (1, 4));
    }
}
