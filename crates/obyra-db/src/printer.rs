//! The program's voice: data on stdout, everything else on stderr, in the reader's language.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use obyra_evidence::render::{self, Style};
use obyra_evidence::{Failure, Finding, Language, Message, text};
use serde::Serialize;

/// Where and how the program speaks.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// The reader's language.
    pub language: Language,
    /// Results as JSON.
    pub json: bool,
    /// Whether the results at hand are steps of a longer work, which has a result of its own.
    pub within: bool,
    quiet: bool,
}

impl Printer {
    /// A printer for a language.
    pub fn new(language: Language, json: bool, quiet: bool) -> Self {
        Printer { language, json, within: false, quiet }
    }

    /// How results look on stdout: colour only on a terminal, and never needed.
    pub fn style(&self) -> Style {
        Style { colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Prints data, as it is.
    pub fn data(&self, text: &str) {
        if OUTPUT.load(Ordering::Relaxed) != HEARD {
            return;
        }
        let mut out = anstream::stdout().lock();
        let written =
            write!(out, "{text}").and_then(|()| if text.ends_with('\n') { Ok(()) } else { writeln!(out) });
        heed(written.and_then(|()| out.flush()), self.language);
    }

    /// Where data too large for a string goes.
    pub fn stream(&self) -> impl Write {
        Stream(io::stdout().lock(), self.language)
    }

    /// Prints a value as JSON.
    pub fn json<T: Serialize>(&self, value: &T) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"));
        self.data(&text);
    }

    /// Prints the JSON of a verb that may also be a step of `up`, whose one document is the checklist.
    pub fn json_of_step<T: Serialize>(&self, value: &T) {
        if !self.within {
            self.json(value);
        }
    }

    /// A sentence of the result.
    pub fn line(&self, message: impl Into<Message>) {
        self.data(&message.into().say(self.language));
    }

    /// A sentence about what is going on.
    pub fn note(&self, message: impl Into<Message>) {
        if !self.quiet {
            self.stderr(&message.into().say(self.language));
        }
    }

    /// A heading in the course of longer work.
    pub fn heading(&self, message: impl Into<Message>) {
        if !self.quiet {
            self.stderr(&format!("\n== {}", message.into().say(self.language)));
        }
    }

    /// Asks a question; the answer is read elsewhere.
    pub fn ask(&self, message: &Message) {
        let question = text::cli::QUESTION.with("what", message.say(self.language)).say(self.language);
        let mut err = anstream::stderr().lock();
        // A closed stderr leaves nobody to ask; the read that follows then refuses.
        let _ = write!(err, "{question} ").and_then(|()| err.flush());
    }

    /// Something about the strategy file that deserves a look.
    pub fn warning(&self, finding: &Finding) {
        if !self.quiet {
            let style = self.style_of_stderr();
            self.stderr(
                render::terminal::finding(finding, self.language, style, &render::from_disk).trim_end(),
            );
        }
    }

    /// A failure, whole: what, where, why, mend.
    pub fn failure(&self, failure: &Failure) {
        let style = self.style_of_stderr();
        self.stderr(render::terminal::failure(failure, self.language, style, &render::from_disk).trim_end());
    }

    fn style_of_stderr(&self) -> Style {
        Style { colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn stderr(&self, text: &str) {
        // Nobody listens on a closed stderr; the exit code still tells.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}

/// What became of standard output. A verb that changes something goes on to its end whoever listens:
/// ending it in the middle would leave a server running or a change unrecorded.
static OUTPUT: AtomicU8 = AtomicU8::new(HEARD);
const HEARD: u8 = 0;
/// `obyra-db plan dev | head`: the reader has seen enough, which is no error.
const CLOSED: u8 = 1;
/// Anything else is one, lest half a report on a full disk look like a whole one.
const UNWRITABLE: u8 = 2;

/// Whether results could not be written out; the program then ends with a failure.
pub fn output_is_unwritable() -> bool {
    OUTPUT.load(Ordering::Relaxed) == UNWRITABLE
}

/// Remembers what became of standard output; a failure is told once.
fn heed(written: io::Result<()>, language: Language) {
    let Err(error) = written else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        OUTPUT.store(CLOSED, Ordering::Relaxed);
        return;
    }
    OUTPUT.store(UNWRITABLE, Ordering::Relaxed);
    Printer::new(language, false, false).failure(&Failure::new(text::cli::OUTPUT_UNWRITABLE).because(error));
}

/// Standard output for what is streamed; once it is lost, the rest goes nowhere.
struct Stream(io::StdoutLock<'static>, Language);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if OUTPUT.load(Ordering::Relaxed) == HEARD {
            heed(self.0.write_all(bytes), self.1);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if OUTPUT.load(Ordering::Relaxed) == HEARD {
            heed(self.0.flush(), self.1);
        }
        Ok(())
    }
}
