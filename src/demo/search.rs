//! Exact search: every document is looked at, the score is computed in full, ties go by id.
//!
//! Scores: cosine is 1 − cos, euclidean is the distance itself, dotproduct is the product; with the first two smaller is closer.
//! Sparse vectors are stored and returned, but they do not count in the score. Several named vectors in one query are fused by
//! reciprocal rank (greater is closer), whatever ranker was asked for.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::call::{Refusal, code};
use super::engine::Documents;
use super::filter::{Filter, compare};
use super::proto::request::{OrderByField, QueryDocs, QueryGroups, VectorQuery};
use super::proto::{Doc, FieldValue, GroupResult, Metric, Value, Vector};
use super::schema::{ONLY_VECTOR, Projection, Schema, admit_vector, numbers};

const DEFAULT_TOPK: i32 = 10;
const MAX_TOPK_WITH_VECTORS: i32 = 1024;
const RANK_CONSTANT: f32 = 60.0;

/// A document and its score.
type Hit<'a> = (&'a Doc, f32);

/// One vector that is looked for.
struct Wanted {
    name: String,
    vector: Vector,
    metric: Metric,
    radius: f32,
}

/// The documents closest to the query, closest first; without vector and id those that the filter accepts, by id.
pub fn query(schema: &Schema, documents: &Documents, request: QueryDocs) -> Result<Vec<Doc>, Refusal> {
    let topk = limit(request.topk, request.include_vector)?;
    let filter = Filter::parse(&request.filter)?;
    let mut queries = request.vectors;
    if let Some(vector) = request.vector {
        queries.insert(ONLY_VECTOR.to_owned(), VectorQuery { vector: Some(vector), param: None });
    }
    let wanted = if request.id.is_empty() {
        queries.into_iter().map(|(name, query)| wanted(schema, &name, query)).collect::<Result<Vec<_>, _>>()?
    } else {
        like_document(schema, documents, &request.id, ONLY_VECTOR)?
    };
    let mut hits = rank(documents, &filter, &wanted);
    if !request.order_by_fields.is_empty() {
        hits.sort_by(|(a, _), (b, _)| by_fields(a, b, &request.order_by_fields));
    }
    hits.truncate(topk);
    let projection = Projection::new(request.include_vector, &request.output_fields);
    Ok(hits.into_iter().map(|(doc, score)| schema.present(doc, score, &projection)).collect())
}

/// The closest documents of each value of a field; groups in the order of their closest document. Documents without the field
/// are in no group.
pub fn query_groups(schema: &Schema, documents: &Documents, request: QueryGroups) -> Result<Vec<GroupResult>, Refusal> {
    if request.group_by_field.is_empty() {
        return Err(Refusal::new(code::INVALID_GROUP_BY, "group_by_field is missing"));
    }
    let (groups_wanted, topk) = (limit(request.group_count, false)?, limit(request.group_topk, false)?);
    let filter = Filter::parse(&request.filter)?;
    let wanted = match request.vector {
        Some(vector) => {
            vec![wanted(schema, &request.vector_field, VectorQuery { vector: Some(vector), param: None })?]
        }
        None => like_document(schema, documents, &request.id, &request.vector_field)?,
    };
    let projection = Projection::new(request.include_vector, &request.output_fields);
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<Doc>> = BTreeMap::new();
    for (doc, score) in rank(documents, &filter, &wanted) {
        let Some(id) = doc.fields.get(&request.group_by_field).and_then(group_id) else { continue };
        if !groups.contains_key(&id) {
            if groups.len() == groups_wanted {
                continue;
            }
            order.push(id.clone());
        }
        let docs = groups.entry(id).or_default();
        if docs.len() < topk {
            docs.push(schema.present(doc, score, &projection));
        }
    }
    let group = |id: String| GroupResult { docs: groups.remove(&id).unwrap_or_default(), group_id: id };
    Ok(order.into_iter().map(group).collect())
}

fn limit(asked: i32, with_vectors: bool) -> Result<usize, Refusal> {
    let asked = if asked == 0 { DEFAULT_TOPK } else { asked };
    let too_many = with_vectors && asked > MAX_TOPK_WITH_VECTORS;
    let limit = usize::try_from(asked).ok().filter(|_| !too_many);
    limit.ok_or_else(|| Refusal::new(code::INVALID_TOPK, format!("{asked} is out of range")))
}

