"""Check the three caches and their eighteen bugs; print the table of docs/check-your-cache.md.

``python tests/conformance/trial/found.py``
"""

from bugs import BUGS, RIGHT, asked

from minisink import conformance


def rows():
    """Yield the rows of the table: the right caches, then the bugs."""
    yield "cache, and what was changed in it", "policy", "first wrong", "it looks like"
    yield ("---",) * 4
    for cache in RIGHT:
        options = asked(cache)
        yield cache.__name__, options.get("policy", "streaming"), where(conformance.check(cache, **options)), ""
        for bug in BUGS:
            if issubclass(bug.cache, cache):
                report = conformance.check(bug.cache, **bug.options)
                yield f"… {bug.name}", "", where(report), ", ".join(turn.name for turn in report.looks_like)


def where(report):
    """Return the size of the cache and the token at which it first differs, and the layer if that is not the first."""
    if report:
        return f"right in {len(report.traces)} traces"
    first = report.first
    text = f"{first.trace.n_sinks} + {first.trace.window}, token {first.token}"
    return text + f", layer {first.layer}" * (first.layer > 0) + ", read again" * first.again


def table():
    """Return the table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows())


if __name__ == "__main__":
    print(table())
