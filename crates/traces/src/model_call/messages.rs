//! Reads what was said in a call of a model or a tool, where the service recorded it. Senders write messages as JSON, as structured
//! values, as attributes with an index in their names, or as events.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{Kind, ModelCall};
use crate::proto::common::{AnyValue, KeyValue};
use crate::proto::trace::Span as Proto;
use crate::span::{self, any_text, shortened};

/// The most messages of one call, and the most parts of one message.
pub const MESSAGES_LIMIT: usize = 200;

/// The most bytes of text of one call.
pub const TEXT_LIMIT: usize = 256 * 1024;

/// The most characters of a role, a name or an id.
const NAME_LIMIT: usize = 200;

/// The most levels of an attribute's name such as `llm.input_messages.0.message.role`.
const LEVELS_LIMIT: usize = 10;

/// All that was said in one call, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Whether some of it isn't here, because there is more than [`MESSAGES_LIMIT`] or [`TEXT_LIMIT`].
    pub is_cut: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub side: Side,
    /// The speaker: `system`, `user`, `assistant`, `tool`, or whatever the sender wrote. The name of a parameter, for inputs that
    /// aren't messages.
    pub role: String,
    pub parts: Vec<Part>,
}

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The service sent it to the model.
    Input,
    /// The model answered it.
    Output,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Part {
    Text {
        text: String,
    },
    /// The model's thoughts before its answer.
    Reasoning {
        text: String,
    },
    /// The model asks for a tool.
    ToolCall {
        id: String,
        name: String,
        arguments: String,
    },
    /// The tool's answer.
    ToolResult {
        id: String,
        text: String,
    },
    /// Anything else, such as an image: its type.
    Other {
        kind: String,
    },
}

/// An event or a log record of a span: its name, attributes and body.
pub struct Said<'a> {
    pub name: &'a str,
    pub attributes: &'a [KeyValue],
    pub body: Option<&'a AnyValue>,
}

impl Conversation {
    /// Reads the messages of a call from its span and from the log records that were sent for it. Empty where the service recorded
    /// none.
    pub fn read<'a>(
        call: &ModelCall,
        proto: &'a Proto,
        records: impl IntoIterator<Item = Said<'a>>,
    ) -> Self {
        let events = proto.events.iter().map(|event| Said {
            name: &event.name,
            attributes: &event.attributes,
            body: None,
        });
        let events: Vec<Said> = events.chain(records).collect();
        let mut reader = Reader { conversation: Conversation::default(), left: TEXT_LIMIT };
        for side in [Side::Input, Side::Output] {
            // A call recorded under several names is shown once.
            for source in sources(call, &proto.attributes, &events, side) {
                let before = reader.conversation.messages.len();
                source.into_iter().for_each(|(role, json)| reader.read(side, &role, &json));
                if reader.conversation.messages.len() > before {
                    break;
                }
            }
        }
        reader.conversation
    }
}

/// Messages with the role of those that don't name one.
type Source = Vec<(String, Json)>;

/// Returns the places where messages of one side may be, the most specific first.
fn sources(call: &ModelCall, all: &[KeyValue], events: &[Said], side: Side) -> Vec<Source> {
    let of = |key: &str, role: &str| match attribute(all, key) {
        Some(json) => list(json).into_iter().map(|json| (role.to_owned(), json)).collect(),
        None => Source::new(),
    };
    let named = |prefix: &str, role: &str| {
        let found = indexed(all, prefix);
        found.into_iter().map(|json| (role.to_owned(), json)).collect::<Source>()
    };
    let role = match side {
        Side::Input => "user",
        Side::Output => "assistant",
    };
    let mut sources = Vec::new();
    match side {
        Side::Input => {
            let mut messages = system(all);
            messages.extend(of("gen_ai.input.messages", role));
            sources.push(messages);
            sources.push(named("gen_ai.prompt.", role));
            sources.push(named("llm.input_messages.", role));
            sources.push(of("gen_ai.prompt", role));
        }
        Side::Output => {
            sources.push(of("gen_ai.output.messages", role));
            sources.push(named("gen_ai.completion.", role));
            sources.push(named("llm.output_messages.", role));
            sources.push(of("gen_ai.completion", role));
        }
    }
    sources.push(events.iter().flat_map(|event| said(event, side)).collect());
    if call.kind == Kind::Tool {
        sources.extend(tool(call, all, side));
    }
    sources.extend(parameters(all, side));
    if attribute(all, "openinference.span.kind").is_some() {
        let key = match side {
            Side::Input => "input.value",
            Side::Output => "output.value",
        };
        let value = raw(all, key).map(|text| (key.to_owned(), Json::String(text)));
        sources.push(value.into_iter().collect());
    }
    sources
}

