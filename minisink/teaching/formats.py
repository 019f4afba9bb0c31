"""Reports as other systems read them: Gradescope's results.json and Classroom 50's result.json."""

from __future__ import annotations

import datetime
import json
import os

from ..system.files import atomic_write
from .report import numbered, totals


def gradescope(rows, seconds=0.0):
    """What Gradescope reads from /autograder/results/results.json."""
    tests = [
        {
            "name": row["task"], "number": str(i), "score": row["score"], "max_score": row["max_score"],
            "status": "passed" if row["status"] == "passed" else "failed", "output": _said(row),
            "output_format": "text", "visibility": "visible", "tags": [row["status"]],
            "extra_data": {"diagnosis": row["diagnosis"]},
        }
        for i, row in enumerate(rows, 1)
    ]  # fmt: skip
    return {
        "score": totals(rows)["score"], "tests": tests, "execution_time": round(seconds),
        "output": "\n".join([f"{totals(rows)['score']} of {totals(rows)['max_score']} points", *numbered(rows)]),
        "stdout_visibility": "hidden",
    }  # fmt: skip


def classroom50(rows, seconds=0.0):
    """What Classroom 50 reads from result.json; whose it is stands in the environment of its runner."""
    env, total = os.environ.get, totals(rows)
    about = {
        "schema": "classroom50/result/v1",
        "classroom": env("CLASSROOM"),
        "assignment": env("ASSIGNMENT"),
        "owner": env("USERNAME") or env("GITHUB_REPOSITORY_OWNER"),
        "submission": env("SUBMISSION_TAG"),
        "commit": env("COMMIT_URL"),
        "release": env("RELEASE_URL"),
        "review": env("REVIEW_URL") or env("COMMIT_URL"),
        "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {name: value or "unknown" for name, value in about.items()} | {
        "score": total["score"],
        "max-score": total["max_score"],
        "tests": [
            {"test-name": row["task"], "passed": row["status"] == "passed", "score": row["score"],
             "max-score": row["max_score"]}
            for row in rows
        ],
    }  # fmt: skip


def _said(row):
    looks = f"\nlooks like: {row['diagnosis']}" if row["diagnosis"] else ""
    return row["message"] + looks


def write(path, report):
    """Write a report, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
