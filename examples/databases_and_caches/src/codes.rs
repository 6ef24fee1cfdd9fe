//! Finds the code of an error, without its message: that may contain values.

use redis::RedisError;

/// The part of an error that a span may show.
pub trait ErrorCode {
    /// The code that the server sent.
    fn status_code(&self) -> Option<String>;
    /// One word from a short list, for an error without such a code.
    fn word(&self) -> &'static str;
}

impl ErrorCode for sqlx::Error {
    fn status_code(&self) -> Option<String> {
        Some(self.as_database_error()?.code()?.into_owned())
    }

    fn word(&self) -> &'static str {
        match self {
            sqlx::Error::PoolTimedOut => "pool_timeout",
            sqlx::Error::RowNotFound => "row_not_found",
            sqlx::Error::Io(_) => "io",
            _ => "_OTHER",
        }
    }
}

impl ErrorCode for RedisError {
    fn status_code(&self) -> Option<String> {
        self.code().map(str::to_owned)
    }

    fn word(&self) -> &'static str {
        match () {
            () if self.is_timeout() => "timeout",
            () if self.is_io_error() => "io",
            () => "_OTHER",
        }
    }
}
