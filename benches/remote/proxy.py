"""A proxy on loopback that counts the HTTP requests it passes on, and lets answers come later."""

import asyncio
import collections
import threading

PIECE_BYTES = 256 << 10
HEAD_BYTES_MAX = 64 << 10


class Requests:
    """Finds the requests in what a client sends on one connection."""

    def __init__(self, counts):
        self.counts = counts
        self.head = bytearray()
        self.body_left = 0

    def feed(self, data):
        """Takes the next bytes."""
        while data:
            if self.body_left > 0:
                skipped = min(self.body_left, len(data))
                self.body_left -= skipped
                data = data[skipped:]
                continue
            self.head += data
            data = b""
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                if len(self.head) > HEAD_BYTES_MAX:
                    raise ValueError("no end of a head")
                return
            data = bytes(self.head[end + 4 :])
            self._count(bytes(self.head[:end]))
            self.head.clear()

    def _count(self, head):
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        fields = dict(line.lower().split(":", 1) for line in lines[1:] if ":" in line)
        if "chunked" in fields.get("transfer-encoding", ""):
            raise ValueError("a body of unknown length")
        self.body_left = int(fields.get("content-length", "0"))
        lists = ("list-type=", "?prefix=", "&prefix=")
        if method == "GET" and any(part in target for part in lists):
            method = "LIST"
        self.counts[method] += 1


class Proxy:
    """Passes connections on to a port until it is closed."""

    def __init__(self, server_port, delay_seconds=0.0):
        self.counts = collections.Counter()
        self.delay = delay_seconds
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.port = 0

        async def listen():
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE_BYTES)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()

        self._loop.create_task(listen())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        ready.wait()

    def taken(self):
        """The requests since the last time this was asked, by kind."""
        counts = dict(self.counts)
        self.counts.clear()
        return counts

    def close(self):
        """Ends it, and what still waits."""

        async def end():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            above, below = await asyncio.open_connection(
                "127.0.0.1", self._server_port, limit=PIECE_BYTES
            )
        except OSError:
            writer.close()
            return
        requests = Requests(self.counts)
        try:
            await asyncio.gather(
                self._pass(reader, below, requests.feed, 0.0),
                self._pass(above, writer, None, self.delay),
                return_exceptions=True,
            )
        except asyncio.CancelledError:
            # The proxy is closed while a client keeps its connection.
            pass
        for end in (writer, below):
            end.close()

    async def _pass(self, reader, writer, look, delay):
        """Passes bytes on, each piece so long after it came, in their order and without holding up
        those that follow."""
        queue = asyncio.Queue(maxsize=256)

        async def write():
            while True:
                due, data = await queue.get()
                wait = due - self._loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

        writing = asyncio.ensure_future(write())
        try:
            while data := await reader.read(PIECE_BYTES):
                if look:
                    look(data)
                await queue.put((self._loop.time() + delay, data))
            await queue.put((self._loop.time() + delay, b""))
            await writing
        finally:
            writing.cancel()
