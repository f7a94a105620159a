//! What the user sees: data on stdout, everything else on stderr, colours only where somebody looks.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

use clap::{ColorChoice, ValueEnum};
use feast_core::Error;
use serde_json::Value;

use crate::arguments::{GlobalOptions, LogLevel};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Documented variants would make the help of every command a page longer.
    Table,
    Json,
    Yaml,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    // On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// What a colour means; none of them is the only sign of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Added,
    Changed,
    Removed,
    Strong,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Added => "\x1b[32m",
            Self::Changed => "\x1b[33m",
            Self::Removed => "\x1b[31m",
            Self::Strong => "\x1b[1m",
        }
    }
}

/// stdout and stderr of this run.
#[derive(Debug)]
pub(crate) struct Terminal {
    format: Option<Format>,
    color_stdout: bool,
    color_stderr: bool,
    /// Why stdout takes no more.
    lost: OnceLock<std::io::Error>,
}

impl Terminal {
    pub(crate) fn new(options: &GlobalOptions) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let color = |is_terminal: bool| match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !plain,
        };
        Self {
            format: options.output,
            color_stdout: color(std::io::stdout().is_terminal()),
            color_stderr: color(std::io::stderr().is_terminal()),
            lost: OnceLock::new(),
        }
    }

    /// What `--output` asks for; `None`: what suits the command.
    pub(crate) fn format(&self) -> Option<Format> {
        self.format
    }

    pub(crate) fn stdout_is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    pub(crate) fn stderr_is_terminal(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Whether somebody can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && self.stderr_is_terminal()
    }

    /// Asks a yes-or-no question; no answer is no.
    pub(crate) fn confirm(&self, question: &str) -> bool {
        let mut stderr = std::io::stderr();
        let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        asked.is_ok()
            && std::io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }

    /// Writes a line of data. When stdout is closed, the rest is dropped; see [`Terminal::finish`].
    pub(crate) fn print(&self, line: impl Display) {
        if self.lost.get().is_some() {
            return;
        }
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            let _ = self.lost.set(error);
        }
    }

    /// Says what was done, to people; whoever asks for structured data gets none, and the sentence beside it.
    pub(crate) fn done(&self, line: impl Display) {
        match self.format() {
            None | Some(Format::Table) => self.print(line),
            Some(_) => self.say(line),
        }
    }

    /// Whether it is pointless to print more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Writes a structured answer.
    pub(crate) fn print_value(&self, value: &Value, format: Format) {
        match format {
            Format::Yaml => self.print(yaml(value)),
            Format::Json | Format::Table => self.print(format_args!("{value:#}")),
        }
    }

    /// Writes a line that is not data.
    pub(crate) fn say(&self, line: impl Display) {
        // Nobody is left to tell when this fails.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Says something the user may want to know.
    pub(crate) fn warn(&self, text: impl Display) {
        self.say(format_args!("{}: {text}", self.styled_stderr(Style::Changed, "warning")));
    }

    /// Says what went wrong and what to do about it.
    pub(crate) fn error(&self, error: &Error) {
        self.say(format_args!("{}: {error}", self.styled_stderr(Style::Removed, "error")));
        if let Some(hint) = error.hint() {
            self.say(format_args!("{}: {hint}", self.styled_stderr(Style::Strong, "hint")));
        }
    }

    /// Text of stdout in a colour, where colours are used.
    pub(crate) fn styled(&self, style: Style, text: impl Display) -> String {
        styled(self.color_stdout, style, text)
    }

    fn styled_stderr(&self, style: Style, text: impl Display) -> String {
        styled(self.color_stderr, style, text)
    }

    /// The exit code, taking into account that data could not be written: a reader that has seen enough is no
    /// failure, a full disk is.
    pub(crate) fn finish(&self, code: i32) -> i32 {
        match self.lost.get() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                self.error(&Error::unavailable(format!("the output could not be written: {error}")));
                code.max(1)
            }
            _ => code,
        }
    }
}

fn styled(color: bool, style: Style, text: impl Display) -> String {
    if color { format!("{}{text}\x1b[0m", style.code()) } else { text.to_string() }
}

/// A value as YAML, without final line break. Texts that look like times are quoted: readers of YAML 1.1, such as
/// Python's, would take them for times.
pub(crate) fn yaml(value: &Value) -> String {
    let mut marked = value.clone();
    mark_times(&mut marked);
    let Ok(text) = yaml_serde::to_string(&marked) else { return format!("{value:#}") };
    let lines = text.lines().map(|line| match line.split_once(TIME_MARK) {
        Some((before, time)) => format!("{before}'{time}'"),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Stands before texts that look like times while YAML is written. No definition contains this private character.
const TIME_MARK: char = '\u{e000}';

fn mark_times(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(mark_times),
        Value::Array(items) => items.iter_mut().for_each(mark_times),
        Value::String(text) if looks_like_time(text) => text.insert(0, TIME_MARK),
        _ => {}
    }
}

/// Whether a text begins like a date and has nothing in it but digits and what separates them.
fn looks_like_time(text: &str) -> bool {
    let shape = |at: usize, byte: &u8| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() };
    text.len() >= 10
        && text.bytes().take(10).enumerate().all(|(at, byte)| shape(at, &byte))
        && text.bytes().skip(10).all(|byte| byte.is_ascii_digit() || b"TtZz:.+- ".contains(&byte))
}

/// Colours of help and usage errors, which are printed before the arguments are known.
pub(crate) fn color_of_help(args: &[OsString]) -> ColorChoice {
    let chosen = |arg: &OsString, next: Option<&OsString>| match arg.to_str()? {
        "--color" => next?.to_str().map(str::to_owned),
        other => other.strip_prefix("--color=").map(str::to_owned),
    };
    let value = (0..args.len()).find_map(|at| chosen(&args[at], args.get(at + 1)));
    match value.as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// Sends what the product logs to stderr: lines for people on a terminal, JSON where a program collects them.
pub(crate) fn log_to_stderr(terminal: &Terminal, level: Option<LogLevel>, server: bool) {
    use tracing_subscriber::EnvFilter;

    let default = level.unwrap_or(if server { LogLevel::Info } else { LogLevel::Warning });
    let filter = match (level, std::env::var("RUST_LOG")) {
        (None, Ok(directives)) => EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new(default.filter())),
        // What the client of AWS warns of is in the error that follows, and there in one line.
        (None, Err(_)) => EnvFilter::new(format!("{},aws_config=error", default.filter())),
        _ => EnvFilter::new(default.filter()),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second run in the same process keeps the first one's log.
    let _ = if server && !terminal.stderr_is_terminal() {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(terminal.color_stderr).try_init()
    };
}

/// A defect of the product is told in one sentence, like any other error.
pub(crate) fn tell_defects() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        let what = info
            .payload()
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| info.payload().downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        // Ends a task that waits for something while the runtime ends, and nothing else.
        if what.starts_with("A Tokio 1.x context was found, but it is being shutdown") {
            return;
        }
        let _ = writeln!(std::io::stderr(), "error: this is a defect of feast: {what}{place}");
        let _ = writeln!(std::io::stderr(), "hint: please report it with the command you ran");
    }));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_quoted_in_yaml() {
        let value = json!({"created": "2026-11-23T06:41:41.749010Z", "ttl": "172800s", "code": "a\n2026-11-23\n"});
        assert_eq!(yaml(&value), "created: '2026-11-23T06:41:41.749010Z'\nttl: 172800s\ncode: |\n  a\n  2026-11-23");
    }
}
