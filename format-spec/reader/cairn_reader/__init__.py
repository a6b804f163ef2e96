"""An independent reader of cairn repositories, written from ../SPEC.md alone.

Each module follows one part of the text, in its order:

    encoding.py   1 conventions, 2 limits
    crypto.py     1 and 3: hashes, key derivation, signatures, AEADs
    keys.py       3 keys, certificates, key slots
    envelope.py   4 objects and names, 5 the sealed envelope
    records.py    8 config, snapshot
    packs.py      6 packs, 7 index segments, and finding chunks
    tree.py       9 the tree
    restore.py    the tree into a file system
    repository.py the whole, opened with a credential

`python3 -m cairn_reader --help` tells how to run it, `requirements.txt` what it needs beside Python 3.11 on Linux;
`python3 -m unittest` tests it on repositories that `tiny_writer.py` makes, which is written from the text too.
"""
