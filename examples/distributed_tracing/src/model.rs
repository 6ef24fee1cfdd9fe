//! The language model: a stand-in that runs offline.

use crate::error::CallError;

/// Answers `prompt`, always the same.
///
/// # Errors
/// A real model can fail. This one can't.
pub async fn chat(prompt: &str) -> Result<String, CallError> {
    Ok(format!("This is the offline model. You asked: {prompt}"))
}
