"""Indexing on a Ray cluster of this machine: two workers, and one of them killed."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import Encoder
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.indexes.base import WINDOW, Index
from crosslens.indexes.distributed import Cluster
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.card import Windows
from crosslens.items import Item
from PIL import Image

ray = pytest.importorskip("ray", reason="needs ray: pip install 'crosslens[dist]'")
lance = pytest.importorskip("lance", reason="needs pylance: pip install 'crosslens[dist]'")

WORDS = {"eng": "The cat sleeps all day", "fra": "Le chat dort", "zho": "猫整天睡觉", "rus": "Кошка спит весь день"}


def documents(count: int) -> list[Item]:
    langs = list(WORDS)
    return [
        Item(f"d{n}", f"{WORDS[langs[n % 4]]} {n} {'x ' * (n % 7)}", lang=langs[n % 4], meta={"year": n % 3})
        for n in range(count)
    ]


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers find the encoders of tests
        start()
    yield
    ray.shutdown()


def start() -> None:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@pytest.fixture(scope="module")
def specs() -> list[str]:
    """A space of texts alone, and one of texts and pictures."""
    return ["py:stand_ins.away:Words", "py:stand_ins.away:Pictures"]


@pytest.fixture(scope="module")
def cluster(ray_here: None, specs: list[str]) -> Iterator[Cluster]:
    """Two of them: as many as the documents have shards."""
    with Cluster("auto", specs, device="cpu", documents=2 * WINDOW) as cluster:
        assert len(cluster.workers) == 2
        yield cluster


@pytest.fixture(scope="module")
def encoders(specs: list[str]) -> list[Encoder]:
    """The same in this process."""
    return [load_encoder(spec, device="cpu") for spec in specs]


def contents(index: Index) -> dict[str, dict[str, object]]:
    """All rows of the documents by id."""
    rows = index.storage.tables.documents.to_arrow().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def same(one: Any, other: Any) -> None:
    """Equal but for the order of the rows and the last bits of the vectors."""
    mine, theirs = contents(one), contents(other)
    assert mine.keys() == theirs.keys()
    for id, row in mine.items():
        for name, value in row.items():
            if name.startswith("v_") and value is not None:
                np.testing.assert_allclose(value, theirs[id][name], atol=1e-3)
            else:
                assert value == theirs[id][name], (id, name)
    assert one.fingerprint == other.fingerprint
    assert one.langs == other.langs
    assert one.card.groups == other.card.groups
    assert [space.counts for space in one.card.spaces] == [space.counts for space in other.card.spaces]


def pid(worker: object) -> int:
    return int(ray.get(worker.__ray_call__.remote(lambda worker: os.getpid())))  # type: ignore[attr-defined]


class TestCluster:
    def test_killed_in_the_middle_the_table_is_that_of_one_process(
        self, tmp_path: Path, cluster: Cluster, encoders: list[Encoder]
    ) -> None:
        items = [*documents(400), Item("photo", image=picture(), lang="eng"), Item("both", "A cat", picture())]
        alone = create_index(tmp_path / "alone")
        alone.add(items, encoders)
        index = create_index(tmp_path / "index")
        victim, other = map(pid, cluster.workers)
        killed: list[int] = []

        def kill(done: int) -> None:
            if not killed:
                assert done <= 200
                os.kill(victim, signal.SIGKILL)
                killed.append(done)

        assert index.add(items, cluster.encoders, progress=kill, cluster=cluster, window=16) == 402
        assert killed
        after = list(map(pid, cluster.workers))
        assert len(after) == 2
        assert victim not in after  # Ray started it again, and it went on
        assert other in after
        index = open_index(tmp_path / "index", device="cpu")
        same(index, alone)
        queries = [Item("q", WORDS["fra"], lang="fra"), Item("r", WORDS["zho"], lang="zho")]
        found, expected = (each.search(queries, 10, mode="hybrid") for each in (index, alone))
        for query in queries:
            assert len({hit.id for hit in found[query.id]} & {hit.id for hit in expected[query.id]}) >= 8
        files = list((tmp_path / "index/documents.lance/data").iterdir())
        assert len(files) == len(lance.dataset(tmp_path / "index/documents.lance").get_fragments())

    def test_a_rerun_encodes_what_is_missing_and_replaces_what_changed(
        self, tmp_path: Path, cluster: Cluster, encoders: list[Encoder]
    ) -> None:
        items = documents(600)

        def stop(done: int) -> None:
            raise KeyboardInterrupt

        index = create_index(tmp_path / "index")
        with pytest.raises(KeyboardInterrupt):
            index.add(items, cluster.encoders, progress=stop, cluster=cluster, window=16)
        index = create_index(tmp_path / "index")
        kept = len(index)
        assert 16 <= kept < 600
        with pytest.raises(InputError, match="unfinished"):
            index.search(["cat"], 1)
        assert index.add(items, cluster.encoders, cluster=cluster, window=16) == 600 - kept
        assert index.add(items, cluster.encoders, cluster=cluster, window=16) == 0
        items[5] = Item("d5", "Something else altogether", lang="eng")
        items.append(Item("new", "A new one", lang="eng"))
        assert index.add(items, cluster.encoders, cluster=cluster, window=16) == 2
        alone = create_index(tmp_path / "alone")
        alone.add(items, encoders)
        same(index, alone)

    def test_passages(self, tmp_path: Path, cluster: Cluster, encoders: list[Encoder]) -> None:
        items = [Item(f"d{n}", " ".join([WORDS["eng"]] * (1 + n % 5)), lang="eng") for n in range(40)]
        indexes = [create_index(tmp_path / name, passages=Windows(20, 10)) for name in ("index", "alone")]
        assert indexes[0].add(items, cluster.encoders, cluster=cluster, window=16) == 40
        indexes[1].add(items, encoders)
        same(*(each.passages for each in indexes))

    def test_an_item_that_a_worker_refuses_is_named_in_one_line(self, tmp_path: Path, cluster: Cluster) -> None:
        items = [*documents(20), Item("broken", image=b"no picture")]
        index = create_index(tmp_path / "index")
        with pytest.raises(InputError, match="broken") as error:
            index.add(items, cluster.encoders, cluster=cluster, window=16)
        assert "\n" not in str(error.value)
        assert "Traceback" not in str(error.value)

    def test_memory_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(InputError, match="in memory"):
            create_index("memory://").add(documents(3), cluster.encoders, cluster=cluster, window=16)

    def test_a_spec_that_no_worker_can_load(self, ray_here: None) -> None:
        with (
            pytest.raises(InputError, match="unknown encoder family 'hff'"),
            Cluster("auto", ["hff:x"], device="cpu", documents=1),
        ):
            pass

    def test_devices(self, ray_here: None) -> None:
        with pytest.raises(InputError, match="has no GPU"), Cluster("auto", [], device="cuda"):
            pass
        with pytest.raises(InputError, match="not 'cuda:1'"), Cluster("auto", [], device="cuda:1"):
            pass

    def test_from_the_command_line(
        self, crosslens: Callable[..., tuple[int, str, str]], tmp_path: Path, specs: list[str], ray_here: None
    ) -> None:
        (tmp_path / "docs.jsonl").write_text(
            "".join(json.dumps({"id": f"d{n}", "text": f"{WORDS['eng']} {n}"}) + "\n" for n in range(40))
        )
        options = ("--encoder", specs[0], "--device", "cpu", "--json")
        status, out, err = crosslens("index", tmp_path, tmp_path / "index", *options, "--ray", "auto")
        assert (status, "Traceback" in err) == (0, False)
        assert json.loads(out)["added"] == 40
        status, out, _ = crosslens("index", tmp_path, tmp_path / "index", *options)
        assert json.loads(out)["added"] == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=rf"cannot reach a Ray cluster at '{address}'"), Cluster(address, []):
        pass


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(InputError, match=r"ray, which is not installed: pip install 'crosslens\[dist\]'"),
        Cluster("local", []),
    ):
        pass
