#!/usr/bin/env bash
# Gradescope runs this once, when the autograder is built. MINISINK says where minisink comes from: a wheel that was put
# into the zip, or the repository's address.
set -euo pipefail
root=${AUTOGRADER:-/autograder}
apt-get install -y python3 python3-pip python3-venv
python3 -m venv "$root/venv"
wheels=("$root"/source/minisink-*.whl)
if [ -e "${wheels[0]}" ]; then
    "$root/venv/bin/pip" install --no-cache-dir "${wheels[0]}"
    rm "${wheels[@]}"
else
    "$root/venv/bin/pip" install --no-cache-dir "${MINISINK:?put a minisink wheel into the zip, or set MINISINK to what pip installs}"
fi
# The grader is root, the student's code another user: what it could copy is closed to it.
package=$(cd / && "$root/venv/bin/python" -c 'import minisink, os; print(os.path.dirname(minisink.__file__))')
chmod -R go= "$root/source" "$package"
