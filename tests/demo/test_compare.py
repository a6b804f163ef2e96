"""The judge of the demo must see each kind of difference, and none where there is none."""

import os
import shutil
import subprocess
import tempfile
import unittest

import compare_trees
import tree

TIME_NS = 1_600_000_000_987_654_321


def _fill(root):
    os.makedirs(f"{root}/sub/deep")
    for name, content in (("a", b"alpha"), ("b", b"beta"), ("sub/c", b"c" * 3_000_000)):
        with open(f"{root}/{name}", "wb") as out:
            out.write(content)
    os.link(f"{root}/a", f"{root}/sub/a2")
    os.symlink("a", f"{root}/link")
    os.mkfifo(f"{root}/fifo")
    with open(f"{root}/sparse", "wb") as out:
        out.write(b"head")
        out.seek(8 << 20)
        out.write(b"middle")
        out.truncate(16 << 20)
    try:
        os.setxattr(f"{root}/b", "user.test", b"value")
    except OSError:
        pass
    for name in ("a", "b", "sub/c", "link", "fifo", "sparse", "sub/deep", "sub", "."):
        os.utime(f"{root}/{name}", ns=(TIME_NS, TIME_NS), follow_symlinks=False)


class CompareTrees(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cairn-compare-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.left, self.right = f"{self.folder}/left", f"{self.folder}/right"
        _fill(self.left)
        _fill(self.right)

    def found(self, **options):
        return list(compare_trees.differences(self.left, self.right, **options))

    def expect(self, path, aspect):
        seen = [(os.fsdecode(one.path), one.aspect) for one in self.found()]
        self.assertIn((path, aspect), seen)

    def only(self, name):
        """The one difference, once `name` has its time of modification back."""
        os.utime(f"{self.right}/{name}", ns=(TIME_NS, TIME_NS))
        (only,) = self.found()
        return only

    def test_equal_trees_have_no_difference(self):
        self.assertEqual(self.found(), [])

    def test_one_changed_byte_is_found_with_its_place(self):
        with open(f"{self.right}/sub/c", "r+b") as out:
            out.seek(2_500_000)
            out.write(b"x")
        only = self.only("sub/c")
        self.assertEqual((only.path, only.aspect), (b"sub/c", "content"))
        self.assertIn("2500000", str(only))

    def test_a_shorter_file_is_found(self):
        os.truncate(f"{self.right}/b", 3)
        self.expect("b", "size")

    def test_a_missing_and_an_extra_name_are_found(self):
        os.unlink(f"{self.right}/b")
        os.mkdir(f"{self.right}/extra")
        self.expect("b", "presence")
        self.expect("extra", "presence")

    def test_another_type_is_found(self):
        os.unlink(f"{self.right}/b")
        os.symlink("a", f"{self.right}/b")
        self.expect("b", "type")

    def test_another_mode_is_found(self):
        os.chmod(f"{self.right}/b", 0o4711)
        self.expect("b", "mode")

    def test_the_mode_of_the_root_is_compared(self):
        os.chmod(self.right, 0o711)
        self.expect(".", "mode")

    @unittest.skipIf(os.geteuid() != 0, "only root gives files away")
    def test_another_owner_and_group_are_found(self):
        os.lchown(f"{self.right}/link", 12, -1)
        os.chown(f"{self.right}/b", -1, 34)
        self.expect("link", "owner")
        self.expect("b", "owner")

    def test_one_nanosecond_is_found_on_files_folders_and_links(self):
        for name in ("b", "sub/deep", "link"):
            os.utime(
                f"{self.right}/{name}", ns=(TIME_NS, TIME_NS + 1), follow_symlinks=False
            )
            self.expect(name, "time of modification")

    def test_another_link_target_is_found(self):
        os.unlink(f"{self.right}/link")
        os.symlink("b", f"{self.right}/link")
        self.expect("link", "link target")

    def test_a_broken_hard_link_is_found(self):
        os.unlink(f"{self.right}/sub/a2")
        shutil.copy2(f"{self.right}/a", f"{self.right}/sub/a2")
        self.expect("sub/a2", "hard link to")

    def test_a_hard_link_too_many_is_found(self):
        for side in (self.left, self.right):
            with open(f"{side}/same", "wb") as out:
                out.write(b"alpha")
            os.utime(f"{side}/same", ns=(TIME_NS, TIME_NS))
        os.unlink(f"{self.right}/same")
        os.link(f"{self.right}/a", f"{self.right}/same")
        self.expect("same", "hard link to")

    def test_changed_missing_and_extra_attributes_are_found(self):
        try:
            os.setxattr(f"{self.right}/b", "user.test", b"other")
        except OSError:
            self.skipTest("no extended attributes here")
        self.expect("b", "extended attributes")
        os.removexattr(f"{self.right}/b", "user.test")
        self.expect("b", "extended attributes")
        os.setxattr(f"{self.right}/sub", "user.more", b"")
        self.expect("sub", "extended attributes")

    @unittest.skipIf(shutil.which("setfacl") is None, "setfacl is not installed")
    def test_another_acl_is_found(self):
        done = subprocess.run(
            ["setfacl", "-m", "u:77:r", f"{self.right}/a"], capture_output=True, check=False
        )
        if done.returncode != 0:
            self.skipTest("no access control lists here")
        self.expect("a", "extended attributes")

    def test_a_filled_hole_is_found(self):
        if os.stat(f"{self.left}/sparse").st_blocks * 512 >= 16 << 20:
            self.skipTest("this file system has no holes")
        with open(f"{self.right}/sparse", "r+b") as out:
            out.seek(12 << 20)
            out.write(bytes(1 << 20))
        only = self.only("sparse")
        self.assertEqual((only.path, only.aspect), (b"sparse", "hole"))

    def test_data_in_a_hole_is_found_on_either_side(self):
        for side in (self.left, self.right):
            with open(f"{side}/sparse", "r+b") as out:
                out.seek(12 << 20)
                out.write(b"here")
            self.assertIn("content", [one.aspect for one in self.found()])
            with open(f"{side}/sparse", "r+b") as out:
                out.seek(12 << 20)
                out.write(b"\0\0\0\0")

    def test_a_hole_more_is_no_difference(self):
        for side, write in ((self.left, True), (self.right, False)):
            with open(f"{side}/zeros", "wb") as out:
                out.write(bytes(1 << 20)) if write else out.truncate(1 << 20)
            os.utime(f"{side}/zeros", ns=(TIME_NS, TIME_NS))
            os.utime(side, ns=(TIME_NS, TIME_NS))
        self.assertEqual(self.found(), [])

    def test_content_only_ignores_metadata_and_sees_content(self):
        os.chmod(f"{self.right}/b", 0o600)
        os.utime(f"{self.right}/b")
        self.assertEqual(self.found(content_only=True), [])
        with open(f"{self.right}/b", "wb") as out:
            out.write(b"BETA")
        self.assertEqual([one.aspect for one in self.found(content_only=True)], ["content"])


class DemoTree(unittest.TestCase):
    def test_two_builds_are_equal_and_a_day_of_changes_is_seen(self):
        with tempfile.TemporaryDirectory(prefix="cairn-tree-") as folder:
            for side in ("left", "right"):
                tree.build(f"{folder}/{side}", 0.01)
            same = compare_trees.differences(f"{folder}/left", f"{folder}/right", content_only=True)
            self.assertEqual(list(same), [])
            tree.change(f"{folder}/right")
            found = compare_trees.differences(f"{folder}/left", f"{folder}/right")
            aspects = {one.aspect for one in found}
            wanted = {"presence", "content", "type", "mode", "link target", "hard link to"}
            self.assertLessEqual(wanted, aspects)


if __name__ == "__main__":
    unittest.main()
