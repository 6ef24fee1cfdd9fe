//! JSON as a tree that borrows from its text. The number of its nodes is limited, because a tree takes many times the memory of
//! its text.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer};

/// The size in bytes up to which the tree of any document may grow, and how often the size of its text a larger tree may have. The
/// trees of real traces have 5 to 17 times that size, as it is counted here.
const ANY_TREE: usize = 16 * 1024 * 1024;
const TREE_RATIO: usize = 20;

/// The size of a value in bytes, and of an object, which may become a span, an event or an attribute.
const VALUE: usize = 40;
const OBJECT: usize = 320;

/// How deep values may be nested. Deeper ones are left out: no field of a span is this deep, and an attribute isn't either.
const DEPTH_LIMIT: usize = 120;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that doesn't fit into 64 bits with a sign.
    Big(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<Field<'a>>),
}

type Field<'a> = (Cow<'a, str>, Json<'a>);

/// The value of an absent field.
const NULL: &Json<'static> = &Json::Null;

impl<'a> Json<'a> {
    /// Parses one document. `size` is that of its text, or a smaller one for a text that was packed very tightly.
    ///
    /// # Errors
    /// The text isn't one JSON document, or it has many more values than a document of that size.
    pub fn parse(text: &'a str, size: usize) -> serde_json::Result<Json<'a>> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.disable_recursion_limit();
        let left = Cell::new(Some((ANY_TREE + TREE_RATIO * size) / VALUE));
        let spare = Spare::default();
        let object = OBJECT / VALUE;
        let seed = Seed { left: &left, levels: DEPTH_LIMIT, object, spare: &spare };
        let json = seed.deserialize(&mut deserializer)?;
        deserializer.end()?;
        match left.get() {
            Some(_) => Ok(json),
            None => Err(serde_json::Error::custom("too many values for a document of this size")),
        }
    }

    /// Reads one value and at most `limit` values in all, of which keys are some. Leaves out further values, without taking
    /// memory for them. Returns whether there were none.
    ///
    /// # Errors
    /// The text isn't JSON.
    pub(crate) fn limited<D: Deserializer<'a>>(
        from: D,
        limit: usize,
        spare: &Spare<'a>,
    ) -> Result<(Json<'a>, bool), D::Error> {
        let left = Cell::new(Some(limit));
        let json = Seed { left: &left, levels: DEPTH_LIMIT, object: 1, spare }.deserialize(from)?;
        Ok((json, left.get().is_some()))
    }

    /// Returns the field `name`, or `Null`. `name` is in lower case without underscores: protobuf's JSON allows `traceId` and
    /// `trace_id`, and Go's own encoder writes `TraceId`.
    pub fn get(&self, name: &str) -> &Json<'a> {
        let Json::Object(fields) = self else { return NULL };
        let found = fields.iter().find(|(key, _)| same(key, name));
        found.map_or(NULL, |(_, value)| value)
    }

    /// Returns the first of several fields that is there and not `null`.
    pub fn any(&self, names: &[&str]) -> &Json<'a> {
        let mut values = names.iter().map(|name| self.get(name));
        values.find(|value| !value.is_null()).unwrap_or(NULL)
    }

    /// Whether there is a field `name`, also where it is `null`.
    pub fn has(&self, name: &str) -> bool {
        matches!(self, Json::Object(fields) if fields.iter().any(|(key, _)| same(key, name)))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// The text, or an empty one.
    pub fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }

    /// The items of an array, or none.
    pub fn items(&self) -> &[Json<'a>] {
        match self {
            Json::Array(items) => items,
            _ => &[],
        }
    }

    /// The fields of an object, or none.
    pub fn fields(&self) -> &[Field<'a>] {
        match self {
            Json::Object(fields) => fields,
            _ => &[],
        }
    }
}

