//! What a collection's documents look like: which vectors they carry, and how a document is taken in and shown.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::call::{Refusal, code};
use super::proto::request::CreateCollection;
use super::proto::{
    CollectionInfo, DataType, Dense, Doc, FieldType, FieldValue, Index, Status, Value, Vector, VectorParam,
};

/// The name under which the only vector of a collection is described. A client creates it under the empty name.
pub const ONLY_VECTOR: &str = "proxima_vector";

const MAX_DIMENSION: u32 = 20_000;

#[derive(Clone, Debug)]
pub struct Schema {
    name: String,
    vectors: BTreeMap<String, VectorParam>,
    sparse_vectors: BTreeMap<String, VectorParam>,
    fields: BTreeMap<String, i32>,
    indexes: BTreeMap<String, Index>,
}

/// What of a document goes into an answer.
#[derive(Clone, Debug)]
pub struct Projection {
    vectors: bool,
    /// `None` shows all.
    fields: Option<BTreeSet<String>>,
}

impl Projection {
    /// No `output_fields` means all of them.
    pub fn new(include_vector: bool, output_fields: &[String]) -> Self {
        let fields = (!output_fields.is_empty()).then(|| output_fields.iter().cloned().collect());
        Self { vectors: include_vector, fields }
    }
}

impl Schema {
    pub fn new(request: CreateCollection) -> Result<Self, Refusal> {
        let mut vectors = request.vectors_schema;
        if vectors.is_empty() && request.sparse_vectors_schema.is_empty() {
            let only = VectorParam {
                dimension: request.dimension,
                dtype: request.dtype,
                metric: request.metric,
                quantize_type: String::new(),
            };
            vectors.insert(ONLY_VECTOR.to_owned(), only);
        }
        if let Some(only) = vectors.remove("") {
            vectors.insert(ONLY_VECTOR.to_owned(), only);
        }
        if let Some(wrong) = vectors.values().find(|param| !(2..=MAX_DIMENSION).contains(&param.dimension)) {
            let message = format!("the dimension {} is not in (1, {MAX_DIMENSION}]", wrong.dimension);
            return Err(Refusal::new(code::INVALID_DIMENSION, message));
        }
        Ok(Self {
            name: request.name,
            vectors,
            sparse_vectors: request.sparse_vectors_schema,
            fields: request.fields_schema,
            indexes: request.indexes,
        })
    }

    pub fn describe<'a>(&self, partitions: impl Iterator<Item = &'a String>) -> CollectionInfo {
        let only = self.vectors.get(ONLY_VECTOR).cloned().unwrap_or_default();
        CollectionInfo {
            name: self.name.clone(),
            dimension: only.dimension,
            dtype: only.dtype,
            metric: only.metric,
            fields_schema: self.fields.clone(),
            status: Status::Serving.into(),
            partitions: partitions.map(|name| (name.clone(), Status::Serving.into())).collect(),
            vectors_schema: self.vectors.clone(),
            sparse_vectors_schema: self.sparse_vectors.clone(),
            indexes: self.indexes.clone(),
        }
    }

    /// The vector called `name`; an empty name is the only one.
    pub fn vector(&self, name: &str) -> Result<(&str, &VectorParam), Refusal> {
        let name = if name.is_empty() { ONLY_VECTOR } else { name };
        let known = self.vectors.get_key_value(name).map(|(name, param)| (name.as_str(), param));
        known.ok_or_else(|| Refusal::new(code::INEXISTENT_COLUMN, format!("there is no vector {name}")))
    }

    /// Brings a document into the form that is stored: all vectors by name, in the schema's types.
    pub fn admit(&self, mut doc: Doc) -> Result<Doc, Refusal> {
        if let Some(only) = doc.vector.take() {
            doc.vectors.insert(ONLY_VECTOR.to_owned(), only);
        }
        if let Some(only) = doc.vectors.remove("") {
            doc.vectors.insert(ONLY_VECTOR.to_owned(), only);
        }
        let vectors = std::mem::take(&mut doc.vectors);
        for (name, vector) in vectors {
            let (_, param) = self.vector(&name)?;
            let vector = admit_vector(vector, param)?;
            doc.vectors.insert(name, vector);
        }
        for (name, field) in &mut doc.fields {
            widen(field, self.fields.get(name).copied());
        }
        doc.score = 0.0;
        Ok(doc)
    }

    /// A stored document as a client sees it.
    pub fn present(&self, doc: &Doc, score: f32, projection: &Projection) -> Doc {
        let shown = |name: &String| projection.fields.as_ref().is_none_or(|fields| fields.contains(name));
        let fields = doc.fields.iter().filter(|(name, _)| shown(name));
        let mut answer = Doc {
            id: doc.id.clone(),
            score,
            fields: fields.map(|(name, value)| (name.clone(), value.clone())).collect(),
            ..Doc::default()
        };
        if projection.vectors {
            answer.sparse_vector = doc.sparse_vector.clone();
            answer.sparse_vectors = doc.sparse_vectors.clone();
            answer.vectors = doc.vectors.clone();
            answer.vector = answer.vectors.remove(ONLY_VECTOR);
        }
        answer
    }
}

