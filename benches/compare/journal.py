"""What was measured, kept line by line, so that an interrupted run goes on where it was."""

import json
import os


class Journal:
    """JSON lines in one file: a `round` is one turn of one workload, whole or not at all.

    Lines are written as they are measured. A round that lacks its closing line is measured
    again. `key` says what must be the same for two lines to belong together; lines of another
    key stay in the file and count for nothing.
    """

    def __init__(self, path, key):
        self.path = path
        self.key = key
        self.rounds = {}
        self._open = []
        self._load()

    def _load(self):
        if not os.path.exists(self.path):
            return
        self._close_last_line()
        waiting = {}
        with open(self.path, encoding="utf-8") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    # A run that was killed while it wrote.
                    continue
                if entry.get("key") != self.key:
                    continue
                place = entry["workload"], entry["round"]
                if entry["type"] == "begin":
                    waiting[place] = []
                elif entry["type"] == "measured":
                    waiting.setdefault(place, []).append(entry)
                elif entry["type"] == "end":
                    self.rounds[place] = waiting.pop(place, [])

    def _close_last_line(self):
        with open(self.path, "rb+") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def _write(self, entry):
        with open(self.path, "a", encoding="utf-8") as out:
            out.write(json.dumps({"key": self.key, **entry}) + "\n")
            out.flush()
            os.fsync(out.fileno())

    def has(self, workload, number):
        """Whether that round was measured to its end."""
        return (workload, number) in self.rounds

    def begin(self, workload, number):
        """Begins a round; what an earlier attempt at it measured counts no more."""
        self._open = []
        self._write({"type": "begin", "workload": workload, "round": number})

    def measured(self, workload, number, **values):
        """Keeps one measurement of the round that was begun."""
        entry = {"type": "measured", "workload": workload, "round": number, **values}
        self._open.append(entry)
        self._write(entry)

    def end(self, workload, number):
        """The round is complete."""
        self._write({"type": "end", "workload": workload, "round": number})
        self.rounds[workload, number] = self._open

    def samples(self, workload):
        """All measurements of complete rounds of a workload, in the order of the rounds."""
        return [
            entry
            for (name, _), entries in sorted(self.rounds.items())
            if name == workload
            for entry in entries
        ]
