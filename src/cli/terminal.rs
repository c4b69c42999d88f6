//! The one way to a person's terminal: data to standard output, words to standard error.
//!
//! Invariants: what is printed is one line a call; characters that could steer the terminal, break the line or reverse what a person
//! reads (`format::is_hazard`) are shown as `\u{..}`, whoever wrote them; a reader that went away (`| head`) ends the printing
//! quietly, and the command still ends with its own exit code.
//!
//! Not here: what is printed.

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::format::is_hazard;

/// Where a command prints.
pub(super) struct Terminal {
    data: Box<dyn Write + Send>,
    words: Box<dyn Write + Send>,
    is_read: bool,
    /// Whether a person watches the words, so that a line may be written again.
    is_watched: bool,
}

impl Terminal {
    /// Standard output and standard error.
    pub(super) fn standard() -> Self {
        let is_watched = io::stderr().is_terminal();
        Self { is_watched, ..Self::new(Box::new(io::stdout()), Box::new(io::stderr())) }
    }

    /// Two other places.
    pub(super) fn new(data: Box<dyn Write + Send>, words: Box<dyn Write + Send>) -> Self {
        Self { data, words, is_read: true, is_watched: false }
    }

    /// Whether somebody still reads the data.
    pub(super) const fn is_read(&self) -> bool {
        self.is_read
    }

    /// Prints one line of data.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        self.print(&format!("{}\n", shown(&text.to_string())))
    }

    /// Prints a file of our own as it is: a schema, or a shell's script, whose tabs are part of its language.
    pub(super) fn file(&mut self, text: &str) -> io::Result<()> {
        self.print(text)
    }

    /// Prints a value as JSON: on one line, or for a person. Hazards stand in it as JSON writes them.
    pub(super) fn json(&mut self, value: &impl Serialize, is_pretty: bool) -> io::Result<()> {
        let text = if is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let mut safe = String::new();
        for c in text?.chars() {
            // Outside of texts there is no hazard but the line ends of the pretty form; within them serde has escaped those.
            match c {
                c if is_hazard(c) && c != '\n' => write!(safe, "\\u{:04x}", u32::from(c)).map_err(io::Error::other)?,
                c => safe.push(c),
            }
        }
        safe.push('\n');
        self.print(&safe)
    }

    /// Prints a table with its head, columns as wide as they need to be.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
        let head = head.map(str::to_owned);
        let width = |at: usize| rows.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for row in [&head].into_iter().chain(&rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{cell:width$}  ").map_err(io::Error::other)?;
            }
            self.print(&format!("{}\n", line.trim_end()))?;
        }
        Ok(())
    }

    /// Says one line. Words that cannot be said are nobody's loss.
    pub(super) fn say(&mut self, text: impl Display) {
        let _unheard = self.words.write_all(format!("{}\n", shown(&text.to_string())).as_bytes());
        let _unheard = self.words.flush();
    }

    /// Writes the line of progress again, where a person watches.
    pub(super) fn progress(&mut self, text: impl Display) {
        if self.is_watched {
            let _unseen = self.words.write_all(format!("\r{}\x1b[K", shown(&text.to_string())).as_bytes());
            let _unseen = self.words.flush();
        }
    }

    /// Whether progress is seen.
    pub(super) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Takes the line of progress away.
    pub(super) fn end_progress(&mut self) {
        self.progress("");
        if self.is_watched {
            let _unseen = self.words.write_all(b"\r").and_then(|()| self.words.flush());
        }
    }

    /// Says every line of an error, the first one behind `label`.
    pub(super) fn say_lines(&mut self, label: &str, text: &str) {
        let mut label = label.to_owned();
        for line in text.lines() {
            self.say(format_args!("{label}{line}"));
            label = " ".repeat(label.len());
        }
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if !self.is_read {
            return Ok(());
        }
        match self.data.write_all(text.as_bytes()).and_then(|()| self.data.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_read = false;
                Ok(())
            }
            result => result.map_err(|error| io::Error::new(error.kind(), format!("cannot write the output: {error}"))),
        }
    }
}

/// The text with every hazard shown as `\u{..}`.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hazard(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::Screen;

    #[test]
    fn nothing_that_is_printed_steers_the_terminal() {
        let hostile = "a\u{1b}[2J\nb\u{202e}exe.fdp\u{2028}c\u{9b}d\r\t\u{7f}";
        let safe = "a\\u{1b}[2J\\u{a}b\\u{202e}exe.fdp\\u{2028}c\\u{9b}d\\u{d}\\u{9}\\u{7f}";
        let screen = Screen::default();
        let mut terminal = screen.terminal();
        terminal.line(hostile).expect("printed");
        terminal.table(["A", "B"], &[[hostile.to_owned(), "x".to_owned()]]).expect("printed");
        terminal.json(&[hostile], true).expect("printed");
        terminal.say(hostile);
        assert_eq!(screen.words(), format!("{safe}\n"));
        let data = screen.data();
        assert!(data.starts_with(&format!("{safe}\nA")), "{data}");
        assert!(data.chars().all(|c| c == '\n' || !is_hazard(c)), "{data:?}");
        let json = &data[data.find("[\n").expect("JSON")..];
        assert_eq!(serde_json::from_str::<Vec<String>>(json).expect("still JSON"), [hostile]);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
        struct Failing(ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut terminal = Terminal::new(Box::new(Failing(ErrorKind::BrokenPipe)), Box::new(io::sink()));
        assert!(terminal.line("a").is_ok() && !terminal.is_read() && terminal.line("b").is_ok());
        let mut terminal = Terminal::new(Box::new(Failing(ErrorKind::StorageFull)), Box::new(io::sink()));
        assert!(terminal.line("a").is_err());
    }
}
