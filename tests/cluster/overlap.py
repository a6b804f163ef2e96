"""Whether what happens to a cluster happens in the middle of an operation: it has to be seen, not hoped for."""

import contextlib
import threading
import time
from dataclasses import dataclass


@dataclass
class Span:
    """One run of an operation; without an end it is under way."""

    kind: str
    began: float
    ended: float | None = None

    def covers(self, moment):
        """Whether it was under way then: begun before, and not ended."""
        return self.began < moment and (self.ended is None or moment < self.ended)


class Timeline:
    """When operations were under way, and when something happened to the cluster.

    Used by many threads at once. Times are seconds of `clock`.
    """

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.changed = threading.Condition()
        self.spans, self.moments = [], []

    @contextlib.contextmanager
    def operation(self, kind):
        """Notes when an operation begins and ends, however it ends."""
        span = Span(kind, self.clock())
        with self.changed:
            self.spans.append(span)
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                span.ended = self.clock()

    def happened(self, event):
        """Notes that an event has struck, right after it has."""
        with self.changed:
            self.moments.append((event, self.clock()))

    def await_begin(self, kind, over):
        """Waits until an operation of this kind is under way; false when `over` comes first."""

        def ready():
            return over.is_set() or self._is_under_way(kind)

        with self.changed:
            while not ready():
                # Nobody tells when all is over.
                self.changed.wait(0.05)
            return self._is_under_way(kind)

    def _is_under_way(self, kind):
        return any(span.kind == kind and span.ended is None for span in self.spans)

    def usual_seconds(self, kind):
        """How long the quickest run of an operation took that has ended; `None` before the first."""
        with self.changed:
            took = [s.ended - s.began for s in self.spans if s.kind == kind and s.ended is not None]
        return min(took, default=None)

    def overlaps(self, kind, event):
        """How many runs of an operation were under way when an event struck."""
        with self.changed:
            moments = [moment for name, moment in self.moments if name == event]
            spans = [span for span in self.spans if span.kind == kind]
        return sum(any(span.covers(moment) for moment in moments) for span in spans)

    def missing(self, kinds, events):
        """Pairs of an operation and an event that never met."""
        pairs = [(kind, event) for kind in kinds for event in events]
        return [pair for pair in pairs if not self.overlaps(*pair)]
