"""Strict readings of the formats that `fuzz.py` damages, written from the formats alone, and not with crosslens.

Each reads the bytes of a file to the plain values that a reader of crosslens gives, or raises `Refused`.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import zlib
from typing import Any

import numpy as np

WORD = r"[^\s\x00-\x1f\x7f-\x9f\ufeff\ud800-\udfff]+"


RUN = re.compile(
    rf"\s*({WORD})\s+\S+\s+({WORD})\s+\S+\s+([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf(?:inity)?)\s+\S+\s*",
    re.A | re.I,
)


QREL = re.compile(rf"\s*({WORD})\s+\S+\s+({WORD})\s+([+-]?\d+(?:\.0*)?)\s*", re.A)


class Refused(Exception):
    """What a strict reading cannot read."""


def unpack(content: bytes, packed: bool = False) -> list[str]:
    """The lines of a text, strictly."""
    try:
        packed = packed or content.startswith(b"\x1f\x8b")
        text = (gzip.decompress(content) if packed else content).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise Refused(error) from None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise Refused("NUL")
    return text.split("\n")


def match_lines(content: bytes, pattern: re.Pattern[str]) -> dict[str, dict[str, str]]:
    """Query -> document -> number, as it is written."""
    found: dict[str, dict[str, str]] = {}
    for line in unpack(content):
        if not line.strip():
            continue
        if (match := pattern.fullmatch(line)) is None:
            raise Refused(line)
        query, doc, number = match.groups()
        numbers = found.setdefault(query, {})
        if doc in numbers and (pattern is RUN or float(numbers[doc]) != float(number)):
            raise Refused(doc)
        numbers.setdefault(doc, number)
    return found


def to_float(number: str) -> float:
    """A number whose value a float can hold."""
    value = float(number)
    if (abs(value) == float("inf") and "i" not in number.lower()) or (
        value == 0 and re.search("[1-9]", re.split("e", number.lower())[0])
    ):
        raise Refused(number)
    return value


def strict_run(content: bytes) -> Any:
    ranked = {}
    with np.errstate(over="ignore"):
        for query, numbers in match_lines(content, RUN).items():
            scores = {doc: to_float(number) for doc, number in numbers.items()}
            singles = {doc: float(np.float32(score)) for doc, score in scores.items()}
            if len(set(singles.values())) == len(singles):
                ranked[query] = sorted(scores, key=lambda doc, scores=scores: -scores[doc])
            else:
                ranked[query] = sorted(scores, key=lambda doc, singles=singles: (singles[doc], doc), reverse=True)
    return ranked


def strict_qrels(content: bytes) -> Any:
    lines = [line for line in unpack(content) if line.strip()]
    if lines and lines[0].count("\t") == 2 and len(lines[0].split()) == 3:
        return strict_tsv("\n".join(lines).encode())
    judged = match_lines(content, QREL).items()
    return {topic: {doc: int(grade.partition(".")[0]) for doc, grade in grades.items()} for topic, grades in judged}


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Refused("twice")
    return dict(pairs)


def to_finite(text: str) -> float:
    if abs(value := float(text)) == float("inf"):
        raise Refused(text)
    return value


def strict_json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=make_object, parse_float=to_finite)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise Refused(error) from None


def strict_rows(content: bytes, packed: bool = False, key: str = "id") -> list[dict[str, Any]]:
    rows = [strict_json(line) for line in unpack(content, packed) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise Refused("no object")
    ids = [str(row.get(key)) for row in rows]
    if len(set(ids)) < len(ids):
        raise Refused("twice")
    return rows


def strict_documents(content: bytes, packed: bool = False, key: str = "id") -> list[Any]:
    found = []
    for row in strict_rows(content, packed, key):
        parts = [row.get("title"), row.get("text")]
        if not all(part is None or isinstance(part, str) for part in parts):
            raise Refused("no text")
        text = "\n".join(part for part in parts if part and not part.isspace())
        found.append((str(row[key]), text.strip()))
    return found


def strict_topics(content: bytes) -> list[Any]:
    return [(str(row["id"]), (row["text"] or "").strip()) for row in strict_rows(content)]


def strict_neuclir(content: bytes) -> list[Any]:
    found = []
    for row in strict_rows(content, key="topic_id"):
        (wording,) = [each for each in row["topics"] if each.get("source") in (None, "", "original")]
        found.append((str(row["topic_id"]), f"{wording['topic_title']}\n{wording['topic_description']}".strip()))
    return found


def strict_tsv(content: bytes) -> Any:
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(line for line in unpack(content) if line.strip()):
        fields = [field.strip(" \r") for field in line.split("\t")]
        if number == 0 and re.fullmatch(r"[+-]?[\d.]+", fields[-1]) is None:
            continue
        if len(fields) != 3 or not all(re.fullmatch(WORD, each, re.A) for each in fields[:2]):
            raise Refused(line)
        if re.fullmatch(r"[+-]?\d+(?:\.0*)?", fields[2], re.A) is None:
            raise Refused(line)
        grade = int(fields[2].partition(".")[0])
        if found.setdefault(fields[0], {}).setdefault(fields[1], grade) != grade:
            raise Refused(line)
    return found


def strict_manifest(content: bytes) -> Any:
    value = strict_json(decode(content))
    return [{"counts": {}, "models": {}} | stage for stage in value["stages"]]


def decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(error) from None


def strict_toml(content: bytes) -> Any:
    try:
        return tomllib.loads(decode(content))
    except (ValueError, RecursionError) as error:
        raise Refused(error) from None


def strict_plan(content: bytes) -> Any:
    value = strict_toml(content)
    return {
        key: [each] if key in ("collections", "measures") and isinstance(each, str) else each
        for key, each in value.items()
    }


def strict_prompt(content: bytes) -> Any:
    return {key: each for key, each in strict_toml(content).items() if not isinstance(each, dict) and key != "labels"}


def strict_card(content: bytes) -> Any:
    return strict_json(decode(content))


def strict_journal(content: bytes) -> Any:
    found = {}
    for line in content.split(b"\n"):
        try:
            entry = json.loads(line)
            crc = entry.pop("crc", None)
            if crc not in (None, zlib.crc32(json.dumps(entry).encode())) or entry.keys() != {"key", "value", "counts"}:
                continue
            if isinstance(entry["key"], str) and all(type(n) in (int, float) for n in entry["counts"].values()):
                found[entry["key"]] = [entry["value"], entry["counts"]]
        except (ValueError, RecursionError, TypeError, AttributeError):
            continue
    return found


def gunzip(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, ValueError) as error:
        raise Refused(error) from None
