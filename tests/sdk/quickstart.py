"""The whole quick start of the official SDK, with right answers asserted.

Prints one line of JSON: {"protocol", "calls": [{"operation", "code"?, "read_units"?, "write_units"?}]}: the units are what the SDK was
told, a code is one that is not 0. The order of the calls is the order in which they were made, the one of the client's construction first.
"""

import json
import math
import sys

import connect


class Recorder:
    """Checks that a call went well, and writes down what it cost."""

    def __init__(self):
        self.calls = []

    def __call__(self, operation, response, code=0):
        assert response.code == code, f"{operation}: {response.code} {response.message}"
        if code == 0:
            assert response.request_id, f"{operation} has no request id"
        call = {"operation": operation} if code == 0 else {"operation": operation, "code": code}
        usage = getattr(response, "usage", None)
        if usage is not None:
            for units in ("read_units", "write_units"):
                value = getattr(usage, units)
                if value is not None:
                    call[units] = value
        self.calls.append(call)
        return response.output

    def made(self, operation):
        """A call that the SDK made on its own."""
        self.calls.append({"operation": operation})


def near(actual, expected):
    """The SDK rounds scores to four places."""
    assert len(actual) == len(expected), (actual, expected)
    for one, other in zip(actual, expected):
        assert math.isclose(one, other, abs_tol=2e-4), (actual, expected)


def ids(docs):
    return [doc.id for doc in docs]


def statuses(results):
    return [(result.id, result.code) for result in results]


def create(client, name, call, **shape):
    call("create_collection", client.create(name, **shape))
    # The SDK asks until the collection serves, which it does at once, and again before it hands the collection out.
    call.made("describe_collection")
    collection = client.get(name)
    call.made("describe_collection")
    assert collection, f"{collection.code} {collection.message}"
    return collection


def collections(client, name, call):
    schema = {"name": str, "weight": float, "age": int}
    collection = create(client, name, call, dimension=4, metric="cosine", fields_schema=schema)
    assert name in call("list_collections", client.list())
    meta = call("describe_collection", client.describe(name))
    assert (meta.name, meta.dimension, meta.dtype, meta.metric, meta.status) == (name, 4, "FLOAT", "cosine", "SERVING")
    assert list(meta.vectors_schema) == ["proxima_vector"], meta.vectors_schema
    assert meta.fields_schema == {"name": "STRING", "weight": "FLOAT", "age": "INT"}, meta.fields_schema
    return collection


DOCS = {
    "1": ([1.0, 0.0, 0.0, 0.0], {"name": "one", "weight": 1.5, "age": 10}),
    "2": ([0.0, 1.0, 0.0, 0.0], {"name": "two", "weight": 2.5, "age": 20}),
    "3": ([1.0, 1.0, 0.0, 0.0], {"name": "one", "weight": 3.5, "age": 30}),
    "z+#$%=@!.z": ([0.0, 0.0, 0.0, 1.0], {"name": "odd", "weight": 0.1, "age": 40}),
}


def writes(collection, call):
    from dashvector import Doc

    docs = [Doc(id=id, vector=vector, fields=fields) for id, (vector, fields) in DOCS.items()]
    assert statuses(call("insert", collection.insert(docs))) == [(id, 0) for id in DOCS]
    assert call.calls[-1]["write_units"] == 4
    again = call("insert", collection.insert(Doc(id="1", vector=[9.0, 9.0, 9.0, 9.0])))
    assert statuses(again) == [("1", -2027)], again
    assert call.calls[-1]["write_units"] == 0
    generated = call("insert", collection.insert(Doc(vector=[0.0, 0.0, 1.0, 0.0])))
    assert generated[0].id and generated[0].code == 0
    upserted = call("upsert", collection.upsert([Doc(id="4", vector=[1.0, 1.0, 1.0, 1.0]), docs[0]]))
    assert statuses(upserted) == [("4", 0), ("1", 0)]
    assert call.calls[-1]["write_units"] == 2
    updated = call("update", collection.update(Doc(id="4", vector=[1.0, 1.0, 1.0, 0.9], fields={"name": "four"})))
    assert statuses(updated) == [("4", 0)]
    missing = call("update", collection.update(Doc(id="nobody", vector=[1.0, 1.0, 1.0, 0.9])))
    assert statuses(missing) == [("nobody", -2024)], missing
    return generated[0].id


