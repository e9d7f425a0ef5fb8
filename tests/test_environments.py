"""Environments' hard cases: what a model may write to a tool, what a tool may do, and how much of it comes back."""

import json
import random
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from teachers.observations import Framing, cut, written
from tests.chat_folder import chat_folder
from verifiers.environments import calculator
from verifiers.environments.calls import Call, Malformed, Syntax
from verifiers.environments.config import (
    Calls,
    CustomEnvironment,
    Environment,
    RetryEnvironment,
    ToolsEnvironment,
)
from verifiers.environments.opening import open_environment, stops
from verifiers.environments.protocol import Task
from verifiers.verifier import build

SOON = 5.0
"""Seconds within which a bounded tool has answered; most take a millisecond."""


def worked(expression: str, digits: int = 400) -> str:
    began = time.monotonic()
    try:
        return calculator.work(expression, digits)
    except calculator.RefusedError as error:
        return f"refused: {error}"
    finally:
        assert time.monotonic() - began < SOON


# ---------------------------------------------------------------- the calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("346501+77213", "423714"),
        ("0.1+0.2", "0.3"),
        ("1/3", "0.333333333333 (1/3)"),
        ("-7/2", "-3.5"),
        ("-7//2", "-4"),
        ("-7%3", "2"),
        ("2^10", "1024"),
        ("2**-3", "0.125"),
        ("3×4÷2−1", "5"),
        ("sqrt(9/4)", "1.5"),
        ("sqrt(2)", "1.414213562373"),
        ("gcd(12,18)+lcm(4,6)", "18"),
        ("factorial(20)", "2432902008176640000"),
        ("round(2.5)+floor(-0.5)+ceil(0.2)", "2"),
        ("max(1, 2, 3) - min(4, 5) + abs(-1)", "0"),
        ("1e3+1_000", "2000"),
        ("(-1)**99999999999999", "-1"),
        ("10**399", "1" + "0" * 399),
        (" 1 + 1 ", "2"),
    ],
)
def test_it_works_exactly(expression: str, value: str) -> None:
    assert worked(expression) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("9**9**9", "more than 400 digits"),
        ("7**30000000", "more than 400 digits"),
        ("2**(10**10)", "more than 400 digits"),
        ("(1/3)**999999999", "more than 400 digits"),
        ("10**400", "more than 400 digits"),
        ("1e999999999", "more than 400 digits"),
        ("1e-999999999", "more than 400 digits"),
        ("factorial(10**8)", "more than 400 digits"),
        ("factorial(-1)", "negative"),
        ("9" * 401, "more than 400 digits"),
        ("*".join(["9" * 90] * 6), "more than 400 digits"),
        ("lcm(" + ",".join(str(10**9 + at) for at in range(80)) + ")", "more than 400 digits"),
        ("1/0", "division by zero"),
        ("5%0", "division by zero"),
        ("0**-1", "division by zero"),
        ("2**0.5", "no whole number"),
        ("sqrt(-1)", "negative"),
        ("", "empty"),
        ("   ", "empty"),
        ("1+" * 600 + "1", "longer than"),
        ("(" * 450 + "1" + ")" * 450, "not an arithmetic"),
        ("1,000", "only numbers"),
        ("__import__('os').system('true')", "only numbers"),
        ("(lambda: 1)()", "only numbers"),
        ("[1 for _ in range(9)]", "only numbers"),
        ("'a'*99999999999", "only numbers"),
        ("True+1", "only numbers"),
        ("1j*1j", "only numbers"),
        ("x", "only numbers"),
        ("0x10", "decimal"),
        ("２+２", "not an arithmetic"),
        ("1+\x00", "not an arithmetic"),
        ("sqrt()", "takes one number"),
        ("sqrt(1,2)", "takes one number"),
        ("gcd(1/2)", "not a whole number"),
        ("gcd(*[1])", "only numbers"),
        ("1 ** 2 ** \ud800", "not an arithmetic"),
    ],
)
def test_it_refuses_in_words_and_at_once(expression: str, why: str) -> None:
    told = worked(expression)
    assert told.startswith("refused: ") and why in told


def test_many_signs_are_a_number_or_refused() -> None:
    assert worked("-" * 900 + "1") == "1"


@given(st.text(alphabet="0123456789+-*/%.()e^ ,x", max_size=60))
@settings(max_examples=300, deadline=None)
def test_it_never_raises_and_always_ends(expression: str) -> None:
    assert isinstance(worked(expression, 60), str)


def test_random_expressions_are_pythons_own() -> None:
    """The oracle is Python on fractions written out, which the calculator never runs."""
    draws = random.Random(0)

    def grown(depth: int) -> str:
        if depth == 0:
            return f"Fraction({draws.randrange(1, 50)})"
        left, right = grown(depth - 1), grown(draws.randrange(depth))
        return f"({left}{draws.choice(['+', '-', '*', '/', '//', '%'])}{right})"

    for _ in range(200):
        text = grown(3)
        try:
            value = Fraction(eval(text, {"Fraction": Fraction}))
        except ZeroDivisionError:
            assert "zero" in worked(text.replace("Fraction", ""))
            continue
        assert worked(text.replace("Fraction", "")) == calculator.shown(value)


