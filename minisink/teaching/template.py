"""The file that a student starts from, `template.txt`: a stub a task, and in its docstring what to write, as a loop."""

from pathlib import Path

HEAD, *STUBS = Path(__file__).with_name("template.txt").read_text(encoding="utf-8").rstrip().split("\n\n\ndef ")
LOOPS = {stub.partition("(")[0]: stub.split('"""')[1] for stub in STUBS}  # the docstrings, by task


def template(tasks=None, name="student.py"):
    """Return the text of a file that will be called `name`, with stubs of these tasks or of all."""
    stubs = [f"def {stub}" for task, stub in zip(LOOPS, STUBS, strict=True) if tasks is None or task in tasks]
    return "\n\n\n".join([HEAD.format(name=name), *stubs]) + "\n"
