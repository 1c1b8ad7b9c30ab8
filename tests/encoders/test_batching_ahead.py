"""Reading ahead: it overlaps with the model, is bounded, ends when it should, and hides no error."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from threading import Event

import numpy as np
import pytest
from crosslens.checkpoints.source import OneThreadAtATime, make_shareable
from crosslens.encoders import batching
from crosslens.encoders.base import EncoderSpec
from crosslens.encoders.batching import encode_windows, read_ahead
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multimodal import towers
from crosslens.multimodal.towers import map_in_threads

SPEC = EncoderSpec("fake:length", "0", ("text",), 1, normalized=False)
LONG = 20.0  # seconds after which a test that waits for a thread has failed


def readers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("crosslens-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = readers()
    yield
    left = [each for each in readers() if each not in before]
    for each in left:
        each.join(LONG)  # a busy machine may let one end late
    assert [each for each in left if each.is_alive()] == []


def items(count: int) -> Iterator[Item]:
    return (Item(str(n), "x" * (n % 7 + 1)) for n in range(count))


def encoded(source, *, prepare=None, forward=None, window=4, **options):
    return encode_windows(
        source,
        SPEC,
        prepare=prepare or (lambda group: [item.text for item in group]),
        cost=len,
        forward=forward or (lambda texts: np.array([[len(text)] for text in texts], np.float32)),
        budget=100,
        window=window,
        **options,
    )


def test_the_next_window_is_prepared_while_the_model_works():
    second = Event()

    def prepare(group):
        if group[0].id == "4":
            second.set()
        return [item.text for item in group]

    def forward(texts):
        assert second.wait(LONG)  # would wait in vain if the model held the reader up
        return np.array([[len(text)] for text in texts], np.float32)

    found = list(encoded(items(12), prepare=prepare, forward=forward))
    assert [id for batch in found for id in batch.ids] == [str(n) for n in range(12)]
    assert [row for batch in found for row in batch.vectors[:, 0]] == [n % 7 + 1 for n in range(12)]


def test_the_next_batch_is_collated_while_the_model_works():
    made = [Event() for _ in range(3)]
    count = itertools.count()

    def collate(texts):
        made[next(count)].set()
        return texts

    turn = itertools.count(1)

    def forward(texts):
        assert made[min(next(turn), 2)].wait(LONG)
        return np.array([[len(text)] for text in texts], np.float32)

    texts = [Item(str(n), "x" * 50) for n in range(6)]
    assert len(list(encoded(texts, forward=forward, window=6, collate=collate))) == 1


def test_at_most_one_window_is_made_beyond_the_one_at_work():
    prepared: list[str] = []
    ready = threading.Semaphore(0)

    def prepare(group):
        prepared.append(group[0].id)
        ready.release()
        return [item.text for item in group]

    with closing(encoded(items(1000), prepare=prepare)) as batches:
        for given in range(1, 6):
            next(batches)
            for _ in range(1 if given > 1 else 2):
                assert ready.acquire(timeout=LONG)
            assert not ready.acquire(timeout=0.02)  # the reader waits to be asked
            assert len(prepared) == given + 1


def test_items_are_pulled_by_one_thread_and_not_the_callers():
    seen = set()

    def source():
        for item in items(50):
            seen.add(threading.get_ident())
            yield item

    assert len(list(encoded(source()))) == 13
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_a_list_that_is_one_window_needs_no_thread(monkeypatch):
    monkeypatch.setattr(batching, "Thread", None)
    assert [batch.vectors.tolist() for batch in encoded(list(items(4)))] == [[[1], [2], [3], [4]]]


class Broken(Exception):
    pass


@pytest.mark.parametrize("where", ["source", "prepare", "collate", "forward"])
def test_an_error_comes_out_as_it_is_after_what_came_before(where):
    error = Broken("the very one")

    def fail(at, group):
        if where == at and group[0] == "xxxxxxx":  # of item 6
            raise error
        return group

    def source():
        for item in items(20):
            if where == "source" and item.id == "6":
                raise error
            yield item

    found = []
    batches = encoded(
        source(),
        window=2,
        prepare=lambda group: fail("prepare", [item.text for item in group]),
        collate=lambda texts: fail("collate", texts),
        forward=lambda texts: np.array([[len(text)] for text in fail("forward", texts)], np.float32),
    )

    def gather():
        for batch in batches:
            found.extend(batch.ids)

    with pytest.raises(Broken) as raised:
        gather()
    assert raised.value is error
    assert found == ["0", "1", "2", "3", "4", "5"]
    assert next(batches, None) is None


def test_a_bad_item_is_named_by_the_reader():
    bad = itertools.chain(items(5), [Item("bad", " ")])
    with pytest.raises(InputError, match="'bad' holds neither text nor image"):
        list(encoded(bad))


def test_closing_early_ends_the_threads_and_the_source():
    closed = Event()

    def source():
        try:
            yield from items(10_000)
        finally:
            closed.set()

    batches = encoded(source())
    next(batches)
    assert readers()
    batches.close()
    assert not readers()
    assert closed.is_set()


def test_closing_does_not_wait_for_a_whole_window_of_a_slow_source():
    go, read = threading.Semaphore(0), []

    def source():
        for item in items(10_000):
            assert go.acquire(timeout=LONG)
            read.append(item.id)
            yield item

    go.release(9)  # two windows, and the first item of a third
    batches = encoded(source())
    next(batches)
    next(batches)
    closing_ = threading.Timer(0.05, go.release)  # the reader is in the source, and gets one more item
    closing_.start()
    batches.close()
    closing_.join()
    assert len(read) <= 10


def test_a_source_that_is_blocked_does_not_block_closing(monkeypatch):
    monkeypatch.setattr(batching, "PATIENCE", 0.05)
    go = Event()

    def source():
        yield from items(4)
        assert go.wait(LONG)
        yield from items(4)

    batches = encoded(source())
    next(batches)
    batches.close()
    (reader,) = readers()
    go.set()
    reader.join(LONG)  # and then it ends by itself
    assert not reader.is_alive()


def test_an_abandoned_stream_ends_its_thread():
    for batch in encoded(items(10_000)):
        assert len(batch.ids) == 4
        break
    assert not readers()


def test_elements_in_order_and_nothing_before_it_is_asked_for():
    started = Event()

    def make(stop):
        started.set()
        yield from range(100)

    numbers = read_ahead(make)
    assert not started.is_set()
    assert list(numbers) == list(range(100))


def test_pictures_are_opened_by_several_threads_at_once(monkeypatch):
    monkeypatch.setattr(towers, "DECODERS", 2)  # as on a machine of one core, too
    both = threading.Barrier(2)

    def work(item):
        both.wait(LONG)  # passes only if two threads are here
        return item.id

    assert list(map_in_threads(work, list(items(8)))) == [str(n) for n in range(8)]


class Tokenizer:
    """Keeps a call's length as fast tokenizers do."""

    length = 0

    def _encode_plus(self, text, length):
        self.length = length
        meeting.wait(0.001)
        return text[: self.length]


meeting = Event()


def test_threads_share_a_tokenizer_without_taking_over_each_others_length():
    tokenizer = make_shareable(make_shareable(Tokenizer()))
    assert not isinstance(tokenizer._encode_plus.function, OneThreadAtATime)  # noqa: SLF001
    found: dict[int, set[int]] = {4: set(), 9: set()}

    def run(length):
        for _ in range(30):
            found[length].add(len(tokenizer._encode_plus("x" * 20, length)))  # noqa: SLF001

    threads = [threading.Thread(target=run, args=(length,)) for length in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {4: {4}, 9: {9}}
    assert copy.deepcopy(tokenizer)._encode_plus("xxxxx", 3) == "xxx"  # noqa: SLF001 - processors copy theirs
