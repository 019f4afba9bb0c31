"""A test file for otter-grader 7: put it into the assignment's `tests/` folder, one file a task.

otter looks the parameter's name up among what the notebook defines, so `survivors` below is the student's function. The
judge is minisink's: with `raises=True` the failing case, and a question that helps, are an error, which otter shows;
without `hint=1`, the wrong turn by name.
"""

from otter.test_files import test_case

from minisink.teaching import check_functions

OK_FORMAT = False
name = "survivors"
points = 1


@test_case(points=1, hidden=False, success_message="The right slots stay.", failure_message="Other slots should stay.")
def test_survivors(survivors):
    """The first n_sinks and the last window."""
    check_functions(survivors=survivors, hint=1, raises=True)
