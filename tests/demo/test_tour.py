"""The demo's way through all parts, with a cheap encoder and judge; `make demo` is the same on real models."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.demo import tour
from crosslens.demo.collection import Demo, list_photos
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.items import Dense
from crosslens.multilingual.judges.messages import Passage
from crosslens.multilingual.prompts import load_prompt
from crosslens.multilingual.reranking.rerank import Rerank
from rich.console import Console


class Trigrams:
    """Texts by their letters, pictures by their file name."""

    def __init__(self, name: str, modalities: tuple[str, ...]):
        self.spec = EncoderSpec(name, name, modalities, 64)

    def encode(self, items, role):
        for item in items:
            words = item.text if item.text and "text" in self.spec.modalities else str(item.image)
            row = np.zeros(64, np.float32)
            for i in range(len(words) - 2):
                row[zlib.crc32(words[i : i + 3].encode()) % 64] += 1
            yield Dense([item.id], unit(row[None] + 0.01))


class LengthJudge:
    name, revision, fingerprint, modalities = "length", "1", "length", frozenset({"text"})
    can, chats, appetite = frozenset({"likelihood"}), False, 1024

    def __init__(self):
        self.usage = Counter()

    def likelihood(self, messages, targets):
        self.usage["calls"] += len(messages)
        return np.array([-len(next(p.text for p in m.parts if isinstance(p, Passage))) for m in messages], float)


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    where = tmp_path_factory.mktemp("tour")
    encoders = {
        "offline:e5-small": Trigrams("fake:texts", ("text",)),
        "offline:conse": Trigrams("fake:both", ("text", "image")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "load_encoder", lambda spec, device: encoders[spec])
        judge = Rerank(LengthJudge(), load_prompt("likelihood"), depth=10, alpha=0.5, unseen="keep")
        loaded = {"default": judge, "best": judge >> replace(judge, depth=3, k=3)}
        patch.setattr(tour, "load_reranker", lambda spec, **_: loaded[spec])
        patch.setattr("crosslens.indexes.encoding.load_encoder", lambda spec, **_: encoders[spec])
        report = tour.tour(where / "index", where / "demo.html", device="cpu", best=True)
    return report, (where / "demo.html").read_text("utf-8")


def test_every_system_and_kind_is_measured(toured):
    report, _ = toured
    assert report.table.systems == (tour.LEXICAL, tour.DENSE, tour.CORRECTED, tour.HYBRID, *tour.RERANKERS)
    assert report.table.measures == ("nDCG@10", "R@10")
    assert set(report.table.groups) == {"all", "text to text", "text to photo", "photo to text", "text + photo"}
    assert report.table.counts["all"] == len(Demo().queries())
    assert [(step.system, step.over) for step in report.steps] == list(tour.STEPS)
    assert json.loads(json.dumps(report.to_json()))["table"]["systems"]
    report.print(Console(file=(out := io.StringIO())))
    for part in ("nDCG@10", "What each stage adds", "text + photo:", "kept their ranks"):
        assert part in out.getvalue()


def test_a_querys_own_photo_is_never_among_its_results(toured):
    report, _ = toured
    for run in report.runs.values():
        for query, hits in run:
            assert query.meta.get("photo") not in {hit.id for hit in hits}


def test_the_reranker_sees_texts_under_text_queries_only(toured):
    report, _ = toured
    judged, before = report.runs[tour.RERANKED], report.runs[tour.HYBRID]
    assert judged.manifest.total("calls") > 0
    for query, hits in judged:
        assert {hit.id for hit in hits} == {hit.id for hit in before[query.id]}
        if query.image is not None:
            assert [hit.id for hit in hits] == [hit.id for hit in before[query.id]]


def test_the_page_holds_everything_and_fetches_nothing(toured):
    report, page = toured
    for query in report.runs[tour.RERANKED].queries:
        assert f">{query.id}" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:image/jpeg;base64,|#)", page)
    assert page.count('src="data:image/jpeg;base64,') >= 29  # the queries' photos alone
    assert re.search(r'<q lang="fas" dir="rtl">[^<]*[\u0600-\u06ff]', page)
    assert re.search(r'<q lang="eng" dir="ltr">', page)
    for photo in list_photos():
        assert f"<b>{photo.id}</b>" in page


@pytest.mark.parametrize(("arguments", "there", "wanted"), [
    ([], True, True), ([], False, False), (["--best"], False, True), (["--no-best"], True, False),
])  # fmt: skip
def test_best_is_in_the_table_where_its_model_is_installed_or_it_is_asked_for(
    arguments, there, wanted, toured, monkeypatch, crosslens
):
    asked = []
    monkeypatch.setattr("crosslens.checkpoints.offline.packages.is_available", lambda name: there)
    monkeypatch.setattr(tour, "tour", lambda *_, best, **__: asked.append(best) or toured[0])
    status, _, _ = crosslens("demo", *arguments)
    assert (status, asked) == (0, [wanted])
