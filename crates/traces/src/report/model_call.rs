//! The tokens of a trace in words.

use std::collections::BTreeMap;

use super::sentence::code;
use crate::model_call::Usage;
use crate::waterfall::count;

/// The most models that a line names. It counts the others.
const MODELS: usize = 5;

/// Says how many calls each model answered, and how many tokens went in and out. Returns `None` for a trace without such calls.
pub fn usage(usage: &BTreeMap<String, Usage>) -> Option<String> {
    let model = |(model, usage): (&String, &Usage)| {
        let Usage { calls, input_tokens, output_tokens, uncounted } = usage;
        let calls = count(*calls, "call");
        let tokens = match uncounted {
            0 => format!("{input_tokens} tokens in, {output_tokens} out"),
            all if all == &usage.calls => "tokens not counted".to_owned(),
            some => format!("{input_tokens} tokens in, {output_tokens} out, {some} not counted"),
        };
        format!("`{}` {calls}, {tokens}", code(model))
    };
    let named: Vec<String> = usage.iter().take(MODELS).map(model).collect();
    let others = match usage.len().saturating_sub(MODELS) {
        0 => String::new(),
        more => format!("; and {}", count(more, "other model")),
    };
    (!named.is_empty()).then(|| format!("Model calls: {}{others}.", named.join("; ")))
}
