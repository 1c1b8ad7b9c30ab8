"""The SPEC of a rewriter, `METHOD[:FILE.toml]@FAMILY:CHECKPOINT[?key=value&...]`, and the stage that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from ...errors import InputError, list_few
from ...specs import Spec, distribute_options, find_factory
from ..judges import Judge, find_judge, open_judge
from ..languages import parse_language
from ..prompts import configure_wording, load_wording
from .base import OWN, Rewriter, RewritingPrompt
from .kept_texts import locate_texts

EXAMPLE = "hyde@offline:qwen-1.5b?lang=document"

# What a method is called -> its class. Other packages add theirs by entry points of `crosslens.rewriters`.
REWRITERS = {
    "hyde": "multilingual.rewriting.methods:Hyde",
    "query2doc": "multilingual.rewriting.methods:Query2doc",
    "keywords": "multilingual.rewriting.methods:Keywords",
    "question": "multilingual.rewriting.methods:Question",
    "decompose": "multilingual.rewriting.methods:Decompose",
    "cot": "multilingual.rewriting.methods:Cot",
    "feedback": "multilingual.rewriting.methods:Feedback",
}
SHARE = 0.01  # of the documents that must be in a language for `lang=document` to write in it

Langs = Callable[[], Mapping[str, int]]  # counts the documents by language, when it is needed


@dataclass(frozen=True)
class RewritePlan:
    """A rewriter as a SPEC describes it, its model not loaded: what is written, in which languages, for which use."""

    method: type[Rewriter]
    prompt: RewritingPrompt
    lang: str
    settings: Mapping[str, Any]
    text: str
    judge: Callable[[], Judge] = field(repr=False)

    def load(self, langs: Langs) -> Rewriter:
        """The stage, its model loaded; `InputError` where the languages of the documents are needed and not known."""
        languages = choose_languages(self.lang, langs, self.text)
        judge = self.judge()
        return self.method(judge, self.prompt, languages, **self.settings, kept=locate_texts(judge))


def is_rewriter(head: str) -> bool:
    """Whether what stands before the @ of a SPEC names a method of rewriting."""
    name = head.partition(":")[0]
    return name == "py" or name in REWRITERS or name in _list_added()


def parse_rewriter(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> RewritePlan:
    """The rewriter that a SPEC names; `InputError` says what is wrong with it, before any model is loaded.

    Options of the method (`n`, `temperature`, `seed`, `max_new_tokens`, `weight`), of its wording (`language`,
    `instruction`, `chat`), `lang` and those of the judge stand side by side.
    """
    head, at, model = text.partition("@")
    if not at:
        raise InputError(f"the rewriter {text!r} names no model; write method@family:checkpoint, as in {EXAMPLE}")
    head, own = _split_file(head)
    method, rest = find_factory(Spec.parse(head), "rewriters", REWRITERS, "method of rewriting")
    if not (isinstance(method, type) and issubclass(method, Rewriter)):
        raise InputError(f"{head} is no Rewriter of crosslens, as {text} needs one")
    if rest.checkpoint or rest.options:
        raise InputError(f"{head}: only a .toml file may follow the name of a method")
    wording = load_wording(method.words, own or method.prompt, files(__package__))
    factory, spec = find_judge(Spec.parse(model))
    program: dict[str, object] = dict.fromkeys(("judge", "wording", "languages", "kept"))
    given: dict[str, object] = {"device": device, "trust_remote_code": trust_remote_code}
    targets: list[tuple[Callable[..., Any], Mapping[str, object]]] = [
        (_into, {}),
        (method, program),
        (configure_wording, {}),
        (factory, given),
    ]
    into, settings, words, options = distribute_options(spec, text.partition("?")[0], targets)
    settings = {key: value for key, value in settings.items() if key not in program}
    prompt = configure_wording(wording, **words)  # type: ignore[arg-type]
    lang = parse_languages(_into(**into))  # type: ignore[arg-type]
    return RewritePlan(method, prompt, lang, settings, text, lambda: open_judge(factory, spec.checkpoint, options))


def load_rewriter(
    text: str, langs: Mapping[str, int] | None = None, *, device: str = "auto", trust_remote_code: bool = False
) -> Rewriter:
    """The rewriter that a SPEC names, its model loaded: `method[:file.toml]@family:checkpoint[?key=value&...]`.

    `langs` counts the documents by language (`Index.langs`), for `lang=document`. `InputError` says what is wrong.
    """
    return parse_rewriter(text, device=device, trust_remote_code=trust_remote_code).load(lambda: langs or {})


def choose_languages(lang: str, langs: Langs, text: str) -> tuple[str, ...]:
    """The languages that a value of `lang=` means: `query`, `document`, `all`, or codes with commas between.

    Those of the documents come by their numbers, the most frequent first; a language with less than 1 % of them is left
    out. `InputError` where they are not known.
    """
    if lang not in ("document", "all"):
        return tuple(lang.split(","))
    counts = {code: number for code, number in langs().items() if code}
    held = sorted(counts, key=lambda code: (-counts[code], code))
    held = [code for code in held if counts[code] >= SHARE * sum(counts.values())]
    if not held:
        raise InputError(f"{text}: the languages of the documents are not known: name them, as in rus,zho")
    return tuple([OWN] * (lang == "all") + held)


def describe_languages(languages: Iterable[str]) -> str:
    """The languages of a rewriter for people."""
    return list_few([f"that of each {each}" if each == OWN else each for each in languages], 12)


def _into(*, lang: str = OWN) -> str:
    return lang


def parse_languages(lang: str) -> str:
    """A value of `lang=`, its languages as ISO 639-3; `InputError` for what is no language."""
    if lang in (OWN, "document", "all"):
        return lang
    codes = lang.split(",")
    if alone := {"document", "all"}.intersection(codes):
        raise InputError(f"lang={lang}: {' and '.join(sorted(alone))} stands alone, or codes, as in rus,zho")
    return ",".join(dict.fromkeys(each if each == OWN else parse_language(each) for each in codes))


def _split_file(head: str) -> tuple[str, str]:
    """The method, and the TOML file that is named after it, empty where there is none."""
    if not head.endswith(".toml"):
        return head, ""
    method, colon, file = head.rpartition(":")
    if not colon:
        raise InputError(f"{head} is not the name of a method: write how it is used before it, as in hyde:{head}@...")
    return method, file


def _list_added() -> set[str]:
    return {each.name for each in entry_points(group="crosslens.rewriters")}