/// The instructions that stand outside of the messages.
fn system(all: &[KeyValue]) -> Source {
    let parts = attribute(all, "gen_ai.system_instructions");
    let message = parts.map(|parts| match parts {
        Json::Array(_) => serde_json::json!({ "parts": parts }),
        other => other,
    });
    message.into_iter().map(|json| ("system".to_owned(), json)).collect()
}

/// The arguments and the result of a tool's run.
fn tool(call: &ModelCall, all: &[KeyValue], side: Side) -> Option<Source> {
    let keys: &[&str] = match side {
        Side::Input => &["gen_ai.tool.call.arguments", "tool.parameters"],
        Side::Output => &["gen_ai.tool.call.result"],
    };
    let value = keys.iter().find_map(|key| raw(all, key))?;
    let id = call.tool_call_id.as_deref().unwrap_or_default();
    let part = match side {
        Side::Input => {
            let name = call.tool.as_deref().unwrap_or_default();
            serde_json::json!({ "type": "tool_call", "id": id, "name": name, "arguments": value })
        }
        Side::Output => {
            serde_json::json!({ "type": "tool_call_response", "id": id, "response": value })
        }
    };
    let role = if side == Side::Input { "assistant" } else { "tool" };
    Some(vec![(role.to_owned(), serde_json::json!({ "parts": [part] }))])
}

/// HoneyHive's inputs and outputs: messages, or the parameters and the result of a function.
fn parameters(all: &[KeyValue], side: Side) -> Vec<Source> {
    let (prefix, messages, role) = match side {
        Side::Input => ("honeyhive_inputs.", "chat_history", "user"),
        Side::Output => ("honeyhive_outputs.", "choices", "assistant"),
    };
    let fields = all.iter().filter_map(|it| Some((it.key.strip_prefix(prefix)?, it)));
    let fields: Vec<(&str, &KeyValue)> = fields.take(MESSAGES_LIMIT).collect();
    let found = |key: &str| {
        let (_, field) = fields.iter().find(|(name, _)| *name == key)?;
        Some(parsed(&field.value))
    };
    let history = found(messages).map(list).unwrap_or_default();
    let history = history.into_iter().map(|json| (role.to_owned(), json)).collect();
    let answer = match (found("role"), found("content")) {
        (Some(role), Some(content)) => {
            vec![(text(&role), serde_json::json!({ "content": content }))]
        }
        _ => Source::new(),
    };
    let rest =
        fields.iter().map(|(name, it)| (name.to_string(), Json::String(any_text(&it.value))));
    vec![history, answer, rest.collect()]
}

/// The messages of an event. Its fields are attributes, JSON in one attribute, or the body of a log record.
fn said(event: &Said, side: Side) -> Source {
    let role = match event.name {
        "gen_ai.system.message" => "system",
        "gen_ai.user.message" | "gen_ai.content.prompt" => "user",
        "gen_ai.tool.message" => "tool",
        "gen_ai.assistant.message" | "gen_ai.choice" | "gen_ai.content.completion" => "assistant",
        "gen_ai.client.inference.operation.details" => {
            let key = match side {
                Side::Input => "gen_ai.input.messages",
                Side::Output => "gen_ai.output.messages",
            };
            let role = if side == Side::Input { "user" } else { "assistant" };
            let mut source =
                if side == Side::Input { system(event.attributes) } else { Source::new() };
            let messages = attribute(event.attributes, key).map(list).unwrap_or_default();
            source.extend(messages.into_iter().map(|json| (role.to_owned(), json)));
            return source;
        }
        _ => return Source::new(),
    };
    let is_output = matches!(event.name, "gen_ai.choice" | "gen_ai.content.completion");
    if is_output != (side == Side::Output) {
        return Source::new();
    }
    let json = [
        attribute(event.attributes, "gen_ai.event.content"),
        attribute(event.attributes, "gen_ai.prompt"),
        attribute(event.attributes, "gen_ai.completion"),
        event.body.map(|body| parsed(&Some(body.clone()))),
    ];
    let json = json.into_iter().flatten().next().unwrap_or_else(|| {
        let fields = event.attributes.iter();
        Json::Object(fields.map(|it| (it.key.clone(), parsed(&it.value))).collect())
    });
    list(json).into_iter().map(|json| (role.to_owned(), json)).collect()
}