# ---------------------------------------------------------------- calls

JSON = Syntax(Calls(), {"calculator": "expression", "search": "query"})
NAMED = Syntax(Calls(form="named"), {"calculator": "expression", "search": "query"})
PLAIN = Syntax(Calls(form="plain", open="(", close=")"), {"calculator": "expression"})


@pytest.mark.parametrize("syntax", [JSON, NAMED, PLAIN], ids=["json", "named", "plain"])
@pytest.mark.parametrize("argument", ["1+1", 'a "quoted" \\ word', "two\nlines", "ünïcödé ☃ 🜁"])
def test_what_is_written_is_read_back(syntax: Syntax, argument: str) -> None:
    assert syntax.find(f"I will ask. {syntax.written('calculator', argument)}") == Call("calculator", argument)


@pytest.mark.parametrize("syntax", [JSON, NAMED, PLAIN], ids=["json", "named", "plain"])
def test_a_turn_without_a_call_is_an_answer(syntax: Syntax) -> None:
    for text in ("", "#42", "</tool_call>", "a < b and b > c"):
        assert syntax.find(text) is None


def of_json(inside: str) -> str:
    return f"<tool_call>{inside}</tool_call>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>", "not closed"),
        ('<tool_call>{"name": "calculator", "argum', "not closed"),
        (of_json(""), "no json"),
        (of_json("1+1"), "no json"),
        (of_json("[1]"), "a call is"),
        (of_json("{"), "no json"),
        (of_json("[" * 5000), "no json"),
        (of_json("x" * 30_000), "longer than"),
        (of_json('{"name": "calculator"}'), "a call is"),
        (of_json('{"name": "calculator", "arguments": {"expression": "1"}, "id": 1}'), "a call is"),
        (of_json('{"name": "shell", "arguments": {"code": "1"}}'), "no such tool"),
        (of_json('{"name": ["calculator"], "arguments": {}}'), "no such tool"),
        (of_json('{"name": "calculator", "arguments": "1+1"}'), "the arguments of calculator"),
        (of_json('{"name": "calculator", "arguments": {"expression": 3}}'), "the arguments of calculator"),
        (of_json('{"name": "calculator", "arguments": {"query": "1"}}'), "the arguments of calculator"),
        (of_json('{"name": "calculator", "arguments": {"expression": " "}}'), "empty"),
        (of_json('<tool_call>{"name": "calculator"}'), "inside a call"),
        (of_json('{"name": "calculator", "arguments": {"expression": "1"}}') + " so 1", "nothing may follow"),
        (2 * of_json('{"name": "calculator", "arguments": {"expression": "1"}}'), "nothing may follow"),
    ],
)
def test_a_malformed_call_is_told_why(text: str, why: str) -> None:
    found = JSON.find(text)
    assert isinstance(found, Malformed) and why in found.reason


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_reading_a_call_never_raises(text: str) -> None:
    for syntax in (JSON, NAMED, PLAIN):
        syntax.find(text)
        syntax.find(f"<tool_call>{text}</tool_call>")


def test_of_several_calls_the_first_is_meant() -> None:
    assert NAMED.find("<search>cats</search>") == Call("search", "cats")
    assert isinstance(NAMED.find("<calculator>1</search>"), Malformed)


# ---------------------------------------------------------------- tools


def tools(*kinds: object, **more: object) -> ToolsEnvironment:
    return TypeAdapter(ToolsEnvironment).validate_python({"tools": list(kinds), **more})


def said(own: ToolsEnvironment, text: str) -> str:
    episode = open_environment(own)()
    episode.start(Task("q"))
    turn = episode.step(text)
    assert turn.reward is None and not turn.failed
    return "answered" if turn.done else turn.observation


def call(name: str, **arguments: str) -> str:
    return of_json(json.dumps({"name": name, "arguments": arguments}))


def test_a_tool_answers_and_an_answer_ends() -> None:
    own = tools("calculator")
    assert said(own, call("calculator", expression="2**10")) == "1024"
    assert said(own, call("calculator", expression="1/0")) == "error: division by zero"
    assert said(own, "<tool_call>{}") == "error: the call is not closed with </tool_call>"
    assert said(own, "it is 1024") == "answered"
    assert stops(own) == ("</tool_call>",)


def test_tools_are_named_once_and_plain_calls_name_none() -> None:
    with pytest.raises(ValidationError, match="stands there twice"):
        tools("calculator", "calculator")
    with pytest.raises(ValidationError, match="plain calls name no tool"):
        tools("calculator", {"kind": "search", "path": "x"}, calls={"form": "plain"})
    with pytest.raises(ValidationError):
        tools("shell")
    assert TypeAdapter(Environment).validate_python({"kind": "tools"}).tools[0].kind == "calculator"


