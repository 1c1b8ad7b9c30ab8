"""An index in an object store and in a served database: S3 and LanceDB's REST API as servers on this machine speak them.

The service itself cannot be had here. Its stand-in answers what the real client sends, by a local LanceDB.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from crosslens.encoders.base import EncoderSpec
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.indexes.encoding import Precomputed
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.place import FILES, TablePlace
from crosslens.indexes.verify import verify_index
from crosslens.items import Item
from lancedb.index import FTS
from lancedb.query import BooleanQuery, MatchQuery, Occur

SPEC = EncoderSpec(name="x:y", revision="1", modalities=("text",), dim=8)
ITEMS = [
    Item(f"d{n}", f"{'the cat sleeps' if n % 2 else 'le chat dort'} {n}", lang="eng" if n % 2 else "fra", meta={"n": n % 3})
    for n in range(80)
]  # fmt: skip
VECTORS = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=os.environ["AWS_ENDPOINT"])
        client.create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


class Service(BaseHTTPRequestHandler):
    """The part of LanceDB's REST API that an index uses."""

    protocol_version = "HTTP/1.1"
    database: Any
    turn = threading.Lock()
    asked: ClassVar[Counter[str]] = Counter()

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        data = self._body()
        request = json.loads(data) if self.headers.get("Content-Type") == "application/json" else {}
        options = dict(parse_qsl(query))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        assert self.headers["x-api-key"] == "key"
        with self.turn:
            if parts[1] == "namespace":
                return self._send({"tables": self.database.list_tables().tables})
            name, verb = (
                parts[2],
                "_".join(parts[3:4] + parts[5:] if parts[3] == "index" and len(parts) > 5 else parts[3:]),
            )
            self.asked[verb] += 1
            if verb == "create":
                self.database.create_table(
                    name, pa.ipc.open_stream(data).read_all(), mode=options.get("mode", "create")
                )
                return self._send({"version": 1})
            if name not in self.database.list_tables().tables:
                return self._send({"error": f"no table {name}"}, 404)
            if verb == "drop":
                self.database.drop_table(name)
                return self._send({})
            table = self.database.open_table(name)
            if verb == "query":
                return self._send(self._found(table, request))
            if verb == "index_stats":
                request = {"name": parts[4]}
            stream = None if request or not data else pa.ipc.open_stream(data)
            answer = getattr(self, f"_{verb}")(table, request or options, stream)
            self._send(answer if answer is not None else {"version": table.version})
        return None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: object, status: int = 200) -> None:
        data, kind = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer, "json"
        if isinstance(answer, bytes):
            kind = "vnd.apache.arrow.file"
        self.send_response(status)
        self.send_header("phalanx-version", "0.3.0")  # from which on full-text queries have structure
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _describe(self, table: Any, request: Any, stream: Any) -> object:
        fields = [{"name": f.name, "type": wire(f.type), "nullable": f.nullable} for f in table.schema]
        return {"version": table.version, "schema": {"fields": fields}}

    def _count_rows(self, table: Any, request: Any, stream: Any) -> object:
        return table.count_rows(request.get("predicate"))

    def _insert(self, table: Any, request: Any, stream: Any) -> None:
        table.add(stream.read_all(), mode=request.get("mode", "append"))

    def _merge_insert(self, table: Any, request: Any, stream: Any) -> object:
        assert request["when_matched_update_all"] == request["when_not_matched_insert_all"] == "true"
        upsert = table.merge_insert(request["on"]).when_matched_update_all().when_not_matched_insert_all()
        done = upsert.execute(stream.read_all())
        return {
            name: getattr(done, name)
            for name in ("version", "num_updated_rows", "num_inserted_rows", "num_deleted_rows")
        }

    def _update(self, table: Any, request: Any, stream: Any) -> object:
        done = table.update(where=request["predicate"], values_sql=dict(request["updates"]))
        return {"rows_updated": done.rows_updated, "version": done.version}

    def _delete(self, table: Any, request: Any, stream: Any) -> None:
        table.delete(request["predicate"])

    def _add_columns(self, table: Any, request: Any, stream: Any) -> None:
        table.add_columns(list(stream.schema))

    def _create_index(self, table: Any, request: Any, stream: Any) -> object:
        assert request["index_type"] == "FTS"
        names = {"ngram_min_length": "min_ngram_length", "ngram_max_length": "max_ngram_length"}
        same = ("base_tokenizer", "language", "stem", "remove_stop_words", "lower_case", "ascii_folding")
        config = FTS(**{name: request[names.get(name, name)] for name in (*same, *names)})
        table.create_index(request["column"], config=config, replace=True)
        return {}

    def _index_list(self, table: Any, request: Any, stream: Any) -> object:
        indexes = table.list_indices()
        return {"indexes": [{"index_name": i.name, "columns": i.columns, "index_type": i.index_type} for i in indexes]}

    def _index_stats(self, table: Any, request: Any, stream: Any) -> object:
        stats = table.index_stats(request["name"])
        names = ("num_indexed_rows", "num_unindexed_rows", "index_type", "distance_type")
        return {name: getattr(stats, name) for name in names}

    def _found(self, table: Any, request: Any) -> bytes:
        if "full_text_query" in request:
            search = table.search(words(request["full_text_query"]["query"]), query_type="fts")
        elif request["vector"]:
            search = table.search(np.array(request["vector"]), vector_column_name=request["vector_column"])
            search = search.distance_type(request["distance_type"])
        else:
            search = table.search()
        if columns := request.get("columns"):
            search = search.select(columns)
        if "filter" in request:
            search = search.where(request["filter"])
        rows = search.limit(None if request["k"] == 2**63 - 1 else request["k"]).to_arrow()
        out = io.BytesIO()
        with pa.ipc.new_file(out, rows.schema) as file:
            file.write_table(rows)
        return out.getvalue()


