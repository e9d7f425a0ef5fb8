"""Length, repetition, tags and language: values against independent counts, and no text makes one raise or crawl."""

import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import ValidationError

import verifiers
from verifiers import Item, Status
from verifiers.kinds import compares
from verifiers.language import share, split
from verifiers.prose import prose
from verifiers.repetition import repeated, runs
from verifiers.scripts import WRITTEN_IN
from verifiers.words import words

ANYTHING = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF), max_size=20),
    st.text(alphabet="ab <>/think`$\\()[]{}.\n中文あア한яα0_'", max_size=200),
    st.builds(
        lambda unit, times: unit * times,
        st.sampled_from(["a", "\\(", "```", "$ ", "<think>", "中", "haha ", "\n", "a. ", "<a", "\\begin{"]),
        st.integers(1, 3000),
    ),
)
EACH = {
    "length": {"kind": "length", "least": 3, "most": 8, "margin": 5.0},
    "repetition": {"kind": "repetition", "ngram": 3, "run": 16},
    "tags": {"kind": "tags"},
    "language": {"kind": "language", "language": "en", "among": ["en", "de", "zh"]},
}


@pytest.mark.parametrize("kind", EACH)
def test_any_text_has_the_same_finite_verdict_each_time(kind):
    built = verifiers.build(EACH[kind])

    @given(ANYTHING)
    @settings(max_examples=150, deadline=None)
    def holds(response):
        score, again = built.score(response, response, None), built.score(response, response, None)
        assert score.status == Status.OK
        assert 0 <= score.value <= 1
        assert (score.value, score.passed, score.reason) == (again.value, again.passed, again.reason)
        assert bool(score.reason) or score.value == 1
        score.reason.encode()

    holds()


def crawls(kind, unit, size):
    began = time.monotonic()
    score = verifiers.build(EACH[kind]).score("", unit * (size // len(unit)), None)
    assert score.status == Status.OK
    return time.monotonic() - began > 30


@pytest.mark.parametrize("kind", EACH)
def test_a_long_text_takes_no_long_time(kind):
    assert not any(crawls(kind, unit, 200_000) for unit in ("\\(", "`", "a "))


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize(
    "unit", ["a ", "a", "中", "\\(", "`", "$ ", "<a", "\\begin{", "<think>", "\n", "x = 1. ", "```a\n", "$a$", "haha"]
)
def test_a_million_characters_take_seconds(kind, unit):
    assert not crawls(kind, unit, 1_000_000)


# ---------------------------------------------------------------- length


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" - \n", 0),
        ("It's 3.14, a well-known number", 5),
        ("x=1", 1),
        ("中文和GPU", 4),
        ("中文，好。", 3),
        ("สวัสดี", 4),
        ("a\u0301 b", 2),
    ],
)
def test_words_are_those_that_a_reader_counts(text, count):
    assert words(text) == count


def length(**more):
    return verifiers.build({"kind": "length", "unit": "characters", **more})


@given(st.integers(0, 300), st.integers(1, 150), st.integers(1, 100))
def test_most_and_margin_are_daps_overlong_punishment(response, soft, cache):
    longest = soft + cache
    if response <= longest - cache:
        punishment = 0.0
    elif response <= longest:
        punishment = ((longest - cache) - response) / cache
    else:
        punishment = -1.0
    score = length(most=longest - cache, margin=float(cache)).score("", "x" * response, None)
    assert score.value == pytest.approx(1 + punishment)
    assert score.passed == (score.value > 0)


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.1, 0.01, 0.003]))
def test_one_target_is_l1s_distance(response, target, alpha):
    expected = max(0.0, 1 - alpha * abs(target - response))
    for built, reference in ((length(least=target, most=target, margin=1 / alpha), None),
                             (length(against="reference", margin=1 / alpha), target)):  # fmt: skip
        assert built.score("", "x" * response, reference).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "value"),
    [(4, 1.0), (3, 0.0), ({"least": 4}, 1.0), ({"least": 5}, 0.0), ({"most": 4}, 1.0), ({"least": 1, "most": 3}, 0.0)],
)
def test_a_prompt_may_have_bounds_of_its_own(reference, value):
    score = length(against="reference").score("", "four", reference)
    assert (score.value, score.passed) == (value, value == 1)
    assert ("asked" in score.reason) == (value == 0)