/// A vector of the schema's dimension and type, from a document or a query.
pub fn admit_vector(vector: Vector, param: &VectorParam) -> Result<Vector, Refusal> {
    let dense = match (vector.dense, DataType::try_from(param.dtype)) {
        (Some(Dense::Floats(floats)), Ok(DataType::Int)) => Dense::Bytes(int8(&floats.values)?),
        (Some(Dense::Bytes(_)), Ok(DataType::Float)) => {
            return Err(Refusal::new(code::INVALID_VECTOR_FORMAT, "bytes for a vector of floats"));
        }
        (Some(dense), _) => dense,
        (None, _) => return Err(Refusal::new(code::INVALID_VECTOR_FORMAT, "the vector is empty")),
    };
    let length = match &dense {
        Dense::Bytes(bytes) => bytes.len(),
        Dense::Floats(floats) => floats.values.len(),
    };
    if u32::try_from(length) != Ok(param.dimension) {
        let message = format!("the vector has {length} values, the collection's dimension is {}", param.dimension);
        return Err(Refusal::new(code::MISMATCHED_DIMENSION, message));
    }
    Ok(Vector { dense: Some(dense) })
}

/// The numbers of a vector, for the score.
pub fn numbers(vector: &Vector) -> Cow<'_, [f32]> {
    match &vector.dense {
        Some(Dense::Floats(floats)) => Cow::Borrowed(&floats.values),
        Some(Dense::Bytes(bytes)) => bytes.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        None => Cow::Borrowed(&[]),
    }
}

fn int8(values: &[f32]) -> Result<Vec<u8>, Refusal> {
    let byte = |value: &f32| {
        let whole = value.fract() == 0.0 && (-128.0..=127.0).contains(value);
        let wrong = || Refusal::new(code::INVALID_VECTOR_FORMAT, format!("{value} is not a signed byte"));
        // The range was checked, so nothing is cut off.
        whole.then(|| (*value as i8).cast_unsigned()).ok_or_else(wrong)
    };
    values.iter().map(byte).collect()
}

/// JSON has one kind of number: the schema says which one was meant.
fn widen(field: &mut FieldValue, wanted: Option<i32>) {
    let wanted = wanted.and_then(|number| FieldType::try_from(number).ok());
    let wider = match (&field.value, wanted) {
        (Some(Value::Int(int)), Some(FieldType::Long)) => Value::Long(i64::from(*int)),
        (Some(Value::Int(int)), Some(FieldType::Float)) => Value::Float(*int as f32),
        (Some(Value::Long(long)), Some(FieldType::Float)) => Value::Float(*long as f32),
        _ => return,
    };
    field.value = Some(wider);
}
