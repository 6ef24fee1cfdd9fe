//! Reads an OTLP request in JSON item by item. A tree of the whole request would take many times the memory of its text: each `{}`
//! would become an item of hundreds of bytes before any limit is met.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer};

use super::{Batch, Error, Item, Reason, Rejected, Signal, unfit};
use crate::read::json::{Json, Spare, same};
use crate::read::otlp;
use crate::read::value::Losses;
use crate::span::{Flaw, Source, Unfit, VALUES_LIMIT};

/// The most values of JSON in an item, a resource or a scope. An attribute has seven, with its keys.
const NODES_LIMIT: usize = 7 * VALUES_LIMIT;

/// Reads one request, however it is spelled.
pub(super) fn request<T: Item>(text: &str) -> Result<Batch<T>, Error> {
    let mut reader = Reader::<T>::default();
    let mut json = serde_json::Deserializer::from_str(text);
    json.disable_recursion_limit();
    let place = Place { reader: &mut reader, part: Part::Request };
    let read = place.deserialize(&mut json).and_then(|()| json.end());
    if let Some(error) = reader.stopped {
        return Err(error);
    }
    read.map_err(Error::Json)?;
    let Reader { mut batch, losses, .. } = reader;
    if let Some((_, first)) = losses.first.into_iter().next() {
        let none = Rejected { items: 0, first: Reason::Value(first) };
        batch.rejected.get_or_insert(none);
    }
    batch.finished()
}

/// The state while a request is read.
struct Reader<'a, T> {
    batch: Batch<T>,
    losses: Losses,
    /// The limit that was met, which ends the reading.
    stopped: Option<Error>,
    resource: Group,
    scope: Group,
    /// The scopes of the current resource, which may stand behind them.
    scopes: Vec<Scope>,
    /// The source that items have until their own is known.
    unknown: Arc<Source>,
    spare: Spare<'a>,
}

impl<T> Default for Reader<'_, T> {
    fn default() -> Self {
        Reader {
            batch: Batch::default(),
            losses: Losses::default(),
            stopped: None,
            resource: Group::default(),
            scope: Group::default(),
            scopes: Vec::new(),
            unknown: Arc::default(),
            spare: Spare::default(),
        }
    }
}

/// A resource or a scope while its fields are being read.
#[derive(Default)]
struct Group {
    source: Source,
    /// Whether it has too many values.
    too_large: bool,
}

/// A scope that has been read.
struct Scope {
    /// Boxed, so that a list of them that grows takes less memory.
    group: Box<Group>,
    /// The indices of its items in the batch.
    items: Range<usize>,
    /// Whether it has the name that scopes had before version 1.0.
    is_old: bool,
}

impl<'a, T: Item> Reader<'a, T> {
    /// Records an error that isn't one of JSON. Reading then stops.
    fn stop<E: serde::de::Error>(&mut self, result: Result<(), Error>) -> Result<(), E> {
        result.map_err(|error| {
            let message = error.to_string();
            self.stopped = Some(error);
            E::custom(message)
        })
    }

    fn item(&mut self, json: Json<'a>, is_whole: bool) -> Result<(), Error> {
        let item = match is_whole {
            true => T::read(&json, &mut self.losses, &self.unknown),
            false => Err(Unfit { span: T::name(&json), flaw: Flaw::TooManyValues }),
        };
        self.spare.reuse(json);
        self.batch.push(item)
    }

    /// Keeps a scope with items until its resource is known.
    fn end_scope(&mut self, first: usize, is_old: bool) -> Result<(), Error> {
        let group = std::mem::take(&mut self.scope);
        self.batch.count(&group.source)?;
        let items = first..self.batch.items.len();
        if !items.is_empty() {
            self.scopes.push(Scope { group: Box::new(group), items, is_old });
        }
        Ok(())
    }

    /// Gives the items of a resource their sources.
    fn end_resource(&mut self) -> Result<(), Error> {
        let Group { source: Source { resource, resource_schema, .. }, too_large } =
            std::mem::take(&mut self.resource);
        let scopes = std::mem::take(&mut self.scopes);
        // Some senders have both names, with the same items.
        let has_new = scopes.iter().any(|scope| !scope.is_old);
        let mut left_out: Vec<Range<usize>> = Vec::new();
        for Scope { group, items, is_old } in scopes {
            self.batch.sources -= group.source.size();
            if is_old && has_new {
                left_out.push(items);
                continue;
            }
            let source = Source {
                resource: resource.clone(),
                resource_schema: resource_schema.clone(),
                ..group.source
            };
            let source = match self.batch.source(source)? {
                Ok(_) if too_large || group.too_large => Err(Flaw::TooManyValues),
                source => source,
            };
            match source {
                Ok(source) => {
                    let items = &mut self.batch.items[items];
                    items.iter_mut().for_each(|item| item.set_source(&source));
                }
                Err(flaw) => {
                    let none = Rejected { items: 0, first: unfit(&flaw).into() };
                    self.batch.rejected.get_or_insert(none).items += items.len();
                    left_out.push(items);
                }
            }
        }
        let mut index = 0;
        let mut left_out = left_out.into_iter().peekable();
        if left_out.peek().is_some() {
            self.batch.items.retain(|_| {
                while left_out.next_if(|items| items.end <= index).is_some() {}
                index += 1;
                !left_out.peek().is_some_and(|items| items.contains(&(index - 1)))
            });
        }
        Ok(())
    }
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Request,
    Resources,
    Resource,
    Scopes { is_old: bool },
    Scope { is_old: bool },
    Items,
    Item,
}

