"""Reranking from the command line: cascades, a killed run, and one clear line for each mistake."""

from __future__ import annotations

import gzip
import io
import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stand_ins.children import Child
from stand_ins.table import table

WORDS = ("cat", "chat", "train", "night", "coffee", "moon", "river", "horse")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A collection of 24 texts and 6 topics, and a run of all."""
    where = tmp_path / "collection"
    where.mkdir()
    docs = [
        {"id": f"d{n}", "lang": "eng", "text": f"The {WORDS[n % 8]} and the {WORDS[n % 5]} number {n}."}
        for n in range(24)
    ]
    topics = [{"id": f"t{n}", "lang": "eng", "text": f"about the {WORDS[n]}"} for n in range(6)]
    (where / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in docs))
    (where / "topics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in topics))
    run = tmp_path / "first.trec"
    lines = [f"t{n} Q0 d{(m + n) % 24} {m + 1} {24 - m} x\n" for n in range(6) for m in range(24)]
    run.write_text("".join(lines))
    return where, run


@pytest.fixture
def rerank(crosslens, files):
    where, run = files

    def call(*specs: object, output: Path | None = None, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
        chosen = [part for spec in specs for part in ("--rerank", spec)]
        return crosslens("rerank", run, where, *chosen, "-o", output or run.with_name("second.trec"), *more)

    return call


@pytest.mark.parametrize(
    "method",
    ["likelihood", "yesno", "graded", "pairwise", "pairwise:allpairs", "pairwise:bubblesort", "setwise", "setwise:bubblesort",
     "setwise:tournament", "setwise:tourrank", "listwise", "listwise:full", "instruct"],
)  # fmt: skip
def test_every_method_reranks_with_a_real_model(rerank, files, tiny_judge, method):
    _, run = files
    status, out, err = rerank(f"{method}@hf:{tiny_judge}?dtype=float32&depth=6&k=3&passage_tokens=12", more=("--json",))
    assert status == 0, err
    (stage,) = json.loads(out)["stages"]
    assert stage["counts"]["calls"] > 0
    assert stage["counts"]["prompt_tokens"] > 0
    lines = run.with_name("second.trec").read_text().splitlines()
    for topic in range(6):
        order = [line.split()[2] for line in lines if line.startswith(f"t{topic} ")]
        first = [f"d{(m + topic) % 24}" for m in range(24)]
        assert sorted(order) == sorted(first)
        assert sorted(order[:6]) == sorted(first[:6])
        assert order[6:] == first[6:]
    assert not run.with_name("second.trec.journal").exists()


def test_a_cascade_is_several_rerankers(rerank, tiny_judge):
    model = f"hf:{tiny_judge}?dtype=float32&passage_tokens=12"
    status, out, err = rerank(f"likelihood@{model}&depth=12", f"setwise@{model}&depth=4&k=2", more=("--json",))
    assert status == 0, err
    first, second = json.loads(out)["stages"]
    assert "likelihood:pointwise" in first["stage"]
    assert "setwise:heapsort" in second["stage"]


def test_a_killed_rerank_goes_on_from_its_journal(files, tiny_judge, crosslens):
    where, run = files
    output = run.with_name("second.trec")
    journal = output.with_name("second.trec.journal")
    arguments = [
        "rerank",
        str(run),
        str(where),
        "--rerank",
        f"yesno@hf:{tiny_judge}?dtype=float32&depth=24",
        "-o",
        str(output),
    ]
    # One query after the other, with a pause between, so that the kill comes in the middle.
    slow = (
        "import sys, time; from crosslens.commands import app as cli; from crosslens.multilingual.judges.causal import CausalJudge as J\n"
        "plain = J.choose\n"
        "def choose(self, *a):\n    time.sleep(0.4)\n    return plain(self, *a)\n"
        "init = J.__init__\n"
        "def made(self, *a, **k):\n    init(self, *a, **k)\n    self.appetite = 1\n"
        "J.choose, J.__init__ = choose, made\n"
        f"sys.argv = ['crosslens', *{arguments!r}]\n"
        "cli.main()\n"
    )
    child = Child(slow)
    waited = time.monotonic()
    while not (journal.exists() and journal.read_text().count("\n") >= 24):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() - waited < 120
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = journal.read_text().count("\n")
    assert 24 <= kept < 6 * 24  # answers; the judge is asked for one query's at a time
    assert not output.exists()
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    (stage,) = json.loads(out)["stages"]
    assert stage["counts"]["resumed"] == kept
    assert stage["counts"]["calls"] == 6 * 24
    assert output.exists()
    assert not journal.exists()


def test_what_could_not_be_read_is_said(rerank, tiny_judge):
    status, _, err = rerank(f"listwise@hf:{tiny_judge}?dtype=float32&depth=6&k=3&passage_tokens=12")
    assert status == 0
    assert "there were faults" in err


@table(
    ("spec", "parts"),
    [
        ("likelyhood@MODEL", ("unknown prompt 'likelyhood'", "likelihood")),
        ("setwise:heap@MODEL", ("unknown sorter 'heap'", "heapsort")),
        ("setwise:heapsort@MODEL?aritty=3", ("'aritty'", "arity")),
        ("setwise:heapsort@MODEL?arity=20", ("21 passages", "20 labels")),
        ("setwise:heapsort@MODEL?arity=0", ("arity",)),
        ("first@MODEL?window=30", ("30 passages", "20 labels")),
        ("listwise@MODEL?window=5&step=10", ("window", "5", "step", "10")),
        ("setwise:full@MODEL?depth=24", ("24 passages", "20 labels")),
        ("setwise@MODEL?k=0", ("k must be at least 1, not 0",)),
        ("setwise@MODEL?depth=5&k=10", ("depth 5 is below k 10",)),
        ("setwise:pointwise@MODEL", ("compares passages", "heapsort")),
        ("likelihood:heapsort@MODEL", ("one passage at a time",)),
        ("rank-r1@MODEL", ("has no chat template",)),
        ("cross@MODEL", ("cannot answer `score`",)),
        ("setwise@MODEL?language=nld", ("language of the prompt setwise",)),
        ("setwise@MODEL?passage_tokens=400&arity=19&depth=24", ("too short for",)),
        ("likelihood@hf:/nowhere", ("no directory /nowhere",)),
        ("./none.toml@MODEL", ("no prompt file",)),
        ("likelihood@openai:gpt?url=nonsense", ("url",)),
        ("likelihood@modle:x", ("unknown judge family", "hf")),
        ("likelihood@MODEL?alpha=2", ("alpha",)),
        ("best?depth=5", ("best takes no options: it stands for likelihood@offline:gemma?depth=50",)),
        ("besst", ("unknown name of a reranker 'besst'; did you mean best?",)),
        ("setwise:@MODEL", ("names no sorter after the colon",)),
        ("likelihood@MODEL?fuse=sum", ("fuse", "rrf")),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(refused, rerank, files, tiny_judge, spec, parts):
    if "too short for" in parts:  # long texts, so that nineteen and one of them are too many
        where, _ = files
        docs = [{"id": f"d{n}", "lang": "eng", "text": f"{n} cat " * 300} for n in range(24)]
        (where / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in docs))
        topics = [{"id": f"t{n}", "lang": "eng", "text": "night " * 60} for n in range(6)]
        (where / "topics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in topics))
    refused(spec.replace("MODEL", f"hf:{tiny_judge}"), parts=parts, by=rerank)
    assert not files[1].with_name("second.trec").exists()


def test_a_mistake_before_the_first_answer_leaves_no_journal(refused, rerank, files, tiny_judge):
    (files[0] / "topics.jsonl").write_text(json.dumps({"id": "t0", "lang": "eng", "text": "night " * 2000}) + "\n")
    refused(f"likelihood@hf:{tiny_judge}", parts=("too short for one passage",), by=rerank)
    assert not list(files[1].parent.glob("second.trec*"))


def test_a_run_with_documents_that_the_collection_lacks(rerank, files, tiny_judge):
    _, run = files
    run.write_text(run.read_text() + "t0 Q0 d98 25 0.5 x\nt0 Q0 d99 26 0.4 x\n")
    status, _, err = rerank(f"likelihood@hf:{tiny_judge}")
    assert status == 2
    assert "2 of 26 documents are not in the collection" in err
    assert "d98, d99" in err


def test_a_directory_that_is_not_there_is_known_before_the_work(rerank, tmp_path, tiny_judge):
    status, _, err = rerank(f"likelihood@hf:{tiny_judge}", output=tmp_path / "none" / "run.trec")
    assert status == 2
    assert "there is no directory" in err


class Dying(ThreadingHTTPServer):
    """Speaks the chat protocol with log-probabilities, and refuses to after a number of answers."""

    daemon_threads = True

    def __init__(self, lives: int):
        self.lives = lives
        self.counting = threading.Lock()
        self.open = 0  # connections; each has one request
        super().__init__(("127.0.0.1", 0), DyingHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, *arguments):
        with self.counting:
            self.open += 1
        super().process_request(*arguments)

    def shutdown_request(self, *arguments):
        super().shutdown_request(*arguments)
        with self.counting:
            self.open -= 1

    def settle(self):
        """Wait until what was under way when a run gave up has been answered."""
        quiet = 0
        while quiet < 3:
            time.sleep(0.05)
            quiet = 0 if self.open else quiet + 1


class DyingHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counting:
            self.server.lives -= 1
            spent = self.server.lives < 0
        if spent:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        sure = -0.001 * len(said["messages"][-1]["content"])
        top = [{"token": "Yes", "logprob": sure}, {"token": "No", "logprob": -1.5}]
        choice = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": "Yes"},
            "logprobs": {"content": [{"token": "Yes", "logprob": sure, "top_logprobs": top}]},
        }
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
             "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}}
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_dead_server_is_one_line_and_the_finished_queries_are_kept(rerank, files):
    _, run = files
    server = Dying(lives=70)
    spec = f"yesno@openai:m?url=http://127.0.0.1:{server.server_port}/v1&depth=24&retries=0&concurrency=2"
    status, _, err = rerank(spec)
    assert status == 1, err
    (line,) = [line for line in err.splitlines() if line.startswith("crosslens: ")]
    assert "503" in line
    assert str(server.server_port) in line
    kept = run.with_name("second.trec.journal").read_text().count("\n")
    assert 60 <= kept <= 70  # answers
    assert "kept: 2 of 6 queries are finished" in line
    assert not run.with_name("second.trec").exists()
    server.settle()
    server.lives = 1000
    status, out, err = rerank(spec, more=("--json",))
    assert status == 0, err
    (stage,) = json.loads(out)["stages"]
    assert stage["counts"]["resumed"] == kept
    assert 1000 - server.lives == 6 * 24 - kept
    server.shutdown()


def test_a_run_may_be_packed_or_come_from_standard_input(crosslens, files, tiny_judge, monkeypatch):
    where, run = files
    content = run.read_bytes()
    (packed := run.with_name("first.trec.gz")).write_bytes(gzip.compress(content))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    made = []
    for each in (run, packed, "-"):
        output = run.with_name(f"out-{len(made)}.trec")
        judge = f"yesno@hf:{tiny_judge}?dtype=float32&depth=3"
        status, _, err = crosslens("rerank", each, where, "--rerank", judge, "-o", output)
        assert status == 0, err
        made.append(output.read_bytes())
    assert made[0] == made[1] == made[2] != content
