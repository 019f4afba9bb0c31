"""A test file for otter-grader 7: put one like it per task into the assignment's `tests/` folder.

otter looks up the parameter's name in the notebook, so `survivors` below is the student's function. minisink does the
judging. With `raises=True` it raises an error that holds the failing case and a helpful question, and otter shows it;
without `hint=1` the error names the wrong turn.
"""

from otter.test_files import test_case

from minisink.teaching import check_functions

OK_FORMAT = False
name = "survivors"
points = 1


@test_case(points=1, hidden=False, success_message="The right slots stay.", failure_message="The wrong slots stay.")
def test_survivors(survivors):
    """The first n_sinks and the last window slots stay."""
    check_functions(survivors=survivors, hint=1, raises=True)
