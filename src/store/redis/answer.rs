//! What a script answered, taken apart from front to back.

use redis::Value;

use crate::store::StoreError;

/// The parts of an answer that are not taken yet.
#[derive(Debug)]
pub struct Answer {
    /// The first part: what kind of answer it is.
    pub said: String,
    parts: std::vec::IntoIter<Value>,
}

impl Answer {
    pub fn of(value: Value) -> Result<Self, StoreError> {
        let Value::Array(parts) = value else {
            return Err(unexpected("an answer that is no list"));
        };
        let mut answer = Self { said: String::new(), parts: parts.into_iter() };
        answer.said = answer.text()?;
        Ok(answer)
    }

    /// Absent where the script had nothing to give there, and at the end.
    pub fn maybe_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.parts.next() {
            None | Some(Value::Nil | Value::Boolean(false)) => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::SimpleString(text)) => Ok(Some(text.into_bytes())),
            Some(Value::Okay) => Ok(Some(b"OK".to_vec())),
            Some(Value::Int(number)) => Ok(Some(number.to_string().into_bytes())),
            Some(_) => Err(unexpected("an answer with a part of an unknown kind")),
        }
    }

    pub fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.maybe_bytes()?.ok_or_else(|| unexpected("an answer that is too short"))
    }

    pub fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("an answer that is not text"))
    }

    /// What the text stands for.
    pub fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|_| unexpected("an answer that is not of the form it should have"))
    }

    pub fn is_at_end(&self) -> bool {
        self.parts.len() == 0
    }
}

pub fn unexpected(what: &str) -> StoreError {
    StoreError::Corrupt(format!("redis gave {what}"))
}