/// Puts the attributes below a prefix together: `0.role` and `0.content` are two fields of the first message.
fn indexed(all: &[KeyValue], prefix: &str) -> Vec<Json> {
    let mut messages: BTreeMap<u64, Json> = BTreeMap::new();
    for attribute in all {
        let Some((index, path)) =
            attribute.key.strip_prefix(prefix).and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let Ok(index) = index.parse() else { continue };
        put(messages.entry(index).or_default(), path, LEVELS_LIMIT, written(&attribute.value));
    }
    messages.into_values().collect()
}

/// Sets a field of a field, whose names are separated by dots.
fn put(place: &mut Json, path: &str, levels: usize, value: Json) {
    if !place.is_object() {
        *place = Json::Object(Map::new());
    }
    let Json::Object(fields) = place else { return };
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) if levels > 1 => (name, Some(rest)),
        _ => (path, None),
    };
    let place = fields.entry(name).or_insert(Json::Null);
    match rest {
        Some(rest) => put(place, rest, levels - 1, value),
        None => *place = value,
    }
}

/// A value as JSON. A text stays what the model wrote, even if it is JSON, unless it lists the parts of a message.
fn written(value: &Option<AnyValue>) -> Json {
    let is_part = |part: &Json| part["type"].is_string();
    match parsed(value) {
        Json::Array(parts) if !parts.is_empty() && parts.iter().all(is_part) => Json::Array(parts),
        _ => span::json(value.as_ref().and_then(|it| it.value.as_ref())),
    }
}

fn attribute(all: &[KeyValue], key: &str) -> Option<Json> {
    let found = all.iter().find(|it| it.key == key)?;
    Some(parsed(&found.value)).filter(|json| !json.is_null())
}

fn raw(all: &[KeyValue], key: &str) -> Option<String> {
    let found = all.iter().find(|it| it.key == key)?;
    Some(any_text(&found.value)).filter(|text| !text.is_empty())
}

/// A value as JSON. A text that is an object or a list in JSON becomes that.
fn parsed(value: &Option<AnyValue>) -> Json {
    let json = span::json(value.as_ref().and_then(|it| it.value.as_ref()));
    match &json {
        Json::String(text) if text.trim_start().starts_with(['{', '[']) => {
            serde_json::from_str(text).unwrap_or(json)
        }
        _ => json,
    }
}

/// The messages of a value that has one or several.
fn list(json: Json) -> Vec<Json> {
    match json {
        Json::Array(items) => items,
        Json::Object(mut fields) => match fields.remove("messages") {
            Some(Json::Array(items)) => items,
            Some(other) => {
                fields.insert("messages".to_owned(), other);
                vec![Json::Object(fields)]
            }
            None => vec![Json::Object(fields)],
        },
        Json::Null => Vec::new(),
        other => vec![other],
    }
}

/// The items of a list, or of an object with an index for each, as [`indexed`] makes it.
fn items(json: &Json) -> Vec<&Json> {
    match json {
        Json::Array(items) => items.iter().collect(),
        Json::Object(fields) => {
            let numbered =
                fields.iter().filter_map(|(key, item)| Some((key.parse::<u64>().ok()?, item)));
            numbered.collect::<BTreeMap<_, _>>().into_values().collect()
        }
        _ => Vec::new(),
    }
}

