#!/usr/bin/env python3
"""A small process-compose, for the check where there is none: the flags and keys that the dev cluster uses, with the same meaning; others are refused.

Processes start when what they depend on is healthy, are started again when they end, and are stopped in reverse order of their dependencies.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

KEYS = {
    "project": {"version", "is_strict", "ordered_shutdown", "processes"},
    "process": {"command", "environment", "depends_on", "readiness_probe", "log_location", "availability", "shutdown"},
    "probe": {"exec", "period_seconds", "timeout_seconds", "failure_threshold"},
    "availability": {"restart", "backoff_seconds"},
    "shutdown": {"signal", "timeout_seconds"},
}


def known(kind, mapping):
    unknown = set(mapping) - KEYS[kind]
    if unknown:
        sys.exit(f"process-compose: unknown keys of a {kind}: {sorted(unknown)}")
    return mapping


def expanded(text):
    """Fills in ${NAME}; a name that is not set is an error here, as it would be a bug there."""

    def value(match):
        name = match.group(1)
        if name not in os.environ:
            sys.exit(f"process-compose: ${{{name}}} is not set")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, text)


class Process:
    def __init__(self, name, config):
        self.name = name
        self.config = known("process", config)
        self.probe = known("probe", config["readiness_probe"])
        self.restarts = known("availability", config["availability"])["restart"] == "always"
        self.shutdown = known("shutdown", config["shutdown"])
        self.healthy = threading.Event()
        self.child = None
        self.stopping = False

    def needs(self):
        conditions = {wanted["condition"] for wanted in self.config.get("depends_on", {}).values()}
        if conditions - {"process_healthy"}:
            sys.exit(f"process-compose: {self.name} has an unknown condition")
        return list(self.config.get("depends_on", {}))

    def run(self, everyone):
        for name in self.needs():
            while not everyone[name].healthy.wait(0.1):
                if self.stopping:
                    return
        variables = dict(entry.split("=", 1) for entry in self.config.get("environment", []))
        with open(self.config["log_location"], "ab") as log:
            while not self.stopping:
                self.child = subprocess.Popen(
                    ["bash", "-c", self.config["command"]], env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
                )
                threading.Thread(target=self.watch, args=(self.child,), daemon=True).start()
                self.child.wait()
                self.healthy.clear()
                if not self.restarts:
                    return
                time.sleep(self.config["availability"]["backoff_seconds"])

    def watch(self, child):
        while child.poll() is None and not self.healthy.is_set():
            try:
                answer = subprocess.run(
                    ["bash", "-c", self.probe["exec"]["command"]], timeout=self.probe["timeout_seconds"], capture_output=True, check=False
                )
                if answer.returncode == 0:
                    self.healthy.set()
            except subprocess.TimeoutExpired:
                pass
            time.sleep(self.probe["period_seconds"] / 4)

    def stop(self):
        self.stopping = True
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(self.shutdown["signal"])
        try:
            self.child.wait(self.shutdown["timeout_seconds"])
        except subprocess.TimeoutExpired:
            self.child.kill()


def main():
    arguments = argparse.ArgumentParser(prog="process-compose", allow_abbrev=False)
    arguments.add_argument("command", choices=["up"])
    arguments.add_argument("--config", required=True)
    arguments.add_argument("--tui", choices=["false"], required=True)
    arguments.add_argument("--log-file", required=True)
    arguments.add_argument("--unix-socket", required=True)
    for flag in ["--ordered-shutdown", "--disable-dotenv", "--use-uds"]:
        arguments.add_argument(flag, action="store_true", required=True)
    given = arguments.parse_args()
    project = known("project", json.loads(expanded(open(given.config).read())))
    everyone = {name: Process(name, config) for name, config in project["processes"].items()}
    threads = [threading.Thread(target=process.run, args=(everyone,), daemon=True) for process in everyone.values()]
    for thread in threads:
        thread.start()

    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(0.2):
        pass
    left = dict(everyone)
    while left:
        needed = {name for process in left.values() for name in process.needs()}
        last = [name for name in left if name not in needed]
        stops = [threading.Thread(target=left.pop(name).stop) for name in last]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()


main()
