"""One file per figure or table of the paper, or of later papers: rows out, no command line.

An experiment is a module, which ``minisink reproduce NAME`` runs (`commands.reproduce`). It has:

- its docstring, whose first line is what ``reproduce list`` prints;
- ``PAPER``, which figure or table it is, and ``CLAIM``, the claim made there, in one line;
- ``run(model, ids, *, ..., track=iter)`` yields rows: dicts of numbers and words with the same keys. It gets its
  positional arguments: ``model``, or ``models`` by name; ``ids`` of a text, ``texts``, or a ``text`` itself. The others
  have a default and a line in ``OPTIONS``, and are options of the command; a method given as a value has a dict there,
  whose fields are options. Sizes become methods at once, and a row has a method's name. ``track`` wraps the list of
  work, for a progress bar. Arrays in a row are for the verdict and the picture;
- ``effects(rows)``, the sizes that the claim is about, each with its interval (`effects.Effect`);
- ``draw(figure, rows)``, the picture; and, if a plain table of the rows is not clear enough, ``show(rows)``;
- ``FAST``, the options of a first look that takes seconds; ``MODEL``, ``MODELS``, ``TOKENS``: if different from the
  usual.
"""
