"""docs/serving.md: its curl lines and clients are run against a live service, its tables are what the code has."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.service.application import Access
from crosslens.service.engine import Engine
from crosslens.service.quotas import Quotas
from docs.pages import ROOT, read_blocks
from stand_ins.index_cases import png
from stand_ins.live import ENCODER, JUDGE, Live, run_live

PAGE = ROOT / "docs/serving.md"
BLOCKS = read_blocks(PAGE)
CURLS = [
    pytest.param(line, id=f"{block.line}-{number}")
    for block in BLOCKS
    if block.language == "sh"
    for number, line in enumerate(block.text.replace("\\\n", " ").splitlines())
    if line.startswith("curl ")
]
CLIENTS = [pytest.param(block.text, id=f"{block.line}") for block in BLOCKS if block.language == "py"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """What the page has at port 8000: some of the demo's texts and a picture, a reranker, and a token for changes."""
    where = tmp_path_factory.mktemp("served") / "demo.index"
    texts = islice((item for item in load_collection("demo").docs() if item.image is None), 30)
    index = create_index(where)
    index.add([*texts, Item("photo:cat", image=png(80))], load_encoder(ENCODER))
    index.build("none")
    engine = Engine.load({"demo": open_index(where)}, (f"hybrid >> {JUDGE}",))
    with run_live(engine, Access(token="TOKEN", hosts=("localhost", "127.0.0.1"))) as running:
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURLS)
def test_curl_lines(line: str, served: Live, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(png(90))
    words = shlex.split(line.replace("http://localhost:8000", served.url).replace("offline:e5-small", ENCODER))
    words[1:1] = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if " -o " in line:
        assert (tmp_path / words[-1]).read_bytes() == png(80)
        return
    if "/metrics" in line:
        assert "crosslens_requests_total{" in done.stdout
        return
    answer = json.loads(done.stdout)
    if "/search" in line:
        assert answer["hits"]
    elif "/v1/embeddings" in line:
        assert len(answer["data"]) == 2
    elif "/v1/rerank" in line:
        assert len(answer["results"]) == 1
    assert "error" not in answer


@pytest.mark.parametrize("program", CLIENTS)
def test_clients(program: str, served: Live) -> None:
    pytest.importorskip("openai" if "openai" in program else "cohere")
    names: dict[str, object] = {}
    exec(program.replace("http://localhost:8000", served.url).replace("offline:e5-small", ENCODER), names)
    assert names["answer"]


def test_fields_of_a_search(served: Live) -> None:
    schema = served.client.get("/openapi.json").json()["components"]["schemas"]["SearchRequest"]
    assert _codes("field", 0) == set(schema["properties"])


def test_metrics(served: Live) -> None:
    served.search(text="cats sleep")
    written = served.client.get("/metrics").text
    kinds = {name + "_total" * (kind == "counter" and not name.endswith("_total")) for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", written, re.MULTILINE)}  # fmt: skip
    assert _codes("metric", 0) == {name for name in kinds if not name.endswith("_created")}


def test_limits_are_the_defaults() -> None:
    limits = Quotas()
    text = PAGE.read_text("utf-8").partition("## Limits")[2].partition("\n## ")[0]
    shown = {
        f"| {limits.requests}, then 429 |", f"| {limits.body_bytes >> 20} MB; {limits.picture_bytes >> 20} MB |",
        f"| {limits.k:,} |", f"| {limits.query_tokens} |", f"| {limits.inputs:,} to embed", f"| {limits.timeout_ms // 1000} |",
        f"last {importlib.import_module('crosslens.service.searching').RANKINGS:,} rankings",
    }  # fmt: skip
    assert [each for each in shown if each not in text] == []


def _codes(heading: str, column: int) -> set[str]:
    """What a column of the table with this heading has in code."""
    text = PAGE.read_text("utf-8")
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, heading
    cells = [line[1:-1].split("|")[column] for line in table[1].splitlines()]
    return {code for cell in cells for code in re.findall(r"`(\w+)`", cell)}
