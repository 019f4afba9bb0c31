"""What a student handed in: which file is judged, what lies beside it, and what is passed over."""

import io
import json
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from minisink.teaching import gather
from minisink.teaching.grading import Grading, grade
from minisink.teaching.handin import hand_in

SURVIVORS = """
def survivors(n_slots, n_sinks, window):
    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
"""
SOFTMAX = (
    "import math\n\ndef softmax(x):\n    e = [math.exp(a - max(x)) for a in x]\n    return [a / sum(e) for a in e]\n"
)
STUB = "def {}(*args):\n    raise NotImplementedError\n"
BOTH = SURVIVORS + SOFTMAX


def laid(folder, files):
    """A folder with these files."""
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def zipped(path, files):
    """A zip with these files, their names as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(place, text)
    return path


def notebook(text):
    return json.dumps({"cells": [{"cell_type": "code", "source": text}]})


def statuses(work, *tasks):
    """Return the status of each task, and the files that were judged."""
    report = grade(work, Grading(tasks, seconds=20))
    return {row["task"]: row["status"] for row in report["tasks"]}, report["file"]


JUDGED = {
    "most tasks": ({"a.py": SOFTMAX, "b.py": BOTH}, "b.py"),
    "student.py": ({"a.py": BOTH, "student.py": BOTH}, "student.py"),
    "the higher up": ({"old/student.py": BOTH, "z.py": BOTH}, "z.py"),
    "not a stub": (
        {"student.py": STUB.format("softmax") + STUB.format("survivors"), "mine.ipynb": notebook(BOTH)},
        "mine.ipynb",
    ),
    "not its test": (
        {"hw.py": BOTH, "test_hw.py": "from hw import softmax, survivors\nfrom x import rotate\n"},
        "hw.py",
    ),
    "not minisink's": (
        {"hw.py": SOFTMAX, "minisink/teaching/reference.py": BOTH, "minisink/by_the_book.py": BOTH},
        "hw.py",
    ),
    "not a folder of tests": ({"hw.py": SOFTMAX, "tests/styles.py": BOTH, "testing.py": ""}, "hw.py"),
    "the one that imports": ({"main.py": "from parts import *\n", "parts.py": BOTH, "x.py": SOFTMAX}, "parts.py"),
    "a Mac's": ({"hw.PY": BOTH, "._hw.PY": BOTH * 2, "__MACOSX/x.py": BOTH, ".ipynb_checkpoints/hw.py": BOTH}, "hw.PY"),
    "a notebook": ({"hw.IPYNB": notebook(BOTH), "README.md": "x"}, "hw.IPYNB"),
    "downloaded as text": ({"hw.py.txt": BOTH}, "hw.py.txt"),
}


@pytest.mark.parametrize("case", JUDGED)
def test_one_file_is_judged(tmp_path, case):
    """Of a folder, of a zip of it, and of a zip that lies in a folder."""
    files, name = JUDGED[case]
    work = hand_in(laid(tmp_path / "folder", files))
    assert work.source.name == name and not [note for note in work.notes if "test_hw.py" in note]
    path = zipped(tmp_path / "work.ZIP", {f"hw/{place}": text for place, text in files.items()})
    assert hand_in(path).source.name == f"hw/{name}"
    os.mkdir(tmp_path / "again")
    path.rename(tmp_path / "again" / "work.zip")
    assert hand_in(tmp_path / "again").source.name == f"work/hw/{name}"


def test_what_lies_beside_it_can_be_imported_and_opened(tmp_path):
    """A module, a package, one in another folder, one in Latin-1, and a text."""
    files = {
        "src/student.py": "from helper import window_of\nfrom parts.sinks import is_sink\nfrom other import E\n"
        "n = int(open('n.txt').read())\n\ndef survivors(n_slots, n_sinks, window):\n"
        "    return [s for s in range(n_slots) if is_sink(s, n_sinks) or s >= n_slots - window * n * (E == '\\xe4')]\n",
        "src/helper.PY": "window_of = 1\n",
        "src/parts/__init__.py": "",
        "src/parts/sinks.py": "def is_sink(s, n):\n    return s < n\n",
        "lib/other.py": "E = 'ä'\n".encode("latin-1"),
        "src/n.txt": "1",
    }
    folder, in_zip = hand_in(laid(tmp_path / "a", files)), hand_in(zipped(tmp_path / "a.zip", files))
    assert folder == in_zip and statuses(in_zip, "survivors") == ({"survivors": "passed"}, "src/student.py")
    paths = [tmp_path / "a" / place for place in files if "parts" not in place]
    assert hand_in(*paths, tmp_path / "a" / "src").source.name == "student.py"


def test_a_package_is_no_hindrance(tmp_path):
    """Relative imports, of a module beside it, of one of the folder above, and from one module to the next."""
    files = {
        "hw/__init__.py": "",
        "hw/student.py": "from .helpers import keep\nfrom . import more as m\nfrom ..lib.one import one\n\n"
        "def survivors(n_slots, n_sinks, window):\n    return keep(n_slots, n_sinks * one, window * m.one)\n",
        "hw/helpers.py": "from .more import one\n\ndef keep(n_slots, n_sinks, window):\n"
        "    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window * one]\n",
        "hw/more.py": "one = 1\n",
        "lib/one.py": "from .two import one\n",
        "lib/two.py": "one = 1\n",
    }
    work = hand_in(laid(tmp_path, files))
    assert statuses(work, "survivors") == ({"survivors": "passed"}, "hw/student.py") and work.notes == ()


def test_a_single_file_has_beside_it_what_it_imports_and_no_more(tmp_path):
    laid(
        tmp_path,
        {"student.py": "from .one import *\n", "one.py": f"import two\n{SURVIVORS}", "two.py": "", "bob.py": BOTH},
    )
    work = hand_in(tmp_path / "student.py")
    assert set(work.beside) == {"student.py", "one.py", "two.py"}
    assert statuses(work, "survivors") == ({"survivors": "passed"}, "student.py")
    assert hand_in(tmp_path / "student.py", with_imports=False).beside == hand_in(tmp_path / "bob.py").beside == {}


def test_what_the_first_file_lacks_is_looked_for_in_the_others(tmp_path):
    """As where there is a notebook a lesson; a stub is not yet written, and what fails is not looked for."""
    files = {"1.ipynb": notebook(SOFTMAX), "2.ipynb": notebook(SURVIVORS), "3.ipynb": notebook("softmax1 = 1")}
    found = statuses(hand_in(laid(tmp_path / "a", files)), "softmax1", "survivors", "step")
    assert found == (
        {"softmax1": "failed", "survivors": "passed", "step": "missing"},
        "1.ipynb, 2.ipynb, 3.ipynb",
    )
    files = {"a.py": f"{SURVIVORS}\nsoftmax1 = softmax = 3\n", "b.py": SOFTMAX}
    assert statuses(hand_in(laid(tmp_path / "b", files)), "softmax") == ({"softmax": "failed"}, "a.py")


def test_a_class_that_is_taken_for_a_student_is_told(tmp_path):
    work = hand_in(laid(tmp_path, {f"{name}/hw.py": BOTH for name in ("ada", "bob", "cy", "dan", "eve")}))
    assert work.source.name == "ada/hw.py" and "--csv FILE grades one" in work.notes[0] and len(work.notes) == 5


def test_no_path_of_a_zip_leads_out_of_it(tmp_path):
    files = {"hw.py": BOTH}
    for place in ("../out.py", "/tmp/out.py", "a/../../out.py", "C:/out.py", "..\\out.py", "C:\\out.py"):
        files[place] = "out = 1\n"
    work = hand_in(zipped(tmp_path / "hw.zip", files))
    assert work.source.name == "hw.py" and work.beside == {} and len(work.notes) == len(files) - 1
    assert all("leads out of the zip" in note for note in work.notes)


def test_a_link_in_a_zip_or_a_folder_is_passed_over(tmp_path):
    link = zipfile.ZipInfo("secret.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "hw.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("hw.py", BOTH)
    assert hand_in(tmp_path / "hw.zip").notes == ("secret.py was skipped: a link",)
    if sys.platform == "win32":
        return
    laid(tmp_path / "a", {"hw.py": BOTH})
    os.symlink("/etc/passwd", tmp_path / "a" / "secret.py")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    os.mkfifo(tmp_path / "a" / "pipe.py")
    work = hand_in(tmp_path / "a")
    assert work.source.name == "hw.py" and work.beside == {}
    assert set(work.notes) == {
        f"{what} was skipped: {why}"
        for what, why in (("secret.py", "a link"), ("up", "a link"), ("pipe.py", "not a plain file"))
    }


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """Whatever size it says that it has; a source that is too large, and what is too large beside one."""
    monkeypatch.setattr(gather, "MOST_BYTES", 10_000)
    taken = []
    unpacked = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args: taken.append(len(raw := unpacked(*args))) or raw)
    path = tmp_path / "hw.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hw.py", BOTH)
        archive.writestr("data.bin", b"\0" * 5_000_000)
        archive.writestr("large.py", "#" * 5_000_000)
    assert set(hand_in(path).notes) == {f"{name} was skipped: too large" for name in ("data.bin", "large.py")}
    lied = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    path.write_bytes(lied)
    work = hand_in(path)
    assert work.source.name == "hw.py" and work.beside == {} and max(taken) <= 10_001


def test_a_broken_zip_in_a_folder_is_passed_over(tmp_path):
    """And a zip in a zip is a file."""
    (tmp_path / "hw").mkdir()
    inner = zipped(tmp_path / "hw" / "inner.zip", {"hw.py": BOTH, "deeper.zip": "x"})
    zipped(inner.parent / "broken.zip", {}).write_bytes(b"PK")
    work = hand_in(inner.parent)
    assert sorted(work.beside) == ["deeper.zip", "hw.py"]
    assert work.notes == ("broken.zip was skipped: not a zip that can be read (File is not a zip file)",)


def test_too_many_files_are_no_hand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "MOST_FILES", 10)
    files = {f"{i}.py": "" for i in range(11)}
    for path in (laid(tmp_path / "a", files), zipped(tmp_path / "a.zip", files)):
        with pytest.raises(ValueError, match="more than 10 files"):
            hand_in(path)


NOTHING = {
    "an empty folder": ({"a/b/": ""}, "it is empty"),
    "no code": ({"essay.pdf": "x", "._hw.py": "x"}, "it holds essay.pdf"),
    "a broken notebook": ({"hw.ipynb": "{}"}, "hw.ipynb was skipped: not a notebook of version 4"),
    "a broken zip": ({"hw.zip": "PK"}, "hw.zip was skipped: not a zip that can be read"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_found_says_what_was_looked_for(tmp_path, case):
    files, said = NOTHING[case]
    for place, text in files.items():
        if place.endswith("/"):
            (tmp_path / "hw" / place).mkdir(parents=True)
        else:
            laid(tmp_path / "hw", {place: text})
    with pytest.raises(ValueError, match="no .py file or notebook in it, not even in a zip") as caught:
        hand_in(tmp_path / "hw")
    assert said in str(caught.value) and str(tmp_path / "hw") in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_zip_costs_what_is_damaged(tmp_path):
    path = zipped(tmp_path / "hw.zip", {"hw.py": BOTH, "other.py": "x = 'here'\n"})
    path.write_bytes(path.read_bytes().replace(b"'here'", b"'HERE'"))
    work = hand_in(path)
    assert work.source.name == "hw.py" and "other.py was skipped: it cannot be read" in work.notes[0]


def test_a_digest_is_of_all_that_was_handed_in(tmp_path):
    files = {"hw.py": BOTH, "helper.py": "x = 1\n"}
    one = hand_in(laid(tmp_path / "a", files)).digest
    assert one == hand_in(laid(tmp_path / "b", files)).digest == hand_in(zipped(tmp_path / "c.zip", files)).digest
    assert one != hand_in(laid(tmp_path / "b", {"helper.py": "x = 2\n"})).digest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s19_main.py", "s21_latin1.py", "s22_utf16.py"])
def test_as_students_hand_them_in(shared, tmp_path, name):
    """Files that scored nothing once; here one task each, beside a file of helpers."""
    text = (shared / "faults" / "hand-ins" / name).read_bytes()
    laid(tmp_path, {name: text, "helpers.py": b"x = 1\n"})
    assert statuses(hand_in(tmp_path), "survivors") == ({"survivors": "passed"}, name)


def test_a_hand_in_of_hostile_names_and_bytes(tmp_path):
    """Nothing but a ValueError comes of any bytes that are called a zip."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("h\nw.py", BOTH)
        archive.writestr(".", "")
        archive.writestr("long" * 100 + ".py", "")
    whole = raw.getvalue()
    for i in range(0, len(whole), 23):
        Path(tmp_path / "hw.zip").write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            hand_in(tmp_path / "hw.zip")
        except ValueError as error:
            assert "hw.zip" in str(error)
    Path(tmp_path / "hw.zip").write_bytes(whole)
    assert statuses(hand_in(tmp_path / "hw.zip"), "survivors")[0] == {"survivors": "passed"}
