//! How a command ends.

use feast_core::Error;

/// A command that did what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing more to say.
    Done,
    /// `plan --exit-code` found changes.
    Changes,
}

impl Exit {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Changes => 2,
        }
    }
}

/// A command that did not.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong.
    Error(Error),
    /// The arguments do not belong together.
    Usage(Box<clap::Error>),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// What a command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
