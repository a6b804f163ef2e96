"""A snapshot's tree into an empty folder: content, then what section 9 says of each entry."""

import os
import resource
import stat
from dataclasses import dataclass

from .encoding import CairnError, NESTING_MAX
from .tree import (BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, directory_entries,
                   file_extents)

NODE_TYPES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ACL_PREFIX = b"system.posix_acl_"


@dataclass
class Level:
    """A directory that is being restored."""
    handle: int
    path: bytes           # below the target, for messages and hard links
    entry: object         # None for the target itself
    entries: object       # iterator


class Restore:
    """Restores whole snapshots. What fails is reported through `problem` and left out; the rest goes on."""

    def __init__(self, chunks, target, problem):
        self.chunks = chunks
        self.problem = problem
        self.is_root = os.geteuid() == 0
        self.links = {}   # (device, inode) -> (path, content)
        self.target = os.fsencode(target)

    def run(self, root_node):
        """One directory handle is open per level, so that no path is ever looked up through what was restored."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.makedirs(self.target, exist_ok=True)
        if os.listdir(self.target):
            raise CairnError(f"{os.fsdecode(self.target)}: the target is not empty")
        self.root = os.open(self.target, FOLDER_FLAGS)
        stack = [Level(self.root, b"", None, directory_entries(self.chunks, root_node))]
        while stack:
            entry = self._next(stack[-1])
            if entry is None:
                self._leave(stack)
            elif entry.kind == DIRECTORY:
                self._enter(stack, entry)
            else:
                self._guard(stack[-1], entry, self._make)

    def _next(self, level):
        try:
            return next(level.entries, None)
        except (CairnError, OSError) as error:
            self.problem(f"{_show(level.path)}/: incomplete: {error}")
            return None

    def _guard(self, level, entry, action):
        try:
            action(level, entry)
        except (CairnError, OSError) as error:
            self.problem(f"{_show(level.path + b'/' + entry.name)}: {error}")

    # Directories

    def _enter(self, stack, entry):
        def make(level, entry):
            if len(stack) > NESTING_MAX:
                raise CairnError(f"directories nest more than {NESTING_MAX} deep")
            os.mkdir(entry.name, 0o700, dir_fd=level.handle)
            handle = os.open(entry.name, FOLDER_FLAGS, dir_fd=level.handle)
            stack.append(Level(handle, level.path + b"/" + entry.name, entry, directory_entries(self.chunks, entry.node)))
        self._guard(stack[-1], entry, make)

    def _leave(self, stack):
        """Attributes come last, as entries made in a directory change its time, and its mode may forbid making them."""
        level = stack[-1]
        if level.entry is not None:
            self._guard(stack[-2], level.entry, self._set_attributes)
        os.close(stack.pop().handle)

    # Everything else

    def _make(self, level, entry):
        if entry.link is not None and self._link(level, entry):
            return
        if entry.kind == FILE:
            self._make_file(level, entry)
        elif entry.kind == SYMLINK:
            os.symlink(entry.target, entry.name, dir_fd=level.handle)
        else:
            device = os.makedev(*entry.device) if entry.device else 0
            os.mknod(entry.name, NODE_TYPES[entry.kind] | 0o600, device, dir_fd=level.handle)
        self._set_attributes(level, entry)
        if entry.link is not None:
            self.links.setdefault(entry.link, (level.path + b"/" + entry.name, entry.content))

    def _link(self, level, entry):
        """True if the entry became another name of a file restored before."""
        path, content = self.links.get(entry.link, (None, None))
        if path is None:
            return False
        if content != entry.content:
            self.problem(f"{_show(level.path + b'/' + entry.name)}: a hard link to {_show(path)} with other content; "
                         "restored as a file of its own")
            return False
        try:
            os.link(path[1:], entry.name, src_dir_fd=self.root, dst_dir_fd=level.handle, follow_symlinks=False)
            return True
        except OSError as error:
            self.problem(f"{_show(level.path + b'/' + entry.name)}: restored as a file of its own: {error}")
            return False

    def _make_file(self, level, entry):
        """A file whose content fails is removed: there is no wrong output, only missing output that is reported."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(entry.name, flags, 0o600, dir_fd=level.handle)
        try:
            with os.fdopen(handle, "wb") as file:
                self._write(file, entry)
        except BaseException:
            os.unlink(entry.name, dir_fd=level.handle)
            raise

    def _write(self, file, entry):
        position = 0
        for length, identity in file_extents(self.chunks, entry):
            if identity is not None:
                file.seek(position)
                file.write(self.chunks.data(identity, length))
            position += length
        file.truncate(entry.size)

    # Attributes

    def _set_attributes(self, level, entry):
        """Owner before mode (chown clears set-id bits) and xattrs; ACLs after mode (chmod changes them); time last."""
        path = b"/proc/self/fd/%d/" % level.handle + entry.name
        steps = []
        if self.is_root:
            steps.append(lambda: os.chown(path, entry.uid, entry.gid, follow_symlinks=False))
        steps += [self._xattr(path, pair) for pair in entry.xattrs if not pair[0].startswith(ACL_PREFIX)]
        if entry.kind != SYMLINK:
            steps.append(lambda: os.chmod(path, entry.mode))
        steps += [self._xattr(path, pair) for pair in entry.xattrs if pair[0].startswith(ACL_PREFIX)]
        steps.append(lambda: os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False))
        for step in steps:
            try:
                step()
            except (OSError, ValueError, OverflowError) as error:
                self.problem(f"{_show(level.path + b'/' + entry.name)}: attributes: {error}")

    @staticmethod
    def _xattr(path, pair):
        return lambda: os.setxattr(path, pair[0], pair[1], follow_symlinks=False)


def _show(path):
    """A path for messages: names are bytes and may hold anything a terminal obeys."""
    return ascii(path.decode("utf-8", "surrogateescape"))
