//! For GitHub Actions: workflow commands, which show a finding at its line of the pull request.

use crate::{Finding, Language, Severity};

/// One line for each finding.
pub fn annotations(findings: &[Finding], language: Language) -> String {
    findings.iter().map(|finding| annotation(finding, language)).collect()
}

fn annotation(finding: &Finding, language: Language) -> String {
    let command = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let mut properties = Vec::new();
    if let Some(place) = &finding.place {
        let file = place.file.to_string_lossy();
        properties.push(format!("file={}", property(file.strip_prefix("./").unwrap_or(&file))));
        properties.push(format!("line={}", place.line));
        properties.push(format!("col={}", place.column));
    }
    properties.push(format!("title={}", property(finding.message.code().id())));
    let mut message = finding.message.say(language);
    if let Some(mend) = &finding.mend {
        message += &format!("\n-> {}", mend.say(language));
    }
    format!("::{command} {}::{}\n", properties.join(","), data(&message))
}

/// What a message may not hold as it is; otherwise a file's name could give commands to the runner.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{Place, text};

    #[test]
    fn a_name_cannot_give_commands() {
        let place = Place { file: PathBuf::from("./a,b:c%\n::error::x.py"), line: 3, column: 5 };
        let finding = Finding::new(Severity::Note, "a", text::scan::NOT_UTF8).at(place);
        assert_eq!(
            annotations(&[finding], Language::En),
            "::notice file=a%2Cb%3Ac%25%0A%3A%3Aerror%3A%3Ax.py,line=3,col=5,title=scan.not-utf8::this byte is no UTF-8, \
             and no coding cookie names another encoding\n"
        );
    }
}
