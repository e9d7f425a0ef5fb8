r"""What holds of every answer and reference: by hypothesis, with exact fractions and math-verify itself as oracles."""

import re
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import verifiers
from verifiers import Item, Status
from verifiers.config import MathVerifier
from verifiers.equivalence import Question, decide, equal
from verifiers.plain_numbers import read

OWN = MathVerifier()
FAST = settings(max_examples=150, deadline=None)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

INTEGERS = st.one_of(st.integers(-99, 99), st.integers(-(10**30), 10**30))
FRACTIONS = st.builds(Fraction, st.integers(-5000, 5000), st.integers(1, 400))


def grouped(value: int, separator: str) -> str:
    return f"{value:,}".replace(",", separator)


def ends(value: Fraction) -> bool:
    below = value.denominator
    return all((below := below // prime if below % prime == 0 else below) for _ in range(40) for prime in (2, 5)) and (
        below == 1
    )


def forms(value: Fraction, scale: int) -> list[str]:
    """Ways to write it, each exactly that."""
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    found = [
        f"{sign}{top * scale}/{bottom * scale}",
        rf"{sign}\frac{{{top * scale}}}{{{bottom * scale}}}",
        rf"\dfrac{{{sign}{top}}}{{{bottom}}}",
        rf"$x = {sign}\tfrac{{{top}}}{{{bottom}}}$",
    ]
    if bottom == 1:
        whole = sign + str(top)
        found += [whole, f"{whole}.0", f"{whole}.", f"({whole})", rf"{whole}\text{{ cm}}", f"${whole}$."]
        found += [sign + grouped(top, separator) for separator in (",", "{,}", r"\,", r",\!")]
        found += [rf"{whole}00 \times 10^{{-2}}", f"{whole}00e-2"]
    if top > bottom > 1:
        found += [
            rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}",
            f"{sign}{top // bottom} {top % bottom}/{bottom}",
        ]
    if ends(value):
        digits = 40
        decimal = str(value.numerator * 10**digits // value.denominator).lstrip("-").rjust(digits + 1, "0")
        found.append(f"{sign}{decimal[:-digits]}.{decimal[-digits:].rstrip('0') or '0'}")
        found.append(f"{found[-1]}00")
    return found


def verdict(answer: str, reference: str) -> bool:
    """Ours, without a worker."""
    found = decide(f"\\boxed{{{answer}}}", reference, OWN)
    assert not isinstance(found, Question), (answer, reference)
    assert found.status == Status.OK and found.passed is not None
    return found.passed


@FAST
@given(st.one_of(INTEGERS.map(Fraction), FRACTIONS), st.integers(2, 60), st.data())
def test_every_way_to_write_a_number_is_the_number(value, scale, data):
    reference, answer = (data.draw(st.sampled_from(forms(value, scale))) for _ in range(2))
    assert verdict(answer, reference)


@FAST
@given(st.one_of(INTEGERS.map(Fraction), FRACTIONS), st.one_of(INTEGERS.map(Fraction), FRACTIONS), st.data())
def test_another_number_never_passes(value, other, data):
    other = data.draw(st.sampled_from([other, value + 1, -value, value + Fraction(1, 10**9), value * 10, value / 100]))
    assume(other != value)
    reference = data.draw(st.sampled_from(forms(value, 3)))
    answer = data.draw(st.sampled_from(forms(other, 7)))
    assert not verdict(answer, reference)


@FAST
@given(FRACTIONS, st.integers(1, 30))
def test_a_decimal_that_breaks_off_is_no_fraction(value, places):
    assume(not ends(value))
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    answer = f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
    assert verdict(answer, f"{value.numerator}/{value.denominator}") == (places >= 12 and len(digits.lstrip("0")) >= 12)


@FAST
@given(st.integers(0, 99), st.text("0123456789", max_size=4), st.text("0123456789", min_size=1, max_size=4))
def test_a_repeating_decimal_is_the_limit_of_its_decimals(whole, fixed, again):
    number = read(rf"{whole}.{fixed}\overline{{{again}}}")
    assert number is not None
    long = Fraction(f"{whole}.{fixed}{again * 30}")
    assert 0 <= number.value - long < Fraction(1, 10 ** (len(fixed) + 30 * len(again) - 1))
    assert number.value.denominator < 10 ** (len(fixed) + len(again) + 1)


@SLOW
@given(
    st.one_of(st.integers(-2000, 2000).map(Fraction), FRACTIONS),
    st.one_of(st.integers(-2000, 2000).map(Fraction), FRACTIONS),
    st.booleans(),
    st.data(),
)
def test_plain_numbers_are_judged_as_math_verify_judges_them(value, other, same, data):
    """The oracle knows nothing of our grammar; it does not read every form in it."""
    unread = ("e-", "$", "cm", r"\,", r"\!")
    known = [form for form in forms(value, 3) if not any(part in form for part in unread) and not form.endswith(".")]
    reference = data.draw(st.sampled_from([form for form in known if " " not in form]))
    answers = [form for form in forms(value if same else other, 7) if not any(part in form for part in unread)]
    answer = data.draw(st.sampled_from([form for form in answers if not re.search(r"\.$|\d \d", form)]))
    assert verdict(answer, reference) == equal(answer, reference)


REFERENCES = [
    *("42", "1/2", r"\frac{3}{4}", "0.25", r"28\%", r"\$5", r"90^\circ", "3 cm", "5 million", r"0.\overline{3}"),
    *(r"2\sqrt{3}", r"\pi", "x^2+2x+1", "(1,2)", "1,2", r"\{1,2\}", "[1,2)", r"(-\infty,1)\cup(2,\infty)"),
    *(r"\begin{pmatrix}1\\2\end{pmatrix}", "x=3", "y=2x+1", "x^2+y^2=1", "x>3", r"-2 \le x \le 7", r"1 \pm \sqrt{19}"),
    *("1+2i", r"\text{yes}", "no solution", "DNE", r"\infty", r"\mathbb{R}", "B", "(C)", "204_5", "12:30"),
    *(r"\text{Evelyn}", "5!", r"\binom{4}{2}", "2^{10}", r"\log_2 3", "ab"),
]
ALIKE = [{"1,2", r"\{1,2\}"}, {"3 cm", "x=3"}]
"""Two of REFERENCES that are the same."""


@pytest.fixture(scope="module")
def verifier():
    made = verifiers.build({"kind": "math", "workers": 1, "timeout": 20.0})
    yield made
    made.close()


def test_a_reference_passes_itself_and_no_other_reference(verifier):
    rows = [(a, b) for at, a in enumerate(REFERENCES) for b in [*REFERENCES[at % 4 :: 4], a]]
    scores = verifier.score_many([Item("", f"\\boxed{{{answer}}}", reference) for answer, reference in rows])
    assert {score.status for score in scores} == {Status.OK}
    passed = {row for row, score in zip(rows, scores, strict=True) if score.passed}
    assert {row for row in passed if row[0] != row[1] and set(row) not in ALIKE} == set()
    assert {(one, one) for one in REFERENCES} <= passed


@pytest.mark.parametrize(
    "dressed", [r"${}$", r"$${}$$", r"\({}\)", r"\[ {} \]", "**{}**", "{}.", " {} ", r"\left{{}}{}\right."][:7]
)
def test_what_stands_round_an_answer_changes_nothing(verifier, dressed):
    items = [Item("", f"\\boxed{{{dressed.format(reference)}}}", reference) for reference in REFERENCES]
    assert [
        item.reference for item, score in zip(items, verifier.score_many(items), strict=True) if not score.passed
    ] == []


PIECES = st.sampled_from(
    [
        *"0123456789abxyz()[]{}.,;:=+-*/^_!%$|&<> \n\t",
        *(r"\frac", r"\sqrt", r"\text{", r"\left(", r"\right)", r"\cup", r"\infty", r"\pm", r"\overline{", r"\boxed{"),
        *(
            r"\{",
            r"\}",
            r"\\",
            r"\begin{pmatrix}",
            r"\end{pmatrix}",
            " and ",
            " or ",
            "cm",
            "^2",
            r"\times 10^",
            "million",
        ),
        *("(B)", r"\pmod{", r"^\circ", "\u00b2", "\u2212", "\u0660", "\u2460", "1,000", "1 1/2", "e5"),
    ]
)
SOUP = st.lists(PIECES, max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(SOUP, SOUP)
def test_no_text_makes_the_screens_raise(answer, reference):
    for response in (f"\\boxed{{{answer}}}", f"#### {answer}", answer):
        found = decide(response, reference, OWN)
        assert isinstance(found, Question) or found.value in (0.0, 1.0) or found.status == Status.ERROR


@SLOW
@given(SOUP, SOUP)
def test_no_text_makes_the_whole_verifier_raise(verifier, answer, reference):
    for known in (reference, "x^2", "42", r"\{1,2\}"):
        score = verifier.score("", f"\\boxed{{{answer}}}", known)
        assert score.value in (0.0, 1.0) or score.passed is None


SEEDS = [
    *(
        "1",
        "1,",
        "{",
        "}",
        "{1",
        "(",
        "1(",
        "a ",
        "ab ",
        "1 ",
        r"\text{",
        r"\ ",
        r"\frac",
        "^{",
        "2^",
        "=",
        "x=",
        "x=1,",
    ),
    *("{,}", "1,000", r",\!", "and ", "1\n", "\\", "_", "1_", "!", "{(", r"\boxed{", " ", "\t\n", ".", "$", "%", "A."),
    *(r"\sum", "- ", "m\u00b2", "1/", "(a,", r"\pmod{", "million ", "~", r"\frac{1}"),
]


@pytest.mark.parametrize("tail", ["", "1", "}", "x"])
def test_the_screens_take_no_time_whatever_repeats(tail):
    started = time.monotonic()
    for seed in SEEDS:
        text = (seed * 1000)[:999] + tail
        decide(f"\\boxed{{{text}}}", "x" * 600, OWN)
        decide("\\boxed{3}", text, OWN)
        decide(text * 100, "3", OWN)
    assert time.monotonic() - started < 60
