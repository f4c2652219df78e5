#!/usr/bin/env python3
"""Checks a transparency log in a directory: check_tlog.py DIR VKEY

Written from the documents alone (C2SP signed-note, tlog-checkpoint and tlog-tiles, RFC 6962, RFC 8032),
with nothing but Python's standard library, to read what another program wrote. Prints the size and the
root and ends with 0 when the signature, every entry and every tile are right; the first thing that is
not is an error. The Ed25519 check is the plain one of RFC 8032 6: good for a check, not for secrets.
"""
import base64
import hashlib
import pathlib
import sys

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def point(data):
    y = int.from_bytes(data, "little") & ((1 << 255) - 1)
    sign, u = data[31] >> 7, (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(u, (P + 3) // 8, P)
    if (x * x - u) % P:
        x = x * ROOT_OF_MINUS_1 % P
    assert y < P and (x * x - u) % P == 0 and (x or not sign), "not a point of the curve"
    x = P - x if x & 1 != sign else x
    return (x, y, 1, x * y % P)


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, a):
    total = (0, 1, 1, 0)
    while n:
        if n & 1:
            total = add(total, a)
        a, n = add(a, a), n >> 1
    return total


def ed25519_holds(key, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % Q
    base = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    a, b = times(s, base), add(point(r), times(k, point(key)))
    return s < Q and (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def signed_head(note, vkey):
    name, key_id, key = vkey.split("+", 2)
    key, key_id = base64.b64decode(key, validate=True), bytes.fromhex(key_id)
    assert key[0] == 1 and hashlib.sha256(name.encode() + b"\n" + key).digest()[:4] == key_id, "not a key"
    assert note.endswith("\n"), "not a note"
    at = note.rindex("\n\n")
    text, lines = note[: at + 1], note[at + 2 : -1].split("\n")
    lines = [line.split(" ") for line in lines]
    own = [base64.b64decode(line[2], validate=True) for line in lines if line[:2] == ["\u2014", name]]
    own = [signature[4:] for signature in own if signature[:4] == key_id]
    assert len(own) == 1 and ed25519_holds(key[1:], text.encode(), own[0]), "the signature does not hold"
    origin, size, root = text[:-1].split("\n")
    assert origin == name and str(int(size)) == size, "not a checkpoint"
    return int(size), base64.b64decode(root, validate=True)


def files(size, row):
    """The paths of one row of tiles, and how many things each holds."""
    for n in range((size + 255) // 256):
        groups, number = ["%03d" % (n % 1000)], n // 1000
        while number:
            groups, number = ["x%03d" % (number % 1000)] + groups, number // 1000
        width = min(256, size - n * 256)
        yield "tile/%s/%s%s" % (row, "/".join(groups), "" if width == 256 else ".p/%d" % width), width


def main(directory, vkey):
    directory = pathlib.Path(directory)
    size, root = signed_head((directory / "checkpoint").read_bytes().decode(), vkey)
    level = []
    for path, width in files(size, "entries"):
        data, at = (directory / path).read_bytes(), 0
        for _ in range(width):
            length = int.from_bytes(data[at : at + 2], "big")
            entry, at = data[at + 2 : at + 2 + length], at + 2 + length
            level.append(hashlib.sha256(b"\0" + entry).digest())
        assert at == len(data), path + " has the wrong length"
    height, peaks = 0, []
    while level:  # Level by level; an odd one out is a peak, and peaks join from the right.
        if height % 8 == 0:
            for n, (path, width) in enumerate(files(len(level), height // 8)):
                expected = b"".join(level[n * 256 : n * 256 + width])
                assert (directory / path).read_bytes() == expected, path + " differs"
        if len(level) % 2:
            peaks.append(level.pop())
        pairs = zip(level[::2], level[1::2])
        level, height = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs], height + 1
    found = peaks[0] if peaks else hashlib.sha256(b"").digest()
    for left in peaks[1:]:
        found = hashlib.sha256(b"\1" + left + found).digest()
    assert found == root, "the entries lead to another root"
    print(size, root.hex())


if __name__ == "__main__":
    main(*sys.argv[1:])
