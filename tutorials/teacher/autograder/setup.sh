#!/usr/bin/env bash
# Gradescope runs this once, when the autograder is built. MINISINK says where minisink comes from: a wheel that was put
# into the zip, or the repository's address.
set -euo pipefail
apt-get install -y python3 python3-pip python3-venv
python3 -m venv /autograder/venv
wheels=(/autograder/source/minisink-*.whl)
if [ -e "${wheels[0]}" ]; then
    /autograder/venv/bin/pip install "${wheels[0]}"
else
    /autograder/venv/bin/pip install "${MINISINK:?put a minisink wheel into the zip, or set MINISINK to what pip installs}"
fi
