//! Kinds of work, as HoneyHive groups them.

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A call of a language model.
    Model,
    /// A piece of ordinary work: a check, a query, a function.
    Tool,
    /// A sequence of models and tools.
    Chain,
    /// A conversation of several requests.
    Session,
    /// None of these.
    Generic,
}

impl EventType {
    /// The name that HoneyHive reads.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Model => "model",
            EventType::Tool => "tool",
            EventType::Chain => "chain",
            EventType::Session => "session",
            EventType::Generic => "generic",
        }
    }
}
