"""Reports as other systems read them: Gradescope's results.json and Classroom 50's result.json."""

import datetime
import os

from .report import about_the_file, numbered


def gradescope(report, seconds=0.0):
    """Return what Gradescope reads from /autograder/results/results.json; only the teacher sees copies."""
    tests, rows = [], report["tasks"]
    for i, row in enumerate(rows, 1):
        test = {"name": row["task"], "number": str(i), "score": row["score"], "max_score": row["max_score"]}
        test |= {"status": "passed" if row["status"] == "passed" else "failed", "tags": [row["status"]]}
        test |= {"output": row["message"], "output_format": "text", "visibility": "visible"}
        tests.append(test | {"extra_data": {name: row[name] for name in ("diagnosis", "same_as")}})
    about = about_the_file(report)
    output = "\n".join([f"{report['score']} of {report['max_score']} points", *about, *numbered(rows)])
    extra = {name: report[name] for name in ("file", "same_as", "seed", "version")}
    results = {"score": report["score"], "tests": tests, "execution_time": round(seconds), "output": output}
    return results | {"stdout_visibility": "hidden", "extra_data": extra}


def classroom50(report, seconds=0.0):
    """Return what Classroom 50 reads from result.json; the runner's environment says whose it is."""
    env = os.environ.get
    about = {
        "schema": "classroom50/result/v1",
        "classroom": env("CLASSROOM"),
        "assignment": env("ASSIGNMENT"),
        "owner": env("USERNAME") or env("GITHUB_REPOSITORY_OWNER"),
        "submission": env("SUBMISSION_TAG"),
        "commit": env("COMMIT_URL"),
        "release": env("RELEASE_URL"),
        "review": env("REVIEW_URL") or env("COMMIT_URL"),
        "file-judged": report["file"],
        "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    tests = []
    for row in report["tasks"]:
        test = {"test-name": row["task"], "passed": row["status"] == "passed"}
        tests.append(test | {"score": row["score"], "max-score": row["max_score"]})
    scores = {"score": report["score"], "max-score": report["max_score"], "tests": tests}
    return {name: value or "unknown" for name, value in about.items()} | scores
