"""Tests of what judges: the journal, the verdicts, the copies of sources, the plots."""

import argparse
import datetime
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "../history"))
sys.path.insert(0, os.path.join(HERE, "../../tests/demo"))

import chronicle
import cluster
import plot
import report
import svg
from journal import Journal
from samples import by_phase
from verdicts import verdicts


def sample(phase, tool, seconds, added=10, **more):
    values = {
        "phase": phase,
        "tool": tool,
        "source_bytes": 10**9,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "rss_bytes_max": 100 << 20,
        "added_bytes": added,
        "repository_bytes": 1000,
        "load": 0.1,
    }
    return {**values, **more}


def workload(name, own_seconds, peer_seconds, **own):
    phases = ("first", "unchanged", "touched", "second day", "verify", "restore")
    samples = [sample(phase, "cairn", own_seconds, **own) for phase in phases]
    samples += [sample(phase, "borg", peer_seconds) for phase in phases]
    return {
        "name": name,
        "title": "made up <&>",
        "rounds": 1,
        "source_bytes": 10**9,
        "phases": by_phase(samples),
    }


class Journals(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "journal.jsonl")

    def one_round(self, journal, number, seconds, end=True):
        journal.begin("dump", number)
        journal.measured("dump", number, **sample("first", "cairn", seconds))
        if end:
            journal.end("dump", number)

    def test_whole_rounds_are_found_again(self):
        self.one_round(Journal(self.path, "a"), 0, 1.5)
        again = Journal(self.path, "a")
        self.assertTrue(again.has("dump", 0))
        self.assertEqual([line["seconds"] for line in again.samples("dump")], [1.5])

    def test_an_interrupted_round_is_measured_again_and_counts_once(self):
        self.one_round(Journal(self.path, "a"), 0, 1.5, end=False)
        again = Journal(self.path, "a")
        self.assertFalse(again.has("dump", 0))
        self.one_round(again, 0, 2.5)
        found = Journal(self.path, "a").samples("dump")
        self.assertEqual([line["seconds"] for line in found], [2.5])

    def test_a_line_cut_off_hurts_no_other(self):
        self.one_round(Journal(self.path, "a"), 0, 1.5)
        with open(self.path, "a", encoding="utf-8") as out:
            out.write('{"key": "a", "type": "beg')
        self.one_round(Journal(self.path, "a"), 1, 2.5)
        again = Journal(self.path, "a")
        self.assertTrue(again.has("dump", 0) and again.has("dump", 1))

    def test_lines_of_other_conditions_do_not_count(self):
        self.one_round(Journal(self.path, "a"), 0, 1.5)
        self.assertFalse(Journal(self.path, "b").has("dump", 0))


class Verdicts(unittest.TestCase):
    def words(self, found, scale=1.0):
        return {verdict.measure: verdict.word() for verdict in verdicts(found, scale, 2)}

    def test_ratios_decide(self):
        words = self.words(workload("random", 3.5, 10))
        self.assertEqual(words["first backup, wall"], "pass")
        self.assertEqual(words["first backup, CPU"], "pass")
        self.assertEqual(words["second day, wall"], "aim")
        self.assertEqual(words["full verify, wall"], "aim")
        words = self.words(workload("random", 5.5, 10))
        self.assertEqual(words["first backup, wall"], "FAIL")
        self.assertEqual(words["second day, wall"], "pass")
        self.assertEqual(words["full restore, wall"], "FAIL")

    def test_bytes_follow_the_scale(self):
        found = workload("pgdata", 1, 10, added=8 << 20)
        self.assertEqual(self.words(found)["second day, added"], "pass")
        self.assertEqual(self.words(found, 0.5)["second day, added"], "FAIL")
        self.assertEqual(self.words(found, 2)["second day, added"], "aim")

    def test_rates_are_to_be_high(self):
        self.assertEqual(self.words(workload("dump", 0.6, 9))["re-read, all known, per core"], "FAIL")
        self.assertEqual(self.words(workload("dump", 0.4, 9))["re-read, all known, per core"], "pass")
        self.assertEqual(self.words(workload("dump", 0.2, 9))["re-read, all known, per core"], "aim")

    def test_memory_is_judged_by_its_highest_peak(self):
        found = workload("random", 1, 10)
        found["phases"]["verify"]["cairn"].append(sample("", "", 1, rss_bytes_max=300 << 20))
        self.assertEqual(self.words(found)["peak memory"], "FAIL")

    def test_without_a_peer_nothing_is_compared(self):
        found = workload("random", 1, 10)
        for tools in found["phases"].values():
            del tools["borg"]
        self.assertEqual(list(self.words(found)), ["peak memory"])