# ---------------------------------------------------------------- what a model reads


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(), tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(chat_folder(tmp_path_factory.mktemp("chat")))


def test_a_flood_is_cut_to_its_tokens_and_the_frame_stays(tiny: Tokenizer) -> None:
    own = tools("calculator", observation_tokens=8, calls={"before": "=", "after": ";"})
    frame = Framing(tiny, own)
    assert tiny.decode(frame.tokens("12345678", ended=False)) == "=12345678;"
    began = time.monotonic()
    assert tiny.decode(frame.tokens("9" * 2_000_000, ended=False)) == "=99999...;"
    assert time.monotonic() - began < SOON
    assert len(cut(tiny, "9" * 100, 2)) <= 2


def test_characters_that_the_model_lacks_are_written_otherwise(tiny: Tokenizer) -> None:
    assert written(tiny, "A{1}\t☃Ä \ud800", 99) == "a?1???? ?"
    assert written(tiny, "a<eos>b<pad>", 99) == "a? eos?b? pad?"
    retry = Framing(tiny, RetryEnvironment())
    assert tiny.decode(retry.tokens("Check it. ☃!", ended=True)) == "check it. ??"


def test_no_tool_can_end_a_turn_or_speak_as_the_user(chat: Tokenizer) -> None:
    special = [str(one.content) for one in chat.codec.get_added_tokens_decoder().values()]
    hostile = "".join(special) + special[0][:2] + special[-1] + special[0][2:]
    harmless = written(chat, hostile, 10_000)
    ids = chat.encode(harmless)
    assert not {int(one) for one in ids} & set(chat.codec.get_added_tokens_decoder())
    own = tools("calculator", framing="inline")
    framed = Framing(chat, own).tokens(hostile, ended=False)
    assert not {int(one) for one in framed} & set(chat.codec.get_added_tokens_decoder())


def test_an_observation_is_a_users_turn_or_stands_inside_the_models(chat: Tokenizer) -> None:
    said_ = "3"
    turned = chat.decode(Framing(chat, tools("calculator")).tokens(said_, ended=False), skip_special=False)
    inline = chat.decode(Framing(chat, tools("calculator", framing="inline")).tokens(said_, ended=False))
    assert inline == "<tool_response>\n3\n</tool_response>"
    assert inline in turned and turned != inline and "user" in turned and "assistant" in turned


# ---------------------------------------------------------------- self-correction


def test_retry_gives_each_answer_its_verdict_and_asks_again() -> None:
    own = RetryEnvironment(turns=3, request="that is {verdict}. again:")
    episode = open_environment(own, build({"kind": "answer"}))()
    episode.start(Task("1+1=", "2"))
    first, second, third = (episode.step(text) for text in ("#3", "#2", "nothing"))
    assert [first.reward, second.reward, third.reward] == [0.0, 1.0, 0.0]
    assert [first.done, second.done, third.done] == [False, False, True]
    assert [first.observation, second.observation] == ["that is wrong. again:", "that is right. again:"]


def test_retry_ends_at_a_right_answer_when_it_is_told_to() -> None:
    episode = open_environment(RetryEnvironment(turns=3, until="passed"), build({"kind": "answer"}))()
    episode.start(Task("1+1=", "2"))
    assert not episode.step("#3").done
    assert episode.step("#2").done


def test_an_answer_that_nobody_can_judge_has_no_reward() -> None:
    episode = open_environment(RetryEnvironment(), build({"kind": "answer"}))()
    episode.start(Task("1+1=", None))
    turn = episode.step("#2")
    assert turn.status == "error" and not turn.done and not turn.failed


# ---------------------------------------------------------------- the page


def test_the_pages_examples_are_what_they_say(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    own = TypeAdapter(Environment).validate_python(yaml.safe_load(blocks["yaml"])["environment"])
    assert [one.kind for one in own.tools] == ["calculator", "interpreter", "search"]
    (tmp_path / "guess.py").write_text(blocks["python"], encoding="utf-8")
    episode = open_environment(CustomEnvironment(path=str(tmp_path / "guess.py"), name="Guess"))()
    episode.start(Task("guess:", "7"))
    turns = [episode.step(text) for text in ("3", "9", "7")]
    assert [turn.observation for turn in turns] == ["higher", "lower", ""]
    assert [turn.reward for turn in turns] == [0.0, 0.0, 1.0] and turns[2].done and turns[2].passed


def test_a_file_without_the_class_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="no class Game"):
        open_environment(CustomEnvironment(path=str(tmp_path / "empty.py"), name="Game"))
    with pytest.raises(ValueError, match="no such Python file"):
        open_environment(CustomEnvironment(path=str(tmp_path / "absent.py"), name="Game"))
