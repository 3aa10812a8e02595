"""Writes the frozen vectors of the hybrid handshake (spec/handshake.md).

    python3 spec/vectors/handshake.py > spec/vectors/handshake.json

An implementation of its own, apart from the Go code: X25519 (RFC 7748), AES-256-GCM
(FIPS 197, SP 800-38D), HKDF (RFC 5869), ML-KEM-768 (FIPS 203) and Noise NKpsk2 and
IKpsk2 (revision 34), from the standard library's hashes alone. It is slow and not
constant in time: it is for vectors, never for keys that matter.
"""

import hashlib
import hmac
import json
import sys

# --- X25519, RFC 7748 --------------------------------------------------------------

P = 2**255 - 19


def x25519(scalar, point):
    k = bytearray(scalar)
    k[0] &= 248
    k[31] &= 127
    k[31] |= 64
    k = int.from_bytes(k, "little")
    u = (int.from_bytes(point, "little") & (2**255 - 1)) % P
    x2, z2, x3, z3 = 1, 0, u, 1
    for t in reversed(range(255)):
        bit = (k >> t) & 1
        if bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = (aa - bb) % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
    shared = (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")
    assert shared != bytes(32), "low order"
    return shared


def public(scalar):
    return x25519(scalar, (9).to_bytes(32, "little"))


# --- AES-256, FIPS 197 -------------------------------------------------------------


def xtime(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def gmul(a, b):
    r = 0
    while b:
        if b & 1:
            r ^= a
        a, b = xtime(a), b >> 1
    return r


def make_sbox():
    box = []
    for x in range(256):
        inv = next((y for y in range(256) if gmul(x, y) == 1), 0)
        r = 0
        for i in range(8):
            bit = 0
            for j in (0, 4, 5, 6, 7):
                bit ^= inv >> ((i + j) % 8)
            r |= (bit & 1) << i
        box.append(r ^ 0x63)
    return box


SBOX = make_sbox()
MUL2 = [gmul(x, 2) for x in range(256)]
MUL3 = [gmul(x, 3) for x in range(256)]


def aes256_schedule(key):
    words = [list(key[4 * i : 4 * i + 4]) for i in range(8)]
    rcon = 1
    for i in range(8, 60):
        w = list(words[-1])
        if i % 8 == 0:
            w = [SBOX[x] for x in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon = xtime(rcon)
        elif i % 8 == 4:
            w = [SBOX[x] for x in w]
        words.append([a ^ b for a, b in zip(words[i - 8], w)])
    return [sum(words[4 * r : 4 * r + 4], []) for r in range(15)]


def aes_encrypt(schedule, block):
    s = [a ^ b for a, b in zip(block, schedule[0])]
    for r in range(1, 15):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]  # SubBytes, ShiftRows
        if r < 14:  # MixColumns
            t = []
            for c in range(0, 16, 4):
                for i in range(4):
                    a = s[c : c + 4]
                    t.append(MUL2[a[i]] ^ MUL3[a[(i + 1) % 4]] ^ a[(i + 2) % 4] ^ a[(i + 3) % 4])
            s = t
        s = [a ^ b for a, b in zip(s, schedule[r])]
    return bytes(s)


# --- GCM, SP 800-38D ---------------------------------------------------------------


def ghash(h, data):
    h = int.from_bytes(h, "big")
    y = 0
    for i in range(0, len(data), 16):
        x = y ^ int.from_bytes(data[i : i + 16], "big")
        y, v = 0, h
        for bit in range(127, -1, -1):
            if (x >> bit) & 1:
                y ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
    return y.to_bytes(16, "big")


def padded(b):
    return b + bytes(-len(b) % 16)


def seal(key, nonce, ad, plaintext):
    schedule = aes256_schedule(key)
    out = b""
    for i in range(0, len(plaintext), 16):
        stream = aes_encrypt(schedule, nonce + (i // 16 + 2).to_bytes(4, "big"))
        out += bytes(a ^ b for a, b in zip(plaintext[i : i + 16], stream))
    lengths = (8 * len(ad)).to_bytes(8, "big") + (8 * len(out)).to_bytes(8, "big")
    tag = ghash(aes_encrypt(schedule, bytes(16)), padded(ad) + padded(out) + lengths)
    mask = aes_encrypt(schedule, nonce + (1).to_bytes(4, "big"))
    return out + bytes(a ^ b for a, b in zip(tag, mask))


# --- HKDF, RFC 5869 ----------------------------------------------------------------


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def sha256(data):
    return hashlib.sha256(data).digest()


def hkdf_expand(prk, info, n):
    out, t, i = b"", b"", 1
    while len(out) < n:
        t = mac(prk, t + info + bytes([i]))
        out, i = out + t, i + 1
    return out[:n]


# --- ML-KEM-768, FIPS 203 ----------------------------------------------------------

Q, N, K, DU, DV = 3329, 256, 3, 10, 4


def bitrev7(i):
    return int(f"{i:07b}"[::-1], 2)


ZETA = [pow(17, bitrev7(i), Q) for i in range(128)]
GAMMA = [pow(17, 2 * bitrev7(i) + 1, Q) for i in range(128)]


def ntt(f):
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            for j in range(start, start + length):
                t = ZETA[i] * f[j + length] % Q
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
            i += 1
        length //= 2
    return f


def inverse_ntt(f):
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % Q
                f[j + length] = ZETA[i] * (f[j + length] - t) % Q
            i -= 1
        length *= 2
    return [x * 3303 % Q for x in f]


def multiply(f, g):
    h = [0] * N
    for i in range(128):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        h[2 * i] = (a0 * b0 + a1 * b1 * GAMMA[i]) % Q
        h[2 * i + 1] = (a0 * b1 + a1 * b0) % Q
    return h


def add(f, g):
    return [(a + b) % Q for a, b in zip(f, g)]


def dot(fs, gs):
    h = [0] * N
    for f, g in zip(fs, gs):
        h = add(h, multiply(f, g))
    return h


def sample_ntt(seed):
    n = 840
    while True:  # SHAKE is asked again for more when this was not enough
        stream, out = hashlib.shake_128(seed).digest(n), []
        for i in range(0, n, 3):
            d1 = stream[i] + 256 * (stream[i + 1] % 16)
            d2 = stream[i + 1] // 16 + 16 * stream[i + 2]
            out += [d for d in (d1, d2) if d < Q]
        if len(out) >= N:
            return out[:N]
        n *= 2


def prf_cbd2(seed, n):
    """SamplePolyCBD_2 of PRF_2(seed, n)."""
    b = int.from_bytes(hashlib.shake_256(seed + bytes([n])).digest(128), "little")
    bit = lambda i: (b >> i) & 1
    return [(bit(4 * i) + bit(4 * i + 1) - bit(4 * i + 2) - bit(4 * i + 3)) % Q for i in range(N)]


def encode(f, d):
    n = 0
    for i, x in enumerate(f):
        n |= x << (d * i)
    return n.to_bytes(32 * d, "little")


def decode(b, d):
    n = int.from_bytes(b, "little")
    return [(n >> (d * i)) & ((1 << d) - 1) for i in range(N)]


def compress(f, d):
    return [((x << d) * 2 + Q) // (2 * Q) % (1 << d) for x in f]


def decompress(f, d):
    return [(x * Q * 2 + (1 << d)) // (2 << d) for x in f]


def matrix(rho):
    return [[sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def kpke_keygen(d):
    g = hashlib.sha3_512(d + bytes([K])).digest()
    rho, sigma = g[:32], g[32:]
    a = matrix(rho)
    s = [ntt(prf_cbd2(sigma, i)) for i in range(K)]
    e = [ntt(prf_cbd2(sigma, K + i)) for i in range(K)]
    t = [add(dot(a[i], s), e[i]) for i in range(K)]
    return b"".join(encode(f, 12) for f in t) + rho, s


def kpke_encrypt(ek, m, r):
    t = [decode(ek[384 * i : 384 * i + 384], 12) for i in range(K)]
    a = matrix(ek[384 * K :])
    y = [ntt(prf_cbd2(r, i)) for i in range(K)]
    u = [add(inverse_ntt(dot([a[j][i] for j in range(K)], y)), prf_cbd2(r, K + i)) for i in range(K)]
    v = add(inverse_ntt(dot(t, y)), prf_cbd2(r, 2 * K))
    v = add(v, decompress(decode(m, 1), 1))
    return b"".join(encode(compress(f, DU), DU) for f in u) + encode(compress(v, DV), DV)


def kpke_decrypt(s, ct):
    c1 = 32 * DU
    u = [decompress(decode(ct[c1 * i : c1 * i + c1], DU), DU) for i in range(K)]
    v = decompress(decode(ct[c1 * K :], DV), DV)
    w = inverse_ntt(dot(s, [ntt(f) for f in u]))
    return encode(compress([(a - b) % Q for a, b in zip(v, w)], 1), 1)


def encaps(ek, m):
    g = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    return g[:32], kpke_encrypt(ek, m, g[32:])


def decaps(ek, s, z, ct):
    m = kpke_decrypt(s, ct)
    ss, again = encaps(ek, m)
    return ss if again == ct else hashlib.shake_256(z + ct).digest(32)


# --- Noise, revision 34 ------------------------------------------------------------


class Symmetric:
    def __init__(self, name, prologue):
        self.h = name + bytes(32 - len(name)) if len(name) <= 32 else sha256(name)
        self.ck, self.k, self.n = self.h, None, 0
        self.mix_hash(prologue)

    def hkdf(self, ikm, outputs):
        return [hkdf_expand(mac(self.ck, ikm), b"", 96)[32 * i : 32 * i + 32] for i in range(outputs)]

    def mix_hash(self, data):
        self.h = sha256(self.h + data)

    def mix_key(self, ikm):
        self.ck, self.k = self.hkdf(ikm, 2)
        self.n = 0

    def mix_key_and_hash(self, ikm):
        self.ck, temp, self.k = self.hkdf(ikm, 3)
        self.mix_hash(temp)
        self.n = 0

    def encrypt_and_hash(self, plaintext):
        out = seal(self.k, bytes(4) + self.n.to_bytes(8, "big"), self.h, plaintext)
        self.n += 1
        self.mix_hash(out)
        return out

    def split(self):
        return self.hkdf(b"", 2)


def handshake(name, pattern, prologue, payload):
    """One whole handshake as both sides compute it; chance comes from the case's name."""

    def seed(what, n=32):
        return hashlib.shake_256(f"peel handshake vector/{name}/{what}".encode()).digest(n)

    # Keys. What only one side can compute is asserted to be what the other computes.
    s_r, e_i, e_r, kem, m = seed("s_r"), seed("e_i"), seed("e_r"), seed("d|z", 64), seed("m")
    S_r, E_i, E_r = public(s_r), public(e_i), public(e_r)
    s_i = seed("s_i") if pattern == "IK" else b""
    S_i = public(s_i) if pattern == "IK" else b""
    ek, dk = kpke_keygen(kem[:32])

    def dh(a, b):
        secret = x25519(a, public(b))
        assert secret == x25519(b, public(a))
        return secret

    # Message 1.
    st = Symmetric(f"Noise_{pattern}psk2_25519_AESGCM_SHA256".encode(), prologue)
    st.mix_hash(S_r)
    request = E_i
    st.mix_hash(E_i)
    st.mix_key(E_i)  # a handshake with a psk mixes e in as a key as well
    st.mix_key(dh(e_i, s_r))
    if pattern == "IK":
        request += st.encrypt_and_hash(S_i)
        st.mix_key(dh(s_i, s_r))
    request += st.encrypt_and_hash(ek)
    h1 = st.h

    # Message 2.
    ss, ct = encaps(ek, m)
    assert decaps(ek, dk, kem[32:], ct) == ss
    psk = mac(ss, sha256(b"peel mlkem768 psk v1" + ek + ct))
    reply = ct + E_r
    st.mix_hash(E_r)
    st.mix_key(E_r)
    st.mix_key(dh(e_i, e_r))
    if pattern == "IK":
        st.mix_key(dh(s_i, e_r))
    st.mix_key_and_hash(psk)
    reply += st.encrypt_and_hash(payload)

    # Secrets.
    k1, k2 = st.split()
    prk = mac(st.h, k1 + k2)
    expand = [
        {"label": label, "bytes": hkdf_expand(prk, label.encode(), n).hex()}
        for label, n in [("peel circuit v1", 192), ("peel link v1", 64), ("", 32), ("x", 1), ("x", 33)]
    ]

    # A ciphertext that was altered: ML-KEM answers with another secret, not an error.
    bad_ct = bytes([ct[0] ^ 1]) + ct[1:]
    bad_ss = decaps(ek, dk, kem[32:], bad_ct)
    assert bad_ss != ss

    return {
        "name": name,
        "pattern": pattern,
        "prologue": prologue.hex(),
        "payload": payload.hex(),
        "responder_static": s_r.hex(),
        "responder_static_public": S_r.hex(),
        "initiator_static": s_i.hex(),
        "initiator_static_public": S_i.hex(),
        "initiator_ephemeral": e_i.hex(),
        "responder_ephemeral": e_r.hex(),
        "kem_seed": kem.hex(),
        "kem_message": m.hex(),
        "ek": ek.hex(),
        "request": request.hex(),
        "h1": h1.hex(),
        "ct": ct.hex(),
        "ss": ss.hex(),
        "rejected_ss": bad_ss.hex(),
        "psk": psk.hex(),
        "reply": reply.hex(),
        "h": st.h.hex(),
        "k1": k1.hex(),
        "k2": k2.hex(),
        "prk": prk.hex(),
        "expand": expand,
    }


def self_test():
    """Facts from the standards, so that a slip here is not frozen into the vectors."""
    hexed = bytes.fromhex
    assert (
        x25519(
            hexed("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            hexed("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        ).hex()
        == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    )  # RFC 7748, 5.2
    assert (
        aes_encrypt(aes256_schedule(bytes(range(32))), bytes(17 * i for i in range(16))).hex()
        == "8ea2b7ca516745bfeafc49904b496089"
    )  # FIPS 197, C.3
    assert (
        seal(bytes(32), bytes(12), b"", bytes(16)).hex()
        == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )  # GCM specification, test case 14
    assert (
        hkdf_expand(
            mac(bytes(range(13)), b"\x0b" * 22), hexed("f0f1f2f3f4f5f6f7f8f9"), 42
        ).hex()
        == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )  # RFC 5869, A.1


def main():
    self_test()
    cases = [
        handshake("nk-empty", "NK", b"", b""),
        handshake("nk-short", "NK", b"peel", b"\x00"),
        handshake("nk-parameters", "NK", bytes(range(120)), bytes(range(64))),
        handshake("nk-long", "NK", b"p" * 1000, b"\xff" * 1024),
        handshake("ik-empty", "IK", b"", b""),
        handshake("ik-parameters", "IK", bytes(range(97)), b"clock and address"),
        handshake("ik-long", "IK", b"\x80" * 333, bytes(1024)),
    ]
    json.dump(cases, sys.stdout, indent=1)
    print()


main()
