"""The checker of students' code: the tasks, their known wrong turns, and the child process that runs a file."""

from .grading import check_functions

__all__ = ["check_functions"]