impl Part {
    /// The kind of the items, if this is a list.
    fn item(self) -> Option<Part> {
        match self {
            Part::Resources => Some(Part::Resource),
            Part::Scopes { is_old } => Some(Part::Scope { is_old }),
            Part::Items => Some(Part::Item),
            Part::Request | Part::Resource | Part::Scope { .. } | Part::Item => None,
        }
    }

    /// The list in a field of a request with such items.
    fn list<T: Item>(self, key: &str) -> Option<Part> {
        let [resources, scopes, old_scopes, items] = T::LISTS;
        match self {
            Part::Request if same(key, resources) => Some(Part::Resources),
            Part::Resource if same(key, scopes) => Some(Part::Scopes { is_old: false }),
            Part::Resource if same(key, old_scopes) => Some(Part::Scopes { is_old: true }),
            Part::Scope { .. } if same(key, items) => Some(Part::Items),
            _ => None,
        }
    }
}

/// A place in the text where a part of the request stands.
struct Place<'r, 'a, T> {
    reader: &'r mut Reader<'a, T>,
    part: Part,
}

impl<'de, T: Item> DeserializeSeed<'de> for Place<'_, 'de, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.part {
            Part::Item => {
                let (json, is_whole) = Json::limited(from, NODES_LIMIT, &self.reader.spare)?;
                let taken = self.reader.item(json, is_whole);
                self.reader.stop(taken)
            }
            _ => from.deserialize_any(self),
        }
    }
}

impl<T: Item> Place<'_, '_, T> {
    /// Ignores a value of another kind, except where the request itself would be lost.
    fn other<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.part {
            Part::Request => Err(E::custom("it must be an object")),
            Part::Resources => Err(E::custom(match T::SIGNAL {
                Signal::Traces => "`resourceSpans` must be a list",
                Signal::Logs => "`resourceLogs` must be a list",
            })),
            _ => Ok(()),
        }
    }
}

impl<'de, T: Item> Visitor<'de> for Place<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request of OTLP")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        match self.part {
            Part::Resources => Ok(()),
            _ => self.other(),
        }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.other()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.other()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.other()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.other()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.other()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let Some(part) = self.part.item() else {
            self.other::<A::Error>()?;
            return IgnoredAny.visit_seq(from).map(drop);
        };
        while from.next_element_seed(Place { reader: &mut *self.reader, part })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let Place { reader, part } = self;
        if part.item().is_some() {
            Place { reader, part }.other::<A::Error>()?;
            return IgnoredAny.visit_map(from).map(drop);
        }
        let first = reader.batch.items.len();
        // Of several fields with one name, the first counts.
        let mut lists = Vec::new();
        while let Some(key) = from.next_key_seed(Key)? {
            match part.list::<T>(&key) {
                Some(list) if !lists.contains(&list) => {
                    lists.push(list);
                    from.next_value_seed(Place { reader: &mut *reader, part: list })?;
                }
                Some(_) => drop(from.next_value::<IgnoredAny>()?),
                None => from.next_value_seed(Field { reader: &mut *reader, part, key: &key })?,
            }
        }
        let ended = match part {
            Part::Scope { is_old } => reader.end_scope(first, is_old),
            Part::Resource => reader.end_resource(),
            _ => Ok(()),
        };
        reader.stop(ended)
    }
}

/// Reads the name of a field.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        String::deserialize(from)
    }
}

/// A field of a resource or a scope that isn't a list.
struct Field<'r, 'a, T> {
    reader: &'r mut Reader<'a, T>,
    part: Part,
    key: &'r str,
}

impl<'de, T: Item> DeserializeSeed<'de> for Field<'_, 'de, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let Field { reader, part, key } = self;
        let is_any = |names: &[&str]| names.iter().any(|name| same(key, name));
        let losses = &mut reader.losses;
        match part {
            Part::Resource if is_any(&["resource"]) => {
                let (json, is_whole) = Json::limited(from, NODES_LIMIT, &reader.spare)?;
                reader.resource.too_large |= !is_whole;
                if is_whole {
                    reader.resource.source.resource = otlp::resource(&json, losses);
                }
            }
            Part::Scope { .. } if is_any(&["scope", "instrumentationlibrary"]) => {
                let (json, is_whole) = Json::limited(from, NODES_LIMIT, &reader.spare)?;
                reader.scope.too_large |= !is_whole;
                if is_whole && !json.is_null() {
                    reader.scope.source.scope = otlp::scope(&json, losses);
                }
            }
            Part::Resource if is_any(&["schemaurl"]) => {
                let (json, _) = Json::limited(from, 1, &reader.spare)?;
                reader.resource.source.resource_schema = json.text().into();
            }
            Part::Scope { .. } if is_any(&["schemaurl"]) => {
                let (json, _) = Json::limited(from, 1, &reader.spare)?;
                reader.scope.source.scope_schema = json.text().into();
            }
            _ => drop(IgnoredAny::deserialize(from)?),
        }
        Ok(())
    }
}
