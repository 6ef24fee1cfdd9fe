//! Reads the call of a language model, a tool or an agent from a span: models, tokens, and why the answer ended. [`messages`] reads
//! what was said.
//!
//! Knows the names of [OpenTelemetry's conventions](https://opentelemetry.io/docs/specs/semconv/gen-ai/), older ones among them, those
//! of [OpenInference](https://arize-ai.github.io/openinference/spec/semantic_conventions.html), OpenLLMetry and HoneyHive.

pub mod messages;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::conventions::first;
use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value;
use crate::proto::trace::Span as Proto;
use crate::span::{any_text, shortened};
use crate::tree::Tree;

/// The most reasons that are read of one call.
const REASONS_LIMIT: usize = 10;

/// The most characters of a model's name, a provider or a reason.
const NAME_LIMIT: usize = 200;

const OPERATION: [&str; 3] =
    ["gen_ai.operation.name", "openinference.span.kind", "llm.request.type"];
const EVENT_TYPE: &str = "honeyhive_event_type";
const PROVIDER: [&str; 5] = [
    "gen_ai.provider.name",
    "gen_ai.system",
    "llm.provider",
    "llm.system",
    "honeyhive_config.provider",
];
const REQUESTED: [&str; 3] =
    ["gen_ai.request.model", "llm.request.model_name", "honeyhive_config.model"];
const ANSWERED: [&str; 4] =
    ["gen_ai.response.model", "llm.response.model_name", "llm.model_name", "embedding.model_name"];
const INPUT_TOKENS: [&str; 5] = [
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
    "honeyhive_metadata.prompt_tokens",
];
const OUTPUT_TOKENS: [&str; 5] = [
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
    "honeyhive_metadata.completion_tokens",
];
const REASONS: [&str; 5] = [
    "gen_ai.response.finish_reasons",
    "llm.finish_reason",
    "gen_ai.completion.0.finish_reason",
    "llm.response.finish_reason",
    "honeyhive_outputs.finish_reason",
];

/// The beginnings of the names by which a call has a model or tokens.
const PREFIXES: [&str; 4] = ["gen_ai.", "llm.", "embedding.", "honeyhive_"];

/// A span's work, as its sender names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model answers, or turns text into vectors.
    Model,
    /// A tool runs that a model has asked for.
    Tool,
    /// An agent, a chain or a retriever works. The calls of models and tools are below it.
    Agent,
}

/// The facts about a call. All are as the sender wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelCall {
    pub kind: Kind,
    /// The operation in the sender's own word, such as `chat` or `LLM`.
    pub operation: Option<String>,
    pub provider: Option<String>,
    /// The model that the service asked for.
    pub requested: Option<String>,
    /// The model that answered. A provider may resolve a name to a version.
    pub answered_by: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// The reasons why the answers ended, one for each: `stop`, `length`, `tool_calls` and so on.
    pub finish_reasons: Vec<String>,
    /// The name of the tool that ran.
    pub tool: Option<String>,
    /// The id by which the model's answer refers to this run of the tool.
    pub tool_call_id: Option<String>,
}

impl ModelCall {
    /// Reads the facts of a span. Returns `None` if no attribute says that the span is such a call.
    pub fn read(proto: &Proto) -> Option<Self> {
        let named = |keys: &[&str]| {
            let text = first(proto, keys).filter(|text| !text.is_empty());
            text.map(|text| shortened(&text, NAME_LIMIT))
        };
        let operation = named(&OPERATION);
        let is_tool = operation.as_deref().and_then(kind) == Some(Kind::Tool);
        let tool = named(match is_tool {
            true => &["gen_ai.tool.name", "tool.name"],
            false => &["gen_ai.tool.name"],
        });
        let (requested, answered_by) = (named(&REQUESTED), named(&ANSWERED));
        let (input_tokens, output_tokens) =
            (number(proto, &INPUT_TOKENS), number(proto, &OUTPUT_TOKENS));
        let has_model = requested.is_some() || answered_by.is_some();
        let kind = match &operation {
            Some(operation) => kind(operation),
            None if tool.is_some() => Some(Kind::Tool),
            None if has_model || input_tokens.is_some() => Some(Kind::Model),
            None => {
                // HoneyHive types every span. Only those with inputs or outputs have something to show.
                let is_known = |it: &KeyValue| {
                    ["honeyhive_inputs.", "honeyhive_outputs."]
                        .iter()
                        .any(|of| it.key.starts_with(of))
                };
                let event_type = named(&[EVENT_TYPE]).filter(|it| it == "model" || it == "tool");
                event_type
                    .filter(|_| proto.attributes.iter().any(is_known))
                    .and_then(|it| kind(&it))
            }
        };
        Some(ModelCall {
            kind: kind?,
            operation: operation.or_else(|| named(&[EVENT_TYPE])),
            provider: named(&PROVIDER),
            requested,
            answered_by,
            input_tokens,
            output_tokens,
            finish_reasons: finish_reasons(proto),
            tool,
            tool_call_id: named(match is_tool {
                true => &["gen_ai.tool.call.id", "tool_call.id", "tool.id"],
                false => &["gen_ai.tool.call.id"],
            }),
        })
    }

