"""What runs on a board: what the board is, and the releases of a package there. It is sent, never installed.

Standard library alone, in the syntax of Python 3.6, so that a board whose Python is too old for packages hears that in
words. ``devices/asking.py`` makes one source of these files. A question is a JSON table with its ``command``, an answer
a line of JSON: ``{"ok": …}``, or ``{"fault": {"kind": …, "text": …}}``.

What it keeps below the folder of a package (``~/dlx-deploy/NAME``):

    releases/<SHA-256 of the package>/package.dlx, package.dlx.sig, release.json
    current -> releases/<SHA-256>       swapped by one rename
    history.json                        what current was, the newest last; what stands behind current never came to be
    incoming/<SHA-256>, <SHA-256>.part  what is being sent
    lock, lock.pid                      who works here, and the process that does it for them
    venvs/<id>, venv -> venvs/<id>      libraries that were brought, where the board lacks them
"""
