#!/usr/bin/env python3
"""Test vectors of the layer cipher (spec/layer.md), by a second implementation.

Slow, not constant time, and written from the definitions: it is for checking
other implementations and for nothing else. Python's standard library alone.

    python3 spec/vectors/layer.py > spec/vectors/layer.json

The vectors are whole circuits. "hops" has the keys of each hop, 80 bytes for
each direction. Cells follow one another and all keys move with them. The body
of a cell starts as SHAKE-128 of its "seed", n bytes; Seal overwrites the tag.
"steps" are the operations done to it in turn, each with the tag (the first 16
bytes of the body) and the SHA-256 of the whole body after it, and for a Peel
whether the cell ended there. A cell of no "hop" is noise that no one knows.
"""

import hashlib
import json
import sys

# --- AES-128 (FIPS 197), from its definition ---


def gf256_mul(a, b):
    r = 0
    while b:
        if b & 1:
            r ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11B
        b >>= 1
    return r


def make_sbox():
    box = []
    for x in range(256):
        inverse = 0
        for y in range(256):
            if gf256_mul(x, y) == 1:
                inverse = y
        s = 0
        for i in range(8):
            bit = 0x63 >> i
            for j in (0, 4, 5, 6, 7):
                bit ^= inverse >> ((i + j) % 8)
            s |= (bit & 1) << i
        box.append(s)
    return box


TIMES = {c: [gf256_mul(c, x) for x in range(256)] for c in (2, 3, 9, 11, 13, 14)}
SBOX = make_sbox()
UNSBOX = [SBOX.index(x) for x in range(256)]


def aes_schedule(key):
    words = [list(key[4 * i : 4 * i + 4]) for i in range(4)]
    round_constant = 1
    for i in range(4, 44):
        w = list(words[i - 1])
        if i % 4 == 0:
            w = [SBOX[x] for x in w[1:] + w[:1]]
            w[0] ^= round_constant
            round_constant = gf256_mul(round_constant, 2)
        words.append([x ^ y for x, y in zip(words[i - 4], w)])
    return [sum(words[4 * r : 4 * r + 4], []) for r in range(11)]


def mix(state, a, b, c, d):
    """Multiplies each column by the matrix whose first row is a b c d (tables)."""
    out = []
    for i in range(0, 16, 4):
        w, x, y, z = state[i : i + 4]
        out += [
            a[w] ^ b[x] ^ c[y] ^ d[z],
            d[w] ^ a[x] ^ b[y] ^ c[z],
            c[w] ^ d[x] ^ a[y] ^ b[z],
            b[w] ^ c[x] ^ d[y] ^ a[z],
        ]
    return out


ONCE = list(range(256))


def aes_encrypt(schedule, block):
    s = [x ^ k for x, k in zip(block, schedule[0])]
    for r in range(1, 11):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if r < 10:
            s = mix(s, TIMES[2], TIMES[3], ONCE, ONCE)
        s = [x ^ k for x, k in zip(s, schedule[r])]
    return bytes(s)


def aes_decrypt(schedule, block):
    s = [x ^ k for x, k in zip(block, schedule[10])]
    for r in range(9, -1, -1):
        s = [UNSBOX[s[(i - 4 * (i % 4)) % 16]] for i in range(16)]
        s = [x ^ k for x, k in zip(s, schedule[r])]
        if r > 0:
            s = mix(s, TIMES[14], TIMES[11], TIMES[13], TIMES[9])
    return bytes(s)


# --- POLYVAL (RFC 8452, section 3), from its definition ---

MODULUS = 1 << 128 | 1 << 127 | 1 << 126 | 1 << 121 | 1


def polyval(key, data):
    h = int.from_bytes(key, "little")
    total = 0
    for i in range(0, len(data), 16):
        total ^= int.from_bytes(data[i : i + 16], "little")  # a short one ends in zeros
        product = 0
        for bit in range(128):
            if h >> bit & 1:
                product ^= total << bit
        for _ in range(128):  # times x^-128
            if product & 1:
                product ^= MODULUS
            product >>= 1
        total = product
    return total.to_bytes(16, "little")


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


# --- one end of a layer (spec/layer.md) ---


