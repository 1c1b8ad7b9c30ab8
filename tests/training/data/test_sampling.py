"""The order of examples: balanced as asked, batches mixed or apart, and the same from any place on."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.example import Example
from crosslens.training.data.examples import Examples
from crosslens.training.data.sampling import ExampleOrder, ExampleStream

GROUPS = ["eng"] * 80 + ["rus"] * 15 + ["zho"] * 5


@pytest.mark.parametrize("batches", ["mixed", "apart"])
@pytest.mark.parametrize("exponent", [1.0, 0.5, 0.0])
def test_it_is_the_same_from_any_place_on(batches, exponent):
    order = ExampleOrder(GROUPS, 5, batches, exponent, seed=3)
    whole = list(islice(order.iterate(), 250))
    for start in (0, 1, 37, order.epoch_size, 199):
        assert (
            list(islice(ExampleOrder(GROUPS, 5, batches, exponent, seed=3).iterate(start), 50))
            == whole[start : start + 50]
        )
    assert whole != list(islice(ExampleOrder(GROUPS, 5, batches, exponent, seed=4).iterate(), 250))
    assert whole[:100] != whole[100:200]


@pytest.mark.parametrize(("exponent", "shares"), [(1.0, (80, 15, 5)), (0.5, (59, 26, 15)), (0.0, (34, 33, 33))])
def test_groups_have_their_shares_and_are_gone_through_as_a_whole(exponent, shares):
    order = ExampleOrder(GROUPS, exponent=exponent)
    assert tuple(order.shares.values()) == shares
    drawn = list(islice(order.iterate(), 10 * order.epoch_size))
    assert Counter(GROUPS[n] for n in drawn) == {
        name: 10 * n for name, n in zip(("eng", "rus", "zho"), shares, strict=True)
    }
    for name in ("eng", "rus", "zho"):
        times = Counter(n for n in drawn if GROUPS[n] == name)
        assert len(times) == GROUPS.count(name)
        assert max(times.values()) - min(times.values()) <= 1
    if exponent == 1:
        assert sorted(drawn[:100]) == [*range(100)]


def test_batches_apart_are_of_one_group_and_lose_no_example():
    order = ExampleOrder(GROUPS, 4, "apart", 1.0)
    drawn = list(islice(order.iterate(), 20 * order.epoch_size))
    batches = [drawn[n : n + 4] for n in range(0, len(drawn), 4)]
    assert all(len({GROUPS[n] for n in batch}) == 1 for batch in batches)
    assert len(set(drawn)) == 100
    assert len({GROUPS[batch[0]] for batch in batches[:10]}) > 1
    with pytest.raises(InputError, match="zho has 5 examples, and a batch of its own needs 8: mix the languages"):
        ExampleOrder(GROUPS, 8, "apart")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"groups": []}, "there are no examples"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"exponent": 2.0}, "from 0 to 1, not 2"),
        ({"batches": "both"}, "unknown kind of batches 'both'"),
    ],
)
def test_what_gives_no_order_is_refused(changed, error):
    with pytest.raises(InputError, match=error):
        ExampleOrder(**{"groups": GROUPS, **changed})


def test_a_stream_is_of_examples_by_their_languages():
    made = [
        Example(Item(f"q{n}", "x", lang="eng"), (Item("d", "y", lang=lang),))
        for n, lang in enumerate(["rus"] * 6 + ["zho"] * 2)
    ]
    stream = ExampleStream(Examples("few", lambda: iter(made)), batch=2, batches="apart", exponent=0.0, seed=1)
    assert stream.order.groups == ["eng-rus"] * 6 + ["eng-zho"] * 2
    drawn = list(islice(stream.iterate(), 16))
    assert list(islice(stream.iterate(5), 11)) == drawn[5:]
    assert Counter(example.positives[0].lang for example in drawn) == {"rus": 8, "zho": 8}
    assert stream[7] is made[7]