fn wanted(schema: &Schema, name: &str, query: VectorQuery) -> Result<Wanted, Refusal> {
    let (name, param) = schema.vector(name)?;
    let vector = admit_vector(query.vector.unwrap_or_default(), param)?;
    let metric = Metric::try_from(param.metric).unwrap_or(Metric::Cosine);
    let radius = query.param.map_or(0.0, |param| param.radius);
    Ok(Wanted { name: name.to_owned(), vector, metric, radius })
}

/// Looks for what is like a stored document.
fn like_document(schema: &Schema, documents: &Documents, id: &str, name: &str) -> Result<Vec<Wanted>, Refusal> {
    let doc = documents.get(id).ok_or_else(|| Refusal::new(code::INEXISTENT_KEY, format!("no document {id}")))?;
    let (name, _) = schema.vector(name)?;
    let vector = doc.vectors.get(name).cloned();
    Ok(vec![wanted(schema, name, VectorQuery { vector, param: None })?])
}

fn rank<'a>(documents: &'a Documents, filter: &Filter, wanted: &[Wanted]) -> Vec<Hit<'a>> {
    let candidates = || documents.values().filter(|doc| filter.accepts(doc));
    match wanted {
        [] => candidates().map(|doc| (doc, 0.0)).collect(),
        [one] => closest(candidates(), one),
        several => fuse(several.iter().map(|one| closest(candidates(), one))),
    }
}

fn closest<'a>(candidates: impl Iterator<Item = &'a Doc>, wanted: &Wanted) -> Vec<Hit<'a>> {
    let target = numbers(&wanted.vector);
    let scored = candidates.filter_map(|doc| {
        let vector = doc.vectors.get(&wanted.name)?;
        Some((doc, score(wanted.metric, &target, &numbers(vector))))
    });
    let mut hits: Vec<Hit<'a>> = scored.filter(|(_, score)| within(wanted, *score)).collect();
    let nearer = |a: f32, b: f32| match wanted.metric {
        Metric::Dotproduct => b.total_cmp(&a),
        Metric::Cosine | Metric::Euclidean => a.total_cmp(&b),
    };
    hits.sort_by(|(a, a_score), (b, b_score)| nearer(*a_score, *b_score).then_with(|| a.id.cmp(&b.id)));
    hits
}

fn within(wanted: &Wanted, score: f32) -> bool {
    match wanted.metric {
        _ if wanted.radius == 0.0 => true,
        Metric::Dotproduct => score >= wanted.radius,
        Metric::Cosine | Metric::Euclidean => score <= wanted.radius,
    }
}

fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let score = match metric {
        Metric::Dotproduct => dot(a, b),
        Metric::Euclidean => a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt(),
        Metric::Cosine => {
            let norms = (dot(a, a) * dot(b, b)).sqrt();
            if norms == 0.0 { 1.0 } else { (1.0 - dot(a, b) / norms).max(0.0) }
        }
    };
    score as f32
}

fn fuse<'a>(rankings: impl Iterator<Item = Vec<Hit<'a>>>) -> Vec<Hit<'a>> {
    let mut fused: BTreeMap<&str, Hit<'a>> = BTreeMap::new();
    for ranking in rankings {
        for (place, (doc, _)) in ranking.into_iter().enumerate() {
            fused.entry(&doc.id).or_insert((doc, 0.0)).1 += 1.0 / (RANK_CONSTANT + place as f32 + 1.0);
        }
    }
    let mut hits: Vec<Hit<'a>> = fused.into_values().collect();
    // Stable: equal scores stay in the order of the ids.
    hits.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    hits
}

fn by_fields(a: &Doc, b: &Doc, order: &[OrderByField]) -> Ordering {
    let by_one = |by: &OrderByField| {
        let ordering = match (a.fields.get(&by.field), b.fields.get(&by.field)) {
            (Some(a), Some(b)) => compare(a, b).unwrap_or(Ordering::Equal),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        if by.desc { ordering.reverse() } else { ordering }
    };
    order.iter().map(by_one).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

fn group_id(field: &FieldValue) -> Option<String> {
    match field.value.as_ref()? {
        Value::Bool(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Int(value) => Some(value.to_string()),
        Value::Long(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Strings(_) | Value::Ints(_) | Value::Longs(_) | Value::Floats(_) => None,
    }
}