@pytest.mark.parametrize(
    "reference", [None, True, "4", {}, {"least": None}, {"most": "4"}, {"most": 4, "x": 1}, {"least": 3, "most": 2}, -1]
)
def test_a_reference_that_is_no_length_gives_no_verdict(reference):
    score = length(against="reference").score("", "four", reference)
    assert (score.status, score.passed) == (Status.ERROR, None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=9))
def test_against_its_group_it_is_kimis_length_reward(drawn):
    built = length(against="group")
    items = [Item("", "x" * size, None, group) for group, size in drawn]
    for (group, size), score in zip(drawn, built.score_many(items), strict=True):
        sizes = [other for name, other in drawn if name == group]
        low, high = min(sizes), max(sizes)
        reward = 0.5 - (size - low) / (high - low) if high > low else 0.0
        assert score.value == pytest.approx(reward + 0.5)
        assert score.passed is None


def test_only_a_comparing_length_needs_its_group_whole():
    assert compares(length(against="group").config)
    assert not compares(length(most=3).config)
    assert [s.value for s in length(against="group").score_many([Item("", "a", None), Item("", "bb", None)])] == [
        0.5
    ] * 2


@pytest.mark.parametrize("wrong", [{}, {"least": 3, "most": 2}, {"against": "group", "most": 2}, {"most": -1}])
def test_bounds_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        length(**wrong)


def test_lines_are_those_with_something_in_them():
    built = verifiers.build({"kind": "length", "unit": "lines", "most": 2})
    assert built.score("", "a\n\n \nb\n", None).passed
    assert not built.score("", "a\nb\r\nc", None).passed


# ---------------------------------------------------------------- repetition

LOOPING = st.lists(st.sampled_from(["a ", "bc", ".", "\n", "é ", "中"]), max_size=60).map("".join)


def slow_repeats(text, ngram):
    """Characters inside an n-gram of words that occurred before, by looking each up in a set."""
    spans = [m.span() for m in re.finditer(r"[一-鿿]|(?:(?![一-鿿])\w)+|[^\w\s]", text)]
    seen, marked = set(), set()
    for at in range(len(spans) - ngram + 1):
        gram = tuple(text[start:end] for start, end in spans[at : at + ngram])
        if gram in seen:
            marked |= set(range(spans[at][0], spans[at + ngram - 1][1]))
        seen.add(gram)
    return [at in marked for at in range(len(text))]


def slow_runs(text, least):
    """Characters inside a stretch of `least` or more that repeats with a period of at most 8, by trying every start."""
    marked = set()
    for start in range(len(text)):
        for period in range(1, 9):
            end = start + period
            while end < len(text) and text[end] == text[end - period]:
                end += 1
            if end - start >= least and end - start > period:
                marked |= set(range(start, min(end, len(text))))
    return [at in marked for at in range(len(text))]


@given(LOOPING, st.integers(2, 7))
def test_repeated_ngrams_are_those_found_one_by_one(text, ngram):
    assert repeated(text, ngram).tolist() == slow_repeats(text, ngram)


@given(LOOPING, st.integers(4, 20))
def test_runs_are_those_found_one_by_one(text, least):
    assert runs(text, least).tolist() == slow_runs(text, least)


@given(LOOPING.map(lambda text: text + "\n"), st.integers(2, 6))
def test_a_text_said_twice_never_repeats_less(text, ngram):
    built = verifiers.build({"kind": "repetition", "ngram": ngram, "run": 16})
    once, twice, thrice = (built.score("", text * times, None).value for times in (1, 2, 3))
    assert thrice <= twice + 1e-12 and twice <= once + 1e-12
    if len(text.split()) >= ngram:
        assert twice < 1


@given(st.permutations([f"word{at}" for at in range(40)]))
def test_words_that_all_differ_do_not_repeat(order):
    assert verifiers.build({"kind": "repetition"}).score("", " ".join(order), None).value == 1


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("I will think about it again, step by step, until it is clear what the sum of the two is.\n" * 50, 0.97),
        ("Wait.\n" * 200, 0.95),
        ("中" * 500, 0.9),
        ("haha" * 100, 1.0),
        ("\n" * 300, 1.0),
    ],
)
def test_loops_are_found(text, share):
    score = verifiers.build({"kind": "repetition"}).score("", text, None)
    assert score.value <= 1 - share + 1e-9
    assert not score.passed and "repeats" in score.reason


