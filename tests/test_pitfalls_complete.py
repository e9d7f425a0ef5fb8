"""Every pitfall of the method catalogue has a test that shows it: test_pitfall_01 to test_pitfall_25."""

import re
from pathlib import Path

PITFALLS = range(1, 26)


def test_each_has_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    shown = {int(number) for number in re.findall(r"^(?:async )?def test_pitfall_(\d+)_", text, re.MULTILINE)}
    assert sorted(set(PITFALLS) - shown) == []
