//! Keeps the spans of a trace apart by more than their ids. In the model of Zipkin, and so of B3 headers and Envoy, the two sides of
//! a call share one span id ([zipkin.io](https://zipkin.io/pages/instrumenting.html#communicating-trace-information)); and some
//! generators of ids repeat themselves. Two spans are the same one if they agree in name, kind, service and start, and one of
//! them says all that the other says: a request was exported twice, or a span at its start and again at its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::proto::trace::{Span as Proto, Status};
use prost::Message;

use crate::span::{Span, SpanId, SpanKind};

/// The spans of one trace, each once. Most traces are small and there are many, so the tables of a small trace are not allocated.
#[derive(Debug, Default)]
pub struct Trace {
    spans: Vec<Arc<Span>>,
    /// The index of the first span with an id, in a trace of more than [`SEARCHED`] spans.
    first: BTreeMap<SpanId, usize>,
    /// The indices of the further spans with an id.
    further: BTreeMap<Identity, Vec<usize>>,
    changes: usize,
}

/// The most spans that are searched for an id without a table.
const SEARCHED: usize = 8;

/// Whether a trace has taken a span.
#[derive(Debug)]
pub enum Added {
    /// The trace didn't have it.
    New,
    /// It replaces this one, which said less.
    Instead(Arc<Span>),
    /// The trace has one that says as much.
    Repeated,
}

/// The facts in which two spans with one id differ.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    id: SpanId,
    kind: SpanKind,
    start: u64,
    service: String,
    name: String,
}

impl Identity {
    fn of(span: &Span) -> Self {
        Identity {
            id: span.id,
            kind: span.kind(),
            start: span.start(),
            service: span.service().to_owned(),
            name: span.name().to_owned(),
        }
    }
}

/// How many spans that agree in all but their contents are compared with another. Nobody sends one so often, and comparing takes
/// time.
const COMPARED: usize = 8;

impl Trace {
    /// Adds a span, unless the trace has it already.
    pub fn add(&mut self, span: Arc<Span>) -> Added {
        let index = self.spans.len();
        if let Some(first) = self.first(span.id) {
            let agrees = |first: &Span| {
                (first.name(), first.kind(), first.service(), first.start())
                    == (span.name(), span.kind(), span.service(), span.start())
            };
            let first = Some(first).filter(|first| agrees(&self.spans[*first]));
            let identity = Identity::of(&span);
            let further = self.further.get(&identity).into_iter().flatten().copied();
            for index in first.into_iter().chain(further).take(COMPARED) {
                let known = &mut self.spans[index];
                let (known_proto, proto) = (known.proto(), span.proto());
                if says_all(&known_proto, &proto) {
                    return Added::Repeated;
                }
                if says_all(&proto, &known_proto) {
                    self.changes += 1;
                    return Added::Instead(std::mem::replace(known, span));
                }
            }
            self.further.entry(identity).or_default().push(index);
        }
        self.changes += 1;
        self.spans.push(span);
        if self.spans.len() > SEARCHED {
            let unlisted = if self.first.is_empty() { 0 } else { index };
            for (index, span) in self.spans.iter().enumerate().skip(unlisted) {
                self.first.entry(span.id).or_insert(index);
            }
        }
        Added::New
    }

    /// The index of the first span with an id.
    fn first(&self, id: SpanId) -> Option<usize> {
        match self.spans.len() > SEARCHED {
            true => self.first.get(&id).copied(),
            false => self.spans.iter().position(|span| span.id == id),
        }
    }

    /// How often a span was added or replaced.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// The number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the trace is empty.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The spans as they came, where several may have one id.
    pub fn received(&self) -> &[Arc<Span>] {
        &self.spans
    }

    /// The spans in the order in which they came, each with an id of its own, as [`separate`] makes it.
    pub fn spans(&self) -> Vec<Arc<Span>> {
        match self.further.is_empty() {
            true => self.spans.clone(),
            false => separate(&self.spans),
        }
    }
}