# ---------------------------------------------------------------- tags


def shaped(response, alone=True, **more):
    return verifiers.build({"kind": "tags", "alone": alone, **more}).score("", response, None)


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("<think>a</think><answer>b</answer>", ""),
        (" <think>a\n</think>\n\n<answer>b</answer>\n", ""),
        ("x<think>a</think><answer>b</answer>", "text outside"),
        ("<think>a</think>x<answer>b</answer>", "text outside"),
        ("<think>a</think><answer>b</answer>x", "text outside"),
        ("<think> </think><answer>b</answer>", "<think> is empty"),
        ("<think>a</think><answer>b</answer><answer>b</answer>", "2 times"),
        ("<think>a</think>", "<answer> is missing"),
        ("<answer>b</answer><think>a</think>", "out of order"),
        ("<think>a<answer>b</answer></think>", "out of order"),
        ("</think>a<think><answer>b</answer>", "out of order"),
        ("", "missing"),
    ],
)
def test_tags_stand_once_in_order_and_alone(response, says):
    score = shaped(response)
    assert score.passed == (not says) and says in score.reason
    outside = re.fullmatch(r"(?s)\s*<think>.*\S.*</think>\s*<answer>.*\S.*</answer>\s*", response)
    assert score.passed == (outside is not None and response.count("<answer>") == 1)


def test_what_the_prompt_opened_is_not_opened_again():
    assert shaped("a</think><answer>b</answer>", opened=True).passed
    assert not shaped("<think>a</think><answer>b</answer>", opened=True).passed
    assert shaped("so <think>a</think> then <answer>b</answer>.", alone=False).passed


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "]), max_size=9).map("".join))
def test_tags_agree_with_a_pattern(response):
    once = all(response.count(mark) == 1 for mark in ("<think>", "</think>", "<answer>", "</answer>"))
    pattern = r"(?s)\s*<think>[^<]*\S[^<]*</think>\s*<answer>[^<]*\S[^<]*</answer>\s*"
    assert shaped(response).passed == (once and re.fullmatch(pattern, response) is not None)


@pytest.mark.parametrize("tags", [[], ["a", "a"], ["a b"], ["<a>"]])
def test_tags_that_cannot_be_are_refused(tags):
    with pytest.raises(ValidationError):
        shaped("", tags=tags)


# ---------------------------------------------------------------- language

SENTENCES = {
    "en": "First we add the two numbers, and then we divide the result by four to find the mean.",
    "de": "Zuerst addieren wir die beiden Zahlen, danach teilen wir das Ergebnis durch vier.",
    "fr": "D'abord on additionne les deux nombres, puis on divise le résultat par quatre.",
    "es": "Primero sumamos los dos números y luego dividimos el resultado entre cuatro.",
    "it": "Prima sommiamo i due numeri e poi dividiamo il risultato per quattro.",
    "pt": "Primeiro somamos os dois números e depois dividimos o resultado por quatro.",
    "ru": "Сначала мы складываем два числа, а затем делим результат на четыре.",
    "zh": "首先我们把这两个数字相加，然后把得到的结果除以四，就得到了平均值。",
    "ja": "まず二つの数字を足して、それから結果を四で割ると、平均値が得られます。",
    "ko": "먼저 두 수를 더한 다음 그 결과를 넷으로 나누면 평균을 구할 수 있습니다.",
    "ar": "أولا نجمع العددين ثم نقسم الناتج على أربعة لنحصل على المتوسط.",
    "hi": "पहले हम दोनों संख्याओं को जोड़ते हैं और फिर परिणाम को चार से भाग देते हैं।",
}


def spoken(response, language="en", prompt="", reference=None, **more):
    built = verifiers.build({"kind": "language", "language": language, **more})
    return built.score(prompt, response, reference)


