"""Tests of what says that an event struck in the middle of an operation."""

import threading
import unittest

from overlap import Timeline


class Clock:
    """A clock that is set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class OverlapTest(unittest.TestCase):
    """Spans and moments on a clock that is set."""

    def setUp(self):
        self.clock = Clock()
        self.timeline = Timeline(self.clock)

    def run_operation(self, kind, began, ended, event=None, moment=None):
        """An operation, with an event in it where one is named."""
        self.clock.now = began
        with self.timeline.operation(kind):
            if event is not None:
                self.clock.now = moment
                self.timeline.happened(event)
            self.clock.now = ended

    def test_only_what_is_under_way_is_met(self):
        """Before, after, and at the very beginning or end is not in the middle."""
        self.run_operation("gc", 10, 20)
        for moment in (5, 10, 20, 25):
            self.clock.now = moment
            self.timeline.happened("kill")
        self.assertEqual(self.timeline.overlaps("gc", "kill"), 0)
        self.run_operation("gc", 30, 40, "kill", 35)
        self.assertEqual(self.timeline.overlaps("gc", "kill"), 1)

    def test_an_operation_that_fails_has_ended_all_the_same(self):
        """What an event made fail was under way when it struck, and not afterwards."""
        with self.assertRaises(ValueError), self.timeline.operation("backup"):
            self.clock.now = 1
            self.timeline.happened("cut")
            self.clock.now = 2
            raise ValueError
        self.clock.now = 3
        self.timeline.happened("kill")
        self.assertEqual(self.timeline.overlaps("backup", "cut"), 1)
        self.assertEqual(self.timeline.overlaps("backup", "kill"), 0)

    def test_every_pair_has_to_meet(self):
        """One of another kind does not count, nor another event."""
        self.run_operation("backup", 0, 10, "kill", 5)
        self.run_operation("restore", 20, 30, "cut", 25)
        missing = self.timeline.missing(("backup", "restore"), ("kill", "cut"))
        self.assertEqual(missing, [("backup", "cut"), ("restore", "kill")])

    def test_several_at_once_are_counted_each(self):
        """Eight that back up at once are met by one event."""
        with self.timeline.operation("backup"), self.timeline.operation("backup"):
            self.clock.now = 1
            self.timeline.happened("kill")
            self.clock.now = 2
        self.assertEqual(self.timeline.overlaps("backup", "kill"), 2)

    def test_the_quickest_run_is_the_usual_one(self):
        """One that hung must not let the next event come too late."""
        self.assertIsNone(self.timeline.usual_seconds("gc"))
        self.run_operation("gc", 0, 100)
        self.run_operation("gc", 200, 203)
        self.assertEqual(self.timeline.usual_seconds("gc"), 3)

    def test_a_beginning_is_waited_for_until_all_is_over(self):
        """An event that waits for an operation neither comes before it nor waits for ever."""
        over = threading.Event()
        seen = []
        waiter = threading.Thread(target=lambda: seen.append(self.timeline.await_begin("gc", over)))
        waiter.start()
        with self.timeline.operation("gc"):
            waiter.join()
        over.set()
        self.assertEqual(seen, [True])
        self.assertFalse(self.timeline.await_begin("gc", over))


if __name__ == "__main__":
    unittest.main()
