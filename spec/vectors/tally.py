#!/usr/bin/env python3
"""Test vectors of the tally (spec/voting.md, section 6), by a second implementation.

It is for checking other implementations and for nothing else: it
verifies no signature, and takes it that votes are well-formed. Python's standard library alone.

    python3 spec/vectors/tally.py spec/vectors/tally.json

writes the file again, with each "consensus" computed from the "votes" beside it: the text
of the header and of the entries, without signatures; "" when too few votes count. The votes
are those that count, in any order. "start" and "period" are in seconds.
"""

import base64
import datetime
import hashlib
import ipaddress
import json
import sys
from collections import Counter, defaultdict

FLAGS = "BadExit Exit Fast Guard HSDir MiddleOnly Running Stable Valid".split()
NOT_SAID = "addresses flags bandwidth descriptor published measured".split()  # by the descriptor


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def identity(text):
    return base64.b32decode(text.upper() + "====")


def network_id(network):  # spec/directory.md, section 3
    lines = ["peel network id v1", "name " + network["name"], f"threshold {network['threshold']}"]
    lines += ["authority " + a for a in sorted(network["authorities"], key=identity)]
    return sha("".join(line + "\n" for line in lines).encode())


def low_median(values):
    return sorted(values)[(len(values) - 1) // 2]


class Vote:
    def __init__(self, text):
        self.params, self.shared, self.commits, self.entries = {}, [], [], {}
        entry = None
        for line in text.splitlines():
            word, *rest = line.split(" ")
            if word == "relay":
                entry = self.entries[identity(rest[0])] = {"flags": [], "measured": [], "said": ""}
            if entry is not None:
                if word == "signature":
                    break
                if word in NOT_SAID:
                    entry[word] = rest
                else:
                    entry["said"] += line + "\n"
            elif word == "param":
                self.params[rest[0]] = int(rest[1])
            elif word == "known-flags":
                self.known = rest
            elif word in ("shared-random-previous", "shared-random-current"):
                self.shared.append((int(rest[0]), int(rest[1]), bytes.fromhex(rest[2])))
            elif word == "shared-random-commit":
                self.commits.append((int(rest[0]), identity(rest[1]), *map(bytes.fromhex, rest[2:])))


def tally(network, valid_after, votes):
    n, threshold = len(network["authorities"]), network["threshold"]
    net = network_id(network)
    faults = (n - 1) // 3
    honest = max(n - threshold, faults) + 1
    if len(votes) < threshold:
        return ""
    params = defaultdict(list)
    for v in votes:
        for name, value in v.params.items():
            params[name].append(value)
    params = {k: low_median(x) for k, x in params.items() if 2 * len(x) > len(votes)}
    listed = Counter(i for v in votes for i in v.entries)
    relays = [relay(votes, i, honest, max(min(3, n), 2 * faults + 1)) for i in sorted(listed) if 2 * listed[i] > len(votes)]
    relays = [r for r in relays if r]
    if 4 * sum(r["by measure"] for r in relays) >= len(relays):
        for r in relays:
            if not r["by measure"]:
                r["bandwidth"] = min(r["bandwidth"], 100_000)
    limit = min(max(params.get("relays-per-address", 2), 1), 1024)
    taken, kept = Counter(), []
    for r in sorted(relays, key=lambda r: (-r["running"], -r["bandwidth"], r["id"])):
        places = [ipaddress.ip_network((a, 32 if a.version == 4 else 64), strict=False) for a, _ in r["addresses"]]
        if all(taken[p] < limit for p in places):
            taken.update(places)
            kept.append(r)
    kept.sort(key=lambda r: r["id"])
    texts = [entry_text(r) for r in kept]
    period = network["period"]
    header = ["peel-consensus 1", "network " + net.hex(), "method 1"]
    for name, later in ("valid-after", 0), ("fresh-until", 1), ("valid-until", 3):
        at = datetime.datetime.fromtimestamp(valid_after + later * period, datetime.timezone.utc)
        header.append(f"{name} {at:%Y-%m-%dT%H:%M:%SZ}")
    header += [f"param {k} {params[k]}" for k in sorted(params)]
    run = (valid_after - network["start"]) // period // 24 + 1
    for name, (r, reveals, value) in zip(("previous", "current"), shared_random(net, threshold, run, votes, honest)):
        header.append(f"shared-random-{name} {r} {reveals} {value.hex()}")
    header.append("weights " + " ".join(f"{k}={w}" for k, w in sorted(weights(kept).items())))
    header += [f"relays {len(kept)}", "root " + root([sha(b"\0", t.encode()) for t in texts]).hex()]
    return "\n".join(header) + "\n" + "".join(texts)


def relay(votes, who, honest, measurers):
    about = [(v, v.entries[who]) for v in votes if who in v.entries]
    know = Counter(f for v, _ in about for f in v.known)
    give = Counter(f for _, e in about for f in e["flags"])
    flags = [f for f in FLAGS if 2 * give[f] > know[f] and give[f] >= honest]
    if "Running" not in flags or "Valid" not in flags:
        return None
    groups = defaultdict(list)
    for _, e in about:
        groups[e["said"]].append(e)
    said = max(groups, key=lambda s: (len(groups[s]), max((e["published"], e["descriptor"]) for e in groups[s]), s))
    if len(groups[said]) < honest:
        return None
    seen = Counter(address(a) for e in groups[said] if "Running" in e["flags"] for a in e["addresses"])
    addresses = []
    for version in (4, 6):
        best = [(-k, a) for a, k in seen.items() if k >= honest and a[0].version == version]
        if best:
            addresses.append(min(best)[1])
    if not addresses:
        return None
    bandwidths = sorted(int(e["bandwidth"][0]) for _, e in about)
    measured = [int(e["measured"][0]) for _, e in about if e["measured"]]
    by_measure = len(measured) >= measurers
    bandwidth = low_median(measured) if by_measure else min(low_median(bandwidths), bandwidths[-honest])
    return {"id": who, "said": said, "addresses": addresses, "flags": flags, "bandwidth": bandwidth,
            "by measure": by_measure, "running": give["Running"]}


def address(text):
    host, port = text.rsplit(":", 1)
    return ipaddress.ip_address(host.strip("[]")), int(port)


def entry_text(r):
    first, link, onion, rest = r["said"].split("\n", 3)
    places = " ".join((f"{a}:{p}" if a.version == 4 else f"[{a}]:{p}") for a, p in r["addresses"])
    flags, bandwidth = " ".join(["flags"] + r["flags"]), r["bandwidth"]
    return f"{first}\naddresses {places}\n{link}\n{onion}\n{flags}\nbandwidth {bandwidth}\n{rest}"


def root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha(b"\1", root(leaves[:k]), root(leaves[k:]))


def shared_random(net, threshold, run, votes, honest):
    said = Counter(tuple(v.shared) for v in votes if v.shared)
    pairs = [(p[1][0], k, p[1][2], p[0][2], p[1][1], p[0][1], p) for p, k in said.items() if k >= honest and p[1][0] <= run]
    previous, current = max(pairs)[-1] if pairs else ((0, 0, bytes(32)), (-1, 0, bytes(32)))
    if current[0] == run:
        return previous, current
    before = current if current[0] == run - 1 else fallback(net, run - 1, current[2])
    count, reveals = Counter(), {}
    for v in votes:
        for r, who, commit, *reveal in v.commits:
            if r == run - 1:
                count[who, commit] += 1
                if reveal:
                    reveals[who, commit] = reveal[0]
    good = sorted((who, reveals[who, c]) for who, c in reveals if count[who, c] >= threshold)
    if len(good) < honest:
        return before, fallback(net, run, before[2])
    parts = [b"peel shared random v1\n", net, run.to_bytes(8, "big"), before[2]]
    return before, (run, len(good), sha(*parts, *(x for pair in good for x in pair)))


def fallback(net, run, before):
    return run, 0, sha(b"peel shared random fallback v1\n", net, run.to_bytes(8, "big"), before)


def weights(relays):  # spec/directory.md, section 8
    one, sums = 10000, {"g": 0, "e": 0, "d": 0, "m": 0}
    for r in relays:
        guard, leave = "Guard" in r["flags"], "Exit" in r["flags"] and "BadExit" not in r["flags"]
        sums["m" if "MiddleOnly" in r["flags"] else "mged"[guard + 2 * leave]] += r["bandwidth"]
    g, e, d, m = (max(x, 1) for x in (sums[k] for k in "gedm"))  # never near 2^44 here
    t, s, part = g + e + d + m, min(g, e), lambda a, b: a * one // b if a >= 0 else -(-a * one // b)
    wgg = wee = one
    wmg = wme = wmd = wgd = wed = 0
    if 3 * e >= t and 3 * g >= t:
        wgd = wed = wmd = one // 3
        wee, wmg = part(e + g + m, 3 * e), part(2 * g - e - m, 3 * g)
        wme, wgg = one - wee, one - wmg
    elif 3 * e < t and 3 * g < t:
        if s + d < max(g, e):
            wed, wgd = (one, 0) if e < g else (0, one)
        else:
            wee, wed, wme = part(e - g + m, e), part(d - 2 * e + 4 * g - 2 * m, 3 * d), part(g - m, e)
            wmd = wgd = (one - wed) // 2
            if not all(0 <= w <= one for w in (wee, wed, wme, wmd)):
                wee, wme = one, 0
                wed, wmd = part(d - 2 * e + g + m, 3 * d), max(part(d - 2 * m + g + e, 3 * d), 0)
                wgd = one - wed - wmd
                if not all(0 <= w <= one for w in (wed, wmd, wgd)):
                    wmd, wed = 0, part(g - e + d, 2 * d)
                    wgd = one - wed
    elif 3 * (s + d) < t:
        if s == g:
            wgd, wme = one, part(e - m, 2 * e) if e >= m else 0
            wee = one - wme
        else:
            wed, wmg = one, part(g - m, 2 * g) if g >= m else 0
            wgg = one - wmg
    elif s == g:
        wgd, wee = part(d - 2 * g + e + m, 3 * d), part(e + m, 2 * e)
        wme, wmd = one - wee, (one - wgd) // 2
        wed = wmd
    else:
        wed, wgg = part(d - 2 * e + g + m, 3 * d), part(g + m, 2 * g)
        wmg, wmd = one - wgg, (one - wed) // 2
        wgd = wmd
    return {"Wgg": wgg, "Wgm": wgg, "Wgd": wgd, "Wmg": wmg, "Wmm": one, "Wme": wme, "Wmd": wmd,
            "Weg": wed, "Wem": wee, "Wee": wee, "Wed": wed}


def main():
    with open(sys.argv[1]) as f:
        cases = json.load(f)
    for c in cases:
        c["consensus"] = tally(c["network"], c["valid_after"], [Vote(v) for v in c["votes"]])
    json.dump(cases, sys.stdout, indent=1)
    print()


main()
