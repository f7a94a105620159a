//! `feast doctor`.

use clap::Args;
use feast::{Finding, Severity};

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::{Format, Style};

/// Examine the configuration and the registry, and change nothing
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Exit with 2 when there are findings
    #[arg(long)]
    exit_code: bool,
}

impl Doctor {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut findings = feast::secrets_in(&session.config_text()?);
        let store = session.store()?;
        findings.extend(session.wait(async { store.examine().await })?);
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => {
                for Finding { severity, check, object, evidence, fix } in &findings {
                    let (word, style) = match severity {
                        Severity::Error => ("error", Style::Removed),
                        Severity::Warning => ("warning", Style::Changed),
                        Severity::Note => ("note", Style::Strong),
                    };
                    let word = terminal.styled(style, word);
                    terminal.print(format_args!("{word} [{check}] {object}\n    {evidence}\n    fix: {fix}"));
                }
                let count = |severity, word| {
                    let number = findings.iter().filter(|finding| finding.severity == severity).count();
                    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
                };
                terminal.print(format_args!(
                    "{}, {}, {}",
                    count(Severity::Error, "error"),
                    count(Severity::Warning, "warning"),
                    count(Severity::Note, "note")
                ));
            }
            Some(format) => terminal.print_value(&super::to_value(&findings)?, format),
        }
        let serious = findings.iter().any(|finding| finding.severity != Severity::Note);
        Ok(if self.exit_code && serious { Exit::Changes } else { Exit::Done })
    }
}
