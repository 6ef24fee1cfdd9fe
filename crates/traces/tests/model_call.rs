//! Calls of models and tools, as the libraries of each convention write them.

use serde_json::{Value, json};
use support::in_process::spans;
use traces::model_call::messages::{Conversation, MESSAGES_LIMIT, Said, TEXT_LIMIT};
use traces::model_call::{Kind, ModelCall, usage};
use traces::proto::trace::Span as Proto;
use traces::report;
use traces::tree::Tree;

/// A span with attributes, given as JSON, and events, each a name and its attributes.
fn proto(attributes: Value, events: &[(&str, Value)]) -> Proto {
    let pairs = |fields: &Value| -> Vec<Value> {
        let fields = fields.as_object().expect("fields").iter();
        fields.map(|(key, value)| json!({ "key": key, "value": any(value) })).collect()
    };
    let events: Vec<Value> = events
        .iter()
        .map(|(name, fields)| json!({ "name": name, "timeUnixNano": "1", "attributes": pairs(fields) }))
        .collect();
    let span = json!({ "attributes": pairs(&attributes), "events": events });
    spans(&format!("1 llm 1 CLIENT 0..1 chat {}", span.to_string().replace(';', ",")))[0].proto()
}

/// A value in OTLP JSON.
fn any(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Array(items) => {
            json!({ "arrayValue": { "values": items.iter().map(any).collect::<Vec<_>>() } })
        }
        Value::Object(fields) => {
            let pairs =
                fields.iter().map(|(key, value)| json!({ "key": key, "value": any(value) }));
            json!({ "kvlistValue": { "values": pairs.collect::<Vec<_>>() } })
        }
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Null => json!({}),
    }
}

/// The conversation, a line for each part: `>` to the model and `<` from it, role and part.
fn lines(proto: &Proto) -> Vec<String> {
    let call = ModelCall::read(proto).expect("a call");
    let said = Conversation::read(&call, proto, []);
    let said = serde_json::to_value(said).expect("JSON");
    let messages = said["messages"].as_array().expect("messages").iter();
    let lines = messages.flat_map(|message| {
        let way = if message["side"] == "input" { ">" } else { "<" };
        let parts = message["parts"].as_array().expect("parts").iter();
        parts.map(move |part| {
            let fields = ["id", "name", "arguments", "text", "kind"].map(|key| part[key].as_str());
            let fields = fields.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let kind = part["type"].as_str().expect("a type");
            let kind = if kind == "text" { String::new() } else { format!(" {kind}") };
            format!("{way} {}{kind}: {fields}", message["role"].as_str().expect("a role"))
        })
    });
    lines.collect()
}

const ASKED: &str = "> user: Is it raining in Bern?";
const CALLS: &str = r#"< assistant toolCall: call_1 weather {"city":"Bern"}"#;

#[test]
fn a_conversation_is_read_in_every_convention() {
    let call = json!({ "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Bern\"}" } });
    let parts = json!([{ "type": "tool_call", "id": "call_1", "name": "weather", "arguments": { "city": "Bern" } }]);
    let input = json!([{ "role": "user", "parts": [{ "type": "text", "content": "Is it raining in Bern?" }] }]);
    let output = json!([{ "role": "assistant", "parts": parts, "finish_reason": "tool_calls" }]);
    let request = json!([{ "role": "user", "content": "Is it raining in Bern?" }]);
    let model = |mut rest: Value| {
        rest["gen_ai.operation.name"] = "chat".into();
        rest
    };
    let question = json!({ "content": "Is it raining in Bern?" });
    let choice = json!({ "index": 0, "finish_reason": "tool_calls", "message": { "role": "assistant", "tool_calls": [call] } });
    let mut as_text = choice.clone();
    as_text["message"] = choice["message"].to_string().into();
    let content = |json: &Value| json!({ "gen_ai.event.content": json.to_string() });
    for (convention, proto) in [
        (
            "OpenTelemetry, JSON",
            proto(
                model(
                    json!({ "gen_ai.input.messages": input.to_string(), "gen_ai.output.messages": output.to_string() }),
                ),
                &[],
            ),
        ),
        (
            "OpenTelemetry, structured",
            proto(
                model(json!({ "gen_ai.input.messages": input, "gen_ai.output.messages": output })),
                &[],
            ),
        ),
        (
            "OpenTelemetry, one event",
            proto(
                model(json!({})),
                &[(
                    "gen_ai.client.inference.operation.details",
                    json!({ "gen_ai.input.messages": input, "gen_ai.output.messages": output }),
                )],
            ),
        ),
        (
            "OpenTelemetry 1.36, events with fields",
            proto(
                model(json!({})),
                &[("gen_ai.user.message", question.clone()), ("gen_ai.choice", as_text)],
            ),
        ),
        (
            "OpenTelemetry 1.36, events with JSON",
            proto(
                model(json!({})),
                &[("gen_ai.user.message", content(&question)), ("gen_ai.choice", content(&choice))],
            ),
        ),
        (
            "OpenTelemetry 1.27",
            proto(
                model(json!({})),
                &[
                    ("gen_ai.content.prompt", json!({ "gen_ai.prompt": request.to_string() })),
                    (
                        "gen_ai.content.completion",
                        json!({ "gen_ai.completion": json!([choice]).to_string() }),
                    ),
                ],
            ),
        ),
        (
            "OpenLLMetry",
            proto(
                json!({
                    "llm.request.type": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Is it raining in Bern?",
                    "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.tool_calls.0.id": "call_1",
                    "gen_ai.completion.0.tool_calls.0.name": "weather", "gen_ai.completion.0.tool_calls.0.arguments": "{\"city\":\"Bern\"}",
                }),
                &[],
            ),
        ),
        (
            "OpenInference",
            proto(
                json!({
                    "openinference.span.kind": "LLM", "input.value": "again",
                    "llm.input_messages.0.message.role": "user",
                    "llm.input_messages.0.message.contents.0.message_content.type": "text",
                    "llm.input_messages.0.message.contents.0.message_content.text": "Is it raining in Bern?",
                    "llm.output_messages.0.message.role": "assistant",
                    "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
                    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
                    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{\"city\":\"Bern\"}",
                }),
                &[],
            ),
        ),
        (
            "HoneyHive",
            proto(
                json!({ "honeyhive_event_type": "model", "honeyhive_inputs.chat_history": request.to_string(), "honeyhive_outputs.choices": json!([choice]).to_string() }),
                &[],
            ),
        ),
    ] {
        assert_eq!(lines(&proto), [ASKED, CALLS], "{convention}");
    }
}

