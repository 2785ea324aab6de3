#!/usr/bin/env python3
"""Power cuts under the real program, by hand: nothing acknowledged or delivered may be missing.

    python3 tests/power_cut.py states [--states 300]    states of the disk after a power cut, made
        from a trace of the system calls of `quorate run` (needs strace)
    python3 tests/power_cut.py crashes [--crashes 25]   the file system below a running node is shut
        down without a flush, again and again (needs root, a loop device, ext4)

Both run one node on loopback, write to it, and note what was acknowledged (`topics set`) and what
was delivered (`topics watch`) and when. Then they start the node on what a power cut would have left
and compare. `--binary` is the program, target/release/quorate without it.

A state lies after a system call: all that a completed fsync or fdatasync covers is there, of the rest
nothing, everything or a subset that the seed picks, writes torn at any byte; a name (of a file that
was made, renamed or removed) is there for sure once its folder was synced. That is stricter than any
file system, but for folders themselves, which count as durable when they are made. With `--plant` no
flush of a segment counts: the check must then find violations.
"""

import argparse
import collections
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

START_PATIENCE_S = 60
SETTERS = 2
LARGE_VALUE = "x" * 40_000
CALLS = (
    "openat,pwrite64,write,pwritev,writev,fsync,fdatasync,ftruncate,fallocate,"
    "rename,renameat,renameat2,unlink,unlinkat"
)
# ext4's FS_IOC_SHUTDOWN and its flag for "do not flush the journal first".
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Node:
    """One node whose data stand in `data`; its configuration and what it says in `home`."""

    def __init__(self, binary, home, data):
        self.binary, self.home, self.data = binary, home, data
        (home / "password").write_text("secret")
        (home / "node.toml").write_text(
            f'name = "n1"\ndir = "{data}"\n[client]\nlisten = "127.0.0.1:0"\n'
            '[peer]\nlisten = "127.0.0.1:0"\n[http]\nlisten = "127.0.0.1:0"\n'
            '[log]\nsegment_bytes = "4MiB"\nsnapshot_bytes = "4MiB"\nretain_bytes = "4MiB"\n'
            '[security]\nadmin_password_file = "password"\n'
        )
        self.process = None

    def start(self, prefix=()):
        (self.data / "ports.json").unlink(missing_ok=True)
        log = open(self.home / "node.log", "a")
        command = [*prefix, self.binary, "run", "--config", str(self.home / "node.toml")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_PATIENCE_S
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                code = self.process.poll()
                self.kill()
                raise Failed(f"it does not serve (exit {code}): {self.last_words()}")
            time.sleep(0.02)
        ports = json.loads((self.data / "ports.json").read_text())
        shutil.copy(self.data / "tls" / "ca.pem", self.home / "ca.pem")
        (self.home / "client.toml").write_text(
            f'addresses = ["{ports["client"]}"]\nca = "ca.pem"\n'
            'principal = "admin"\npassword_file = "password"\n'
        )

    def is_ready(self):
        try:
            ports = json.loads((self.data / "ports.json").read_text())
            with urllib.request.urlopen(f"http://{ports['http']}/ready", timeout=5) as page:
                return page.status == 200
        except (OSError, ValueError, urllib.error.URLError):
            return False

    def last_words(self):
        lines = (self.home / "node.log").read_text().splitlines()
        return "\n".join(lines[-8:])

    def command(self, *arguments):
        return [self.binary, *arguments]

    def environment(self):
        return {**os.environ, "QUORATE_PROFILE": str(self.home / "client.toml")}

    def run(self, *arguments):
        return subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True
        )

    def values(self):
        """Topic to number, of everything that the node holds."""
        listed = self.run("topics", "list", "?.*//", "--values", "--json")
        if listed.returncode != 0:
            raise Failed(f"the topics cannot be listed: {listed.stderr}")
        lines = [json.loads(line) for line in listed.stdout.splitlines()]
        return {line["topic"]: (line["value"] or {"n": -1})["n"] for line in lines}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(30) != 0:
            raise Failed(f"it does not stop in good order: {self.last_words()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Failed(Exception):
    """The node breaks a promise."""


class Traffic:
    """Writers and a watcher; what was acknowledged, delivered and sent, and when."""

    def __init__(self, node, first):
        self.node, self.first = node, first
        self.known, self.sent = [], collections.defaultdict(int)
        self.stopping = threading.Event()
        self.watcher = subprocess.Popen(
            node.command("topics", "watch", "?.*//", "--json"),
            env=node.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.watcher.stderr.readline()
        self.loader = subprocess.Popen(
            node.command("topics", "load", "-", "--window", "4", "--rate", "150", "--json"),
            env=node.environment(), stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )
        work = [self.watch, self.load] + [lambda name=i: self.set(name) for i in range(SETTERS)]
        self.threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in self.threads:
            thread.start()

    def note(self, topic, number):
        self.known.append((time.time(), topic, number))

    def watch(self):
        for line in self.watcher.stdout:
            event = json.loads(line)
            if event.get("kind") == "value" and event["value"]["n"] >= self.first:
                self.note(event["topic"], event["value"]["n"])

    def load(self):
        number = self.first
        try:
            while not self.stopping.is_set():
                topic = f"load/{number % 7}"
                self.sent[topic] = number
                value = {"n": number, "pad": LARGE_VALUE}
                self.loader.stdin.write(json.dumps({"topic": topic, "value": value}) + "\n")
                number += 1
            self.loader.stdin.close()
        except OSError:
            pass

    def set(self, name):
        topic, number = f"set/{name}", self.first
        while not self.stopping.is_set():
            self.sent[topic] = number
            done = self.node.run("topics", "set", topic, json.dumps({"n": number}), "--add", "json")
            if done.returncode != 0:
                return
            self.note(topic, number)
            number += 1

    def end(self):
        self.stopping.set()
        for process in (self.loader, self.watcher):
            process.kill()
            process.wait()

    def known_before(self, moment):
        newest = {}
        for at, topic, number in list(self.known):
            if at < moment:
                newest[topic] = max(newest.get(topic, -1), number)
        return newest


def check(node, known, sent):
    """What is known must be there, and nothing that was never sent."""
    found = node.values()
    for topic, number in known.items():
        if found.get(topic, -1) < number:
            raise Failed(f"{topic} is at {found.get(topic)}, {number} was acknowledged")
    for topic, number in found.items():
        if number > sent.get(topic, -1):
            raise Failed(f"{topic} is at {number}, which was never sent")


# --- states from a trace ---

Op = collections.namedtuple("Op", "kind begin end at file arguments")


def unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


class Trace:
    """The changes of files below a folder, in the order in which they began."""

    LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")

    def __init__(self, path, folder, lies):
        self.folder, self.ops, self.starts, self.lies = folder, [], [], lies
        self.names, self.files = {}, 0
        waiting = {}
        with open(path, errors="replace") as lines:
            for place, line in enumerate(lines):
                found = self.LINE.match(line)
                if not found:
                    continue
                thread, at, rest = found[1], float(found[2]), found[3]
                self.starts.append((place, at))
                if rest.endswith("<unfinished ...>"):
                    waiting[thread] = (place, at, rest[: -len("<unfinished ...>")])
                elif rest.startswith("<..."):
                    begin = waiting.pop(thread, None)
                    if begin:
                        result = rest.split(" resumed>", 1)[1]
                        self.take(begin[0], place, begin[1], begin[2] + result)
                else:
                    self.take(place, place, at, rest)
        self.lines = place + 1

    def below(self, path):
        return path if path and path.startswith(str(self.folder) + "/") else None

    def add(self, kind, begin, end, at, file, *arguments):
        self.ops.append(Op(kind, begin, end, at, file, arguments))

    def take(self, begin, end, at, text):
        call = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", text)
        if not call or int(call[3]) < 0:
            return
        name, arguments, result = call[1], call[2], int(call[3])
        strings = [unhex(one).decode() for one in re.findall(r'"((?:\\x..)*)"', arguments)] \
            if name in ("openat", "rename", "renameat", "renameat2", "unlink", "unlinkat") else []
        on = re.match(r"\d+<([^>]*)>", arguments)
        path = on and on[1]
        if path and "\\x" in path:
            path = unhex(path).decode()
        if name == "openat":
            target = self.below(strings[0])
            if target and "O_CREAT" in arguments and target not in self.names:
                self.files += 1
                self.names[target] = self.files
                self.add("names", begin, end, at, None, [(target, self.files)])
            elif target and "O_TRUNC" in arguments and target in self.names:
                self.add("size", begin, end, at, self.names[target], 0, True)
        elif name.startswith("rename"):
            old, new = self.below(strings[0]), self.below(strings[1])
            if old in self.names and new:
                file = self.names.pop(old)
                self.names[new] = file
                self.add("names", begin, end, at, None, [(old, None), (new, file)])
            elif old and new:
                for name in [name for name in self.names if name.startswith(old + "/")]:
                    self.names[new + name[len(old):]] = self.names.pop(name)
                self.add("move", begin, end, at, None, [(old, None), (new, None)])
        elif name.startswith("unlink"):
            if self.names.pop(self.below(strings[0]), None):
                self.add("names", begin, end, at, None, [(strings[0], None)])
        elif name in ("fsync", "fdatasync"):
            if self.below(path) in self.names:
                if not (self.lies and ".seg" in path):
                    self.add("sync", begin, end, at, self.names[path])
            elif path and (path == str(self.folder) or self.below(path)):
                self.add("syncdir", begin, end, at, None, path)
        elif self.below(path) in self.names:
            file = self.names[path]
            if name == "ftruncate":
                self.add("size", begin, end, at, file, int(arguments.rsplit(",", 1)[1]), True)
            elif name == "fallocate":
                offset, length = arguments.rsplit(",", 2)[1:]
                self.add("size", begin, end, at, file, int(offset) + int(length), False)
            elif name == "pwrite64":
                data = unhex(re.search(r'"((?:\\x..)*)"', arguments)[1])[:result]
                self.add("write", begin, end, at, file, int(arguments.rsplit(",", 1)[1]), data)
            elif name == "write":
                data = unhex(re.search(r'"((?:\\x..)*)"', arguments)[1])[:result]
                self.add("append", begin, end, at, file, data)
            else:
                raise SystemExit(f"a call that is not understood: {name}({arguments[:200]}")

    def moment_after(self, place):
        """When the next call began: a crash after `place` came before that."""
        later = [at for line, at in self.starts if line > place]
        return later[0] if later else float("inf")

    def state(self, place, rng, choice, into):
        """Lays down what a power cut after the line `place` may leave."""
        seen = [op for op in self.ops if op.begin <= place]
        durable = set()
        for sync in (op for op in seen if op.end <= place and op.kind in ("sync", "syncdir")):
            for number, op in enumerate(seen):
                if op.end >= sync.begin:
                    continue
                if sync.kind == "sync" and op.file == sync.file:
                    durable.add(number)
                elif sync.kind == "syncdir" and op.kind in ("names", "move"):
                    folders = {os.path.dirname(name) for name, _ in op.arguments[0]}
                    if sync.arguments[0] in folders:
                        durable.add(number)
        content, names = collections.defaultdict(bytearray), {}
        for number, op in enumerate(seen):
            if op.kind in ("sync", "syncdir"):
                continue
            is_durable = number in durable
            if not is_durable and not choice(rng):
                continue
            if op.kind == "names":
                for name, file in op.arguments[0]:
                    names[name] = file
                continue
            if op.kind == "move":
                (old, _), (new, _) = op.arguments[0]
                for name in [name for name in names if name.startswith(old + "/")]:
                    names[new + name[len(old):]] = names.pop(name)
                continue
            data = content[op.file]
            if op.kind == "size":
                size, cuts = op.arguments
                if cuts:
                    del data[size:]
                data.extend(bytes(max(0, size - len(data))))
                continue
            offset, piece = op.arguments if op.kind == "write" else (len(data), op.arguments[0])
            if not is_durable and rng.random() < 0.3:
                piece = piece[: rng.randrange(len(piece) + 1)]
            data.extend(bytes(max(0, offset + len(piece) - len(data))))
            data[offset : offset + len(piece)] = piece
        for name, file in names.items():
            if file is None:
                continue
            path = into / os.path.relpath(name, self.folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[file])


def states(arguments):
    home = pathlib.Path(tempfile.mkdtemp(prefix="power-cut-"))
    data, trace_file = home / "n1", home / "trace"
    data.mkdir()
    node = Node(arguments.binary, home, data)
    node.start(["strace", "-f", "-qq", "-y", "-xx", "-ttt", "-s", "1000000",
                "-e", f"trace={CALLS}", "-o", str(trace_file)])
    traffic = Traffic(node, 1)
    time.sleep(arguments.seconds)
    traffic.end()
    # The traced process, not strace.
    os.kill(int((data / "pid").read_text()), signal.SIGKILL)
    node.process.wait()
    trace = Trace(trace_file, data, arguments.plant)
    kinds = collections.Counter(op.kind for op in trace.ops)
    print(f"{trace.lines} calls, of changes {dict(kinds)}, {len(traffic.known)} known values")
    rng = random.Random(arguments.seed)
    subsets = [lambda _: False, lambda _: True, lambda r: r.random() < 0.5, lambda r: r.random() < 0.9]
    serving = next(at for at, _, _ in traffic.known)
    bad = late = 0
    for number in range(arguments.states):
        op = rng.choice(trace.ops)
        place = rng.choice([op.begin, op.end])
        shutil.rmtree(data)
        data.mkdir()
        trace.state(place, rng, subsets[number % len(subsets)], data)
        moment = trace.moment_after(place)
        late += moment > serving
        try:
            for _ in range(2):
                node.start()
                check(node, traffic.known_before(moment), traffic.sent)
                node.stop()
        except Failed as failed:
            bad += 1
            node.kill()
            kept = home / f"bad-{number}"
            shutil.copytree(data, kept)
            print(f"state {number} after line {place} ({op.kind}): {failed}\n  kept in {kept}")
        if (number + 1) % 50 == 0:
            print(f"{number + 1} states, {late} of them while values were known, {bad} bad", flush=True)
    print(f"{arguments.states} states, each started twice: {bad} violations")
    if not bad:
        shutil.rmtree(home)
    return bad


# --- crashes of a file system ---

def crashes(arguments):
    home = pathlib.Path(tempfile.mkdtemp(prefix="power-cut-"))
    image, mount = home / "image", home / "disk"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    rng, bad, known_total, first = random.Random(arguments.seed), 0, 0, 1
    known, sent = {}, {}
    try:
        subprocess.run(["mount", device, mount], check=True)
        node = Node(arguments.binary, home, mount / "n1")
        (mount / "n1").mkdir()
        os.sync()
        for number in range(arguments.crashes):
            node.start()
            check(node, known, sent)
            traffic = Traffic(node, first)
            time.sleep(rng.uniform(0.5, 4))
            before = time.time()
            folder = os.open(mount, os.O_RDONLY)
            fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            os.close(folder)
            node.kill()
            traffic.end()
            # What was known before; of the rest nobody can say.
            known.update(traffic.known_before(before))
            sent.update(traffic.sent)
            known_total += sum(at < before for at, _, _ in traffic.known)
            first = max(sent.values()) + 1
            subprocess.run(["umount", mount], check=True)
            subprocess.run(["mount", device, mount], check=True)
            print(f"crash {number + 1}: {known_total} known values so far", flush=True)
        node.start()
        check(node, known, sent)
        node.stop()
    except Failed as failed:
        bad = 1
        print(f"violation: {failed}")
        node.kill()
    finally:
        subprocess.run(["umount", "-l", mount])
        subprocess.run(["losetup", "-d", device])
    print(f"{arguments.crashes} crashes of the file system, {known_total} known values: {bad} violations")
    if not bad:
        shutil.rmtree(home)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["states", "crashes"])
    parser.add_argument("--binary", default="target/release/quorate")
    parser.add_argument("--states", type=int, default=300)
    parser.add_argument("--crashes", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=8, help="how long the traced node is written to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", action="store_true")
    arguments = parser.parse_args()
    arguments.binary = os.path.abspath(arguments.binary)
    sys.exit(1 if {"states": states, "crashes": crashes}[arguments.what](arguments) else 0)


if __name__ == "__main__":
    main()
