//! One error for the whole of planish: what is wrong, where (file, node, attribute), and what to do next.
//!
//! Models are hostile until shown otherwise, so every message names its place. Context is added on the way up by
//! [`Context::context`]: the innermost text says what is wrong, the outer ones where.

use std::fmt;

/// A result of planish.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of failure an [`Error`] reports; callers branch on this, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input (model, tensor, image, argument) is malformed or inconsistent.
    Invalid,
    /// The input is well formed and asks for something planish does not do.
    Unsupported,
    /// A stated cap (memory, size, count, time) would be passed.
    Limit,
    /// Reading or writing a file failed.
    Io,
    /// The caller cancelled the work.
    Cancelled,
}

/// What is wrong and where. See [`ErrorKind`].
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), context: Vec::new() }
    }
    /// Malformed input.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }
    /// Well-formed input that planish does not handle.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }
    /// A cap would be passed.
    pub fn limit(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Limit, message)
    }
    /// A file operation failed on `path`.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Error {
        Error::new(ErrorKind::Io, error.to_string()).at(path.display().to_string())
    }
    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// The innermost message, without the places.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// Names an enclosing place ("node \"conv1\" (Conv)", "model.onnx").
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        let place = place.into();
        // The same place may be named on two levels (a file by its reader and by its command): once is enough.
        if self.context.last() != Some(&place) {
            self.context.push(place);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.context.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// Adds a place to an error on its way up.
pub trait Context<T> {
    /// Names the place where the error arose; `place` is only called on failure.
    fn context<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}

/// Returns an [`ErrorKind::Invalid`] error built like `format!`.
#[macro_export]
macro_rules! invalid {
    ($($arg:tt)*) => { return Err($crate::Error::invalid(format!($($arg)*))) };
}

/// Returns an [`ErrorKind::Unsupported`] error built like `format!`.
#[macro_export]
macro_rules! unsupported {
    ($($arg:tt)*) => { return Err($crate::Error::unsupported(format!($($arg)*))) };
}
