"""Conversations become the tokens that transformers' chat templates give them, and prompts are parted as TRL does."""

import importlib.util
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.config import TinyModel
from policies.model_folder import materialise
from policies.prompt import Message
from policies.tokens import Tokenizer
from teachers.conversations import common_prompt, prompt_tokens, read_text, whole, written
from tests.chat_folder import CHATML, chat_folder

SPEC = importlib.util.find_spec("trl")
assert SPEC is not None and SPEC.origin is not None
TEMPLATES = sorted((Path(SPEC.origin).parent / "chat_templates").glob("*.jinja"))

ASK = {"role": "user", "content": "What color is the sky?"}
SYSTEM = {"role": "system", "content": "Be brief."}
EARLIER = {"role": "assistant", "content": "Which sky?"}
AGAIN = {"role": "user", "content": "The one  above. "}
ANSWER = {"role": "assistant", "content": "It is blue."}
PROMPTS: list[list[dict[str, str]]] = [[ASK], [SYSTEM, ASK], [ASK, EARLIER, AGAIN], [SYSTEM, ASK, EARLIER, AGAIN]]


def messages(*values: dict[str, str]) -> tuple[Message, ...]:
    return tuple(Message(one["role"], one["content"]) for one in values)


def both(folder: Path) -> tuple[Any, Tokenizer]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)


def ids(theirs: Any, values: list[dict[str, str]], **options: Any) -> list[int]:
    return list(theirs.apply_chat_template(values, return_dict=False, **options))


# ---------------------------------------------------------------- every template that TRL ships


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("chats")
    return {path.stem: chat_folder(root / path.stem, path.read_text()) for path in TEMPLATES}


def test_there_are_templates_to_compare_with() -> None:
    assert len(TEMPLATES) > 20


@pytest.mark.parametrize("name", [path.stem for path in TEMPLATES])
def test_prompts_and_completions_are_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    theirs, ours = both(folders[name])
    agreed = 0
    for prompt in PROMPTS:
        try:
            asked = theirs.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            full = theirs.apply_chat_template([*prompt, ANSWER], tokenize=False)
        except (jinja2.TemplateError, TypeError):
            with pytest.raises(ValueError, match="template"):
                written(ours, messages(*prompt), messages(ANSWER))
            continue
        agreed += 1
        assert prompt_tokens(ours, messages(*prompt)).tolist() == ids(theirs, prompt, add_generation_prompt=True)
        if not full.startswith(asked):
            with pytest.raises(ValueError, match="writes the prompt alone otherwise than before its completion"):
                written(ours, messages(*prompt), messages(ANSWER))
            continue
        found = written(ours, messages(*prompt), messages(ANSWER))
        expected, size = ids(theirs, [*prompt, ANSWER]), len(found.context)
        assert found.context.tolist() == ids(theirs, prompt, add_generation_prompt=True)
        assert found.own.all() and found.text == ANSWER["content"] and found.tokens[-1] == theirs.eos_token_id
        rest = expected[size:]
        if expected[:size] != found.context.tolist():  # tokens merge over the boundary
            rest = theirs.encode(full[len(asked) :], add_special_tokens=False)
        if theirs.eos_token_id in rest:
            assert rest[: len(found.tokens)] == found.tokens.tolist()
            assert not theirs.decode(rest[len(found.tokens) :]).strip()
        else:
            assert found.tokens.tolist() == [*rest, theirs.eos_token_id]
    assert agreed or name.startswith("llava")  # which takes lists of images and text alone


@pytest.mark.parametrize("name", ["qwen2_5_training", "qwen3_training", "llama3_training", "gemma_training"])
def test_of_several_turns_the_assistants_are_trained(folders: dict[str, Path], name: str) -> None:
    theirs, ours = both(folders[name])
    talk = [ASK, EARLIER, AGAIN, ANSWER]
    marked = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    found = whole(ours, messages(*talk))
    said = np.array(marked["input_ids"])[np.array(marked["assistant_masks"], bool)]
    own = found.tokens[found.own]
    if theirs.eos_token_id not in said:
        own = own[:-1]  # theirs has no end token to learn
    # they train the line break after an end token, which generation never writes
    assert "".join(theirs.decode(own).split()) == "".join(theirs.decode(said).split())
    assert not found.own.all() and found.own[0] and found.own[-1]
    assert found.text == "Which sky?\nIt is blue."


@pytest.mark.parametrize("prefill", ["The sky", "The sky ", "  The sky is"])
def test_a_prompt_that_ends_with_the_assistant_is_gone_on_with(tmp_path: Path, prefill: str) -> None:
    for number, template in enumerate((CHATML, CHATML.replace("m['content']", "m['content'] | trim"))):
        theirs, ours = both(chat_folder(tmp_path / str(number), template))
        prompt = [SYSTEM, ASK, {"role": "assistant", "content": prefill}]
        expected = ids(theirs, prompt, continue_final_message=True)
        assert prompt_tokens(ours, messages(*prompt)).tolist() == expected