/// Whether a span says all that another with the same identity says. One that hasn't ended says nothing of its end.
fn says_all(span: &Proto, other: &Proto) -> bool {
    let no_less = |own: u64, other: u64| other == 0 || own == other;
    no_less(span.end_time_unix_nano, other.end_time_unix_nano)
        && span.parent_span_id == other.parent_span_id
        && other
            .status
            .as_ref()
            .is_none_or(|other| *other == Status::default() || span.status.as_ref() == Some(other))
        && has_all(&span.attributes, &other.attributes)
        && has_all(&span.events, &other.events)
        && has_all(&span.links, &other.links)
}

/// Whether a list has all items of another, in any order. Compares their bytes, because a number that is none, `NaN`, doesn't
/// equal itself.
fn has_all<M: Message>(list: &[M], other: &[M]) -> bool {
    let bytes = |items: &[M]| items.iter().map(Message::encode_to_vec).collect::<HashSet<_>>();
    other.is_empty() || bytes(other).is_subset(&bytes(list))
}

/// Gives each of several spans with one id an id of its own. The caller's side keeps the id. The called side becomes its child,
/// and the parent of what its own service did below; [`Span::shared_id`] says which id it came with. Jaeger's
/// [deduplication](https://github.com/jaegertracing/jaeger/blob/12bba8c9b91cf4a29d314934bc08f4a80e43c042/model/adjuster/span_id_deduper.go)
/// does the same.
///
/// The new ids depend on the spans alone and not on their order, so that an address of a span stays right.
pub fn separate(spans: &[Arc<Span>]) -> Vec<Arc<Span>> {
    let mut by_id: HashMap<SpanId, Vec<usize>> = HashMap::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        by_id.entry(span.id).or_default().push(index);
    }
    let mut taken: HashSet<SpanId> = by_id.keys().copied().collect();
    let mut shared: Vec<(SpanId, Vec<usize>)> =
        by_id.into_iter().filter(|(_, indices)| indices.len() > 1).collect();
    shared.sort_unstable();
    let mut separated = spans.to_vec();
    // The sides of a call that got new ids, by the old id and their service.
    let mut moved: HashMap<(SpanId, &str), Vec<(usize, SpanId)>> = HashMap::new();
    for (id, mut indices) in shared {
        let calls = |kind| matches!(kind, SpanKind::Client | SpanKind::Producer);
        let key = |index: &usize| {
            let span = &spans[*index];
            (!calls(span.kind()), span.start(), span.kind(), span.service(), span.name())
        };
        let contents = |index: &usize| spans[*index].proto().encode_to_vec();
        indices.sort_by(|left, right| {
            key(left).cmp(&key(right)).then_with(|| contents(left).cmp(&contents(right)))
        });
        let caller = &spans[indices[0]];
        // Seeded with the old id, so that the new ones are the same each time.
        let mut random = fastrand::Rng::with_seed(u64::from_be_bytes(id.0));
        for index in indices.into_iter().skip(1) {
            let new = loop {
                let new = SpanId(random.u64(1..).to_be_bytes());
                if taken.insert(new) {
                    break new;
                }
            };
            let answers = matches!(spans[index].kind(), SpanKind::Server | SpanKind::Consumer);
            let mut span = Span::clone(&spans[index]);
            span.id = new;
            if calls(caller.kind()) && answers {
                span.parent = Some(id);
            }
            separated[index] = Arc::new(span);
            moved.entry((id, spans[index].service())).or_default().push((index, new));
        }
    }
    // What a called service did below the call names the old id as its parent.
    for (index, span) in spans.iter().enumerate() {
        let sides = span.parent.and_then(|parent| moved.get(&(parent, span.service())));
        let Some(sides) = sides else { continue };
        let own = |(side, _): &&(usize, SpanId)| *side != index;
        // A span whose own id is shared names the parent of the call.
        let of_pair = separated[index].parent != span.parent;
        if let Some((_, new)) = sides.iter().find(own).filter(|_| !of_pair) {
            let mut span = Span::clone(&separated[index]);
            span.parent = Some(*new);
            separated[index] = Arc::new(span);
        }
    }
    separated
}
