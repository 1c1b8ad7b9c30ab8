"""What is not stored yet, and in portions: what a slow encoder loses when it is killed."""

from __future__ import annotations

import pytest
from crosslens.indexes.storage.resume import ItemState, Portion, pace
from crosslens.items import Item


class Clock:
    """Time as `pace` sees it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fresh(count: int, stored: int = 0) -> Portion:
    """A window that begins with items that are stored."""
    window = [Item(str(n), text="a") for n in range(stored + count)]
    return Portion(window, window[stored:], [ItemState("{}", item.id) for item in window[stored:]], True)


def parts(clock: Clock, windows: list[Portion], each: float) -> list[Portion]:
    """What `pace` makes of windows for an encoder that takes `each` seconds an item."""
    made = []
    for part in pace(iter(windows), clock=clock):
        made.append(part)
        clock.now += each * len(part.items)
    return made


@pytest.mark.parametrize("each", [0.001, 0.1, 0.5, 3.0, 90.0])
def test_a_part_takes_a_minute_at_most_and_holds_its_window(each: float) -> None:
    windows = [fresh(512), fresh(100, stored=412), fresh(0, stored=512), fresh(512)]
    made = parts(Clock(), windows, each)
    assert all(len(part.items) * each <= 60 or len(part.items) == 1 for part in made)
    for name in ("window", "items", "states"):
        joined = [one for part in made for one in getattr(part, name)]
        assert joined == [one for window in windows for one in getattr(window, name)]
    assert all(part.states[-1].hash == part.items[-1].id == part.window[-1].id for part in made if part.items)


def test_windows_of_a_fast_encoder_stay_whole() -> None:
    made = parts(Clock(), [fresh(512)] * 3, 0.07)  # e5-small on two cores
    assert [len(part.items) for part in made] == [1, 511, 512, 512]


def test_an_encoder_that_becomes_slow_is_followed() -> None:
    clock = Clock()
    sizes = []
    for part in pace([fresh(512) for _ in range(4)], clock=clock):
        sizes.append(len(part.items))
        clock.now += len(part.items) * (0.01 if len(sizes) < 3 else 1.0)
    assert sizes == [1, 511, 512, *[32] * 32]