def test_tokens_that_merge_over_the_boundary_keep_the_prompts_own(tmp_path: Path) -> None:
    glued = CHATML.replace("<|im_start|>assistant\n", "").replace("<|im_start|>", "")
    _, ours = both(chat_folder(tmp_path, glued.replace("m['role'] + '\n' + ", "'\n\n' + ").replace("<|im_end|>\n", "")))
    prompt = (Message("system", "the sun"), Message("user", "\n"))
    found = written(ours, prompt, (Message("assistant", "\n\nthe"),))
    assert found.context.tolist() == prompt_tokens(ours, prompt).tolist()
    assert ours.decode(found.tokens) == "\n\n\n\nthe"


# ---------------------------------------------------------------- without a template, and mixed forms


def test_one_users_text_needs_no_template(tmp_path: Path) -> None:
    plain = Tokenizer.load(materialise(TinyModel(), tmp_path))
    chat = written(
        plain, messages({"role": "user", "content": "1+1="}), messages({"role": "assistant", "content": "2"})
    )
    text = written(plain, "1+1=", "2")
    assert (chat.context.tolist(), chat.tokens.tolist()) == (text.context.tolist(), text.tokens.tolist())
    assert text.tokens.tolist() == plain.response("2").tolist()
    with pytest.raises(ValueError, match="has no chat template, which a conversation needs"):
        written(plain, messages(SYSTEM, ASK), messages(ANSWER))


def test_a_text_beside_a_conversation_is_what_the_user_or_the_assistant_says(tmp_path: Path) -> None:
    ours = Tokenizer.load(chat_folder(tmp_path))
    full = written(ours, messages(ASK), messages(ANSWER))
    for one in (written(ours, ASK["content"], messages(ANSWER)), written(ours, messages(ASK), ANSWER["content"])):
        assert (one.context.tolist(), one.tokens.tolist()) == (full.context.tolist(), full.tokens.tolist())


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        ([ASK, AGAIN], "no assistant who answers"),
        ([ANSWER], "no assistant who answers"),
        ([ASK, ANSWER, AGAIN], "does not end with the assistant's words"),
    ],
)
def test_a_conversation_that_teaches_nothing_says_why(tmp_path: Path, talk: list[dict[str, str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        whole(Tokenizer.load(chat_folder(tmp_path)), messages(*talk))


def test_a_prompt_ends_with_the_user_or_the_assistant(tmp_path: Path) -> None:
    ours = Tokenizer.load(chat_folder(tmp_path))
    with pytest.raises(ValueError, match="ends with the system's words"):
        prompt_tokens(ours, messages(ASK, SYSTEM))
    with pytest.raises(ValueError, match="the prompt ends with the user's"):
        written(ours, messages(ASK, EARLIER), messages(ANSWER))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, r"prompt: not a text \(got '5'\)"),
        ("", "prompt: not a text"),
        ([], "prompt: not a text"),
        ({"role": "user"}, "prompt: not a text"),
        ("\ud800", "prompt: holds a lone surrogate at 0"),
        (["hello"], r"prompt\[0\]: not a message \(got 'hello'\)"),
        ([ASK, {"role": "user", "content": None}], r"prompt\[1\]\.content: not a text \(got 'None'\)"),
        ([{"content": "x"}], r"prompt\[0\]\.role: missing or no text"),
        ([{"role": "usr", "content": "x"}], r"prompt\[0\]\.role: unknown role; did you mean 'user'\?"),
        ([{"role": "tool", "content": "x"}], r"prompt\[0\]\.role: tool calls are not read"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}], r"prompt\[0\]\.tool_calls: only text"),
        ([{"role": "user", "content": [{"type": "image"}]}], r"prompt\[0\]\.content: only text is read"),
    ],
)
def test_what_is_neither_text_nor_conversation_says_why(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_text(value, "prompt")


def test_share_gpt_names_and_empty_extras_are_read() -> None:
    value = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "tool_calls": None, "weight": 1}]
    assert read_text(value, "messages") == (Message("user", "a"), Message("assistant", "b"))


# ---------------------------------------------------------------- implicit prompts

TURNS = st.lists(st.sampled_from([ASK, SYSTEM, EARLIER, AGAIN, ANSWER]), min_size=1, max_size=4)


def parted(chosen: Any, rejected: Any) -> dict[str, Any]:
    from trl.data_utils import extract_prompt

    return dict(extract_prompt({"chosen": chosen, "rejected": rejected}))


@settings(deadline=None)
@given(st.text("a b", min_size=0, max_size=6), st.text("ab ", min_size=1), st.text("ab ", min_size=1))
def test_the_prompt_of_two_texts_is_trls(prompt: str, first: str, second: str) -> None:
    chosen, rejected = prompt + first, prompt + second
    expected = parted(chosen, rejected)
    try:
        found = common_prompt(chosen, rejected)
    except ValueError:
        assert chosen == rejected or not expected["prompt"] or chosen[0] != rejected[0]
        return
    assert found == (expected["prompt"], expected["chosen"], expected["rejected"])


@settings(deadline=None)
@given(TURNS, TURNS, TURNS)
def test_the_prompt_of_two_conversations_is_trls(
    prompt: list[dict[str, str]], first: list[dict[str, str]], second: list[dict[str, str]]
) -> None:
    chosen, rejected = prompt + first, prompt + second
    expected = parted(chosen, rejected)
    try:
        found = common_prompt(messages(*chosen), messages(*rejected))
    except ValueError:
        assert chosen == rejected
        return
    assert found == tuple(messages(*expected[key]) for key in ("prompt", "chosen", "rejected"))
