"""One file per figure or table of the paper, or of later papers: rows out, no command line.

An experiment is a module, which ``minisink reproduce NAME`` runs (`commands.reproduce`). It has:

- its docstring, whose first line is what ``reproduce list`` prints;
- ``PAPER``, which figure or table it is, and ``CLAIM``, the claim made there, in one line;
- ``run(model, ids, *, ..., track=iter)``, which yields rows: dicts of numbers and strings, all with the same keys. Its
  positional arguments are ``model``, or ``models`` by name; and the ``ids`` of a text, ``texts``, or a ``text`` itself.
  The rest have defaults and a line in ``OPTIONS``, and become options of the command; for an argument that is a method,
  the line is a dict with one option per field. Sizes become methods right away, and rows hold a method's name.
  ``track`` wraps the list of work, for a progress bar. Arrays in a row are for the verdict and the picture;
- ``effects(rows)``, the quantities that the claim is about, each with its interval (`effects.Effect`);
- ``draw(figure, rows)``, the picture; and, if a plain table of the rows is not clear enough, ``show(rows)``;
- ``FAST``, the options for a first look that takes seconds; and ``MODEL``, ``MODELS`` or ``TOKENS``, if they differ
  from the defaults.
"""
