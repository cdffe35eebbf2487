//! Asks before a change: on a terminal by a question, elsewhere by requiring `--yes`.

use std::io::{self, BufRead, IsTerminal};

use obyra_evidence::{Failure, Message, text};

use crate::cli::Consent;
use crate::printer::Printer;

/// Goes on only with consent to `what`.
pub fn confirm(printer: &Printer, consent: Consent, what: Message) -> Result<(), Failure> {
    if consent.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::refused(text::cli::CONSENT_MISSING).mended_by(text::cli::CONSENT_MEND));
    }
    printer.ask(&what);
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_lowercase().as_str()) {
        (Ok(1..), "y" | "yes" | "s" | "si" | "sí") => Ok(()),
        _ => Err(Failure::refused(text::cli::CONSENT_REFUSED)),
    }
}
