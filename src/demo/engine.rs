//! The collections, partitions and documents of the sample service, in memory. Document ids are unique within a partition and
//! come back in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::call::{Call, Outcome, Output, Refusal, Request, VERSION, code};
use super::filter::Filter;
use super::proto::request::{CreateCollection, DeleteDocs, FetchDocs, WriteDocs};
use super::proto::{CollectionStats, Doc, DocOp, DocOpResult, PartitionStats, Status};
use super::schema::{Projection, Schema};
use super::search;

/// The partition that every collection has, and that an empty name means.
pub const DEFAULT_PARTITION: &str = "default";

const MAX_COLLECTIONS: usize = 1024;
const MAX_PARTITIONS: usize = 1024;
const MAX_DOCUMENTS: usize = 4_000_000;

pub type Documents = BTreeMap<String, Doc>;

#[derive(Debug, Default)]
pub struct Engine {
    collections: RwLock<BTreeMap<String, Collection>>,
    last_generated: AtomicU64,
}

#[derive(Debug)]
struct Collection {
    schema: Schema,
    partitions: BTreeMap<String, Documents>,
}

impl Engine {
    /// Runs one call to its end. Documents that could not be written are told one by one, in a good answer.
    pub fn execute(&self, call: Call) -> Result<Outcome, Refusal> {
        let name = call.collection;
        match call.request {
            Request::GetVersion => Ok(Outcome::free(Output::Version(VERSION.to_owned()))),
            Request::CreateCollection(request) => self.create(request),
            Request::DeleteCollection => self.drop_collection(&name),
            Request::ListCollections => {
                Ok(Outcome::free(Output::Names(self.collections.read().keys().cloned().collect())))
            }
            Request::DescribeCollection => self.read(&name, |it| Ok(Outcome::free(Output::Collection(it.describe())))),
            Request::StatsCollection => self.read(&name, |it| Ok(Outcome::free(Output::Stats(it.stats())))),
            Request::CreatePartition(request) => self.write(&name, |it| it.create_partition(request.name)),
            Request::DeletePartition(request) => self.write(&name, |it| it.drop_partition(&request.name)),
            Request::DescribePartition(request) => self.read(&name, |it| it.describe_partition(&request.name)),
            Request::ListPartitions => self.read(&name, |it| Ok(Outcome::free(Output::Names(it.partition_names())))),
            Request::StatsPartition(request) => self.read(&name, |it| it.stats_of_partition(&request.name)),
            Request::Write(operation, request) => self.write(&name, |it| it.store(operation, request, || self.next())),
            Request::Delete(request) => self.write(&name, |it| it.remove(request)),
            Request::Fetch(request) => self.read(&name, |it| it.fetch(&request)),
            Request::Query(request) => self.read(&name, |it| {
                let docs = search::query(&it.schema, it.partition(&request.partition)?, request)?;
                let found = docs.len();
                Ok(Outcome::read(Output::Docs(docs), found))
            }),
            Request::QueryGroupBy(request) => self.read(&name, |it| {
                let groups = search::query_groups(&it.schema, it.partition(&request.partition)?, request)?;
                // The protocol has no place for the usage of a grouped query.
                Ok(Outcome::free(Output::Groups(groups)))
            }),
        }
    }

    fn create(&self, request: CreateCollection) -> Result<Outcome, Refusal> {
        if !is_name(&request.name) {
            return Err(Refusal::new(code::INVALID_COLLECTION_NAME, "a name has 3 to 32 of A-Z a-z 0-9 _ -"));
        }
        let mut collections = self.collections.write();
        if collections.contains_key(&request.name) {
            return Err(Refusal::new(code::DUPLICATE_COLLECTION, format!("{} exists already", request.name)));
        }
        if collections.len() >= MAX_COLLECTIONS {
            return Err(Refusal::new(code::UNSUPPORTED_CONDITION, "there are too many collections"));
        }
        let name = request.name.clone();
        let partitions = BTreeMap::from([(DEFAULT_PARTITION.to_owned(), Documents::new())]);
        collections.insert(name, Collection { schema: Schema::new(request)?, partitions });
        Ok(Outcome::free(Output::Nothing))
    }

