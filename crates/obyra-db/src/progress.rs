//! Progress of long work: a bar on a terminal, a quiet line without one.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use obyra_evidence::{Message, Progress};

use crate::printer::Printer;

/// Draws the progress of one piece of work at a time on stderr.
pub struct Bars {
    printer: Printer,
    drawn: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Bars for a terminal; plain lines where there is none or where they are not wanted.
    pub fn new(printer: Printer, wanted: bool) -> Self {
        Bars { printer, drawn: wanted && std::io::stderr().is_terminal(), bar: Mutex::new(None) }
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn begin(&self, what: Message, total: Option<u64>) {
        if !self.drawn {
            self.printer.note(what);
            return;
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style("{msg} {bar:30} {percent}% {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}")),
        };
        bar.set_message(what.say(self.printer.language));
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Some(previous) = self.bar().replace(bar) {
            previous.finish_and_clear();
        }
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = self.bar().as_ref() {
            bar.inc(by);
        }
    }

    fn done(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, what: Message) {
        match self.bar().as_ref() {
            Some(bar) => bar.suspend(|| self.printer.note(what)),
            None => self.printer.note(what),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