class Layer:
    def __init__(self, keys, n, client):
        self.n, self.client = n, client
        self.prev = bytes(16)
        self.blocks = -(-(n - 16) // 16)
        self.set_keys(keys)

    def set_keys(self, keys):
        self.kb, self.ku = aes_schedule(keys[:16]), keys[16:32]
        self.k, self.b = aes_schedule(keys[32:48]), keys[48:64]
        self.nonce = keys[64:80]

    def prf(self, y, t, length):
        low = 0
        while 1 << low < self.blocks + 5:
            low += 1
        counter = int.from_bytes(polyval(self.b, y), "big") >> low << low
        counter += self.blocks * t
        stream = b""
        while len(stream) < length:
            stream += aes_encrypt(self.k, counter.to_bytes(16, "big"))
            counter += 1
        return stream[:length]

    def update(self):
        self.set_keys(self.prf(self.nonce, 1, 80))

    def encipher(self, ad, body):
        left, right = body[:16], body[16:]
        m = polyval(self.ku, self.prev + bytes([ad]) + right)
        left = xor(m, aes_encrypt(self.kb, xor(left, m)))
        self.prev = left
        return left + xor(right, self.prf(left, 0, len(right)))

    def decipher(self, ad, body):
        left, right = body[:16], body[16:]
        right = xor(right, self.prf(left, 0, len(right)))
        m = polyval(self.ku, self.prev + bytes([ad]) + right)
        self.prev = left
        return xor(m, aes_decrypt(self.kb, xor(left, m))) + right

    def crypt(self, ad, body):
        return self.decipher(ad, body) if self.client else self.encipher(ad, body)

    def seal(self, ad, body):
        body = self.crypt(ad, self.nonce + body[16:])
        if not self.client:
            self.nonce = self.prev
        self.update()
        return body

    def wrap(self, ad, body):
        return self.crypt(ad, body)

    def peel(self, ad, body):
        body = self.crypt(ad, body)
        ours = body[:16] == self.nonce
        if ours:
            if self.client:
                self.nonce = self.prev
            self.update()
        return body, ours


# --- the vectors ---


def shake(seed, length):
    return hashlib.shake_128(seed.encode()).digest(length)


def circuit(n, hops, cells):
    keys = []
    for i in range(hops):
        k = shake("keys of hop %d, bodies of %d" % (i + 1, n), 160)
        keys.append({"forward": k[:80], "backward": k[80:]})
    ends = {
        (end, way): [Layer(k[way], n, end == "client") for k in keys]
        for end in ("client", "relay")
        for way in ("forward", "backward")
    }
    out = []
    for number, (way, hop, ad) in enumerate(cells):
        seed = "cell %d, %d bytes" % (number + 1, n)
        body = shake(seed, n)
        steps = []

        def record(end, i, verb, ours=None):
            step = {"end": end, "hop": i + 1, "verb": verb}
            if ours is not None:
                step["ours"] = ours
            step["tag"] = body[:16].hex()
            step["sha256"] = hashlib.sha256(body).hexdigest()
            steps.append(step)

        maker, taker = ("client", "relay") if way == "forward" else ("relay", "client")
        if hop:
            body = ends[maker, way][hop - 1].seal(ad, body)
            record(maker, hop - 1, "seal")
            for i in range(hop - 2, -1, -1):
                body = ends[maker, way][i].wrap(ad, body)
                record(maker, i, "wrap")
        for i in range(hops):
            body, ours = ends[taker, way][i].peel(ad, body)
            record(taker, i, "peel", ours)
            if ours:
                assert i + 1 == hop and body[16:] == shake(seed, n)[16:]
                break
        else:
            assert not hop
        cell = {"way": way, "ad": ad, "seed": seed}
        if hop:
            cell["hop"] = hop
        out.append({**cell, "steps": steps})
    return {
        "n": n,
        "hops": [{way: k[way].hex() for way in k} for k in keys],
        "cells": out,
    }


def chain(n):
    layer = Layer(bytes(range(80)), n, False)
    body = bytes(i % 256 for i in range(n))
    for _ in range(3):
        body = layer.seal(3, body)
    return {"n": n, "tag": body[:16].hex()}


def main():
    relay, early = 3, 4  # command bytes
    talk = [
        ("forward", 1, early),
        ("backward", 1, relay),
        ("forward", 3, relay),
        ("forward", 3, relay),
        ("backward", 3, relay),
        ("forward", 2, relay),
        ("backward", 2, relay),
        ("backward", 3, relay),
        ("forward", 3, relay),
        ("backward", 3, relay),
    ]
    noise = [("forward", 0, relay), ("backward", 0, relay)]
    circuits = [
        circuit(33, 3, talk + noise),
        circuit(509, 3, talk + noise),
        circuit(1403, 3, talk + noise),
    ]
    lines = ["{", ' "circuits": [']
    for number, c in enumerate(circuits):
        lines.append('  {"n": %d,' % c["n"])
        lines.append('   "hops": [')
        lines.append(",\n".join("    " + json.dumps(h) for h in c["hops"]))
        lines.append("   ],")
        lines.append('   "cells": [')
        cells = []
        for cell in c["cells"]:
            steps = cell.pop("steps")
            head = "    " + json.dumps(cell)[:-1] + ', "steps": [\n'
            cells.append(head + ",\n".join("     " + json.dumps(s) for s in steps) + "]}")
        lines.append(",\n".join(cells))
        lines.append("   ]}" + ("," if number + 1 < len(circuits) else ""))
    lines += [" ],", ' "chains": [']
    lines.append(",\n".join("  " + json.dumps(chain(n)) for n in (509, 530, 1403)))
    lines += [" ]", "}"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    # FIPS 197, appendix C.1, and RFC 8452, appendix A
    key = bytes(range(16))
    assert aes_encrypt(aes_schedule(key), bytes(range(0, 256, 17))).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    assert aes_decrypt(aes_schedule(key), bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a")) == bytes(range(0, 256, 17))
    assert (
        polyval(
            bytes.fromhex("25629347589242761d31f826ba4b757b"),
            bytes.fromhex("4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362"),
        ).hex()
        == "f7a3b47b846119fae5b7866cf5e5b77e"
    )
    main()
