"""The vLLM judge on a stand-in for vLLM that runs the tiny model: it must say what `hf:` says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.multilingual.judges import hf
from crosslens.multilingual.judges.mass import read_mass
from crosslens.multilingual.judges.messages import Message, Passage
from crosslens.multilingual.judges.vllm import open_vllm
from stand_ins.vllm_engine import LLM, make_module

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", make_module())


@pytest.fixture(scope="module")
def talker(tiny_judge, tmp_path_factory):
    """The tiny model with a chat template."""
    import shutil

    import transformers

    where = tmp_path_factory.mktemp("talker") / "model"
    shutil.copytree(tiny_judge, where)
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(params=["plain", "chat"])
def both(request, stand_in, tiny_judge, talker):
    """The judge on the stand-in, and the one on transformers."""
    where = str(tiny_judge if request.param == "plain" else talker)
    ours = open_vllm(where, loading=Loading(), passage_tokens=6)
    return ours, hf.open_hf(where, loading=Loading(device="cpu"), dtype="float32", passage_tokens=6)


PROMPTS = [
    Message((Passage("The cat sleeps all day and hunts at night."), "\nIs it so?"), "Be brief.", "Answer:", "auto"),
    Message((Passage("Le chat dort toute la journée."), "\nIs it so?"), answer="[", chat="auto"),
    Message((Passage("猫整天睡觉"), "\nIs it so?"), chat="never"),
]


@pytest.mark.parametrize("labels", [["A", "B", "C"], ["Yes", "No"], ["1]", "2]", "10]"]], ids=str)
def test_choose_says_what_hf_says(both, labels):
    ours, theirs = both
    found = ours.choose(PROMPTS, labels)
    np.testing.assert_allclose(found, theirs.choose(PROMPTS, labels), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    assert ours.usage["calls"] == 3
    masses = [read_mass(each.usage)["eng"] for each in (ours, theirs)]
    assert masses[0] == pytest.approx(masses[1], abs=2e-3)
    assert ours.usage["cut_passages"] == theirs.usage["cut_passages"] > 0
    assert ours.choose([], labels).shape == (0, len(labels))


def test_labels_of_one_token_take_one_step_each_and_only_they_are_allowed(both):
    ours, _ = both
    ours.choose(PROMPTS, ["A", "B"])
    asked = LLM.made[0].seen
    assert [each.max_tokens for each in asked] == [1] * 5
    assert all(each.logprobs == len(each.allowed_token_ids) for each in asked[:3])
    assert not any(each.allowed_token_ids for each in asked[3:])  # the label mass, of a sample


def test_likelihood_says_what_hf_says(both):
    ours, theirs = both
    targets = [" a long question", " 猫?", " x"]
    np.testing.assert_allclose(ours.likelihood(PROMPTS, targets), theirs.likelihood(PROMPTS, targets), rtol=1e-4)
    with pytest.raises(InputError, match="has no tokens"):
        ours.likelihood(PROMPTS[:1], [""])


def test_generate_says_what_hf_says(both):
    ours, theirs = both
    found = ours.generate(PROMPTS, max_new_tokens=6)
    expected = theirs.generate(PROMPTS, max_new_tokens=6)
    assert [each.text for each in found] == [each.text for each in expected]
    assert [each.ended for each in found] == [each.ended for each in expected]
    letter = next(each for each in found[0].text if each.strip())
    [stopped] = ours.generate(PROMPTS[:1], max_new_tokens=6, stop=[letter])
    assert stopped.ended
    assert letter in stopped.text
    ours.generate(PROMPTS[:1], temperature=0.5, seed=7)
    assert (LLM.made[0].seen[-1].temperature, LLM.made[0].seen[-1].seed) == (0.5, 7)
    assert LLM.made[0].seen[0].seed is None
    assert ours.usage["generated_tokens"] == sum(each.tokens for each in [*found, stopped]) + 64


def test_usage_leaves_out_what_came_from_the_prefix_cache(both):
    ours, _ = both
    ours.generate(PROMPTS, max_new_tokens=1)
    ids = ours.tokenize([ours.write_text(prompt, 1) for prompt in PROMPTS], PROMPTS)
    assert ours.usage["prompt_tokens"] == sum(map(len, ids)) - len(ids)


def test_the_engine_is_asked_for_what_the_judge_relies_on(stand_in, tiny_judge):
    judge = open_vllm(str(tiny_judge), loading=Loading(), dtype="bfloat16", context=64, memory=0.5, parallel=2, seed=5)
    args = LLM.made[0].args
    wanted = {
        "enable_prefix_caching": True, "logprobs_mode": "processed_logprobs", "load_format": "safetensors",
        "trust_remote_code": False, "dtype": "bfloat16", "max_model_len": 64, "gpu_memory_utilization": 0.5,
        "tensor_parallel_size": 2, "seed": 5,
    }  # fmt: skip
    assert {key: args[key] for key in wanted} == wanted
    assert judge.name == f"vllm:{tiny_judge}"
    assert judge.context == 63  # one token is always made
    assert judge.fingerprint != open_vllm(str(tiny_judge), loading=Loading(), passage_tokens=9).fingerprint
    with pytest.raises(InputError, match="context is too short|leaves no room"):
        judge.choose([Message(("cat " * 100, Passage("x" * 50)))], ["A", "B"])
    with pytest.raises(InputError, match="exceeds the context of 63"):
        judge.choose([Message(("cat " * 100,))], ["A", "B"])
    with pytest.raises(InputError, match="cannot answer `score`"):
        judge.score([])
    with pytest.raises(InputError, match="has no chat template"):
        judge.choose([Message(("x",), chat="always")], ["A", "B"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loading": Loading(device="cpu")}, "runs on the accelerator that vLLM is built for, not on cpu"),
        ({"memory": 0.0}, "memory is a share above 0"),
        ({"parallel": 0}, "parallel must be at least 1"),
        ({"passage_tokens": 0}, "passage_tokens must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_one_line(stand_in, options, message):
    with pytest.raises(InputError, match=message):
        open_vllm("some/model", **{"loading": Loading(), **options})
    assert not LLM.made


def test_a_model_that_does_not_load_and_a_missing_vllm_are_one_line(monkeypatch, stand_in):
    def broken(**_):
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", broken)
    with pytest.raises(InputError) as caught:
        open_vllm("some/model", loading=Loading())
    assert str(caught.value) == "vllm:some/model cannot be loaded: Engine core initialization failed."
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[vllm\]'"):
        open_vllm("some/model", loading=Loading())
