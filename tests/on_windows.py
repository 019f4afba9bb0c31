"""What a test needs that Windows has not, read off its source: such a test is left out there."""

import inspect
import re

NEEDS = r"mkfifo|mknod|symlink|fcntl|\bpty\b|termios|\bresource\.|geteuid|SIGKILL|send_signal|raise_signal|/dev/|/proc"
NEEDS = re.compile(NEEDS + r"|chmod|preexec_fn|os\.kill|Terminal\(|bash|\[\"sh\"")


def needs_posix(function, fixtures=()):
    """Whether a test, or a fixture that it asks for, names one of these."""
    sources = [inspect.getsource(inspect.unwrap(each)) for each in (function, *fixtures)]
    return any(NEEDS.search(source) for source in sources)
