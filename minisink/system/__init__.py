"""Everything that has nothing to do with attention: devices, files, errors, interrupts, the terminal, pictures.

These files use nothing from the rest of the package except its name.
"""

PACKAGE = __name__.partition(".")[0]
