"""The token budget of a machine: what is tried, what is found, and when it is measured again."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest
from crosslens.commands.doctor import list_paces
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.batching import plan_batches
from crosslens.encoders.measured import describe_run, locate_paces
from crosslens.encoders.pace import MeasuredBudget, Pace, list_candidates
from crosslens.encoders.registry import load_encoder
from crosslens.items import Item

MODEL = {"encoder": "hf:tiny", "weights": "abc", "dtype": "float32", "backend": "torch"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path))
    return tmp_path


def measure(budget: MeasuredBudget, fastest: int, windows: int = 2) -> list[int]:
    """Encode windows of texts of 480 to 11 tokens, the longer slower, on a machine with a fastest budget; the budgets
    that batches had. Every ninth batch takes four times as long: other work runs beside.
    """
    lengths = [480 - 12 * (n % 40) for n in range(600)]
    used, batches = [], count(1)
    for _ in range(windows):
        for places in plan_batches(lengths, budget):
            used.append(budget.most)
            held = [lengths[place] for place in places]
            slow = abs(budget.most - fastest) / fastest * 0.1 + 1 + held[0] / 1000
            busy = 4 if next(batches) % 9 == 0 else 1
            budget.learn(sum(held), held[0] * len(held), sum(held) * slow * busy / 10000)
    return used


@pytest.mark.parametrize("fastest", [512, 2048, 4096])
def test_the_fastest_is_found_beside_other_work_and_kept(fastest):
    describe = partial(describe_run, "1 x CPU", 1, **MODEL)
    budget = MeasuredBudget.begin(1, describe)
    used = measure(budget, fastest)
    assert set(used) == {512, 1024, 2048, 4096}
    assert budget.most == fastest == used[-1]
    (pace,) = Pace.read_all("1 x CPU")
    assert (pace.budget, Pace.read_all("2 x CPU")) == (fastest, [])
    assert f"{fastest:,} tokens a batch" in str(pace)
    assert set(measure(MeasuredBudget.begin(1, describe), 1024)[1:]) == {fastest}
    other = MeasuredBudget.begin(1, partial(describe_run, "1 x CPU", 1, **(MODEL | {"dtype": "int8"})))
    assert measure(other, 1024)[-1] == 1024
    assert len(Pace.read_all("1 x CPU")) == 2


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"budget": 2048, "tokens_per_second": 1, "about": {}}'])
def test_a_damaged_file_is_measured_again(content):
    describe = partial(describe_run, "1 x CPU", 1, **MODEL)
    measure(MeasuredBudget.begin(1, describe), 512)
    (path,) = locate_paces().iterdir()
    path.write_text(content)
    assert not Pace.read_all("1 x CPU")
    budget = MeasuredBudget.begin(1, describe)
    measure(budget, 4096)
    assert [pace.budget for pace in Pace.read_all("1 x CPU")] == [budget.most] == [4096]


def test_a_cache_that_cannot_be_written_costs_the_measuring_only(cache):
    (cache / "pace").write_text("no folder")
    budget = MeasuredBudget.begin(1, partial(describe_run, "1 x CPU", 1, **MODEL))
    assert measure(budget, 2048)[-1] == 2048


def test_queries_ask_for_nothing_and_memory_that_ran_out_ends_the_trial():
    budget = MeasuredBudget.begin(1, lambda: pytest.fail("a query looked for it"))
    for _ in range(100):
        budget.learn(20, 20, 0.01)
    assert budget.most == 512
    budget = MeasuredBudget.begin(1, partial(describe_run, "1 x CPU", 1, **MODEL))
    budget.shrink(100)
    measure(budget, 4096)
    assert budget.most == 100
    assert not locate_paces().exists()


def test_many_threads_get_no_batches_that_fill_the_memory():
    assert [list_candidates(threads)[-1] for threads in (1, 4, 8, 64)] == [4096, 16384, 16384, 32768]


def test_an_encoder_measures_and_doctor_shows_it(tiny_encoder, monkeypatch):
    encoder = load_encoder(f"hf:{tiny_encoder}?pooling=mean&dtype=float32", device="cpu")
    encoder.budget.candidates = [64, 128]
    encoder.budget.most = 64
    encode_matrix(encoder, [Item(str(n), text="cat dog " * (1 + n % 9)) for n in range(200)], "document")
    assert encoder.budget.known
    shown = [check.found for check in list_paces()]
    assert shown == [str(Pace.read_all(encoder.budget.about["processor"])[0])]
    assert f"{tiny_encoder.name} in float32 by torch: {encoder.budget.most} tokens a batch" in shown[0]