    fn drop_collection(&self, name: &str) -> Result<Outcome, Refusal> {
        let dropped = self.collections.write().remove(name);
        dropped.map(|_| Outcome::free(Output::Nothing)).ok_or_else(|| no_collection(name))
    }

    fn read<T>(&self, name: &str, f: impl FnOnce(&Collection) -> Result<T, Refusal>) -> Result<T, Refusal> {
        f(self.collections.read().get(name).ok_or_else(|| no_collection(name))?)
    }

    fn write<T>(&self, name: &str, f: impl FnOnce(&mut Collection) -> Result<T, Refusal>) -> Result<T, Refusal> {
        f(self.collections.write().get_mut(name).ok_or_else(|| no_collection(name))?)
    }

    /// An id for a document that came without one: in order, so that a run can be repeated.
    fn next(&self) -> String {
        format!("{:019}", self.last_generated.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Collection {
    fn describe(&self) -> super::proto::CollectionInfo {
        self.schema.describe(self.partitions.keys())
    }

    fn stats(&self) -> CollectionStats {
        let of = |documents: &Documents| PartitionStats { total_doc_count: documents.len() as u64 };
        CollectionStats {
            total_doc_count: self.partitions.values().map(|documents| documents.len() as u64).sum(),
            index_completeness: 1.0,
            partitions: self.partitions.iter().map(|(name, documents)| (name.clone(), of(documents))).collect(),
        }
    }

    fn partition_names(&self) -> Vec<String> {
        self.partitions.keys().cloned().collect()
    }

    fn partition(&self, name: &str) -> Result<&Documents, Refusal> {
        let name = or_default(name);
        self.partitions.get(name).ok_or_else(|| no_partition(name))
    }

    fn create_partition(&mut self, name: String) -> Result<Outcome, Refusal> {
        if !is_name(&name) {
            return Err(Refusal::new(code::INVALID_PARTITION_NAME, "a name has 3 to 32 of A-Z a-z 0-9 _ -"));
        }
        if self.partitions.contains_key(&name) {
            return Err(Refusal::new(code::DUPLICATE_PARTITION, format!("{name} exists already")));
        }
        if self.partitions.len() >= MAX_PARTITIONS {
            return Err(Refusal::new(code::UNSUPPORTED_CONDITION, "there are too many partitions"));
        }
        self.partitions.insert(name, Documents::new());
        Ok(Outcome::free(Output::Nothing))
    }

    fn drop_partition(&mut self, name: &str) -> Result<Outcome, Refusal> {
        if name == DEFAULT_PARTITION {
            return Err(Refusal::new(code::UNSUPPORTED_CONDITION, "the default partition stays"));
        }
        let dropped = self.partitions.remove(name);
        dropped.map(|_| Outcome::free(Output::Nothing)).ok_or_else(|| no_partition(name))
    }

    fn describe_partition(&self, name: &str) -> Result<Outcome, Refusal> {
        self.partition(name).map(|_| Outcome::free(Output::Status(Status::Serving.into())))
    }

    fn stats_of_partition(&self, name: &str) -> Result<Outcome, Refusal> {
        let total_doc_count = self.partition(name)?.len() as u64;
        Ok(Outcome::free(Output::PartitionStats(PartitionStats { total_doc_count })))
    }

    fn store(&mut self, op: DocOp, request: WriteDocs, next: impl Fn() -> String) -> Result<Outcome, Refusal> {
        let name = or_default(&request.partition);
        let documents = self.partitions.get_mut(name).ok_or_else(|| no_partition(name))?;
        let schema = &self.schema;
        let mut store_one = |mut doc: Doc| {
            if doc.id.is_empty() && op != DocOp::Update {
                doc.id = next();
            }
            let id = doc.id.clone();
            result(op, id, schema.admit(doc).and_then(|doc| put(documents, op, doc)))
        };
        Ok(Outcome::written(request.docs.into_iter().map(&mut store_one).collect()))
    }

    fn remove(&mut self, request: DeleteDocs) -> Result<Outcome, Refusal> {
        let filter = Filter::parse(&request.filter)?;
        let name = or_default(&request.partition);
        let documents = self.partitions.get_mut(name).ok_or_else(|| no_partition(name))?;
        let ids = if request.delete_all {
            documents.keys().cloned().collect()
        } else if request.ids.is_empty() && !request.filter.is_empty() {
            documents.values().filter(|doc| filter.accepts(doc)).map(|doc| doc.id.clone()).collect()
        } else {
            request.ids
        };
        let remove_one = |id: String| {
            let removed = documents.remove(&id).map(|_| ());
            let outcome = removed.ok_or_else(|| Refusal::new(code::INEXISTENT_KEY, "there is no such document"));
            result(DocOp::Delete, id, outcome)
        };
        Ok(Outcome::written(ids.into_iter().map(remove_one).collect()))
    }

    /// Documents that are not there are left out.
    fn fetch(&self, request: &FetchDocs) -> Result<Outcome, Refusal> {
        let documents = self.partition(&request.partition)?;
        let projection = Projection::new(true, &request.output_fields);
        let known = request.ids.iter().filter_map(|id| documents.get_key_value(id));
        let found: BTreeMap<_, _> =
            known.map(|(id, doc)| (id.clone(), self.schema.present(doc, 0.0, &projection))).collect();
        let count = found.len();
        Ok(Outcome::read(Output::Fetched(found), count))
    }
}

/// Puts one document in. An update replaces the fields and keeps the vectors that it does not bring.
fn put(documents: &mut Documents, op: DocOp, mut doc: Doc) -> Result<(), Refusal> {
    let present = documents.get(&doc.id);
    match (op, present) {
        (DocOp::Insert, Some(_)) => return Err(Refusal::new(code::DUPLICATE_KEY, "the document exists already")),
        (DocOp::Update, None) => return Err(Refusal::new(code::INEXISTENT_KEY, "there is no such document")),
        (DocOp::Update, Some(old)) => {
            for (name, vector) in &old.vectors {
                doc.vectors.entry(name.clone()).or_insert_with(|| vector.clone());
            }
        }
        (_, None) if documents.len() >= MAX_DOCUMENTS => {
            return Err(Refusal::new(code::UNSUPPORTED_CONDITION, "the partition is full"));
        }
        _ => {}
    }
    if doc.vectors.is_empty() && doc.sparse_vectors.is_empty() {
        return Err(Refusal::new(code::INVALID_VECTOR_FORMAT, "the document has no vector"));
    }
    documents.insert(doc.id.clone(), doc);
    Ok(())
}

fn result(op: DocOp, id: String, outcome: Result<(), Refusal>) -> DocOpResult {
    let (code, message) = outcome.err().map_or_else(Default::default, |refusal| (refusal.code, refusal.message));
    DocOpResult { doc_op: op.into(), id, code, message }
}

fn or_default(partition: &str) -> &str {
    if partition.is_empty() { DEFAULT_PARTITION } else { partition }
}

fn is_name(name: &str) -> bool {
    (3..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn no_collection(name: &str) -> Refusal {
    Refusal::new(code::INEXISTENT_COLLECTION, format!("there is no collection {name}"))
}

fn no_partition(name: &str) -> Refusal {
    Refusal::new(code::INEXISTENT_PARTITION, format!("there is no partition {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::proto::request::{Named, QueryDocs, QueryGroups};
    use crate::demo::proto::{Dense, Floats, Metric, Units, Vector};

    fn vector(values: &[f32]) -> Option<Vector> {
        Some(Vector { dense: Some(Dense::Floats(Floats { values: values.to_vec() })) })
    }

    fn doc(id: &str, values: &[f32]) -> Doc {
        Doc { id: id.to_owned(), vector: vector(values), ..Doc::default() }
    }

    fn run(engine: &Engine, request: Request) -> Result<Outcome, Refusal> {
        engine.execute(Call { collection: "books".to_owned(), request })
    }

    fn write(engine: &Engine, op: DocOp, docs: Vec<Doc>) -> (Vec<(String, i32)>, Option<Units>) {
        let outcome = run(engine, Request::Write(op, WriteDocs { docs, partition: String::new() })).unwrap();
        let Output::Written(results) = outcome.output else { panic!("{outcome:?}") };
        (results.into_iter().map(|result| (result.id, result.code)).collect(), outcome.units)
    }

    fn found(outcome: Outcome) -> Vec<(String, f32)> {
        let Output::Docs(docs) = outcome.output else { panic!("{outcome:?}") };
        docs.into_iter().map(|doc| (doc.id, doc.score)).collect()
    }

    fn engine(metric: Metric, docs: Vec<Doc>) -> Engine {
        let engine = Engine::default();
        let create = CreateCollection {
            name: "books".to_owned(),
            dimension: 2,
            metric: metric.into(),
            ..CreateCollection::default()
        };
        run(&engine, Request::CreateCollection(create)).unwrap();
        write(&engine, DocOp::Insert, docs);
        engine
    }

    #[test]
    fn each_metric_ranks_the_closest_first() {
        let docs = vec![doc("a", &[1.0, 0.0]), doc("b", &[3.0, 4.0]), doc("c", &[-1.0, 0.0]), doc("d", &[1.0, 0.0])];
        let near = |metric| {
            let request = QueryDocs { vector: vector(&[2.0, 0.0]), topk: 3, ..QueryDocs::default() };
            found(run(&engine(metric, docs.clone()), Request::Query(request)).unwrap())
        };
        let named = |hits: &[(&str, f32)]| hits.iter().map(|(id, score)| (id.to_string(), *score)).collect::<Vec<_>>();
        assert_eq!(near(Metric::Cosine), named(&[("a", 0.0), ("d", 0.0), ("b", 0.4)]));
        assert_eq!(near(Metric::Euclidean), named(&[("a", 1.0), ("d", 1.0), ("c", 3.0)]));
        assert_eq!(near(Metric::Dotproduct), named(&[("b", 6.0), ("a", 2.0), ("d", 2.0)]));
    }

    #[test]
    fn a_query_by_id_finds_the_document_itself_first_and_costs_what_it_returns() {
        let engine = engine(Metric::Euclidean, vec![doc("a", &[1.0, 0.0]), doc("b", &[0.0, 1.0])]);
        let request = QueryDocs { id: "b".to_owned(), ..QueryDocs::default() };
        let outcome = run(&engine, Request::Query(request.clone())).unwrap();
        assert_eq!(outcome.units, Some(Units::Read(3)));
        assert_eq!(found(outcome)[0].0, "b");
        let unknown = QueryDocs { id: "nobody".to_owned(), ..request };
        assert_eq!(run(&engine, Request::Query(unknown)).unwrap_err().code, code::INEXISTENT_KEY);
    }

    #[test]
    fn an_insert_never_overwrites_and_only_what_was_written_costs() {
        let engine = engine(Metric::Cosine, vec![doc("a", &[1.0, 0.0])]);
        let (results, units) = write(&engine, DocOp::Insert, vec![doc("a", &[9.0, 9.0]), doc("b", &[0.0, 1.0])]);
        assert_eq!(results, [("a".to_owned(), code::DUPLICATE_KEY), ("b".to_owned(), 0)]);
        assert_eq!(units, Some(Units::Write(1)));
        let fetch = FetchDocs { ids: vec!["a".to_owned()], ..FetchDocs::default() };
        let Output::Fetched(docs) = run(&engine, Request::Fetch(fetch)).unwrap().output else { panic!() };
        assert_eq!(docs["a"].vector, vector(&[1.0, 0.0]));
    }

    #[test]
    fn documents_without_an_id_get_one_each() {
        let engine = engine(Metric::Cosine, vec![]);
        let (results, _) = write(&engine, DocOp::Upsert, vec![doc("", &[1.0, 0.0]), doc("", &[1.0, 0.0])]);
        assert!(!results[0].0.is_empty() && results[0].0 < results[1].0, "{results:?}");
        assert_eq!(write(&engine, DocOp::Update, vec![doc("", &[1.0, 0.0])]).0[0].1, code::INEXISTENT_KEY);
    }

    #[test]
    fn an_update_keeps_the_vector_that_it_does_not_bring() {
        let engine = engine(Metric::Cosine, vec![doc("a", &[1.0, 0.0])]);
        let bare = Doc { id: "a".to_owned(), ..Doc::default() };
        assert_eq!(write(&engine, DocOp::Update, vec![bare.clone()]).0[0].1, 0);
        assert_eq!(write(&engine, DocOp::Upsert, vec![bare]).0[0].1, code::INVALID_VECTOR_FORMAT);
        assert_eq!(write(&engine, DocOp::Upsert, vec![doc("a", &[1.0])]).0[0].1, code::MISMATCHED_DIMENSION);
    }

    #[test]
    fn groups_come_in_the_order_of_their_closest_document() {
        let kind = |id: &str, values: &[f32], kind: &str| {
            let value = crate::demo::proto::Value::String(kind.to_owned());
            let field = crate::demo::proto::FieldValue { value: Some(value) };
            Doc { fields: [("kind".to_owned(), field)].into(), ..doc(id, values) }
        };
        let docs = vec![
            kind("a", &[0.0, 5.0], "x"),
            kind("b", &[0.0, 1.0], "y"),
            kind("c", &[0.0, 2.0], "x"),
            kind("d", &[0.0, 3.0], "x"),
            doc("e", &[0.0, 0.0]),
        ];
        let request = QueryGroups {
            vector: vector(&[0.0, 0.0]),
            group_by_field: "kind".to_owned(),
            group_topk: 2,
            ..QueryGroups::default()
        };
        let outcome = run(&engine(Metric::Euclidean, docs), Request::QueryGroupBy(request)).unwrap();
        assert_eq!(outcome.units, None, "a grouped query tells no units");
        let Output::Groups(groups) = outcome.output else { panic!("{outcome:?}") };
        let ids = |docs: &[Doc]| docs.iter().map(|doc| doc.id.clone()).collect::<Vec<_>>();
        let groups: Vec<_> = groups.iter().map(|group| (group.group_id.as_str(), ids(&group.docs))).collect();
        assert_eq!(groups, [("y", vec!["b".to_owned()]), ("x", vec!["c".to_owned(), "d".to_owned()])]);
    }

    #[test]
    fn a_delete_removes_what_it_names_or_what_its_filter_accepts() {
        let docs = vec![doc("a", &[1.0, 0.0]), doc("b", &[1.0, 0.0]), doc("c", &[1.0, 0.0])];
        let engine = engine(Metric::Cosine, docs);
        let units = |request| run(&engine, Request::Delete(request)).unwrap().units;
        assert_eq!(
            units(DeleteDocs { ids: vec!["a".into(), "x".into()], ..Default::default() }),
            Some(Units::Write(1))
        );
        assert_eq!(units(DeleteDocs { filter: "age is not null".into(), ..Default::default() }), Some(Units::Write(0)));
        assert_eq!(units(DeleteDocs::default()), Some(Units::Write(0)), "naming nothing deletes nothing");
        assert_eq!(units(DeleteDocs { delete_all: true, ..Default::default() }), Some(Units::Write(2)));
    }

    #[test]
    fn the_only_vector_is_described_under_the_name_the_official_client_looks_for() {
        let engine = engine(Metric::Cosine, vec![]);
        let Output::Collection(info) = run(&engine, Request::DescribeCollection).unwrap().output else { panic!() };
        assert_eq!(info.vectors_schema.keys().collect::<Vec<_>>(), ["proxima_vector"]);
        assert_eq!((info.dimension, info.status), (2, Status::Serving.into()));
        assert_eq!(info.partitions.len(), 1);
    }

    #[test]
    fn partitions_hold_documents_of_their_own() {
        let engine = engine(Metric::Cosine, vec![doc("a", &[1.0, 0.0])]);
        let named = |name: &str| Named { name: name.to_owned() };
        run(&engine, Request::CreatePartition(named("shoes"))).unwrap();
        let in_shoes = WriteDocs { docs: vec![doc("a", &[0.0, 1.0])], partition: "shoes".to_owned() };
        assert_eq!(run(&engine, Request::Write(DocOp::Insert, in_shoes)).unwrap().units, Some(Units::Write(1)));
        let refusal = |request| run(&engine, request).unwrap_err().code;
        assert_eq!(refusal(Request::CreatePartition(named("shoes"))), code::DUPLICATE_PARTITION);
        assert_eq!(refusal(Request::DeletePartition(named("default"))), code::UNSUPPORTED_CONDITION);
        assert_eq!(refusal(Request::StatsPartition(named("hats"))), code::INEXISTENT_PARTITION);
        let Output::Stats(stats) = run(&engine, Request::StatsCollection).unwrap().output else { panic!() };
        assert_eq!((stats.total_doc_count, stats.partitions["shoes"].total_doc_count), (2, 1));
    }
}
