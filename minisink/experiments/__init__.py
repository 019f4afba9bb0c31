"""One file a figure or table of the paper, or of those that came after it: rows out, no command line.

An experiment is a module. ``minisink reproduce NAME`` runs it (`commands.reproduce`); what it says of itself:

- its docstring, whose first line is what ``reproduce list`` prints;
- ``PAPER``, which figure or table it is, and ``CLAIM``, what is said there, in a line;
- ``run(model, ids, *, ..., track=iter)`` yields rows: dicts of numbers and words, the same keys in each. What it asks
  for by position it is given: ``model``, or ``models`` by name; ``ids`` of a text, ``texts``, or a ``text`` as it is.
  All else has a default and a line in ``OPTIONS``, and is an option of the command; a method given as a value has a
  dict there, and each of these fields is an option. Sizes become methods at once, and a method stands in a row by its
  name. ``track`` wraps the list of what is to be done, for the bar that shows it. Arrays in a row are for the verdict
  and the picture;
- ``effects(rows)``, the sizes that the claim is about, each with its interval (`effects.Effect`);
- ``draw(figure, rows)``, the picture; and, where a plain table of the rows is not plain enough, ``show(rows)``;
- ``FAST``, the options of a first look that takes seconds; ``MODEL``, ``MODELS``, ``TOKENS``: if others than usual.
"""
