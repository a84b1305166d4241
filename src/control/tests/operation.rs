//! One operation of the OpenAPI document: what it takes, who may use it, and whether an answer is one of its own.

use super::*;

/// One operation of the document.
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub facts: Value,
}

impl Operation {
    pub fn id(&self) -> &str {
        self.facts["operationId"].as_str().unwrap()
    }

    pub fn callers(&self) -> Vec<&str> {
        self.facts["x-callers"].as_array().unwrap().iter().map(|who| who.as_str().unwrap()).collect()
    }

    pub fn parameters(&self, place: &str) -> Vec<&Value> {
        let all = self.facts["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == place).collect()
    }

    pub fn example(&self) -> Value {
        self.facts["requestBody"]["content"]["application/json"]["example"].clone()
    }

    pub fn is_success(&self, status: StatusCode) -> bool {
        status.is_success() && self.facts["responses"].get(status.as_str()).is_some()
    }

    /// That this answer is one of the document's, down to its code.
    #[track_caller]
    pub fn check_documented(&self, answer: &Answer) {
        let told = &self.facts["responses"][answer.status.as_str()];
        assert!(told.is_object(), "{} answers {}: {}", self.id(), answer.status, answer.text);
        if let Some(codes) = told["x-codes"].as_array() {
            assert!(codes.contains(&answer.json()["code"]), "{}: {}", self.id(), answer.text);
        }
    }
}