def wire(kind: pa.DataType) -> dict[str, object]:
    """A type as Lance writes it in JSON."""
    if not pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind):
        return {"type": str(kind)}
    item = [{"name": "item", "type": wire(kind.value_type), "nullable": True}]
    if pa.types.is_list(kind):
        return {"type": "list", "fields": item}
    return {"type": "fixed_size_list", "fields": item, "length": kind.list_size}


def words(query: dict[str, Any]) -> Any:
    ((kind, request),) = query.items()
    if kind == "match":
        return MatchQuery(request["terms"], request["column"])
    assert kind == "boolean"
    assert not request["must"]
    assert not request["must_not"]
    return BooleanQuery([(Occur.SHOULD, words(each)) for each in request["should"]])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    Service.database = lancedb.connect(tmp_path_factory.mktemp("service"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANCEDB_API_KEY", "key")
        patch.setenv("LANCEDB_HOST_OVERRIDE", f"http://127.0.0.1:{server.server_port}")
        yield "db://"
    server.shutdown()


@pytest.mark.parametrize("kind", ["bucket", "service"])
def test_an_index_is_that_of_a_directory(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    where = request.getfixturevalue(kind) + ("/whole" if kind == "bucket" else "whole")
    indexes = [create_index(path, name="many") for path in (where, tmp_path / "local")]
    for index in indexes:
        assert index.add_vectors(ITEMS[:50], VECTORS[:50], SPEC) == 50
        assert index.add_vectors(ITEMS, VECTORS, SPEC) == 30
        index.build()
    there, here = open_index(where), open_index(tmp_path / "local")
    same = {"versions": {}, "earlier": [], "checksums": {}, "changed": 0.0}
    assert replace(there.card, **same).to_json() == replace(here.card, **same).to_json()
    assert not there.card.checksums  # files are the store's or the service's
    told = verify_index(where)
    assert (told.damaged, told.files) == ({}, 0)
    assert "keeps its files" in told.notes[0]
    assert there.card.spaces[0].multilingual  # so that moments and corrected vectors are read, too
    for space in there.card.spaces:
        for corrected in (False, True):
            mine, theirs = (
                np.concatenate([block[3] for block in each.storage.tables.blocks(space, corrected)])
                for each in (there, here)
            )
            np.testing.assert_array_equal(mine, theirs)
        mine, theirs = (each.statistics.get(space).correct(VECTORS, ["eng"] * 80, ["text"] * 80) for each in (there, here))  # fmt: skip
        np.testing.assert_array_equal(mine, theirs)
    options = {"mode": "lexical", "where": {"lang": "fra", "n": 1}}
    found, expected = (each.search(["chat"], 5, **options).hits for each in (there, here))  # type: ignore[arg-type]
    assert found == expected
    assert len(found["1"]) == 5
    assert there.get(["d3", "d2"]) == here.get(["d3", "d2"])
    queries = [Item("q", "a cat", lang="eng"), Item("r", "un chat", lang="fra")]
    for each in (there, here):
        each.encoders.give(Precomputed(SPEC, queries, VECTORS[:2]))
    for mode in ("dense", "hybrid"):
        found, expected = (each.search(queries, 5, mode=mode).hits for each in (there, here))  # type: ignore[arg-type]
        assert {query: [hit.id for hit in hits] for query, hits in found.items()} == {
            query: [hit.id for hit in hits] for query, hits in expected.items()
        }
    if kind == "service":
        assert Service.asked["index_stats"]  # it waited until the full text was built


def test_from_the_command_line(
    bucket: str, crosslens: Callable[..., tuple[int, str, str]], tmp_path: Path, tiny_encoder: Path
) -> None:
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"id": item.id, "text": item.text}) + "\n" for item in ITEMS)
    )
    (tmp_path / "topics.jsonl").write_text(json.dumps({"id": "1", "text": "cat", "lang": "eng"}) + "\n")
    where = f"{bucket}/cli"
    encoder = ("--encoder", f"hf:{tiny_encoder}", "--device", "cpu", "--no-cache")
    status, out, err = crosslens("index", tmp_path, where, *encoder, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["documents"] == 80
    status, out, _ = crosslens("search", where, "cat", "--mode", "lexical", "--json")
    assert status == 0
    assert len(json.loads(out)["hits"]) == 10
    status, _, _ = crosslens("run", where, tmp_path, "-o", tmp_path / "a.run", "--device", "cpu", "-k", 7)
    assert status == 0
    assert len((tmp_path / "a.run").read_text().splitlines()) == 7
    assert not list(Path().glob("s3:*"))


def test_workers_write_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fragments are committed to the store."""
    pytest.importorskip("ray", reason="needs ray: pip install 'crosslens[dist]'")
    from crosslens.indexes.distributed import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers find the encoders of tests
    with Cluster("local", ["py:stand_ins.away:Words"], device="cpu", documents=1) as cluster:
        index = create_index(f"{bucket}/workers")
        assert index.add(ITEMS, cluster.encoders, cluster=cluster) == 80
    alone = create_index("memory://")
    alone.add(ITEMS, load_encoder("py:stand_ins.away:Words"))
    assert open_index(f"{bucket}/workers").fingerprint == alone.fingerprint


def take_lock(where: str, holder: str, until: float) -> None:
    """What another process writes into the row of the lock."""
    table = lancedb.connect(where).open_table(FILES)
    table.update(where="name = '.lock'", values={"data": holder.encode(), "until": until})


def read_lock(where: str) -> tuple[str, float]:
    """Who holds the lock, and until when."""
    table = lancedb.connect(where).open_table(FILES)
    (row,) = table.search().where("name = '.lock'").limit(1).to_list()
    return row["data"].decode(), row["until"]


def test_one_writes_at_a_time(bucket: str) -> None:
    where = f"{bucket}/lock"
    create_index(where)
    held = rf"another process \(.*:{os.getpid()}\) is writing to {where}"
    with TablePlace(where).lock(), pytest.raises(InputError, match=held), TablePlace(where).lock():
        pass
    with TablePlace(where).lock():
        pass


def test_a_writer_that_is_gone_is_followed_at_once_or_when_its_time_is_over(bucket: str) -> None:
    where = f"{bucket}/gone"
    create_index(where)
    take_lock(where, f"{socket.gethostname()}:{2**22 + 1}:x", time.time() + 100)  # no such process
    with TablePlace(where).lock():
        pass
    take_lock(where, "elsewhere:1:x", time.time() + 100)
    with pytest.raises(InputError, match=r"elsewhere:1\).* (99|100) seconds"), TablePlace(where).lock():
        pass
    take_lock(where, "elsewhere:1:x", time.time() - 1)
    with TablePlace(where).lock():
        pass


def test_the_lock_is_renewed_and_one_that_is_lost_stops_the_writer(bucket: str) -> None:
    where = f"{bucket}/renewed"
    create_index(where)
    place = TablePlace(where, renewed=0.05)

    def write() -> None:
        with place.write("file") as path:
            path.write_bytes(b"x")

    def refused() -> bool:
        try:
            write()
        except InputError:
            return True
        return False

    with place.lock():
        _, first = read_lock(where)
        assert within(30, lambda: read_lock(where)[1] > first)
        write()
        take_lock(where, "elsewhere:1:x", 1e12)
        assert within(30, refused)
        with pytest.raises(InputError, match="taken .* over"):
            write()
    assert read_lock(where)[0] == "elsewhere:1:x"


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("s3://bucket/none", "is not an index"),
        ("s3://nobucket/x", "The specified bucket does not exist"),
        ("ftp://host/x", "unknown kind of location 'ftp://'"),
        ("db://none", "set LANCEDB_API_KEY"),
    ],
)
def test_where_there_is_none(bucket: str, path: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANCEDB_API_KEY", raising=False)
    with pytest.raises(InputError, match=error):
        open_index(path)


def test_other_tables_and_kinds_are_refused(bucket: str) -> None:
    lancedb.connect(f"{bucket}/others").create_table("mine", [{"a": 1}])
    with pytest.raises(InputError, match=r"holds other tables \(mine\)"):
        create_index(f"{bucket}/others")
    for kind in ("faiss:Flat", "sparse"):
        with pytest.raises(InputError, match="needs a directory"):
            create_index(f"{bucket}/files", kind=kind)


@pytest.mark.parametrize("kind", ["flat", "late"])
def test_other_kinds_that_have_tables_alone(bucket: str, kind: str) -> None:
    spec = replace(SPEC, kind="multi" if kind == "late" else "dense")
    vectors: Any = VECTORS[:9] if kind == "flat" else [VECTORS[n : n + 2] for n in range(9)]
    queries = [Item("q", "a cat", lang="eng")]
    runs = []
    for where in (f"{bucket}/{kind}", "memory://"):
        index: Any = create_index(where, kind=kind)
        assert index.add_vectors(ITEMS[:9], vectors, spec) == 9
        opened: Any = index if where == "memory://" else open_index(where)
        opened.encoders.give(Precomputed(spec, queries, vectors[:1]))
        runs.append(opened.search(queries, 5).hits["q"])
    assert len(runs[0]) == 5
    assert [hit.id for hit in runs[0]] == [hit.id for hit in runs[1]]
