"""A judge that writes what rules say, in the language that it is asked for, and remembers what it was asked."""

from __future__ import annotations

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
