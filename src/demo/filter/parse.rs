//! Reads the text of a filter: words, signs and values first, then the expression.

use crate::demo::call::{Refusal, code};
use crate::demo::proto::{FieldValue, Value};

use super::{Expression, Relation};

/// How deep parentheses and `not` may be nested.
const MAX_DEPTH: usize = 64;

/// The expression of a filter; `None` for the empty text.
pub fn filter(text: &str) -> Result<Option<Expression>, Refusal> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), depth: 0 };
    let expression = parser.any_of()?;
    match parser.tokens.next() {
        None => Ok(Some(expression)),
        Some(token) => Err(wrong(format!("{token:?} was not expected"))),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Sign(&'static str),
    Literal(FieldValue),
}

const SIGNS: [&str; 11] = ["<=", ">=", "!=", "<>", "==", "=", "<", ">", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else if first == '\'' || first == '"' {
            let (quoted, length) = quoted(rest, first)?;
            (literal(Value::String(quoted)), length)
        } else {
            let end = |c: char| c.is_whitespace() || "<>=!(),'\"".contains(c);
            let length = rest.find(end).unwrap_or(rest.len());
            if length == 0 {
                return Err(wrong(format!("{first:?} was not expected")));
            }
            (word(rest.get(..length).unwrap_or_default()), length)
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

/// A text in quotes and the bytes it takes up; a backslash keeps the next character as it is.
fn quoted(text: &str, quote: char) -> Result<(String, usize), Refusal> {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => content.extend(characters.next().map(|(_, escaped)| escaped)),
            _ if character == quote => return Ok((content, at + character.len_utf8())),
            _ => content.push(character),
        }
    }
    Err(wrong("a text is not closed"))
}

fn word(word: &str) -> Token {
    if let Ok(int) = word.parse() {
        return literal(Value::Long(int));
    }
    match word.to_ascii_lowercase().as_str() {
        "true" => literal(Value::Bool(true)),
        "false" => literal(Value::Bool(false)),
        // "nan" and "inf" would parse, too, but they are field names here.
        _ if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => match word.parse() {
            Ok(float) => literal(Value::Float(float)),
            Err(_) => Token::Word(word.to_owned()),
        },
        _ => Token::Word(word.to_owned()),
    }
}

fn literal(value: Value) -> Token {
    Token::Literal(FieldValue { value: Some(value) })
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

impl Parser {
    fn any_of(&mut self) -> Result<Expression, Refusal> {
        let mut alternatives = vec![self.all_of()?];
        while self.take_word("or") {
            alternatives.push(self.all_of()?);
        }
        Ok(Expression::Or(alternatives))
    }

    fn all_of(&mut self) -> Result<Expression, Refusal> {
        let mut conditions = vec![self.one()?];
        while self.take_word("and") {
            conditions.push(self.one()?);
        }
        Ok(Expression::And(conditions))
    }

    fn one(&mut self) -> Result<Expression, Refusal> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(wrong("it is nested too deeply"));
        }
        let expression = if self.take_word("not") {
            Expression::Not(Box::new(self.one()?))
        } else if self.take_sign("(") {
            let inner = self.any_of()?;
            self.expect(")")?;
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn condition(&mut self) -> Result<Expression, Refusal> {
        let field = match self.tokens.next() {
            Some(Token::Word(field)) => field,
            other => return Err(wrong(format!("a field was expected, not {other:?}"))),
        };
        if self.take_word("is") {
            let negated = self.take_word("not");
            return self.expect_word("null").map(|()| negate(negated, Expression::IsNull { field }));
        }
        let negated = self.take_word("not");
        if self.take_word("in") {
            return Ok(negate(negated, Expression::In { field, literals: self.literals()? }));
        }
        if self.take_word("like") {
            let Some(Value::String(pattern)) = self.literal()?.value else { return Err(wrong("like needs a text")) };
            return Ok(negate(negated, Expression::Like { field, pattern }));
        }
        match self.tokens.next() {
            Some(Token::Sign(sign)) if !negated => {
                let relation = Relation::from_sign(sign).ok_or_else(|| wrong(format!("{sign} compares nothing")))?;
                Ok(Expression::Compare { field, relation, literal: self.literal()? })
            }
            other => Err(wrong(format!("a comparison was expected, not {other:?}"))),
        }
    }

    fn literals(&mut self) -> Result<Vec<FieldValue>, Refusal> {
        self.expect("(")?;
        let mut literals = vec![self.literal()?];
        while self.take_sign(",") {
            literals.push(self.literal()?);
        }
        self.expect(")").map(|()| literals)
    }

    fn literal(&mut self) -> Result<FieldValue, Refusal> {
        match self.tokens.next() {
            Some(Token::Literal(value)) => Ok(value),
            other => Err(wrong(format!("a value was expected, not {other:?}"))),
        }
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let is_it = |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.tokens.next_if(is_it).is_some()
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Sign(found) if *found == sign)).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), Refusal> {
        if self.take_sign(sign) { Ok(()) } else { Err(wrong(format!("{sign} is missing"))) }
    }

    fn expect_word(&mut self, keyword: &str) -> Result<(), Refusal> {
        if self.take_word(keyword) { Ok(()) } else { Err(wrong(format!("{keyword} is missing"))) }
    }
}

fn negate(negated: bool, expression: Expression) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

fn wrong(what: impl AsRef<str>) -> Refusal {
    Refusal::new(code::INVALID_FILTER, format!("the filter is not valid: {}", what.as_ref()))
}
