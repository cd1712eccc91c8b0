"""Nothing in the kit works on POSIX alone: each exception is listed here with its reason."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import PurePath

import pytest

from phi3kit.workbook.running.paths import ROOT

SOURCES = [ROOT / "install.py", *sorted((ROOT / "phi3kit").rglob("*.py"))]

# Modules, functions, signals, arguments and paths that Windows lacks, or that mean something else there.
MODULES = {"crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
ATTRIBUTES = {
    "os": "chmod chown chroot confstr execl execle execlp execv execve execvp fchmod fork forkpty getegid geteuid "
    "getgid getloadavg getpgid getpgrp getppid getpriority getsid getuid initgroups kill killpg lchown mkfifo mknod "
    "nice openpty posix_spawn rename replace sched_getaffinity sched_setaffinity setpgid setpriority setsid setuid "
    "statvfs symlink sysconf uname wait waitpid",
    "signal": "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm "
    "pause pthread_kill setitimer siginterrupt sigwait",
    "socket": "AF_UNIX SO_REUSEPORT",
    "select": "epoll poll",
    "time": "tzset",
    "tempfile": "NamedTemporaryFile",  # cannot be opened a second time there
}
NAMES = {f"{module}.{name}" for module, names in ATTRIBUTES.items() for name in names.split()}
ARGUMENTS = {"group", "pass_fds", "preexec_fn", "process_group", "start_new_session", "umask", "user"}
METHODS = {"chmod", "hardlink_to", "send_signal", "symlink_to"}  # of any object
SPECIAL_FOLDERS = re.compile(r"/(?:bin|dev|etc|home|opt|proc|run|sys|tmp|usr|var)(?:/[\w./-]*)?")

# The file, what it uses, how often, and why it may.
ALLOWED = {
    ("install.py", "import fcntl", 1): "Windows has none and needs none: it lets nobody remove a file that is in use",
    ("phi3kit/cli/chat.py", "import readline", 1): "editing keys; Windows' console has its own, so it may be missing",
    ("phi3kit/cli/chat.py", ".startswith() by '/'", 1): "a command such as /reset, no path",
    ("phi3kit/doctor/checks.py", ".rstrip() by '/'", 1): "the end of an http address",
    ("phi3kit/serving/served.py", ".rpartition() by '/'", 1): "a version after the name of a registered model",
    (
        "phi3kit/system/machine.py",
        "'/sys/fs/cgroup'",
        1,
    ): "a container's limits: read only where these files are, on Linux",
    ("phi3kit/tracking/store.py", ".replace()", 1): "of a path, under the lock; the new database is closed",
    ("phi3kit/weights/cached.py", ".rename()", 1): "onto a name that is free",
    ("phi3kit/weights/hub.py", ".join() by '/'", 1): "a folder within a repository of the hub, named as the hub does",
    ("phi3kit/weights/hub.py", ".replace()", 3): "of paths, which puts one file in the place of another there too",
    ("phi3kit/weights/store.py", ".rename()", 2): "onto a name that is free: the lock is held",
    ("phi3kit/workbook/exercises/handout.py", ".rename()", 1): "onto a name that is free: what lay there was removed",
    (
        "phi3kit/workbook/exercises/supervisor.py",
        ".replace()",
        1,
    ): "of a path, which puts one file in the place of another there too",
    ("phi3kit/workbook/exercises/check/elsewhere.py", "os.symlink", 1): "where it is refused, the file is copied",
    ("phi3kit/workbook/exercises/network.py", "import fcntl", 1): "called on Linux alone; elsewhere there is the hook",
    ("phi3kit/workbook/exercises/network.py", "os.getegid", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "os.geteuid", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "'/proc/self/setgroups'", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "'/proc/self/uid_map'", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "'/proc/self/gid_map'", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "'/proc/self/net/snmp'", 1): "on Linux alone",
    ("phi3kit/workbook/exercises/network.py", "'/proc/self/net/snmp6'", 1): "on Linux alone",
    (
        "phi3kit/workbook/running/refresh.py",
        ".replace()",
        1,
    ): "of a path, which puts one file in the place of another there too",
}


def uses(source: str) -> Counter[str]:
    """How often the code uses each of them."""
    tree = ast.parse(source)
    return Counter(what for node in ast.walk(tree) for what in findings(node))


def findings(node: ast.AST):
    match node:
        case ast.Import(names=names):
            yield from (f"import {alias.name}" for alias in names if alias.name.partition(".")[0] in MODULES)
        case ast.ImportFrom(module=module, names=names):
            yield from (f"import {module}" for _ in names[:1] if module in MODULES)
            yield from (f"{module}.{alias.name}" for alias in names if f"{module}.{alias.name}" in NAMES)
        case ast.Attribute(value=ast.Name(id=module), attr=name) if f"{module}.{name}" in NAMES:
            yield f"{module}.{name}"
        case ast.Constant(value=str(text)) if SPECIAL_FOLDERS.fullmatch(text):
            yield repr(text)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            yield from ("+ '/'" for side in (left, right) if isinstance(side, ast.Constant) and side.value == "/")
        case ast.Call(func=function, args=arguments, keywords=keywords):
            yield from (f"{word.arg}=" for word in keywords if word.arg in ARGUMENTS)
            yield from ("shell=True" for word in keywords if word.arg == "shell" and ast.unparse(word.value) != "False")
            yield from calls(function, arguments, {word.arg: word.value for word in keywords})


def calls(function: ast.expr, arguments: list[ast.expr], named: dict):
    name = getattr(function, "attr", getattr(function, "id", ""))
    of = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
    # A path's `replace` takes one argument, a string's two; a path's `rename` one, a data frame's none by position.
    moves = name in {"rename", "replace"} and len(arguments) == 1 and not named
    if of != "os" and (name in METHODS or moves):
        yield f".{name}()"
    if name in {"read_text", "write_text"} and "encoding" not in named and len(arguments) < 1 + (name == "write_text"):
        yield f".{name}() without encoding"
    if name == "open" and of not in {"os", "webbrowser"} and not of[:1].isupper():  # a class opens models, no files
        position = 0 if of or isinstance(function, ast.Attribute) else 1
        mode = named.get("mode") or (arguments[position] if len(arguments) > position else ast.Constant("r"))
        if not (isinstance(mode, ast.Constant) and "b" in mode.value) and "encoding" not in named:
            yield "open() without encoding"
    if name == "strftime" and any(isinstance(a, ast.Constant) and re.search("%-|:", str(a.value)) for a in arguments):
        yield "strftime() with a colon or a dash"
    if name in {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "rstrip", "join"}:
        texts = [*arguments, getattr(function, "value", None)]
        yield from (f".{name}() by '/'" for text in texts if isinstance(text, ast.Constant) and text.value == "/")


def test_every_use_of_posix_has_its_reason():
    used = {
        (path.relative_to(ROOT).as_posix(), what, times)
        for path in SOURCES
        for what, times in uses(path.read_text(encoding="utf-8")).items()
    }
    assert used - ALLOWED.keys() == set(), "give it a Windows way, and its reason here"
    assert ALLOWED.keys() - used == set(), "gone: its line here can go too"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import os\nos.kill(pid, 9)", "os.kill"),
        ("from os import fork", "os.fork"),
        ("import pwd", "import pwd"),
        ("from resource import getrlimit", "import resource"),
        ("import signal\nsend(signal.SIGKILL)", "signal.SIGKILL"),
        ("server.send_signal(number)", ".send_signal()"),
        ("subprocess.Popen(command, preexec_fn=quiet)", "preexec_fn="),
        ("subprocess.Popen(command, start_new_session=True)", "start_new_session="),
        ("subprocess.run(command, shell=True)", "shell=True"),
        ("Path('/tmp/x')", "'/tmp/x'"),
        ("open('/dev/null', encoding='utf-8')", "'/dev/null'"),
        ("f'/proc/{pid}/status'", "'/proc/'"),
        ("str(folder) + '/' + name", "+ '/'"),
        ("f'{folder}/{name}'.split('/')", ".split() by '/'"),
        ("open(path)", "open() without encoding"),
        ("path.open('w')", "open() without encoding"),
        ("path.read_text()", ".read_text() without encoding"),
        ("path.write_text(text)", ".write_text() without encoding"),
        ("aside.rename(place)", ".rename()"),
        ("import os\nos.replace(new, old)", "os.replace"),
        ("link.symlink_to(file)", ".symlink_to()"),
        ("file.chmod(0o700)", ".chmod()"),
        ("now.strftime('%H:%M')", "strftime() with a colon or a dash"),
    ],
)
def test_the_search_finds(source, what):
    assert what in uses(source)


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'rb')",
        "open(path, encoding='utf-8')",
        "path.open('wb')",
        "text.replace('a', 'b')",
        "frame.rename(columns=names)",
        "image = webbrowser.open(url)",
        "Path('a/b')",
        "subprocess.run(command, shell=False)",
    ],
)
def test_the_search_leaves_alone(source):
    assert not uses(source)


def test_every_file_can_be_checked_out_on_windows():
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = [name for name in listed.split("\0") if (ROOT / name).is_file()]
    parts = {part for name in names for part in PurePath(name).parts}
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
    assert [part for part in parts if re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part) or reserved.fullmatch(part)] == []
    assert max(map(len, names)) < 150  # of 260, with the folder it lies in
    everything = {
        PurePath(*PurePath(name).parts[:n]) for name in names for n in range(1, len(PurePath(name).parts) + 1)
    }
    assert [name for name, times in Counter(str(path).lower() for path in everything).items() if times > 1] == []
    assert [name for name in names if (ROOT / name).is_symlink()] == []


def test_text_has_the_same_line_ends_on_every_system():
    output = git(
        "check-attr", "-z", "text", "eol", "--", ".ci/run", "Makefile", "a.ipynb", "a.py", "a.png", "a.safetensors"
    )
    values = output.split("\0")
    attributes = {(name, attribute): value for name, attribute, value in zip(*[iter(values)] * 3, strict=False)}
    for name in (".ci/run", "Makefile", "a.ipynb", "a.py"):
        assert (attributes[name, "text"], attributes[name, "eol"]) == ("auto", "lf")
    assert attributes["a.png", "text"] == attributes["a.safetensors", "text"] == "unset"
    assert b"\r" not in (ROOT / ".ci/run").read_bytes()


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout.decode()
