"""Hand-ins in as many styles, out of hand_ins.txt: right ones pass, wrong ones are named, whatever stands around them.

A head there says ``=== which | task | file or notebook | what is passed over, nothing, or the wrong turn``.
"""

import re
from pathlib import Path

import pytest
import styles

from minisink.teaching.grading import check_source
from minisink.teaching.report import passed_over
from minisink.teaching.sandbox import Sandbox
from minisink.teaching.source import Source, as_python, as_python_file

TEXT = (Path(__file__).parent / "hand_ins.txt").read_text(encoding="utf-8")
HEADS = re.findall(r"^=== (.*?) \| (.*?) \| (.*?) \| (.*)\n", TEXT, re.M)
CODE = re.split(r"^===.*\n", TEXT, flags=re.M)[1:]
HAND_INS = {which: (*about, code) for (which, *about), code in zip(HEADS, CODE, strict=True)}
PARTS = styles.LISTS[: styles.LISTS.index("def step")]


@pytest.mark.slow
@pytest.mark.parametrize("which", HAND_INS)
def test_a_hand_in_comes_out_right(which):
    name, kind, said, code = HAND_INS[which]
    code = code.replace("{parts}", PARTS)
    if which.startswith("lines that end as on Windows"):
        code = code.replace("\n", "\r\n")
    text = [as_python(cell) for cell in code.split("--- cell\n")] if kind == "notebook" else as_python_file(code)
    sandbox = Sandbox(Source("work", text, kind == "notebook"), 20)
    (row,) = check_source(sandbox, [name])
    over = [line.partition(" was")[0] for line in passed_over(sandbox.over)]
    if said == "nothing" or re.match(r"(cell \d+, )?line \d", said):
        assert (row["status"], "; ".join(over) or "nothing") == ("passed", said), row["message"]
    else:
        assert row["status"] == "failed" and str(row["diagnosis"]).startswith(said), row


def test_there_are_thirty_and_more_and_no_two_alike():
    assert len(HAND_INS) == len(HEADS) == len(CODE) >= 30
