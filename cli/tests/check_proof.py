#!/usr/bin/env python3
"""Checks a proof of an entry: check_proof.py PROOF POLICY

Written from the documents alone (C2SP tlog-proof, tlog-policy, tlog-cosignature and signed-note, RFC 6962),
as somebody would who has no openfang. The curve is that of check_tlog.py, which stands in kernel/audit/tests.
The entry is the one in the extra line. Prints the number of the entry and how many witnesses have cosigned
the head, and ends with 0 when all of it holds.
"""
import base64
import hashlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "kernel/audit/tests"))
from check_tlog import ed25519_holds  # noqa: E402


def b64(text):
    return base64.b64decode(text, validate=True)


def vkey(text):
    name, key_id, key = text.split("+", 2)
    key, key_id = b64(key), bytes.fromhex(key_id)
    assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4] == key_id, "not a key"
    return name, key_id, key[0], key[1:]


def main(proof, policy):
    header, rest = pathlib.Path(proof).read_text().split("\n", 1)
    assert header == "c2sp.org/tlog-proof@v1"
    extra, rest = rest.split("\n", 1)
    entry = b64(extra.removeprefix("extra "))
    index, rest = rest.split("\n", 1)
    index = int(index.removeprefix("index "))
    hashes, note = rest.split("\n\n", 1) if not rest.startswith("\n") else ("", rest[1:])
    hashes = [b64(line) for line in hashes.split("\n") if line]
    at = note.rindex("\n\n")
    text, lines = note[: at + 1], [line.split(" ") for line in note[at + 2 : -1].split("\n")]
    origin, size, root = text[:-1].split("\n")
    size, root = int(size), b64(root)
    # RFC 9162 2.1.3.2, in its words.
    assert index < size
    fn, sn, r = index, size - 1, hashlib.sha256(b"\0" + entry).digest()
    for p in hashes:
        assert sn, "too many hashes"
        if fn & 1 or fn == sn:
            r = hashlib.sha256(b"\1" + p + r).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = hashlib.sha256(b"\1" + r + p).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0 and r == root, "the entry does not lead to the root"

    def line_of(name, key_id):
        found = [b64(line[2]) for line in lines if line[:2] == ["\u2014", name]]
        return [signature[4:] for signature in found if signature[:4] == key_id]

    cosigned, members, needed, signed = set(), [], 0, False
    for words in [line.split() for line in pathlib.Path(policy).read_text().split("\n")]:
        if words[:1] == ["log"]:
            name, key_id, kind, key = vkey(words[1])
            own = line_of(name, key_id)
            signed = kind == 1 and name == origin and ed25519_holds(key, text.encode(), own[0])
        elif words[:1] == ["witness"]:
            name, key_id, kind, key = vkey(words[2])
            assert kind == 4
            for signature in line_of(name, key_id):
                time = int.from_bytes(signature[:8], "big")
                message = "cosignature/v1\ntime %d\n%s" % (time, text)
                assert ed25519_holds(key, message.encode(), signature[8:]), "a false cosignature"
                cosigned.add(words[1])
        elif words[:1] == ["group"]:
            needed, members = int(words[2]), words[3:]
    assert signed, "not signed by the log"
    assert len(cosigned & set(members)) >= needed, "below the quorum"
    print(index, len(cosigned))


if __name__ == "__main__":
    main(*sys.argv[1:])