def reads(collection, generated, call):
    fetched = call("fetch", collection.fetch(["1", "z+#$%=@!.z", "nobody", generated]))
    assert set(fetched) == {"1", "z+#$%=@!.z", generated}, fetched
    assert fetched["1"].vector == DOCS["1"][0] and fetched["1"].fields == DOCS["1"][1], fetched["1"]
    assert call.calls[-1]["read_units"] == 4

    found = call("query", collection.query([1.0, 0.0, 0.0, 0.0], topk=3, include_vector=True))
    assert ids(found) == ["1", "3", "4"], ids(found)
    near([doc.score for doc in found], [0.0, 1 - 1 / math.sqrt(2), 1 - 1 / math.sqrt(3.81)])
    assert found[0].vector == DOCS["1"][0]
    assert call.calls[-1]["read_units"] == 4

    found = call("query", collection.query([1.0, 0.0, 0.0, 0.0], filter="age >= 20 and (name = 'one' or weight < 1)"))
    assert ids(found) == ["3", "z+#$%=@!.z"], ids(found)
    assert found[0].vector is None
    found = call("query", collection.query(id="2", topk=2, output_fields=["name"]))
    assert ids(found) == ["2", "3"] and found[1].fields == {"name": "one"}, found
    assert ids(call("query", collection.query(filter="name like 'o%'", topk=10))) == ["1", "3", "z+#$%=@!.z"]
    assert call("query", collection.query([1.0, 0.0, 0.0, 0.0], filter="age > 1000")) == []
    assert call.calls[-1]["read_units"] == 1
    call("query", collection.query([1.0, 0.0, 0.0, 0.0], filter="age >"), code=-2015)

    grouped = collection.query_group_by([1.0, 0.0, 0.0, 0.0], group_by_field="name", group_count=2, group_topk=5)
    groups = call("query_group_by", grouped)
    assert [(group.group_id, ids(group.docs)) for group in groups] == [("one", ["1", "3"]), ("four", ["4"])], groups
    assert "read_units" not in call.calls[-1]


def partitions(collection, call):
    from dashvector import Doc

    call("create_partition", collection.create_partition("shoes"))
    call.made("describe_partition")
    assert call("list_partitions", collection.list_partitions()) == ["default", "shoes"]
    assert str(call("describe_partition", collection.describe_partition("shoes"))).endswith("SERVING")
    call("insert", collection.insert(Doc(id="1", vector=[1.0, 2.0, 3.0, 4.0]), partition="shoes"))
    assert ids(call("query", collection.query([1.0, 0.0, 0.0, 0.0], partition="shoes"))) == ["1"]
    stats = call("stats_partition", collection.stats_partition("shoes"))
    assert int(stats.total_doc_count) == 1
    stats = call("stats_collection", collection.stats())
    assert int(stats.total_doc_count) == 7 and stats.index_completeness == 1.0, str(stats)
    assert int(stats.partitions["default"].total_doc_count) == 6
    call("query", collection.query([1.0, 0.0, 0.0, 0.0], partition="hats"), code=-2022)
    call("delete_partition", collection.delete_partition("shoes"))


def deletes(client, collection, name, call):
    results = call("delete", collection.delete(["1", "nobody"]))
    assert statuses(results) == [("1", 0), ("nobody", -2024)], results
    assert call.calls[-1]["write_units"] == 1
    assert call("fetch", collection.fetch("1")) == {}
    call("delete", collection.delete([], delete_all=True))
    assert call.calls[-1]["write_units"] == 5
    call("delete_collection", client.delete(name))
    call("describe_collection", client.describe(name), code=-2021)


def metrics(client, name, call):
    """The other two metrics, and a collection with two vectors."""
    from dashvector import Doc, RrfRanker, VectorParam

    cases = [
        ("euclidean", [1.0, -1.0], ["a", "b"], [1.0, math.sqrt(32)]),
        ("dotproduct", [2.0, 0.0], ["b", "a"], [10.0, 2.0]),
    ]
    for metric, vector, order, scores in cases:
        collection = create(client, name, call, dimension=2, metric=metric)
        call("insert", collection.insert([Doc(id="a", vector=[1.0, 0.0]), Doc(id="b", vector=[5.0, 3.0])]))
        found = call("query", collection.query(vector, topk=2))
        assert ids(found) == order, (metric, found)
        near([doc.score for doc in found], scores)
        call("delete_collection", client.delete(name))

    vectors = {"title": VectorParam(2, metric="cosine"), "body": VectorParam(3, dtype=int, metric="euclidean")}
    collection = create(client, name, call, vectors=vectors)
    a = {"title": [1.0, 0.0], "body": [1, 2, 3]}
    b = {"title": [0.0, 1.0], "body": [-1, -2, -128]}
    docs = [Doc(id="a", vectors=dict(a)), Doc(id="b", vectors=dict(b))]
    assert statuses(call("insert", collection.insert(docs))) == [("a", 0), ("b", 0)]
    assert call("fetch", collection.fetch("b"))["b"].vectors == b
    like_b = {"title": [0.0, 1.0], "body": [-1, -2, -100]}
    found = call("query", collection.query(like_b, rerank=RrfRanker(), include_vector=True))
    assert ids(found) == ["b", "a"], found
    assert found[1].vectors["body"] == [1, 2, 3]
    call("delete_collection", client.delete(name))


def main():
    parser = connect.arguments(__doc__)
    parser.add_argument("--key", required=True)
    parser.add_argument("--protocol", choices=["grpc", "http"], required=True)
    parser.add_argument("--collection", default="quickstart")
    options = parser.parse_args()
    connect.prepare(options.ca)
    client = connect.client(options.address, options.key, options.protocol, options.timeout)
    assert client, f"{client.code} {client.message}"
    call = Recorder()
    call.made("get_version")
    collection = collections(client, options.collection, call)
    generated = writes(collection, call)
    reads(collection, generated, call)
    partitions(collection, call)
    deletes(client, collection, options.collection, call)
    metrics(client, options.collection + "-more", call)
    client.close()
    json.dump({"protocol": options.protocol, "calls": call.calls}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
