"""`crosslens index`, killed with SIGKILL again and again: every rerun goes on, and the table is the same in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
from crosslens.indexes.base import WINDOW
from crosslens.indexes.registry import open_index

DOCUMENTS = 1200
LANGS = ("eng", "zho", "fas", "rus")

# Runs the command in forks of a process that has torch loaded, which takes seconds. Not lancedb: no fork survives its
# threads. Each run writes down what it has encoded; it is killed once it has got so far, or once nothing is left to
# encode, and then after a moment more.
PROGRAM = """
import json, os, random, signal, sys, time
import torch, scipy.sparse, pyarrow.dataset, lance_namespace_urllib3_client, crosslens.commands.app
import transformers.models.auto.modeling_auto, transformers.models.bert.modeling_bert
from crosslens.encoders.transformer import TransformerEncoder

source, spec, folder = sys.argv[1:]
real = TransformerEncoder.encode

def encode(self, items, role):
    for batch in real(self, items, role):
        if role == "document":
            os.write(log, "".join(f"{id}\\n" for id in batch.ids).encode())
        yield batch

def begun(index, name):
    global log
    pid = os.fork()
    if pid == 0:
        out = os.open(f"{folder}/{name}.json", os.O_CREAT | os.O_WRONLY)
        os.dup2(out, 1)
        log = os.open(f"{folder}/{name}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        TransformerEncoder.encode = encode
        torch.set_num_threads(1)
        sys.argv = ["crosslens", "index", source, index, "--encoder", spec, "--no-cache", "--device", "cpu", "--json"]
        from crosslens.commands.app import script
        script()
    return pid

def encoded(name):
    try:
        return open(f"{folder}/{name}.log").read().count("\\n")
    except FileNotFoundError:
        return 0

started = time.monotonic()
pid = begun(f"{folder}/whole", "whole")
assert os.waitpid(pid, 0)[1] == 0
took = time.monotonic() - started

draw = random.Random(int.from_bytes(os.urandom(4), "big"))
kills = 0
for wanted in (1, 600, 1, None):
    name = f"run{kills}"
    pid = begun(f"{folder}/index", name)
    moment = time.monotonic() + (draw.uniform(0, took) if wanted is None else 1e9)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended or time.monotonic() > moment:
            break
        if wanted is not None and encoded(name) >= wanted:
            moment, wanted = time.monotonic() + draw.uniform(0, 0.1), None
        time.sleep(0.002)
    if ended:
        assert status == 0, status
        break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kills += 1
else:
    pid = begun(f"{folder}/index", f"run{kills}")
    assert os.waitpid(pid, 0)[1] == 0
print(json.dumps({"kills": kills}))
"""


def test_a_kill_at_any_moment_loses_a_window_at_most(tmp_path: Path, tiny_encoder: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = (
        {"id": f"d{n}", "lang": LANGS[n % 4], "text": f"document {n} about the cat " * (n * 7 % 11 + 1)}
        for n in range(DOCUMENTS)
    )
    (source / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = f"hf:{tiny_encoder}?pooling=mean&dtype=float32"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(source), spec, str(tmp_path)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)["kills"]
    assert kills >= 3

    before: set[str] = set()
    for run in range(kills + 1):
        log = tmp_path / f"run{run}.log"
        ids = log.read_text().split() if log.exists() else []  # killed before it had encoded anything
        assert len(ids) == len(set(ids))
        assert len(before & set(ids)) <= WINDOW, "a kill has lost more than a window"
        before |= set(ids)
    assert before == {f"d{n}" for n in range(DOCUMENTS)}

    killed, whole = open_index(tmp_path / "index"), open_index(tmp_path / "whole")
    assert killed.card.content == whole.card.content
    assert killed.langs == whole.langs
    [space] = killed.card.spaces
    for corrected in (False, True):
        ids, vectors = zip(
            *(table(index.storage.tables.blocks(space, corrected)) for index in (killed, whole)), strict=True
        )
        assert ids[0] == ids[1]
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)  # float16
    moments = [index.statistics.get(space) for index in (killed, whole)]  # type: ignore[attr-defined]
    sizes = [{lang: total.count for lang, total in each.languages.items()} for each in moments]
    assert sizes[0] == sizes[1]
    for lang in LANGS:
        np.testing.assert_allclose(*(each.document_mean(lang, "text") for each in moments), atol=1e-4)
    for part in zip(*(each.background(vectors[0][:5], "text", True) for each in moments), strict=True):
        np.testing.assert_allclose(*part, atol=1e-4)
    queries = ["cat", "document 7"]
    for mode in ("dense", "lexical"):
        found = [index.search(queries, 10, mode=mode).hits for index in (killed, whole)]
        assert [[hit.id for hit in hits] for hits in found[0].values()] == [
            [hit.id for hit in hits] for hits in found[1].values()
        ]


def table(blocks: object) -> tuple[list[str], np.ndarray]:
    parts = list(blocks)  # type: ignore[call-overload]
    return [id for part in parts for id in part[0]], np.concatenate([part[3] for part in parts])