/// A value as text: a string as it is, anything else as JSON.
fn text(json: &Json) -> String {
    match json {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first of some fields that isn't empty, as text.
fn field(json: &Json, keys: &[&str]) -> String {
    keys.iter().map(|key| text(&json[*key])).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Reads messages until the limits are reached.
struct Reader {
    conversation: Conversation,
    /// The bytes of text that may follow.
    left: usize,
}

impl Reader {
    fn read(&mut self, side: Side, role: &str, json: &Json) {
        if self.conversation.messages.len() == MESSAGES_LIMIT {
            self.conversation.is_cut = true;
            return;
        }
        // A choice has its message inside; so has each message of OpenInference.
        let message = json.get("message").filter(|it| it.is_object()).unwrap_or(json);
        let own = message["role"].as_str().filter(|it| !it.is_empty()).unwrap_or(role);
        let role = shortened(own, NAME_LIMIT);
        let answers = field(message, &["tool_call_id"]);
        let answers = match role.as_str() {
            "tool" if answers.is_empty() => field(message, &["id"]),
            _ => answers,
        };
        let mut parts = Vec::new();
        for content in contents(message).into_iter().take(MESSAGES_LIMIT + 1) {
            parts.extend(self.part(content, &answers, role == "tool"));
        }
        for call in items(&message["tool_calls"]).into_iter().take(MESSAGES_LIMIT + 1) {
            parts.push(self.tool_call(call.get("tool_call").unwrap_or(call)));
        }
        let old = [&message["function_call"], &message["function_call_name"]];
        if let Some(call) = old.iter().find(|it| !it.is_null()) {
            let name = if call.is_object() { field(call, &["name"]) } else { text(call) };
            let arguments = match call.is_object() {
                true => field(call, &["arguments"]),
                false => field(message, &["function_call_arguments_json"]),
            };
            parts.push(Part::ToolCall {
                id: String::new(),
                name: shortened(&name, NAME_LIMIT),
                arguments: self.cut(&arguments),
            });
        }
        if parts.len() > MESSAGES_LIMIT {
            parts.truncate(MESSAGES_LIMIT);
            self.conversation.is_cut = true;
        }
        if !parts.is_empty() {
            self.conversation.messages.push(Message { side, role, parts });
        }
    }

    fn part(&mut self, json: &Json, answers: &str, is_tool: bool) -> Option<Part> {
        let json = json.get("message_content").unwrap_or(json);
        let kind = json["type"].as_str().unwrap_or_default();
        let content = match json {
            Json::Object(_) => field(json, &["content", "text", "thinking", "reasoning"]),
            other => text(other),
        };
        let id = |keys: &[&str]| shortened(&field(json, keys), NAME_LIMIT);
        Some(match kind {
            "tool_call" | "tool_use" | "function_call" => self.tool_call(json),
            "tool_call_response" | "tool_result" | "function_call_output" => {
                let result = field(json, &["response", "result", "content", "output"]);
                Part::ToolResult {
                    id: id(&["id", "tool_use_id", "call_id"]),
                    text: self.cut(&result),
                }
            }
            "reasoning" | "thinking" => Part::Reasoning { text: self.cut(&content) },
            "" if content.is_empty() => match json {
                // The model's own JSON.
                Json::Object(fields) if !fields.is_empty() => {
                    Part::Text { text: self.cut(&json.to_string()) }
                }
                _ => return None,
            },
            "text" if content.is_empty() => return None,
            _ if content.is_empty() => Part::Other { kind: shortened(kind, NAME_LIMIT) },
            _ if is_tool || !answers.is_empty() => {
                Part::ToolResult { id: shortened(answers, NAME_LIMIT), text: self.cut(&content) }
            }
            _ => Part::Text { text: self.cut(&content) },
        })
    }

    fn tool_call(&mut self, json: &Json) -> Part {
        let function = json.get("function").unwrap_or(json);
        let name = |json: &Json, keys: &[&str]| shortened(&field(json, keys), NAME_LIMIT);
        Part::ToolCall {
            id: name(json, &["id", "call_id"]),
            name: name(function, &["name"]),
            arguments: self.cut(&field(function, &["arguments", "input"])),
        }
    }

    /// Takes as much of a text as the limit allows.
    fn cut(&mut self, text: &str) -> String {
        let end = (0..=self.left.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        let end = end.unwrap_or_default();
        self.conversation.is_cut |= end < text.len();
        self.left -= end;
        text[..end].to_owned()
    }
}

/// The parts of a message, or its text.
fn contents(message: &Json) -> Vec<&Json> {
    match message {
        Json::Object(fields) => {
            let listed = ["parts", "contents"].iter().find_map(|key| fields.get(*key));
            match (listed, fields.get("content")) {
                (Some(listed), _) => items(listed),
                (None, Some(Json::Array(parts))) => parts.iter().collect(),
                (None, Some(content)) if !content.is_null() => {
                    let listed = items(content);
                    if listed.is_empty() { vec![content] } else { listed }
                }
                (None, _) => fields.get("text").into_iter().collect(),
            }
        }
        Json::Null => Vec::new(),
        text => vec![text],
    }
}
