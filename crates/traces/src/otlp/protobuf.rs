//! Reads OTLP in protobuf, field by field and never as a whole, so that a small body that unpacks to many empty items meets the
//! limit before it fills the memory.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use super::{Batch, Error, Item, unfit};
use crate::proto::resource::Resource;
use crate::span::{Flaw, Refused, Source, VALUES_LIMIT};

/// Reads one request. The requests of traces and of logs have the same fields down to their items.
pub(super) fn request<T: Item>(body: &[u8]) -> Result<Batch<T>, Error> {
    let mut batch = Batch::default();
    let request = Fields::of(body)?;
    for of_resource in request.all(1) {
        let of_resource = Fields::of(of_resource)?;
        let resource = of_resource.message::<Resource>(1, Part::Resource)?;
        let resource_schema = of_resource.text(3);
        for of_scope in of_resource.all(2) {
            let of_scope = Fields::of(of_scope)?;
            let scope = of_scope.message(1, Part::Scope)?;
            let few_values = resource.is_some() && scope.is_some();
            let source = batch.source(Source {
                resource: resource.clone().unwrap_or_default(),
                resource_schema: resource_schema.clone(),
                scope: scope.unwrap_or_default(),
                scope_schema: of_scope.text(3),
            })?;
            let source = source.and_then(|source| match few_values {
                true => Ok(source),
                false => Err(Flaw::TooManyValues),
            });
            for item in of_scope.all(2) {
                batch.push(match &source {
                    Ok(source) => match T::decode(item, source) {
                        Ok(item) => Ok(item),
                        Err(Refused::Unfit(unfit)) => Err(unfit),
                        Err(Refused::Unreadable(error)) => return Err(error.into()),
                    },
                    Err(flaw) => Err(unfit(flaw)),
                })?;
            }
        }
    }
    batch.finished()
}

/// A message that consists of fields. They are found again for each question, because a list of them could take many times the
/// memory of the message.
struct Fields<'a>(Unread<'a>);

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Result<Self, DecodeError> {
        Unread(message).try_for_each(|field| field.map(drop))?;
        Ok(Fields(Unread(message)))
    }

    /// The contents of each field with this tag that is a message or a text.
    fn all(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.filter_map(Result::ok);
        fields.filter(move |(own, _)| *own == tag).filter_map(|(_, contents)| contents)
    }

    /// The message with this tag, which may be spread over several fields. `None` if it has too many values.
    fn message<M: Message + Default>(
        &self,
        tag: u32,
        part: Part,
    ) -> Result<Option<M>, DecodeError> {
        let mut message = M::default();
        let mut left = VALUES_LIMIT;
        for field in self.all(tag) {
            if !part.fits(field, &mut left, LEVELS) {
                return Ok(None);
            }
            message.merge(field)?;
        }
        Ok(Some(message))
    }

    /// The text with this tag, the last where there are several; empty without one.
    fn text(&self, tag: u32) -> Box<str> {
        let last = self.all(tag).last().unwrap_or_default();
        String::from_utf8_lossy(last).into()
    }
}

/// Whether a message has a field with this tag that is a message, a text or bytes, and isn't empty.
pub(crate) fn has_field(message: &[u8], tag: u32) -> bool {
    let mut fields = Unread(message).map_while(Result::ok);
    fields.any(|(own, contents)| own == tag && contents.is_some_and(|it| !it.is_empty()))
}

/// The fields of a message, one after the other: the tag, and the contents if it is a field of bytes, as messages and texts are.
#[derive(Clone, Copy)]
struct Unread<'a>(&'a [u8]);

impl<'a> Iterator for Unread<'a> {
    type Item = Result<(u32, Option<&'a [u8]>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Unread(rest) = self;
        (!rest.is_empty()).then(|| {
            let (tag, wire_type) = decode_key(rest)?;
            let mut field = *rest;
            skip_field(wire_type, tag, rest, DecodeContext::default())?;
            field = &field[..field.len() - rest.len()];
            Ok((
                tag,
                match wire_type {
                    WireType::LengthDelimited => {
                        decode_varint(&mut field)?;
                        Some(field)
                    }
                    _ => None,
                },
            ))
        })
    }
}

/// How deep messages are nested in what prost decodes.
const LEVELS: usize = 100;

/// Whether a message of protobuf has no more than [`VALUES_LIMIT`] values. Looks at it without decoding it.
pub(crate) fn has_few_values(part: Part, message: &[u8]) -> bool {
    // The shortest value takes two bytes.
    message.len() / 2 <= VALUES_LIMIT || part.fits(message, &mut VALUES_LIMIT.clone(), LEVELS)
}

/// A message within a span, a log record, a resource or a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Span,
    Log,
    Resource,
    Scope,
    Event,
    Link,
    Attribute,
    Value,
    List,
    Map,
    Entity,
    Text,
}

impl Part {
    /// Returns the kind of a field of the message, and whether it counts as a value.
    fn field(self, tag: u32) -> Option<(Part, bool)> {
        use Part::{
            Attribute, Entity, Event, Link, List, Log, Map, Resource, Scope, Span, Text, Value,
        };
        Some(match (self, tag) {
            (Span, 9) | (Log, 6) | (Event | Scope, 3) | (Link, 4) | (Resource | Map, 1) => {
                (Attribute, true)
            }
            (Span, 11) => (Event, true),
            (Span, 13) => (Link, true),
            (Resource, 3) => (Entity, true),
            (Entity, 3 | 4) => (Text, true),
            (List, 1) => (Value, true),
            (Attribute, 2) | (Log, 5) => (Value, false),
            (Value, 5) => (List, false),
            (Value, 6) => (Map, false),
            _ => return None,
        })
    }

    /// Whether the message has no more than `left` values, from which it subtracts them. Ignores what can't be read: nothing of
    /// it is kept.
    fn fits(self, message: &[u8], left: &mut usize, levels: usize) -> bool {
        for (tag, contents) in Unread(message).map_while(Result::ok) {
            let Some((contents, (part, counts))) = contents.zip(self.field(tag)) else { continue };
            let Some(rest) = left.checked_sub(usize::from(counts)) else { return false };
            *left = rest;
            if levels > 0 && !part.fits(contents, left, levels - 1) {
                return false;
            }
        }
        true
    }
}
