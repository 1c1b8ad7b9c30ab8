"""Label mass: the probability on all labels together before it is normalised over them.

It says whether a model answers the question at all: below a half, it would rather have said something that is none of
the labels, and what is read off them is a small remainder. Judges measure it on a sample of their questions and count
it by language of the wording, as whole numbers that add up over batches, sessions and runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

ASKED, SUM = "label_mass_asked_", "label_mass_permille_"  # and the language; the mean is the one by the other
LEAST = 0.5  # below this, most of the time the model would not have said a label
SAMPLE = 32  # of so many questions it is measured on one, and on more of the first ones


def count_mass(usage: Counter[str], language: str, mass: float) -> None:
    """Add the label mass 0..1 of one question."""
    usage[f"{ASKED}{language}"] += 1
    usage[f"{SUM}{language}"] += round(1000 * min(max(mass, 0.0), 1.0))


def read_mass(counts: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """By language of the wording: on how many questions it was measured, and its mean."""
    languages = [key.removeprefix(ASKED) for key, number in counts.items() if key.startswith(ASKED) and number]
    asked = {each: int(counts[f"{ASKED}{each}"]) for each in sorted(languages)}
    return {each: (number, counts.get(f"{SUM}{each}", 0) / number / 1000) for each, number in asked.items()}


def leave_out_mass(counts: Mapping[str, float]) -> dict[str, float]:
    """The other counts: those of label mass are for `read_mass`, and say nothing one by one."""
    return {key: number for key, number in counts.items() if not key.startswith((ASKED, SUM))}


def describe_mass(counts: Mapping[str, float], judge: str, prompt: str) -> Iterator[str]:
    """A line for each language in which a judge hardly answers a prompt with its labels."""
    for language, (asked, mean) in read_mass(counts).items():
        if mean < LEAST:
            yield (
                f"{judge} hardly answers the prompt {prompt} in {language}: its labels have a probability of "
                f"{mean:.2g} together (mean of {asked} questions); take another prompt or model, or give the prompt "
                f"an `answer` that its labels follow"
            )


def is_sampled(number: int, of: int = SAMPLE) -> bool:
    """Whether it is measured on the question of this number, from 1: the 1st, 2nd, 4th, ..., and one in so many."""
    return number & (number - 1) == 0 or number % of == 0
