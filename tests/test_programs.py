"""Programs: what they print or return is compared outside; a reason never says what was expected."""

import math
import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verifiers
from verifiers import Item, Status
from verifiers.comparison import same_text, same_value
from verifiers.fenced import blocks

ADD = {"kind": "function", "name": "add", "cases": [{"args": [1, 2], "returns": 3}, {"args": [-4, 9], "returns": 5}]}
SUM = {"kind": "stdin", "cases": [{"input": "1 2\n", "output": "3\n"}, {"input": "20 22", "output": "42"}]}
FENCE = "`" * 3


def fenced(source, language="python"):
    return f"Here it is.\n\n{FENCE}{language}\n{source}\n{FENCE}\nDone."


@pytest.fixture(scope="module")
def programs():
    return verifiers.build({"kind": "program", "timeout": 3.0})


def judge(programs, source, reference):
    score = programs.score("", fenced(source), reference)
    assert score.status == Status.OK, score
    return score


# ---------------------------------------------------------------- right and wrong


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("def add(a, b):\n    return a + b", ADD),
        ("add = lambda a, b: a + b", ADD),
        ("def add(a, b):\n    print('noise', '{}')\n    return a + b", ADD),
        ("if __name__ == '__main__':\n    1 / 0\ndef add(a, b):\n    return a + b", ADD),
        ("class Solution:\n    def add(self, a, b):\n        return a + b", {**ADD, "name": "Solution.add"}),
        ("print(sum(map(int, input().split())))", SUM),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())), ' \\n\\n')", SUM),
    ],
)
def test_right(programs, source, reference):
    score = judge(programs, source, reference)
    assert (score.value, score.passed, score.reason) == (1.0, True, "")
    assert score.seconds > 0 and score.scorer == "program" and score.version


@pytest.mark.parametrize(
    ("source", "reference", "reason"),
    [
        ("def add(a, b):\n    return a - b", ADD, "test 1 of 2: another result"),
        ("def add(a, b):\n    return 3", ADD, "test 2 of 2: another result"),
        ("def add(a, b):\n    return str(a + b)", ADD, "test 1 of 2: another result"),
        ("def add(a, b):\n    return True", ADD, "test 1 of 2: another result"),
        ("def plus(a, b):\n    return a + b", ADD, "NameError: the program defines no add"),
        ("def add(a, b)\n    return a + b", ADD, "SyntaxError"),
        ("def add(a, b):\n    return {a, b}", ADD, "returned a set"),
        ("def add(a, b):\n    return add(a, b)", ADD, "RecursionError"),
        ("def add(a, b):\n    x = []\n    x.append(x)\n    return x", ADD, "RecursionError"),
        ("def add(a, b):\n    return 10 ** 10000", ADD, "ValueError"),
        ("def add(a, b):\n    return float('nan')", ADD, "another result"),
        ("print(3)", SUM, "test 2 of 2: another output"),
        ("print(1 / 0)", SUM, "ended with status 1 (ZeroDivisionError: division by zero)"),
        ("import sys\nsys.stdout.buffer.write(bytes([255]))", SUM, "printed bytes that are no text"),
    ],
)
def test_wrong_and_why(programs, source, reference, reason):
    score = judge(programs, source, reference)
    assert (score.value, score.passed) == (0.0, False)
    assert reason in score.reason


def test_too_slow_is_wrong_and_bounded():
    programs = verifiers.build({"kind": "program", "timeout": 0.5})
    began = time.monotonic()
    score = programs.score("", fenced("import time\ntime.sleep(60)"), SUM)
    assert time.monotonic() - began < 10
    assert (score.value, score.reason) == (0.0, "test 1 of 2: took too long")


def test_partial_credit_runs_every_test_and_constants_earn_their_share():
    programs = verifiers.build({"kind": "program", "partial": True})
    score = judge(programs, "def add(a, b):\n    return 5", ADD)
    assert (score.value, score.passed) == (0.5, False)
    assert judge(programs, "def add(a, b):\n    return a + b", ADD).value == 1.0


def test_no_reason_tells_what_was_expected(programs):
    secret = {"kind": "function", "name": "f", "cases": [{"args": [], "returns": "swordfish"}]}
    for source in ("def f(): return 1", "def f(): raise ValueError", "", "def f(): return 'sword'"):
        assert "swordfish" not in repr(judge(programs, source, secret))