    /// Returns the model that answered, or else the one that was asked for.
    pub fn model(&self) -> Option<&str> {
        self.answered_by.as_deref().or(self.requested.as_deref())
    }

    fn has_tokens(&self) -> bool {
        self.input_tokens.is_some() || self.output_tokens.is_some()
    }
}

/// Reads the word for an operation. Every word that isn't known is a model's, because new names for calls appear often.
fn kind(operation: &str) -> Option<Kind> {
    Some(match operation.to_ascii_lowercase().as_str() {
        "execute_tool" | "tool" => Kind::Tool,
        "invoke_agent" | "create_agent" | "invoke_workflow" | "agent" | "chain" | "workflow"
        | "task" | "retriever" | "retrieval" | "reranker" | "guardrail" | "evaluator"
        | "prompt" | "decision" => Kind::Agent,
        "" | "unknown" => return None,
        _ => Kind::Model,
    })
}

fn number(proto: &Proto, keys: &[&str]) -> Option<u64> {
    let text = first(proto, keys)?;
    text.parse().ok().or_else(|| {
        // Some senders count in doubles.
        let number: f64 = text.parse().ok()?;
        (number >= 0.0 && number.fract() == 0.0 && number < 1e15).then_some(number as u64)
    })
}

fn finish_reasons(proto: &Proto) -> Vec<String> {
    let value = REASONS.iter().find_map(|key| {
        let found = proto.attributes.iter().find(|it| it.key == *key)?;
        found.value.as_ref()?.value.as_ref()
    });
    let texts = match value {
        Some(Value::ArrayValue(array)) => {
            array.values.iter().take(REASONS_LIMIT).map(|it| any_text(&Some(it.clone()))).collect()
        }
        Some(Value::StringValue(text)) => vec![text.clone()],
        _ => Vec::new(),
    };
    texts.iter().filter(|it| !it.is_empty()).map(|it| shortened(it, NAME_LIMIT)).collect()
}

/// The calls of one model, and their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub calls: usize,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The calls whose tokens the sender didn't count.
    pub uncounted: usize,
}

/// Sums the tokens of a trace by model. A library and the client that it wraps often both record the same call, one span below the
/// other: only the inner one counts, or the one that has tokens.
pub fn usage(tree: &Tree) -> BTreeMap<String, Usage> {
    let read = tree.rows.iter().map(|row| {
        if !row.span.mentions(&PREFIXES) {
            return None;
        }
        let call = ModelCall::read(&row.span.proto())?;
        (call.kind == Kind::Model && (call.has_tokens() || call.model().is_some())).then_some(call)
    });
    let calls: Vec<Option<ModelCall>> = read.collect();
    let counted = |row: usize| calls[row].as_ref().is_some_and(ModelCall::has_tokens);
    // For each row: whether a call with tokens is above it, and whether one is below it.
    let (mut above, mut below) = (vec![false; calls.len()], vec![false; calls.len()]);
    for (index, row) in tree.rows.iter().enumerate() {
        above[index] = row.parent.is_some_and(|parent| above[parent] || counted(parent));
    }
    for (index, row) in tree.rows.iter().enumerate().rev() {
        if let Some(parent) = row.parent {
            below[parent] |= below[index] || counted(index);
        }
    }
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let Some(call) = call else { continue };
        if below[index] || (above[index] && !call.has_tokens()) {
            continue;
        }
        let sum = usage.entry(call.model().unwrap_or("unknown model").to_owned()).or_default();
        sum.calls += 1;
        sum.uncounted += usize::from(!call.has_tokens());
        sum.input_tokens = sum.input_tokens.saturating_add(call.input_tokens.unwrap_or_default());
        sum.output_tokens =
            sum.output_tokens.saturating_add(call.output_tokens.unwrap_or_default());
    }
    usage
}