/// Replaces escapes such as `\ud83d` that stand for half a character, which JavaScript writes for a text that was cut within an
/// emoji, and other readers refuse. Returns `None` if there are none.
pub fn without_halves(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut whole = String::new();
    let (mut copied, mut searched) = (0, 0);
    while let Some(at) = text[searched..].find('\\').map(|at| searched + at) {
        searched = match (unit(at), unit(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => at + 12,
            (Some(0xd800..0xe000), _) => {
                whole.push_str(&text[copied..at]);
                whole.push_str("\\ufffd");
                copied = at + 6;
                copied
            }
            // The character behind it isn't the beginning of another escape.
            _ => at + 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    whole.push_str(&text[copied..]);
    (copied > 0).then_some(whole)
}

/// Whether a key is `name`, which is in lower case, without regard to case and underscores. A field is looked for among all others, so
/// this has to be fast for those that differ.
#[inline]
pub(crate) fn same(key: &str, name: &str) -> bool {
    let [first, expected] = [key, name].map(|it| it.bytes().next());
    let is_possible = first == Some(b'_')
        || first.map(|byte| byte.to_ascii_lowercase()) == expected && key.len() >= name.len();
    let is_same = || {
        let key = key.bytes().filter(|byte| *byte != b'_');
        key.map(|byte| byte.to_ascii_lowercase()).eq(name.bytes())
    };
    is_possible && (key.eq_ignore_ascii_case(name) || is_same())
}

/// Writes the value as JSON, for messages.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => value.fmt(f),
            Json::Int(value) => value.fmt(f),
            Json::Big(value) => value.fmt(f),
            Json::Float(value) => value.fmt(f),
            Json::Text(value) => write!(f, "{value:?}"),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "[" } else { "," })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Json::Object(fields) => {
                for (index, (key, value)) in fields.iter().enumerate() {
                    write!(f, "{}{key:?}:{value}", if index == 0 { "{" } else { "," })?;
                }
                f.write_str(if fields.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

/// The lists of fields of trees that are no longer used. To take one of these is faster than to allocate one for each of the many
/// small objects of a request.
#[derive(Default)]
pub(crate) struct Spare<'a>(RefCell<Vec<Vec<Field<'a>>>>);

impl<'a> Spare<'a> {
    /// The most lists that are kept, and the most fields that one has room for.
    const LISTS: usize = 256;
    const FIELDS: usize = 16;

    /// Takes a tree apart.
    pub fn reuse(&self, tree: Json<'a>) {
        match tree {
            Json::Object(mut fields) => {
                while let Some((_, value)) = fields.pop() {
                    if matches!(value, Json::Object(_) | Json::Array(_)) {
                        self.reuse(value);
                    }
                }
                let mut lists = self.0.borrow_mut();
                if (1..=Self::FIELDS).contains(&fields.capacity()) && lists.len() < Self::LISTS {
                    lists.push(fields);
                }
            }
            Json::Array(items) => items.into_iter().for_each(|item| self.reuse(item)),
            _ => {}
        }
    }
}

/// Reads one value and counts it.
#[derive(Clone, Copy)]
struct Seed<'c, 'a> {
    /// How many more values may follow; `None` when there was one too many.
    left: &'c Cell<Option<usize>>,
    /// How many more levels may follow.
    levels: usize,
    /// The number of values that an object counts as.
    object: usize,
    spare: &'c Spare<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, 'de> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json<'de>, D::Error> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(1)));
        let levels = self.left.get().and_then(|_| self.levels.checked_sub(1));
        match levels {
            Some(levels) => from.deserialize_any(Seed { levels, ..self }),
            // This doesn't use the stack, however deep the value is.
            None => IgnoredAny::deserialize(from).map(|_| Json::Null),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, 'de> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Big(value), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self)? {
            if self.left.get().is_none() {
                while from.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let others = self.object - 1;
        self.left.set(self.left.get().and_then(|left| left.checked_sub(others)));
        let spare = self.spare.0.borrow_mut().pop();
        let is_new = spare.is_none();
        let mut fields = spare.unwrap_or_default();
        while let Some(key) = from.next_key_seed(self)? {
            let Json::Text(key) = key else {
                // The key was left out, and so is the rest.
                from.next_value::<IgnoredAny>()?;
                while from.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                break;
            };
            fields.push((key, from.next_value_seed(self)?));
        }
        if is_new {
            // Most objects are small, and a list begins with room for four.
            fields.shrink_to_fit();
        }
        Ok(Json::Object(fields))
    }
}
