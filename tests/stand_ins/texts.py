"""Texts of several scripts and lengths, and items that hold them."""

from __future__ import annotations

from crosslens.items import Item

TEXTS = [
    "The cat sleeps all day and hunts at night.",
    "猫",
    "گربه تمام روز می‌خوابد.",
    "Кошка спит весь день. " * 30,
    "😀 e\u0301 \t x",
]
ITEMS = [Item(str(n), text) for n, text in enumerate(TEXTS)]