def test_what_is_expected_never_enters(programs):
    """The program prints everything it can find; the expected word is not in it."""
    source = (
        "import gc, os, sys\n"
        "def f():\n"
        "    seen = [repr(one) for one in gc.get_objects() if isinstance(one, (dict, list, str, bytes))]\n"
        "    seen += [open('/job/' + name).read() for name in os.listdir('/job')]\n"
        "    seen += [repr(os.environ), repr(sys.argv)]\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        seen.append(repr(frame.f_locals) + repr(frame.f_globals))\n"
        "        frame = frame.f_back\n"
        "    import re\n"
        "    found = re.findall('sword' + '[a-z]+', ' '.join(seen))\n"
        "    return (found or ['nothing'])[0]\n"
    )
    secret = {"kind": "function", "name": "f", "cases": [{"args": ["swordless"], "returns": "swordfish"}]}
    harmless = {"kind": "function", "name": "f", "cases": [{"args": [], "returns": "nothing"}]}
    assert not judge(programs, source, secret).passed
    assert judge(programs, source, harmless).passed


# ---------------------------------------------------------------- unknown is unknown


@pytest.mark.parametrize(
    "reference",
    [None, "", "not json", {}, {"kind": "stdin"}, {"kind": "stdin", "cases": []}, {"kind": "pytest", "cases": [1]},
     {"kind": "function", "cases": [{"args": [], "returns": 1}]}, ["kind"], 7],
)  # fmt: skip
def test_a_reference_without_tests_is_no_pass(programs, reference):
    score = programs.score("", fenced("print(3)"), reference)
    assert (score.status, score.passed) == (Status.ERROR, None) and math.isnan(score.value)
    assert score.reason.startswith("reference")


def test_a_reference_as_json_text(programs):
    import json

    assert programs.score("", fenced("print(sum(map(int, input().split())))"), json.dumps(SUM)).passed


def test_without_a_sandbox_it_refuses():
    """A machine without nsjail's binary: the verifier is not built, and says what to do."""
    source = (
        "import verifiers, verifiers.sandbox, verifiers.sandbox_probe\n"
        "verifiers.sandbox.FORBIDDEN = 'no policy'\n"
        "try:\n verifiers.build({'kind': 'program'})\n"
        "except RuntimeError as error:\n print(error)\n"
        "print(verifiers.build({'kind': 'program', 'unsandboxed': True}).config.kind)"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    said, kind = ran.stdout.strip().split("\n")
    assert "no sandbox on this machine" in said and "unsandboxed: true" in said
    assert kind == "program"


def test_when_told_it_runs_without_one():
    programs = verifiers.build({"kind": "program", "unsandboxed": True, "timeout": 2.0})
    assert judge(programs, "def add(a, b):\n    return a + b", ADD).passed
    assert not judge(programs, "def add(a, b):\n    return a", ADD).passed
    assert judge(programs, "print(sum(map(int, input().split())))", SUM).passed


def test_tests_that_do_not_fit_the_budget_leave_it_unknown():
    many = {"kind": "stdin", "cases": [{"input": "", "output": "1"}] * 50}
    programs = verifiers.build({"kind": "program", "budget": 0.5})
    score = programs.score("", fenced("import time\ntime.sleep(0.1)\nprint(1)"), many)
    assert score.status == Status.TIMEOUT and "of 50 tests ran in time" in score.reason


def test_a_batch_keeps_order_and_ends_in_time():
    programs = verifiers.build({"kind": "program", "timeout": 1.0, "workers": 2})
    right, wrong = fenced("def add(a, b):\n    return a + b"), fenced("def add(a, b):\n    while True: pass")
    items = [Item("", right if at % 4 else wrong, ADD) for at in range(8)]
    scores = programs.score_many(items)
    assert [score.passed for score in scores] == [bool(at % 4) for at in range(8)]
    late = programs.score_many([Item("", wrong, ADD)] * 6, seconds=0.5)
    assert {score.status for score in late[2:]} == {Status.TIMEOUT}


# ---------------------------------------------------------------- other languages


@pytest.mark.skipif(shutil.which("g++", path="/usr/bin") is None, reason="no C++ compiler in /usr/bin")
def test_a_compiled_language():
    build = ["g++", "-O1", "-o", "program", "main.cpp"]
    programs = verifiers.build({"kind": "program", "file": "main.cpp", "build": build, "run": ["./program"]})
    source = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }"
    assert judge(programs, source, SUM).passed
    assert "does not build" in judge(programs, "int main() { return x; }", SUM).reason


