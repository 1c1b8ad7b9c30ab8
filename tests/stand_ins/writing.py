"""Judges without a model that write: what rules say, in the language that is asked for, or what they are told to."""

from __future__ import annotations

import re
from collections import Counter

from crosslens.multilingual.judges import BaseJudge, Completion

SAYS = {
    "Russian": "Кошка спит весь день и охотится ночью.",
    "Chinese": "猫整天都在睡觉，晚上出去打猎。",
    "French": "Le chat dort toute la journée et chasse la nuit.",
    "Spanish": "El gato duerme todo el día y caza por la noche.",
    "English": "The cat sleeps all day and hunts at night.",
}
OWN_NAMES = {
    "русский": SAYS["Russian"],
    "中文": SAYS["Chinese"],
    "français": SAYS["French"],
    "español": SAYS["Spanish"],
}


class Writer(BaseJudge):
    """Says what `answers` has for a request that holds one of its keys, else a sentence in the language asked for.

    A text that ends in `|` was cut. `fails_after` so many texts it is stopped, as by a kill.
    """

    can = frozenset({"generate"})
    streams = True
    chats = True

    def __init__(
        self,
        checkpoint: str = "writer",
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        fails_after: int = -1,
    ) -> None:
        super().__init__(checkpoint or "writer", "1")
        self.answers: dict[str, str] = {}
        self.seen: list[tuple[int, int | None]] = []
        self.requests: list[str] = []
        self.fails_after = fails_after

    @property
    def fingerprint(self) -> str:
        return self.name

    def compute_completions(self, prompts, sampling):
        self.seen.append((len(prompts), sampling.seed))
        found = []
        for place, prompt in enumerate(prompts):
            if self.fails_after == len(found):
                raise KeyboardInterrupt
            words = prompt.user()
            self.requests.append(words)
            said = {**self.answers, **SAYS, **OWN_NAMES}
            text = next((text for key, text in said.items() if key in words), SAYS["English"])
            self.usage["generated_tokens"] += 3
            found.append(Completion(text.rstrip("|"), 3, ended=not text.endswith("|")))
            self.hand_over(place, found[-1])
        return found


def count_cats(asked: str) -> str:
    """As many cats in Russian as the numbers in a text sum up to: an answer that tells texts apart."""
    return "Кот" + " и кот" * sum(map(int, re.findall("[0-9]+", asked)))


class Saying:
    """A judge that says what it is told to."""

    modalities = frozenset({"text"})
    can = frozenset({"generate", "choose"})
    appetite = 8
    name, revision, fingerprint = "saying", "0", "saying/0"

    def __init__(self, say, chats=True):
        self.say, self.chats = say, chats
        self.usage = Counter()
        self.seen = []

    def generate(self, prompts, *, max_new_tokens=64, stop=(), temperature=0.0, seed=0):
        self.usage["calls"] += len(prompts)
        self.seen += [(each, max_new_tokens, stop) for each in prompts]
        return [Completion(self.say(each.user()), 3) for each in prompts]