@pytest.mark.parametrize("asked", SENTENCES)
def test_each_language_is_told_from_every_other(asked):
    values = {written: spoken(text, asked).value for written, text in SENTENCES.items()}
    assert values.pop(asked) == 1
    assert max(values.values()) < 0.5, values  # the Han characters of Japanese could be Chinese
    assert spoken(SENTENCES[asked], "prompt", prompt=SENTENCES[asked]).passed
    assert spoken(SENTENCES[asked], "reference", reference=asked).passed
    assert spoken(SENTENCES[asked], "one").passed


def test_every_language_of_the_model_has_its_scripts():
    assert set(LanguageIdentifier.from_model_file(MODEL_FILE).labels) - set(WRITTEN_IN) == {"zxx"}  # no language
    assert set(WRITTEN_IN) <= set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)


@pytest.mark.parametrize(
    "response", ["", "42", r"\boxed{7}", "$x = 3$", "```python\nprint('Hallo Welt, wie geht es')\n```"]
)
def test_what_has_no_words_is_in_no_wrong_language(response):
    assert spoken(response).passed and spoken(response).value == 1
    assert not spoken(response, least=1).passed


def test_a_chinese_sentence_in_an_english_answer_counts_by_its_words():
    text = f"{SENTENCES['en']} {SENTENCES['zh']} {SENTENCES['en']}"
    own = 2 * (len(re.findall(r"\w+", SENTENCES["en"])))
    foreign = len(re.findall(r"\w", SENTENCES["zh"]))
    score = spoken(text)
    assert score.value == pytest.approx(own / (own + foreign))
    assert not score.passed and "not en" in score.reason
    assert spoken(text, share=0.4).passed
    assert not spoken(text, "one").passed


@given(st.lists(st.sampled_from(sorted(SENTENCES)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_more_of_the_language_never_lowers_the_share(order):
    text = "\n".join(SENTENCES[one] for one in order)
    more = f"{text}\n{SENTENCES['en']}"
    among = ("de", "en", "ru", "zh")
    before, after = (share(split(one), "en", among) for one in (text, more))
    assert after.value >= before.value - 1e-12
    assert after.words == before.words + share(split(SENTENCES["en"]), "en", among).words


def test_a_short_answer_is_taken_for_the_language_unless_its_script_says_no():
    assert spoken("Ja, vier.").value == 1
    assert spoken("答案是四").value == 0
    assert spoken("Да").value == 0


def test_code_and_formulas_do_not_count():
    hidden = ["`return ergebnis`", "$\\text{wenn } x > 0$", "\\[ \\sum_{i} \\]", "\\begin{align*} a &= b \\end{align*}"]
    hidden += ["```\nfür jede zahl in der liste\n```", "https://example.org/straße", "<think>", "x_1", "α", "utf8"]
    text = f"{SENTENCES['en']}\n" + "\n".join(hidden)
    assert share(split(text), "en", ("de", "en")) == share(split(SENTENCES["en"]), "en", ("de", "en"))


def test_what_is_opened_and_never_closed_hides_nothing():
    for mark in ("```\n", "`", "$", "\\(", "\\[", "$$", "\\begin{align}"):
        assert spoken(f"{SENTENCES['en']} {mark}{SENTENCES['de']} {SENTENCES['de']}").value < 0.6, mark
    assert prose("$5 or\nmore, `or\nless` $6") == "$5 or\nmore, `or\nless` $6"  # nothing is closed in its line


@given(ANYTHING)
def test_prose_is_cut_from_the_text(text):
    left = iter(text)
    assert all(letter in left for letter in prose(text) if letter != " ")  # in order, nothing added


def test_a_prompt_that_shows_no_language_gives_no_verdict():
    score = spoken("Yes.", "prompt", prompt="2 + 2 = ?")
    assert (score.status, score.passed) == (Status.ERROR, None) and math.isnan(score.value)
    assert spoken("Yes.", "reference", reference="english").status == Status.ERROR
    both = "So the other numbers always become smaller again. Also werden die anderen Zahlen immer wieder kleiner."
    assert spoken("Yes.", "prompt", prompt=both).status == Status.ERROR


@pytest.mark.parametrize(
    "wrong", [{"language": "english"}, {"language": "en", "among": ["xx"]}, {"language": "one", "among": []}]
)
def test_an_unknown_language_is_refused(wrong):
    with pytest.raises(ValidationError):
        verifiers.build({"kind": "language", **wrong})
