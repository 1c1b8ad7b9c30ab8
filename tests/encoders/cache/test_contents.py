"""Looking at the vector cache and making it smaller, from Python and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crosslens.encoders.base import EncoderSpec
from crosslens.encoders.cache import store as cache_store
from crosslens.encoders.cache.contents import CacheContents, parse_size, prune_cache, read_contents
from crosslens.encoders.cache.encoder import CachedEncoder, close_caches
from crosslens.encoders.cache.store import locate_vector_cache
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from stand_ins.table import table
from tiny.counting import Counting, numbered, rows

# Looking at it, and pruning


@pytest.fixture
def used(monkeypatch) -> dict[str, EncoderSpec]:
    """Two encoders: 2,000 vectors of 10 days ago of which 300 were used today, and 500 of 3 days ago."""
    old, new = Counting(name="old"), Counting(name="new")
    today = cache_store.count_days()

    def layer(encoder: Counting, items: list[Item], ago: int) -> None:
        monkeypatch.setattr(cache_store, "count_days", lambda: today - ago)
        made = CachedEncoder(encoder)
        rows(made, items)
        close_caches([made])

    layer(old, numbered(2000), 10)
    layer(new, numbered(500), 3)
    layer(old, numbered(2000)[::6][:300], 0)
    monkeypatch.setattr(cache_store, "count_days", lambda: today)
    return {"old": old.spec, "new": new.spec}


def held(found: CacheContents) -> dict[str, int]:
    return {each.name: each.vectors for each in found.files}


def test_pruning_by_age_keeps_what_was_used(used):
    before = read_contents()
    assert held(before) == {"old:x": 2000, "new:x": 500}
    assert sum(each.bytes for each in before.files) == sum(p.stat().st_size for p in locate_vector_cache().iterdir())
    assert prune_cache(older_than=10).removed == 0
    found = prune_cache(older_than=9)
    assert (found.removed, held(found)) == (1700, {"old:x": 300, "new:x": 500})
    freed = sum(each.bytes for each in before.files) - sum(each.bytes for each in found.files)
    assert found.freed == freed > 0
    encoder = Counting(name="old")
    rows(CachedEncoder(encoder), numbered(2000))
    assert len(encoder.asked) == 1700
    found = prune_cache(older_than=1, encoder="new:x")
    assert (found.removed, held(found)) == (500, {"old:x": 2000})


def test_pruning_to_a_size_takes_the_longest_unused_first(used):
    total = sum(each.bytes for each in read_contents().files)
    assert prune_cache(to="1GB").removed == 0
    found = prune_cache(to=f"{total // 2}B")
    assert sum(path.stat().st_size for path in locate_vector_cache().iterdir()) <= total // 2
    left = held(found)
    assert left["new:x"] == 500
    assert 300 <= left["old:x"] < 2000
    layer = CachedEncoder(Counting(name="old"))
    rows(layer, numbered(2000)[::6][:300])
    assert close_caches([layer]) == 300
    found = prune_cache(to="0")
    assert not list(locate_vector_cache().iterdir())
    assert (held(found), found.to_json()["bytes"]) == ({}, 0)


def test_pruning_an_encoder_and_all(used):
    found = prune_cache(encoder=used["old"].fingerprint)
    assert (found.removed, held(found)) == (2000, {"new:x": 500})
    with pytest.raises(InputError, match="did you mean new:x"):
        prune_cache(encoder="mew:x")
    assert held(prune_cache()) == {}
    assert not list(locate_vector_cache().iterdir())
    assert prune_cache().removed == 0


def test_pruning_beside_a_process_that_uses_the_file(used):
    encoder = Counting(name="new")
    layer = CachedEncoder(encoder)
    rows(layer, numbered(500))
    found = prune_cache()
    assert (found.removed, held(found)) == (2500, {"new:x": 0})  # removed, but the open one
    rows(layer, numbered(500))
    assert len(encoder.asked) == 500
    rows(CachedEncoder(Counting(name="new")), numbered(500))
    assert held(read_contents()) == {"new:x": 500}
    layer.close()
    assert held(prune_cache()) in ({}, {"new:x": 0})


@table(
    ("text", "size"), [("5GB", 5 * 10**9), ("2GiB", 2**31), ("0", 0), ("1.5 mb", 1_500_000), ("7k", 7000), ("12B", 12)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


# The command line


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    lines = ({"id": f"d{n}", "lang": "eng", "text": f"the cat {n} sleeps"} for n in range(30))
    (tmp_path / "source/docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "source"


def test_a_second_collection_is_indexed_from_the_cache(crosslens, source, tmp_path, tiny_encoder, monkeypatch):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    spec = f"hf:{tiny_encoder}?dtype=float32"
    made = []
    for name, flag in (("one", "--cache"), ("two", "--cache"), ("three", "--no-cache")):
        status, out, err = crosslens("index", source, tmp_path / name, "--encoder", spec, flag, "--json")
        assert status == 0, err
        made.append(json.loads(out)["cached"])
        status, out, _ = crosslens("search", tmp_path / name, "cat 7", "--mode", "dense", "--json")
        made.append([(hit["id"], hit["score"]) for hit in json.loads(out)["hits"]])
    assert made[0::2] == [0, 30, 0]
    assert made[1] == made[3] == made[5]
    status, out, _ = crosslens("index", source, tmp_path / "four", "--encoder", spec)
    assert "30 vectors from the cache" in out

    status, out, _ = crosslens("cache", "--json")
    answer = json.loads(out)
    assert status == 0
    assert (answer["vectors"]["directory"], answer["vectors"]["vectors"]) == (str(locate_vector_cache()), 30)
    (entry,) = answer["vectors"]["encoders"]
    assert (entry["encoder"], entry["dtype"]) == (load_encoder(spec).spec.name, "float32")
    assert crosslens("cache")[1].count("30 vectors") == 1
    status, out, _ = crosslens("cache", "--prune", "--older-than", "0")
    assert (status, out.startswith("nothing removed")) == (0, True)
    status, out, _ = crosslens("cache", "--prune", "--encoder", entry["fingerprint"], "--json")
    assert json.loads(out)["removed"] == ["30 vectors"]
    assert json.loads(out)["freed"] == answer["vectors"]["bytes"]
    assert json.loads(crosslens("cache", "--json")[1])["vectors"]["encoders"] == []


@table(
    ("arguments", "part"),
    [
        (("--prune", "--to", "5 parsecs"), "5 parsecs"),
        (("--prune", "--older-than", "-1"), "0 or more"),
        (("--prune", "--older-than", "soon"), "older-than"),
        (("--prune", "--encoder", "hf:none"), "hf:none"),
        (("--to", "5GB"), "--prune"),
        (("--unused",), "--prune"),
        (("--prune", "--kind", "modles"), "did you mean models"),
        (("--prune", "--kind", "other"), "unknown kind"),
        (("--prune", "--kind", "int8", "--encoder", "hf:none"), "leave out"),
    ],
)
def test_bad_arguments_are_one_line(crosslens, arguments, part, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    status, out, err = crosslens("cache", *arguments)
    assert (status, out) == (2, "")
    assert part in err
    assert len(err.strip().splitlines()) == 1
