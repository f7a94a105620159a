"""Makes a virtual environment hold what a requirements file lists, and does nothing when it does already.

    python3 scripts/environment.py DIRECTORY REQUIREMENTS [WHEEL]

A stamp inside the directory remembers what was installed. The text of this file also parses under old Pythons, so that
they can say what they lack.
"""

# ruff: noqa: UP031 - f-strings would not parse there.

import hashlib
import os
import subprocess
import sys

OLDEST = (3, 11)


def fail(sentence):
    """Ends with one sentence instead of a traceback."""
    sys.exit("error: " + sentence)


def check_python():
    """Refuses an interpreter that cannot build, test or run the project."""
    found = "%d.%d" % sys.version_info[:2]
    if sys.version_info < OLDEST:
        fail(
            "%s is Python %s, but feast-rs needs 3.11 or newer; name one with `make PYTHON=python3.x ...`"
            % (sys.executable, found)
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "this Python cannot make virtual environments; on Debian and Ubuntu: "
            "`apt-get install python%s-venv` (as root)" % found
        )


def digest(paths):
    """Changes when the interpreter, a requirements file or the wheel changes."""
    state = hashlib.sha256(sys.version.encode())
    for path in paths:
        try:
            with open(path, "rb") as file:
                state.update(file.read())
        except OSError as error:
            fail("cannot read `%s`: %s" % (path, error.strerror))
    return state.hexdigest()


def run(command):
    """Runs a command that explains its own failure."""
    if subprocess.call(command) != 0:
        fail("`%s` failed, see its message above" % " ".join(command))


def main():
    """Creates or completes the environment."""
    if len(sys.argv) not in (3, 4):
        fail("expected DIRECTORY REQUIREMENTS [WHEEL]")
    check_python()
    directory, requirements = sys.argv[1:3]
    wheel = sys.argv[3:]
    stamp = os.path.join(directory, ".installed")
    wanted = digest([requirements] + wheel)
    python = os.path.join(directory, "bin", "python")
    if os.path.exists(stamp) and os.path.exists(python):
        with open(stamp) as file:
            if file.read() == wanted:
                print("    %s is up to date" % directory)
                return
        os.remove(stamp)
    usable = os.path.exists(python) and same_version(python)
    if not usable:
        run([sys.executable, "-m", "venv", "--clear", directory])
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    run(pip + ["--requirement", requirements] + wheel)
    if wheel:
        # The version of a wheel built here does not change when its content does.
        run(pip + ["--force-reinstall", "--no-deps"] + wheel)
    with open(stamp, "w") as file:
        file.write(wanted)


def same_version(python):
    """Whether the environment was made by an interpreter of this version."""
    question = "import sys; print(sys.version)"
    try:
        answer = subprocess.check_output([python, "-c", question], universal_newlines=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.strip() == sys.version.strip()


if __name__ == "__main__":
    main()