#[test]
fn every_part_of_a_message_is_named() {
    let input = json!([
        { "role": "tool", "tool_call_id": "call_1", "content": "no rain" },
        { "role": "user", "parts": [
            { "type": "text", "content": "and " }, { "type": "blob", "modality": "image", "mime_type": "image/png" },
            { "type": "tool_call_response", "id": "call_2", "response": { "rain": false } },
        ] },
    ]);
    let output = json!([{ "role": "assistant", "content": [
        { "type": "thinking", "thinking": "Hm." }, { "type": "tool_use", "id": "toolu_1", "name": "now", "input": {} },
        { "type": "text", "text": "No." },
    ] }]);
    let span = proto(
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.system_instructions": json!([{ "type": "text", "content": "Be brief." }]).to_string(),
            "gen_ai.input.messages": input.to_string(), "gen_ai.output.messages": output.to_string(),
        }),
        &[],
    );
    let expected = [
        "> system: Be brief.",
        "> tool toolResult: call_1 no rain",
        "> user: and ",
        "> user other: blob",
        r#"> user toolResult: call_2 {"rain":false}"#,
        "< assistant reasoning: Hm.",
        "< assistant toolCall: toolu_1 now {}",
        "< assistant: No.",
    ];
    assert_eq!(lines(&span), expected);
    // The answer of a model may itself be JSON.
    let span = proto(
        json!({ "llm.request.type": "chat", "gen_ai.completion.0.content": "{\"answer\": 42}" }),
        &[],
    );
    assert_eq!(lines(&span), ["< assistant: {\"answer\": 42}"]);
}