class Sources(unittest.TestCase):
    def test_a_tree_is_made_equal_in_place(self):
        with tempfile.TemporaryDirectory() as folder:
            one, two = os.path.join(folder, "one"), os.path.join(folder, "two")
            for root, names in ((one, ("same", "changed", "a/new")), (two, ("same", "changed", "b/gone"))):
                for name in names:
                    path = os.path.join(root, name)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "w", encoding="ascii") as out:
                        out.write(name if name != "changed" else root)
                    os.utime(path, ns=(5, 5) if name == "same" else (7, 7 + len(root)))
            os.symlink("same", os.path.join(one, "link"))
            os.makedirs(os.path.join(one, "log"))
            os.utime(os.path.join(two, "changed"), ns=(1, 1))
            with open(os.path.join(one, "log/left out"), "w", encoding="ascii"):
                pass
            inode = os.stat(os.path.join(two, "changed")).st_ino
            cluster.update_tree(one, two, ("log",))
            self.assertEqual(sorted(os.listdir(two)), ["a", "changed", "link", "log", "same"])
            self.assertEqual(os.listdir(os.path.join(two, "log")), [])
            with open(os.path.join(two, "changed"), encoding="ascii") as file:
                self.assertEqual(file.read(), one)
            self.assertEqual(os.stat(os.path.join(two, "changed")).st_ino, inode)


class Reports(unittest.TestCase):
    def result(self):
        return {
            "when": "today",
            "machine": report.machine(),
            "condition": "none",
            "rounds": 1,
            "scale": 1.0,
            "tools": {"borg": "borg 1", "cairn": "cairn 0"},
            "workloads": [workload("dump", 1, 10), workload("small", 2, 10)],
            "skipped": {"large": "no room"},
        }

    def test_a_comparison_has_verdicts_tables_and_plots(self):
        text = report.markdown(self.result())
        self.assertIn("| dump | first backup, wall | 0.10 x |", text)
        self.assertIn("Not measured: large: no room.", text)
        for image in (plot.times(self.result()), plot.added_bytes(self.result())):
            xml.etree.ElementTree.fromstring(image)

    def test_ticks_are_round_and_reach_the_highest(self):
        for highest in (0.0003, 0.7, 1, 3, 29, 30, 720, 12345.6):
            ticks = svg.ticks(highest)
            self.assertGreaterEqual(ticks[-1], highest * (1 - 1e-9))
            self.assertTrue(4 <= len(ticks) <= 8, (highest, ticks))

    def test_a_history_compares_late_with_early_and_with_the_smallest_peer(self):
        begin = {
            "when": "today",
            "machine": report.machine(),
            "condition": "none",
            "rules": {"daily": 30},
            "sources": ["dump"],
            "tools": {"cairn": "cairn 0", "borg": "borg 1", "restic": "restic 2"},
            "scale": 1.0,
            "period": "hour",
            "collects": False,
            "rss_bytes_floor": 1,
        }
        extra = {"objects": 3, "cache_bytes": 5, "what": "dump"}
        lines = []
        for step in range(1, 41):
            for tool, stored in (("cairn", 100), ("borg", 1000), ("restic", 1200)):
                seconds = 2.0 if tool == "cairn" and step > 30 else 1.0
                one = sample("", tool, seconds, repository_bytes=stored * step)
                lines.append({**one, **extra, "step": step})
        text = chronicle.markdown(begin, lines, "image.svg")
        self.assertIn("| CPU seconds | 1.00 | 2.00 | 2.00 | **FAIL** |", text)
        self.assertIn("smallest peer: 0.100, must be at most 0.15, aim 0.08: **pass**", text)
        xml.etree.ElementTree.fromstring(chronicle.chart(begin, lines))

    def test_nights_come_each_day(self):
        hours = argparse.Namespace(days=None, hours=48)
        self.assertEqual([step for step in range(1, 49) if chronicle.is_night(hours, step)], [24, 48])
        self.assertEqual(chronicle.steps(hours), (48, datetime.timedelta(hours=1)))


if __name__ == "__main__":
    unittest.main()
