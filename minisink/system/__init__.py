"""What has nothing to do with attention: devices, files, errors, interrupts, the terminal, pictures.

These files know nothing of the rest of the package but its name.
"""

PACKAGE = __name__.partition(".")[0]