#[test]
fn a_tool_and_a_function_show_what_went_in_and_out() {
    let tool = json!({
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": "{\"city\": \"Bern\"}", "gen_ai.tool.call.result": "no rain",
    });
    let tool = proto(tool, &[]);
    let call = ModelCall::read(&tool).expect("a call");
    assert_eq!((call.kind, call.tool.as_deref()), (Kind::Tool, Some("weather")));
    let expected = [
        "> assistant toolCall: call_1 weather {\"city\": \"Bern\"}",
        "< tool toolResult: call_1 no rain",
    ];
    assert_eq!(lines(&tool), expected);
    let function = json!({ "honeyhive_event_type": "tool", "honeyhive_inputs.user": "ada", "honeyhive_outputs.result": true });
    assert_eq!(lines(&proto(function, &[])), ["> user: ada", "< result: true"]);
    // A span that only has a type, as each of the tutorial's, shows nothing more than its attributes.
    for attributes in [
        json!({ "honeyhive_event_type": "tool" }),
        json!({ "http.route": "/", "input.value": "x", "tool.name": "y" }),
    ] {
        assert_eq!(ModelCall::read(&proto(attributes, &[])), None);
    }
}

#[test]
fn facts_are_read_in_every_convention() {
    for (convention, attributes) in [
        (
            "OpenTelemetry",
            json!({ "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m", "gen_ai.response.model": "m-2026", "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2, "gen_ai.response.finish_reasons": ["stop"] }),
        ),
        (
            "OpenLLMetry",
            json!({ "llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "m", "gen_ai.response.model": "m-2026", "gen_ai.usage.prompt_tokens": 7.0, "gen_ai.usage.completion_tokens": "2", "gen_ai.completion.0.finish_reason": "stop" }),
        ),
        (
            "OpenInference",
            json!({ "openinference.span.kind": "chat", "llm.system": "openai", "llm.request.model_name": "m", "llm.model_name": "m-2026", "llm.token_count.prompt": 7, "llm.token_count.completion": 2, "llm.finish_reason": "stop" }),
        ),
    ] {
        let expected = ModelCall {
            kind: Kind::Model,
            operation: Some("chat".to_owned()),
            provider: Some("openai".to_owned()),
            requested: Some("m".to_owned()),
            answered_by: Some("m-2026".to_owned()),
            input_tokens: Some(7),
            output_tokens: Some(2),
            finish_reasons: vec!["stop".to_owned()],
            tool: None,
            tool_call_id: None,
        };
        assert_eq!(ModelCall::read(&proto(attributes, &[])), Some(expected), "{convention}");
    }
}

#[test]
fn tokens_are_summed_by_model_and_no_call_counts_twice() {
    let chat = |model: &str, tokens: &str| {
        format!(
            "gen_ai.operation.name=chat gen_ai.response.model={model} {}",
            match tokens {
                "" => String::new(),
                _ => format!("gen_ai.usage.input_tokens={tokens} gen_ai.usage.output_tokens=1"),
            }
        )
    };
    let rows = [
        "1 a 1 INTERNAL 0..100 agent gen_ai.operation.name=invoke_agent gen_ai.usage.input_tokens=99".to_owned(),
        // A library around a client: the inner span counts.
        format!("1 a 2<1 CLIENT 10..20 outer {}", chat("big", "5")),
        format!("1 a 3<2 CLIENT 11..19 inner {}", chat("big", "5")),
        // The outer one has the tokens.
        format!("1 a 4<1 CLIENT 30..40 outer {}", chat("big", "6")),
        format!("1 a 5<4 CLIENT 31..39 inner {}", chat("big", "")),
        format!("1 a 6<1 CLIENT 50..60 small {}", chat("small", "")),
    ];
    let tree = |rows: &str| {
        let spans: Vec<_> = spans(rows).into_iter().map(std::sync::Arc::new).collect();
        Tree::new(&spans).expect("a tree")
    };
    let found = report::usage(&usage(&tree(&rows.join("\n"))));
    let expected =
        "Model calls: `big` 2 calls, 11 tokens in, 2 out; `small` 1 call, tokens not counted.";
    assert_eq!(found.as_deref(), Some(expected));
    assert_eq!(report::usage(&usage(&tree("1 a 1 SERVER 0..1 GET /"))), None);
}

#[test]
fn odd_and_endless_messages_are_cut_and_break_nothing() {
    let deep = "[".repeat(100_000);
    let odd = [
        json!(null),
        json!(7),
        json!([]),
        json!([[[]]]),
        json!({ "role": 7, "content": { "type": [] } }),
        json!("[{"),
        json!(deep),
        json!([{ "role": "", "parts": { "0": "x" }, "tool_calls": 3 }]),
        json!([{ "message": { "message": {} }, "tool_calls": [null] }]),
    ];
    let keys = [
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.prompt.0",
        "gen_ai.prompt.0.",
        "gen_ai.prompt.99999999999999999999.role",
        "llm.input_messages.0.message",
        "llm.input_messages.0.message.contents.0.x.y.z.a.b.c.d.e.f",
        "honeyhive_inputs.chat_history",
        "honeyhive_outputs.choices",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
    ];
    for key in keys {
        for value in &odd {
            let span = proto(
                json!({ "gen_ai.operation.name": "chat", key: value }),
                &[("gen_ai.choice", json!({ key: value }))],
            );
            lines(&span);
        }
    }
    let read = |messages: Value| {
        let span = proto(
            json!({ "gen_ai.operation.name": "chat", "gen_ai.input.messages": messages.to_string() }),
            &[],
        );
        Conversation::read(&ModelCall::read(&span).expect("a call"), &span, [])
    };
    let many = read(vec![json!({ "content": "x" }); MESSAGES_LIMIT + 1].into());
    assert_eq!((many.messages.len(), many.is_cut), (MESSAGES_LIMIT, true));
    let parts = read(json!([{ "parts": vec!["x"; MESSAGES_LIMIT + 1] }]));
    assert_eq!((parts.messages[0].parts.len(), parts.is_cut), (MESSAGES_LIMIT, true));
    let long = read(json!([{ "content": "ä".repeat(TEXT_LIMIT) }]));
    let text = serde_json::to_value(&long.messages[0].parts[0]).expect("JSON");
    assert_eq!((text["text"].as_str().map(str::len), long.is_cut), (Some(TEXT_LIMIT), true));
}

/// A service may send the messages as log records of the span.
#[test]
fn messages_are_read_from_log_records() {
    let span = proto(json!({ "gen_ai.operation.name": "chat" }), &[]);
    let question = json!({ "content": "Is it raining in Bern?" });
    // The body of a record has the form of an attribute's value.
    let carrier = proto(json!({ "body": question }), &[]);
    let record = Said {
        name: "gen_ai.user.message",
        attributes: &[],
        body: carrier.attributes[0].value.as_ref(),
    };
    let said = Conversation::read(&ModelCall::read(&span).expect("a call"), &span, [record]);
    assert_eq!(said.messages.len(), 1);
}