def test_a_shell_script():
    programs = verifiers.build({"kind": "program", "file": "main.sh", "run": ["sh", "main.sh"]})
    assert judge(programs, "read a b; echo $((a + b))", SUM).passed


def test_a_command_that_the_machine_lacks_is_refused_at_once():
    with pytest.raises(ValueError, match="there is no 'cobol9000'"):
        verifiers.build({"kind": "program", "file": "main.cob", "run": ["cobol9000", "main.cob"]})


@pytest.mark.parametrize("keys", [{"file": "a/b.py"}, {"file": ".."}, {"file": "main.js"}, {"timeout": 0}])
def test_a_config_that_cannot_be_meant(keys):
    with pytest.raises(ValueError, match=r"file|run|timeout"):
        verifiers.build({"kind": "program", **keys})


# ---------------------------------------------------------------- which block


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("no block", []),
        (f"{FENCE}python\nprint(1)\n{FENCE}", ["print(1)"]),
        (f"{FENCE}\na\n{FENCE}\ntext\n{FENCE}js\nb\n{FENCE}", ["a", "b"]),
        (f"{FENCE}\nnever closed", []),
        (f"{FENCE}\nx = '''\n{FENCE}'''\n{FENCE}", ["x = '''\n```'''"]),
        (f"`{FENCE}\na\n{FENCE}\nb\n`{FENCE}", [f"a\n{FENCE}\nb"]),
        ("~~~py\na\n```\nb\n~~~", ["a\n```\nb"]),
        (f"    {FENCE}\nindented\n    {FENCE}", []),
        (f"{FENCE} inline `code` {FENCE}\nx", []),
        (f"{FENCE}python\r\nprint(1)\r\n{FENCE}\r\n", ["print(1)\r"]),
    ],
)
def test_blocks_are_commonmarks(response, found):
    assert [one.text for one in blocks(response)] == found


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="`~ \npython", max_size=200), st.text(alphabet="ab\n ", max_size=40))
def test_a_closed_block_after_anything_closed_is_found(before, source):
    response = f"{before}\n{'`' * 200}\n{'~' * 200}\n{FENCE}\n{source}\n{FENCE}"
    assert all(isinstance(one.text, str) for one in blocks(response))
    assert blocks(f"{FENCE}\n{source}\n{FENCE}")[-1].text == source


def test_a_huge_response_takes_linear_time():
    began = time.monotonic()
    assert blocks(f"{FENCE}\n{FENCE}\n" * 200_000)[-1].text == ""
    assert time.monotonic() - began < 20


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("3", "3\n", True), ("3\n\n", "3", True), ("3 ", "3", True), (" 3", "3", False), ("3\n4", "3\n4\n", True),
        ("3\n\n4", "3\n4", False), ("", "", True), ("3", "", False), ("0.30000000000000004", "0.3", True),
        ("0.31", "0.3", False), ("1000000001", "1000000000", False), ("1e0", "1.0", True), ("nan", "1.0", False),
        ("1.0", "1", False), ("a 0.5", "a 0.50", True), ("inf", "1.5", False), ("9" * 500, "1.5", False),
    ],
)  # fmt: skip
def test_text(got, expected, same):
    assert same_text(got, expected, 1e-9) is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1, True), (1.0, 1, True), (True, 1, False), (1, True, False), (0, False, False), (None, None, True),
        (None, 0, False), ("1", 1, False), ([1, 2], [1, 2], True), ([2, 1], [1, 2], False), ([1], [1, 2], False),
        ({"a": 1}, {"a": 1}, True), ({"a": 1, "b": 2}, {"a": 1}, False), ({"a": True}, {"a": 1}, False),
        (0.1 + 0.2, 0.3, True), (math.nan, 0.3, False), (math.inf, 0.3, False), (10**400, 0.3, False),
        ([], {}, False), ("é", "é", True), ([[1.5]], [[1.5 + 1e-12]], True), (10**400, 10**400, True),
    ],
)  # fmt: skip
def test_values(got, expected, same):
    assert same_value(got, expected, 1e-9) is same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
@settings(max_examples=300, deadline=None)
def test_a_value_is_itself_and_equality_is_pythons_without_its_mix_ups(one, other):
    assert same_value(one, one, 1e-9)
    if same_value(one, other, 0.0):
        assert one == other
