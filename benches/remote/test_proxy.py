"""Tests of what counts requests."""

import collections
import unittest

from proxy import Requests


class RequestsAreCounted(unittest.TestCase):
    """Whatever the pieces in which they come."""

    STREAM = (
        b"PUT /b/x HTTP/1.1\r\nContent-Length: 21\r\n\r\nGET / HTTP/1.1\r\n\r\nabc"
        b"GET /b?list-type=2&prefix=p HTTP/1.1\r\n\r\n"
        b"HEAD /b/x HTTP/1.1\r\nHost: h\r\n\r\n"
    )

    def test_in_pieces_of_any_size(self):
        for size in range(1, len(self.STREAM) + 1):
            counts = collections.Counter()
            requests = Requests(counts)
            for start in range(0, len(self.STREAM), size):
                requests.feed(self.STREAM[start : start + size])
            self.assertEqual(counts, {"PUT": 1, "LIST": 1, "HEAD": 1}, size)

    def test_what_cannot_be_counted_is_not_passed_over(self):
        for bad in (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"x" * 70000):
            with self.assertRaises(ValueError):
                Requests(collections.Counter()).feed(bad)


if __name__ == "__main__":
    unittest.main()
