//! Filters over a document's fields: comparisons (`=`, `!=`, `<>`, `<`, `<=`, `>`, `>=`), `[not] in (…)`, `like 'prefix%'`,
//! `is [not] null`, joined by `and`, `or`, `not` and parentheses.
//!
//! A comparison with a field that a document does not have, or with a value of another kind, is false.

use std::cmp::Ordering;

use super::call::Refusal;
use super::proto::{Doc, FieldValue, Value};

mod parse;

/// A parsed filter. The empty text accepts every document.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Option<Expression>);

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare { field: String, relation: Relation, literal: FieldValue },
    In { field: String, literals: Vec<FieldValue> },
    Like { field: String, pattern: String },
    IsNull { field: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        parse::filter(text).map(Self)
    }

    pub fn accepts(&self, doc: &Doc) -> bool {
        self.0.as_ref().is_none_or(|expression| expression.holds(doc))
    }
}

impl Expression {
    fn holds(&self, doc: &Doc) -> bool {
        match self {
            Self::And(all) => all.iter().all(|one| one.holds(doc)),
            Self::Or(any) => any.iter().any(|one| one.holds(doc)),
            Self::Not(inner) => !inner.holds(doc),
            Self::Compare { field, relation, literal } => {
                let ordering = doc.fields.get(field).and_then(|value| compare(value, literal));
                ordering.is_some_and(|ordering| relation.holds(ordering))
            }
            Self::In { field, literals } => doc
                .fields
                .get(field)
                .is_some_and(|value| literals.iter().any(|literal| compare(value, literal) == Some(Ordering::Equal))),
            Self::Like { field, pattern } => match doc.fields.get(field).and_then(|value| value.value.as_ref()) {
                Some(Value::String(text)) => is_like(text, pattern),
                _ => false,
            },
            Self::IsNull { field } => doc.fields.get(field).is_none_or(|value| value.value.is_none()),
        }
    }
}

impl Relation {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    fn from_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" | "==" => Self::Equal,
            "!=" | "<>" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// Orders two values of the same kind; all numbers are of one kind.
pub fn compare(a: &FieldValue, b: &FieldValue) -> Option<Ordering> {
    let (a, b) = (a.value.as_ref()?, b.value.as_ref()?);
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            // A literal such as 0.1 is kept as f32, like the field it is compared with.
            _ => number(a)?.partial_cmp(&number(b)?),
        },
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(i64::from(*int)),
        Value::Long(long) => Some(*long),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(float) => Some(f64::from(*float)),
        other => whole(other).map(|whole| whole as f64),
    }
}

/// `%` stands for any text; a pattern without one is compared as it is.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('%');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(found) = rest.find(part) else { return false };
        rest = rest.get(found + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::call::code;
    use crate::demo::proto::Strings;

    fn doc() -> Doc {
        let fields = [
            ("name", Value::String("it's a pie".to_owned())),
            ("age", Value::Int(20)),
            ("big", Value::Long(i64::MAX)),
            ("weight", Value::Float(0.1)),
            ("sold", Value::Bool(false)),
            ("tags", Value::Strings(Strings { values: vec!["a".to_owned()] })),
        ];
        let field = |(name, value): (&str, Value)| (name.to_owned(), FieldValue { value: Some(value) });
        Doc { fields: fields.into_iter().map(field).collect(), ..Doc::default() }
    }

    #[test]
    fn a_filter_accepts_what_it_says() {
        for accepted in [
            "",
            "  ",
            "age = 20",
            "age==20 AND weight=0.1",
            "age>=20",
            "age > 19.5 and age < 20.5",
            "age <> 21",
            "age != 21 or nonsense = 1",
            "big = 9223372036854775807",
            "big > 9223372036854775806",
            "sold = false",
            "not sold = true",
            "name = 'it\\'s a pie'",
            "name = \"it's a pie\"",
            "name like 'it%'",
            "name like '%a%pie'",
            "name not like 'pie%'",
            "age in (1, 20, 3)",
            "age not in (1, 2)",
            "nobody is null",
            "age is not null",
            "age = 1 or age = 20 and weight < 1",
            "(age = 1 or age = 20) and weight < 1",
            "((age = 20))",
        ] {
            assert_eq!(Filter::parse(accepted).map(|filter| filter.accepts(&doc())), Ok(true), "{accepted}");
        }
    }

    #[test]
    fn a_filter_accepts_nothing_else() {
        for refused in [
            "age = 21",
            "age = '20'",
            "age != '20'",
            "name > 3",
            "nobody = 1",
            "nobody != 1",
            "tags = 'a'",
            "big > 9223372036854775807",
            "name like 'pie'",
            "name like 'it'",
            "age = 1 and age = 20 or weight > 1",
            "(age = 1 or age = 20) and weight > 1",
            "age is null",
            "not age = 20",
        ] {
            assert_eq!(Filter::parse(refused).map(|filter| filter.accepts(&doc())), Ok(false), "{refused}");
        }
    }

    #[test]
    fn what_is_not_a_filter_is_refused_as_one() {
        let deep = format!("{}age = 1{}", "(".repeat(5000), ")".repeat(5000));
        let negated = "not ".repeat(5000) + "age = 1";
        for wrong in [
            "age",
            "age =",
            "= 1",
            "age = 1 and",
            "(age = 1",
            "age = 1)",
            "age = x",
            "age ! 1",
            "age in ()",
            "name = 'a",
            "age in (1,)",
            "age not = 1",
            "age is 1",
            "like 'a'",
            "name like 3",
            "age = 1 age = 2",
            &deep,
            &negated,
        ] {
            assert_eq!(Filter::parse(wrong).map_err(|refusal| refusal.code), Err(code::INVALID_FILTER), "{wrong}");
        }
    }
}
